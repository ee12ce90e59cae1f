"""Peak memory of a call, measured in a process of its own."""

import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path


# glibc keeps much of what was freed, unless blocks are mapped: then only what is in use counts
ALLOCATORS: dict[str, dict[str, str]] = {"resident": {}, "in use": {"MALLOC_MMAP_THRESHOLD_": "1000000"}}


def added_memory(call: Callable[[], object]) -> float:
    """Peak memory of a call less what was there before it, model and clip above all, in MB, in this process."""
    before = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far, that of making the model
    call()
    status = Path("/proc/self/status").read_text()
    return (int(status.partition("VmHWM:")[2].split()[0]) * 1024 - before) / 1e6


def measured_memory(script: str, name: str) -> dict[str, float]:
    """What a script prints that is told to measure the [`added_memory`] of `name`, with each allocator."""
    words = [sys.executable, script, "--memory", name]
    return {
        kind: float(
            subprocess.run(  # noqa: S603
                words, check=True, capture_output=True, text=True, env={**os.environ, **tunables}
            ).stdout.split()[-1]
        )
        for kind, tunables in ALLOCATORS.items()
    }
