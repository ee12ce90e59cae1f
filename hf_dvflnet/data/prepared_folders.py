"""Prepared folders: the manifest that `dvflnet prepare` writes, and its clips as class folders or a stream."""

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from types import NoneType
from typing import Any

import datasets

from .video_column import IN_TAR, SPLITS, as_datasets, video_source


Row = dict[str, Any]  # a line of the manifest

# what `dvflnet prepare` writes beside the clips
MANIFEST, SETTINGS, UNFINISHED = "manifest.jsonl", "prepare.json", ".unfinished"


def original_id(row: dict[str, Any]) -> tuple[str, str | None]:
    """
    What a video of a manifest was called before it was prepared, and its class.

    Of class folders the path below the split's folder, as [`load_video_folder`] has it; else the whole path, and None.
    """
    path = PurePosixPath(row["path"]).with_suffix(PurePosixPath(row["source"]).suffix)
    if len(path.parts) == 3 and any(path.parts[0] in names for names in SPLITS.values()):
        return "/".join(path.parts[1:]), path.parts[1]
    return str(path), None


def read_manifest_line(line: str) -> dict[str, Any]:
    """
    A video of a manifest.

    Raises:
        ValueError: If the line is not as `dvflnet prepare` writes it.
    """
    try:
        row = json.loads(line)
    except RecursionError as error:
        raise ValueError("its JSON is too deep") from error
    text, number = (str, NoneType), (int, NoneType)
    kinds: dict[str, Any] = {"path": str, "source": str, "stamp": list, "source_bytes": int, "outcome": str}
    kinds |= {"sha256": text, "bytes": number, "tar": text, "offset": number}
    if not isinstance(row, dict) or not all(isinstance(row.get(name, ...), kind) for name, kind in kinds.items()):
        raise ValueError(f"{', '.join(kinds)} are expected")
    if row["tar"] is not None and None in (row["offset"], row["bytes"]):
        raise ValueError("it has a tar, but no place in it")
    return row


def _read_prepared(data_dir: Path) -> dict[str, list[tuple[str, str, dict[str, Any]]]]:
    """Video id, class and line of the manifest, sorted, of all videos of each split."""
    if (data_dir / UNFINISHED).exists() or not (data_dir / MANIFEST).is_file():
        raise ValueError(f"{data_dir}: is not prepared to the end; run `dvflnet prepare` again, which goes on")
    with open(data_dir / MANIFEST, encoding="utf-8") as file:
        text = file.readlines()
    lines = []
    for number, line in enumerate(text, start=1):
        try:
            lines.append(read_manifest_line(line))
        except ValueError as error:
            raise ValueError(
                f"{data_dir / MANIFEST}: line {number} is no line of a manifest ({error}); prepare the videos again"
            ) from error
    for row in lines:
        for name in (row["path"], row["tar"] or "a"):
            if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
                raise ValueError(f"{data_dir / MANIFEST}: names {name}, which is outside of the folder")
    splits: dict[str, list[tuple[str, str, dict[str, Any]]]] = {}
    for split, names in SPLITS.items():
        for name in names:
            of_split = [(*original_id(row), row) for row in lines if row["path"].startswith(f"{name}/")]
            found = [(video_id, label, row) for video_id, label, row in of_split if label is not None]
            if found:
                splits[split] = sorted(found, key=lambda one: one[0].split("/"))
    if "train" not in splits:
        raise FileNotFoundError(f"{data_dir}: was not prepared from class folders, `train/<class>/<video>`")
    return splits


def load_prepared(data_dir: Path) -> datasets.DatasetDict:
    """As [`load_video_folder`], of class folders that `dvflnet prepare` wrote as tars or folders."""
    splits = _read_prepared(data_dir)
    classes = sorted({label for _, label, _ in splits["train"]})
    rows: dict[str, list[dict[str, Any]]] = {split: [] for split in splits}
    for split, found in splits.items():
        for video_id, label, row in found:
            if label not in classes:
                raise ValueError(f"{data_dir}: {label} in {split} is no class of the training split, {classes}")
            if row["outcome"] == "unreadable":
                continue
            path = str(data_dir / row["path"])
            if row["tar"] is not None:
                path = f"{data_dir / row['tar']}#bytes={row['offset']}-{row['offset'] + row['bytes'] - 1}"
            video = {"path": path, "bytes": None}
            rows[split].append({"video": video, "label": classes.index(label), "video_id": video_id})
    return as_datasets(rows, classes)


def unreadable_videos(data_dir: str | os.PathLike, split: str) -> list[str]:
    """Ids of the videos of a split that `dvflnet prepare` could not read; none of what it has not written."""
    if not (Path(data_dir) / SETTINGS).is_file():
        return []
    return [video_id for video_id, _, row in _read_prepared(Path(data_dir))[split] if row["outcome"] == "unreadable"]


def stream_tars(dataset: datasets.Dataset) -> datasets.IterableDataset | None:
    """A split of prepared class folders with the videos' bytes, a shard a tar, read in order; None if not in tars."""
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
                data = None  # a clip that cannot be read when it is drawn either, and counts as broken
            yield {**row, "video": {"path": row["video"]["path"], "bytes": data}}


def replace_file(unfinished: Path, target: Path, content: str | bytes):
    """Write a file at one place and move it to another when it is whole."""
    unfinished.write_bytes(content.encode() if isinstance(content, str) else content)
    os.replace(unfinished, target)


def read_manifest(path: Path) -> dict[str, Row]:
    """The lines of an unfinished manifest, by path; none if there is no such file."""
    if not path.is_file():
        return {}
    rows: dict[str, Row] = {}
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    for number, line in enumerate(lines, start=1):
        try:
            row = read_manifest_line(line)
            rows[row["path"]] = row
        except ValueError as error:
            if number == len(lines):
                break  # a run that was stopped may have cut its last line
            raise ValueError(
                f"{path}: line {number} is no line of a manifest; remove it, or the whole file"
            ) from error
    return rows


def write_manifest(out: Path, rows: Iterable[Row]):
    """Write the manifest of a prepared folder, sorted by path."""
    lines = "".join(json.dumps(row) + "\n" for row in sorted(rows, key=lambda row: row["path"]))
    replace_file(out / UNFINISHED / MANIFEST, out / MANIFEST, lines)


__all__ = [
    "MANIFEST",
    "SETTINGS",
    "UNFINISHED",
    "Row",
    "load_prepared",
    "original_id",
    "read_manifest",
    "read_manifest_line",
    "replace_file",
    "stream_tars",
    "unreadable_videos",
    "write_manifest",
]
