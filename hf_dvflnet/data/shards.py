"""Plans, reads and writes the tars of a prepared folder."""

import io
import json
import random
import re
import tarfile
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from tqdm.auto import tqdm

from .prepared_folders import UNFINISHED, Row, original_id
from .video_column import SPLITS
from .whole_files import whole_file, write_whole


_KINDS = (*(name for names in SPLITS.values() for name in names), "videos", "replacement")
_SHARD = re.compile(rf"({'|'.join(_KINDS)})-\d{{5}}[.]tar")


class Packed(NamedTuple):
    """Offset and size of a clip in a tar, in bytes, and its digest."""

    offset: int
    size: int
    sha256: str


def plan_shards(rows: dict[str, Row], clips_per_shard: int, seed: int) -> dict[str, list[str]]:
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


def read_shards(out: Path) -> dict[str, dict[str, Packed]]:
    """Clips in each tar of an earlier run, by path, in the order of the tar."""
    shards = {}
    for tar in sorted(out.glob("*.tar")):
        if not _SHARD.fullmatch(tar.name):
            continue
        clips: dict[str, Packed] = {}
        try:
            with tarfile.open(tar) as file:
                for member in file:
                    if member.name.endswith(".mp4"):
                        clip = member
                    elif (content := file.extractfile(member)) is not None:
                        sha256 = json.loads(content.read())["sha256"]
                        clips[clip.name] = Packed(clip.offset_data, clip.size, sha256)
        except (tarfile.TarError, EOFError, ValueError):
            pass  # the rest of the tar is damaged and is packed again
        shards[tar.name] = clips
    return shards


def pack(
    out: Path,
    clips: Path,
    shards: dict[str, list[str]],
    rows: dict[str, Row],
    packed: dict[str, dict[str, Packed]],
):
    """Write the tars that are missing or out of date, and store the position of each clip in its row."""
    readable = {
        shard: [path for path in paths if rows[path]["outcome"] != "unreadable"] for shard, paths in shards.items()
    }
    wanted = {shard: [(path, rows[path]["sha256"]) for path in paths] for shard, paths in readable.items() if paths}
    stale = [
        shard
        for shard, found in packed.items()
        if [(path, clip.sha256) for path, clip in found.items()] != wanted.get(shard)
    ]
    # before any stale tar is replaced, extract its clips that are still valid
    for shard in stale:
        with open(out / shard, "rb") as tar:
            for path, clip in packed[shard].items():
                if path in rows and rows[path]["sha256"] == clip.sha256 and not (clips / path).exists():
                    tar.seek(clip.offset)
                    (clips / path).parent.mkdir(parents=True, exist_ok=True)
                    write_whole(clips / path, tar.read(clip.size), out / UNFINISHED)
    for shard in stale:
        (out / shard).unlink()
    written = [shard for shard in wanted if shard in stale or shard not in packed]
    for shard in tqdm(written, desc="packing", unit="tar", disable=None if written else True):
        with whole_file(out / shard, out / UNFINISHED) as unfinished, tarfile.open(unfinished, "w") as tar:
            for path in readable[shard]:
                _add(tar, path, (clips / path).read_bytes())
                _add(tar, str(PurePosixPath(path).with_suffix(".json")), json.dumps(_describe(rows[path])).encode())
        for path in readable[shard]:
            (clips / path).unlink()
    for shard, found in read_shards(out).items():
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


__all__ = ["Packed", "pack", "plan_shards", "read_shards"]
