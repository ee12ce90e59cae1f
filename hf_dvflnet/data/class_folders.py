"""Loads a tree of class folders, `<split>/<class>/<video>`, also after `dvflnet prepare`: `load_video_folder(DIR)`."""

import os
from pathlib import Path, PurePosixPath
from types import NoneType
from typing import Any, NamedTuple

import datasets

from .label_sets import composed
from .storages import filesystem_of, read_json_lines
from .video_column import clip_features
from .video_files import (
    HIDDEN,
    OTHER_SUFFIX,
    VIDEO_SUFFIXES,
    find_files,
    is_hidden,
    is_video,
    warn_of_left_out,
)


SPLITS = {"train": ("train",), "validation": ("validation", "val", "valid"), "test": ("test",)}  # names of folders
# why videos are left out
_MISPLACED = (
    f"videos that are not at {{{','.join(name for names in SPLITS.values() for name in names)}}}/<class>/<video>"
)

# what `dvflnet prepare` writes next to the clips
MANIFEST, SETTINGS, UNFINISHED = "manifest.jsonl", "prepare.json", ".unfinished"
Row = dict[str, Any]  # one line of the manifest


class _Clip(NamedTuple):
    """A video of a class folder. The path is None if `dvflnet prepare` could not read the video."""

    video_id: str
    label: str
    path: str | None


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

    `data_dir` can also be such a tree after `dvflnet prepare`. It has the same classes and ids as the original tree,
    without the unreadable videos.

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
    splits, left_out = (_read_prepared if (data_dir / SETTINGS).is_file() else _read_tree)(data_dir)
    warn_of_left_out(data_dir, left_out)
    classes = sorted({clip.label for clip in splits["train"]})
    found = datasets.DatasetDict()
    for split, clips in splits.items():
        unknown = {clip.label for clip in clips} - set(classes)
        if unknown:
            raise ValueError(
                f"{data_dir}: {min(unknown)} in {split} is not a class of the training split, which has the classes "
                f"{', '.join(classes)}"
            )
        rows = [
            {
                "video": {"path": clip.path, "bytes": None},
                "label": classes.index(clip.label),
                "video_id": clip.video_id,
            }
            for clip in sorted(clips, key=lambda clip: clip.video_id.split("/"))
            if clip.path is not None
        ]
        found[split] = datasets.Dataset.from_list(rows, features=clip_features(classes))
    return found


def _read_tree(data_dir: Path) -> tuple[dict[str, list[_Clip]], dict[str, list[str]]]:
    """Clips of each split, and the files that are left out, by reason."""
    folders = {split: [data_dir / name for name in SPLITS[split] if (data_dir / name).is_dir()] for split in SPLITS}
    for found in folders.values():
        if len(found) > 1:
            raise ValueError(f"{' and '.join(map(str, found))}: are the same split; merge them into one folder")
    if not folders["train"]:
        others = sorted(entry.name for entry in data_dir.iterdir() if entry.is_dir() and not is_hidden(entry.name))
        raise FileNotFoundError(
            f"{data_dir}: has no folder `train` (its folders: {', '.join(others) or 'none'}); expected "
            f"{data_dir}/train/<class>/<video>; `dvflnet split` divides <class>/<video> by recording"
        )

    files, left_out = find_files(data_dir)
    of_splits = {folder for found in folders.values() for folder in found}
    videos: dict[Path, list[Path]] = {}
    left_out |= {_MISPLACED: [], OTHER_SUFFIX: []}
    for path in map(Path, files):
        if is_video(path.name) and path.parent.parent in of_splits:
            videos.setdefault(path.parent, []).append(path)
        elif is_video(path.name):
            left_out[_MISPLACED].append(str(path))
        elif path.parent not in of_splits and not of_splits.isdisjoint(path.parents):
            left_out[OTHER_SUFFIX].append(str(path))

    splits: dict[str, list[_Clip]] = {}
    for split, folder in ((split, folder) for split, found in folders.items() for folder in found):
        labels: set[str] = set()
        splits[split] = []
        for of_class in sorted(entry for entry in folder.iterdir() if entry.is_dir() and not is_hidden(entry.name)):
            label = composed(of_class.name)
            if label in labels:
                raise ValueError(
                    f"{folder}: has two folders named {label!r}, in composed and decomposed characters (NFC and NFD); "
                    "merge them into one folder"
                )
            if of_class not in videos:
                raise ValueError(f"{of_class}: contains no videos ({', '.join(VIDEO_SUFFIXES)})")
            labels.add(label)
            for path in videos[of_class]:
                try:
                    str(path).encode()
                except UnicodeEncodeError as error:  # the table of a dataset cannot store such a path
                    raise ValueError(f"{path}: its name is not valid UTF-8; rename it") from error
                splits[split].append(_Clip(f"{label}/{path.name}", label, str(path)))
        if not labels:
            raise ValueError(f"{folder}: has no class folders; expected {folder}/<class>/<video>")
    return splits, left_out


def _read_prepared(data_dir: Path) -> tuple[dict[str, list[_Clip]], dict[str, list[str]]]:
    """Same as `_read_tree`, for a tree that `dvflnet prepare` wrote."""
    splits: dict[str, list[_Clip]] = {}
    left_out: dict[str, list[str]] = {HIDDEN: [], _MISPLACED: []}
    folders: dict[tuple[str, str], str] = {}
    for row, place in prepared_clips(data_dir):
        video_id, label = original_id(row)
        if is_hidden(row["path"]) or label is None:
            left_out[HIDDEN if is_hidden(row["path"]) else _MISPLACED].append(row["path"])
            continue
        path = PurePosixPath(row["path"])
        split = next(split for split, names in SPLITS.items() if path.parts[0] in names)
        other = folders.setdefault((split, label), str(path.parent))
        if other != str(path.parent):
            raise ValueError(
                f"{data_dir}: {other} and {path.parent} are the same split and class; merge these folders of the "
                "original videos, and prepare them again"
            )
        splits.setdefault(split, []).append(_Clip(video_id, label, place))
    if "train" not in splits:
        raise FileNotFoundError(f"{data_dir}: was not prepared from class folders, `train/<class>/<video>`")
    return {split: splits[split] for split in SPLITS if split in splits}, left_out


def prepared_clips(data_dir: str | os.PathLike) -> list[tuple[Row, str | None]]:
    """
    The manifest that `dvflnet prepare` wrote, and the path or URL of each clip; None if the video could not be read.
    """
    filesystem, root = filesystem_of(os.fspath(data_dir))
    manifest = os.path.join(data_dir, MANIFEST)
    if filesystem.exists(f"{root}/{UNFINISHED}") or not filesystem.exists(f"{root}/{MANIFEST}"):
        raise ValueError(f"{data_dir}: preparation is not finished; run `dvflnet prepare` again to continue it")
    clips: list[tuple[Row, str | None]] = []
    for row in read_json_lines(manifest, check_row, "is not a manifest line; prepare the videos again"):
        path = PurePosixPath(row["path"])
        if path.is_absolute() or ".." in path.parts:
            raise ValueError(f"{manifest}: contains the path {path}, which is outside of the folder")
        clips.append((row, None if row["outcome"] == "unreadable" else os.path.join(data_dir, path)))
    return clips


def original_id(row: Row) -> tuple[str, str | None]:
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


def check_row(row: Any) -> Row:
    """Return a line of a manifest. Raises `ValueError` if `dvflnet prepare` does not write such lines."""
    text, number = (str, NoneType), (int, NoneType)
    kinds: dict[str, Any] = {"path": str, "source": str, "stamp": list, "source_bytes": int, "outcome": str}
    kinds |= {"sha256": text, "bytes": number}
    if not isinstance(row, dict) or not all(isinstance(row.get(name, ...), kind) for name, kind in kinds.items()):
        raise ValueError(f"expected the keys {', '.join(kinds)}")
    if row.get("tar") is not None:
        raise ValueError("it was prepared to a tar, which is not read any more")
    return row


def unreadable_videos(data_dir: str | os.PathLike, split: str) -> list[str]:
    """Ids of the videos of a split that `dvflnet prepare` could not read; empty for other folders."""
    if not Path(data_dir, SETTINGS).is_file():
        return []
    return sorted(clip.video_id for clip in _read_prepared(Path(data_dir))[0][split] if clip.path is None)
