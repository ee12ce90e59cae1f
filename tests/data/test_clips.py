import json
import os
import shutil
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader
from transformers.video_utils import VideoMetadata

from hf_dvflnet import (
    ClipAugmentation,
    VideoClipDataset,
    VideoClipStream,
    VideoDecodeError,
    load_benchmark,
    load_video_folder,
    prepare_videos,
)
from hf_dvflnet.data.clips import are_prepared


def test_training_draws_depend_on_seed_epoch_and_clip_and_on_nothing_else(video_tree, tiny_processor):
    rows = load_video_folder(video_tree)["train"]

    def clip(seed=0, epoch=0, index=0):
        dataset = VideoClipDataset(rows, tiny_processor, train=True, seed=seed)
        dataset.set_epoch(epoch)
        return dataset[index]["pixel_values"]

    assert torch.equal(clip(), clip())
    assert not torch.equal(clip(), clip(seed=1))
    assert not torch.equal(clip(), clip(epoch=1))


def test_training_clips_at_a_frame_rate_keep_their_pace_and_begin_anywhere(video_tree, tiny_processor):
    tiny_processor.fps = 8
    clips = VideoClipDataset(load_video_folder(video_tree)["train"], tiny_processor, train=True)
    told = VideoMetadata(total_num_frames=100, fps=24.0)
    drawn = np.stack([clips._draw_frames(told, np.random.default_rng(seed)) for seed in range(50)])
    assert (np.diff(drawn) == 3).all()
    assert drawn[:, 0].min() < 10 and drawn[:, -1].max() > 90
    assert clips[0]["pixel_values"].shape == (4, 3, 32, 32)
    assert clips.settings()["sampling"]["fps"] == 8


@pytest.mark.parametrize("augmentation", [None, ClipAugmentation()])
def test_workers_give_the_same_clips_as_the_main_process(video_tree, tiny_processor, augmentation):
    rows = load_video_folder(video_tree)["train"]
    dataset = VideoClipDataset(rows, tiny_processor, train=True, seed=3, augmentation=augmentation)
    dataset.set_epoch(2)
    batches = [
        next(iter(torch.utils.data.DataLoader(dataset, batch_size=4, num_workers=workers)))["pixel_values"]
        for workers in (0, 2)
    ]
    assert torch.equal(*batches)


def test_workers_that_outlive_an_epoch_hear_of_the_next(video_tree, tiny_processor):
    dataset = VideoClipDataset(load_video_folder(video_tree)["train"], tiny_processor, train=True)
    loader = DataLoader(dataset, batch_size=4, num_workers=1, persistent_workers=True)
    epochs = []
    for epoch in (0, 1, 0):
        dataset.set_epoch(epoch)
        epochs.append(next(iter(loader))["pixel_values"])
    assert torch.equal(epochs[0], epochs[2]) and not torch.equal(epochs[0], epochs[1])


def test_a_clip_is_drawn_alike_whatever_else_is_in_the_list(video_tree, tiny_processor):
    rows = load_video_folder(video_tree)["train"]
    whole, part = (VideoClipDataset(r, tiny_processor, train=True) for r in (rows, rows.select([2])))
    assert torch.equal(whole[2]["pixel_values"], part[0]["pixel_values"])


def break_clips(tree, *names):
    for name in names:
        (tree / "train" / name).write_bytes(b"broken")


def test_a_broken_training_clip_is_replaced_and_named(video_tree, tiny_processor):
    rows = load_video_folder(video_tree)["train"]
    break_clips(video_tree, "jump/0.mp4")
    dataset = VideoClipDataset(rows, tiny_processor, train=True, on_error="replace")
    first, second = dataset[0], dataset[0]
    assert first["clip"].startswith("wave hands/") and first["labels"] == 1
    assert "cannot be opened" in json.loads(first["broken"])["jump/0.mp4"]
    assert torch.equal(first["pixel_values"], second["pixel_values"])
    assert dataset[1]["broken"] == ""


def test_an_evaluation_clip_is_never_replaced(video_tree, tiny_processor):
    rows = load_video_folder(video_tree)["train"]
    break_clips(video_tree, "jump/0.mp4")
    with pytest.raises(VideoDecodeError, match="jump/0.mp4"):
        VideoClipDataset(rows, tiny_processor, on_error="replace")[0]


def test_replacing_ends_where_nothing_can_be_read(video_tree, tiny_processor):
    rows = load_video_folder(video_tree)["train"]
    break_clips(video_tree, *rows["video_id"])
    with pytest.raises(
        VideoDecodeError, match="10 clips drawn in a row cannot be read: jump/0.mp4: .*cannot be opened"
    ):
        VideoClipDataset(rows, tiny_processor, train=True, on_error="replace")[0]


# streams


def stream(tree, processor, **changes) -> VideoClipStream:
    rows = load_benchmark("folder", tree, "train", streaming=True)
    return VideoClipStream(rows, processor, **{"num_clips": 32, **changes})


def batches(stream, batch_size=4, process=0, processes=1, epoch=0, skip=0, workers=0) -> list[dict]:
    stream.share(batch_size, process, processes)
    stream.set_epoch(epoch, skip)
    return list(DataLoader(stream, batch_size=None, num_workers=workers))


def names(found: list[dict]) -> list[str]:
    return [name for batch in found for name in batch["clip"]]


def test_a_stream_shows_every_clip_once_an_epoch_in_an_order_of_its_own(motion_tree, tiny_processor):
    shown = stream(motion_tree, tiny_processor)
    epochs = [names(batches(shown, epoch=epoch)) for epoch in (0, 1, 0)]
    expected = load_video_folder(motion_tree)["train"]["video_id"]
    assert sorted(epochs[0]) == sorted(epochs[1]) == sorted(expected)
    assert epochs[0] == epochs[2] and epochs[0] != epochs[1] and epochs[0] != list(expected)


def test_a_stream_shows_a_clip_as_the_list_does(motion_tree, tiny_processor):
    rows = load_video_folder(motion_tree)["train"]
    options = {"seed": 3, "augmentation": ClipAugmentation()}
    batch = batches(stream(motion_tree, tiny_processor, **options), epoch=2)[1]
    listed = VideoClipDataset(rows, tiny_processor, train=True, **options)
    listed.set_epoch(2)
    for name, label, clip in zip(batch["clip"], batch["labels"], batch["pixel_values"], strict=True):
        item = listed[rows["video_id"].index(name)]
        assert item["labels"] == label and torch.equal(item["pixel_values"], clip)


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_share_a_stream_and_take_the_same_number_of_steps(motion_tree, tiny_processor, processes):
    shares = [batches(stream(motion_tree, tiny_processor), 4, process, processes) for process in range(processes)]
    assert [len(share) for share in shares] == [32 // (4 * processes)] * processes
    shown = [name for share in shares for name in names(share)]
    assert len(set(shown)) == len(shown)


def test_workers_give_the_same_batches_of_a_stream(motion_tree, tiny_processor):
    shown = stream(motion_tree, tiny_processor)
    for one, other in zip(batches(shown), batches(shown, workers=3), strict=True):
        assert one["clip"] == other["clip"] and torch.equal(one["pixel_values"], other["pixel_values"])


def test_what_is_passed_over_is_not_decoded(motion_tree, tiny_processor, monkeypatch):
    shown = stream(motion_tree, tiny_processor)
    whole = batches(shown)
    read = []
    original = VideoClipStream._read
    monkeypatch.setattr(VideoClipStream, "_read", lambda self, row, rng: read.append(row) or original(self, row, rng))
    rest = batches(shown, skip=5)
    assert len(read) == 12 and len(rest) == len(whole)
    assert [batch["clip"] for batch in rest[5:]] == [batch["clip"] for batch in whole[5:]]


def test_a_broken_clip_of_a_stream_is_replaced_by_one_that_was_read(motion_tree, tiny_processor, tmp_path):
    tree = tmp_path / "motions"
    shutil.copytree(motion_tree, tree)
    break_clips(tree, "move_000/0000.mp4")
    found = batches(stream(tree, tiny_processor, on_error="replace"))
    assert len(found) == 8 and len(names(found)) == 32
    broken = [json.loads(text) for batch in found for text in batch["broken"] if text]
    assert [list(clips) for clips in broken] == [["move_000/0000.mp4"]]
    assert found[0]["clip"] == batches(stream(tree, tiny_processor, on_error="replace"), workers=2)[0]["clip"]


def test_a_stream_too_short_for_a_batch_each_is_refused(motion_tree, tiny_processor):
    with pytest.raises(ValueError, match="32 clips do not fill a batch of 20 for each of 2 processes"):
        stream(motion_tree, tiny_processor).share(20, 0, 2)


# clips without ids of their own, as data sets of the Hub come


def as_on_the_hub(rows: datasets.Dataset, path: str | None = "name") -> datasets.Dataset:
    """Rows that hold the bytes of their videos, with their base names, one name for all, or none; without ids."""

    def cell(video: dict) -> dict:
        with open(video["path"], "rb") as file:
            return {"bytes": file.read(), "path": os.path.basename(video["path"]) if path == "name" else path}

    features = datasets.Features({"video": datasets.Video(decode=False), "label": rows.features["label"]})
    listed = [{"video": cell(row["video"]), "label": row["label"]} for row in rows]
    return datasets.Dataset.from_list(listed, features=features)


@pytest.mark.parametrize("path", ["name", "video.mp4", None], ids=["base names", "one name", "no names"])
def test_clips_whose_names_repeat_are_drawn_each_for_itself(motion_tree, tiny_processor, path, monkeypatch):
    rows = as_on_the_hub(load_video_folder(motion_tree)["train"], path)
    drawn = []
    real = ClipAugmentation.draw_crop

    def draw(augmentation, height, width, generator):
        drawn.append(real(augmentation, height, width, generator))
        return drawn[-1]

    monkeypatch.setattr(ClipAugmentation, "draw_crop", draw)
    clips = VideoClipDataset(rows, tiny_processor, train=True, augmentation=ClipAugmentation())
    names = [clips[index]["clip"] for index in range(32)]
    assert len(set(names)) == 32 and len(set(drawn)) > 28


def test_a_column_that_is_asked_to_decode_is_read_all_the_same(motion_tree, tiny_processor):
    rows = load_video_folder(motion_tree)["train"]
    decoding = rows.cast_column("video", datasets.Video())
    assert torch.equal(
        VideoClipDataset(decoding, tiny_processor)[0]["pixel_values"],
        VideoClipDataset(rows, tiny_processor)[0]["pixel_values"],
    )


@pytest.mark.parametrize("streamed", [False, True], ids=["list", "stream"])
@pytest.mark.parametrize("text", ["string", "large_string"])
def test_a_column_of_paths_and_a_column_labels_are_read(motion_tree, tiny_processor, streamed, text):
    rows = load_video_folder(motion_tree)["train"]
    columns = {"video": [video["path"] for video in rows["video"]], "labels": rows["label"]}
    features = datasets.Features({"video": datasets.Value(text), "labels": rows.features["label"]})
    plain = datasets.Dataset.from_dict(columns, features=features)
    if streamed:
        clips = VideoClipStream(plain.to_iterable_dataset(), tiny_processor, num_clips=32)
        found = batches(clips)
        labels = dict(zip(names(found), torch.cat([batch["labels"] for batch in found]).tolist(), strict=True))
        assert labels == dict(zip(columns["video"], columns["labels"], strict=True))
    else:
        given, expected = VideoClipDataset(plain, tiny_processor)[20], VideoClipDataset(rows, tiny_processor)[20]
        assert given["labels"] == expected["labels"] and torch.equal(given["pixel_values"], expected["pixel_values"])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda rows: rows.cast_column("label", datasets.Value("string")), r"class_encode_column\('label'\)"),
        (
            lambda rows: rows.rename_column("label", "category"),
            "column `label`, but the dataset has category; rename",
        ),
        (lambda rows: rows.add_column("labels", rows["label"]), "the dataset has label and labels; rename"),
        (lambda rows: rows.remove_columns("video"), "columns label, video_id: `video` is required"),
        (
            lambda rows: rows.remove_columns("video").add_column("video", list(range(32))),
            "`video` is Value.*int64.*; expected datasets.Video, or text with the paths",
        ),
        (lambda rows: rows.to_iterable_dataset(), "takes a datasets.Dataset, got IterableDataset; .* VideoClipStream"),
        (lambda rows: datasets.DatasetDict(train=rows), "got DatasetDict; of a DatasetDict, choose a split"),
    ],
)
def test_rows_without_one_column_of_videos_and_one_of_labels_are_refused(motion_tree, tiny_processor, change, reason):
    rows = load_video_folder(motion_tree)["train"]
    with pytest.raises(ValueError, match=reason):
        VideoClipDataset(change(rows), tiny_processor)
    with pytest.raises(ValueError, match="VideoClipStream takes a datasets.IterableDataset, got Dataset"):
        VideoClipStream(rows, tiny_processor, num_clips=32)


def test_a_row_without_a_video_is_an_unreadable_clip(motion_tree, tiny_processor):
    rows = load_video_folder(motion_tree)["train"].remove_columns("video_id").to_list()
    rows[0]["video"] = None
    features = datasets.Features({"video": datasets.Video(decode=False), "label": datasets.Value("int64")})
    clips = datasets.Dataset.from_list(rows, features=features)
    with pytest.raises(
        VideoDecodeError, match="clip without a video: the column `video` has neither a path nor bytes"
    ):
        VideoClipDataset(clips, tiny_processor, train=True)[0]
    assert VideoClipDataset(clips, tiny_processor, train=True, on_error="replace")[0]["broken"]


def test_prepared_clips_are_known_as_such(motion_tree, whole_shards, tiny_processor):
    for tree, prepared in ((motion_tree, False), (whole_shards, True)):
        rows = load_video_folder(tree)["train"]
        clips = VideoClipDataset(rows, tiny_processor, train=True)
        assert are_prepared(torch.utils.data.Subset(clips, [0])) == prepared


@pytest.mark.parametrize("missing", ["no column", None, -1])
def test_a_clip_without_a_label_has_none_whatever_the_order_of_the_classes(motion_tree, tiny_processor, missing):
    rows = load_video_folder(motion_tree)["train"].select([0])
    feature = rows.features["label"]
    rows = rows.remove_columns("label")
    if missing != "no column":
        rows = rows.add_column("label", [missing], feature=feature)
    clips = VideoClipDataset(rows, tiny_processor)
    assert clips[0]["labels"] == -100
    assert clips.with_label_ids(list(range(16))[::-1])[0]["labels"] == -100


# shards that cannot be read


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
