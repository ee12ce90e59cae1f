"""Helpers for the column `video` of a data set: the source, the size and the name of each video."""

import hashlib
import os
import re
from collections.abc import Sequence
from typing import Any

import datasets
import fsspec

from .storages import open_file, storage_of


# a clip in a tar: path of the tar, and first and last byte of the clip in it
IN_TAR = re.compile(r"(.+[.]tar)#bytes=(\d+)-(\d+)")


def video_source(video: dict[str, Any]) -> Any:
    """
    Source for [`read_video`], from a cell of a column `datasets.Video(decode=False)`.

    Raises:
        OSError: If a shard cannot be read, or ends within the video. The message names the shard.
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
            raise OSError(f"{part[1]}: the shard is truncated; it has {len(data)} of the {size} bytes of this video")
        return data
    if storage_of(path) is not None:
        return open_file(path)
    if "://" in path and not path.startswith(("http://", "https://")):  # such as zip://a.mp4::hf://...
        return fsspec.open(path, "rb").open()
    return path


def video_size(path: str) -> int:
    """Size in bytes of a video at a path or in a tar; -1 if it is not a local file."""
    if (part := IN_TAR.fullmatch(path)) is not None:
        return int(part[3]) - int(part[2]) + 1
    return os.path.getsize(path) if os.path.isfile(path) else -1


def clip_name(row: dict[str, Any]) -> str:
    """
    Name of a clip in errors and reports. The random draws of a clip depend on it.

    The name is the `video_id` of the row; without one, the path. If the row contains the bytes of a file, its path is
    at most a base name that other clips may share; the name is then the base name and a digest of the bytes.
    """
    if row.get("video_id"):
        return row["video_id"]
    video = row["video"]
    if video["bytes"] is None:
        return video["path"]
    return f"{video['path'] or 'video'}:{hashlib.blake2b(video['bytes'], digest_size=8).hexdigest()}"


def undecoded(dataset: Any) -> Any:
    """
    The dataset with a column `video` that gives paths and bytes, even if the column was set to decode videos.

    Raises:
        ValueError: If there is no column `video`, or the labels are text.
    """
    features = dataset.features
    if features is None:  # some streams have no features
        return dataset
    if "video" not in features:
        raise ValueError(f"the dataset has the columns {', '.join(features)}: `video` is required")
    label = features.get("label")
    if getattr(label, "dtype", None) == "string":
        raise ValueError("the labels are text; convert them to ids with dataset.class_encode_column('label')")
    if getattr(features["video"], "decode", False):
        dataset = dataset.cast_column("video", datasets.Video(decode=False))
    return dataset


def clip_features(classes: Sequence[str]) -> datasets.Features:
    """Columns of the data sets of this package."""
    return datasets.Features(
        {
            "video": datasets.Video(decode=False),
            "label": datasets.ClassLabel(names=list(classes)),
            "video_id": datasets.Value("string"),
        }
    )
