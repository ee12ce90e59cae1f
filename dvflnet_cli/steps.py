"""Runs commands in processes of their own, for the commands that consist of others."""

import json
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import Any


def step(*words: Any, allow: int = 0, **options: Any):
    """
    Run a command in a process of its own, and show on stderr how it was called.

    Raises:
        ValueError: If the exit code is above `allow`, or the process was killed.
    """
    _run(words, options, allow)


def ask(*words: Any, **options: Any) -> dict[str, Any]:
    """Like `step`, for a command that answers with a line of JSON."""
    return json.loads(_run([*words, "--json"], options, stdout=subprocess.PIPE).splitlines()[-1])


def _run(words: Sequence[Any], options: dict[str, Any], allow: int = 0, stdout: int | None = None) -> str:
    line = [*map(str, words), *(str(word) for name, value in options.items() for word in (f"--{name}", value))]
    print(f"\n$ dvflnet {shlex.join(line)}", file=sys.stderr, flush=True)
    # in a group of its own: a signal to us or from the terminal reaches it once, and we wait while it saves its state
    child = subprocess.Popen(  # noqa: S603 (our own program)
        [sys.executable, "-m", "dvflnet_cli", *line], stdout=stdout, text=True, process_group=0
    )
    received = []

    def pass_on(number: int, _: Any):
        received.append(number)
        child.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        out, _ = child.communicate()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if received:
        raise KeyboardInterrupt
    if not 0 <= child.returncode <= allow:
        raise ValueError(f"stopped, as `{line[0]}` failed; see above. The same command continues here")
    return out
