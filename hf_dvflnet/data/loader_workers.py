"""Records which clip each DataLoader worker is reading, so that an error can name it if the worker dies or hangs."""

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


class ClipsInHand:
    """
    The clip that each DataLoader worker is reading, in memory shared with the main process.

    The main process can still read it when a worker dies or hangs.
    """

    def __init__(self, workers: int = 256, length: int = 256):
        self.names = torch.zeros(workers, length, dtype=torch.uint8).share_memory_()
        self.pids = torch.zeros(workers, dtype=torch.int64).share_memory_()
        self.since = torch.zeros(workers, dtype=torch.float64).share_memory_()  # 0: reads no clip

    def take(self, name: str):
        worker = torch.utils.data.get_worker_info()
        if worker is not None:
            slot = worker.id % len(self.since)
            text = name.encode()[: self.names.shape[1]].ljust(self.names.shape[1], b"\0")
            self.names[slot] = torch.frombuffer(bytearray(text), dtype=torch.uint8)
            self.pids[slot] = os.getpid()
            self.since[slot] = time.monotonic()

    def drop(self):
        worker = torch.utils.data.get_worker_info()
        if worker is not None:
            self.since[worker.id % len(self.since)] = 0

    def list(self) -> list[tuple[int, str, float]]:
        """Process id, clip, and seconds since the worker took it, the longest first."""
        now = time.monotonic()
        taken = [
            (
                int(self.pids[slot]),
                bytes(self.names[slot].tolist()).rstrip(b"\0").decode(errors="replace"),
                now - since,
            )
            for slot, since in enumerate(self.since.tolist())
            if since
        ]
        return sorted(taken, key=lambda clip: -clip[2])


@contextmanager
def naming_clips_of_dead_workers(*clips: Any) -> Iterator[None]:
    """
    When a DataLoader raises an error because a worker died or hung, add the clip that the worker was reading.

    Args:
        clips: Data sets; those without an attribute `in_hand` are ignored.
    """
    try:
        yield
    except RuntimeError as error:  # raised at any point of the main process
        message = str(error)
        dead = [int(pid) for pid in re.findall(r"\d+", message.partition("pid")[2])]
        found = [clip for some in clips if hasattr(some, "in_hand") for clip in some.in_hand.list()]
        named = [f"{name} (for {seconds:.0f} s)" for pid, name, seconds in found if not dead or pid in dead]
        if "DataLoader" not in message or not named:
            raise
        raise RuntimeError(f"{message} The worker was reading the clip {', or '.join(named)}.") from error


__all__ = ["ClipsInHand", "naming_clips_of_dead_workers"]
