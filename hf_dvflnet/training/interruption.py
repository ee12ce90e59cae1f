"""Signal handling of a run: records SIGTERM and Ctrl-C, and keeps the data loading workers alive through them."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any


IGNORED = (signal.SIGTERM, signal.SIGINT)  # by the workers of a data loader


class Interruption:
    """
    Records the signals that ask a process to stop. The trainer checks for them between two steps.

    Attributes:
        told: The signal that this process has received; 0 if none.
        agreed: The signal for which all processes have agreed to stop; 0 if none.
    """

    def __init__(self):
        self.told = self.agreed = 0

    @contextmanager
    def heeded(self, say: bool) -> Iterator[None]:
        """
        Context manager that records SIGTERM and Ctrl-C. A second Ctrl-C raises `KeyboardInterrupt` at once.

        Args:
            say: Whether to print to stderr that training stops after the current step.
        """
        self.told = self.agreed = 0
        first = 0.0

        def note(number: int, frame: object):
            nonlocal first
            # a launcher forwards a Ctrl-C that the terminal has sent to all processes: within 1 s they count as one
            if number == signal.SIGINT and self.told and time.monotonic() - first > 1:
                raise KeyboardInterrupt
            if not self.told:
                self.told, first = int(number), time.monotonic()
                if say:  # the signal may have interrupted a logger, which is not reentrant
                    os.write(2, f"\n{signal.Signals(number).name}: training stops after this step\n".encode())

        before: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():  # only the main thread can set handlers
            for number in (signal.SIGTERM, signal.SIGINT):
                if signal.getsignal(number) != signal.SIG_IGN:
                    before[number] = signal.signal(number, note) or signal.SIG_DFL
        try:
            yield
        finally:
            for told, handler in before.items():
                signal.signal(told, handler)


def let_workers_outlive_signals(loader: Any):
    """
    Make the workers of a DataLoader ignore SIGTERM and Ctrl-C, so that only SIGKILL ends them. Forked workers only.

    A scheduler sends SIGTERM to all processes of a job, and a terminal sends Ctrl-C to all of them. Without its
    workers the training could not finish the current step.
    """
    if multiprocessing.get_start_method() == "fork" and loader.multiprocessing_context is None:
        loader.multiprocessing_context = _deaf_workers()
        loader.worker_init_fn = partial(_start_deaf_worker, loader.worker_init_fn)


def _deaf_workers() -> multiprocessing.context.BaseContext:
    class Worker(multiprocessing.context.ForkProcess):
        def start(self):
            # torch gives a worker a handler of SIGTERM that ends it; no signal may come before the worker ignores them
            before = signal.pthread_sigmask(signal.SIG_BLOCK, IGNORED)
            try:
                super().start()
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
            # at exit, a process sends its daemons SIGTERM without calling `Process.terminate`, and waits for them
            self._popen.terminate = self._popen.kill  # type: ignore[attr-defined]

    class Workers(multiprocessing.context.ForkContext):
        Process = Worker

    return Workers()


def _start_deaf_worker(also: Callable[[int], None] | None, worker: int):
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)  # drops those that came meanwhile
    signal.pthread_sigmask(signal.SIG_UNBLOCK, IGNORED)
    if also is not None:
        also(worker)


__all__ = ["Interruption", "let_workers_outlive_signals"]
