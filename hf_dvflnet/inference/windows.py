"""Long videos, classified window by window."""

import math
from collections import deque
from collections.abc import Iterator
from functools import partial
from itertools import repeat
from typing import Any

import torch

from ..modeling_videofocalnet import VideoFocalNetForVideoClassification
from ..video_container import VideoSource, as_file
from ..video_decoding import ToArray, VideoDecodeError, open_frames, read_video
from ..video_processing_videofocalnet import VideoFocalNetVideoProcessor
from .live_sources import timed
from .prediction import best_classes, classify, refuse_below_one, run_ahead
from .sliding_window import SlidingWindow, sampled


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

    Windows have `seconds` times the video's frame rate frames, rounded, and start at each multiple of the stride. If
    frames remain behind the last of them, one more window of the same length ends with the video; a video shorter
    than a window is one window.

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
        Rows `{"start", "end", "first_frame", "frames", "answers"}`: seconds since the first frame, the end being that
        of the last frame's showing; the number of the window's first frame and how many it has; and `answers`,
        `{"label", "score"}`, best first.

    Raises:
        FileNotFoundError, VideoDecodeError: As [`read_video`]; also if the video states no frame rate.
        ValueError: If a number is out of its range.
    """
    refuse_below_one(top_k=top_k, batch_size=batch_size)
    stride_seconds = seconds if stride_seconds is None else stride_seconds
    if not (0 < seconds < math.inf and 0 < stride_seconds < math.inf):
        raise ValueError(
            f"a window and its stride must be longer than 0 s and end, got {seconds} and {stride_seconds}"
        )
    model = model.eval()
    windows = _windows(processor, video, seconds, stride_seconds)
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


def _windows(
    processor: VideoFocalNetVideoProcessor, video: VideoSource, seconds: float, stride_seconds: float
) -> Iterator[tuple[dict[str, Any], torch.Tensor]]:
    source, name = as_file(video)  # a URL is downloaded once, although the last window may be read anew
    try:
        with open_frames(source) as (metadata, frames):
            if not metadata.fps:
                raise VideoDecodeError(f"{name}: states no frame rate, so that windows of {seconds} s can be counted")
            window, stride = (max(1, round(length * metadata.fps)) for length in (seconds, stride_seconds))
            sliding, to_array = SlidingWindow(processor, window, stride), ToArray()
            times: deque[float] = deque(maxlen=window)

            def row(frames: int) -> dict[str, Any]:
                start, end = times[0], times[-1] + 1 / metadata.fps
                return {"start": start, "end": end, "first_frame": sliding.count - frames, "frames": frames}

            answered = 0
            for frame, second in timed(frames, metadata.fps):
                times.append(second)
                due = sliding.add(partial(to_array, frame), second)
                if due:
                    answered = due.count
                    yield row(window), sliding.clips([due.frames])
        if answered < sliding.count:
            # its frames are known only now that the video has ended, and are kept small only where a window shows them
            first, length = max(0, sliding.count - window), min(sliding.count, window)
            clip, _ = read_video(source, [first + index for index in sampled(processor, length)])
            shown = processor(clip, do_sample_frames=False, num_clips=1, num_crops=1, return_tensors="pt")
            yield row(length), shown["pixel_values"]
    except VideoDecodeError as error:
        if name in str(error):
            raise
        raise VideoDecodeError(f"{name}: {error}") from error  # a download goes by the name of its URL
    finally:
        if source is not video:
            source.close()


__all__ = ["predict_windows"]
