"""Decodes many videos in worker processes, and continues when a video crashes its decoder."""

import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing import get_context, parent_process
from typing import Any

import torch

from ..video_limits import VideoLimits, set_video_limits, video_limits


LOST = "the process that read this video ended: its decoder crashed, or it was killed, possibly for lack of memory"


def map_in_processes(
    function: Callable[[Any], Any],
    jobs: Iterable[Any],
    num_workers: int | None,
    lost: Callable[[Any], Any],
    *,
    ahead: int = 4,
) -> Generator[Any, None, None]:
    """
    Results of `function` for all jobs, in the order of the jobs.

    A video that crashes its decoder ends the worker process, and the pool does not report which video it was. The jobs
    in progress are then run again, one at a time. If a job ends its process a second time, its result is that of
    `lost`, and the remaining jobs continue.

    Args:
        function: A module-level function, since it runs in other processes.
        jobs: Taken as needed: `ahead` per process are in progress.
        num_workers: Number of processes, by default one per core; 0 runs the jobs in the current process.
        lost: Makes the result of a job that ended its process twice.
        ahead: Number of jobs per process that are in progress or whose results wait.

    Raises:
        BrokenProcessPool: If no process can be started at all.
    """
    if num_workers == 0:
        yield from map(function, jobs)
        return
    number = num_workers or os.cpu_count() or 1
    pool, alone = spawn_pool(number), None
    waiting: deque[tuple[Any, Future, ProcessPoolExecutor]] = deque()
    jobs = iter(jobs)
    try:
        while True:
            for job in islice(jobs, ahead * number - len(waiting)):
                waiting.append((job, _submit(pool, function, job), pool))
            if not waiting:
                return
            job, future, its_pool = waiting.popleft()
            try:
                result = future.result()
            except BrokenProcessPool:
                if its_pool is pool:
                    pool = spawn_pool(number)
                if alone is None:
                    alone = spawn_pool(1)
                    alone.submit(os.getpid).result()  # raises if no process can be started
                try:
                    result = alone.submit(function, job).result()
                except BrokenProcessPool:
                    alone, result = None, lost(job)
            yield result
    finally:
        for one in (pool, alone):
            if one is not None:
                one.shutdown(cancel_futures=True)


class ChildProcess:
    """
    A child process that runs one job at a time, inside a worker of a scheduler that must not see decoders crash.

    It is started for the first job and stays for the next ones. It ends with the current process.
    """

    def __init__(self):
        self._pool: ProcessPoolExecutor | None = None

    def run(self, function: Callable[[Any], Any], job: Any, lost: Callable[[Any], Any]) -> Any:
        """Result of a job, or that of `lost` if the job ended its process twice, as in [`map_in_processes`]."""
        for _ in range(2):
            if self._pool is None:
                self._pool = spawn_pool(1)
                self._pool.submit(os.getpid).result()  # raises if no process can be started
            try:
                return self._pool.submit(function, job).result()
            except BrokenProcessPool:
                self._pool = None
        return lost(job)


def spawn_pool(number: int | None) -> ProcessPoolExecutor:
    """Pool of single-threaded processes, by default one per core, that end with this one and have its limits."""
    # spawned: a forked process cannot use torch's threads if the parent process has already used them
    return _Pool(number, get_context("spawn"), initializer=_set_up, initargs=(video_limits(),))


class _Pool(ProcessPoolExecutor):
    """
    A pool whose workers leave Ctrl-C to this process, which then ends them; a terminal sends it to all processes.

    A worker inherits the signals that are blocked when it is started, which is when a job is submitted.
    """

    def submit(self, *job: Any, **options: Any) -> Future:
        blocks = hasattr(signal, "pthread_sigmask")  # not on Windows
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT]) if blocks else None
        try:
            return super().submit(*job, **options)
        finally:
            if before is not None:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _set_up(limits: VideoLimits):
    # otherwise a worker whose parent is killed waits for work forever
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    set_video_limits(limits)


def _end_with_parent():
    parent = parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)


def _submit(pool: ProcessPoolExecutor, function: Callable[[Any], Any], job: Any) -> Future:
    try:
        return pool.submit(function, job)
    except BrokenProcessPool as error:  # broken by an earlier job
        future: Future = Future()
        future.set_exception(error)
        return future
