"""Functions that tests call in a sandbox."""

import os
import signal
import sys
import time
from pathlib import Path


def modules(video, limits):
    return sorted(sys.modules)


def crash(video, limits):
    os.kill(os.getpid(), signal.SIGSEGV)


def crash_once(video, limits, marker):
    if not Path(marker).exists():
        Path(marker).touch()
        os.kill(os.getpid(), signal.SIGSEGV)
    return "done"


def wait(video, limits):
    time.sleep(60)


def compute(video, limits):
    while True:
        pass


def allocate(video, limits):
    return len(bytearray(8 << 30))


def process(video, limits):
    return os.getpid()
