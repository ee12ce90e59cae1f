"""Heads of image networks, trained on features."""

import pytest
import torch
from transformers import AutoModel, ResNetConfig

from hf_dvflnet import FrameModelForVideoClassification, VideoClipDataset, load_video_folder
from hf_dvflnet.data.motion_videos import MOTIONS
from hf_dvflnet.training.frame_heads import FeatureClips, fit_head, train_head


@pytest.fixture
def teacher() -> FrameModelForVideoClassification:
    torch.manual_seed(0)
    body = AutoModel.from_config(ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1]))
    names = {"id2label": dict(enumerate(MOTIONS)), "label2id": {name: i for i, name in enumerate(MOTIONS)}}
    return FrameModelForVideoClassification.from_image_model(body, image_size=32, num_frames=4, **names)


@pytest.fixture
def rows(motion_tree):
    return load_video_folder(motion_tree)["train"]


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
    items = FeatureClips(teacher, clips)
    features, labels = (torch.stack([item[name] for item in items]) for name in ("features", "labels"))
    expected = fit_head(features, labels, len(MOTIONS), seed=3)
    assert torch.equal(teacher.classifier.weight, expected.weight)


def test_the_head_of_a_body_that_is_trained_is_refused(teacher, rows, tiny_processor):
    teacher.config.freeze_body = False
    with pytest.raises(ValueError, match="freeze_body=True"):
        train_head(teacher, VideoClipDataset(rows, tiny_processor))
