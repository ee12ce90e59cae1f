"""Measure the time of each stage from file to answer, to find what limits the speed of classification."""

import math
import os
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import psutil
import torch

from ..clip_sampling import check_positive
from ..modeling_videofocalnet import VideoFocalNetForVideoClassification
from ..video_decoding import read_video
from ..video_processing_videofocalnet import VideoFocalNetVideoProcessor


STAGES = ("decode", "preprocess", "forward")


def time_stages(
    model: VideoFocalNetForVideoClassification,
    processor: VideoFocalNetVideoProcessor,
    videos: Sequence[str | os.PathLike],
    *,
    repeat: int = 5,
    batch_size: int = 1,
) -> dict[str, Any]:
    """
    Measure the stages from a video to an answer: one view per video, one stage after another without overlap.

    The first pass is not counted: it warms up and loads the files into the system's cache.

    Args:
        model: The classifier, on any device. It is put into evaluation mode.
        processor: Its video processor.
        videos: Paths or http(s) URLs. For a URL, decoding includes the download.
        repeat: Number of measured passes over all videos.
        batch_size: Number of clips that are classified at once.

    Returns:
        For each of `decode` (opening, seeking and decoding the frames of the view), `preprocess`, `forward` and
        `overall`: the `median`, `least` and `greatest` seconds of a pass, `clips_per_second` at the median, and
        `share`, its part of the sum of the stages' medians. Furthermore `bound_by`, the stage with the largest share;
        `realtime_factor`, seconds of video per second of computation, `None` if a video states no duration; `clips`,
        `frames` per clip, `video_seconds`, `device`, `dtype`, `threads` of PyTorch, `resident_megabytes` (of this
        process at the end), `batch_size` and `repeat`.

    Raises:
        FileNotFoundError, VideoDecodeError: See [`read_video`]. A video that cannot be read is never skipped.
        ValueError: If there are no videos, or `repeat` or `batch_size` is not positive.
    """
    check_positive(videos=len(videos), repeat=repeat, batch_size=batch_size)
    model = model.eval()
    passes = np.zeros((repeat + 1, len(STAGES)))  # seconds
    for spent in passes:
        durations: list[float | None] = []
        for first in range(0, len(videos), batch_size):
            clips = []
            for video in videos[first : first + batch_size]:
                start = time.perf_counter()
                frames, metadata = read_video(video, partial(processor.sample_frames, num_clips=1))
                decoded = time.perf_counter()
                shown = processor(frames, do_sample_frames=False, num_clips=1, num_crops=1, return_tensors="pt")
                clips.append(shown["pixel_values"])
                spent[:2] += decoded - start, time.perf_counter() - decoded
                durations.append(metadata.duration)
            start = time.perf_counter()
            with torch.inference_mode():
                model(torch.cat(clips).to(model.device, model.dtype))[0].cpu()  # `cpu` waits for the device
            spent[2] += time.perf_counter() - start
    passes = np.column_stack([passes, passes.sum(1)])[1:]
    medians = np.median(passes, axis=0)
    shares = medians / medians[:-1].sum()
    shares[-1] = 1.0
    rows = {
        "median": medians,
        "least": passes.min(0),
        "greatest": passes.max(0),
        "clips_per_second": len(videos) / medians,
        "share": shares,
    }
    seconds = sum(duration or math.nan for duration in durations)
    device = torch.device(model.device)
    return {
        **{
            name: {key: row[index].item() for key, row in rows.items()}
            for index, name in enumerate((*STAGES, "overall"))
        },
        "bound_by": STAGES[medians[:-1].argmax()],
        "realtime_factor": None if math.isnan(seconds) else seconds / medians[-1].item(),
        "clips": len(videos),
        "frames": processor.num_frames,
        "video_seconds": None if math.isnan(seconds) else seconds,
        "device": str(device) if device.type != "cuda" else torch.cuda.get_device_name(device),
        "dtype": str(model.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "resident_megabytes": psutil.Process().memory_info().rss / 1e6,
        "batch_size": batch_size,
        "repeat": repeat,
    }
