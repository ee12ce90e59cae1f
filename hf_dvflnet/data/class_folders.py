"""A tree of class folders, `<split>/<class>/<video>`, as a data set: `load_video_folder(DIR)`."""

import os
from pathlib import Path
from typing import Any

import datasets

from .prepared_folders import SETTINGS, load_prepared
from .video_column import SPLITS, VIDEO_SUFFIXES, as_datasets


def load_video_folder(data_dir: str | os.PathLike) -> datasets.DatasetDict:
    """
    List the videos of a tree of class folders. Nothing is decoded.

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

    `train` must be there; its folders, sorted, are the classes, and the other splits may have no further ones.

    What `dvflnet prepare` made of such a tree, tars or folders, has the classes and the ids of the tree, less the
    videos that were unreadable. A clip in a tar has the path `TAR#bytes=FIRST-LAST`, which [`video_source`] reads.

    Returns:
        A dataset per split, with the columns `video` (`{"path": str, "bytes": None}`), `label` (`ClassLabel`) and
        `video_id` (the path below the split's folder), in sorted order.

    Raises:
        FileNotFoundError: If there is no such folder, or no `train` in it.
        ValueError: If a class folder is empty, a split has a class that `train` has not, a name is not in
            UTF-8, preparing has not ended, or its manifest has another shape.
    """
    data_dir = Path(data_dir)
    if not data_dir.is_dir():
        raise FileNotFoundError(f"{data_dir}: there is no such folder")
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
            raise ValueError(f"{class_folder}: is no class of the training split, whose classes are {classes}")
        videos = sorted(path for path in class_folder.iterdir() if path.suffix.lower() in VIDEO_SUFFIXES)
        for path in videos:
            try:
                str(path).encode()
            except UnicodeEncodeError as error:  # which a dataset's table cannot hold
                raise ValueError(f"{path}: its name is not in UTF-8; rename it") from error
        if not videos:
            raise ValueError(f"{class_folder}: holds no videos ({', '.join(VIDEO_SUFFIXES)})")
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
