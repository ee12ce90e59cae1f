"""Sliding windows over the frames of a video: which frames a window contains, and which of them the model sees."""

import math
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
import torch

from ..clip_sampling import evaluation_indices
from ..video_processing_videofocalnet import VideoFocalNetVideoProcessor


def frames_between(times: Sequence[float] | np.ndarray, start: float, end: float, half: float) -> tuple[int, int]:
    """
    Return the frames of a window as the index of its first frame and the index after its last: at least one frame.

    A frame of `times`, (frames,), ascending, counts as being at `start` or `end` if it is within `half` of it: half
    the distance between two frames, so that a cut between them goes to the nearer one. If no frame is at `start`, the
    frame before it is still on the screen and becomes the first one. Adjacent windows leave no frame out.
    """
    first = bisect_left(times, start - half)
    if first > 0 and (first == len(times) or times[first] > start + half):
        first -= 1
    return first, max(first + 1, bisect_left(times, end - half))


def frame_distance(times: Sequence[float] | np.ndarray, fps: float | None) -> float:
    """
    Return the seconds between two frames of moving content, given `times`, (frames,) in seconds.

    This is the lower quartile of the distances: an average would include the frames of a still screen, which may be a
    second apart. With fewer than two frames it is `1 / fps`, or 0 without `fps`.
    """
    if len(times) > 1:
        return float(np.quantile(np.diff(times), 0.25))
    return 1 / fps if fps else 0.0


def half_distance(distance: float, window: float, stride: float) -> float:
    """Return how far a cut may be from a frame, see [`frames_between`]; at most a small part of window and stride."""
    return min(distance / 2, window / 8, stride / 8)


def sampled(processor: VideoFocalNetVideoProcessor, num_frames: int) -> list[int]:
    """Return the indices that the evaluation rule picks from `num_frames` frames, whatever the processor's `fps`."""
    if num_frames == processor.num_frames:
        return list(range(num_frames))
    interval = processor.frame_interval
    return evaluation_indices(num_frames, num_frames=processor.num_frames, frame_interval=interval).tolist()


class SmallPictures:
    """Resize the frames of one video to the input size of the model, one by one."""

    def __init__(self, processor: VideoFocalNetVideoProcessor):
        self.processor = processor
        self.shape: torch.Size | None = None

    def shrink(self, frame: np.ndarray, number: int) -> torch.Tensor:
        """
        Resize a frame of shape (height, width, channels) to a small picture, uint8 (channels, height, width). Raises
        `ValueError` if its size differs from that of the pictures before it.
        """
        # permuted without a copy: copying to channels-first memory would take several times as long as resizing
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
        small = shown["pixel_values"][0, 0]
        if self.shape not in (None, small.shape):
            raise ValueError(
                f"frame {number} has shape {tuple(small.shape)} (channels, height, width) after processing, but the "
                f"frames before it have {tuple(self.shape or ())}: a processor that does not crop needs frames of one "
                "size"
            )
        self.shape = small.shape
        return small

    def clips(self, windows: list[list[torch.Tensor]]) -> torch.Tensor:
        """Return the model input of some windows: (windows, num_frames, channels, height, width)."""
        return self.processor(
            [torch.stack(frames) for frames in windows],
            do_sample_frames=False,
            num_clips=1,
            num_crops=1,
            do_resize=False,
            do_center_crop=False,
            return_tensors="pt",
        )["pixel_values"]


@dataclass
class DueWindow:
    """A window that is ready to be classified."""

    pictures: list[torch.Tensor]  # those that the model sees, small
    number: int  # index of the window
    first: int  # index of its first frame
    stop: int  # index after its last frame
    time: float | None  # timestamp of its last frame
    arrived: float  # when the frame arrived that made the window due


class SlidingWindow:
    """
    The newest frames of a stream, as small pictures.

    Window k ends `window + k * stride` after the first frame, in seconds by the frames' timestamps (`in_seconds`) or
    in frames. For windows in frames it is known in advance which frames the model sees, and only those are resized.
    """

    def __init__(
        self, processor: VideoFocalNetVideoProcessor, window: float, stride: float, *, in_seconds: bool = False
    ):
        self.window, self.stride, self.in_seconds = window, stride, in_seconds
        self.fps: float | None = None  # of the source, if it states them; used until two frames have arrived
        self.small = SmallPictures(processor)
        self.sampled = lru_cache(maxsize=256)(partial(sampled, processor))
        # a window starts at each multiple of the stride: the offsets of the frames that the model sees from these
        self.shown = set() if in_seconds else {index % stride for index in self.sampled(int(window))}
        self.frames: deque[torch.Tensor | None] = deque()
        self.times: deque[float] = deque()  # of these frames: their timestamps or their indices
        self.recent: deque[float] = deque(maxlen=256)  # timestamps, including those of removed frames
        self.half = 0.0
        self.count = 0
        self.due = range(0)
        self.timestamp: float | None = None  # of the newest frame, which arrived at `arrived`
        self.arrived = 0.0
        self.start = 0.0  # time at which window 0 starts, in the unit of `times`

    def add(self, frame: Callable[[], np.ndarray], timestamp: float | None) -> range:
        """
        Add a frame and return the indices of the windows that are due with it.

        `frame` makes the frame; it is only called if the model may see the frame. A window is due once no more frames
        of it are expected; [`window_of`] returns it until the next frame is added. Windows in seconds need timestamps
        that do not go backwards.
        """
        self.arrived, self.timestamp = time.perf_counter(), timestamp
        self._forget()
        now, distance = float(self.count), 1.0
        if self.in_seconds and timestamp is not None:
            now = timestamp
            self.recent.append(now)
            # a larger distance is not the frame rate, but a still screen
            distance = min(frame_distance(self.recent, self.fps), self.window, self.stride)
        self.half = half_distance(distance, self.window, self.stride)
        if not self.times:  # the first frame, or the first one after `begin_anew`
            self.start = now - self.due.stop * self.stride
        shown = self.in_seconds or (now - self.start) % self.stride in self.shown
        self.frames.append(self.small.shrink(frame(), self.count) if shown else None)
        self.times.append(now)
        self.count += 1
        # the last window that ends before or at the expected time of the next frame
        last = math.floor((now + distance + self.half - self.start - self.window) / self.stride)
        self.due = range(self.due.stop, max(self.due.stop, last + 1))
        return self.due

    def begin_anew(self):
        """Begin anew with the next frame, so that no window has frames from before. It may have another size."""
        self.small.shape = None
        for past in (self.frames, self.times, self.recent):
            past.clear()

    def window_of(self, number: int) -> DueWindow:
        """Return a window that is due with the newest frame."""
        start = self.start + number * self.stride
        first, stop = frames_between(self.times, start, start + self.window, self.half)
        pictures = [self.frames[first + index] for index in self.sampled(stop - first)]
        gone = self.count - len(self.frames)
        return DueWindow(
            pictures=[picture for picture in pictures if picture is not None],
            number=number,
            first=gone + first,
            stop=gone + stop,
            time=self.times[stop - 1] if self.in_seconds else self.timestamp,
            arrived=self.arrived,
        )

    def _forget(self):
        """Remove the frames before the next window."""
        if not self.times:
            return
        start = self.start + self.due.stop * self.stride
        for _ in range(frames_between(self.times, start, start, self.half)[0]):
            self.times.popleft()
            self.frames.popleft()
