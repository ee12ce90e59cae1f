"""
Classifies as many videos as there are, into one file: `predict_to_file`.

The steps are functions of their own, which any scheduler can call: [`decode_clips`] reads videos in child processes,
[`ClipClassifier`] makes rows of what they read, and [`PredictionFile`] writes blocks of rows.
"""

import hashlib
import os
import time
import warnings
from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import pyarrow
import torch
from torch import nn
from tqdm.auto import tqdm

from ..data.downloads import storage_of
from ..data.jobs import quiet_videos
from ..data.limits import VideoLimits
from ..data.sandbox import SandboxError
from ..data.workers import cpu_count, run_ahead
from ..hub.loaded_models import HeadInput, feature_width, weights_digest
from ..video_decoding import VideoSource, read_video, video_limits
from .prediction import VIEWS, best_classes, classify, refuse_below_one
from .prediction_files import PredictionFile, Row


def predict_to_file(
    model: Any,
    processor: Any,
    sources: Iterable[str | os.PathLike],
    output: str | os.PathLike,
    *,
    views: int = 1,
    top_k: int = 5,
    embeddings: bool = False,
    batch_size: int = 8,
    num_workers: int | None = None,
) -> dict[str, Any]:
    """
    Classify videos, and write a row for each, in the order of `sources`. The same call resumes a run that was stopped.

    The columns are:

    - `source`: the path or URL. Bytes that are not UTF-8 are escaped, as in `\\udcff`.
    - `labels` and `scores`: the best classes, best first, lists of length `top_k`. In CSV, `label_1`, `score_1`, ...
    - `frames` and `seconds`: number of frames of the video, and its duration if it states one.
    - `warning`: what reading the video warned of, such as frames that are missing.
    - `error_kind` and `error`: why the video could not be read: the name of the exception (`FileNotFoundError`,
      `VideoDecodeError`, ...), `DecoderCrash` if it ended its sandbox twice; and the message.
    - `embedding`: the pooled features, float32, with `embeddings`.

    Values that a row lacks are null, in CSV empty. A source that occurs several times has one row.

    While it runs, finished parts of 256 rows lie in `OUTPUT.parts`, and `OUTPUT.run.json` says which run they belong
    to. After an interruption of any kind, at most one part of each process is computed again. If the file is complete,
    nothing is computed.

    Processes that a launcher started (`accelerate launch`, `torchrun`; `RANK` and `WORLD_SIZE`) share the blocks, if
    `output` lies in a folder that all of them see. They do not communicate otherwise. A run may be continued with
    another number of processes.

    Args:
        model: The classifier, on any device, in evaluation mode; or an exported program ([`load_exported`]).
        processor: Its video processor.
        sources: Paths, http(s) URLs, or paths in storages (`hf://`, `s3://`) of videos. They obey [`VideoLimits`].
        output: A path that ends in `.parquet`, `.jsonl` or `.csv`, here or in a storage (`s3://BUCKET/scores.parquet`).
        views: 1, or 12 for 4 clips x 3 crops, whose scores are averaged, and whose pooled features, too.
        top_k: Number of classes per video; 0 for none, with `embeddings`.
        embeddings: Whether to write the pooled features: what the model's `classifier` is given.
        batch_size: Number of videos that are classified at once.
        num_workers: Number of sandboxes that decode, by default one per CPU, shared by the processes of a machine. 0
            decodes in this process, which then ends with a decoder that crashes.

    Returns:
        `videos` (number of rows of the file), `written` (those that this process computed now), `seconds`,
        `decoding_seconds` (waited for decoders), `model_seconds`, `bound_by` (`"decoding"`, `"the model"`, or `None`
        if nothing was computed), `process` and `processes`; and `failures`, the number of rows with an error by
        `error_kind`, which is `None` if the file was complete before, and in all processes except the main one. When
        the main one returns, the file is complete.

    Raises:
        FileExistsError: If `output` exists and no earlier run is known.
        ImportError: If the package that reads a storage is not installed.
        ValueError: If `output` belongs to a run with another list of videos, model, processor or settings; if an
            argument is out of range; or if a score is not finite.

    Warns:
        UserWarning: If sources occur several times, or if `output` cannot be continued, since it is in memory.
    """
    began = time.perf_counter()
    options: dict[str, Any] = {"views": views, "top_k": top_k, "embeddings": embeddings}
    videos, file = open_run(model, processor, sources, output, batch_size=batch_size, **options)
    with closing(ClipClassifier(model, top_k=top_k, embeddings=embeddings)) as classifier:
        process, processes = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        if num_workers is None:
            num_workers = max(1, cpu_count() // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))
        file.begin(main=process == 0)
        # the same shares whenever a process looks, also while others write
        mine = [block for block in file.missing() if block % processes == process]
        done = _write_blocks(
            *(file, mine, videos, classifier, processor),
            views=views,
            batch_size=batch_size,
            num_workers=num_workers,
            quiet=process > 0,
        )
    failures = file.finish() if process == 0 else None
    return {
        "videos": len(videos),
        **done,
        "process": process,
        "processes": processes,
        "failures": None if failures is None else dict(failures.most_common()),
        "seconds": time.perf_counter() - began,
    }


def open_run(
    model: Any,
    processor: Any,
    sources: Iterable[str | os.PathLike],
    output: str | os.PathLike,
    *,
    views: int,
    top_k: int,
    embeddings: bool,
    batch_size: int,
) -> tuple[list[str], PredictionFile]:
    """Check the arguments of [`predict_to_file`]; return the videos, each once, and the file, which is not begun."""
    if views not in VIEWS:
        raise ValueError(f"views must be 1 or 12, got {views}")
    refuse_below_one(batch_size=batch_size)
    if embeddings and os.fspath(output).lower().endswith(".csv"):
        raise ValueError(f"{output}: CSV has no lists, which embeddings are; write .parquet or .jsonl")
    listed = [os.fspath(source) for source in sources]
    videos = list(dict.fromkeys(listed))
    if not videos:
        raise ValueError(f"{output}: there are no videos to classify")
    for protocol in {video.partition("://")[0] for video in videos if "://" in video}:
        storage_of(f"{protocol}://")  # refuses one that cannot be read at all, rather than each of its videos
    if len(videos) < len(listed):
        warnings.warn(
            f"{len(listed) - len(videos)} of {len(listed)} sources repeat others, and get no further row", stacklevel=3
        )
    run = describe_run(model, processor, videos, views=views, top_k=top_k, embeddings=embeddings)
    with closing(ClipClassifier(model, top_k=top_k, embeddings=embeddings)) as classifier:
        return videos, PredictionFile(output, classifier.schema, run, len(videos))


def _write_blocks(
    file: PredictionFile,
    blocks: Sequence[int],
    videos: Sequence[str],
    classifier: "ClipClassifier",
    processor: Any,
    *,
    views: int,
    batch_size: int,
    num_workers: int,
    quiet: bool,
) -> dict[str, Any]:
    """Compute blocks and write them; return the part of the summary that tells of it."""
    spent = {"decoding": 0.0, "the model": 0.0}
    written = sum(len(file.blocks[block]) for block in blocks)
    sources = (videos[row] for block in blocks for row in file.blocks[block])
    with (
        closing(decode_clips(sources, processor, views=views, num_workers=num_workers)) as clips,
        tqdm(total=written, unit="video", disable=True if quiet or not written else None) as progress,
    ):
        for block in blocks:
            rows: list[Row] = []
            while missing := len(file.blocks[block]) - len(rows):
                started = time.perf_counter()
                batch = list(islice(clips, min(batch_size, missing)))
                decoded = time.perf_counter()
                rows += classifier(batch)
                spent["decoding"] += decoded - started
                spent["the model"] += time.perf_counter() - decoded
                progress.update(len(batch))
            file.write(block, rows)
    return {
        "written": written,
        "decoding_seconds": spent["decoding"],
        "model_seconds": spent["the model"],
        "bound_by": max(spent, key=spent.__getitem__) if written else None,
    }


@dataclass
class DecodedClip:
    """
    What one video gives to the model, or why it gives nothing.

    `pixel_values` is float32 of shape (frames, channels, height, width), with views in front if there are several.
    """

    source: str
    pixel_values: np.ndarray | None = None
    frames: int | None = None
    seconds: float | None = None
    warning: str | None = None
    error_kind: str | None = None
    error: str | None = None


def decode_clip(source: VideoSource, processor: Any, views: int = 1, limits: VideoLimits | None = None) -> DecodedClip:
    """Decode and preprocess the frames of one video that the model sees. Errors are returned, not raised."""
    clips, crops = VIEWS[views]
    try:
        frames, info = read_video(source, partial(processor.sample_frames, num_clips=clips), limits=limits)
        parts = np.split(frames, clips)
        shown = processor(parts, do_sample_frames=False, num_clips=1, num_crops=crops, return_tensors="pt")
    except SandboxError:
        raise
    except Exception as error:  # one video among a million must not end the others
        return DecodedClip(str(source), error_kind=type(error).__name__, error=str(error) or type(error).__name__)
    pixel_values = shown["pixel_values"]
    pixel_values = pixel_values.flatten(0, 1) if crops > 1 else pixel_values
    pixel_values = (pixel_values if views > 1 else pixel_values[0]).numpy()
    return DecodedClip(
        str(source), pixel_values, info.total_num_frames, info.duration, "; ".join(info.remarks) or None
    )


def decode_clips(
    sources: Iterable[str], processor: Any, *, views: int = 1, num_workers: int | None = None
) -> Generator[DecodedClip, None, None]:
    """
    Decode videos in sandboxes, in order, a few ahead.

    Args:
        sources: Paths or URLs, taken as needed.
        processor: The video processor.
        views: 1 or 12.
        num_workers: Number of sandboxes, by default one per CPU. 0 decodes in this process.
    """
    num_workers = cpu_count() if num_workers is None else num_workers
    limits = replace(video_limits(), sandbox=num_workers > 0, max_threads=1)
    calls = (partial(decode_clip, source, processor, views, limits) for source in sources)
    with quiet_videos(), closing(run_ahead(calls, num_workers)) as clips:
        for clip in clips:
            yield clip()


class ClipClassifier:
    """
    Makes rows of decoded clips, as [`predict_to_file`] writes them.

    Args:
        model: The classifier, on any device, in evaluation mode; or an exported program.
        top_k: Number of classes per video; 0 for none, with `embeddings`.
        embeddings: Whether to add the pooled features.

    Attributes:
        schema: Names and types of the columns.

    Raises:
        ValueError: If `top_k` is out of range, or if an exported program, which has no features, is to give them.
    """

    def __init__(self, model: Any, *, top_k: int = 5, embeddings: bool = False):
        if top_k or not embeddings:
            refuse_below_one(top_k=top_k)
        self.model, self.top_k = model, min(top_k, model.config.num_labels)
        self.features = HeadInput(model) if embeddings else None
        columns: dict[str, pyarrow.DataType] = {"source": pyarrow.string()}
        if self.top_k:
            columns["labels"] = pyarrow.list_(pyarrow.string(), self.top_k)
            columns["scores"] = pyarrow.list_(pyarrow.float32(), self.top_k)
        columns |= {"frames": pyarrow.int32(), "seconds": pyarrow.float64()}
        columns |= dict.fromkeys(("warning", "error_kind", "error"), pyarrow.string())
        if embeddings:
            columns["embedding"] = pyarrow.list_(pyarrow.float32(), feature_width(model))
        self.schema = pyarrow.schema(list(columns.items()))

    def __call__(self, clips: Sequence[DecodedClip]) -> list[Row]:
        """
        Classify clips at once, those of other shapes apart, as a processor that does not crop gives them.

        Raises:
            ValueError: If a score or feature is not finite. The message names the video.
        """
        names = ("source", "frames", "seconds", "warning", "error_kind", "error")
        rows = [{name: _as_utf8(getattr(clip, name)) for name in names} for clip in clips]
        alike: dict[tuple[int, ...], dict[int, np.ndarray]] = {}
        for index, clip in enumerate(clips):
            if clip.pixel_values is not None:
                alike.setdefault(clip.pixel_values.shape, {})[index] = clip.pixel_values
        for arrays in alike.values():
            pixel_values = torch.from_numpy(np.stack(list(arrays.values())))
            if self.model.device.type == "cuda":
                pixel_values = pixel_values.pin_memory()
            scores = classify(self.model, pixel_values)
            features = self._features(len(arrays))
            for place, index in enumerate(arrays):
                try:
                    rows[index] |= self._answer(scores[place], None if features is None else features[place])
                except ValueError as error:
                    raise ValueError(f"{clips[index].source}: {error}") from error
        return rows

    def _features(self, count: int) -> torch.Tensor | None:
        """The pooled features of the last batch, float32 of shape (count, width), averaged over views."""
        if self.features is None:
            return None
        pooled = self.features.take().float().cpu()
        return pooled.unflatten(0, (count, -1)).mean(1)

    def _answer(self, scores: torch.Tensor, features: torch.Tensor | None) -> Row:
        answer: Row = {}
        best = best_classes(self.model, scores, self.top_k)
        if self.top_k:
            answer["labels"], answer["scores"] = map(list, zip(*best, strict=True))
        if features is not None:
            if not features.isfinite().all():
                raise ValueError("the pooled features are not finite; they may overflow in half precision")
            answer["embedding"] = features.numpy()
        return answer

    def close(self):
        """Leave the model as it was."""
        if self.features is not None:
            self.features.remove()


def _as_utf8(value: Any) -> Any:
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def describe_run(
    model: Any, processor: Any, videos: Sequence[str], *, views: int, top_k: int, embeddings: bool
) -> dict[str, Any]:
    """What the rows depend on, by name: digests of the videos' names, the model and the processor, and settings."""
    names = hashlib.sha256()
    for video in videos:
        names.update(video.encode("utf-8", "surrogateescape") + b"\0")
    return {
        "videos": {"number": len(videos), "sha256": names.hexdigest()},
        "model": weights_digest(model) if isinstance(model, nn.Module) else _digest_of_files(model.folder),
        "labels": [model.config.id2label[index] for index in range(model.config.num_labels)],
        "scores": model.config.problem_type,
        "processor": hashlib.sha256(processor.to_json_string().encode()).hexdigest(),
        "views": views,
        "top_k": top_k,
        "embeddings": embeddings,
    }


def _digest_of_files(folder: os.PathLike) -> str:
    digest = hashlib.sha256()
    for name in sorted(os.listdir(folder)):
        path = os.path.join(folder, name)
        if os.path.isfile(path):
            with open(path, "rb") as file:
                digest.update(f"{name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()


__all__ = [
    "ClipClassifier",
    "DecodedClip",
    "decode_clip",
    "decode_clips",
    "describe_run",
    "open_run",
    "predict_to_file",
]
