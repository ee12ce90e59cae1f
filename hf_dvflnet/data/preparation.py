"""
Prepares the videos of a dataset once: re-encodes them as small clips that allow fast seeking, as files or in tars.

A clip is encoded in `OUT/.unfinished` and moved to its place when it is complete; tars are packed when all clips are
encoded. A run that was interrupted in any way can therefore continue where it stopped.
"""

import errno
import hashlib
import io
import json
import math
import os
import random
import re
import shutil
import tarfile
import time
import warnings
from collections import Counter
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NamedTuple

from tqdm.auto import tqdm

from ..video_decoding import VideoDecodeError
from . import sandbox
from .class_folders import MANIFEST, SETTINGS, SPLITS, UNFINISHED, Row, check_row, original_id
from .frames import encode_clip
from .jobs import map_jobs
from .limits import VideoLimits
from .storages import read_json_lines, refuse_other_settings, whole_file, write_whole
from .video_column import file_stamp
from .video_files import ARCHIVE_SUFFIXES, VIDEO_SUFFIXES, find_files, is_video, warn_of_left_out


# No arithmetic coding, deblocking or B frames: decoding takes 60 % of the time, and files are an eighth larger.
_X264 = {"preset": "veryfast", "tune": "fastdecode", "bf": "0", "sc_threshold": "0"}
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)  # errors of the disk, not of a video


def prepare_videos(
    source: str | os.PathLike,
    out: str | os.PathLike,
    *,
    layout: Literal["tar", "folder"] = "tar",
    short_side: int = 256,
    keyframe_interval: int = 4,
    crf: int = 23,
    clips_per_shard: int = 256,
    num_workers: int | None = None,
    ray: str | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """
    Re-encode every video in a folder as a small clip that allows fast seeking, and copy the other files.

    A prepared benchmark release is read by [`load_benchmark`] with the same `video_id`s; prepared class folders
    (`<split>/<class>/<video>`) are read by `load_benchmark("folder", out, split)`. Archives are skipped with a
    warning. Hidden and system files are neither read nor copied, with a warning if they have the ending of a video.

    A clip is H.264 (4:2:0, mp4, no sound). It contains all frames that [`read_video`] returns, upright and in the same
    order, so that the sampling rules choose the same frames. They have the source's average frame rate, or, if that
    would move a frame by more than half a frame, the source's times. Frames are scaled down to a short side of at most
    `short_side`, never enlarged, with both sides even.

    `out/manifest.jsonl` has one line per video: `path` (in `out`, or in its tar), `source`, `outcome`, `reason`,
    `frames`, `width`, `height`, `source_bytes`, `bytes`, `sha256`, `tar`, `offset` (start of the clip in the tar, in
    bytes) and `stamp` (size and time of the source file). Outcomes are `ok`, `repaired` (only a part can be read; this
    part was kept) and `unreadable` (there is no clip).
    `out/prepare.json` contains the settings.

    A second run continues where the first one stopped, and prepares changed videos again. The source is not modified.

    Args:
        source: A local folder.
        out: The folder to write, outside of `source`: new, empty, or from an earlier run with the same settings.
        layout: `"tar"` writes shards in the layout of webdataset, `NAME-00000.tar`, with the clips in random order,
            each followed by a `.json` file. NAME is the split for class folders, `replacement` for clips that replace
            others, and `videos` otherwise. webdataset itself ends the key of a clip at the first dot of its file name,
            so it splits names with inner dots differently. `"folder"` writes one file per clip.
        short_side: Maximum short side in pixels, even.
        keyframe_interval: Frames from one keyframe to the next; no frame refers to frames beyond a keyframe.
        crf: x264's constant rate factor, from 0 (lossless) to 51.
        clips_per_shard: Number of clips per tar.
        num_workers: Number of sandboxes that decode and encode, by default one per CPU; 0 uses this process.
        ray: Decode and encode on a Ray cluster instead: `"auto"` for the one that `RAY_ADDRESS` names or that runs on
            this machine, `"local"` to start one, or `HOST:PORT`. Its nodes see the current folder, `source` and `out`
            at the same paths.
        seed: Seed of the order in the tars.

    Returns:
        `videos`, `ok`, `repaired` and `unreadable` (counts), `prepared` (number of videos processed in this run),
        `failures` (manifest lines of the unreadable videos), `source_bytes` and `bytes` (total size of the videos and
        of the clips), `shards` (number of tars), `seconds` and `manifest` (its path).

    Raises:
        FileNotFoundError: If the source does not exist or contains no videos.
        ValueError: If a setting is out of range or differs from the earlier run in `out`; if `out` is inside the
            source, or the source inside `out`; if `out` contains other files; or if two files would get the same name.
        ImportError, ConnectionError, OSError: With `ray`, if Ray is not installed, cannot be reached, or gave up.
    """
    started = time.monotonic()
    settings: dict[str, Any] = {"layout": layout, "short_side": short_side, "keyframe_interval": keyframe_interval}
    settings |= {"crf": crf, "clips_per_shard": clips_per_shard, "seed": seed}
    ranges = {"short_side": (2, 1 << 14), "keyframe_interval": (1, 1 << 14), "crf": (0, 51)}
    for name, (least, most) in (ranges | {"clips_per_shard": (1, 99999)}).items():
        if not least <= settings[name] <= most:
            raise ValueError(f"{name} must be from {least} to {most}, got {settings[name]}")
    if short_side % 2:
        raise ValueError(f"short_side must be even, got {short_side}")
    if layout not in ("tar", "folder"):
        raise ValueError(f"layout must be 'tar' or 'folder', got {layout!r}")
    source, out = Path(source), Path(out)
    if not source.is_dir():
        raise FileNotFoundError(f"{source}: is not a local folder; download and extract the videos first")
    settings = {"source": str(source.resolve()), **settings, "x264": _X264}
    if layout == "folder":
        del settings["clips_per_shard"], settings["seed"]
    inside, outside = out.resolve(), source.resolve()
    if inside == outside or outside in inside.parents or inside in outside.parents:
        raise ValueError(f"{out}: must be outside of {source}, and must not contain it; choose another folder")
    refuse_other_settings(out / SETTINGS, settings, UNFINISHED)
    wanted, others = _find_sources(source)
    shards = _plan_shards(wanted, clips_per_shard, seed) if layout == "tar" else {}

    unfinished = out / UNFINISHED
    clips = unfinished / "clips" if layout == "tar" else out
    with map_jobs(num_workers, ray) as run:
        unfinished.mkdir(parents=True, exist_ok=True)
        if not (out / SETTINGS).exists():
            write_whole(out / SETTINGS, json.dumps(settings, indent=1) + "\n", unfinished)
        for path in others:  # unless there is a copy of the same size and time
            target = out / path
            if file_stamp(source / path) != file_stamp(target):
                target.parent.mkdir(parents=True, exist_ok=True)
                with whole_file(target, unfinished) as copy:
                    shutil.copy2(source / path, copy)
        rows = _take_over(out, clips, wanted, shards)
        tasks = [
            _Task(row, str(source / row["source"]), clips / path, unfinished, settings)
            for path, row in wanted.items()
            if path not in rows
        ]
        with open(out / MANIFEST, "a", encoding="utf-8") as file:
            for row in tqdm(run(_prepare_one, tasks), total=len(tasks), desc="preparing videos", unit="video"):
                rows[row["path"]] = row
                file.write(json.dumps(row) + "\n")
                file.flush()
    _pack(out, clips, shards, rows)
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
        "shards": len({row["tar"] for row in rows.values()} - {None}),
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


def _take_over(out: Path, clips: Path, wanted: dict[str, Row], shards: dict[str, list[str]]) -> dict[str, Row]:
    """Manifest lines of an earlier run that are still valid: the source is unchanged, and its clip exists."""
    wrong = "is not a manifest line; remove it, or the whole file"
    known = {}
    if (out / MANIFEST).is_file():
        known = {row["path"]: row for row in read_json_lines(out / MANIFEST, check_row, wrong, unfinished=True)}
    for path in set(known) - set(wanted):
        (clips / path).unlink(missing_ok=True)
    valid = {
        path: row
        for path, row in known.items()
        if path in wanted and all(row[key] == wanted[path][key] for key in ("source", "stamp"))
    }
    stale = _unpack_stale(out, clips, shards, known, valid)
    # before other tars take their names, their places are out of the manifest; so is a last line that was truncated
    _write_manifest(out, valid.values())
    for tar in stale:
        tar.unlink()
    for path, row in list(valid.items()):
        clip = clips / path
        in_place = row["tar"] is not None or (clip.is_file() and clip.stat().st_size == row["bytes"])
        if row["outcome"] != "unreadable" and not in_place:
            del valid[path]
    return valid


def _unpack_stale(
    out: Path, clips: Path, shards: dict[str, list[str]], known: dict[str, Row], valid: dict[str, Row]
) -> list[Path]:
    """Extract the valid clips of the tars whose content is not the planned one, and return these tars."""
    held: dict[str, list[Row]] = {}  # clips in each tar, in its order
    for row in sorted((row for row in known.values() if row["tar"]), key=lambda row: row["offset"]):
        held.setdefault(row["tar"], []).append(row)
    kept, stale = set(), []
    for tar in out.glob("*.tar"):
        found, size = held.get(tar.name, []), tar.stat().st_size
        planned = [path for path in shards.get(tar.name, ()) if valid.get(path, {}).get("outcome") != "unreadable"]
        is_whole = size % tarfile.RECORDSIZE == 0 and all(row["offset"] + row["bytes"] <= size for row in found)
        if is_whole and found and [row["path"] for row in found] == planned and valid.keys() >= set(planned):
            kept.add(tar.name)
            continue
        stale.append(tar)
        with open(tar, "rb") as file:
            for row in (row for row in found if row["path"] in valid):
                file.seek(row["offset"])
                content = file.read(row["bytes"])
                if len(content) == row["bytes"]:
                    (clips / row["path"]).parent.mkdir(parents=True, exist_ok=True)
                    write_whole(clips / row["path"], content, out / UNFINISHED)
    for row in known.values():
        if row["tar"] not in kept:
            row |= {"tar": None, "offset": None}
    return stale


class _Task(NamedTuple):
    """The manifest line to fill in, the video, and where to write its clip."""

    row: Row
    video: str
    target: Path
    unfinished: Path
    settings: dict[str, Any]


def _prepare_one(task: _Task, limits: VideoLimits) -> Row:
    row: Row = {**task.row, "outcome": "ok", "reason": None, "frames": None, "width": None, "height": None}
    row |= {"source_bytes": row["stamp"][0], "bytes": None, "sha256": None, "tar": None, "offset": None}
    try:
        if not row["source_bytes"]:
            raise VideoDecodeError("0 bytes")
        with whole_file(task.target, task.unfinished) as unfinished:
            arguments: dict[str, Any] = {"target": str(unfinished.absolute()), "settings": task.settings}
            if limits.sandbox:
                function = "hf_dvflnet.data.frames:encode_clip"
                about = sandbox.call(function, task.video, limits, **arguments)
            else:
                about = encode_clip(task.video, limits, **arguments)
            clip = unfinished.read_bytes()
            task.target.parent.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno in _DISK:
            raise
        task.target.unlink(missing_ok=True)  # the clip of an earlier run, in which the video was different
        return {**row, "outcome": "unreadable", "reason": str(error).removeprefix(f"{task.video}: ")}
    remarks = about.pop("remarks")
    if remarks:
        row |= {"outcome": "repaired", "reason": "; ".join(one.removeprefix(f"{task.video}: ") for one in remarks)}
    return {**row, **about, "bytes": len(clip), "sha256": hashlib.sha256(clip).hexdigest()}


def _write_manifest(out: Path, rows: Iterable[Row]):
    lines = "".join(json.dumps(row) + "\n" for row in sorted(rows, key=lambda row: row["path"]))
    write_whole(out / MANIFEST, lines, out / UNFINISHED)


def _plan_shards(rows: dict[str, Row], clips_per_shard: int, seed: int) -> dict[str, list[str]]:
    """Paths of the clips in each tar, in the order of the tar."""
    kinds: dict[str, list[str]] = {}
    for path in sorted(rows):
        parts = PurePosixPath(path).parts
        of_classes = len(parts) == 3 and any(parts[0] in names for names in SPLITS.values())
        kind = "replacement" if "replacement" in path else parts[0] if of_classes else "videos"
        kinds.setdefault(kind, []).append(path)
    shards = {}
    for kind, paths in kinds.items():
        random.Random(f"{seed}/{kind}").shuffle(paths)  # noqa: S311
        for start in range(0, len(paths), clips_per_shard):
            shards[f"{kind}-{start // clips_per_shard:05d}.tar"] = paths[start : start + clips_per_shard]
    return shards


def _pack(out: Path, clips: Path, shards: dict[str, list[str]], rows: dict[str, Row]):
    """Write the tars that are missing, and note the place of each clip in its row and in the manifest."""
    readable = {
        shard: [path for path in paths if rows[path]["outcome"] != "unreadable"] for shard, paths in shards.items()
    }
    missing = [shard for shard, paths in readable.items() if any(rows[path]["tar"] is None for path in paths)]
    for shard in tqdm(missing, desc="packing", unit="tar", disable=None if missing else True):
        with whole_file(out / shard, out / UNFINISHED) as unfinished, tarfile.open(unfinished, "w") as tar:
            for path in readable[shard]:
                video_id, label = original_id(rows[path])
                about = {"video_id": video_id, **({} if label is None else {"label": label})}
                about |= {key: rows[path][key] for key in ("sha256", "frames", "width", "height", "outcome", "source")}
                clip = (clips / path).read_bytes()
                _add(tar, path, clip)
                padded = math.ceil(len(clip) / tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
                rows[path] |= {"tar": shard, "offset": tar.offset - padded}
                _add(tar, str(PurePosixPath(path).with_suffix(".json")), json.dumps(about).encode())
        with open(out / MANIFEST, "a", encoding="utf-8") as file:
            file.writelines(json.dumps(rows[path]) + "\n" for path in readable[shard])
        for path in readable[shard]:
            (clips / path).unlink()


def _add(tar: tarfile.TarFile, name: str, content: bytes):
    member = tarfile.TarInfo(name)  # no time and no owner: the same clips give the same bytes
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))
