import pytest
import torch
from small_trainings import RandomClips, arguments
from torch.nn import functional as F
from transformers import VideoMAEConfig, VideoMAEForVideoClassification

from hf_dvflnet import (
    DistillationConfig,
    DistillationTrainer,
    VideoClassificationTrainer,
    VideoFocalNetForVideoClassification,
    VideoTrainingArguments,
)
from hf_dvflnet.training.losses import as_probabilities, soft_loss


LOGITS = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
IDS = torch.tensor([0, 2, 1, 0])


# the arithmetic


def test_smoothed_ids_and_their_probabilities_have_one_loss():
    smoothed = 0.7 * F.one_hot(IDS, 3) + 0.1
    expected = -(smoothed * LOGITS.log_softmax(-1)).sum(-1).mean()
    kind = "single_label_classification"
    torch.testing.assert_close(soft_loss(LOGITS, IDS, kind, 0.3), expected)
    torch.testing.assert_close(soft_loss(LOGITS, F.one_hot(IDS, 3).float(), kind, 0.3), expected)
    torch.testing.assert_close(soft_loss(LOGITS, smoothed, kind), expected)


def test_clips_without_a_label_are_left_out_of_the_mean():
    kind, unlabelled = "single_label_classification", torch.tensor([0, -100, -100, 0])
    expected = soft_loss(LOGITS[[0, 3]], IDS[[0, 3]], kind, 0.1)
    torch.testing.assert_close(soft_loss(LOGITS, unlabelled, kind, 0.1), expected)
    assert soft_loss(LOGITS, torch.full((4,), -100), kind, 0.1) == 0


def test_the_loss_is_computed_in_float32():
    kind = "single_label_classification"
    assert soft_loss(LOGITS.bfloat16(), IDS, kind) == soft_loss(LOGITS.bfloat16().float(), IDS, kind)


def test_probabilities_of_ids_leave_clips_without_a_label_at_zero():
    assert as_probabilities(torch.tensor([1, -100]), 3).tolist() == [[0, 1, 0], [0, 0, 0]]


# what the trainers make of it, for any model


def video_mae(**changes) -> VideoMAEForVideoClassification:
    torch.manual_seed(0)
    sizes = {"image_size": 32, "patch_size": 16, "num_frames": 4, "tubelet_size": 2, "hidden_size": 16}
    depth = {"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "num_labels": 6}
    return VideoMAEForVideoClassification(VideoMAEConfig(**sizes, **depth, **changes))


def first_loss(folder, model, clips, **changes) -> float:
    args = VideoTrainingArguments(**arguments(folder, max_steps=1, logging_steps=1, **changes))
    trainer = VideoClassificationTrainer(model, args, train_dataset=clips)
    trainer.train()
    return next(entry["loss"] for entry in trainer.state.log_history if "loss" in entry)


@pytest.mark.parametrize("recipe", [{"label_smoothing_factor": 0.1}, {"mixup_alpha": 0.8}, {"soft": True}])
def test_a_model_of_transformers_gets_the_cross_entropy_of_soft_labels(tmp_path, recipe):
    soft = recipe.pop("soft", False)
    model = video_mae()
    # of 6 classes at random weights; the binary one is log 2
    assert first_loss(tmp_path, model, RandomClips(8, soft=soft), **recipe) == pytest.approx(1.79, abs=0.1)
    assert model.config.problem_type is None


def test_a_model_of_transformers_keeps_its_own_loss_of_several_labels(tmp_path):
    clips = RandomClips(8)
    clips.labels = F.one_hot(clips.labels, 6).float()
    loss = first_loss(tmp_path, video_mae(problem_type="multi_label_classification"), clips)
    assert loss == pytest.approx(0.69, abs=0.05)


def test_several_labels_are_mixed_as_several_labels(tmp_path):
    clips = RandomClips(8)
    clips.labels = F.one_hot(clips.labels, 6).float()
    model = video_mae(problem_type="multi_label_classification")
    loss = first_loss(tmp_path, model, clips, mixup_alpha=0.8)
    assert loss == pytest.approx(0.69, abs=0.05)


class NoLabels(RandomClips):
    def __getitem__(self, index):
        return {"pixel_values": self.clips[index]}


@pytest.mark.parametrize("recipe", [{}, {"mixup_alpha": 0.8}])
@pytest.mark.parametrize("clips", [RandomClips(8), NoLabels(8)], ids=["-100", "no labels"])
def test_clips_without_a_label_are_distilled_by_the_divergence_alone(tmp_path, tiny_config, clips, recipe):
    clips.labels = torch.full((8,), -100)
    args = DistillationConfig(**arguments(tmp_path, logging_steps=1, **recipe))
    student, teacher = (VideoFocalNetForVideoClassification(tiny_config) for _ in range(2))
    trainer = DistillationTrainer(student, args, teacher_model=teacher, train_dataset=clips)
    trainer.train()
    logged = next(entry for entry in trainer.state.log_history if "loss" in entry)
    assert logged["loss_ce"] == 0 and logged["loss"] == pytest.approx(0.2 * logged["loss_kl"], rel=1e-3)
