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


def refused(result: tuple[int, str, str], *reasons: str, code: int = 1):
    """The exit code is 1, and one line on stderr gives the reasons."""
    assert result[:2] == (code, ""), result
    assert len(result[2].splitlines()) == 1
    assert all(reason in result[2] for reason in reasons), result[2]


def misused(result: tuple[int, str, str], *reasons: str):
    """The command line is wrong: the exit code is 2."""
    refused(result, *reasons, code=2)
