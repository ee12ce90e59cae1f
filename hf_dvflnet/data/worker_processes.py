"""Worker processes that decode many videos, and survive videos that crash a decoder."""

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing import get_context, parent_process
from typing import Any

import torch

from ..video_limits import VideoLimits, set_video_limits, video_limits


LOST = "the process that read it ended: its decoder crashed, or it was killed, perhaps because memory ran out"


def map_in_processes(
    function: Callable[[Any], Any], jobs: Iterable[Any], num_workers: int | None, lost: Callable[[Any], Any]
) -> Iterator[Any]:
    """
    What `function` returns for each job, in the order of the jobs.

    A video whose decoder crashes takes its process along, and nobody hears which video it was. What was under way is
    then done again, one job after the other; what ends its process once more is answered with `lost`, and the rest
    goes on.

    Args:
        function: Of a module, since it runs elsewhere.
        jobs: Taken as they are needed: four a process are under way.
        num_workers: Processes, by default one per core; 0 works in this one.
        lost: Makes the result of a job that ended its process twice.

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
            for job in islice(jobs, 4 * number - len(waiting)):
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
                    alone.submit(os.getpid).result()  # where nothing can be started, that is no job's fault
                try:
                    result = alone.submit(function, job).result()
                except BrokenProcessPool:
                    alone, result = None, lost(job)
            yield result
    finally:
        for one in (pool, alone):
            if one is not None:
                one.shutdown(cancel_futures=True)


def spawn_pool(number: int | None) -> ProcessPoolExecutor:
    """Processes of one thread each, by default one per core, which end with this one and have its limits."""
    # spawned, since a forked process may not use the threads of a torch that has used them already
    return ProcessPoolExecutor(number, get_context("spawn"), initializer=_set_up, initargs=(video_limits(),))


def _set_up(limits: VideoLimits):
    # else a worker whose parent is killed waits for work for ever
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
    except BrokenProcessPool as error:  # by a job before
        future: Future = Future()
        future.set_exception(error)
        return future
