"""`VideoClassificationTrainer`: the recipe, its options, and what it tells the dataset."""

import json
import math
import os
import subprocess
import sys
import textwrap

import pytest
import torch
from places import HELPERS
from small_trainings import RandomClips, arguments, labelled, logged, new_model

from hf_dvflnet import (
    VideoClassificationTrainer,
    VideoClipDataset,
    VideoFocalNetConfig,
    VideoFocalNetForVideoClassification,
    VideoTrainingArguments,
    load_video_folder,
)
from hf_dvflnet.data.augmentation import mix_clips
from hf_dvflnet.training.arguments import published_schedule


def trained(folder, config, dataset, resume=None, **changes) -> VideoClassificationTrainer:
    args = VideoTrainingArguments(**arguments(folder, **changes))
    trainer = VideoClassificationTrainer(
        new_model(config, 0), args, train_dataset=dataset, eval_dataset=RandomClips(13)
    )
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def test_weight_decay_leaves_out_every_one_dimensional_parameter(tmp_path, tiny_config):
    config = VideoFocalNetConfig(**{**tiny_config.to_dict(), "use_layerscale": True})
    args = VideoTrainingArguments(**arguments(tmp_path, weight_decay=0.1))
    trainer = VideoClassificationTrainer(VideoFocalNetForVideoClassification(config), args)
    decayed, undecayed = trainer.create_optimizer().param_groups
    assert decayed["weight_decay"] == 0.1 and all(parameter.ndim > 1 for parameter in decayed["params"])
    assert undecayed["weight_decay"] == 0 and all(parameter.ndim == 1 for parameter in undecayed["params"])
    assert len(decayed["params"]) + len(undecayed["params"]) == len(list(trainer.model.parameters()))


@pytest.mark.parametrize("soft", [False, True])
def test_ids_and_probabilities_both_train(tmp_path, tiny_config, soft):
    losses = logged(trained(tmp_path, tiny_config, RandomClips(24, soft=soft), max_steps=30, logging_steps=10), "loss")
    assert losses[-1] < losses[0] - 0.1


def test_label_smoothing_applies_to_training_alone(tmp_path, tiny_config):
    trainer = trained(tmp_path, tiny_config, RandomClips(4), max_steps=1, label_smoothing_factor=0.3)
    batch = RandomClips(4).batch()
    with torch.no_grad():
        model = trainer.model.train()
        log_probs = model(batch["pixel_values"]).logits.log_softmax(-1)
        smoothed = 0.7 * torch.nn.functional.one_hot(batch["labels"], 6) + 0.05
        torch.testing.assert_close(trainer.compute_loss(model, batch), -(smoothed * log_probs).sum(-1).mean())
        torch.testing.assert_close(
            trainer.compute_loss(model.eval(), batch), torch.nn.functional.cross_entropy(log_probs, batch["labels"])
        )


@pytest.mark.parametrize("batch", [4, 64])
def test_evaluation_counts_every_clip_of_an_uneven_last_batch(tmp_path, tiny_config, batch):
    options = {"per_device_eval_batch_size": batch, "dataloader_drop_last": True}
    trainer = trained(tmp_path, tiny_config, RandomClips(8), **options)
    assert trainer.num_examples(trainer.get_eval_dataloader()) == sum(
        len(inputs["labels"]) for inputs in trainer.get_eval_dataloader()
    )
    output = trainer.predict(RandomClips(13))
    right = (output.predictions.argmax(-1) == RandomClips(13).labels.numpy()).mean()
    assert output.predictions.shape == (13, 6) and output.metrics["test_top1_accuracy"] == pytest.approx(right)


def test_a_batch_that_the_clips_do_not_fill_is_refused(tmp_path, tiny_config):
    options = {"per_device_train_batch_size": 16, "dataloader_drop_last": True}
    with pytest.raises(ValueError, match="8 training clips do not fill a batch of 16 for each of 1 processes; choose"):
        trained(tmp_path, tiny_config, RandomClips(8), **options)


def test_a_model_of_one_output_needs_a_problem_type(tmp_path, tiny_config):
    config = VideoFocalNetConfig(embed_dim=8, image_size=32, num_frames=4, num_labels=1)
    args = VideoTrainingArguments(**arguments(tmp_path))
    with pytest.raises(ValueError, match='num_labels=1.*problem_type to "regression" for a value'):
        VideoClassificationTrainer(new_model(config, 0), args)
    config.problem_type = "regression"
    assert VideoClassificationTrainer(new_model(config, 0), args).kind == "regression"


def test_the_dataset_is_told_each_epoch(tmp_path, tiny_config):
    class Listening(RandomClips):
        epochs: list[int] = []

        def set_epoch(self, epoch):
            self.epochs.append(epoch)

    trained(tmp_path, tiny_config, Listening(8), max_steps=-1, num_train_epochs=3)
    assert list(dict.fromkeys(Listening.epochs)) == [0, 1, 2]


TWO_PROCESSES = """
import json, sys
sys.path.insert(0, sys.argv[1])
import torch
from small_trainings import RandomClips, arguments
from hf_dvflnet import *
torch.manual_seed(0)
model = VideoFocalNetForVideoClassification(VideoFocalNetConfig(embed_dim=8, num_labels=6))
args = VideoTrainingArguments(**arguments(sys.argv[2], per_device_eval_batch_size=3))
trainer = VideoClassificationTrainer(model, args)
output = trainer.predict(RandomClips(13))
if trainer.is_world_process_zero():
    print(json.dumps([args.world_size, output.predictions.tolist(), output.metrics["test_top1_accuracy"]]))
trainer.accelerator.end_training()
"""


@pytest.mark.slow
def test_two_processes_count_every_clip_once(tmp_path):
    script = tmp_path / "two_processes.py"
    script.write_text(textwrap.dedent(TWO_PROCESSES))
    results = []
    for processes in (1, 2):
        launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
        process = subprocess.run(
            [*launch, str(script), str(HELPERS), str(tmp_path / "out")],
            **{"capture_output": True, "text": True, "timeout": 300, "env": {**os.environ, "OMP_NUM_THREADS": "1"}},
        )
        assert process.returncode == 0, process.stderr
        results.append(json.loads([line for line in process.stdout.splitlines() if line.startswith("[")][-1]))
    (one, logits, top1), (two, other_logits, other_top1) = results
    assert (one, two) == (1, 2) and len(logits) == 13 and top1 == other_top1
    torch.testing.assert_close(torch.tensor(logits), torch.tensor(other_logits), rtol=0, atol=1e-5)


# the published recipe


def test_the_published_schedule_is_that_of_its_formula():
    peak, floor, epochs, warmup = 0.1, 0.001, 120, 20

    def rate(epoch):
        return peak * published_schedule(epoch, epochs, warmup, floor / peak)

    assert rate(0) == pytest.approx(floor)
    assert rate(10) == pytest.approx((floor + peak) / 2)
    for epoch in (20, 60, 119):
        assert rate(epoch) == pytest.approx(floor + (peak - floor) * (1 + math.cos(math.pi * epoch / epochs)) / 2)
    assert rate(20) / peak == pytest.approx(0.93, abs=0.005)
    assert rate(epochs) == pytest.approx(floor)


def test_learning_rates_are_scaled_with_the_global_batch(tmp_path, tiny_config):
    recipe = {"learning_rate": 0.1, "min_learning_rate": 0.01, "published_schedule": True, "warmup_steps": 2}
    recipe |= {"optim": "sgd", "reference_batch_size": 32, "gradient_accumulation_steps": 2}
    trainer = trained(tmp_path, tiny_config, RandomClips(64), max_steps=8, logging_steps=1, **recipe)
    expected = [0.1 * published_schedule(step, 8, 2, 0.1) * (4 * 2) / 32 for step in range(8)]
    assert logged(trainer, "learning_rate") == pytest.approx(expected)


def test_each_micro_batch_is_mixed_by_a_draw_of_its_own(tmp_path, tiny_config, monkeypatch):
    seeds = []

    def note(pixel_values, *, seed, **options):
        seeds.append(seed)
        return mix_clips(pixel_values, seed=seed, **options)

    monkeypatch.setattr("hf_dvflnet.training.trainer.mix_clips", note)
    for seed in (0, 1):
        options = {"mixup_alpha": 0.8, "gradient_accumulation_steps": 2, "max_steps": 3, "seed": seed}
        trained(tmp_path, tiny_config, RandomClips(24), **options)
    assert len(set(seeds)) == 2 * 6


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"mixup_alpha": -1.0}, "mixup_alpha must not be negative"),
        ({"min_learning_rate": 1.0}, "is above learning_rate"),
        ({"reference_batch_size": 0}, "reference_batch_size must be at least 1"),
        ({"class_weights": "rare"}, "class_weights must be none or balanced, got 'rare'"),
        ({"early_stopping_patience": 0, "eval_strategy": "no"}, "early_stopping_patience must be at least 1"),
        ({"early_stopping_patience": 2}, "requires the save and eval strategy to match"),
    ],
)
def test_settings_out_of_range_are_refused(tmp_path, changes, reason):
    with pytest.raises(ValueError, match=reason):
        VideoTrainingArguments(**arguments(tmp_path, **{"eval_strategy": "epoch", **changes}))


# class weights and early stopping


@pytest.fixture
def uneven(video_tree, tiny_processor) -> VideoClipDataset:
    """One clip of the first class and three of the second one."""
    return VideoClipDataset(load_video_folder(video_tree)["train"], tiny_processor, train=True)


@pytest.mark.parametrize("order", [1, -1], ids=["data's order", "another order"])
def test_balanced_class_weights_are_inverse_to_the_number_of_clips(tmp_path, tiny_config, uneven, order):
    names = uneven.dataset.features["label"].names
    model = new_model(labelled(tiny_config, names[::order]), 0)
    args = VideoTrainingArguments(**arguments(tmp_path, class_weights="balanced"))
    trainer = VideoClassificationTrainer(model, args, train_dataset=uneven)
    rare, common = ([0], [1, 1, 1]) if order == 1 else ([1], [0, 0, 0])
    clips, labels = RandomClips(4).clips, torch.tensor([*rare, *common])
    with torch.no_grad():
        losses = torch.nn.functional.cross_entropy(model(clips).logits, labels, reduction="none")
        found = trainer.compute_loss(model.train(), {"pixel_values": clips, "labels": labels})
        torch.testing.assert_close(found, (losses * torch.tensor([2.0, 2 / 3, 2 / 3, 2 / 3])).mean())
        evaluated = trainer.compute_loss(model.eval(), {"pixel_values": clips, "labels": labels})
        torch.testing.assert_close(evaluated, losses.mean())


STOPPING = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1, "max_steps": 9}
STOPPING |= {"early_stopping_patience": 2, "learning_rate": 0.0}  # no evaluation is better than the first


def test_early_stopping_ends_a_run_that_no_longer_improves(tmp_path, tiny_config):
    trainer = trained(tmp_path, tiny_config, RandomClips(8), **STOPPING)
    assert trainer.state.global_step == 3 and trainer.state.best_global_step == 1
