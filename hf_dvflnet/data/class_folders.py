"""Loads a tree of class folders, `<split>/<class>/<video>`, as a data set: `load_video_folder(DIR)`."""

import os
from pathlib import Path
from typing import Any

import datasets

from .label_sets import composed
from .prepared_folders import SETTINGS, load_prepared
from .video_column import MISPLACED, SPLITS, as_datasets
from .video_files import OTHER_SUFFIX, VIDEO_SUFFIXES, find_files, is_hidden, is_video, warn_of_left_out


def load_video_folder(data_dir: str | os.PathLike) -> datasets.DatasetDict:
    """
    List the videos of a tree of class folders. No video is decoded.

    ```
    data_dir/
        train/
            juggling/a.mp4 b.webm ...
            jumping/...
        validation/  (or val/, or valid/)
            juggling/...
        test/
            juggling/...
    ```

    `train` is required. Its folder names, sorted, are the classes; the other splits must not have additional classes.
    Class names are in Unicode's composed form (NFC), whichever form the folder names have. Videos have one of the
    endings 3gp, asf, avi, flv, gif, m2ts, m4v, mkv, mov, mp4, mpeg, mpg, mts, ogv, ts, vob, webm and wmv.

    `data_dir` can also be such a tree after `dvflnet prepare`, as tars or folders. It has the same classes and ids as
    the original tree, without the unreadable videos. A clip in a tar has the path `TAR#bytes=FIRST-LAST`, which
    [`video_source`] reads.

    Returns:
        One dataset per split, with the columns `video` (`{"path": str, "bytes": None}`), `label` (`ClassLabel`) and
        `video_id` (`<class>/<file name>`), in sorted order.

    Raises:
        FileNotFoundError: If the folder does not exist, or contains no `train` folder.
        ValueError: If a class folder has no videos, a split has a class that is not in `train`, a split or class has
            two folders, a name is not valid UTF-8, preparation is not finished, or its manifest does not have the
            expected format.

    Warns:
        UserWarning: If files are left out: videos that are not directly in a class folder of a split, files of class
            folders with other endings, broken links, and hidden or system files that have the ending of a video.
    """
    data_dir = Path(data_dir)
    if not data_dir.is_dir():
        raise FileNotFoundError(f"{data_dir}: the folder does not exist")
    if (data_dir / SETTINGS).is_file():
        return load_prepared(data_dir)
    found = {}
    for split, names in SPLITS.items():
        folders = [data_dir / name for name in names if (data_dir / name).is_dir()]
        if len(folders) > 1:
            raise ValueError(f"{' and '.join(map(str, folders))}: are the same split; merge them into one folder")
        if folders:
            found[split] = folders[0]
    if "train" not in found:
        others = sorted(entry.name for entry in data_dir.iterdir() if entry.is_dir() and not is_hidden(entry.name))
        raise FileNotFoundError(
            f"{data_dir}: has no folder `train` (its folders: {', '.join(others) or 'none'}); expected "
            f"{data_dir}/train/<class>/<video>"
        )

    videos, left_out = _videos_by_class_folder(data_dir, set(found.values()))
    warn_of_left_out(data_dir, left_out)
    class_folders = {split: _class_folders(folder) for split, folder in found.items()}
    classes = sorted(class_folders["train"])
    if not classes:
        raise ValueError(f"{found['train']}: has no class folders; expected {found['train']}/<class>/<video>")
    rows: dict[str, list[dict[str, Any]]] = {split: [] for split in found}
    for split, folders_of_split in class_folders.items():
        for name, folder in sorted(folders_of_split.items()):
            if name not in classes:
                raise ValueError(f"{folder}: is not a class of the training split, which has the classes {classes}")
            if folder not in videos:
                raise ValueError(f"{folder}: contains no videos ({', '.join(VIDEO_SUFFIXES)})")
            rows[split] += [
                {
                    "video": {"path": str(path), "bytes": None},
                    "label": classes.index(name),
                    "video_id": f"{name}/{path.name}",
                }
                for path in videos[folder]
            ]
    return as_datasets(rows, classes)


def _videos_by_class_folder(data_dir: Path, splits: set[Path]) -> tuple[dict[Path, list[Path]], dict[str, list[str]]]:
    """Videos directly in a class folder, by folder, sorted; and the files that are left out, by reason."""
    files, left_out = find_files(data_dir)
    videos: dict[Path, list[Path]] = {}
    misplaced, others = [], []
    for file in files:
        path = Path(file)
        in_split = not splits.isdisjoint(path.parents)
        if not is_video(file):
            others += [file] if in_split and path.parent not in splits else []
        elif path.parent.parent in splits:
            videos.setdefault(path.parent, []).append(path)
        else:
            misplaced.append(file)
    for path in (path for paths in videos.values() for path in paths):
        try:
            str(path).encode()
        except UnicodeEncodeError as error:  # the table of a dataset cannot store such a path
            raise ValueError(f"{path}: its name is not valid UTF-8; rename it") from error
    return videos, {**left_out, MISPLACED: misplaced, OTHER_SUFFIX: others}


def _class_folders(split: Path) -> dict[str, Path]:
    """Class folders of a split, by class name."""
    folders: dict[str, Path] = {}
    for folder in sorted(entry for entry in split.iterdir() if entry.is_dir() and not is_hidden(entry.name)):
        other = folders.setdefault(composed(folder.name), folder)
        if other != folder:
            raise ValueError(
                f"{split}: has two folders named {composed(folder.name)!r}, in composed and decomposed characters "
                "(NFC and NFD); merge them into one folder"
            )
    return folders


__all__ = ["load_video_folder"]
