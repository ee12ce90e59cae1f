"""
Videos of one's own, as people have them: a folder by class or a list, with splits or none, whole or in segments.
`split_videos` divides them by recording, and writes the tree of class folders that everything else reads.
"""

import math
import os
import re
import warnings
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pandas
from sklearn.model_selection import StratifiedGroupKFold

from ..video_decoding import read_video
from .class_folders import CLIPS, SPLITS, split_clips
from .label_sets import composed
from .video_files import OTHER_SUFFIX, VIDEO_SUFFIXES, find_files, is_video, warn_of_left_out


COLUMNS = ("path", "start", "end", "label", "split", "group")
_SPLIT_NAMES = {name: split for split, names in SPLITS.items() for name in names}
# of a file name, what numbers the clips of a recording: `_c03`, ` 12`, `-part2`
_NUMBER = re.compile(r"[\s_.-]*(?:c|s|clip|part|seg|segment)?[\s_.-]*\d+$", re.IGNORECASE)
_ENOUGH = 3  # recordings of a class, one for each split


def read_own_videos(
    source: str | os.PathLike, columns: Mapping[str, str] | None = None
) -> tuple[pandas.DataFrame, str]:
    """
    List the clips of a folder or of a table. No video is decoded.

    Args:
        source: A folder, `[<split>/]<class>/[<recording>/]<video>`, or one that [`split_videos`] wrote; or a `.csv` or
            `.parquet` table with the columns `path` (relative to the table's folder) and `label`, and optionally
            `start` and `end` (seconds of a segment of a longer video), `split` and `group` (the recording).
        columns: Other names of these columns in the table, such as `{"label": "action"}`.

    Returns:
        A table with the columns `path`, `start`, `end`, `label`, `split`, `group` and `name` (the path below the
        folder of all), sorted by label and path; and what the recordings were told by, in words. Unknown times are
        NaN, unknown splits None.

    Raises:
        FileNotFoundError: If the source, or a video of a table, does not exist.
        ValueError: If there are no videos, a table lacks a column, or a value of it cannot be used.
    """
    source = Path(source)
    if (source / CLIPS).is_file():  # of `split_videos`
        source /= CLIPS
    if source.is_dir():
        clips = _clips_of_folder(source)
    elif source.suffix.lower() in (".csv", ".parquet"):
        clips = _clips_of_table(source, dict(columns or {}))
    elif source.exists():
        raise ValueError(f"{source}: is neither a folder nor a .csv or .parquet table")
    else:
        raise FileNotFoundError(f"{source}: does not exist")
    clips = clips.sort_values(["label", "path", "start"], ignore_index=True)
    several = clips[clips.duplicated(["path", "start", "end"], keep=False)].groupby("path")["label"].unique()
    if len(several):
        raise ValueError(
            f"{several.index[0]}: is listed more than once ({', '.join(several.iloc[0])}); each clip has one class"
        )
    root = os.path.commonpath([os.path.dirname(path) for path in clips["path"]])
    clips["name"] = [os.path.relpath(path, root) for path in clips["path"]]
    if clips["start"].notna().any():
        clips["name"] += [f" {row.start:g}-{row.end:g} s" for row in clips.itertuples()]
    if clips["group"].notna().all():
        return clips, "the folders below the classes" if source.is_dir() else "the column `group`"
    given = clips["group"].notna()
    clips["group"], by = recordings(clips["path"], clips["start"], clips["label"])
    if given.any():
        by += f" (only {given.sum()} of {len(clips)} clips have a group)"
    return clips, by


def _clips_of_folder(folder: Path) -> pandas.DataFrame:
    files, left_out = find_files(folder)
    rows, misplaced = [], []
    for file in filter(is_video, files):
        parts = Path(file).relative_to(folder).parts
        split = _SPLIT_NAMES.get(parts[0]) if len(parts) > 2 else None
        label, *recording = parts[1 if split else 0 : -1] or [None]
        if label is None or len(recording) > 1:
            misplaced.append(file)
        else:
            rows.append((file, math.nan, math.nan, composed(label), split, recording[0] if recording else None))
    others = [file for file in files if not is_video(file)]
    misplaced_at = "videos that are not at [<split>/]<class>/[<recording>/]<video>"
    warn_of_left_out(folder, {**left_out, misplaced_at: misplaced, OTHER_SUFFIX: others})
    if not rows:
        raise ValueError(f"{folder}: has no videos ({', '.join(VIDEO_SUFFIXES)}) in class folders, <class>/<video>")
    return pandas.DataFrame(rows, columns=list(COLUMNS))


def _clips_of_table(file: Path, names: dict[str, str]) -> pandas.DataFrame:
    if unknown := names.keys() - set(COLUMNS):
        raise ValueError(f"there is no column {min(unknown)}; those that can be named are {', '.join(COLUMNS)}")
    if file.name == CLIPS:
        table = split_clips(file.parent)
    else:
        table = pandas.read_parquet(file) if file.suffix.lower() == ".parquet" else pandas.read_csv(file)
    absent = [name for name in (*names.values(), *({"path", "label"} - names.keys())) if name not in table]
    if absent:
        raise ValueError(f"{file}: has no column {absent[0]!r}; its columns are {', '.join(map(str, table.columns))}")
    table = table.rename(columns={given: name for name, given in names.items()}).reindex(columns=list(COLUMNS))
    if not len(table):
        raise ValueError(f"{file}: has no rows")
    for name in ("path", "label"):
        if table[name].isna().any():
            raise ValueError(f"{file}: row {table[name].isna().argmax() + 1} has no {name}")
    for name in ("start", "end"):
        table[name] = pandas.to_numeric(table[name], errors="coerce")
    if (wrong := table["start"].isna() != table["end"].isna()).any() or (
        wrong := (table["start"] >= table["end"]) | (table["start"] < 0)
    ).any():
        row = table[wrong].iloc[0]
        raise ValueError(
            f"{file}: row {wrong.argmax() + 1}: start {row['start']}, end {row['end']}; a segment needs both, in "
            "seconds from the beginning of the video, and must end after it starts"
        )
    table["label"] = [composed(str(label)) for label in table["label"]]
    if (unfit := table["label"].str.contains("[/\\0]") | table["label"].isin([".", ".."])).any():
        raise ValueError(
            f"{file}: row {unfit.argmax() + 1}: the label {table['label'][unfit.argmax()]!r} is no folder name"
        )
    splits = table["split"].map(lambda split: None if pandas.isna(split) else str(split).lower())
    if (unknown := splits.notna() & ~splits.isin(_SPLIT_NAMES)).any():
        raise ValueError(
            f"{file}: row {unknown.argmax() + 1}: the split {splits[unknown].iloc[0]!r} is none of "
            f"{', '.join(_SPLIT_NAMES)}"
        )
    table["split"] = splits.map(_SPLIT_NAMES).astype(object).where(splits.notna(), None)
    table["path"] = [str(file.parent / path) for path in table["path"]]
    missing = [path for path in table["path"].unique() if not os.path.isfile(path)]
    if missing:
        raise FileNotFoundError(f"{missing[0]}: does not exist ({len(missing)} videos of {file} do not)")
    return table


def recordings(paths: Any, starts: Any, labels: Any) -> tuple[list[str], str]:
    """
    The recording of each clip, and in words what it was told by: segments of one file are one recording, and so are
    files whose names differ in the last number, unless that leaves fewer than three recordings of a class.
    """
    if any(not math.isnan(start) for start in starts):
        return list(paths), "the file that a segment is of"
    stems = [_NUMBER.sub("", Path(path).stem) or Path(path).stem for path in paths]
    if pandas.Series(stems).groupby(list(labels)).nunique().min() >= _ENOUGH and len(set(stems)) < len(stems):
        return stems, "the file names without their last number"
    return list(paths), (
        "nothing: each file counts as a recording of its own. If some are of one recording, put them into a folder "
        "below their class, or name the recordings in a list"
    )


def divide(clips: pandas.DataFrame, seed: int = 0, splits: tuple[str, ...] = ("test", "validation")) -> pandas.Series:
    """
    A split for each clip: those that are given, and of the others about a fifth for each of `splits` that has no clips
    yet. Clips of one recording are in one split, and each class in every split.

    Raises:
        ValueError: If a class has too few recordings for that.
    """
    given = clips["split"].where(clips["split"].notna(), "train").astype(object)
    wanted = [split for split in splits if split not in set(given)]
    rest = clips[given == "train"]
    if not wanted:
        return given
    least = rest.groupby("label")["group"].nunique()
    if least.min() <= len(wanted):
        raise ValueError(
            f"{least.idxmin()}: has {least.min()} recordings, which cannot be divided into train and "
            f"{' and '.join(wanted)}; at least {len(wanted) + 1} are needed"
        )
    for folds in (5, 4, 3, 2)[: 4 if len(wanted) == 1 else 3]:
        if folds > min(rest["group"].nunique(), rest["label"].value_counts().max()):
            continue
        for attempt in range(20):
            folder = StratifiedGroupKFold(folds, shuffle=True, random_state=seed + attempt)
            with warnings.catch_warnings(action="ignore"):  # of classes with fewer clips than folds: see below
                parts = [test for _, test in folder.split(rest, rest["label"], rest["group"])]
            found = pandas.Series("train", index=rest.index, dtype=object)
            for split, part in zip(wanted, parts, strict=False):
                found.iloc[part] = split
            if (rest.groupby([found, "label"]).size().unstack(fill_value=0) > 0).all(axis=None):
                return given.where(given != "train", found.reindex(given.index))
    raise ValueError(
        "no division by recording has every class in every split; too many classes share too few recordings"
    )


def split_videos(
    source: str | os.PathLike,
    out: str | os.PathLike,
    *,
    columns: Mapping[str, str] | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """
    Divide videos into training, validation and test clips, and write them as class folders.

    `out` gets `{train,validation,test}/<class>/<video>`, links to the files, or for segments clips that are cut from
    them (H.264, nearly lossless); and `clips.csv`, which says where each came from, with its recording. Splits that
    the source has are kept; those that it lacks are taken from its training clips. Clips of one recording are never
    in two splits: they are so alike that a network which has seen one knows the other.

    Args:
        source, columns: See [`read_own_videos`].
        out: A folder that does not exist yet.
        seed: Of the division.

    Returns:
        `clips`, `classes`, `recordings` (their number), `by` (what they were told by), and `counts`, the clips of each
        split and class.

    Raises:
        FileExistsError: If `out` exists.
        FileNotFoundError, ValueError: See [`read_own_videos`]; also if there is one class, a class has too few
            recordings, or a segment is outside of its video.
    """
    out = Path(out)
    if out.exists():
        raise FileExistsError(f"{out}: exists; choose a folder that does not")
    clips, by = read_own_videos(source, columns)
    classes = sorted(set(clips["label"]))
    if len(classes) < 2:
        raise ValueError(f"{source}: has one class ({classes[0]}), so there is nothing to tell apart; add others")
    clips["split"] = divide(clips, seed)
    unfinished = out.with_name(f".{out.name}.unfinished")
    clips["source"] = clips["path"]
    clips["path"] = _places(clips)
    for row in clips.to_dict("records"):
        place = unfinished / row["path"]
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.exists():  # of a run that was stopped
            continue
        if math.isnan(row["start"]):
            place.symlink_to(os.path.abspath(row["source"]))
        else:
            cut_segment(row["source"], row["start"], row["end"], place)
    clips = clips.rename(columns={"start": "source_start", "end": "source_end"})
    clips.drop(columns="name").to_csv(unfinished / CLIPS, index=False)
    os.replace(unfinished, out)
    counts = clips.groupby(["split", "label"]).size().unstack(fill_value=0)
    return {
        "clips": len(clips),
        "classes": len(classes),
        "recordings": int(clips["group"].nunique()),
        "by": by,
        "counts": {split: row.to_dict() for split, row in counts.iterrows()},
    }


def _places(clips: pandas.DataFrame) -> list[str]:
    """`<split>/<class>/<file>` for each clip, with a number where a class has two files of one name."""
    places: dict[str, None] = {}
    for row in clips.to_dict("records"):
        stem, suffix = Path(row["source"]).stem, Path(row["source"]).suffix
        if not math.isnan(row["start"]):
            stem, suffix = f"{stem}_{row['start']:g}-{row['end']:g}s", ".mp4"
        name, number = f"{stem}{suffix}", 2
        while f"{row['split']}/{row['label']}/{name}" in places:
            name, number = f"{stem} ({number}){suffix}", number + 1
        places[f"{row['split']}/{row['label']}/{name}"] = None
    return list(places)


def cut_segment(video: str | os.PathLike, start: float, end: float, target: Path):
    """
    Write the frames of a video from `start` to before `end`, in seconds, as an MP4 file of its frame rate.

    Raises:
        ValueError: If the video ends before `end`, by more than a frame, or does not state a frame rate.
    """
    _, info = read_video(video, [0])
    if info.fps is None:
        raise ValueError(f"{video}: states no frame rate, so that its seconds are not known; list it as a whole")
    times = np.arange(info.total_num_frames) / info.fps if info.frame_times is None else info.frame_times
    if end > times[-1] + 2 / info.fps:
        raise ValueError(f"{video}: ends at {times[-1] + 1 / info.fps:.2f} s, before the segment's end, {end:g} s")
    indices = np.flatnonzero((times >= start) & (times < end))
    unfinished = target.with_suffix(".unfinished")
    with av.open(unfinished, "w", format="mp4") as container:
        stream: Any = None
        for chunk in np.array_split(indices, math.ceil(len(indices) / 64)):
            frames, _ = read_video(video, chunk.tolist())
            height, width = (side // 2 * 2 for side in frames.shape[1:3])  # H.264 halves the colour resolution
            if stream is None:
                stream = container.add_stream(
                    "libx264", rate=Fraction(info.fps).limit_denominator(1001), options={"crf": "16"}
                )
                stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
            for frame in frames:
                picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame[:height, :width]), format="rgb24")
                container.mux(stream.encode(picture))
        container.mux(stream.encode())
    os.replace(unfinished, target)
