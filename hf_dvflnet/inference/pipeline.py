"""
From videos to rows: a worker decodes, the model classifies, the caller takes the rows.

    sources -> decode_clip, in workers -> Clip -> classify, in batches -> scores -> rows

`decode_clips` runs the first step in this process or in sandboxes, `scored` the second. Rows are made by
`predict_videos`, by `ClipClassifier` for files, and by windows, evaluation and page.
"""

import math
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import torch
from transformers import PreTrainedConfig

from ..clip_sampling import check_positive
from ..data.jobs import default_workers, run_ahead
from ..data.limits import VideoLimits, worker_limits
from ..data.sandbox import SandboxError
from ..hub.calibration import threshold_of
from ..hub.loaded_models import DType, HeadInput, place
from ..hub.loading import load_model
from ..modeling_videofocalnet import VideoFocalNetPreTrainedModel
from ..video_decoding import VideoDecodeError, VideoInfo, VideoSource, read_video, video_limits
from .exported_program import is_exported, load_exported
from .inference_form import prepare_for_inference


VIEWS = {1: (1, 1), 4: (4, 1), 12: (4, 3)}  # number of views -> (clips, crops)


def load_placed(path: str, device: str | torch.device = "auto", dtype: DType = "auto", compile: bool = False) -> Any:
    """
    Load a classifier and move it to a device, as in [`place`]; or an exported program, which runs as it is.

    A Video-FocalNet in float32 on the CPU gets its faster form ([`prepare_for_inference`]), unless it is compiled.

    Raises:
        ValueError: See [`load_model`] and [`load_exported`]; also if a program is to be placed.
    """
    if is_exported(path):
        if str(device) not in ("auto", "cpu") or dtype != "auto" or compile:
            raise ValueError(f"{path}: is exported, and runs as it is; leave out --device, --dtype and --compile")
        return load_exported(path)
    model = place(load_model(path), device, dtype, compile=compile)
    on_cpu = all(weight.device.type == "cpu" and weight.dtype == torch.float32 for weight in model.parameters())
    if isinstance(model, VideoFocalNetPreTrainedModel) and on_cpu and not compile:
        prepare_for_inference(model)
    return model


def check_views(views: int, config: PreTrainedConfig):
    """
    Raise `ValueError` unless `views` is in `VIEWS`.

    Warns:
        UserWarning: If they have crops that the training did not show. Three crops show a video at another scale than
            one, which lowered the accuracy of students that were trained without crops by 25 to 30 points.
    """
    if views not in VIEWS:
        raise ValueError(f"views must be 1, 4 (4 clips x 1 crop) or 12 (4 clips x 3 crops), got {views}")
    trained = getattr(config, "training_data", None) or {}
    if VIEWS[views][1] > 1 and trained.get("augment") is False:
        warnings.warn(
            f"{config.name_or_path or 'the model'} was trained without random crops (--augment): three crops show it "
            "videos at another scale than it knows; 4 views, one crop of each of 4 clips, suit it better than 12",
            stacklevel=3,
        )


@dataclass
class Clip:
    """A video as the model sees it, or why it cannot be read."""

    source: Any
    pixel_values: torch.Tensor | None = None  # float32 of (frames, channels, height, width); of views, (views, ...)
    info: VideoInfo | None = None  # without the times of the frames
    error: Exception | None = None


def decode_clip(
    source: VideoSource | Callable[[], VideoSource],
    processor: Any,
    views: int = 1,
    limits: VideoLimits | None = None,
    max_duration: float = math.inf,
) -> Clip:
    """
    Decode and preprocess the frames of a video that the model sees. Errors are returned, not raised.

    `limits` are by default those of this process. `max_duration`, in seconds, is checked before any frame is decoded.
    """
    clips, crops = VIEWS[views]

    def sample(info: VideoInfo) -> Any:
        if (info.duration or 0) > max_duration:
            raise VideoDecodeError(
                f"{source!s}: lasts {info.duration:.1f} seconds, longer than the limit of {max_duration:g}; shorten it"
            )
        return processor.sample_frames(info, num_clips=clips)

    try:
        frames, info = read_video(source() if callable(source) else source, sample, limits=limits)
        shown = processor(frames, do_sample_frames=False, num_clips=clips, num_crops=crops, return_tensors="pt")
    except SandboxError:
        raise  # not the fault of the video
    except Exception as error:  # one video among a million must not end the others
        # its traceback would keep the content of the video, and the process that decoded it
        error.__cause__ = error.__context__ = None
        return Clip(source, error=error.with_traceback(None))
    info.frame_times = None  # megabytes, of a long video
    return Clip(source, shown["pixel_values"][0], info)


def decode_clips(
    sources: Iterable[VideoSource | Callable[[], VideoSource]],
    processor: Any,
    *,
    views: int = 1,
    num_workers: int | None = None,
    limits: VideoLimits | None = None,
) -> Generator[Clip, None, None]:
    """
    Decode videos, in order, a few ahead, in threads with a sandbox each, by default one per CPU. With 0 threads, this
    process decodes, when the next clip is asked for. `limits` are by default those of this process, in a sandbox.
    """
    num_workers = default_workers() if num_workers is None else num_workers
    limits = limits or worker_limits(num_workers)
    calls = (partial(decode_clip, source, processor, views, limits) for source in sources)
    threads = torch.get_num_threads()  # workers that resize in several threads would slow the model
    with closing(run_ahead(calls, num_workers, setup=partial(torch.set_num_threads, 1))) as results:
        try:
            for get in results:
                yield get()
        finally:
            torch.set_num_threads(threads)


def batches(clips: Iterable[Clip], size: int) -> Generator[list[Clip], None, None]:
    clips = iter(clips)
    while batch := list(islice(clips, size)):
        yield batch


def classify_clips(
    model: Any, clips: Sequence[Clip], features: HeadInput | None = None
) -> list[tuple[torch.Tensor, torch.Tensor | None] | None]:
    """
    For each clip, its scores, (num_labels,), and with `features` the model's pooled features, (width,), averaged over
    views; or `None` if it was not read.

    Clips of one shape are classified at once; where the processor does not crop, there are several shapes.
    """
    answers: list[tuple[torch.Tensor, torch.Tensor | None] | None] = [None] * len(clips)
    alike: dict[torch.Size, list[tuple[int, torch.Tensor]]] = {}
    for index, clip in enumerate(clips):
        if clip.pixel_values is not None:
            alike.setdefault(clip.pixel_values.shape, []).append((index, clip.pixel_values))
    for several in alike.values():
        scores = classify(model, torch.stack([pixel_values for _, pixel_values in several]))
        pooled = features.take().float().cpu().unflatten(0, (len(several), -1)).mean(1) if features else None
        for row, (index, _) in enumerate(several):
            answers[index] = scores[row], None if pooled is None else pooled[row]
    return answers


def scored(model: Any, clips: Generator[Clip, None, None], batch_size: int) -> Iterator[tuple[Clip, Any]]:
    """Classify clips in batches; yield each with its scores, (num_labels,), or with `None` if it was not read."""
    with closing(clips):
        for batch in batches(clips, batch_size):
            for clip, found in zip(batch, classify_clips(model, batch), strict=True):
                yield clip, None if found is None else found[0]


def classify(model: Any, pixel_values: torch.Tensor) -> torch.Tensor:
    """Scores of clips (see [`class_scores`]), float32 on the CPU, of shape (batch, num_labels)."""
    with torch.inference_mode():
        logits = model(pixel_values=pixel_values.to(model.device, model.dtype))[0]  # also of a tuple
        return class_scores(logits.float(), model.config).cpu()


def class_scores(logits: torch.Tensor, config: PreTrainedConfig) -> torch.Tensor:
    """
    Convert logits of any shape (..., num_labels) to scores, as transformers' pipeline does: the softmax; the sigmoid
    of each logit, if a clip may have several labels; or the values themselves, for regression.
    """
    if is_regression(config):
        return logits
    return logits.sigmoid() if config.problem_type == "multi_label_classification" else logits.softmax(-1)


def score_text(score: float, config: PreTrainedConfig) -> str:
    """Format a score as `93.1%`, or as a plain number for regression."""
    return f"{score:.4g}" if is_regression(config) else f"{score:.1%}"


def is_regression(config: PreTrainedConfig) -> bool:
    """Whether a model is for regression. As in transformers, one output means so unless the config says otherwise."""
    return config.problem_type == "regression" or (config.problem_type is None and config.num_labels == 1)


def best_classes(model: Any, scores: torch.Tensor, top_k: int) -> list[tuple[str, float]]:
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


def answers(model: Any, scores: torch.Tensor, top_k: int) -> list[dict[str, Any]]:
    """
    The best classes ([`best_classes`]) as `{"label", "score"}`. If the best score is below `config.threshold`, the
    first one has no label, `None`, and its class as `best_guess`.
    """
    found: list[dict[str, Any]] = [
        {"label": label, "score": score} for label, score in best_classes(model, scores, top_k)
    ]
    threshold = threshold_of(model.config)
    if threshold and found and found[0]["score"] < threshold:
        found[0] |= {"label": None, "best_guess": found[0]["label"]}
    return found


def answer_text(answer: dict[str, Any]) -> str:
    """The label of an answer, or that there is none."""
    return answer["label"] or f"none of these (best guess: {answer['best_guess']})"


def predict_videos(
    model: Any,
    processor: Any,
    videos: Sequence[VideoSource],
    *,
    views: int = 1,
    top_k: int = 5,
    embeddings: bool = False,
    batch_size: int = 1,
    num_workers: int = 1,
) -> Generator[dict[str, Any], None, None]:
    """
    Classify videos. The next videos are decoded while the model runs.

    Args:
        model: The classifier, on any device, in evaluation mode; or an exported program ([`load_exported`]).
        processor: Its video processor.
        videos: Videos in any form that [`read_video`] accepts.
        views: 1, 4 for 4 clips x 1 crop, or 12 for 4 clips x 3 crops, whose scores are averaged.
        top_k: Number of classes returned for each video.
        embeddings: Whether to add `"embedding"`, the pooled features, float32, averaged over views.
        batch_size: Number of videos that are classified at once.
        num_workers: Number of threads that decode. With 0, decoding and the model take turns in the calling thread.

    Yields:
        For each video, in order, `{"video", "views", "answers", "warning"}`: `answers` are `{"label", "score"}`, best
        first, as of [`answers`], and `warning` is the warning from reading it, or `None`. Or
        `{"video", "error"}`, with the exception, if the video cannot be read.

    Raises:
        ValueError: If an argument is out of range, or a score is not finite.
    """
    check_views(views, model.config)
    check_positive(top_k=top_k, batch_size=batch_size)
    decoded = decode_clips(videos, processor, views=views, num_workers=num_workers, limits=video_limits())
    classifier = ClipClassifier(model, top_k=top_k, embeddings=embeddings)
    with closing(decoded), closing(classifier):
        for batch in batches(decoded, batch_size):
            for clip, found in zip(batch, classify_clips(model, batch, classifier.features), strict=True):
                if found is None:
                    yield {"video": clip.source, "error": clip.error}
                    continue
                scores, features = found
                warning = "; ".join(clip.info.remarks) if clip.info is not None else ""
                row = {"video": clip.source, "views": views, "answers": answers(model, scores, top_k)}
                vector = {} if features is None else {"embedding": features.numpy()}
                yield row | {"warning": warning or None} | vector


class ClipClassifier:
    """
    Makes rows of clips: `source`, `labels` and `scores` (best first), `frames`, `seconds`, `warning`, `error_kind`,
    `error` and `embedding`, see [`predict_to_file`].

    Args:
        model: The classifier, on any device, in evaluation mode; or an exported program.
        top_k: Number of classes per video; 0 for none, with `embeddings`.
        embeddings: Whether to add the pooled features, float32, averaged over views.
    """

    def __init__(self, model: Any, *, top_k: int = 5, embeddings: bool = False):
        self.model, self.top_k = model, min(top_k, model.config.num_labels)
        self.features = HeadInput(model) if embeddings else None

    def __call__(self, clips: Sequence[Clip]) -> list[dict[str, Any]]:
        """
        Classify clips, and return their rows.

        Raises:
            ValueError: If a score or feature is not finite. The message names the video.
        """
        rows = []
        for clip, found in zip(clips, classify_clips(self.model, clips, self.features), strict=True):
            row: dict[str, Any] = {"source": _as_utf8(str(clip.source))}
            if found is None or clip.info is None:
                kind = type(clip.error).__name__
                rows.append({**row, "error_kind": kind, "error": _as_utf8(str(clip.error) or kind)})
                continue
            row |= {"frames": clip.info.total_num_frames, "seconds": clip.info.duration}
            row["warning"] = _as_utf8("; ".join(clip.info.remarks)) or None
            try:
                rows.append({**row, **self._answer(*found)})
            except ValueError as error:
                raise ValueError(f"{clip.source}: {error}") from error
        return rows

    def _answer(self, scores: torch.Tensor, features: torch.Tensor | None) -> dict[str, Any]:
        best = answers(self.model, scores, self.top_k)
        answer: dict[str, Any] = {}
        if self.top_k:
            answer["labels"], answer["scores"] = ([row[name] for row in best] for name in ("label", "score"))
            answer["best_guess"] = best[0].get("best_guess")
        if features is not None:
            if not features.isfinite().all():
                raise ValueError("the pooled features are not finite; they may overflow in half precision")
            answer["embedding"] = features.numpy()
        return answer

    def close(self):
        """Leave the model as it was."""
        if self.features is not None:
            self.features.remove()


def _as_utf8(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()
