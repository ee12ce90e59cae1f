"""
Writes predictions in parts, such that a run that was stopped in any way goes on where it was.

The list of videos is cut into blocks. Each block is a Parquet file of its own, `OUTPUT.parts/part-00000012.parquet`,
which is either complete or not there. A block whose file is missing has yet to be computed, by whichever process.
"""

import csv
import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet


SUFFIXES = (".parquet", ".jsonl", ".csv")
ROWS_PER_PART = 256
PARTS_PER_GROUP = 64  # row groups of the Parquet file at the end, which are put together in memory

Row = dict[str, Any]


class PredictionFile:
    """
    The file that a run writes, and the parts of it while the run is unfinished.

    Beside `output`, `output.run.json` says which run it belongs to; it stays there.

    Args:
        output: A path that ends in `.parquet`, `.jsonl` or `.csv`.
        schema: Names and types of the columns.
        run: What the rows depend on, as JSON, by name: the list of videos, the model, the settings.
        rows: Number of rows of the whole file.

    Attributes:
        blocks: The rows of each block.

    Raises:
        ValueError: If `output` has another ending.
    """

    def __init__(self, output: str | os.PathLike, schema: pyarrow.Schema, run: dict[str, Any], rows: int):
        self.output, self.schema = Path(output), schema
        if self.output.suffix.lower() not in SUFFIXES:
            raise ValueError(f"{output}: the output must end in {', '.join(SUFFIXES)}")
        self.run = {**run, "rows_per_part": ROWS_PER_PART}
        self.parts = self.output.with_name(f"{self.output.name}.parts")
        self.description = self.output.with_name(f"{self.output.name}.run.json")
        self.blocks = [range(start, min(start + ROWS_PER_PART, rows)) for start in range(0, rows, ROWS_PER_PART)]

    def begin(self, *, main: bool = True):
        """
        Begin or continue the run. With several processes, the main one does, and the others wait for it.

        Raises:
            FileExistsError: If the output exists and was not written by such a run.
            ValueError: If it, or its parts, belong to a different run. The message names the difference.
        """
        if not main:
            while not (self._described() == self.run and (self.complete or self.parts.is_dir())):
                time.sleep(0.1)
            return
        found = self._described()
        begun = self.complete or (self.parts.is_dir() and any(self.parts.glob("part-*")))
        if begun and found != self.run:
            if found is None:
                raise FileExistsError(f"{self.output}: exists, and no earlier run of this command is known; {_OTHER}")
            differing = [name for name in {**self.run, **found} if found.get(name) != self.run.get(name)]
            raise ValueError(f"{self.output}: belongs to a run with different {', '.join(differing)}; {_OTHER}")
        if not self.complete:
            self.parts.mkdir(parents=True, exist_ok=True)
            with self._whole(self.description) as unfinished:
                unfinished.write_text(json.dumps(self.run, indent=1) + "\n", encoding="utf-8")

    @property
    def complete(self) -> bool:
        return self.output.exists()

    def _described(self) -> dict[str, Any] | None:
        try:
            found = json.loads(self.description.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return None
        return found if isinstance(found, dict) else None

    def missing(self) -> list[int]:
        """Numbers of the blocks that have yet to be computed."""
        if self.complete:
            return []
        there = set(os.listdir(self.parts))
        return [block for block in range(len(self.blocks)) if self._part(block).name not in there]

    def _part(self, block: int) -> Path:
        return self.parts / f"part-{block:08d}.parquet"

    def write(self, block: int, rows: Sequence[Row]):
        """Write a block, completely or not at all."""
        if len(rows) != len(self.blocks[block]):
            raise ValueError(f"block {block} has {len(self.blocks[block])} rows, got {len(rows)}")
        with self._whole(self._part(block)) as unfinished:
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows), self.schema), unfinished)

    def finish(self) -> Counter[str] | None:
        """
        Put the parts together when all are there, those of other processes too, and delete them.

        Returns:
            The number of rows with an error, by `error_kind`; `None` if the file was complete already.

        Raises:
            ValueError: If a part cannot be read.
        """
        while self.missing():
            time.sleep(0.5)
        failures = None
        if not self.complete:
            failures = Counter[str]()
            with self._whole(self.output) as unfinished:
                _WRITERS[self.output.suffix.lower()](unfinished, self.schema, self._tables(failures))
        shutil.rmtree(self.parts, ignore_errors=True)
        return failures

    def _tables(self, failures: Counter[str]) -> Iterator[pyarrow.Table]:
        for block in range(len(self.blocks)):
            path = self._part(block)
            try:
                table = pyarrow.parquet.read_table(path, schema=self.schema)
            except (OSError, ValueError) as error:  # pyarrow's are ValueErrors
                raise ValueError(
                    f"{path}: cannot be read ({error}); delete it, and run the same command again"
                ) from error
            failures.update(table["error_kind"].drop_null().to_pylist())
            yield table

    @contextmanager
    def _whole(self, path: Path) -> Iterator[Path]:
        """A path among the parts to write a file to. The file is moved once its content is on the disk, not before."""
        unfinished = self.parts / f".{path.name}.{os.getpid()}"  # hidden: no reader of the folder takes it for a part
        yield unfinished
        with open(unfinished, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(unfinished, path)
        if os.name == "posix":  # the new name, too
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)


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
    """Numbers without the digits that float32 does not have, which text would show."""
    if isinstance(value, list):
        return [_shortened(one) for one in value]
    return float(f"{value:.7g}") if isinstance(value, float) else value


_WRITERS = {".parquet": _write_parquet, ".jsonl": _write_json_lines, ".csv": _write_csv}


__all__ = ["ROWS_PER_PART", "SUFFIXES", "PredictionFile", "Row"]
