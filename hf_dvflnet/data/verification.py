"""Checks every clip of a benchmark before a long run needs it."""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from ..video_decoding import read_video
from .benchmarks import BENCHMARKS
from .jobs import map_jobs
from .limits import VideoLimits
from .storages import read_json_lines, write_whole
from .video_column import file_stamp, video_source


OUTCOMES = ("ok", "missing", "empty", "undecodable", "short", "duplicate", "leaked")
DECODED = ("ok", "short", "duplicate", "leaked")


def verify_benchmark(
    name: str,
    data_dir: str | os.PathLike,
    report: str | os.PathLike,
    *,
    protocol: str | None = None,
    fold: int = 1,
    classes: Sequence[str] | None = None,
    min_frames: int = 8,
    num_workers: int | None = None,
) -> dict[str, Any]:
    """
    Decode the first, the middle and the last frame of every listed clip, and write a report.

    The report is JSON Lines, one line per clip: `video_id`, `split`, `path`, `outcome`, `reason`, `frames`, `bytes`,
    `sha256`, and the lists that the clip belongs to. Outcomes are `ok`, `missing`, `empty` (0 bytes), `undecodable`,
    `short` (fewer than `min_frames` frames), `leaked` (a training clip with the same bytes as a clip of another
    split), and `duplicate` (the same bytes as an earlier clip). [`load_benchmark`] accepts the report as its block
    list. An existing report on the same lists is continued: a clip is not decoded
    again if the size and time of its file are unchanged.

    Args:
        name: The benchmark, as for [`load_benchmark`].
        data_dir: Its release, prepared or not.
        report: The file to write.
        protocol, fold, classes: The lists to check, of a benchmark, as for [`load_benchmark`].
        min_frames: Clips with fewer frames are `short`.
        num_workers: Number of sandboxes that decode, by default one per CPU; 0 uses this process.

    Returns:
        `counts` (for each split, the number of listed clips, the number of clips in the official lists, or None if
        it is unknown, and the number of clips with each outcome), `leaked` (their ids and those of the clips with the
        same bytes), `checked` (number of clips decoded in this run), `protocol` and `fold`.

    Raises:
        ValueError: If the benchmark does not exist, or `report` exists and is not a report on these lists.

    Warns:
        UserWarning: If files of the release are left out, as in [`load_benchmark`].
    """
    if name not in BENCHMARKS:
        raise ValueError(f"unknown benchmark {name!r}; choose one of {', '.join(BENCHMARKS)}")
    benchmark = BENCHMARKS[name](data_dir, protocol, fold, classes=classes)
    protocol = benchmark.protocol
    ids = {split: [clip.video_id for clip in listed] for split, listed in benchmark.lists.items()}
    lists: dict[str, Any] = {"benchmark": name, "protocol": protocol, "fold": fold}
    report = Path(report)

    def parse(row: Any) -> tuple[tuple[str, str], dict[str, Any]]:
        if {key: row[key] for key in lists} != lists:
            raise ValueError("a report on other lists")
        return (row["split"], row["video_id"]), row

    wrong = f"is not part of a report on {', '.join(map(str, lists.values()))}; choose another report file"
    known = dict(read_json_lines(report, parse, wrong, unfinished=True)) if report.is_file() else {}
    rows: dict[tuple[str, str], dict[str, Any]] = {}

    def jobs() -> Iterator[dict[str, Any]]:
        for split in ids:
            for row in benchmark.rows(split)[0]:
                path, key = row["video"]["path"], (split, row["video_id"])
                stamp = file_stamp(path)
                before = known.get(key)
                if before is not None and before.get("stamp") == stamp:
                    rows[key] = before
                else:
                    yield {**lists, "video_id": row["video_id"], "split": split, "path": path, "stamp": stamp}

    checked = 0
    report.parent.mkdir(parents=True, exist_ok=True)
    with open(report, "a", encoding="utf-8") as file:
        for row in tqdm(map_jobs(_check, jobs(), num_workers), desc="verifying", unit="clip"):
            rows[row["split"], row["video_id"]] = row
            file.write(json.dumps(row) + "\n")
            checked += 1

    final = []
    counts: dict[str, dict[str, int | None]] = {}
    first_of: dict[str, tuple[str, str]] = {}  # first clip with each digest
    tested = {
        row["sha256"]: f"same bytes as {clip} in {split}"
        for (split, clip), row in rows.items()
        if split != "train" and row["outcome"] in DECODED
    }
    leaked = {}
    for split, of_split in ids.items():
        outcomes = Counter[str]()
        for clip in of_split:
            row = rows.get((split, clip)) or {**lists, "video_id": clip, "split": split, "outcome": "missing"}
            if split == "train" and row.get("sha256") in tested:
                leaked[clip] = tested[row["sha256"]]
                row = {**row, "outcome": "leaked", "reason": leaked[clip]}
            elif row["outcome"] in DECODED:
                first = first_of.setdefault(row["sha256"], (split, clip))
                if first != (split, clip):
                    row = {**row, "outcome": "duplicate", "reason": f"same bytes as {first[1]} in {first[0]}"}
                elif row["frames"] < min_frames:
                    row = {**row, "outcome": "short", "reason": f"{row['frames']} frames"}
                else:
                    row = {**row, "outcome": "ok", "reason": row.get("remark")}
            final.append(row)
            outcomes[row["outcome"]] += 1
        counts[split] = {"listed": len(of_split), "official": benchmark.official.get(split)}
        counts[split] |= {outcome: outcomes[outcome] for outcome in OUTCOMES}
    write_whole(report, "".join(json.dumps(row) + "\n" for row in final))
    return {"counts": counts, "leaked": leaked, "checked": checked, "protocol": protocol, "fold": fold}


def _check(row: dict[str, Any], limits: VideoLimits) -> dict[str, Any]:
    try:
        source = video_source({"path": row["path"], "bytes": None})
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
