"""Runs code in a process of its own, and says what a refused command looks like."""

import os
import subprocess
import sys
import textwrap


def run(code: str, cwd, **environment: str) -> str:
    process = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert process.returncode == 0, process.stderr
    return process.stdout


def refused(result: tuple[int, str, str], *reasons: str):
    """The exit code is not 0, and one line on stderr gives the reasons."""
    code, out, err = result
    assert code == 1
    assert out == ""
    assert len(err.splitlines()) == 1
    assert all(reason in err for reason in reasons), err
