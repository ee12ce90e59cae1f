"""Answers to videos, one row a video, decoded ahead of the model."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

import torch
from transformers import PreTrainedConfig

from ..modeling_videofocalnet import VideoFocalNetForVideoClassification
from ..video_container import VideoSource


T = TypeVar("T")

VIEWS = {1: (1, 1), 12: (4, 3)}  # views -> clips, crops


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
    Classify videos, decoding ahead of the model.

    Args:
        model: The classifier, on any device, in evaluation mode; or an exported program ([`load_exported`]).
        processor: Its video processor.
        videos: As [`read_video`] takes them.
        views: 1, or 12 for 4 clips x 3 crops, whose scores are averaged.
        top_k: Classes named for each video.
        batch_size: Videos that are classified at once.
        num_workers: Threads that decode; 0 decodes in turn with the model.

    Returns:
        A row for each video: `{"video", "views", "answers"}`, where `answers` are `{"label", "score"}`, best first,
        with scores as [`class_scores`] gives them; or `{"video", "error"}`, with the exception, if it cannot be read.
        Answers come in the order of the videos, each
        when its batch is full; an error comes as soon as it is found.

    Raises:
        ValueError: If a number is out of its range, or a score is not finite.
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
        if batch and batch[0][1].shape != clip.shape:  # a processor that does not crop
            yield from answer()
        batch.append((video, clip))
        if len(batch) == batch_size:
            yield from answer()
    if batch:
        yield from answer()


def classify(model: VideoFocalNetForVideoClassification, pixel_values: torch.Tensor) -> torch.Tensor:
    """Scores of clips as [`class_scores`] gives them, float32 on the CPU: (batch, num_labels)."""
    with torch.inference_mode():
        return class_scores(model(pixel_values=pixel_values.to(model.device)).logits.float(), model.config).cpu()


def class_scores(logits: torch.Tensor, config: PreTrainedConfig) -> torch.Tensor:
    """
    What is shown of logits of any shape (..., num_labels), as transformers' pipeline has it.

    The softmax where one class is right; the sigmoid where a clip may have several labels, each score in [0, 1]; the
    value itself in regression.
    """
    if config.problem_type == "regression":
        return logits
    return logits.sigmoid() if config.problem_type == "multi_label_classification" else logits.softmax(-1)


def score_text(score: float, config: PreTrainedConfig) -> str:
    """`93.1%`, or the value as it is in regression."""
    return f"{score:.4g}" if config.problem_type == "regression" else f"{score:.1%}"


def best_classes(
    model: VideoFocalNetForVideoClassification, scores: torch.Tensor, top_k: int
) -> list[tuple[str, float]]:
    """
    The names and scores of the best classes, best first, of scores of shape (num_labels,).

    Raises:
        ValueError: If a score is not finite.
    """
    if not scores.isfinite().all():
        raise ValueError(
            f"{model.config.name_or_path or 'the model'}: its scores are not finite. Are its weights damaged, or does "
            "it overflow in half precision?"
        )
    best = scores.topk(min(top_k, len(scores)))
    names = [model.config.id2label[index] for index in best.indices.tolist()]
    return list(zip(names, best.values.tolist(), strict=True))


def run_ahead(calls: Iterable[Callable[[], T]], num_workers: int) -> Iterator[Callable[[], T]]:
    """
    Make calls in threads, a few ahead of where their results are used, in order.

    Gives for each call a function that waits for its result and returns or raises what it did. With no workers, that
    is the call itself.
    """
    if not num_workers:
        yield from calls
        return
    pool = ThreadPoolExecutor(num_workers)
    running: deque = deque()
    try:
        for call in calls:
            running.append(pool.submit(call))
            if len(running) > 2 * num_workers:
                yield running.popleft().result
        while running:
            yield running.popleft().result
    finally:
        pool.shutdown(cancel_futures=True)


def refuse_below_one(**numbers: int):
    for name, number in numbers.items():
        if number < 1:
            raise ValueError(f"{name} must be at least 1, got {number}")


__all__ = ["VIEWS", "best_classes", "classify", "predict_videos", "refuse_below_one", "run_ahead"]
