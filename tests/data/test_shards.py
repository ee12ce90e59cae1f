"""Shards that cannot be read: their clips are replaced, and named with the shard."""

import json
import shutil
from pathlib import Path

import pytest

from hf_dvflnet import VideoClipDataset, VideoClipStream, load_benchmark, prepare_videos


@pytest.fixture(scope="module")
def whole_shards(motion_tree, tmp_path_factory) -> Path:
    """32 training clips in 4 tars."""
    folder = tmp_path_factory.mktemp("shards") / "whole"
    prepare_videos(motion_tree, folder, short_side=36, clips_per_shard=8, num_workers=0)
    return folder


def cut(shard: Path):
    shard.write_bytes(shard.read_bytes()[:1000])


def fail_to_read(shard: Path):
    """From here on, reading the file is a true input/output error."""
    shard.unlink()
    shard.symlink_to("/proc/self/mem")


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [(cut, "is truncated; it has"), (Path.unlink, "cannot be read: No such"), (fail_to_read, "cannot be read: Input")],
)
@pytest.mark.parametrize("kind", ["list", "stream"])
def test_the_clips_of_a_broken_shard_are_replaced_and_named_with_it(
    whole_shards, tmp_path, tiny_processor, kind, spoil, reason
):
    shutil.copytree(whole_shards, tmp_path / "shards")
    spoil(tmp_path / "shards" / "train-00001.tar")
    rows = load_benchmark("folder", tmp_path / "shards", "train", streaming=kind == "stream")
    if kind == "list":
        clips = VideoClipDataset(rows, tiny_processor, train=True, on_error="replace")
        items = [clips[index]["broken"] for index in range(32)]
    else:
        clips = VideoClipStream(rows, tiny_processor, num_clips=32, on_error="replace")
        clips.share(4)
        items = [broken for batch in clips for broken in batch["broken"]]
    found = {clip: why for broken in items if broken for clip, why in json.loads(broken).items()}
    manifest = [json.loads(line) for line in (tmp_path / "shards" / "manifest.jsonl").read_text().splitlines()]
    held = {"/".join(Path(row["path"]).parts[1:]) for row in manifest if row["tar"] == "train-00001.tar"}
    assert set(found) == held and len(held) == 8
    assert all(f"train-00001.tar: the shard {reason}" in why for why in found.values())
