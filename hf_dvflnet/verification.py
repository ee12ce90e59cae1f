"""Looking at every clip of a benchmark before a long run does."""

import hashlib
import json
import os
import warnings
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

from .benchmark_datasets import BENCHMARKS
from .video_dataset import video_source
from .video_decoding import read_video


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
) -> dict[str, Any]:
    """
    Decode the first, the middle and the last frame of every listed clip, and write what was found.

    The report is JSON Lines, a line a clip: `video_id`, `split`, `path`, `outcome`, `reason`, `frames`, `bytes`,
    `sha256`. Outcomes are `ok`, `missing`, `empty` (0 bytes), `undecodable`, `short` (fewer than `min_frames`
    frames), and `duplicate` (the same bytes as a clip before it). [`~benchmark_datasets.load_benchmark`] takes it as
    its block list. A report that is there already is gone on with: clips whose file has the same size and time as then
    are not read again.

    Args:
        name: A benchmark of [`~benchmark_datasets.BENCHMARKS`].
        data_dir: Its release.
        report: The file to write.
        protocol, fold: Which lists.
        min_frames: What counts as too short.
        num_workers: Processes that decode, by default one per core; 0 decodes in this one.

    Returns:
        `counts`, of each split how many clips are listed, how many the official lists have (None if that is not
        known), and how many have each outcome; and `checked`, how many were read now.
    """
    if name not in BENCHMARKS:
        raise ValueError(f"there is no benchmark {name!r}; there are {', '.join(BENCHMARKS)}")
    builder = BENCHMARKS[name](data_dir, protocol, fold)
    report = Path(report)
    known = _read_report(report)
    listed = [(split, clip.video_id) for split, clips in builder.lists.items() for clip in clips]
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    jobs: list[tuple[dict[str, Any], Any]] = []
    for row, video in _files(builder):
        before = known.get((row["split"], row["video_id"]))
        if before is not None and video is None and before.get("stamp") == row["stamp"]:
            rows[row["split"], row["video_id"]] = before
        else:
            jobs.append((row, video))

    report.parent.mkdir(parents=True, exist_ok=True)
    with open(report, "a", encoding="utf-8") as file:
        progress = tqdm(_check_all(jobs, min_frames, num_workers), total=len(jobs), desc="verifying", unit="clip")
        for row in progress:
            rows[row["split"], row["video_id"]] = row
            file.write(json.dumps(row) + "\n")

    final = []
    first_of: dict[str, str] = {}  # the first clip of each content
    for split, video_id in listed:
        row = rows.get((split, video_id)) or {"video_id": video_id, "split": split, "outcome": "missing"}
        if row["outcome"] in ("ok", "duplicate"):
            first = first_of.setdefault(row["sha256"], video_id)
            same = first != video_id
            row = {
                **row,
                "outcome": "duplicate" if same else "ok",
                "reason": f"same bytes as {first}" if same else None,
            }
        final.append(row)
    unfinished = report.with_name(f".{report.name}.unfinished")
    unfinished.write_text("".join(json.dumps(row) + "\n" for row in final), encoding="utf-8")
    os.replace(unfinished, report)

    official = builder.official_counts.get((builder.config.protocol, builder.config.fold), {})
    counts = {}
    for split, clips in builder.lists.items():
        outcomes = Counter(row["outcome"] for row in final if row["split"] == split)
        counts[split] = {
            "listed": len(clips),
            "official": official.get(split),
            **{outcome: outcomes.get(outcome, 0) for outcome in OUTCOMES},
        }
    return {"counts": counts, "checked": len(jobs)}


def _read_report(path: Path) -> dict[tuple[str, str], dict[str, Any]]:
    if not path.is_file():
        return {}
    rows = {}
    with open(path, encoding="utf-8") as file:
        for line in file:
            try:
                row = json.loads(line)
                rows[row["split"], row["video_id"]] = row
            except (ValueError, KeyError, TypeError):
                continue  # the last line of a run that was stopped may be cut
    return rows


def _files(builder: Any) -> Iterator[tuple[dict[str, Any], bytes | None]]:
    """Each clip that is there, with its bytes if it lies in an archive."""
    if builder.archived:
        for split in builder.lists:
            for example in builder.as_streaming_dataset(split=split):
                row = {
                    "video_id": example["video_id"],
                    "split": split,
                    "path": example["video"]["path"],
                    "stamp": None,
                }
                yield row, example["video"]["bytes"]
        return
    for split, clips in builder.lists.items():
        for clip in clips:
            path = builder.locations.get(clip.video_id)
            if path is not None:
                status = os.stat(path) if builder.release.is_local else None
                stamp = None if status is None else [status.st_size, status.st_mtime_ns]
                yield {"video_id": clip.video_id, "split": split, "path": path, "stamp": stamp}, None


def _check_all(jobs: list[tuple[dict[str, Any], Any]], min_frames: int, num_workers: int | None) -> Iterator[dict]:
    if not jobs or num_workers == 0:
        yield from (_check(row, video, min_frames) for row, video in jobs)
        return
    # spawned, since a forked process may not use the threads of a torch that has used them already
    context = get_context("spawn")
    with ProcessPoolExecutor(num_workers, context, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        rows, videos = zip(*jobs, strict=True)
        yield from pool.map(_check, rows, videos, [min_frames] * len(jobs), chunksize=8)


def _check(row: dict[str, Any], video: bytes | None, min_frames: int) -> dict[str, Any]:
    try:
        source = video_source({"path": row["path"], "bytes": video})
        content = Path(source).read_bytes() if isinstance(source, str) else source
        if not isinstance(content, bytes):
            content = content.read()
    except OSError as error:
        return {**row, "outcome": "undecodable", "reason": str(error)}
    row = {**row, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    if not content:
        return {**row, "outcome": "empty", "reason": "0 bytes"}
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            _, metadata = read_video(content, lambda video: _first_middle_last(video.total_num_frames))
        except (OSError, ValueError) as error:
            return {**row, "outcome": "undecodable", "reason": str(error)}
    frames = metadata.total_num_frames
    outcome = "short" if frames < min_frames else "ok"
    return {**row, "frames": frames, "outcome": outcome, "reason": "; ".join(str(one.message) for one in said) or None}


def _first_middle_last(frames: int) -> Any:
    return [0, frames // 2, frames - 1]


__all__ = ["verify_benchmark"]
