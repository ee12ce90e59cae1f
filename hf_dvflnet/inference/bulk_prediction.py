"""Predicts a large list of videos into a file or a folder, and resumes where it was stopped: `predict_to_file`."""

import hashlib
import os
import time
import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from itertools import islice
from typing import Any

from torch import nn
from tqdm.auto import tqdm

from ..clip_sampling import check_positive
from ..data.jobs import default_workers, quiet_videos
from ..data.storages import storage_of
from ..hub.loaded_models import weights_digest
from .pipeline import ClipClassifier, check_views, decode_clips
from .prediction_files import PredictionFile, Row, columns


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
    retry_failed: bool = False,
) -> dict[str, Any]:
    """
    Classify videos, and write a row for each, in the order of `sources`. The same call resumes a run that was stopped.

    The columns (`prediction_files.columns`) are:

    - `source`: the path or URL. Bytes that are not UTF-8 are escaped, as in `\\udcff`.
    - `labels` and `scores`: the best classes, best first, lists of length `top_k`. In CSV, `label_1`, `score_1`, ...
    - `frames` and `seconds`: number of frames of the video, and its duration if it states one.
    - `warning`: what reading the video warned of, such as frames that are missing.
    - `error_kind` and `error`: why the video could not be read: the name of the exception (`FileNotFoundError`,
      `VideoDecodeError`, ...), `DecoderCrash` if it ended its sandbox twice; and the message.
    - `embedding`: the pooled features, float32, with `embeddings`.

    Values that a row lacks are null, in CSV empty. A source that occurs several times has one row.

    Rows are written in parts of 256. A folder contains these parts, in Parquet, and any engine reads it
    (`pyarrow.dataset`, `datasets`, DuckDB, Spark). For a file, they lie in `OUTPUT.parts` until the end. After an
    interruption of any kind, at most one part of each process is computed again. If all is there, nothing is computed.

    Processes that a launcher started (`accelerate launch`, `torchrun`; it sets both `RANK` and `WORLD_SIZE`) share the
    blocks, if `output` lies in a folder that all of them see. They do not communicate otherwise. A run may be
    continued with another number of processes.

    Args:
        model: The classifier, on any device, in evaluation mode; or an exported program ([`load_exported`]).
        processor: Its video processor.
        sources: Paths, http(s) URLs, or paths in storages (`hf://`, `s3://`) of videos. They obey [`VideoLimits`].
        output: A folder, or a file that ends in `.parquet`, `.jsonl` or `.csv`, here or in a storage
            (`s3://BUCKET/scores`).
        views: 1, 4 for 4 clips x 1 crop, or 12 for 4 clips x 3 crops, whose scores and pooled features are averaged.
        top_k: Number of classes per video; 0 for none, with `embeddings`.
        embeddings: Whether to write the pooled features: what the model's `classifier` is given.
        batch_size: Number of videos that are classified at once.
        num_workers: Number of sandboxes that decode, by default one per CPU, shared by the processes of a machine. 0
            decodes in this process, which then ends with a decoder that crashes.
        retry_failed: Whether to read videos again whose rows have an error, in a single process.

    Returns:
        `videos` (number of rows), `written` (those that this process computed now), `seconds`,
        `decoding_seconds` (waited for decoders), `model_seconds`, `bound_by` (`"decoding"`, `"the model"`, or `None`
        if nothing was computed), `process` and `processes`; and `failures`, the number of rows of the output with an
        error by `error_kind`, which is `None` in all processes except the main one. When the main one returns, all
        rows are there.

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
    process, file.processes = process_share()
    if retry_failed and file.processes > 1:
        raise ValueError("retry_failed works in one process; start it without a launcher")
    with closing(ClipClassifier(model, top_k=top_k, embeddings=embeddings)) as classifier:
        if num_workers is None:
            num_workers = default_workers()
        file.begin(main=process == 0)
        # the same shares whenever a process looks, also while others write
        mine: dict[int, Sequence[int] | None] = dict.fromkeys(
            block for block in file.missing() if block % file.processes == process
        )
        if retry_failed:
            file.reopen()
            mine |= file.failed()
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
        "processes": file.processes,
        "failures": None if failures is None else dict(failures.most_common()),
        "seconds": time.perf_counter() - began,
    }


def process_share() -> tuple[int, int]:
    """Number of this process, and of all that a launcher started. A platform may set `WORLD_SIZE` for a single one."""
    return (int(os.environ["RANK"]), int(os.environ.get("WORLD_SIZE", 1))) if "RANK" in os.environ else (0, 1)


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
    check_views(views, model.config)
    check_positive(batch_size=batch_size, **{} if embeddings and not top_k else {"top_k": top_k})
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
    schema = columns(model, min(top_k, model.config.num_labels), embeddings)
    return videos, PredictionFile(output, schema, run, len(videos))


def _write_blocks(
    file: PredictionFile,
    blocks: Mapping[int, Sequence[int] | None],
    videos: Sequence[str],
    classifier: ClipClassifier,
    processor: Any,
    *,
    views: int,
    batch_size: int,
    num_workers: int,
    quiet: bool,
) -> dict[str, Any]:
    """
    Compute blocks, of which only some rows if these are given, and write them; return the part of the summary that
    tells of it.
    """
    spent = {"decoding": 0.0, "the model": 0.0}
    wanted = {block: numbers or file.blocks[block] for block, numbers in blocks.items()}
    written = sum(map(len, wanted.values()))
    sources = (videos[row] for numbers in wanted.values() for row in numbers)
    with (
        quiet_videos(),
        closing(decode_clips(sources, processor, views=views, num_workers=num_workers)) as clips,
        tqdm(total=written, unit="video", disable=True if quiet or not written else None) as progress,
    ):
        for block, numbers in wanted.items():
            rows: list[Row] = []
            while missing := len(numbers) - len(rows):
                started = time.perf_counter()
                batch = list(islice(clips, min(batch_size, missing)))
                decoded = time.perf_counter()
                rows += classifier(batch)
                spent["decoding"] += decoded - started
                spent["the model"] += time.perf_counter() - decoded
                progress.update(len(batch))
            file.write(block, rows, blocks[block])
    return {
        "written": written,
        "decoding_seconds": spent["decoding"],
        "model_seconds": spent["the model"],
        "bound_by": max(spent, key=spent.__getitem__) if written else None,
    }


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
