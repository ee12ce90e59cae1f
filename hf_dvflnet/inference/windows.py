"""Classify long videos window by window."""

import math
import os
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import islice, repeat, takewhile
from typing import Any

import numpy as np
import torch

from ..clip_sampling import check_positive, frame_times
from ..data.frames import open_video
from ..modeling_videofocalnet import VideoFocalNetForVideoClassification
from ..video_decoding import VideoDecodeError, VideoInfo, VideoSource, opened, read_video, video_limits
from ..video_processing_videofocalnet import VideoFocalNetVideoProcessor
from .pipeline import Clip, answers, in_workers, scored
from .sliding_window import SmallPictures, frame_distance, frames_between, half_distance, sampled


def predict_windows(
    model: VideoFocalNetForVideoClassification,
    processor: VideoFocalNetVideoProcessor,
    video: VideoSource,
    *,
    seconds: float,
    stride_seconds: float | None = None,
    top_k: int = 5,
    batch_size: int = 1,
    num_workers: int = 1,
) -> Iterator[dict[str, Any]]:
    """
    Classify a long video window by window in one pass. Memory use does not grow with the length of the video.

    Windows last `seconds` by the frames' timestamps, also with a variable frame rate. They start at each multiple of
    the stride, with the frame that is on the screen at that time. If the container's timestamps do not give the exact
    time of each frame, the frame rate is used. If time remains after the last window, one more window of the same
    length ends with the video. A video shorter than a window is one window.

    Args:
        model: The classifier, on any device. It is put into evaluation mode.
        processor: Its video processor. The model sees one view of a window; the evaluation rule picks its frames.
        video: A video in any form that [`read_video`] accepts.
        seconds: Length of a window.
        stride_seconds: Seconds between the starts of two windows; `seconds` by default, so that windows do not
            overlap.
        top_k: Number of classes returned for each window.
        batch_size: Number of windows that are classified at once.
        num_workers: With 1, a thread decodes while the model runs; with 0, decoding and the model take turns.

    Returns:
        Rows `{"start", "end", "first_frame", "frames", "answers"}`: the start and end of the window, in seconds since
        the first frame; the index of its first frame and its number of frames; and `answers`, `{"label", "score"}`,
        best first, as of [`predict_videos`].

    Raises:
        FileNotFoundError, VideoDecodeError: See [`read_video`]; also if the video states neither exact timestamps nor
            a frame rate.
        ValueError: If an argument is out of range.
    """
    check_positive(top_k=top_k, batch_size=batch_size)
    stride_seconds = seconds if stride_seconds is None else stride_seconds
    if not (0 < seconds < math.inf and 0 < stride_seconds < math.inf):
        raise ValueError(
            f"a window and its stride must be longer than 0 s and finite, got {seconds} and {stride_seconds}"
        )
    windows = _windows(processor, video, float(seconds), float(stride_seconds))
    decoded = in_workers(repeat(partial(next, windows, None)), min(num_workers, 1))
    for clip, scores in scored(model.eval(), _until_none(decoded), batch_size):
        yield {**clip.source, "answers": answers(model, scores, top_k)}


def _until_none(decoded: Generator[Clip | None, None, None]) -> Generator[Clip, None, None]:
    with closing(decoded):
        yield from takewhile(lambda clip: clip is not None, decoded)


@dataclass
class _Window:
    """Start and end of a window, in seconds since the first frame, and its frames, from `first` to before `stop`."""

    start: float
    end: float
    first: int
    stop: int


def _cut(times: np.ndarray, end: float, seconds: float, stride_seconds: float, half: float) -> Iterator[_Window]:
    """Yield the windows of a video that ends at `end` and has frames at `times`, (frames,) in seconds."""
    number = stop = 0
    covered = 0.0
    while number * stride_seconds + seconds <= end + half:
        start = number * stride_seconds
        covered = start + seconds
        first, stop = frames_between(times, start, covered, half)
        yield _Window(start, covered, first, stop)
        number += 1
    if stop < len(times) or covered < end - half:
        start = max(0.0, end - seconds)
        first, _ = frames_between(times, start, end, half)
        yield _Window(start, end, first, len(times))


def _windows(
    processor: VideoFocalNetVideoProcessor, video: VideoSource, seconds: float, stride_seconds: float
) -> Iterator[Clip]:
    """Yield the windows as clips, whose source is the row without answers."""
    pick = lru_cache(maxsize=256)(partial(sampled, processor))

    def numbers(window: _Window) -> list[int]:
        return [window.first + index for index in pick(window.stop - window.first)]

    with _downloaded(video) as (video, name):
        with open_video(video) as (info, pictures):
            times, end = _frame_times(info)
            if times is None:
                raise VideoDecodeError(f"{name}: states no frame rate, which windows of {seconds} s need")
            half = half_distance(frame_distance(times, info.fps), seconds, stride_seconds)
            cut = partial(_cut, seconds=seconds, stride_seconds=stride_seconds, half=half)
            waiting = deque(cut(times, end))
            wanted = {number for window in waiting for number in numbers(window)}
            # the last frame of a window shows that decoding has come so far
            ends = {window.stop - 1 for window in waiting}
            small, shown = SmallPictures(processor), dict[int, torch.Tensor]()
            answered = 0
            for index, picture in pictures(wanted | ends):
                if index in wanted:
                    shown[index] = small.shrink(picture, index)
                while waiting and waiting[0].stop <= index + 1:
                    window = waiting.popleft()
                    yield Clip(_row(window), small.clips([[shown[number] for number in numbers(window)]])[0])
                    answered += 1
                    first = waiting[0].first if waiting else index
                    shown = {number: small_picture for number, small_picture in shown.items() if number >= first}
        count = info.total_num_frames
        if count < len(times):
            # decoding ends earlier than the file says: the last window differs, and its frames were not kept
            for window in islice(cut(times[:count], float(times[count])), answered, None):
                clip, _ = read_video(video, numbers(window))
                clips = processor(clip, do_sample_frames=False, num_clips=1, num_crops=1, return_tensors="pt")
                yield Clip(_row(window), clips["pixel_values"][0])


@contextmanager
def _downloaded(video: VideoSource) -> Iterator[tuple[Any, str]]:
    """The video and its name in messages. A URL is downloaded only once, even if the last window is read again."""
    if not (isinstance(video, str) and "://" in video):
        yield video, str(getattr(video, "name", video if isinstance(video, (str, os.PathLike)) else "the video"))
        return
    with opened(video, video_limits()) as source:
        try:
            yield source.file, video
        except VideoDecodeError as error:
            raise VideoDecodeError(f"{video}: {error}") from error


def _frame_times(metadata: VideoInfo) -> tuple[np.ndarray | None, float]:
    """Return the time of each frame (`None` without exact timestamps and frame rate) and the end of the last frame."""
    times, end = frame_times(metadata), metadata.duration
    if times is None:
        return None, 0.0
    if metadata.frame_times is None:
        end = None
    if end is None or end <= times[-1]:  # also if the file does not state how long the last frame is shown
        end = float(times[-1]) + (1 / metadata.fps if metadata.fps else 0.0)
    return times, end


def _row(window: _Window) -> dict[str, Any]:
    return {
        "start": window.start,
        "end": window.end,
        "first_frame": window.first,
        "frames": window.stop - window.first,
    }
