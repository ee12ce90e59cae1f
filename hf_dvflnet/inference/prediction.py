"""Classify videos one by one, decoding ahead of the model."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
from transformers import PreTrainedConfig

from ..data.workers import run_ahead
from ..modeling_videofocalnet import VideoFocalNetForVideoClassification
from ..video_decoding import VideoSource


VIEWS = {1: (1, 1), 12: (4, 3)}  # number of views -> (clips, crops)


def predict_videos(
    model: Any,
    processor: Any,
    videos: Sequence[VideoSource],
    *,
    views: int = 1,
    top_k: int = 5,
    batch_size: int = 1,
    num_workers: int = 1,
) -> Iterator[dict[str, Any]]:
    """
    Classify videos; the next videos are decoded while the model runs.

    Args:
        model: The classifier, on any device, in evaluation mode; or an exported program ([`load_exported`]).
        processor: Its video processor.
        videos: Videos in any form that [`read_video`] accepts.
        views: 1, or 12 for 4 clips x 3 crops, whose scores are averaged.
        top_k: Number of classes returned for each video.
        batch_size: Number of videos that are classified at once.
        num_workers: Number of threads that decode. With 0, decoding and the model take turns in the calling thread.

    Returns:
        One row per video: `{"video", "views", "answers"}`, where `answers` are `{"label", "score"}`, best first, with
        the scores of [`class_scores`]; or `{"video", "error"}`, with the exception, if the video cannot be read.
        Answers are yielded in the order of the videos, each when its batch is full. An error is yielded as soon as it
        is found.

    Raises:
        ValueError: If an argument is out of range, or a score is not finite.
    """
    if views not in VIEWS:
        raise ValueError(f"views must be 1 or 12, got {views}")
    refuse_below_one(top_k=top_k, batch_size=batch_size)
    clips, crops = VIEWS[views]
    calls = [partial(processor, video, num_clips=clips, num_crops=crops, return_tensors="pt") for video in videos]
    batch: list[tuple[VideoSource, torch.Tensor]] = []

    def answer() -> Iterator[dict[str, Any]]:
        scores = classify(model, torch.cat([clip for _, clip in batch]))
        for (video, _), values in zip(batch, scores, strict=True):
            answers = [{"label": name, "score": score} for name, score in best_classes(model, values, top_k)]
            yield {"video": video, "views": views, "answers": answers}
        batch.clear()

    for video, get in zip(videos, run_ahead(calls, num_workers), strict=True):
        try:
            clip = get()["pixel_values"]
        except (OSError, ValueError) as error:
            yield {"video": video, "error": error}
            continue
        if batch and batch[0][1].shape != clip.shape:  # the processor does not crop
            yield from answer()
        batch.append((video, clip))
        if len(batch) == batch_size:
            yield from answer()
    if batch:
        yield from answer()


def classify(model: VideoFocalNetForVideoClassification, pixel_values: torch.Tensor) -> torch.Tensor:
    """Return the scores of clips (see [`class_scores`]), float32 on the CPU, of shape (batch, num_labels)."""
    with torch.inference_mode():
        # memory that is pinned is copied while this process goes on
        clips = pixel_values.to(model.device, model.dtype, non_blocking=pixel_values.is_pinned())
        logits = model(pixel_values=clips)[0]  # of a tuple too (`config.return_dict=False`)
        return class_scores(logits.float(), model.config).cpu()


def class_scores(logits: torch.Tensor, config: PreTrainedConfig) -> torch.Tensor:
    """
    Convert logits of any shape (..., num_labels) to scores, as transformers' pipeline does.

    Scores are the softmax if each clip has one class, the sigmoid of each logit, in [0, 1], if a clip may have several
    labels, and the values themselves for regression.
    """
    if config.problem_type == "regression":
        return logits
    return logits.sigmoid() if config.problem_type == "multi_label_classification" else logits.softmax(-1)


def score_text(score: float, config: PreTrainedConfig) -> str:
    """Format a score as `93.1%`, or as a plain number for regression."""
    return f"{score:.4g}" if config.problem_type == "regression" else f"{score:.1%}"


def best_classes(
    model: VideoFocalNetForVideoClassification, scores: torch.Tensor, top_k: int
) -> list[tuple[str, float]]:
    """
    Return the names and scores of the best classes, best first, from scores of shape (num_labels,).

    Raises:
        ValueError: If a score is not finite.
    """
    if not scores.isfinite().all():
        raise ValueError(
            f"{model.config.name_or_path or 'the model'}: its scores are not finite; its weights may be damaged, or "
            "it may overflow in half precision"
        )
    best = scores.topk(min(top_k, len(scores)))
    names = [model.config.id2label[index] for index in best.indices.tolist()]
    return list(zip(names, best.values.tolist(), strict=True))


def refuse_below_one(**numbers: int):
    for name, number in numbers.items():
        if number < 1:
            raise ValueError(f"{name} must be at least 1, got {number}")


__all__ = ["VIEWS", "best_classes", "classify", "predict_videos", "refuse_below_one"]
