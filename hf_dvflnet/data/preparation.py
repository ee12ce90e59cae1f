"""
Decode once: the videos of a dataset become small clips that are quick to seek in.

A clip is encoded below `OUT/.unfinished` and moved to its place when it is whole; tars are packed when all clips are
there. Hence a run that was stopped, however, goes on where it stopped.
"""

import errno
import hashlib
import io
import json
import os
import random
import re
import shutil
import tarfile
import time
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NamedTuple

import av
import av.error
import numpy as np
from av.video.frame import PictureType
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter
from tqdm.auto import tqdm

from ..video_decoding import ToArray, VideoDecodeError, open_frames
from .benchmarks import Release
from .clips import MANIFEST, SETTINGS, SPLITS, UNFINISHED, VIDEO_SUFFIXES, original_id, read_manifest_line
from .worker_processes import LOST, map_in_processes


# No arithmetic coding, no deblocking, no B frames: that decodes in 60 % of the time, at an eighth more bytes.
_X264 = {"preset": "veryfast", "tune": "fastdecode", "bf": "0", "sc_threshold": "0"}
_SHARD = re.compile(r"(train|validation|val|test|videos|replacement)-\d{5}[.]tar")
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)  # faults of the disk, not of a video

Row = dict[str, Any]


class _Task(NamedTuple):
    """What a worker is given: a line of the manifest to fill in, the video, and where its clip goes."""

    row: Row
    video: str | bytes
    name: str  # of the video, in messages
    target: Path
    unfinished: Path
    settings: dict[str, Any]


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
    seed: int = 0,
) -> dict[str, Any]:
    """
    Write every video below a folder as a small clip that is quick to seek in, and copy what lies beside the videos.

    Videos are found loose and in zip and tar archives; an archive's clips come to lie as if it had been extracted
    where it lies. A benchmark's release stays one, which [`~benchmark_datasets.load_benchmark`] reads under the same
    `video_id`s; of class folders (`<split>/<class>/<video>`) it is `load_benchmark("folder", out, split)`. Rar
    archives and parts of a joined one are left out, with a warning.

    A clip is H.264 (4:2:0, mp4, no sound) with the frames that [`~video_decoding.read_video`] sees, all of them and in
    their order, upright, so that the sampling rules choose the same ones. They follow each other at the source's
    average rate. Frames are scaled to a short side of at most `short_side`, never enlarged, with both sides even.

    `out/manifest.jsonl` has a line a video: `path` (in `out`, or in its tar), `source` (`ARCHIVE::MEMBER` in an
    archive), `outcome`, `reason`, `frames`, `width`, `height`, `source_bytes`, `bytes`, `sha256`, `tar`, `offset`
    (of the clip in the tar, in bytes) and `stamp` (size and time of the source file). Outcomes are `ok`; `repaired`:
    only a part can be read, which was kept; and `unreadable`: there is no clip. `out/prepare.json` has the settings.

    A second run goes on where the first one stopped, and prepares again what has changed since. The source is only
    read.

    Args:
        source: The folder, or an archive. A local one.
        out: The folder to write, outside of `source`: new, empty, or of an earlier run with the same settings.
        layout: `"tar"`: shards of the layout of webdataset, `NAME-00000.tar`, of clips in random order, each followed
            by a `.json`. NAME is the split of class folders, `replacement` for clips that replace others, else
            `videos`. A video whose name has inner dots reads differently in webdataset itself, whose keys end at the
            first one. `"folder"`: a file a clip.
        short_side: In pixels, even.
        keyframe_interval: Frames from one keyframe to the next; no frame refers beyond one.
        crf: x264's constant rate factor, 0 (lossless) to 51.
        clips_per_shard: Videos of a tar.
        num_workers: Processes that decode and encode, by default one per core; 0 works in this one.
        seed: Of the order in the tars.

    Returns:
        `videos`, `ok`, `repaired` and `unreadable` (counts), `prepared` (how many were encoded now), `failures` (the
        manifest's lines of unreadable videos), `source_bytes` and `bytes` (of all videos and of all clips), `shards`,
        `seconds` and `manifest` (its path).

    Raises:
        FileNotFoundError: If there is no source, or it holds no video.
        ValueError: If a setting is out of its range or another one than in `out`; if `out` is in the source or the
            other way round, or holds something else; if an archive cannot be read, or two files would get one name.
    """
    started = time.monotonic()
    _check_range("short_side", short_side, 2, 1 << 14)
    _check_range("keyframe_interval", keyframe_interval, 1, 1 << 14)
    _check_range("crf", crf, 0, 51)
    _check_range("clips_per_shard", clips_per_shard, 1, 99999)
    if short_side % 2:
        raise ValueError(f"short_side must be even, got {short_side}")
    if layout not in ("tar", "folder"):
        raise ValueError(f"layout must be 'tar' or 'folder', got {layout!r}")
    release = Release(source)
    if not release.is_local:
        raise ValueError(f"{source}: is not a local folder; download it first")
    out = Path(out)
    settings: dict[str, Any] = {"source": str(Path(source).resolve()), "layout": layout, "short_side": short_side}
    settings |= {"keyframe_interval": keyframe_interval, "crf": crf, "x264": _X264}
    if layout == "tar":
        settings |= {"clips_per_shard": clips_per_shard, "seed": seed}
    _refuse_out(Path(source), out, settings)
    work = _Sources(release, out)
    shards = _plan_shards(work.rows, clips_per_shard, seed) if layout == "tar" else {}
    for shard in shards:
        if shard in work.taken:
            raise ValueError(f"{work.taken[shard]}: has the name of a tar that would be written; rename it")

    unfinished = out / UNFINISHED
    unfinished.mkdir(parents=True, exist_ok=True)
    if not (out / SETTINGS).exists():
        _replace(unfinished / SETTINGS, out / SETTINGS, json.dumps(settings, indent=1) + "\n")
    work.copy_others()
    clips = unfinished / "clips" if layout == "tar" else out
    packed = _read_shards(out) if layout == "tar" else {}
    in_tars = {(path, clip.sha256) for shard in packed.values() for path, clip in shard.items()}

    known = _read_manifest(out / MANIFEST)
    for path in set(known) - set(work.rows):  # its source is gone
        del known[path]
        (clips / path).unlink(missing_ok=True)
    _write_manifest(out, known.values())  # without a last line that a stopped run has cut
    rows: dict[str, Row] = {}
    for path, row in work.rows.items():
        before = known.get(path)
        if before is None or any(before[key] != row[key] for key in ("source", "stamp")):
            continue
        whole = before["outcome"] == "unreadable" or (path, before["sha256"]) in in_tars
        if whole or _size(clips / path) == before["bytes"]:
            rows[path] = before

    todo = len(work.rows) - len(rows)
    tasks = (
        _Task(row, video, name, clips / row["path"], unfinished, settings)
        for row, video, name in work.read_missing(rows)
    )
    with open(out / MANIFEST, "a", encoding="utf-8") as file:
        prepared = map_in_processes(_prepare_one, tasks, num_workers, _lost)
        for row in tqdm(prepared, total=todo, desc="preparing videos", unit="video"):
            rows[row["path"]] = row
            file.write(json.dumps(row) + "\n")
            file.flush()
    if layout == "tar":
        _pack(out, clips, shards, rows, packed)
    _write_manifest(out, rows.values())
    shutil.rmtree(unfinished)

    outcomes = Counter(row["outcome"] for row in rows.values())
    return {
        "videos": len(rows),
        **{outcome: outcomes[outcome] for outcome in ("ok", "repaired", "unreadable")},
        "prepared": todo,
        "failures": [row for _, row in sorted(rows.items()) if row["outcome"] == "unreadable"],
        "source_bytes": sum(row["source_bytes"] for row in rows.values()),
        "bytes": sum(row["bytes"] or 0 for row in rows.values()),
        "shards": len({row["tar"] for row in rows.values()} - {None}),
        "seconds": round(time.monotonic() - started, 1),
        "manifest": str(out / MANIFEST),
    }


def _check_range(name: str, number: int, least: int, most: int):
    if not least <= number <= most:
        raise ValueError(f"{name} must be from {least} to {most}, got {number}")


def _refuse_out(source: Path, out: Path, settings: dict[str, Any]):
    inside, outside = out.resolve(), source.resolve()
    if inside == outside or outside in inside.parents or inside in outside.parents:
        raise ValueError(f"{out}: one of it and {source} lies in the other; choose a folder beside it")
    if (out / SETTINGS).is_file():
        try:
            found = dict(json.loads((out / SETTINGS).read_text("utf-8")))
        except (ValueError, TypeError, RecursionError) as error:
            raise ValueError(f"{out / SETTINGS}: is not what an earlier run wrote; choose another folder") from error
        other = [name for name in {**found, **settings} if found.get(name) != settings.get(name)]
        if other:
            raise ValueError(
                f"{out}: was prepared with {', '.join(f'{name} {found.get(name)}' for name in other)}, not "
                f"{', '.join(str(settings.get(name)) for name in other)}; choose another folder"
            )
    elif out.exists() and (not out.is_dir() or any(entry.name != UNFINISHED for entry in out.iterdir())):
        raise ValueError(f"{out}: holds something else than prepared videos; choose another folder")


class _Sources:
    """The videos of a release, as the first columns of the manifest, by path; files beside them are copied."""

    def __init__(self, release: Release, out: Path):
        self.release, self.out = release, out
        self.root = release.path if os.path.isdir(release.path) else os.path.dirname(release.path)
        self.rows: dict[str, Row] = {}
        self.taken: dict[str, str] = {MANIFEST: "", SETTINGS: ""}  # what lands on each name
        self.in_archives: dict[str, dict[str, str]] = {}  # where each member goes, of archives that hold videos
        self.loose: dict[str, str] = {}
        copied, left = [], []
        for archive in release.archives:
            members = release.members(archive)
            if any(member.lower().endswith(VIDEO_SUFFIXES) for member in members):
                self.in_archives[archive] = {
                    member: self._take(member, f"{archive}::{member}", archive) for member in members
                }
        for file in release.files:
            if file in self.in_archives:
                continue
            if file.lower().endswith((".rar", ".7z")) or re.search(r"20bn-something-something-v2-\d\d$", file):
                left.append(file)
                continue
            path = self._take(os.path.relpath(file, self.root), file)
            if path in self.rows:
                self.loose[path] = file
            else:
                copied.append((file, path))
        if not self.rows:
            raise FileNotFoundError(f"{release.root}: holds no videos ({', '.join(VIDEO_SUFFIXES)})")
        if left:
            warnings.warn(
                f"{len(left)} archives are neither read nor copied, {', '.join(left[:3])}: extract them first if "
                "they hold anything that is needed",
                stacklevel=3,
            )
        self.copied = copied

    def copy_others(self):
        """Copy what is neither a video nor holds videos, unless the same is there."""
        for file, path in self.copied:
            target = self.out / path
            if not target.exists() or _stamp(file) != _stamp(target):
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(file, self.out / UNFINISHED / "copy")
                os.replace(self.out / UNFINISHED / "copy", target)

    def _take(self, name: str, source: str, archive: str | None = None) -> str:
        """Where a file or member goes, below `out`."""
        path = PurePosixPath(Path(name).as_posix())
        if archive is not None:
            about = PurePosixPath(Path(os.path.relpath(archive, self.root)).as_posix())
            if path.is_absolute() or ".." in path.parts or not path.parts:  # `.`
                raise ValueError(f"{source}: would be written outside of its folder; extract the archive first")
            path = about.parent / path
            if path.parts[0] == UNFINISHED:
                raise ValueError(f"{source}: would be written among what is not finished; extract the archive first")
            # a replacement stays one, though the archive's name does not
            if "replacement" in str(about) and "replacement" not in str(path):
                path = path.parent / "replacement" / path.name
        row: Row | None = None
        if name.lower().endswith(VIDEO_SUFFIXES):
            relative = os.path.relpath(archive or source, self.root)
            row = {"source": relative if archive is None else f"{relative}::{name}"}
            row["stamp"] = list(_stamp(archive or source))
            path = path.with_suffix(".mp4")
        if str(path) in self.taken:
            other = self.taken[str(path)] or "what is written beside the clips"
            raise ValueError(f"{source} and {other} would both be named {path}; move one of them away")
        self.taken[str(path)] = source
        if row is not None:
            self.rows[str(path)] = {"path": str(path), **row}
        return str(path)

    def read_missing(self, done: dict[str, Row]) -> Iterator[tuple[Row, str | bytes, str]]:
        """Lines to fill in, path or bytes, and name of the videos that are not done; archives are read once."""
        for path, file in self.loose.items():
            if path not in done:
                yield self.rows[path], file, file
        for archive, members in self.in_archives.items():
            beside = [path for path in members.values() if path not in self.rows]
            missing = {path for path in members.values() if path in self.rows and path not in done}
            if not missing and all((self.out / path).exists() for path in beside):
                continue
            for member, content in self.release.contents(archive, suffixes=("",)):
                path = members[member]
                if path in missing:
                    yield self.rows[path], content, f"{archive}::{member}"
                elif path not in self.rows:
                    (self.out / path).parent.mkdir(parents=True, exist_ok=True)
                    _replace(self.out / UNFINISHED / "copy", self.out / path, content)


def _stamp(file: str | Path) -> tuple[int, int]:
    status = os.stat(file)
    return status.st_size, status.st_mtime_ns


def _size(file: Path) -> int | None:
    return file.stat().st_size if file.is_file() else None


def _replace(unfinished: Path, target: Path, content: str | bytes):
    unfinished.write_bytes(content.encode() if isinstance(content, str) else content)
    os.replace(unfinished, target)


def _read_manifest(path: Path) -> dict[str, Row]:
    if not path.is_file():
        return {}
    rows: dict[str, Row] = {}
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    for number, line in enumerate(lines, start=1):
        try:
            row = read_manifest_line(line)
            rows[row["path"]] = row
        except ValueError as error:
            if number == len(lines):
                break  # a run that was stopped may have cut its last line
            raise ValueError(
                f"{path}: line {number} is no line of a manifest; remove it, or the whole file"
            ) from error
    return rows


def _write_manifest(out: Path, rows: Iterable[Row]):
    lines = "".join(json.dumps(row) + "\n" for row in sorted(rows, key=lambda row: row["path"]))
    _replace(out / UNFINISHED / MANIFEST, out / MANIFEST, lines)


# One video


def _prepare_one(task: _Task) -> Row:
    row = _new_row(task)
    unfinished = task.unfinished / f"{os.getpid()}.mp4"
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            content = task.video if isinstance(task.video, bytes) else Path(task.video).read_bytes()
            if not content:
                raise VideoDecodeError(f"{task.name}: 0 bytes")
            file = io.BytesIO(content)
            file.name = task.name
            about = _encode(file, task.name, unfinished, task.settings)
        except (OSError, ValueError) as error:
            if isinstance(error, OSError) and error.errno in _DISK:
                raise
            unfinished.unlink(missing_ok=True)
            return _unreadable(task, str(error).removeprefix(f"{task.name}: "))
    reasons = [str(one.message).removeprefix(f"{task.name}: ") for one in said if one.category is UserWarning]
    if reasons:
        row |= {"outcome": "repaired", "reason": "; ".join(reasons)}
    clip = unfinished.read_bytes()
    task.target.parent.mkdir(parents=True, exist_ok=True)
    os.replace(unfinished, task.target)
    return {**row, **about, "bytes": len(clip), "sha256": hashlib.sha256(clip).hexdigest()}


def _new_row(task: _Task) -> Row:
    row: Row = {**task.row, "outcome": "ok", "reason": None, "frames": None, "width": None, "height": None}
    row["source_bytes"] = len(task.video) if isinstance(task.video, bytes) else task.row["stamp"][0]
    return {**row, "bytes": None, "sha256": None, "tar": None, "offset": None}


def _unreadable(task: _Task, reason: str) -> Row:
    task.target.unlink(missing_ok=True)  # of an earlier run, when the video was another one
    return {**_new_row(task), "outcome": "unreadable", "reason": reason}


def _lost(task: _Task) -> Row:
    return _unreadable(task, LOST)


def _encode(video: io.BytesIO, name: str, target: Path, settings: dict[str, Any]) -> dict[str, int]:
    """Write a clip; its number of frames, width and height."""
    interval = str(settings["keyframe_interval"])
    options = {**settings["x264"], "crf": str(settings["crf"]), "g": interval, "keyint_min": interval}
    reformatter, to_array = VideoReformatter(), ToArray()
    stored: set[tuple[int, int]] = set()
    number = width = height = 0
    with (
        open_frames(video) as (metadata, frames),
        av.open(str(target), "w", format="mp4", container_options={"movflags": "+faststart"}) as container,
    ):
        # the denominator that 29.97 and the like need
        rate = Fraction(metadata.fps or 25).limit_denominator(1001) or Fraction(1)
        stream: av.VideoStream = container.add_stream("libx264", rate=rate, options=options)
        codec = stream.codec_context
        for number, frame in enumerate(frames):
            stored.add((frame.height, frame.width))
            if len(stored) > 1:
                raise VideoDecodeError(f"{name}: its frames change size midway, (height, width) are {sorted(stored)}")
            if not to_array.is_upright(frame):
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(to_array(frame)), format="rgb24")
            if number == 0:
                width, height = _small_size(frame.width, frame.height, settings["short_side"])
            # matrix and range stay those of the source, so that turning to RGB gives the same colours
            is_rgb = frame.format.is_rgb
            picture = reformatter.reformat(
                frame,
                width,
                height,
                "yuv420p",
                dst_colorspace=Colorspace.ITU601 if is_rgb else None,
                dst_color_range=ColorRange.MPEG if is_rgb else None,
                interpolation="BICUBIC",
                threads=1,
            )
            if number == 0:
                stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
                codec.colorspace, codec.color_range = picture.colorspace, picture.color_range
                codec.thread_count = 1
            picture.pts, picture.time_base = number, 1 / rate
            picture.pict_type = PictureType.NONE  # else the source's keyframes become the clip's
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return {"frames": number + 1, "width": width, "height": height}


def _small_size(width: int, height: int, short_side: int) -> tuple[int, int]:
    """Width and height, even, of a picture whose short side is at most `short_side`."""
    scale = short_side / min(width, height)
    if scale < 1:
        return 2 * round(width * scale / 2), 2 * round(height * scale / 2)
    return max(2, width // 2 * 2), max(2, height // 2 * 2)


# Tars


class _Packed(NamedTuple):
    """Where a clip lies in a tar, in bytes."""

    offset: int
    size: int
    sha256: str


def _plan_shards(rows: dict[str, Row], clips_per_shard: int, seed: int) -> dict[str, list[str]]:
    """The paths of each tar, in its order."""
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


def _read_shards(out: Path) -> dict[str, dict[str, _Packed]]:
    """What the tars of an earlier run hold, by path, in their order."""
    shards = {}
    for tar in sorted(out.glob("*.tar")):
        if not _SHARD.fullmatch(tar.name):
            continue
        clips: dict[str, _Packed] = {}
        try:
            with tarfile.open(tar) as file:
                for member in file:
                    if member.name.endswith(".mp4"):
                        clip = member
                    elif (content := file.extractfile(member)) is not None:
                        sha256 = json.loads(content.read())["sha256"]
                        clips[clip.name] = _Packed(clip.offset_data, clip.size, sha256)
        except (tarfile.TarError, EOFError, ValueError):
            pass  # what follows is damaged, and is packed again
        shards[tar.name] = clips
    return shards


def _pack(
    out: Path,
    clips: Path,
    shards: dict[str, list[str]],
    rows: dict[str, Row],
    packed: dict[str, dict[str, _Packed]],
):
    """Write the tars that are not what they should be, and where each clip lies into the rows."""
    readable = {
        shard: [path for path in paths if rows[path]["outcome"] != "unreadable"] for shard, paths in shards.items()
    }
    wanted = {shard: [(path, rows[path]["sha256"]) for path in paths] for shard, paths in readable.items() if paths}
    stale = [
        shard
        for shard, found in packed.items()
        if [(path, clip.sha256) for path, clip in found.items()] != wanted.get(shard)
    ]
    # what stale tars hold of use goes back to the single clips before any of them is replaced
    for shard in stale:
        with open(out / shard, "rb") as tar:
            for path, clip in packed[shard].items():
                if path in rows and rows[path]["sha256"] == clip.sha256 and not (clips / path).exists():
                    tar.seek(clip.offset)
                    (clips / path).parent.mkdir(parents=True, exist_ok=True)
                    _replace(out / UNFINISHED / "clip", clips / path, tar.read(clip.size))
    for shard in stale:
        (out / shard).unlink()
    written = [shard for shard in wanted if shard in stale or shard not in packed]
    for shard in tqdm(written, desc="packing", unit="tar", disable=None if written else True):
        unfinished = out / UNFINISHED / f"{shard}.part"
        with tarfile.open(unfinished, "w") as tar:
            for path in readable[shard]:
                _add(tar, path, (clips / path).read_bytes())
                _add(tar, str(PurePosixPath(path).with_suffix(".json")), json.dumps(_describe(rows[path])).encode())
        os.replace(unfinished, out / shard)
        for path in readable[shard]:
            (clips / path).unlink()
    for shard, found in _read_shards(out).items():
        for path, clip in found.items():
            rows[path] |= {"tar": shard, "offset": clip.offset}


def _add(tar: tarfile.TarFile, name: str, content: bytes):
    member = tarfile.TarInfo(name)  # no time and no owner: the same clips give the same bytes
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def _describe(row: Row) -> Row:
    video_id, label = original_id(row)
    about = {"video_id": video_id, **({} if label is None else {"label": label})}
    return {**about, **{key: row[key] for key in ("sha256", "frames", "width", "height", "outcome", "source")}}


__all__ = ["prepare_videos"]
