"""Loads a tree of class folders, `<split>/<class>/<video>`: `load_video_folder(DIR)`."""

import os
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import datasets
import pandas

from .label_sets import composed
from .video_column import clip_features
from .video_files import (
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
# a list of the clips, beside the splits that `dvflnet split` writes: `path`, `label`, `split`, `group` and the source
CLIPS = "clips.csv"
NOT_FINISHED = "preparation is not finished; run `dvflnet prepare` again to continue it"


class _Clip(NamedTuple):
    """A video of a class folder."""

    video_id: str
    label: str
    path: str


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

    Returns:
        One dataset per split, with the columns `video` (`{"path": str, "bytes": None}`), `label` (`ClassLabel`) and
        `video_id` (`<class>/<file name>`), in sorted order; and `group`, the recording, if `dvflnet split` wrote the
        folder.

    Raises:
        FileNotFoundError: If the folder does not exist, or contains no `train` folder.
        ValueError: If a class folder has no videos, a split has a class that is not in `train`, a split or class has
            two folders, a name is not valid UTF-8, or `dvflnet prepare` has not finished.

    Warns:
        UserWarning: If files are left out: videos that are not directly in a class folder of a split, files of class
            folders with other endings, broken links, and hidden or system files that have the ending of a video.
    """
    data_dir = Path(data_dir)
    if not data_dir.is_dir():
        raise FileNotFoundError(f"{data_dir}: the folder does not exist")
    if (data_dir / UNFINISHED).exists():
        raise ValueError(f"{data_dir}: {NOT_FINISHED}")
    splits, left_out = _read_tree(data_dir)
    warn_of_left_out(data_dir, left_out)
    classes = sorted({clip.label for clip in splits["train"]})
    groups = _recordings(data_dir)
    if not all(clip.path in groups for clips in splits.values() for clip in clips):
        groups = {}  # other clips were added
    features = clip_features(classes)
    if groups:
        features["group"] = datasets.Value("string")
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
                **({"group": groups[clip.path]} if groups else {}),
            }
            for clip in sorted(clips, key=lambda clip: clip.video_id.split("/"))
        ]
        found[split] = datasets.Dataset.from_list(rows, features=features)
    return found


def split_clips(data_dir: Path) -> pandas.DataFrame:
    """The list that `dvflnet split` wrote, with the names that `dvflnet prepare` gave its clips."""
    clips = pandas.read_csv(data_dir / CLIPS)
    if (data_dir / MANIFEST).is_file() and "path" in clips:
        clips["path"] = [str(PurePosixPath(path).with_suffix(".mp4")) for path in clips["path"]]
    return clips


def _recordings(data_dir: Path) -> dict[str, str]:
    """The recording of each clip, by path, where `dvflnet split` wrote the folder."""
    if not (data_dir / CLIPS).is_file():
        return {}
    clips = split_clips(data_dir)
    if not {"path", "group"} <= set(clips):  # a list of the user's
        return {}
    return {str(data_dir / path): str(group) for path, group in zip(clips["path"], clips["group"], strict=True)}


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
