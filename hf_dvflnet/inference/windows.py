"""Long videos, classified window by window."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import islice, repeat
from typing import Any

import numpy as np
import torch

from ..modeling_videofocalnet import VideoFocalNetForVideoClassification
from ..video_container import DecodedVideoMetadata, VideoSource, as_file
from ..video_decoding import ToArray, VideoDecodeError, open_frames, read_video
from ..video_processing_videofocalnet import VideoFocalNetVideoProcessor
from .prediction import best_classes, classify, refuse_below_one, run_ahead
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
    Classify a long video window by window, in one pass; memory use does not grow with its length.

    Windows last `seconds` by the frames' timestamps, also where the frame rate varies, and start at each multiple of
    the stride, with the frame that is on the screen then. Where the container's timestamps do not tell exactly when
    each frame comes, the frame rate does. If time remains behind the last window, one more of the same length ends
    with the video; a video shorter than a window is one window.

    Args:
        model: The classifier, on any device; put into evaluation mode.
        processor: Its video processor. One view of a window is shown, its frames picked by the evaluation rule.
        video: As [`read_video`] takes it.
        seconds: Length of a window.
        stride_seconds: Seconds from window to window; `seconds` by default, so that windows do not overlap.
        top_k: Classes named for each window.
        batch_size: Windows that are classified at once.
        num_workers: 1 decodes in a thread while the model runs, 0 in turn with it.

    Returns:
        Rows `{"start", "end", "first_frame", "frames", "answers"}`: where the window was cut, in seconds since the
        first frame; the number of the window's first frame and how many it has; and `answers`, `{"label", "score"}`,
        best first.

    Raises:
        FileNotFoundError, VideoDecodeError: As [`read_video`]; also if the video states neither exact timestamps nor
            a frame rate.
        ValueError: If a number is out of its range.
    """
    refuse_below_one(top_k=top_k, batch_size=batch_size)
    stride_seconds = seconds if stride_seconds is None else stride_seconds
    if not (0 < seconds < math.inf and 0 < stride_seconds < math.inf):
        raise ValueError(
            f"a window and its stride must be longer than 0 s and end, got {seconds} and {stride_seconds}"
        )
    model = model.eval()
    windows = _windows(processor, video, float(seconds), float(stride_seconds))
    batch: list[tuple[dict[str, Any], torch.Tensor]] = []
    for get in run_ahead(repeat(partial(next, windows, None)), min(num_workers, 1)):
        window = get()
        if window is not None:
            batch.append(window)
        if batch and (window is None or len(batch) == batch_size):
            scores = classify(model, torch.cat([clip for _, clip in batch]))
            for (row, _), values in zip(batch, scores, strict=True):
                best = best_classes(model, values, top_k)
                yield {**row, "answers": [{"label": label, "score": score} for label, score in best]}
            batch = []
        if window is None:
            return


@dataclass
class _Window:
    """Where a window is cut, in seconds since the first frame, and the frames from `first` to before `stop`."""

    start: float
    end: float
    first: int
    stop: int


def _cut(times: np.ndarray, end: float, seconds: float, stride_seconds: float, half: float) -> Iterator[_Window]:
    """The windows of a video whose frames come at `times`, (frames,) in seconds, and which lasts until `end`."""
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
) -> Iterator[tuple[dict[str, Any], torch.Tensor]]:
    source, name = as_file(video)  # a URL is downloaded once, although the last window may be read anew
    try:
        with open_frames(source) as (metadata, frames):
            times, end = _frame_times(metadata)
            if times is None:
                raise VideoDecodeError(f"{name}: states no frame rate, so that windows of {seconds} s can be counted")
            half = half_distance(frame_distance(times, metadata.fps), seconds, stride_seconds)
            cut = partial(_cut, seconds=seconds, stride_seconds=stride_seconds, half=half)
            pick = lru_cache(maxsize=256)(partial(sampled, processor))
            shown = np.zeros(len(times), bool)
            for window in cut(times, end):
                shown[[window.first + index for index in pick(window.stop - window.first)]] = True
            small, to_array = SmallPictures(processor), ToArray()
            pictures: dict[int, torch.Tensor] = {}
            count = answered = 0
            for window in cut(times, end):
                for frame in islice(frames, window.stop - count):
                    if shown[count]:
                        pictures[count] = small.shrink(to_array(frame), count)
                    count += 1
                if count < window.stop:
                    break
                pictures = {number: picture for number, picture in pictures.items() if number >= window.first}
                numbers = [window.first + index for index in pick(window.stop - window.first)]
                yield _row(window), small.clips([[pictures[number] for number in numbers]])
                answered += 1
        if count < len(times):
            # decoding ends earlier than the file says: another window is the last one, and its frames were not kept
            for window in islice(cut(times[:count], float(times[count])), answered, None):
                numbers = [window.first + index for index in pick(window.stop - window.first)]
                clip, _ = read_video(source, numbers)
                clips = processor(clip, do_sample_frames=False, num_clips=1, num_crops=1, return_tensors="pt")
                yield _row(window), clips["pixel_values"]
    except VideoDecodeError as error:
        if name in str(error):
            raise
        raise VideoDecodeError(f"{name}: {error}") from error  # a download goes by the name of its URL
    finally:
        if source is not video:
            source.close()


def _frame_times(metadata: DecodedVideoMetadata) -> tuple[np.ndarray | None, float]:
    """When each frame comes, and until when the last is shown; `None` if neither timestamps nor a rate tell."""
    times, end = metadata.frame_times, metadata.duration
    if times is None:
        if not metadata.fps:
            return None, 0.0
        times, end = np.arange(metadata.total_num_frames) / metadata.fps, None
    if end is None or end <= times[-1]:  # also where the file does not tell how long the last frame is shown
        end = float(times[-1]) + (1 / metadata.fps if metadata.fps else 0.0)
    return times, end


def _row(window: _Window) -> dict[str, Any]:
    return {
        "start": window.start,
        "end": window.end,
        "first_frame": window.first,
        "frames": window.stop - window.first,
    }


__all__ = ["predict_windows"]
