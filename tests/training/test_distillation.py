import copy

import pytest
import torch
from small_trainings import NAMES, RandomClips, arguments, logged, new_model

from hf_dvflnet import (
    DistillationConfig,
    DistillationTrainer,
    VideoFocalNetForVideoClassification,
    VideoFocalNetVideoProcessor,
)
from hf_dvflnet.training.distillation import clips_of_its_own
from hf_dvflnet.training.losses import DIVERGENCES, divergence_of, forward_kl


@pytest.fixture
def teacher(config) -> VideoFocalNetForVideoClassification:
    """Far from uniform, so that what it says cannot be taken for noise."""
    model = new_model(config, seed=7)
    torch.nn.init.normal_(model.classifier.weight, std=1.0)
    return model


def distil(folder, config, teacher, dataset, **changes) -> DistillationTrainer:
    args = DistillationConfig(**arguments(folder, **changes))
    trainer = DistillationTrainer(
        new_model(config, seed=0), args, teacher_model=teacher, train_dataset=dataset, eval_dataset=RandomClips(13)
    )
    trainer.train()
    return trainer


# the trainer


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_the_loss_is_the_weighted_sum_of_both_parts(tmp_path, config, teacher, divergence):
    args = DistillationConfig(**arguments(tmp_path, alpha=0.3, temperature=4.0, divergence=divergence, beta=0.1))
    trainer = DistillationTrainer(new_model(config, seed=0), args, teacher_model=teacher)
    batch = RandomClips(4).batch()
    student = trainer.model.train()
    with torch.no_grad():
        ours, theirs = student(batch["pixel_values"]).logits, teacher(batch["pixel_values"]).logits
        apart = divergence_of(divergence, ours, theirs, 4.0, 0.1)
        expected = 0.3 * apart + 0.7 * torch.nn.functional.cross_entropy(ours, batch["labels"])
        torch.testing.assert_close(trainer.compute_loss(student, batch), expected)
    assert set(batch) == {"pixel_values", "labels"}  # the caller's batch is left as it is


def test_a_subclass_can_try_another_divergence(tmp_path, config, teacher):
    class Disagreement(DistillationTrainer):
        def compute_divergence(self, student_logits, teacher_logits):
            return (student_logits - teacher_logits).abs().mean()

    args = DistillationConfig(**arguments(tmp_path, alpha=1.0))
    trainer = Disagreement(new_model(config, seed=0), args, teacher_model=teacher)
    batch = RandomClips(4).batch()
    with torch.no_grad():
        loss, outputs = trainer.compute_loss(trainer.model.train(), batch, return_outputs=True)
        torch.testing.assert_close(loss, (outputs.logits - teacher(batch["pixel_values"]).logits).abs().mean())


def test_the_student_learns_and_the_teacher_stays(tmp_path, config, teacher):
    before = copy.deepcopy(teacher.state_dict())
    student = copy.deepcopy(new_model(config, seed=0).state_dict())
    trainer = distil(tmp_path, config, teacher, RandomClips(24), save_strategy="steps", save_steps=3)
    assert all(torch.equal(weight, before[name]) for name, weight in trainer.teacher_model.state_dict().items())
    weights = {name: weight for name, weight in trainer.model.state_dict().items() if weight.ndim > 1}
    unchanged = [name for name, weight in weights.items() if torch.equal(weight, student[name])]
    assert unchanged == []
    assert not trainer.teacher_model.training
    assert not any(parameter.requires_grad for parameter in trainer.teacher_model.parameters())
    optimised = {id(parameter) for group in trainer.optimizer.param_groups for parameter in group["params"]}
    assert optimised == {id(parameter) for parameter in trainer.model.parameters()}
    saved = VideoFocalNetForVideoClassification.from_pretrained(tmp_path / "checkpoint-3").state_dict()
    assert all(torch.equal(weight, saved[name]) for name, weight in trainer.model.state_dict().items())


def test_logged_parts_are_means_over_all_micro_batches_since_the_last_log(tmp_path, config, teacher):
    trainer = distil(
        tmp_path,
        config,
        teacher,
        RandomClips(16),
        max_steps=2,
        per_device_train_batch_size=4,
        gradient_accumulation_steps=2,
        logging_steps=2,
        learning_rate=0.0,
        alpha=0.25,
    )
    logged = next(entry for entry in trainer.state.log_history if "loss" in entry)
    # the learning rate is 0: all 16 clips are seen once by the initial student
    clips = RandomClips(16)
    with torch.no_grad():
        ours, theirs = trainer.model(clips.clips).logits, teacher(clips.clips).logits
    assert logged["loss_kl"] == pytest.approx(forward_kl(ours, theirs, 10.0).item(), rel=1e-3)
    assert logged["loss_ce"] == pytest.approx(torch.nn.functional.cross_entropy(ours, clips.labels).item(), rel=1e-3)
    assert logged["agreement"] == pytest.approx((ours.argmax(-1) == theirs.argmax(-1)).float().mean().item())
    assert logged["loss"] == pytest.approx(0.25 * logged["loss_kl"] + 0.75 * logged["loss_ce"], rel=1e-3)


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("accumulated", [1, 4])
def test_gradients_and_evaluation_loss_are_those_of_the_formula(tmp_path, config, teacher, batch, accumulated):
    clips, evaluated = RandomClips(batch * accumulated), RandomClips(13)
    for each in (clips, evaluated):
        each.labels[1::3] = -100
    changes = {"max_steps": 1, "optim": "sgd", "learning_rate": 1.0, "lr_scheduler_type": "constant"}
    changes |= {"max_grad_norm": 0.0, "alpha": 0.3, "temperature": 4.0, "train_sampling_strategy": "sequential"}
    changes |= {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulated}
    trainer = distil(tmp_path, config, teacher, clips, **changes)

    def cross_entropy(logits, labels):
        probabilities = logits.exp() / logits.exp().sum(-1, keepdim=True)
        right = [row[label] for row, label in zip(probabilities, labels.tolist(), strict=True) if label != -100]
        return -torch.stack(right).log().mean() if right else 0.0

    student = new_model(config, seed=0)
    loss = 0.0
    for some, labels in zip(clips.clips.split(batch), clips.labels.split(batch), strict=True):
        ours, theirs = student(some).logits, teacher(some).logits
        q, p = ((logits / 4).exp() / (logits / 4).exp().sum(-1, keepdim=True) for logits in (ours, theirs))
        divergence = 16 * (p * (p / q).log()).sum(-1).mean()
        loss = loss + (0.3 * divergence + 0.7 * cross_entropy(ours, labels)) / accumulated
    loss.backward()
    trained = dict(trainer.model.named_parameters())
    for name, weight in student.named_parameters():
        torch.testing.assert_close(weight - trained[name], weight.grad, rtol=1e-3, atol=1e-6, msg=name)
    with torch.no_grad():
        expected = cross_entropy(trainer.model.eval()(evaluated.clips).logits, evaluated.labels).item()
    assert trainer.evaluate(evaluated)["eval_loss"] == pytest.approx(expected, rel=1e-5)


def test_a_teacher_is_loaded_from_its_folder_in_the_dtype_asked(tmp_path, config, teacher, tiny_processor):
    teacher.save_pretrained(tmp_path / "teacher")
    tiny_processor.save_pretrained(tmp_path / "teacher")
    args = DistillationConfig(
        **arguments(tmp_path, teacher_model_name_or_path=str(tmp_path / "teacher"), teacher_dtype="bfloat16")
    )
    trainer = DistillationTrainer(new_model(config, 0), args, processing_class=tiny_processor)
    assert {parameter.dtype for parameter in trainer.teacher_model.parameters()} == {torch.bfloat16}
    logits = trainer.teacher_logits(RandomClips(2).clips)
    assert logits.dtype == torch.float32
    with torch.no_grad():
        torch.testing.assert_close(logits, teacher.eval()(RandomClips(2).clips).logits, rtol=0.1, atol=0.3)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"num_frames": 8}, "processor.num_frames: 8 and 4"),
        ({"image_mean": [0.5, 0.5, 0.5]}, r"processor.image_mean: \[0.5, 0.5, 0.5\] and \[0.485"),
        ({"image_std": [0.5, 0.5, 0.5]}, "processor.image_std"),
        ({"size": {"shortest_edge": 64}}, "processor.size: {'shortest_edge': 64} and {'shortest_edge': 36}"),
    ],
)
def test_a_teacher_that_was_shown_other_clips_is_refused(config, teacher, tiny_processor, changes, message):
    settings = {"num_frames": 4, "size": tiny_processor.size, "crop_size": tiny_processor.crop_size}
    other = VideoFocalNetVideoProcessor(**{**settings, **changes})
    clips = RandomClips(2)
    assert not clips_of_its_own(teacher, tiny_processor, teacher, VideoFocalNetVideoProcessor(**settings), clips)
    with pytest.raises(ValueError, match=message):
        clips_of_its_own(new_model(config, 0), tiny_processor, teacher, other, clips)


def test_any_video_classifier_of_transformers_can_teach(tmp_path, config):
    from transformers import VideoMAEConfig, VideoMAEForVideoClassification

    videomae = VideoMAEConfig(
        image_size=32,
        num_frames=4,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        id2label=dict(enumerate(NAMES)),
        label2id={name: index for index, name in enumerate(NAMES)},
    )
    trainer = distil(
        tmp_path, config, VideoMAEForVideoClassification(videomae), RandomClips(8), max_steps=1, logging_steps=1
    )
    assert logged(trainer, "loss_kl")[0] > 0


def test_a_teacher_at_chance_is_warned_about(tmp_path, config, logs):
    distil(tmp_path, config, new_model(config, seed=3), RandomClips(8), max_steps=1)
    assert "no better than chance (16.7%)" in logs.text


def test_the_teachers_accuracy_is_logged_when_training_starts(tmp_path, config, teacher):
    trainer = distil(tmp_path, config, teacher, RandomClips(8), max_steps=1)
    clips = RandomClips(13)
    with torch.no_grad():
        right = (teacher(clips.clips).logits.argmax(-1) == clips.labels).float().mean().item()
    first = trainer.state.log_history[0]
    assert first["teacher_clips"] == 13 and first["teacher_top1_accuracy"] == pytest.approx(right)


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"alpha": 1.5}, "alpha must be in"),
        ({"temperature": 0.0}, "temperature must be above 0"),
        ({"divergence": "kl"}, "divergence must be one of forward_kl, reverse_kl, jensen_shannon, mse, got 'kl'"),
        ({"beta": 1.0}, "beta must be above 0 and below 1, got 1.0"),
        ({"teacher_dtype": "int8"}, "teacher_dtype"),
    ],
)
def test_settings_out_of_range_are_refused(tmp_path, wrong, message):
    with pytest.raises(ValueError, match=message):
        DistillationConfig(output_dir=str(tmp_path), **wrong)


def test_training_without_a_teacher_is_refused(tmp_path, config):
    with pytest.raises(ValueError, match="no teacher is given"):
        DistillationTrainer(new_model(config, 0), DistillationConfig(**arguments(tmp_path)))
