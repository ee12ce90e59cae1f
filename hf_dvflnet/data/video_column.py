"""A video as a cell of a data set's column `video`: where its bytes are, how many there are, what it is called."""

import hashlib
import os
import re
from typing import Any

import datasets
import fsspec


VIDEO_SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm")
SPLITS = {"train": ("train",), "validation": ("validation", "val"), "test": ("test",)}

# a clip in a tar: its path there, and the bytes that are its file
IN_TAR = re.compile(r"(.+[.]tar)#bytes=(\d+)-(\d+)")


def video_source(video: dict[str, Any]) -> Any:
    """
    What [`read_video`] takes, of a cell of a column `datasets.Video(decode=False)`.

    Raises:
        OSError: If a shard cannot be read, or ends within the video, with the shard's name.
    """
    if video["bytes"] is not None:
        return video["bytes"]
    path = video["path"]
    if (part := IN_TAR.fullmatch(path)) is not None:
        size = video_size(path)
        try:
            with open(part[1], "rb") as tar:
                tar.seek(int(part[2]))
                data = tar.read(size)
        except OSError as error:
            raise OSError(f"{part[1]}: the shard cannot be read: {error.strerror}") from error
        if len(data) < size:
            raise OSError(f"{part[1]}: the shard is cut short; it has {len(data)} of the {size} bytes of this video")
        return data
    if "://" in path and not path.startswith(("http://", "https://")):  # hf:// and the like
        return fsspec.open(path, "rb").open()
    return path


def video_size(path: str) -> int:
    """How many bytes a video has, at a path or in a tar; -1 where only a download would tell."""
    if (part := IN_TAR.fullmatch(path)) is not None:
        return int(part[3]) - int(part[2]) + 1
    return os.path.getsize(path) if os.path.isfile(path) else -1


def clip_name(row: dict[str, Any]) -> str:
    """
    What a clip is called in errors and reports, and what its draws are made of.

    Its `video_id`; else its path; or, where a row holds the bytes of a file and so at most a base name that others may
    share, that name and a digest of the bytes.
    """
    if row.get("video_id"):
        return row["video_id"]
    video = row["video"]
    if video["bytes"] is None:
        return video["path"]
    return f"{video['path'] or 'video'}:{hashlib.blake2b(video['bytes'], digest_size=8).hexdigest()}"


def undecoded(dataset: Any) -> Any:
    """
    A dataset whose column `video` gives paths and bytes, whether or not it was asked to decode.

    Raises:
        ValueError: If there is no column `video`, or the labels are text.
    """
    features = dataset.features
    if features is None:  # of some streams
        return dataset
    if "video" not in features:
        raise ValueError(f"the dataset has the columns {', '.join(features)}: `video` and `label` are needed")
    label = features.get("label")
    if getattr(label, "dtype", None) == "string":
        raise ValueError("the labels are text: make them ids with dataset.class_encode_column('label')")
    if getattr(features["video"], "decode", False):
        dataset = dataset.cast_column("video", datasets.Video(decode=False))
    return dataset


def as_datasets(rows: dict[str, list[dict[str, Any]]], classes: list[str]) -> datasets.DatasetDict:
    """Rows of each split, `{"video", "label", "video_id"}`, as data sets with these columns."""
    features = datasets.Features(
        {
            "video": datasets.Video(decode=False),
            "label": datasets.ClassLabel(names=classes),
            "video_id": datasets.Value("string"),
        }
    )
    return datasets.DatasetDict(
        {split: datasets.Dataset.from_list(listed, features=features) for split, listed in rows.items()}
    )


__all__ = ["IN_TAR", "SPLITS", "VIDEO_SUFFIXES", "as_datasets", "clip_name", "undecoded", "video_size", "video_source"]
