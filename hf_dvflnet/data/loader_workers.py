"""Which clip each worker of a DataLoader is at, so that the clip of a worker that dies or hangs can be named."""

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


class ClipsInHand:
    """
    Which clip each worker of a DataLoader is at, in memory that the main process sees: what remains to be read when a
    worker dies or hangs.
    """

    def __init__(self, workers: int = 256, length: int = 256):
        self.names = torch.zeros(workers, length, dtype=torch.uint8).share_memory_()
        self.pids = torch.zeros(workers, dtype=torch.int64).share_memory_()
        self.since = torch.zeros(workers, dtype=torch.float64).share_memory_()  # 0: at none

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
        """Process id, clip and seconds since it was taken, the longest first."""
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
    Adds to the error that a loader raises, when a worker died or hung, which clip that was at.

    Args:
        clips: Data sets; those that have no `in_hand` tell nothing.
    """
    try:
        yield
    except RuntimeError as error:  # raised wherever the main process just is
        message = str(error)
        dead = [int(pid) for pid in re.findall(r"\d+", message.partition("pid")[2])]
        found = [clip for some in clips if hasattr(some, "in_hand") for clip in some.in_hand.list()]
        named = [f"{name} (for {seconds:.0f} s)" for pid, name, seconds in found if not dead or pid in dead]
        if "DataLoader" not in message or not named:
            raise
        raise RuntimeError(f"{message} It was at the clip {', or '.join(named)}.") from error


__all__ = ["ClipsInHand", "naming_clips_of_dead_workers"]
