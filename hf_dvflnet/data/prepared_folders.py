"""Reads and writes the manifest of `dvflnet prepare`, and loads its clips as class folders or as a stream."""

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from types import NoneType
from typing import Any

import datasets

from .label_sets import composed
from .video_column import IN_TAR, MISPLACED, SPLITS, as_datasets, video_source
from .video_files import HIDDEN, is_hidden, warn_of_left_out
from .whole_files import read_json_lines, write_whole


Row = dict[str, Any]  # one line of the manifest

# names that `dvflnet prepare` uses next to the clips
MANIFEST, SETTINGS, UNFINISHED = "manifest.jsonl", "prepare.json", ".unfinished"


def original_id(row: dict[str, Any]) -> tuple[str, str | None]:
    """
    The id that a video of a manifest had before it was prepared, and its class.

    For class folders, the id is `<class>/<file name>`, as in [`load_video_folder`]. Otherwise the id is the whole
    path, and the class is None.
    """
    path = PurePosixPath(row["path"]).with_suffix(PurePosixPath(row["source"]).suffix)
    if len(path.parts) == 3 and any(path.parts[0] in names for names in SPLITS.values()):
        label = composed(path.parts[1])
        return f"{label}/{path.name}", label
    return str(path), None


def _check_row(row: Any) -> Row:
    """Return a row of a manifest. Raises `ValueError` if `dvflnet prepare` does not write such rows."""
    text, number = (str, NoneType), (int, NoneType)
    kinds: dict[str, Any] = {"path": str, "source": str, "stamp": list, "source_bytes": int, "outcome": str}
    kinds |= {"sha256": text, "bytes": number, "tar": text, "offset": number}
    if not isinstance(row, dict) or not all(isinstance(row.get(name, ...), kind) for name, kind in kinds.items()):
        raise ValueError(f"expected the keys {', '.join(kinds)}")
    if row["tar"] is not None and None in (row["offset"], row["bytes"]):
        raise ValueError("it has a tar, but no offset or size")
    return row


def _read_prepared(data_dir: Path) -> tuple[dict[str, list[tuple[str, str, Row]]], dict[str, list[str]]]:
    """Video id, class and manifest line of all videos in each split, sorted; and what is left out, by reason."""
    if (data_dir / UNFINISHED).exists() or not (data_dir / MANIFEST).is_file():
        raise ValueError(f"{data_dir}: preparation is not finished; run `dvflnet prepare` again to continue it")
    lines = read_json_lines(data_dir / MANIFEST, _check_row, "is not a manifest line; prepare the videos again")
    for row in lines:
        for name in (row["path"], row["tar"] or "a"):
            if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
                raise ValueError(f"{data_dir / MANIFEST}: contains the path {name}, which is outside of the folder")
    left_out = {HIDDEN: [row["path"] for row in lines if is_hidden(row["path"])]}
    named = [(*original_id(row), row) for row in lines if not is_hidden(row["path"])]
    left_out[MISPLACED] = [row["path"] for _, label, row in named if label is None]
    splits: dict[str, list[tuple[str, str, Row]]] = {}
    for split, names in SPLITS.items():
        found = [
            (video_id, label, row)
            for video_id, label, row in named
            if label is not None and PurePosixPath(row["path"]).parts[0] in names
        ]
        folders: dict[str, str] = {}
        for video_id, _, row in found:
            folder = str(PurePosixPath(row["path"]).parent)
            other = folders.setdefault(video_id.split("/")[0], folder)
            if other != folder:
                raise ValueError(
                    f"{data_dir}: {other} and {folder} are the same split and class; merge these folders of the "
                    "original videos, and prepare them again"
                )
        if found:
            splits[split] = sorted(found, key=lambda one: one[0].split("/"))
    if "train" not in splits:
        raise FileNotFoundError(f"{data_dir}: was not prepared from class folders, `train/<class>/<video>`")
    return splits, left_out


def load_prepared(data_dir: Path) -> datasets.DatasetDict:
    """Same as [`load_video_folder`], for class folders that `dvflnet prepare` wrote as tars or folders."""
    splits, left_out = _read_prepared(data_dir)
    warn_of_left_out(data_dir, left_out)
    classes = sorted({label for _, label, _ in splits["train"]})
    rows: dict[str, list[dict[str, Any]]] = {split: [] for split in splits}
    for split, found in splits.items():
        for video_id, label, row in found:
            if label not in classes:
                raise ValueError(f"{data_dir}: {label} in {split} is not a class of the training split, {classes}")
            if row["outcome"] == "unreadable":
                continue
            path = str(data_dir / row["path"])
            if row["tar"] is not None:
                path = f"{data_dir / row['tar']}#bytes={row['offset']}-{row['offset'] + row['bytes'] - 1}"
            video = {"path": path, "bytes": None}
            rows[split].append({"video": video, "label": classes.index(label), "video_id": video_id})
    return as_datasets(rows, classes)


def unreadable_videos(data_dir: str | os.PathLike, split: str) -> list[str]:
    """Ids of the videos of a split that `dvflnet prepare` could not read; empty for other folders."""
    if not (Path(data_dir) / SETTINGS).is_file():
        return []
    splits, _ = _read_prepared(Path(data_dir))
    return [video_id for video_id, _, row in splits[split] if row["outcome"] == "unreadable"]


def stream_tars(dataset: datasets.Dataset) -> datasets.IterableDataset | None:
    """Stream a prepared split with the videos' bytes, one shard per tar, in order; None if it is not in tars."""
    tars: dict[str, list[tuple[int, dict[str, Any]]]] = {}
    for row in dataset:
        part = IN_TAR.fullmatch(row["video"]["path"])
        if part is None:
            return None
        tars.setdefault(part[1], []).append((int(part[2]), row))
    shards = [tuple(row for _, row in sorted(rows, key=lambda one: one[0])) for _, rows in sorted(tars.items())]
    return datasets.IterableDataset.from_generator(
        _read_rows, features=dataset.features, gen_kwargs={"shards": shards}
    )


def _read_rows(shards: list[tuple[dict[str, Any], ...]]) -> Iterator[dict[str, Any]]:
    for rows in shards:
        for row in rows:
            try:
                data = video_source(row["video"])
            except OSError:
                data = None  # reading it fails again when the clip is drawn, and the clip then counts as broken
            yield {**row, "video": {"path": row["video"]["path"], "bytes": data}}


def read_manifest(path: Path) -> dict[str, Row]:
    """Lines of an unfinished manifest, by path; empty if there is no such file."""
    if not path.is_file():
        return {}
    wrong = "is not a manifest line; remove it, or the whole file"
    return {row["path"]: row for row in read_json_lines(path, _check_row, wrong, unfinished=True)}


def write_manifest(out: Path, rows: Iterable[Row]):
    """Write the manifest of a prepared folder, sorted by path."""
    lines = "".join(json.dumps(row) + "\n" for row in sorted(rows, key=lambda row: row["path"]))
    write_whole(out / MANIFEST, lines, out / UNFINISHED)


__all__ = [
    "MANIFEST",
    "SETTINGS",
    "UNFINISHED",
    "Row",
    "load_prepared",
    "original_id",
    "read_manifest",
    "stream_tars",
    "unreadable_videos",
    "write_manifest",
]
