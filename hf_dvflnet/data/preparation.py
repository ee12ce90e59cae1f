"""
Prepares the videos of a dataset once: re-encodes them as small clips that allow fast seeking.

A clip is encoded in `OUT/.unfinished` and moved to its place when it is complete. A run that was interrupted in any
way can therefore continue where it stopped.
"""

import errno
import hashlib
import json
import os
import re
import shutil
import time
import warnings
from collections import Counter
from collections.abc import Iterable
from functools import partial
from pathlib import Path, PurePosixPath
from types import NoneType
from typing import Any

from tqdm.auto import tqdm

from ..video_decoding import VideoDecodeError
from . import sandbox
from .class_folders import MANIFEST, SETTINGS, UNFINISHED
from .frames import encode_clip
from .jobs import map_jobs
from .limits import VideoLimits
from .storages import read_json_lines, refuse_other_settings, whole_file, write_whole
from .video_column import file_stamp
from .video_files import ARCHIVE_SUFFIXES, VIDEO_SUFFIXES, find_files, is_video, warn_of_left_out


Row = dict[str, Any]  # one line of the manifest
# No arithmetic coding, deblocking or B frames: decoding takes 60 % of the time, and files are an eighth larger.
_X264 = {"preset": "veryfast", "tune": "fastdecode", "bf": "0", "sc_threshold": "0"}
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)  # errors of the disk, not of a video


def prepare_videos(
    source: str | os.PathLike,
    out: str | os.PathLike,
    *,
    short_side: int = 256,
    keyframe_interval: int = 4,
    crf: int = 23,
    num_workers: int | None = None,
) -> dict[str, Any]:
    """
    Re-encode every video in a folder as a small clip that allows fast seeking, and copy the other files.

    [`load_benchmark`] reads a prepared benchmark release, with the same `video_id`s, and prepared class folders.
    Archives are skipped with a warning. Hidden and system files are neither read nor copied, with a warning if they
    have the ending of a video.

    A clip is H.264 (4:2:0, mp4, no sound). It contains all frames that [`read_video`] returns, upright and in the same
    order, so that the sampling rules choose the same frames. They have the source's average frame rate, or, if that
    would move a frame by more than half a frame, the source's times. Frames are scaled down to a short side of at most
    `short_side`, never enlarged, with both sides even.

    `out/manifest.jsonl` has one line per video: `path` (in `out`), `source`, `outcome`, `reason`, `frames`, `width`,
    `height`, `source_bytes`, `bytes`, `sha256` and `stamp` (size and time of the source file). Outcomes are `ok`,
    `repaired` (only a part can be read; this part was kept) and `unreadable` (there is no clip).
    `out/prepare.json` contains the settings.

    A second run continues where the first one stopped, and prepares changed videos again. The source is not modified.

    Args:
        source: A local folder.
        out: The folder to write, outside of `source`: new, empty, or from an earlier run with the same settings.
        short_side: Maximum short side in pixels, even.
        keyframe_interval: Frames from one keyframe to the next; no frame refers to frames beyond a keyframe.
        crf: x264's constant rate factor, from 0 (lossless) to 51.
        num_workers: Number of sandboxes that decode and encode, by default one per CPU; 0 uses this process.

    Returns:
        `videos`, `ok`, `repaired` and `unreadable` (counts), `prepared` (number of videos processed in this run),
        `failures` (manifest lines of the unreadable videos), `source_bytes` and `bytes` (total size of the videos and
        of the clips), `seconds` and `manifest` (its path).

    Raises:
        FileNotFoundError: If the source does not exist or contains no videos.
        ValueError: If a setting is out of range or differs from the earlier run in `out`; if `out` is inside the
            source, or the source inside `out`; if `out` contains other files; or if two files would get the same name.
    """
    started = time.monotonic()
    settings: dict[str, Any] = {"layout": "folder", "short_side": short_side, "keyframe_interval": keyframe_interval}
    settings |= {"crf": crf}
    ranges = {"short_side": (2, 1 << 14), "keyframe_interval": (1, 1 << 14), "crf": (0, 51)}
    for name, (least, most) in ranges.items():
        if not least <= settings[name] <= most:
            raise ValueError(f"{name} must be from {least} to {most}, got {settings[name]}")
    if short_side % 2:
        raise ValueError(f"short_side must be even, got {short_side}")
    source, out = Path(source), Path(out)
    if not source.is_dir():
        raise FileNotFoundError(f"{source}: is not a local folder; download and extract the videos first")
    settings = {"source": str(source.resolve()), **settings, "x264": _X264}
    inside, outside = out.resolve(), source.resolve()
    if inside == outside or outside in inside.parents or inside in outside.parents:
        raise ValueError(f"{out}: must be outside of {source}, and must not contain it; choose another folder")
    refuse_other_settings(out / SETTINGS, settings, UNFINISHED)
    wanted, others = _find_sources(source)

    unfinished = out / UNFINISHED
    unfinished.mkdir(parents=True, exist_ok=True)
    if not (out / SETTINGS).exists():
        write_whole(out / SETTINGS, json.dumps(settings, indent=1) + "\n", unfinished)
    for path in others:  # unless there is a copy of the same size and time
        target = out / path
        if file_stamp(source / path) != file_stamp(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            with whole_file(target, unfinished) as copy:
                shutil.copy2(source / path, copy)
    rows = _take_over(out, wanted)
    tasks = [row for path, row in wanted.items() if path not in rows]
    prepare = partial(_prepare_one, source=source, out=out, settings=settings)
    with open(out / MANIFEST, "a", encoding="utf-8") as file:
        prepared = map_jobs(prepare, tasks, num_workers)
        for row in tqdm(prepared, total=len(tasks), desc="preparing videos", unit="video"):
            rows[row["path"]] = row
            file.write(json.dumps(row) + "\n")
            file.flush()
    _write_manifest(out, rows.values())
    shutil.rmtree(unfinished)

    outcomes = Counter(row["outcome"] for row in rows.values())
    return {
        "videos": len(rows),
        **{outcome: outcomes[outcome] for outcome in ("ok", "repaired", "unreadable")},
        "prepared": len(tasks),
        "failures": [row for _, row in sorted(rows.items()) if row["outcome"] == "unreadable"],
        "source_bytes": sum(row["source_bytes"] for row in rows.values()),
        "bytes": sum(row["bytes"] or 0 for row in rows.values()),
        "seconds": round(time.monotonic() - started, 1),
        "manifest": str(out / MANIFEST),
    }


def _find_sources(source: Path) -> tuple[dict[str, Row], list[str]]:
    """The videos, as the first columns of the manifest, by path in the output, and the other files, to be copied."""
    rows: dict[str, Row] = {}
    others, archives = [], []
    taken = dict.fromkeys((MANIFEST, SETTINGS), "a file that is written next to the clips")  # by path in the output
    files, left_out = find_files(source)
    warn_of_left_out(source, left_out)
    for file in files:
        path = PurePosixPath(Path(file).relative_to(source).as_posix())
        if path.name.lower().endswith(ARCHIVE_SUFFIXES) or re.search(r"20bn-something-something-v2-\d\d$", path.name):
            archives.append(file)
            continue
        target = str(path.with_suffix(".mp4") if is_video(file) else path)
        if target in taken:
            raise ValueError(f"{file} and {taken[target]} would both be named {target}; move one of them away")
        taken[target] = file
        if is_video(file):
            rows[target] = {"path": target, "source": str(path), "stamp": file_stamp(file)}
        else:
            others.append(target)
    if not rows:
        raise FileNotFoundError(f"{source}: contains no videos ({', '.join(VIDEO_SUFFIXES)})")
    if archives:
        warnings.warn(
            f"{len(archives)} archives are neither read nor copied, {', '.join(archives[:3])}: extract them first if "
            "you need their content",
            stacklevel=3,
        )
    return rows, others


def check_row(row: Any) -> Row:
    """Return a line of a manifest. Raises `ValueError` if it is not one."""
    text, number = (str, NoneType), (int, NoneType)
    kinds: dict[str, Any] = {"path": str, "source": str, "stamp": list, "source_bytes": int, "outcome": str}
    kinds |= {"sha256": text, "bytes": number}
    if not isinstance(row, dict) or not all(isinstance(row.get(name, ...), kind) for name, kind in kinds.items()):
        raise ValueError(f"expected the keys {', '.join(kinds)}")
    return row


def _take_over(out: Path, wanted: dict[str, Row]) -> dict[str, Row]:
    """Manifest lines of an earlier run that are still valid: the source is unchanged, and its clip exists."""
    wrong = "is not a manifest line; remove it, or the whole file"
    known = {}
    if (out / MANIFEST).is_file():
        known = {row["path"]: row for row in read_json_lines(out / MANIFEST, check_row, wrong, unfinished=True)}
    for path in set(known) - set(wanted):
        (out / path).unlink(missing_ok=True)
    valid = {
        path: row
        for path, row in known.items()
        if path in wanted and all(row[key] == wanted[path][key] for key in ("source", "stamp"))
    }
    _write_manifest(out, valid.values())  # without a last line that was truncated
    for path, row in list(valid.items()):
        in_place = (out / path).is_file() and (out / path).stat().st_size == row["bytes"]
        if row["outcome"] != "unreadable" and not in_place:
            del valid[path]
    return valid


def _prepare_one(row: Row, limits: VideoLimits, *, source: Path, out: Path, settings: dict[str, Any]) -> Row:
    """Write the clip of a manifest line, and fill in the line."""
    video, target = str(source / row["source"]), out / row["path"]
    row = {**row, "outcome": "ok", "reason": None, "frames": None, "width": None, "height": None}
    row |= {"source_bytes": row["stamp"][0], "bytes": None, "sha256": None}
    try:
        if not row["source_bytes"]:
            raise VideoDecodeError("0 bytes")
        with whole_file(target, out / UNFINISHED) as unfinished:
            arguments: dict[str, Any] = {"target": str(unfinished.absolute()), "settings": settings}
            if limits.sandbox:
                about = sandbox.call("hf_dvflnet.data.frames:encode_clip", video, limits, **arguments)
            else:
                about = encode_clip(video, limits, **arguments)
            clip = unfinished.read_bytes()
            target.parent.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno in _DISK:
            raise
        target.unlink(missing_ok=True)  # the clip of an earlier run, in which the video was different
        return {**row, "outcome": "unreadable", "reason": str(error).removeprefix(f"{video}: ")}
    remarks = about.pop("remarks")
    if remarks:
        row |= {"outcome": "repaired", "reason": "; ".join(one.removeprefix(f"{video}: ") for one in remarks)}
    return {**row, **about, "bytes": len(clip), "sha256": hashlib.sha256(clip).hexdigest()}


def _write_manifest(out: Path, rows: Iterable[Row]):
    lines = "".join(json.dumps(row) + "\n" for row in sorted(rows, key=lambda row: row["path"]))
    write_whole(out / MANIFEST, lines, out / UNFINISHED)
