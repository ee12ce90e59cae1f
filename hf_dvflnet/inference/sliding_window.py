"""A window that slides along frames as they come, holding what the model will be shown of it."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from transformers.video_utils import VideoMetadata

from ..video_processing_videofocalnet import VideoFocalNetVideoProcessor


@dataclass
class DueWindow:
    """A window to be answered: its sampled frames, how many frames came up to its end, its end's time and arrival."""

    frames: list[torch.Tensor]
    count: int
    time: float | None
    arrived: float


class SlidingWindow:
    """The newest frames of a stream; of those that a window will show the small picture, of the others nothing."""

    def __init__(self, processor: VideoFocalNetVideoProcessor, window: int, stride: int):
        self.processor, self.window, self.stride = processor, window, stride
        self.indices = sampled(processor, window)
        # a window starts at each multiple of the stride: what it shows lies this far behind one
        self.shown = {index % stride for index in self.indices}
        self.frames: deque[torch.Tensor | None] = deque(maxlen=window)
        self.shape: torch.Size | None = None
        self.count = 0

    def add(self, frame: Callable[[], np.ndarray], timestamp: float | None) -> DueWindow | None:
        """Take a frame, made by `frame` if it is shown at all, and give the window if one ends with it."""
        arrived = time.perf_counter()
        small = self._shrink(frame()) if self.count % self.stride in self.shown else None
        if small is not None:
            if self.shape not in (None, small.shape):
                raise ValueError(
                    f"frame {self.count} comes out of the processor with (channels, height, width) of "
                    f"{tuple(small.shape)}, those before it with {tuple(self.shape or ())}: a processor that does not "
                    "crop needs frames of one size"
                )
            self.shape = small.shape
        self.frames.append(small)
        self.count += 1
        if self.count < self.window or (self.count - self.window) % self.stride:
            return None
        frames = [self.frames[index] for index in self.indices]
        return DueWindow([small for small in frames if small is not None], self.count, timestamp, arrived)

    def _shrink(self, frame: np.ndarray) -> torch.Tensor:
        # only called channels first, not laid out so: the copy would take several times as long as resizing
        picture = torch.from_numpy(np.require(frame, requirements=["C", "W"])).permute(2, 0, 1)
        shown = self.processor(
            picture[None],
            do_sample_frames=False,
            num_clips=1,
            num_crops=1,
            do_rescale=False,
            do_normalize=False,
            return_tensors="pt",
        )
        return shown["pixel_values"][0, 0]

    def clips(self, windows: list[list[torch.Tensor]]) -> torch.Tensor:
        """What the model is shown of some windows: (windows, num_frames, channels, height, width)."""
        return self.processor(
            [torch.stack(frames) for frames in windows],
            do_sample_frames=False,
            num_clips=1,
            num_crops=1,
            do_resize=False,
            do_center_crop=False,
            return_tensors="pt",
        )["pixel_values"]


def sampled(processor: VideoFocalNetVideoProcessor, num_frames: int) -> list[int]:
    """The frames that the evaluation rule picks from `num_frames`."""
    return processor.sample_frames(VideoMetadata(total_num_frames=num_frames), num_clips=1).tolist()


__all__ = ["DueWindow", "SlidingWindow", "sampled"]
