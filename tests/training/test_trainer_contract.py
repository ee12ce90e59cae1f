"""What transformers' Trainer does, still done where the trainers of this package override it."""

import copy

import pytest
import torch
from small_trainings import RandomClips, arguments, new_model
from torch.nn import functional as F
from transformers import EvalPrediction, Trainer, TrainingArguments, VideoMAEConfig, VideoMAEForVideoClassification

from hf_dvflnet import (
    DistillationConfig,
    DistillationTrainer,
    VideoClassificationTrainer,
    VideoFocalNetForVideoClassification,
    VideoTrainingArguments,
)
from hf_dvflnet.training.metrics import METRICS


def make(kind: str, folder, model, clips, changes=None, **options):
    """A trainer of transformers or of this package, all with the same model, clips and arguments."""
    settings = arguments(folder, max_grad_norm=0.0, optim="sgd", learning_rate=0.1, **(changes or {}))
    if kind == "transformers":
        return Trainer(
            model, TrainingArguments(remove_unused_columns=False, **settings), train_dataset=clips, **options
        )
    if kind == "ours":
        return VideoClassificationTrainer(model, VideoTrainingArguments(**settings), train_dataset=clips, **options)
    teacher = copy.deepcopy(model)
    # with next to no divergence, distillation is plain training
    args = DistillationConfig(alpha=options.pop("alpha", 1e-12), **settings)
    return DistillationTrainer(model, args, teacher_model=teacher, train_dataset=clips, **options)


def weights_after(trainer) -> torch.Tensor:
    trainer.train()
    return torch.cat([parameter.detach().flatten() for parameter in trainer.model.parameters()])


WEIGHTS = torch.tensor([9.0, 1.0, 1.0, 1.0, 1.0, 0.5])


def weighted(outputs, labels, num_items_in_batch=None):
    """A loss as transformers' documentation has it: summed over the micro-batch, by the items of the whole step."""
    losses = F.cross_entropy(outputs.logits, labels, weight=WEIGHTS, reduction="sum")
    return losses / (len(labels) if num_items_in_batch is None else num_items_in_batch)


@pytest.mark.parametrize("accumulated", [1, 4])
@pytest.mark.parametrize("kind", ["ours", "distillation"])
def test_a_loss_function_trains_as_in_transformers(tmp_path, tiny_config, kind, accumulated):
    changes = {"max_steps": 2, "per_device_train_batch_size": 8 // accumulated, "seed": 3}
    changes["gradient_accumulation_steps"] = accumulated
    found = [
        weights_after(
            make(which, tmp_path, new_model(tiny_config, 0), RandomClips(16), changes, compute_loss_func=weighted)
        )
        for which in ("transformers", kind)
    ]
    start = torch.cat([parameter.flatten() for parameter in new_model(tiny_config, 0).parameters()])
    assert (found[0] - start).abs().max() > 1e-2
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-6)


def test_a_loss_function_takes_the_place_of_the_cross_entropy_whatever_is_accumulated(tmp_path, tiny_config):
    found = []
    for batch, accumulated in ((8, 1), (2, 4)):
        model = new_model(tiny_config, 0)
        changes = {"max_steps": 1, "per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulated}
        trainer = make(
            *("distillation", tmp_path, model, RandomClips(8), {**changes, "logging_steps": 1}),
            compute_loss_func=weighted,
            alpha=0.5,
        )
        torch.nn.init.normal_(trainer.teacher_model.classifier.weight, std=1.0)
        found.append((weights_after(trainer), trainer.state.log_history[-2]))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-4, atol=1e-6)
    for name in ("loss", "loss_kl", "loss_ce", "agreement"):
        assert found[0][1][name] == pytest.approx(found[1][1][name], rel=1e-3), name


@pytest.mark.parametrize("changes", [{"gradient_accumulation_steps": 2}, {"label_smoothing_factor": 0.2}])
@pytest.mark.parametrize("kind", ["ours", "distillation"])
def test_training_gives_the_weights_of_transformers(tmp_path, tiny_config, kind, changes):
    found = [
        weights_after(make(which, tmp_path, new_model(tiny_config, 0), RandomClips(24), changes))
        for which in ("transformers", kind)
    ]
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", ["ours", "distillation"])
def test_a_model_of_transformers_learns_the_same_however_a_batch_is_accumulated(tmp_path, kind):
    sizes = {"image_size": 32, "num_frames": 4, "hidden_size": 16, "intermediate_size": 16, "num_labels": 6}
    found = []
    for batch, accumulated in ((8, 1), (2, 4)):
        torch.manual_seed(0)
        config = VideoMAEConfig(num_hidden_layers=1, num_attention_heads=2, hidden_dropout_prob=0.0, **sizes)
        changes = {"max_steps": 1, "per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulated}
        found.append(
            weights_after(make(kind, tmp_path, VideoMAEForVideoClassification(config), RandomClips(8), changes))
        )
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-6)


def test_metrics_of_the_caller_replace_ours(tmp_path, tiny_config):
    args = VideoTrainingArguments(**arguments(tmp_path))
    trainer = VideoClassificationTrainer(new_model(tiny_config, 0), args, compute_metrics=lambda prediction: {"a": 1})
    metrics = trainer.evaluate(RandomClips(4))
    assert metrics["eval_a"] == 1 and "eval_top1_accuracy" not in metrics


PROBLEMS = {
    "single_label_classification": {"eval_top1_accuracy", "eval_top5_accuracy", "eval_ece"},
    "multi_label_classification": {"eval_mean_average_precision", "eval_micro_f1"},
    "regression": {"eval_mean_absolute_error"},
}


@pytest.mark.parametrize("kind", PROBLEMS)
def test_each_problem_type_is_evaluated_by_metrics_that_fit_it(tmp_path, tiny_config, kind):
    model = new_model(tiny_config, 0)
    model.config.problem_type = kind
    clips = RandomClips(5)
    if kind != "single_label_classification":
        clips.labels = torch.eye(6)[clips.labels]
    args = arguments(tmp_path, per_device_eval_batch_size=2)
    trainer = VideoClassificationTrainer(model, VideoTrainingArguments(**args), eval_dataset=clips)
    metrics = trainer.evaluate()
    told = {"loss", "runtime", "samples_per_second", "steps_per_second", "model_preparation_time"}
    assert set(metrics) - {f"eval_{name}" for name in told} - {"epoch"} == PROBLEMS[kind]
    found = trainer.predict(clips)
    expected = METRICS[kind](EvalPrediction(found.predictions, found.label_ids))
    assert {name: metrics[f"eval_{name}"] for name in expected} == pytest.approx(expected)


class Hungry(VideoFocalNetForVideoClassification):
    """Runs out of memory with more than two clips."""

    def forward(self, pixel_values, **kwargs):
        if self.training and len(pixel_values) > 2:
            raise RuntimeError("CUDA out of memory. Tried to allocate 1 GiB")
        return super().forward(pixel_values, **kwargs)


def rates_and_losses(trainer) -> list[tuple[float, float]]:
    history = [entry for entry in trainer.state.log_history if "loss" in entry]
    return [(entry["learning_rate"], entry["loss"]) for entry in history]


@pytest.mark.parametrize("schedule", [{"lr_scheduler_type": "linear"}, {"published_schedule": True}])
def test_a_batch_that_is_found_is_trained_as_one_that_is_asked_for(tmp_path, tiny_config, schedule):
    found = {}
    for name, changes in (("asked", {"batch": 2}), ("found", {"batch": 8, "auto_find_batch_size": True})):
        torch.manual_seed(0)
        options = {"num_train_epochs": 1, "max_steps": -1, "logging_steps": 1, "reference_batch_size": 16}
        options |= {"per_device_train_batch_size": changes.pop("batch"), **schedule, **changes}
        args = VideoTrainingArguments(**arguments(tmp_path / name, **options, save_strategy="epoch"))
        found[name] = VideoClassificationTrainer(Hungry(tiny_config), args, train_dataset=RandomClips(16))
        found[name].train()
    rates, expected = (rates_and_losses(found[name]) for name in ("found", "asked"))
    assert rates[0][0] == pytest.approx(1e-3 * 2 / 16)
    assert [rate for rate, _ in rates] == pytest.approx([rate for rate, _ in expected])
    # and a run of this batch goes on from its checkpoint
    found["asked"].train(resume_from_checkpoint=str(tmp_path / "found" / "checkpoint-8"))


class NoLabels(RandomClips):
    def __getitem__(self, index):
        return {"pixel_values": self.clips[index]}


@pytest.mark.parametrize("kind", ["ours", "distillation"])
@pytest.mark.parametrize("labels", [[-100] * 4 + [3, -100, 4, 5, 1], [0, -100, -100, -100, 2, 3, 4, 5, -100]])
def test_the_evaluation_loss_is_the_mean_over_the_clips_with_a_label(tmp_path, tiny_config, kind, labels):
    clips = RandomClips(9)
    clips.labels = torch.tensor(labels)
    options = {"per_device_eval_batch_size": 4}
    trainer = make(kind, tmp_path, new_model(tiny_config, 0), RandomClips(8), options, eval_dataset=clips)
    with torch.no_grad():
        logits = trainer.model.eval()(clips.clips).logits
    expected = torch.nn.functional.cross_entropy(logits, clips.labels).item()
    assert trainer.evaluate()["eval_loss"] == pytest.approx(expected, rel=1e-5)
    assert trainer.predict(clips).metrics["test_loss"] == pytest.approx(expected, rel=1e-5)


def test_plain_training_arguments_keep_their_values_and_get_our_defaults(tiny_config, tmp_path):
    arguments = TrainingArguments(str(tmp_path), learning_rate=0.3, max_steps=2, report_to=[], use_cpu=True)
    trainer = VideoClassificationTrainer(new_model(tiny_config, 0), arguments)
    assert (trainer.args.learning_rate, trainer.args.max_steps, trainer.args.output_dir) == (0.3, 2, str(tmp_path))
    assert not trainer.args.remove_unused_columns and trainer.args.max_broken_share == 0.01
