"""Loads a tree of class folders, `<split>/<class>/<video>`, as a data set: `load_video_folder(DIR)`."""

import os
from pathlib import Path
from typing import Any

import datasets

from .prepared_folders import SETTINGS, load_prepared
from .video_column import SPLITS, VIDEO_SUFFIXES, as_datasets


def load_video_folder(data_dir: str | os.PathLike) -> datasets.DatasetDict:
    """
    List the videos of a tree of class folders. No video is decoded.

    ```
    data_dir/
        train/
            juggling/a.mp4 b.webm ...
            jumping/...
        validation/  (or val/)
            juggling/...
        test/
            juggling/...
    ```

    `train` is required. Its folder names, sorted, are the classes; the other splits must not have additional classes.

    `data_dir` can also be such a tree after `dvflnet prepare`, as tars or folders. It has the same classes and ids as
    the original tree, without the unreadable videos. A clip in a tar has the path `TAR#bytes=FIRST-LAST`, which
    [`video_source`] reads.

    Returns:
        One dataset per split, with the columns `video` (`{"path": str, "bytes": None}`), `label` (`ClassLabel`) and
        `video_id` (the path relative to the split's folder), in sorted order.

    Raises:
        FileNotFoundError: If the folder does not exist, or contains no `train` folder.
        ValueError: If a class folder is empty, a split has a class that is not in `train`, a name is not
            valid UTF-8, preparation is not finished, or its manifest does not have the expected format.
    """
    data_dir = Path(data_dir)
    if not data_dir.is_dir():
        raise FileNotFoundError(f"{data_dir}: the folder does not exist")
    if (data_dir / SETTINGS).is_file():
        return load_prepared(data_dir)
    found = {split: data_dir / name for split, names in SPLITS.items() for name in names if (data_dir / name).is_dir()}
    if "train" not in found:
        raise FileNotFoundError(f"{data_dir}: has no folder `train`; expected {data_dir}/train/<class>/<video>")

    classes = sorted(folder.name for folder in found["train"].iterdir() if folder.is_dir())
    if not classes:
        raise ValueError(f"{found['train']}: has no class folders; expected {found['train']}/<class>/<video>")
    return as_datasets({split: _list_videos(folder, classes) for split, folder in found.items()}, classes)


def _list_videos(folder: Path, classes: list[str]) -> list[dict[str, Any]]:
    rows = []
    for class_folder in sorted(entry for entry in folder.iterdir() if entry.is_dir()):
        if class_folder.name not in classes:
            raise ValueError(f"{class_folder}: is not a class of the training split, which has the classes {classes}")
        videos = sorted(path for path in class_folder.iterdir() if path.suffix.lower() in VIDEO_SUFFIXES)
        for path in videos:
            try:
                str(path).encode()
            except UnicodeEncodeError as error:  # the table of a dataset cannot store such a path
                raise ValueError(f"{path}: its name is not valid UTF-8; rename it") from error
        if not videos:
            raise ValueError(f"{class_folder}: contains no videos ({', '.join(VIDEO_SUFFIXES)})")
        rows += [
            {
                "video": {"path": str(path), "bytes": None},
                "label": classes.index(class_folder.name),
                "video_id": f"{class_folder.name}/{path.name}",
            }
            for path in videos
        ]
    return rows


__all__ = ["load_video_folder"]
