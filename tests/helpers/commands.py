"""Processes that tests start, and what a refused command looks like."""

import os
import subprocess
import sys
import textwrap

from places import ROOT


DVFLNET = (sys.executable, "-m", "dvflnet_cli")
LAUNCH = (sys.executable, "-m", "accelerate.commands.launch")  # as `accelerate launch`, and options follow


def start(*words: object, cwd=None, **environment: str) -> subprocess.Popen:
    """Start a program that imports the package from this folder, with a thread of its own and pipes for its output."""
    own = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(list(map(str, words)), cwd=cwd, env={**os.environ, **own, **environment}, **pipes)


def finished(process: subprocess.Popen) -> str:
    """What a process printed, which must succeed."""
    out, err = process.communicate(timeout=400)
    assert process.returncode == 0, err
    return out


def run(code: str, cwd, **environment: str) -> str:
    """Run code in a process of its own."""
    return finished(start(sys.executable, "-c", textwrap.dedent(code), cwd=cwd, **environment))


def refused(result: tuple[int, str, str], *reasons: str, code: int = 1):
    """The exit code is 1, and one line on stderr gives the reasons."""
    assert result[:2] == (code, ""), result
    assert len(result[2].splitlines()) == 1
    assert all(reason in result[2] for reason in reasons), result[2]


def misused(result: tuple[int, str, str], *reasons: str):
    """The command line is wrong: the exit code is 2."""
    refused(result, *reasons, code=2)
