"""Windows of time over the frames of a video: which frames they hold, and what the model will be shown of them."""

import math
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
import torch
from transformers.video_utils import VideoMetadata

from ..video_processing_videofocalnet import VideoFocalNetVideoProcessor


def frames_between(times: Sequence[float] | np.ndarray, start: float, end: float, half: float) -> tuple[int, int]:
    """
    The frames that a window shows, as the number of its first one and of the one behind its last: at least one frame.

    A frame counts as coming at `start` or `end` if it comes within `half` of it. If none comes at `start`, the one
    before it is still on the screen, and is the first. Windows that adjoin leave no frame out.

    Args:
        times: When each frame comes, (frames,), ascending; at least one. In seconds, as the others, or any unit.
        half: Half the distance of two frames, so that cuts between frames go to the nearer one.
    """
    first = bisect_left(times, start - half)
    if first > 0 and (first == len(times) or times[first] > start + half):
        first -= 1
    return first, max(first + 1, bisect_left(times, end - half))


def frame_distance(times: Sequence[float] | np.ndarray, fps: float | None) -> float:
    """
    Seconds between two frames where nothing stands still, of frames that come at `times`, (frames,) in seconds.

    The lower quartile, for an average counts in the frames of a still screen, which may be a second apart. With less
    than two frames it is what `fps` says, or 0.
    """
    if len(times) > 1:
        return float(np.quantile(np.diff(times), 0.25))
    return 1 / fps if fps else 0.0


def half_distance(distance: float, window: float, stride: float) -> float:
    """How far a cut may lie from a frame, see [`frames_between`]. Where frames are rare, little of a window."""
    return min(distance / 2, window / 8, stride / 8)


def sampled(processor: VideoFocalNetVideoProcessor, num_frames: int) -> list[int]:
    """The frames that the evaluation rule picks from `num_frames`."""
    return processor.sample_frames(VideoMetadata(total_num_frames=num_frames), num_clips=1).tolist()


class SmallPictures:
    """Brings the frames of one video to the size that the model takes, one by one."""

    def __init__(self, processor: VideoFocalNetVideoProcessor):
        self.processor = processor
        self.shape: torch.Size | None = None

    def shrink(self, frame: np.ndarray, number: int) -> torch.Tensor:
        """
        The small picture of a frame, uint8 (channels, height, width), of one of shape (height, width, channels).

        Raises:
            ValueError: If it comes out in another size than those before it; `number` says which one it is.
        """
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
        small = shown["pixel_values"][0, 0]
        if self.shape not in (None, small.shape):
            raise ValueError(
                f"frame {number} comes out of the processor with (channels, height, width) of {tuple(small.shape)}, "
                f"those before it with {tuple(self.shape or ())}: a processor that does not crop needs frames of one "
                "size"
            )
        self.shape = small.shape
        return small

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


@dataclass
class DueWindow:
    """
    A window to be answered: the small pictures that the model is shown, the window's number, the numbers of its first
    frame and of the one behind its last, its last frame's timestamp, and when the frame came that made it due.
    """

    pictures: list[torch.Tensor]
    number: int
    first: int
    stop: int
    time: float | None
    arrived: float


class SlidingWindow:
    """
    The newest frames of a stream, as small pictures.

    Window k ends `window + k * stride` after the first frame. These are seconds by the frames' timestamps
    (`in_seconds`), or frames. Of windows counted in frames it is known beforehand which frames are shown, and only
    those are made small.
    """

    def __init__(
        self, processor: VideoFocalNetVideoProcessor, window: float, stride: float, *, in_seconds: bool = False
    ):
        self.window, self.stride, self.in_seconds = window, stride, in_seconds
        self.fps: float | None = None  # of the source, if it states them; used until two frames have come
        self.small = SmallPictures(processor)
        self.sampled = lru_cache(maxsize=256)(partial(sampled, processor))
        # a window starts at each multiple of the stride: what it shows lies this far behind one
        self.shown = set() if in_seconds else {index % stride for index in self.sampled(int(window))}
        self.frames: deque[torch.Tensor | None] = deque()
        self.times: deque[float] = deque()  # of these frames: their timestamps, or their numbers
        self.recent: deque[float] = deque(maxlen=256)  # timestamps, also of frames that are gone
        self.half = 0.0
        self.count = 0
        self.due = range(0)
        self.timestamp: float | None = None  # of the newest frame, which came at `arrived`
        self.arrived = 0.0
        self.start = 0.0  # when the first frame came, as `times` tell it

    def add(self, frame: Callable[[], np.ndarray], timestamp: float | None) -> range:
        """
        Take a frame, made by `frame` if it is shown at all, and give the numbers of the windows that are due with it.

        A window is due once no more frames of it are expected; [`window_of`] gives it until the next frame is added.
        Seconds need timestamps, which do not go back.
        """
        self.arrived, self.timestamp = time.perf_counter(), timestamp
        self._forget()
        shown = self.in_seconds or self.count % self.stride in self.shown
        self.frames.append(self.small.shrink(frame(), self.count) if shown else None)
        now, distance = float(self.count), 1.0
        if self.in_seconds and timestamp is not None:
            now = timestamp
            self.recent.append(now)
            # frames that are farther apart make no rate: what is on the screen stands still
            distance = min(frame_distance(self.recent, self.fps), self.window, self.stride)
        self.half = half_distance(distance, self.window, self.stride)
        self.times.append(now)
        self.start = self.start if self.count else now
        self.count += 1
        # the last window that ends before the next frame is expected, or at it
        last = math.floor((now + distance + self.half - self.start - self.window) / self.stride)
        self.due = range(self.due.stop, max(self.due.stop, last + 1))
        return self.due

    def window_of(self, number: int) -> DueWindow:
        """A window that is due with the newest frame."""
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
        """Forget the frames that lie before the next window."""
        if not self.times:
            return
        start = self.start + self.due.stop * self.stride
        for _ in range(frames_between(self.times, start, start, self.half)[0]):
            self.times.popleft()
            self.frames.popleft()


__all__ = [
    "DueWindow",
    "SlidingWindow",
    "SmallPictures",
    "frame_distance",
    "frames_between",
    "half_distance",
    "sampled",
]
