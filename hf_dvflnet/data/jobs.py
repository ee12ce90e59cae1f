"""Runs jobs that decode videos, each in a sandbox: on this machine, or on a Ray cluster."""

import logging
import os
import socket
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from functools import partial
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from ..video_decoding import VideoWarning
from . import sandbox
from .limits import VideoLimits, worker_limits


RETRIES = 5  # of a task or an actor of Ray whose worker or node is lost
AHEAD = 4  # tasks in progress per core of a cluster

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
    Run calls in threads, each of which has a sandbox of its own (`sandbox.py`) and calls `setup` at its start. With 0
    threads, each call runs in the calling thread, when its result is asked for.

    Calls are taken as needed: `ahead` per thread run or have results that wait. Yields a function for each call, in
    order, which waits for the call and returns its result or raises its exception.
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


def map_jobs(
    function: Callable[[Any, VideoLimits], Any], jobs: Iterable[Any], num_workers: int | None
) -> Generator[Any, None, None]:
    """
    The results of a function for each job and the limits in force, in the order of the jobs, taken as needed.

    `num_workers` is the number of sandboxes, by default one per CPU; with 0, the work is done in this process.
    """
    num_workers = default_workers() if num_workers is None else num_workers
    limits = worker_limits(num_workers)
    with (
        quiet_videos(),
        closing(run_ahead((partial(function, job, limits) for job in jobs), num_workers, 4)) as results,
    ):
        for result in results:
            yield result()


@contextmanager
def quiet_videos() -> Iterator[None]:
    """Do not print warnings about videos: the rows contain them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", VideoWarning)
        yield


def map_on_ray(
    function: Callable[[Any, VideoLimits], Any], jobs: Iterable[Any], num_cpus: int = 1, num_gpus: int = 0
) -> Generator[Any, None, None]:
    """The results of a function for each job, in order, by tasks on the cluster that this process is connected to."""
    import ray

    run = ray.remote(num_cpus=num_cpus, num_gpus=num_gpus, max_retries=RETRIES)(_run)
    shared = ray.put((function, os.getcwd(), worker_limits(1)))
    jobs, waiting = iter(jobs), deque[Any]()
    try:
        while True:
            cores = max(1, int(ray.cluster_resources().get("CPU", 0)))  # nodes come and go
            waiting.extend(run.remote(shared, job) for job in islice(jobs, max(0, AHEAD * cores - len(waiting))))
            if not waiting:
                return
            yield ray.get(waiting.popleft())
    finally:
        for task in waiting:
            ray.cancel(task)


def _run(shared: tuple[Callable[[Any, VideoLimits], Any], str, VideoLimits], job: Any) -> Any:
    """Do a job, on any machine, in the folder of the command, where relative paths begin, and with its limits."""
    function, folder, limits = shared
    if not os.path.isdir(folder):
        raise FileNotFoundError(
            f"{folder}: is the folder of the command, which is not on {socket.gethostname()}; run the command in a "
            "folder that all nodes of the cluster see"
        )
    os.chdir(folder)
    with quiet_videos():
        return function(job, limits)


@contextmanager
def connected(address: str) -> Iterator[None]:
    """
    A connection to a Ray cluster, with the address and the errors of `predict_to_file`. What a task raises is raised
    here. If Ray is already connected, it stays so.
    """
    if find_spec("ray") is None:
        raise ImportError("--ray needs Ray: pip install 'hf_dvflnet[ray]'")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray

    mine = not ray.is_initialized()
    if mine:
        _connect(address)
    try:
        yield
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None  # without the traces of Ray
    except ray.exceptions.RayError as error:
        lines = str(error).strip().splitlines() or ["no reason given"]
        reason = lines[-1] if "ray::" in lines[0] else lines[0]  # after a trace, the last line is the error
        raise OSError(
            f"Ray gave up with {type(error).__name__}: {reason} (what is finished is kept: run the same again)"
        ) from error
    finally:
        if mine:
            ray.shutdown()


def _connect(address: str):
    import ray

    where = os.environ.get("RAY_ADDRESS", address) if address == "auto" else address
    if "://" in where:
        raise ValueError(f"{where}: is the address of a Ray client; run this on a machine of the cluster, with auto")
    options: dict[str, Any] = {"include_dashboard": False} if where == "local" else {}
    try:
        if where not in ("auto", "local"):  # Ray itself tries for minutes, and may end this process
            host, _, port = where.rpartition(":")
            if not host or not port.isdecimal():
                raise ValueError(f"{where}: is not the address of a Ray cluster, which is auto, local or HOST:PORT")
            socket.create_connection((host, int(port)), timeout=10).close()
        ray.init(where, log_to_driver=False, logging_level=logging.WARNING, **options)
    except (OSError, OverflowError, RuntimeError) as error:  # a port may be too large
        raise ConnectionError(
            f"no Ray cluster answers at {where} ({' '.join(str(error).split())}); start one with `ray start --head`, "
            "or use the address local"
        ) from error
