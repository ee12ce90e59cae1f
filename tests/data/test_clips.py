import json
import os

import datasets
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader
from transformers.video_utils import VideoMetadata
from videos import write_video

from hf_dvflnet import (
    ClipAugmentation,
    VideoClipDataset,
    VideoDecodeError,
    load_video_folder,
    read_video,
)
from hf_dvflnet.data.loading import load_unlabelled


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


@pytest.mark.parametrize("fps", [None, 8])
def test_windows_of_a_long_video_are_clips_that_are_drawn_from_their_part_of_it(tmp_path, tiny_processor, fps):
    write_video(tmp_path / "long.mp4", num_frames=100, rate=10)
    write_video(tmp_path / "short.mp4", num_frames=10, rate=10)
    rows = load_unlabelled(tmp_path, window=3)
    assert [name.removeprefix(f"{tmp_path}/") for name in rows["video_id"]] == [
        *("long.mp4 1/3", "long.mp4 2/3", "long.mp4 3/3", "short.mp4")
    ]
    tiny_processor.fps = fps
    clips = VideoClipDataset(rows, tiny_processor, train=True)
    about = read_video(tmp_path / "long.mp4", [0])[1]
    for part, (first, last) in enumerate([(0, 32), (33, 65), (66, 99)]):
        drawn = [clips._draw_frames(about, np.random.default_rng(seed), [part, 3]) for seed in range(30)]
        assert first <= np.min(drawn) < first + 5 and last - 10 < np.max(drawn) <= last
    assert clips[3]["labels"] == -100
    with pytest.raises(ValueError, match="`window` is for training clips"):
        VideoClipDataset(rows, tiny_processor)


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


@pytest.mark.parametrize("text", ["string", "large_string"])
def test_a_column_of_paths_and_a_column_labels_are_read(motion_tree, tiny_processor, text):
    rows = load_video_folder(motion_tree)["train"]
    columns = {"video": [video["path"] for video in rows["video"]], "labels": rows["label"]}
    features = datasets.Features({"video": datasets.Value(text), "labels": rows.features["label"]})
    plain = datasets.Dataset.from_dict(columns, features=features)
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
        (lambda rows: datasets.DatasetDict(train=rows), "got DatasetDict; of a DatasetDict, choose a split"),
    ],
)
def test_rows_without_one_column_of_videos_and_one_of_labels_are_refused(motion_tree, tiny_processor, change, reason):
    rows = load_video_folder(motion_tree)["train"]
    with pytest.raises(ValueError, match=reason):
        VideoClipDataset(change(rows), tiny_processor)


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
