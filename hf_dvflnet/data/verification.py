"""Checks every clip of a benchmark before a long run needs it."""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from ..video_decoding import read_video
from .benchmarks import BENCHMARKS
from .jobs import map_jobs
from .limits import VideoLimits
from .storages import read_json_lines, write_whole
from .video_column import video_source


OUTCOMES = ("ok", "missing", "empty", "undecodable", "short", "duplicate")


def verify_benchmark(
    name: str,
    data_dir: str | os.PathLike,
    report: str | os.PathLike,
    *,
    protocol: str | None = None,
    fold: int = 1,
    min_frames: int = 8,
    num_workers: int | None = None,
    ray: str | None = None,
) -> dict[str, Any]:
    """
    Decode the first, the middle and the last frame of every listed clip, and write a report.

    The report is JSON Lines, one line per clip: `video_id`, `split`, `path`, `outcome`, `reason`, `frames`, `bytes`,
    `sha256`, and the lists that the clip belongs to. Outcomes are `ok`, `missing`, `empty` (0 bytes), `undecodable`,
    `short` (fewer than `min_frames` frames), and `duplicate` (the same bytes as an earlier clip). [`load_benchmark`]
    accepts the report as its block list. An existing report on the same lists is continued: a clip is not decoded
    again if the size and time of its file, or archive, are unchanged.

    Args:
        name: A benchmark of [`BENCHMARKS`].
        data_dir: The release of the benchmark.
        report: The file to write.
        protocol, fold: The lists to check.
        min_frames: Clips with fewer frames are `short`.
        num_workers: Number of sandboxes that decode, by default one per CPU; 0 uses this process.
        ray: Decode on a Ray cluster instead: `"auto"` for the one that `RAY_ADDRESS` names or that runs on this
            machine, `"local"` to start one, or `HOST:PORT`. Its nodes see the current folder and the release at the
            same paths.

    Returns:
        `counts` (for each split, the number of listed clips, the number of clips in the official lists, or None if
        it is unknown, and the number of clips with each outcome), `checked` (number of clips decoded in this run),
        `protocol` and `fold`.

    Raises:
        ValueError: If the benchmark does not exist, or `report` exists and is not a report on these lists.
        ImportError, ConnectionError, OSError: With `ray`, if Ray is not installed, cannot be reached, or gave up.

    Warns:
        UserWarning: If files of the release are left out, as in [`load_benchmark`].
    """
    if name not in BENCHMARKS:
        raise ValueError(f"unknown benchmark {name!r}; choose one of {', '.join(BENCHMARKS)}")
    builder = BENCHMARKS[name](data_dir, protocol, fold)
    lists: dict[str, Any] = {"benchmark": name, "protocol": builder.config.protocol, "fold": fold}
    report = Path(report)

    def parse(row: Any) -> tuple[tuple[str, str], dict[str, Any]]:
        if {key: row[key] for key in lists} != lists:
            raise ValueError("a report on other lists")
        return (row["split"], row["video_id"]), row

    wrong = f"is not part of a report on {', '.join(map(str, lists.values()))}; choose another report file"
    known = dict(read_json_lines(report, parse, wrong, unfinished=True)) if report.is_file() else {}
    listed = [(split, clip.video_id) for split, clips in builder.lists.items() for clip in clips]
    rows: dict[tuple[str, str], dict[str, Any]] = {}

    def jobs() -> Iterator[tuple[dict[str, Any], bytes | None]]:
        for row, video in _files(builder):
            before = known.get((row["split"], row["video_id"]))
            if before is not None and before.get("stamp") == row["stamp"]:
                rows[row["split"], row["video_id"]] = before
            else:
                yield {**lists, **row}, video

    checked = 0
    with map_jobs(num_workers, ray) as run:
        report.parent.mkdir(parents=True, exist_ok=True)
        with open(report, "a", encoding="utf-8") as file:
            for row in tqdm(run(_check, jobs()), desc="verifying", unit="clip"):
                rows[row["split"], row["video_id"]] = row
                file.write(json.dumps(row) + "\n")
                checked += 1

    final = []
    first_of: dict[str, str] = {}  # first clip with each digest
    for split, video_id in listed:
        row = rows.get((split, video_id)) or {**lists, "video_id": video_id, "split": split, "outcome": "missing"}
        if row["outcome"] in ("ok", "short", "duplicate"):
            first = first_of.setdefault(row["sha256"], video_id)
            if first != video_id:
                row = {**row, "outcome": "duplicate", "reason": f"same bytes as {first}"}
            elif row["frames"] < min_frames:
                row = {**row, "outcome": "short", "reason": f"{row['frames']} frames"}
            else:
                row = {**row, "outcome": "ok", "reason": row.get("remark")}
        final.append(row)
    write_whole(report, "".join(json.dumps(row) + "\n" for row in final))

    official = builder.official_counts.get((lists["protocol"], fold), {})
    counts = {}
    for split, clips in builder.lists.items():
        outcomes = Counter(row["outcome"] for row in final if row["split"] == split)
        counts[split] = {"listed": len(clips), "official": official.get(split)}
        counts[split] |= {outcome: outcomes[outcome] for outcome in OUTCOMES}
    return {"counts": counts, "checked": checked, "protocol": lists["protocol"], "fold": fold}


def _files(builder: Any) -> Iterator[tuple[dict[str, Any], bytes | None]]:
    """Each clip that is found, with its bytes if it is in an archive."""
    release = builder.release
    archives = [release.stamp(archive) for archive in release.archives]
    for split, clips in builder.lists.items():
        in_archives = False
        for clip in clips:
            path = builder.loose_file(clip)
            in_archives |= path is None
            if path is not None:
                status = os.stat(path) if release.is_local else None
                stamp = None if status is None else [status.st_size, status.st_mtime_ns]
                yield {"video_id": clip.video_id, "split": split, "path": path, "stamp": stamp}, None
        if in_archives and archives:
            for example in builder.as_streaming_dataset(split=split):
                video = example["video"]
                if video["bytes"] is not None:
                    row = {"video_id": example["video_id"], "split": split, "path": video["path"]}
                    yield {**row, "stamp": archives}, video["bytes"]


def _check(job: tuple[dict[str, Any], bytes | None], limits: VideoLimits) -> dict[str, Any]:
    row, video = job
    try:
        source = video_source({"path": row["path"], "bytes": video})
        content = Path(source).read_bytes() if isinstance(source, str) else source
        if not isinstance(content, bytes):
            content = content.read()
        row = {**row, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        if not content:
            return {**row, "outcome": "empty", "reason": "0 bytes"}
        _, info = read_video(
            content, lambda video: [0, video.total_num_frames // 2, video.total_num_frames - 1], limits=limits
        )
    except (OSError, ValueError) as error:
        return {**row, "outcome": "undecodable", "reason": str(error)}
    return {**row, "frames": info.total_num_frames, "outcome": "ok", "remark": "; ".join(info.remarks) or None}
