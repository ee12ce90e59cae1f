"""Reads lists of videos: a text file with one per line, or a column of a CSV or Parquet file."""

import csv
import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import pyarrow
import pyarrow.csv
import pyarrow.parquet

from .storages import open_file


def read_video_list(file: str | os.PathLike, column: str | None = None) -> list[str]:
    """
    Read a list of paths and URLs of videos. None of them is opened or looked up.

    Paths are relative to the working directory. A folder, or a pattern, is not replaced by its videos: an entry is one
    video, or an error once it is read. A million entries take about 3 seconds and 200 MB.

    Args:
        file: A text file with one entry per line (UTF-8), or a table that ends in `.csv` or `.parquet`; it may be on
            the Hub or in another storage (`s3://BUCKET/list.txt`).
        column: The column of a table. It can be left out if the table has only one.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it is not such a file, contains no entries, or has no such column of text.

    Warns:
        UserWarning: If there are empty lines or cells, which are left out.
    """
    suffix = Path(file).suffix.lower()
    if suffix in (".csv", ".parquet"):
        entries: Sequence[str | None] = _read_column(file, suffix, column)
    elif column is None:
        entries = _read_lines(file)
    else:
        raise ValueError(f"{file}: is read as text, which has no column {column!r}; tables end in .csv or .parquet")
    found = [entry for entry in entries if entry is not None and entry.strip()]
    if not found:
        raise ValueError(f"{file}: contains no videos")
    if len(found) < len(entries):
        warnings.warn(f"{file}: left out: {len(entries) - len(found)} empty lines or cells", stacklevel=2)
    return found


def _read_lines(file: str | os.PathLike) -> list[str]:
    # surrogates stand for the bytes of file names that are not UTF-8
    with open_file(file, "r", encoding="utf-8-sig", errors="surrogateescape") as lines:
        entries = [line.rstrip("\n") for line in lines]
    for number, entry in enumerate(entries, start=1):
        if "\0" in entry:
            raise ValueError(f"{file}: line {number} has a zero byte; is it a list of videos in text?")
    return entries


def _read_column(file: str | os.PathLike, suffix: str, column: str | None) -> list[str | None]:
    try:
        if suffix == ".csv":
            with open_file(file, "r", encoding="utf-8-sig", newline="") as lines:
                columns = next(csv.reader(lines), [])
        else:
            with open_file(file) as content:
                columns = pyarrow.parquet.read_schema(content).names
        if column is None and len(columns) == 1:
            column = columns[0]
        if column not in columns:
            lacks = "has several columns" if column is None else f"has no column {column!r}"
            raise ValueError(f"{lacks}; choose one of {', '.join(map(repr, columns))} (--column)")
        with open_file(file) as content:
            if suffix == ".parquet":
                values = pyarrow.parquet.read_table(content, columns=[column])[column]
            else:
                convert = pyarrow.csv.ConvertOptions(include_columns=[column], column_types={column: pyarrow.string()})
                values = pyarrow.csv.read_csv(content, convert_options=convert)[column]
        kind = values.type
        if not (pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind)):
            raise ValueError(f"the column {column!r} contains {kind}; text is expected")
        return values.to_pylist()
    except (ValueError, csv.Error) as error:  # pyarrow's are ValueErrors
        raise ValueError(f"{file}: {error}") from error


__all__ = ["read_video_list"]
