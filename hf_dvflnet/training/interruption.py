"""How a run is told to stop: SIGTERM and Ctrl-C are noted, and the loader's workers outlive them."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any


class Interruption:
    """
    Notes the signals that tell a process to stop, for the training to look at between two steps.

    Attributes:
        told: The signal that this process was told, 0 if none.
        agreed: The signal that all processes have agreed to stop by, 0 if none.
    """

    def __init__(self):
        self.told = self.agreed = 0

    @contextmanager
    def heeded(self, say: bool) -> Iterator[None]:
        """
        Within, SIGTERM and Ctrl-C are noted. A second Ctrl-C raises `KeyboardInterrupt` at once.

        Args:
            say: Write on stderr that the run stops after this step.
        """
        self.told = self.agreed = 0
        first = 0.0

        def note(number: int, frame: object):
            nonlocal first
            # a launcher passes on the Ctrl-C that the terminal has already told everybody of
            if number == signal.SIGINT and self.told and time.monotonic() - first > 1:
                raise KeyboardInterrupt
            if not self.told:
                self.told, first = int(number), time.monotonic()
                if say:  # a logger may be at work just now, and cannot be entered twice
                    os.write(2, f"\n{signal.Signals(number).name}: stops after this step\n".encode())

        before: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():  # no other can be told
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
    Have the workers of a DataLoader, where they are forked, ended by SIGKILL alone.

    A scheduler tells SIGTERM to all processes of a job, and a terminal Ctrl-C: without its workers the training could
    not come to the end of its step.
    """
    if multiprocessing.get_start_method() == "fork" and loader.multiprocessing_context is None:
        loader.multiprocessing_context = _deaf_workers()
        loader.worker_init_fn = partial(_start_deaf_worker, loader.worker_init_fn)


def _deaf_workers() -> multiprocessing.context.BaseContext:
    class Worker(multiprocessing.context.ForkProcess):
        def start(self):
            super().start()
            # at its end a process tells its daemons SIGTERM past `Process.terminate`, and waits for them
            self._popen.terminate = self._popen.kill  # type: ignore[attr-defined]

    class Workers(multiprocessing.context.ForkContext):
        Process = Worker

    return Workers()


def _start_deaf_worker(also: Callable[[int], None] | None, worker: int):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if also is not None:
        also(worker)


__all__ = ["Interruption", "let_workers_outlive_signals"]
