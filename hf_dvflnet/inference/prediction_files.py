"""
Writes the rows of a large prediction in parts, so that a run resumes where it was, however it was stopped.

The list of videos is cut into blocks. Each block is a Parquet file of its own, `part-00000012.parquet`, which is
either complete or not there. A block whose file is missing has yet to be computed, by whichever process.
"""

import csv
import io
import json
import math
import os
import time
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet

from ..data.storages import LocalFiles, StoredFiles, open_file, storage_of
from ..hub.loaded_models import feature_width


SUFFIXES = (".parquet", ".jsonl", ".csv")
ROWS_PER_PART = 256
SECONDS_OF_SILENCE = 60.0  # that a process waits for others before it says so
PARTS_PER_GROUP = 64  # row groups of the Parquet file at the end, which are put together in memory

Row = dict[str, Any]


def columns(model: Any, top_k: int, embeddings: bool) -> pyarrow.Schema:
    """Names and types of the columns; [`predict_to_file`] explains them. They are written in this order."""
    found: dict[str, pyarrow.DataType] = {"source": pyarrow.string()}
    if top_k:
        found["labels"] = pyarrow.list_(pyarrow.string(), top_k)
        found["scores"] = pyarrow.list_(pyarrow.float32(), top_k)
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
        output: A folder, or a path that ends in `.parquet`, `.jsonl` or `.csv`, on this machine or in a storage
            (`s3://BUCKET/...`).
        schema: Names and types of the columns.
        run: What the rows depend on, as JSON, by name: the list of videos, the model, the settings.
        rows: Number of rows of the whole output.

    Attributes:
        blocks: The rows of each block.
        processes: Number of processes that share the run.

    Raises:
        ImportError: If the package that reads the storage is not installed.
        ValueError: If `output` is a file with another ending.

    Warns:
        UserWarning: If the run cannot be continued, since `output` lies in the memory of this process.
    """

    def __init__(self, output: str | os.PathLike, schema: pyarrow.Schema, run: dict[str, Any], rows: int):
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
        self._reopened = False
        self.processes = 1

    def begin(self, *, main: bool = True):
        """
        Begin or continue the run. With several processes, the main one does, and the others wait for it.

        Warns:
            UserWarning: If this process waits for long.

        Raises:
            FileExistsError: If the output exists and was not written by such a run.
            ValueError: If it, or its parts, belong to a different run. The message names the difference.
        """
        if not main:
            self._wait(
                lambda: self._described() == self.run and (self.complete or self._files.is_begun(self.parts)),
                lambda: "the process with RANK 0 to begin",
            )
            return
        found = self._described()
        names = [name for name in self._files.names(self.parts) if not name.startswith(".")]
        begun = bool(names) if not self._suffix else self.complete or any(name.startswith("part-") for name in names)
        if begun and found != self.run:
            if found is None:
                raise FileExistsError(f"{self.output}: exists, and no earlier run of this command is known; {_OTHER}")
            differing = [name for name in {**self.run, **found} if found.get(name) != self.run.get(name)]
            raise ValueError(f"{self.output}: belongs to a run with different {', '.join(differing)}; {_OTHER}")
        if not self.complete:
            self._files.begin(self.parts)
            with self._files.whole(self.description, self.parts) as unfinished:
                unfinished.write_text(json.dumps(self.run, indent=1) + "\n", encoding="utf-8")

    def _wait(self, holds: Callable[[], bool], what: Callable[[], str]):
        end = time.monotonic() + SECONDS_OF_SILENCE
        while not holds():
            time.sleep(0.1)
            if time.monotonic() > end:
                end = math.inf
                warnings.warn(
                    f"{self.output}: waits for {what()}; there should be {self.processes} processes (WORLD_SIZE). If "
                    "this one is alone, stop it, and run the same command without RANK and WORLD_SIZE in its "
                    "environment",
                    stacklevel=4,
                )

    def reopen(self):
        """Take a finished file apart again, so that [`write`] can replace rows. It stays until [`finish`]."""
        if self._suffix and self.complete:
            self._files.begin(self.parts)
            for block, table in enumerate(self._tables_of_file()):
                self._write_part(block, table)
            self._reopened = True

    def failed(self) -> dict[int, list[int]]:
        """Rows with an error, by the block whose part has them."""
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
            return not self._reopened and self._files.exists(self.output)
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

    def write(self, block: int, rows: Sequence[Row], numbers: Sequence[int] | None = None):
        """Write a block, completely or not at all; with `numbers`, replace these rows of it."""
        if numbers is not None:
            anew = dict(zip(numbers, rows, strict=True))
            rows = [
                anew.get(*pair) for pair in zip(self.blocks[block], self._read_part(block).to_pylist(), strict=True)
            ]
        if len(rows) != len(self.blocks[block]):
            raise ValueError(f"block {block} has {len(self.blocks[block])} rows, got {len(rows)}")
        self._write_part(block, pyarrow.Table.from_pylist(list(rows), self.schema))

    def _write_part(self, block: int, table: pyarrow.Table):
        with self._files.whole(f"{self.parts}/{_part(block)}", self.parts) as unfinished:
            pyarrow.parquet.write_table(table, unfinished)

    def finish(self) -> Counter[str]:
        """
        When all parts are there, those of other processes too, merge them into the file and delete them.

        Returns:
            The number of rows with an error, by `error_kind`.

        Raises:
            ValueError: If a part cannot be read.

        Warns:
            UserWarning: If this process waits for long.
        """
        self._wait(lambda: not self.missing(), lambda: f"{len(self.missing())} parts that other processes write")
        failures = Counter[str]()
        if self._suffix:
            if self.complete:
                self._files.remove(self.parts)
                for table in self._tables_of_file():
                    failures.update(table["error_kind"].drop_null().to_pylist())
                return failures
            with self._files.whole(self.output, self.parts) as unfinished:
                _WRITERS[self._suffix](unfinished, self.schema, self._tables(failures))
            self._files.remove(self.parts)
        else:
            deque(self._tables(failures), maxlen=0)  # counts
        return failures

    def _tables(self, failures: Counter[str]) -> Iterator[pyarrow.Table]:
        for block in range(len(self.blocks)):
            table = self._read_part(block)
            failures.update(table["error_kind"].drop_null().to_pylist())
            yield table

    def _read_part(self, block: int) -> pyarrow.Table:
        path = f"{self.parts}/{_part(block)}"
        try:
            with open_file(path) as file:
                return pyarrow.parquet.read_table(file, schema=self.schema)
        except (OSError, ValueError) as error:  # pyarrow's are ValueErrors
            raise ValueError(f"{path}: cannot be read ({error}); delete it, and run the same command again") from error

    def _tables_of_file(self) -> Iterator[pyarrow.Table]:
        """The rows of the finished file, cut as its parts were."""
        try:
            with open_file(self.output) as file:
                if self._suffix == ".parquet":
                    for batch in pyarrow.parquet.ParquetFile(file).iter_batches(ROWS_PER_PART):
                        yield pyarrow.Table.from_batches([batch], self.schema)
                    return
                lines = io.TextIOWrapper(file, encoding="utf-8", newline="")
                rows = (
                    map(json.loads, lines)
                    if self._suffix == ".jsonl"
                    else map(self._row_of_csv, csv.DictReader(lines))
                )
                while some := list(islice(rows, ROWS_PER_PART)):
                    yield pyarrow.Table.from_pylist(some, self.schema)
        except (LookupError, TypeError, ValueError) as error:
            raise ValueError(f"{self.output}: is not as it was written ({error}); {_OTHER}") from error

    def _row_of_csv(self, cells: dict[str, str]) -> Row:
        row: Row = {name: cells.get(name) or None for name in self.schema.names}
        if row["error_kind"] is None:
            row |= {"frames": int(cells["frames"]), "seconds": float(cells["seconds"]) if cells["seconds"] else None}
            ranks = range(1, self.schema.field("labels").type.list_size + 1)
            row["labels"] = [cells[f"label_{rank}"] for rank in ranks]
            row["scores"] = [float(cells[f"score_{rank}"]) for rank in ranks]
        return row


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


_WRITERS = {".parquet": _write_parquet, ".jsonl": _write_json_lines, ".csv": _write_csv}
