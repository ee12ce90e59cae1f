"""Runs calls in threads, a few ahead of what consumes their results."""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from . import sandbox


T = TypeVar("T")


def cpu_count() -> int:
    """Number of CPUs that this process may use by its affinity (`taskset`) and its cgroup's quota (containers)."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with suppress(OSError, ValueError):  # cgroup v2: "MICROSECONDS PERIOD", or "max PERIOD"
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        count = min(count, max(1, round(int(quota) / int(period))))
    return count


def default_workers() -> int:
    """One for each CPU, shared by the processes that a launcher started on this machine."""
    return max(1, cpu_count() // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))


def run_ahead(
    calls: Iterable[Callable[[], T]], num_workers: int, ahead: int = 2, setup: Callable[[], object] | None = None
) -> Generator[Callable[[], T], None, None]:
    """
    Run calls in threads. Each thread has a sandbox of its own, in which it decodes (`sandbox.py`).

    Args:
        calls: Taken as needed.
        num_workers: Number of threads. With 0, each call runs in the calling thread, when its result is asked for.
        ahead: Number of calls per thread that run or whose results wait.
        setup: Called by each thread at its start.

    Yields:
        A function for each call, in order, which waits for the call and returns its result or raises its exception.
    """
    if not num_workers:
        yield from calls
        return
    pool = ThreadPoolExecutor(num_workers, initializer=setup)
    running: deque = deque()
    try:
        for call in calls:
            running.append(pool.submit(call))
            if len(running) > ahead * num_workers:
                yield running.popleft().result
        while running:
            yield running.popleft().result
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        if any(not future.done() for future in running):  # stopped early: do not wait for videos that nobody asks for
            sandbox.end_work({thread.ident for thread in pool._threads})
        pool.shutdown()


__all__ = ["cpu_count", "run_ahead"]
