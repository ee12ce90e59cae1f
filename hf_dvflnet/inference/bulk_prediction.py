"""
Predicts a large list of videos into a file or a folder, and resumes where it was stopped: `predict_to_file`.

The list is cut into blocks. Each block is a Parquet file of its own, `part-00000012.parquet`, which is either complete
or not there. A block whose file is missing has yet to be computed, by whichever process.
"""

import csv
import hashlib
import json
import math
import os
import time
import warnings
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, nullcontext
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import pyarrow
import pyarrow.dataset
import pyarrow.parquet
from torch import nn
from tqdm.auto import tqdm

from ..clip_sampling import check_positive
from ..data.jobs import connected, map_on_ray, quiet_videos
from ..data.limits import VideoLimits
from ..data.storages import LocalFiles, StoredFiles, filesystem_of, open_file, storage_errors, storage_of
from ..hub.calibration import threshold_of
from ..hub.loaded_models import feature_width, place, weights_digest
from .pipeline import ClipClassifier, batches, check_views, decode_clips


SUFFIXES = (".parquet", ".jsonl", ".csv")
ROWS_PER_PART = 256
VIDEOS_PER_TASK = 16  # of Ray: a few seconds of work
SECONDS_OF_SILENCE = 60.0  # that a process waits for others before it says so
PARTS_PER_GROUP = 64  # row groups of the Parquet file at the end, which are put together in memory

Row = dict[str, Any]


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
    ray: str | None = None,
    retry_failed: bool = False,
) -> dict[str, Any]:
    """
    Classify videos, and write a row for each, in the order of `sources`. The same call resumes a run that was stopped.

    The columns (`columns`) are:

    - `source`: the path or URL. Bytes that are not UTF-8 are escaped, as in `\\udcff`.
    - `labels` and `scores`: the best classes, best first, lists of length `top_k`. In CSV, `label_1`, `score_1`, ...
    - `best_guess`, if the model has a threshold: the class of a first label that is null, its score being below it.
    - `frames` and `seconds`: number of frames of the video, and its duration if it states one.
    - `warning`: warnings from reading the video, such as missing frames.
    - `error_kind` and `error`: why the video could not be read: the name of the exception (`FileNotFoundError`,
      `VideoDecodeError`, ...), `DecoderCrash` if it ended its sandbox twice; and the message.
    - `embedding`: the pooled features, float32, with `embeddings`.

    Values that a row lacks are null, in CSV empty. A source that occurs several times has one row.

    Rows are written in parts of 256. A folder contains these parts, in Parquet, and any engine reads it
    (`pyarrow.dataset`, `datasets`, DuckDB, Spark). For a file, they lie in `OUTPUT.parts` until the end. After an
    interruption of any kind, at most one part of each process is computed again. If the output is complete, nothing
    is computed.

    Processes that a launcher started (`accelerate launch`, `torchrun`; it sets both `RANK` and `WORLD_SIZE`) share the
    blocks, if `output` lies in a folder that all of them see. They do not communicate otherwise. A run may be
    continued with another number of processes, or on a Ray cluster.

    All nodes of a Ray cluster must have this package, and see the current folder and the videos at the same paths;
    only this process writes. A task that loses its worker or node is run again, at most 5 times.

    Args:
        model: The classifier, on any device, in evaluation mode; or an exported program ([`load_exported`]). For Ray,
            a model on the CPU, which is copied to the workers.
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
        ray: Address of a Ray cluster that does the work: `"auto"` for the one that `RAY_ADDRESS` names or that runs on
            this machine, `"local"` to start one on this machine that ends with the call, or `HOST:PORT`. If it has
            GPUs, the model runs on each, beside which the cores of its node decode; else on each core.
        retry_failed: Whether to read videos again whose rows have an error, in a single process. `output` must be a
            folder, or not be finished.

    Returns:
        `videos` (number of rows), `written` (those that this process computed now), `seconds`,
        `process` and `processes`; unless Ray does the work, `decoding_seconds` (waited for decoders), `model_seconds`
        and `bound_by` (`"decoding"`, `"the model"`, or `None` if nothing was computed); and `failures`, the number of
        rows of the output with an error by `error_kind`, which is `None` in all processes except the main one. When
        the main one returns, all rows are there.

    Raises:
        FileExistsError: If `output` exists and no earlier run is known.
        ImportError: If the package that reads a storage, or Ray, is not installed.
        ConnectionError: If no Ray cluster can be reached.
        OSError: If Ray gave up. Finished blocks stay.
        ValueError: If `output` belongs to a run with another list of videos, model, processor or settings; if an
            argument is out of range; or if a score is not finite.

    Warns:
        UserWarning: If sources occur several times, or if `output` cannot be continued, since it is in memory.
    """
    began = time.perf_counter()
    check_views(views, model.config)
    check_positive(batch_size=batch_size, **{} if embeddings and not top_k else {"top_k": top_k})
    if embeddings and os.fspath(output).lower().endswith(".csv"):
        raise ValueError(f"{output}: CSV has no lists, which embeddings are; write .parquet or .jsonl")
    process, processes = process_share()
    if processes > 1 and (retry_failed or ray is not None):
        raise ValueError("retry_failed and Ray work in one process; start it without a launcher")
    if ray is not None and (not isinstance(model, nn.Module) or model.device.type != "cpu"):
        raise ValueError("Ray takes a model that lies on the CPU, and no exported program; it moves copies to GPUs")
    videos = _each_once(sources, output)
    options: dict[str, Any] = {"views": views, "top_k": top_k, "embeddings": embeddings}
    schema = columns(model, min(top_k, model.config.num_labels), embeddings)
    file = PredictionFile(output, schema, describe_run(model, processor, videos, **options), len(videos), processes)
    with nullcontext() if ray is None or (file.complete and not retry_failed) else connected(ray):
        file.begin()
        # the same shares whenever a process looks, also while others write
        blocks: dict[int, Sequence[int]] = {
            block: file.blocks[block] for block in file.missing() if block % processes == process
        }
        if retry_failed:
            blocks |= file.failed()
        spent = {"decoding": 0.0, "the model": 0.0}
        options |= {"batch_size": batch_size}
        if ray is None:
            rows = _rows_here(blocks.values(), videos, model, processor, num_workers, spent, **options)
        else:
            rows = _rows_on_ray(blocks.values(), videos, model, processor, **options)
        with closing(rows):
            _write_blocks(file, blocks, rows, quiet=process > 0)
    written = sum(map(len, blocks.values()))
    failures = file.finish() if process == 0 else None
    found = {
        "decoding_seconds": spent["decoding"],
        "model_seconds": spent["the model"],
        "bound_by": max(spent, key=spent.__getitem__) if written else None,
    }
    return {
        "videos": len(videos),
        "written": written,
        **(found if ray is None else {}),
        "process": process,
        "processes": processes,
        "failures": None if failures is None else dict(failures.most_common()),
        "seconds": time.perf_counter() - began,
    }


def process_share() -> tuple[int, int]:
    """Number of this process, and of all that a launcher started. A platform may set `WORLD_SIZE` for a single one."""
    return (int(os.environ["RANK"]), int(os.environ.get("WORLD_SIZE", 1))) if "RANK" in os.environ else (0, 1)


def _each_once(sources: Iterable[str | os.PathLike], output: str | os.PathLike) -> list[str]:
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
    return videos


def _write_blocks(
    file: "PredictionFile", blocks: Mapping[int, Sequence[int]], rows: Iterator[Row], *, quiet: bool = False
):
    """Write blocks, of which only some rows may be given, with the next of `rows`."""
    total = sum(map(len, blocks.values()))
    with tqdm(total=total, unit="video", disable=True if quiet or not total else None) as progress:
        for block, numbers in blocks.items():
            found = []
            for row in islice(rows, len(numbers)):
                found.append(row)
                progress.update()
            file.write(block, numbers, found)


def _rows_here(
    blocks: Iterable[Sequence[int]],
    videos: Sequence[str],
    model: Any,
    processor: Any,
    num_workers: int | None,
    spent: dict[str, float],
    *,
    views: int,
    batch_size: int,
    **answers: Any,
) -> Generator[Row, None, None]:
    """The rows of blocks, each in batches of its own, so that they are the same whichever blocks were there before."""
    wanted = (videos[row] for rows in blocks for row in rows)
    with (
        closing(ClipClassifier(model, **answers)) as classifier,
        quiet_videos(),
        closing(decode_clips(wanted, processor, views=views, num_workers=num_workers)) as clips,
    ):
        for numbers in blocks:
            for first in range(0, len(numbers), batch_size):
                started = time.perf_counter()
                batch = list(islice(clips, min(batch_size, len(numbers) - first)))
                decoded = time.perf_counter()
                rows = classifier(batch)
                spent["decoding"] += decoded - started
                spent["the model"] += time.perf_counter() - decoded
                yield from rows


def _rows_on_ray(
    blocks: Iterable[Sequence[int]],
    videos: Sequence[str],
    model: nn.Module,
    processor: Any,
    *,
    views: int,
    batch_size: int,
    **answers: Any,
) -> Generator[Row, None, None]:
    """The rows of blocks. A task decodes and classifies some videos on a core, or on a GPU and its share of cores."""
    import ray

    tasks = (
        [videos[row] for row in rows[first : first + VIDEOS_PER_TASK]]
        for rows in blocks
        for first in range(0, len(rows), VIDEOS_PER_TASK)
    )
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    shares = [int(node.get("CPU", 0) / node["GPU"]) for node in nodes if node.get("GPU")]
    cores = max(1, min(shares, default=1))
    work = partial(
        _classify_task,
        # in a tuple, Ray leaves it to the task to fetch the model, which a worker does once
        classifier=(ray.put(model), "cuda" if shares else "cpu", *answers.items()),
        processor=processor,
        views=views,
        batch_size=batch_size,
        num_workers=cores if shares else 0,
    )
    with closing(map_on_ray(work, tasks, num_cpus=cores, num_gpus=1 if shares else 0)) as results:
        for rows in results:
            yield from rows


def _classify_task(
    videos: Sequence[str],
    limits: VideoLimits,
    *,
    classifier: tuple[Any, ...],
    processor: Any,
    views: int,
    batch_size: int,
    num_workers: int,
) -> list[Row]:
    """The rows of the videos of a task."""
    classify = _classifier(*classifier)
    with closing(decode_clips(videos, processor, views=views, num_workers=num_workers, limits=limits)) as clips:
        return [row for batch in batches(clips, batch_size) for row in classify(batch)]


@lru_cache(maxsize=1)
def _classifier(model: Any, device: str, *answers: tuple[str, Any]) -> ClipClassifier:
    import ray

    return ClipClassifier(place(ray.get(model), device), **dict(answers))


def describe_run(model: Any, processor: Any, videos: Sequence[str], **options: Any) -> dict[str, Any]:
    """What the rows depend on, by name: digests of the videos' names, the model and the processor, and settings."""
    names = hashlib.sha256()
    for video in videos:
        names.update(video.encode("utf-8", "surrogateescape") + b"\0")
    threshold = threshold_of(model.config)
    return {
        **({"threshold": threshold} if threshold else {}),
        "videos": {"number": len(videos), "sha256": names.hexdigest()},
        "model": weights_digest(model.state_dict())
        if isinstance(model, nn.Module)
        else _digest_of_files(model.folder),
        "labels": [model.config.id2label[index] for index in range(model.config.num_labels)],
        "scores": model.config.problem_type,
        "processor": hashlib.sha256(processor.to_json_string().encode()).hexdigest(),
        **options,
    }


def _digest_of_files(folder: os.PathLike) -> str:
    digest = hashlib.sha256()
    for name in sorted(os.listdir(folder)):
        path = os.path.join(folder, name)
        if os.path.isfile(path):
            with open(path, "rb") as file:
                digest.update(f"{name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()


# The output


def columns(model: Any, top_k: int, embeddings: bool) -> pyarrow.Schema:
    """Names and types of the columns; [`predict_to_file`] explains them. They are written in this order."""
    found: dict[str, pyarrow.DataType] = {"source": pyarrow.string()}
    if top_k:
        found["labels"] = pyarrow.list_(pyarrow.string(), top_k)
        found["scores"] = pyarrow.list_(pyarrow.float32(), top_k)
        if threshold_of(model.config):
            found["best_guess"] = pyarrow.string()
    found |= {"frames": pyarrow.int32(), "seconds": pyarrow.float64()}
    found |= dict.fromkeys(("warning", "error_kind", "error"), pyarrow.string())
    if embeddings:
        found["embedding"] = pyarrow.list_(pyarrow.float32(), feature_width(model))
    return pyarrow.schema(list(found.items()))


class PredictionFile:
    """
    The folder that a run writes, with its parts; or the file, whose parts lie in `OUTPUT.parts` until they are merged.

    `_run.json` in the folder, or `OUTPUT.run.json` beside the file, says which run it belongs to; it stays there.

    Args:
        schema: Names and types of the columns.
        run: What the rows depend on, as JSON, by name: the list of videos, the model, the settings.
        rows: Number of rows of the whole output, of which `blocks` has those of each block.
    """

    def __init__(
        self, output: str | os.PathLike, schema: pyarrow.Schema, run: dict[str, Any], rows: int, processes: int
    ):
        self.output, self.schema = os.fspath(output).rstrip("/"), schema
        self._suffix = PurePath(self.output).suffix.lower()
        if self._suffix not in ("", *SUFFIXES):
            raise ValueError(f"{output}: the output must be a folder, or end in {', '.join(SUFFIXES)}")
        self.run = {**run, "rows_per_part": ROWS_PER_PART}
        self.parts, self.description = f"{self.output}.parts", f"{self.output}.run.json"
        if not self._suffix:
            self.parts, self.description = self.output, f"{self.output}/_run.json"
        self.blocks = [range(start, min(start + ROWS_PER_PART, rows)) for start in range(0, rows, ROWS_PER_PART)]
        self._files = LocalFiles() if storage_of(self.output) is None else StoredFiles(self.output)
        self.processes = processes

    def begin(self):
        """Begin or continue the run, which each of several processes does; an output of another run is refused."""
        # the names first: a process writes the description before any part
        names = [name for name in self._files.names(self.parts) if not name.startswith(".")]
        begun = bool(names) if not self._suffix else self.complete or any(name.startswith("part-") for name in names)
        found = self._described()
        if begun and found != self.run:
            if found is None:
                raise FileExistsError(f"{self.output}: exists, and no earlier run of this command is known; {_OTHER}")
            differing = [name for name in {**self.run, **found} if found.get(name) != self.run.get(name)]
            raise ValueError(f"{self.output}: belongs to a run with different {', '.join(differing)}; {_OTHER}")
        if not self.complete:
            self._files.begin(self.parts)
            with self._files.whole(self.description, self.parts) as unfinished:
                unfinished.write_text(json.dumps(self.run, indent=1) + "\n", encoding="utf-8")

    def failed(self) -> dict[int, list[int]]:
        """Rows with an error, by the block whose part has them."""
        if self._suffix and self.complete:
            raise ValueError(f"{self.output}: is finished; only rows in a folder of parts can be replaced, {_OTHER}")
        found = {}
        for block in set(range(len(self.blocks))) - set(self.missing()):
            kinds = self._read_part(block)["error_kind"].to_pylist()
            rows = [row for row, kind in zip(self.blocks[block], kinds, strict=True) if kind is not None]
            if rows:
                found[block] = rows
        return found

    @property
    def complete(self) -> bool:
        if self._suffix:
            return self._files.exists(self.output)
        there = set(self._files.names(self.parts))
        return all(_part(block) in there for block in range(len(self.blocks)))

    def _described(self) -> dict[str, Any] | None:
        try:
            with open_file(self.description, "r", encoding="utf-8") as file:
                found = json.load(file)
        except (FileNotFoundError, ValueError):
            return None
        return found if isinstance(found, dict) else None

    def missing(self) -> list[int]:
        """Numbers of the blocks that have yet to be computed."""
        there = set(self._files.names(self.parts))
        # asked last: another process deletes the parts once the file is there
        if self._suffix and self.complete:
            return []
        return [block for block in range(len(self.blocks)) if _part(block) not in there]

    def write(self, block: int, numbers: Sequence[int], rows: Sequence[Row]):
        """Write these rows of a block, completely or not at all; where they are not all, the others stay."""
        anew = dict(zip(numbers, rows, strict=True))
        if len(numbers) < len(self.blocks[block]):
            anew = dict(zip(self.blocks[block], self._read_part(block).to_pylist(), strict=True)) | anew
        with self._files.whole(f"{self.parts}/{_part(block)}", self.parts) as unfinished:
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(anew.values()), self.schema), unfinished)

    def finish(self) -> Counter[str]:
        """
        When all parts are there, those of other processes too, merge them into the file and delete them. Returns the
        number of rows with an error, by `error_kind`.
        """
        end = time.monotonic() + SECONDS_OF_SILENCE
        while missing := self.missing():
            time.sleep(0.1)
            if time.monotonic() > end:
                end = math.inf
                warnings.warn(
                    f"{self.output}: waits for {len(missing)} parts that other processes write; there should be "
                    f"{self.processes} processes (WORLD_SIZE). If this one is alone, stop it, and run the same "
                    "command without RANK and WORLD_SIZE in its environment",
                    stacklevel=3,
                )
        if self._suffix:
            if not self.complete:
                with self._files.whole(self.output, self.parts) as unfinished:
                    _WRITERS[self._suffix](unfinished, self.schema, map(self._read_part, range(len(self.blocks))))
            self._files.remove(self.parts)
        kind, form = pyarrow.schema([("error_kind", pyarrow.string())]), _FORMATS[self._suffix]
        with storage_errors(self.output):
            filesystem, path = filesystem_of(self.output)
            rows = pyarrow.dataset.dataset(path, schema=kind, format=form, filesystem=filesystem).to_table()
        return Counter(filter(None, rows["error_kind"].to_pylist()))  # CSV has an empty text for null

    def _read_part(self, block: int) -> pyarrow.Table:
        path = f"{self.parts}/{_part(block)}"
        try:
            with open_file(path) as file:
                return pyarrow.parquet.read_table(file, schema=self.schema)
        except (OSError, ValueError) as error:  # pyarrow's are ValueErrors
            raise ValueError(f"{path}: cannot be read ({error}); delete it, and run the same command again") from error


def _part(block: int) -> str:
    return f"part-{block:08d}.parquet"


_OTHER = "choose another output, or delete this one with its .parts and .run.json"


def _write_parquet(path: Path, schema: pyarrow.Schema, tables: Iterator[pyarrow.Table]):
    with pyarrow.parquet.ParquetWriter(path, schema) as writer:
        while group := list(islice(tables, PARTS_PER_GROUP)):
            writer.write_table(pyarrow.concat_tables(group).combine_chunks())


def _write_json_lines(path: Path, schema: pyarrow.Schema, tables: Iterator[pyarrow.Table]):
    with open(path, "w", encoding="utf-8") as file:
        for table in tables:
            for row in table.to_pylist():
                values = {name: _shortened(value) for name, value in row.items()}
                file.write(json.dumps(values, ensure_ascii=False) + "\n")


def _write_csv(path: Path, schema: pyarrow.Schema, tables: Iterator[pyarrow.Table]):
    """Labels and scores become columns of their own: `label_1`, `score_1`, `label_2`, ..."""
    top_k = schema.field("labels").type.list_size if "labels" in schema.names else 0
    best = [f"{name}_{rank}" for rank in range(1, top_k + 1) for name in ("label", "score")]
    others = [name for name in schema.names if name not in ("source", "labels", "scores")]
    with open(path, "w", newline="", encoding="utf-8") as file:
        lines = csv.writer(file, lineterminator="\n")
        lines.writerow(["source", *best, *others])
        for table in tables:
            for row in table.to_pylist():
                pairs = zip(row["labels"] or [""] * top_k, row["scores"] or [""] * top_k, strict=True) if top_k else ()
                cells = [row["source"], *(cell for pair in pairs for cell in pair), *(row[name] for name in others)]
                lines.writerow(map(_shortened, cells))


def _shortened(value: Any) -> Any:
    """Numbers with the fewest digits that give the same float32 again."""
    if isinstance(value, list):
        return [_shortened(one) for one in value]
    return float(str(np.float32(value))) if isinstance(value, float) else value


_FORMATS = {"": "parquet", ".parquet": "parquet", ".jsonl": "json", ".csv": "csv"}
_WRITERS = {".parquet": _write_parquet, ".jsonl": _write_json_lines, ".csv": _write_csv}
