"""Measure the time of each stage from file to answer, to find what limits the speed of classification."""

import os
import time
from collections.abc import Sequence
from functools import partial
from statistics import median
from typing import Any

import torch

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
        `frames` per clip, `video_seconds`, `device`, `dtype`, `threads` of PyTorch, `batch_size` and `repeat`.

    Raises:
        FileNotFoundError, VideoDecodeError: See [`read_video`]. A video that cannot be read is never skipped.
        ValueError: If there are no videos, or `repeat` or `batch_size` is not positive.
    """
    if not videos or repeat < 1 or batch_size < 1:
        raise ValueError(
            "the number of videos, repeat and batch_size must be at least 1, got "
            f"{len(videos)}, {repeat}, {batch_size}"
        )
    model = model.eval()
    device = torch.device(model.device)
    passes = []
    for _ in range(repeat + 1):
        spent = dict.fromkeys(STAGES, 0.0)
        durations: list[float | None] = []
        for first in range(0, len(videos), batch_size):
            clips = []
            for video in videos[first : first + batch_size]:
                start = time.perf_counter()
                frames, metadata = read_video(video, partial(processor.sample_frames, num_clips=1))
                spent["decode"] += time.perf_counter() - start
                durations.append(metadata.duration)
                start = time.perf_counter()
                shown = processor(frames, do_sample_frames=False, num_clips=1, num_crops=1, return_tensors="pt")
                clips.append(shown["pixel_values"])
                spent["preprocess"] += time.perf_counter() - start
            start = time.perf_counter()
            with torch.inference_mode():
                model(torch.cat(clips).to(device, model.dtype))[0].cpu()  # `cpu` waits for the device
            spent["forward"] += time.perf_counter() - start
        spent["overall"] = sum(spent.values())
        passes.append(spent)
    passes = passes[1:]
    medians = {name: median(spent[name] for spent in passes) for name in passes[0]}
    rows = {
        name: {
            "median": medians[name],
            "least": min(spent[name] for spent in passes),
            "greatest": max(spent[name] for spent in passes),
            "clips_per_second": len(videos) / medians[name],
            "share": medians[name] / sum(medians[stage] for stage in STAGES) if name in STAGES else 1.0,
        }
        for name in medians
    }
    known = [duration for duration in durations if duration]
    seconds = sum(known) if len(known) == len(videos) else None
    return {
        **rows,
        "bound_by": max(STAGES, key=medians.__getitem__),
        "realtime_factor": seconds / medians["overall"] if seconds else None,
        "clips": len(videos),
        "frames": processor.num_frames,
        "video_seconds": seconds,
        "device": str(device) if device.type != "cuda" else torch.cuda.get_device_name(device),
        "dtype": str(model.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "batch_size": batch_size,
        "repeat": repeat,
    }
