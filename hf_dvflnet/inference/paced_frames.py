"""The frames of a stream at the pace of a causal network, which is stepped through them."""

import math
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from ..video_processing_videofocalnet import VideoFocalNetVideoProcessor
from .sliding_window import DueWindow, SmallPictures


class PacedFrames:
    """
    The newest frames of a stream, as small pictures, `processor.fps` of them per second: at each tick of this pace,
    the frame that is on the screen, as in a clip of a file ([`paced_indices`]).

    At most `processor.num_frames + stride` frames wait for the network. If the source sends nothing for as long as a
    clip of `num_frames` lasts, the ticks begin anew with its next frame.

    Args:
        stride: Number of ticks between two answers.
    """

    def __init__(self, processor: VideoFocalNetVideoProcessor, stride: int):
        assert processor.fps  # noqa: S101 (VideoStreamClassifier has looked)
        self.pace, self.stride, self.longest = processor.fps, stride, processor.num_frames
        self.fps: float | None = None  # of the source; timestamps are enough here
        self.small = SmallPictures(processor)
        self.frames: deque[torch.Tensor] = deque(maxlen=processor.num_frames + stride)
        self.shown: torch.Tensor | None = None  # what is on the screen
        self.count = 0  # frames of the source
        self.ticks = 0
        self.start = 0.0  # time of the tick `restart`
        self.restart = 0  # the first tick after the last gap
        self.timestamp: float | None = None  # of the newest frame, which arrived at `arrived`
        self.arrived = 0.0
        self.state: tuple[torch.Tensor, ...] = ()  # of the network, after the tick before `stepped`
        self.stepped = 0

    def add(self, frame: Callable[[], np.ndarray], timestamp: float) -> range:
        """Add a frame, whose time is not before that of the last one, and return the answers that are due with it."""
        self.arrived = time.perf_counter()
        picture = self.small.shrink(frame(), self.count)
        self.count += 1
        due = self.ticks // self.stride
        if self.timestamp is None or timestamp - self.timestamp >= self.longest / self.pace:
            self.start, self.restart, self.shown = timestamp, self.ticks, None
            self.frames.clear()
        self.timestamp = timestamp
        # a millionth of a tick more, so that rounding does not show the frame before
        now = (timestamp - self.start) * self.pace + 1e-6 + self.restart
        while self.ticks <= math.floor(now):
            on_time = now - self.ticks < 2e-6
            self.frames.append(picture if on_time or self.shown is None else self.shown)
            self.ticks += 1
        self.shown = picture
        return range(due, self.ticks // self.stride)

    def begin_anew(self):
        """Begin anew with the next frame, as after a gap. It may have another size."""
        self.timestamp, self.small.shape = None, None

    def window_of(self, number: int) -> DueWindow:
        """Return the newest frames up to an answer that is due with the newest frame."""
        stop = (number + 1) * self.stride
        pictures = list(self.frames)[: len(self.frames) - (self.ticks - stop)]
        return DueWindow(pictures, number, stop - len(pictures), stop, self.timestamp, self.arrived)

    def step(self, model: Any, due: DueWindow) -> torch.Tensor:
        """
        The logits after the last frame of `due`, (num_labels,). The network is stepped through those frames that it
        has not seen; if frames before these were dropped, it begins anew.
        """
        if self.stepped < due.first or self.stepped <= self.restart <= due.first:
            self.state = ()
        clip = self.small.clips([due.pictures[max(0, self.stepped - due.first) :]])
        with torch.inference_mode():
            logits, self.state = model.step(clip.to(model.device, model.dtype), self.state)
        self.stepped = due.stop
        return logits[0, -1].float().cpu()
