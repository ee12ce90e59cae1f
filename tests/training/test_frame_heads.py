"""Heads of image networks: trained on features, and out of fold for a teacher that knows its clips by heart."""

import json
import shutil

import datasets
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from small_trainings import labelled, new_model
from transformers import AutoModel, ResNetConfig

from hf_dvflnet import (
    ClipAugmentation,
    FrameModelForVideoClassification,
    TeacherCache,
    VideoClipDataset,
    cache_teacher,
    load_video_folder,
)
from hf_dvflnet.data.motion_videos import MOTIONS
from hf_dvflnet.training.frame_heads import fit_head, folds_of_groups, pooled_features, train_head


@pytest.fixture
def teacher() -> FrameModelForVideoClassification:
    torch.manual_seed(0)
    body = AutoModel.from_config(ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1]))
    names = {"id2label": dict(enumerate(MOTIONS)), "label2id": {name: i for i, name in enumerate(MOTIONS)}}
    return FrameModelForVideoClassification.from_image_model(body, image_size=32, num_frames=4, **names)


@pytest.fixture
def rows(motion_tree) -> datasets.Dataset:
    """Two clips of each class; the second of each and the first of the next class are of one group."""
    rows = load_video_folder(motion_tree)["train"]
    return rows.add_column("group", [f"title {(index + 1) // 2}" for index in range(len(rows))])


def clips_of(rows, processor) -> VideoClipDataset:
    return VideoClipDataset(rows, processor, train=True, seed=1, augmentation=ClipAugmentation())


def test_a_head_learns_what_can_be_told_apart():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(60) % 3
    features = torch.randn(60, 8, generator=generator) + 5 * torch.nn.functional.one_hot(labels, 8)
    head = fit_head(features, labels, 3)
    fresh = torch.randn(60, 8, generator=generator) + 5 * torch.nn.functional.one_hot(labels, 8)
    assert (head(fresh).argmax(-1) == labels).float().mean() > 0.9


def test_a_head_depends_on_its_seed_alone():
    features, labels = torch.randn(20, 8), torch.arange(20) % 3
    first = fit_head(features, labels, 3, seed=1, steps=5).weight
    state = torch.get_rng_state()
    assert torch.equal(fit_head(features, labels, 3, seed=1, steps=5).weight, first)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(fit_head(features, labels, 3, seed=2, steps=5).weight, first)


def test_a_trained_head_is_that_of_the_features(teacher, rows, tiny_processor):
    clips = VideoClipDataset(rows, tiny_processor)
    train_head(teacher, clips, seed=3)
    features, labels = pooled_features(teacher, clips)
    expected = fit_head(features, labels, len(MOTIONS), seed=3)
    assert torch.equal(teacher.classifier.weight, expected.weight)


def test_the_head_of_a_body_that_is_trained_is_refused(teacher, rows, tiny_processor):
    teacher.config.freeze_body = False
    with pytest.raises(ValueError, match="freeze_body=True"):
        train_head(teacher, VideoClipDataset(rows, tiny_processor))


def test_folds_are_of_equal_size_and_split_no_group():
    groups = [f"title {number}" for number in np.random.default_rng(0).integers(40, size=300)]
    folds = folds_of_groups(groups, 5)
    assert np.ptp(np.bincount(folds)) <= 5
    for group in set(groups):
        assert len({int(fold) for fold, name in zip(folds, groups, strict=True) if name == group}) == 1
    assert not torch.equal(folds, folds_of_groups(groups, 5, seed=1))


@pytest.mark.parametrize(
    "groups, folds, message",
    [(["a", None], 2, "each clip needs a group"), (["a", "a"], 2, "from 2 to the number of groups, 1, got 2")],
)
def test_folds_that_cannot_be_made_are_refused(groups, folds, message):
    with pytest.raises(ValueError, match=message):
        folds_of_groups(groups, folds)


def test_each_cached_answer_is_that_of_a_head_that_has_not_seen_the_group(teacher, rows, tiny_processor, tmp_path):
    clips = clips_of(rows, tiny_processor)
    cache_teacher(teacher, clips, tmp_path / "cache", views=2, folds=3, dtype="float32", batch_size=4)
    cache = TeacherCache(tmp_path / "cache")
    fold_of = folds_of_groups(rows["group"], 3, clips.seed)
    features, labels = pooled_features(teacher, clips)
    for index in (0, 1, 2, 9):
        fold = fold_of[index]
        seen = fold_of != fold
        head = fit_head(features[seen], labels[seen], len(MOTIONS), seed=clips.seed)
        for view in (0, 1):
            shown = teacher.eval().pooled_features(clips.draw(index, view)["pixel_values"][None])
            expected = head(shown)[0]
            found = cache.logits(rows[index]["video_id"], view, rows[index]["video_id"])
            torch.testing.assert_close(found, expected - expected.max(), rtol=1e-3, atol=1e-4)


def test_a_cache_out_of_fold_says_so_and_keeps_its_heads(teacher, rows, tiny_processor, tmp_path):
    clips = clips_of(rows, tiny_processor)
    cache_teacher(teacher, clips, tmp_path / "cache", views=1, folds=3)
    about = json.loads((tmp_path / "cache" / "teacher_cache.json").read_text())
    assert about["folds"] == 3 and len(about["heads"]) == 64
    assert len(load_file(tmp_path / "cache" / "heads.safetensors")) == 6
    table = datasets.Dataset.from_parquet(str(tmp_path / "cache" / "logits-00000.parquet"))
    folds = dict(zip(rows["video_id"], folds_of_groups(rows["group"], 3, clips.seed).tolist(), strict=True))
    assert dict(zip(table["shown"], table["fold"], strict=True)) == folds


def test_a_stopped_cache_out_of_fold_goes_on_with_the_same_heads(teacher, rows, tiny_processor, tmp_path, monkeypatch):
    clips = clips_of(rows, tiny_processor)
    cache_teacher(teacher, clips, tmp_path / "whole", views=1, folds=3)
    stopped = tmp_path / "stopped"
    shutil.copytree(tmp_path / "whole", stopped)
    (stopped / "logits-00000.parquet").unlink()
    monkeypatch.setattr("hf_dvflnet.training.frame_heads.fit_head", lambda *a, **k: pytest.fail("trained again"))
    cache_teacher(teacher, clips, stopped, views=1, folds=3)
    found, expected = (
        TeacherCache(folder).logits(rows[3]["video_id"], 0, rows[3]["video_id"])
        for folder in (stopped, tmp_path / "whole")
    )
    assert torch.equal(found, expected)


def test_other_folds_in_the_same_folder_are_refused(teacher, rows, tiny_processor, tmp_path):
    clips = clips_of(rows, tiny_processor)
    cache_teacher(teacher, clips, tmp_path / "cache", views=1, folds=3)
    with pytest.raises(ValueError, match=r"different settings \(folds\)"):
        cache_teacher(teacher, clips, tmp_path / "cache", views=1, folds=4)


def test_data_without_groups_are_refused(teacher, rows, tiny_processor, tmp_path):
    clips = clips_of(rows.remove_columns("group"), tiny_processor)
    with pytest.raises(ValueError, match="need a column `group` in the data"):
        cache_teacher(teacher, clips, tmp_path / "cache", views=1, folds=3)


def test_other_teachers_are_refused(tiny_config, rows, tiny_processor, tmp_path):

    other = new_model(labelled(tiny_config, list(MOTIONS)), 0)
    with pytest.raises(ValueError, match="need a FrameModelForVideoClassification .* got VideoFocalNet"):
        cache_teacher(other, clips_of(rows, tiny_processor), tmp_path / "cache", views=1, folds=3)
