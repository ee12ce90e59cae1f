"""A video classifier made of an image network, as model and as teacher of students of another input size."""

import copy

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from small_trainings import NAMES, arguments, labelled, new_model
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForVideoClassification,
    Dinov2Config,
    FocalNetConfig,
    ResNetConfig,
    pipeline,
)

from hf_dvflnet import (
    ClipAugmentation,
    DistillationConfig,
    DistillationTrainer,
    FrameModelForVideoClassification,
    VideoClipDataset,
    VideoFocalNetImageProcessor,
    VideoFocalNetVideoProcessor,
    cache_teacher,
    evaluate_model,
    load_video_folder,
)
from hf_dvflnet.data.motion_videos import MOTIONS
from hf_dvflnet.hub.loading import load_teacher
from hf_dvflnet.inference.evaluation import report_predictions
from hf_dvflnet.modeling_frame_model import FrameModelConfig
from hf_dvflnet.training.teacher_cache import TeacherCache


BODIES = {
    "focalnet": FocalNetConfig(
        image_size=32, embed_dim=8, depths=[1, 1], hidden_sizes=[8, 16], focal_levels=[1, 1], focal_windows=[3, 3]
    ),
    "resnet": ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic"),
    "dinov2": Dinov2Config(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=14, mlp_ratio=2
    ),
}
SIDE = 56


def classes(names: list[str]) -> dict:
    return {"id2label": dict(enumerate(names)), "label2id": {name: index for index, name in enumerate(names)}}


def frame_model(kind: str = "resnet", names: list[str] = NAMES, **fields) -> FrameModelForVideoClassification:
    torch.manual_seed(0)
    body = AutoModel.from_config(BODIES[kind])
    return FrameModelForVideoClassification.from_image_model(
        body, **{"image_size": SIDE, "num_frames": 4, **classes(names), **fields}
    ).eval()


@pytest.fixture
def clips() -> torch.Tensor:
    return torch.randn(2, 4, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def processor() -> VideoFocalNetVideoProcessor:
    return VideoFocalNetVideoProcessor(
        num_frames=4,
        size={"shortest_edge": 64},
        crop_size={"height": SIDE, "width": SIDE},
        image_mean=[0.5, 0.5, 0.5],
        image_std=[0.5, 0.5, 0.5],
    )


@pytest.fixture
def folder(tmp_path, processor):
    path = tmp_path / "teacher"
    frame_model(names=list(MOTIONS)).save_pretrained(path)
    processor.save_pretrained(path)
    VideoFocalNetImageProcessor(size=processor.size, crop_size=processor.crop_size).save_pretrained(path)
    return path


@pytest.mark.parametrize(("kind", "trend"), [*((kind, False) for kind in BODIES), ("resnet", True)])
def test_a_saved_model_answers_as_before_through_the_auto_classes(kind, trend, clips, tmp_path):
    model = frame_model(kind, frame_trend=trend)
    model.save_pretrained(tmp_path)
    loaded = AutoModelForVideoClassification.from_pretrained(tmp_path)
    assert type(loaded) is FrameModelForVideoClassification
    assert AutoConfig.from_pretrained(tmp_path).body_config.model_type == kind
    assert torch.equal(loaded(clips).logits, model(clips).logits)


@pytest.mark.parametrize("kind", BODIES)
def test_what_the_head_is_given_is_the_mean_and_the_mean_difference_of_the_frames(kind, clips):
    model = frame_model(kind)
    pooled = model(clips).pooler_output
    features = torch.stack([model.body(clip).pooler_output.flatten(1) for clip in clips])
    torch.testing.assert_close(pooled[:, :16], features.mean(1))
    torch.testing.assert_close(pooled[:, 16:], (features[:, 1:] - features[:, :-1]).abs().mean(1))


def test_the_trend_alone_tells_a_clip_from_the_same_played_backwards(clips):
    model = frame_model(frame_trend=True)
    forwards, backwards = model(clips).pooler_output, model(clips.flip(1)).pooler_output
    torch.testing.assert_close(backwards[:, :32], forwards[:, :32])
    torch.testing.assert_close(backwards[:, 32:], -forwards[:, 32:])
    features = torch.stack([model.body(clip).pooler_output.flatten(1) for clip in clips])
    trend = (features[:, 3] - features[:, 0] + (features[:, 2] - features[:, 1]) / 3) / 2  # of 4 frames
    torch.testing.assert_close(forwards[:, 32:], trend)


def test_several_views_are_averaged(clips):
    model = frame_model()
    views = torch.stack([clips, clips.flip(-1)], dim=1)
    probabilities = torch.stack([model(clips).logits.softmax(-1), model(clips.flip(-1)).logits.softmax(-1)]).mean(0)
    torch.testing.assert_close(model(views).logits.softmax(-1), probabilities)


def test_only_the_head_is_trained_also_after_loading(clips, tmp_path):
    model = frame_model()
    model.save_pretrained(tmp_path)
    for one in (model, FrameModelForVideoClassification.from_pretrained(tmp_path)):
        one.train()
        assert not one.body.training
        one(clips, labels=torch.tensor([0, 1])).loss.backward()
        trained = {name for name, weight in one.named_parameters() if weight.grad is not None}
        assert trained == {"classifier.weight", "classifier.bias"}


def test_the_whole_network_is_trained_on_request(clips):
    model = frame_model(freeze_body=False).train()
    model(clips, labels=torch.tensor([0, 1])).loss.backward()
    assert model.body.training and all(weight.grad is not None for weight in model.parameters())


def test_a_bare_module_works_and_is_not_saved(clips, tmp_path):
    body = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU())
    model = FrameModelForVideoClassification.from_image_model(body, num_labels=6, image_size=SIDE)
    assert model(clips).logits.shape == (2, 6) and model.config.feature_size == 8
    with pytest.raises(ValueError, match="not written, as Sequential is no model of transformers"):
        model.save_pretrained(tmp_path / "model")
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"num_frames": 1}, "num_frames=1 must be at least 2"),
        ({"head_dropout": 1.0}, "head_dropout=1.0 must be in"),
        ({"body_config": {"model_type": "no_such"}}, "a model_type that transformers knows, got 'no_such'"),
    ],
)
def test_wrong_configs_are_refused(fields, message):
    with pytest.raises((ValueError, StrictDataclassError), match=message):
        FrameModelConfig(**fields)


def test_a_single_frame_is_refused(clips):
    with pytest.raises(ValueError, match="must have at least 2 frames"):
        frame_model()(clips[:, :1])


def measured(folder, videos) -> dict:
    predictions = evaluate_model(str(folder), "folder", str(videos), folder.parent / "predictions", num_workers=0)
    return report_predictions(predictions, folder.parent / "report")


def test_pipeline_and_evaluation_take_it(folder, motion_tree):
    clip = next((motion_tree / "test").glob("*/*.mp4"))
    assert pipeline("video-classification", model=str(folder))(str(clip))[0]["label"] in MOTIONS
    assert measured(folder, motion_tree)["clips"] == len(MOTIONS)


def training_clips(motion_tree, processor) -> VideoClipDataset:
    rows = load_video_folder(motion_tree)["train"]
    return VideoClipDataset(rows, processor, train=True, seed=3, augmentation=ClipAugmentation())


@pytest.fixture
def student(tiny_config):
    return new_model(labelled(tiny_config, list(MOTIONS)), seed=0)


def distillation(student, folder, clips, processor, out, **changes) -> DistillationTrainer:
    args = DistillationConfig(**{**arguments(out), "alpha": 0.5, "temperature": 2.0, **changes})
    asked = {} if "teacher_cache" in changes else {"teacher_model": str(folder)}
    return DistillationTrainer(student, args, train_dataset=clips, processing_class=processor, **asked)


def test_the_teacher_gets_the_bits_that_it_would_get_alone(
    student, folder, motion_tree, processor, tiny_processor, tmp_path
):
    alone = training_clips(motion_tree, processor)
    both = training_clips(motion_tree, tiny_processor)
    trainer = distillation(student, folder, both, tiny_processor, tmp_path / "run")
    for epoch in (0, 1):
        for index in (0, 7):
            item = trainer.train_dataset.draw(index, epoch)
            assert item["pixel_values"].shape[-1] == 32
            assert torch.equal(item["teacher_pixel_values"], alone.draw(index, epoch)["pixel_values"])


def test_training_with_a_teacher_of_another_size_and_with_its_cache_is_the_same(
    student, folder, motion_tree, processor, tiny_processor, tmp_path
):
    teacher = load_teacher(str(folder))
    cache_teacher(
        teacher, training_clips(motion_tree, processor), tmp_path / "cache", views=1, dtype="float32", batch_size=4
    )
    assert TeacherCache(tmp_path / "cache").views == 1
    weights = []
    for changes in ({}, {"teacher_cache": str(tmp_path / "cache")}):
        clips = training_clips(motion_tree, tiny_processor)
        clips.teacher_processor = processor
        trainer = distillation(
            copy.deepcopy(student), folder, clips, tiny_processor, tmp_path / "run", **changes, max_steps=2
        )
        trainer.train()
        weights.append(trainer.model.classifier.weight)
    torch.testing.assert_close(*weights, rtol=1e-4, atol=1e-6)


def test_mixed_clips_have_the_mixed_answers_of_a_teacher_of_another_size(
    student, folder, motion_tree, processor, tiny_processor, tmp_path
):
    clips = training_clips(motion_tree, tiny_processor)
    trainer = distillation(student, folder, clips, tiny_processor, tmp_path / "run", mixup_alpha=0.8, max_steps=1)
    shown = torch.stack([trainer.train_dataset.draw(index, 0)["teacher_pixel_values"] for index in range(2)])
    shares = torch.tensor([[0.75, 0.25], [0.25, 0.75]])
    inputs = {"labels": torch.tensor([0, 1]), "teacher_pixel_values": shown}
    expected = shares @ (trainer.teacher_model(shown).logits / 2.0).softmax(-1)
    trainer.mix_targets(inputs, shares, len(MOTIONS))
    torch.testing.assert_close((inputs["teacher_logits"] / 2.0).softmax(-1), expected)
    trainer.train()
