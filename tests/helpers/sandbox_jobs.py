"""Functions that tests call in a sandbox."""

import os
import signal
import sys
import time
from functools import partial
from pathlib import Path

from hf_dvflnet.clip_sampling import evaluation_indices
from hf_dvflnet.data.frames import open_frames
from hf_dvflnet.video_decoding import VideoDecodeError, read_video


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


def read_both_ways(video, limits):
    """Read a clip, and all frames one by one: `frames`, `refused`, or an error that no video should raise."""
    sample = partial(evaluation_indices, num_frames=8)
    found = "refused"
    for read in (
        lambda: read_video(video, lambda info: sample(info.total_num_frames), limits=limits),
        lambda: read_all(video, limits),
    ):
        try:
            read()
            found = "frames"
        except VideoDecodeError as error:
            if not str(error).startswith(str(video)):
                return f"a VideoDecodeError without the file's name: {error}"
        except Exception as error:
            return f"{type(error).__name__}: {error}"
    return found


def read_all(video, limits):
    with open_frames(video, limits) as (_, frames):
        for _ in frames:
            pass
