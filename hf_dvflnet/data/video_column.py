"""Helpers for the column `video` of a data set: the source, the size and the name of each video."""

import hashlib
import os
from collections.abc import Sequence
from typing import Any

import datasets

from ..video_decoding import VideoDecodeError
from .storages import open_file, storage_of


def video_source(video: dict[str, Any]) -> Any:
    """
    Source for [`read_video`], from a cell of a column `datasets.Video(decode=False)`.

    Raises:
        VideoDecodeError: If there is no video in the cell.
    """
    if not video or (video["bytes"] is None and video["path"] is None):
        raise VideoDecodeError("the column `video` has neither a path nor bytes")
    if video["bytes"] is not None:
        return video["bytes"]
    path = video["path"]
    return path if storage_of(path) is None else open_file(path)


def video_size(path: str) -> int:
    """Size in bytes of a video; -1 if it is not a local file."""
    return os.path.getsize(path) if os.path.isfile(path) else -1


def file_stamp(path: str | os.PathLike) -> list[int] | None:
    """Size and time of a file; None if it is not a local file."""
    if not os.path.isfile(path):
        return None
    status = os.stat(path)
    return [status.st_size, status.st_mtime_ns]


def clip_name(row: dict[str, Any]) -> str:
    """
    Name of a clip in errors and reports. The random draws of a clip depend on it.

    The name is the `video_id` of the row; without one, the path. If the row contains the bytes of a file, its path is
    at most a base name that other clips may share; the name is then the base name and a digest of the bytes.
    """
    if row.get("video_id"):
        return row["video_id"]
    video = row["video"] or {"path": None, "bytes": None}
    if video["bytes"] is None:
        return video["path"] or "without a video"
    return f"{video['path'] or 'video'}:{hashlib.blake2b(video['bytes'], digest_size=8).hexdigest()}"


def undecoded(dataset: Any) -> Any:
    """
    The dataset with a column `video` that gives paths and bytes, and with a column `label`, if it has labels.

    A column `video` of text holds paths. A column `labels`, as transformers calls them, becomes `label`.

    Raises:
        ValueError: If there is no column `video` of videos or paths, if the labels are text, or if it is not clear
            which column has them.
    """
    features = dataset.features
    if "video" not in features:
        raise ValueError(f"the dataset has the columns {', '.join(features)}: `video` is required")
    kind = features["video"]
    if getattr(kind, "dtype", None) == "large_string":  # of pandas, which `datasets` does not cast to videos
        cells = datasets.Features({**features, "video": datasets.Video(decode=False)})
        dataset = dataset.map(_cell_of_path, input_columns="video", features=cells)
    elif getattr(kind, "dtype", None) == "string" or getattr(kind, "decode", False):
        dataset = dataset.cast_column("video", datasets.Video(decode=False))
    elif not isinstance(kind, datasets.Video) and not (isinstance(kind, dict) and {"path", "bytes"} <= set(kind)):
        raise ValueError(f"the column `video` is {kind}; expected datasets.Video, or text with the paths of videos")
    classes = [name for name, kind in features.items() if isinstance(kind, datasets.ClassLabel)]
    labels = [name for name in ("label", "labels") if name in features] or classes
    if len(labels) > 1 or (labels and labels[0] not in ("label", "labels")):
        raise ValueError(
            f"the labels are read from the column `label`, but the dataset has {' and '.join(labels)}; rename the one "
            "with the labels to `label` (dataset.rename_column), and remove the others (dataset.remove_columns)"
        )
    if labels and getattr(features[labels[0]], "dtype", None) in ("string", "large_string"):
        raise ValueError(f"the labels are text; convert them to ids with dataset.class_encode_column({labels[0]!r})")
    return dataset.rename_column("labels", "label") if labels == ["labels"] else dataset


def _cell_of_path(path: str | None) -> dict[str, Any]:
    return {"video": {"path": path, "bytes": None}}


def clip_features(classes: Sequence[str]) -> datasets.Features:
    """Columns of the data sets of this package."""
    return datasets.Features(
        {
            "video": datasets.Video(decode=False),
            "label": datasets.ClassLabel(names=list(classes)),
            "video_id": datasets.Value("string"),
        }
    )
