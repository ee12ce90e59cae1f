import json
import math
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import time

import PIL.Image
import pytest
import torch
from places import HELPERS
from small_trainings import RandomClips, TroubledClips, arguments
from transformers import TrainingArguments
from transformers.utils import logging

from hf_dvflnet import (
    VideoClassificationTrainer,
    VideoDecodeError,
    VideoFocalNetConfig,
    VideoFocalNetForVideoClassification,
    VideoTrainingArguments,
    load_video_folder,
    mix_clips,
)
from hf_dvflnet.data.motion_videos import MOTIONS
from hf_dvflnet.training.arguments import published_schedule


def train(folder, config, dataset, **changes):
    torch.manual_seed(0)
    model = VideoFocalNetForVideoClassification(config)
    trainer = VideoClassificationTrainer(
        model, TrainingArguments(**arguments(folder, **changes)), train_dataset=dataset, eval_dataset=RandomClips(13)
    )
    trainer.train()
    return trainer


def test_weight_decay_leaves_out_every_one_dimensional_parameter(tmp_path, tiny_config):
    config = VideoFocalNetConfig(**{**tiny_config.to_dict(), "use_layerscale": True})
    model = VideoFocalNetForVideoClassification(config)
    trainer = VideoClassificationTrainer(model, TrainingArguments(**arguments(tmp_path, weight_decay=0.1)))
    decayed, undecayed = trainer.create_optimizer().param_groups
    assert decayed["weight_decay"] == 0.1 and all(parameter.ndim > 1 for parameter in decayed["params"])
    assert undecayed["weight_decay"] == 0 and all(parameter.ndim == 1 for parameter in undecayed["params"])
    assert len(decayed["params"]) + len(undecayed["params"]) == len(list(model.parameters()))


@pytest.mark.parametrize("soft", [False, True])
def test_ids_and_probabilities_both_train(tmp_path, tiny_config, soft):
    trainer = train(tmp_path, tiny_config, RandomClips(24, soft=soft), max_steps=30, logging_steps=10)
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < losses[0] - 0.1


def test_one_batch_of_eight_and_four_of_two_give_the_same_update(tmp_path, tiny_config):
    weights = []
    for batch, accumulated in ((8, 1), (2, 4)):
        trainer = train(
            tmp_path,
            tiny_config,
            RandomClips(8),
            max_steps=1,
            optim="sgd",
            learning_rate=0.1,
            max_grad_norm=0.0,
            per_device_train_batch_size=batch,
            gradient_accumulation_steps=accumulated,
        )
        weights.append(torch.cat([parameter.detach().flatten() for parameter in trainer.model.parameters()]))
    torch.manual_seed(0)
    start = VideoFocalNetForVideoClassification(tiny_config).parameters()
    start = torch.cat([parameter.detach().flatten() for parameter in start])
    moved = (weights[0] - start).abs().max()
    assert moved > 1e-3 and (weights[0] - weights[1]).abs().max() < 1e-4 * moved


def test_the_same_seed_gives_the_same_run_and_another_seed_another(tmp_path, tiny_config):
    config = VideoFocalNetConfig(**{**tiny_config.to_dict(), "drop_path_rate": 0.5})
    runs = [train(tmp_path, config, RandomClips(24), seed=seed).model.state_dict() for seed in (1, 1, 2)]
    assert all(torch.equal(runs[0][name], runs[1][name]) for name in runs[0])
    assert not all(torch.equal(runs[0][name], runs[2][name]) for name in runs[0])


def test_label_smoothing_applies_to_training_alone(tmp_path, tiny_config):
    trainer = train(tmp_path, tiny_config, RandomClips(4), max_steps=1, label_smoothing_factor=0.3)
    batch = {name: torch.stack([item[name] for item in RandomClips(4)]) for name in ("pixel_values", "labels")}
    with torch.no_grad():
        model = trainer.model.train()
        log_probs = model(batch["pixel_values"]).logits.log_softmax(-1)
        smoothed = 0.7 * torch.nn.functional.one_hot(batch["labels"], 6) + 0.05
        torch.testing.assert_close(trainer.compute_loss(model, batch), -(smoothed * log_probs).sum(-1).mean())
        torch.testing.assert_close(
            trainer.compute_loss(model.eval(), batch), torch.nn.functional.cross_entropy(log_probs, batch["labels"])
        )


def test_evaluation_counts_every_clip_of_an_uneven_last_batch(tmp_path, tiny_config):
    trainer = train(tmp_path, tiny_config, RandomClips(8), per_device_eval_batch_size=4)
    output = trainer.predict(RandomClips(13))
    assert output.predictions.shape == (13, 6)
    right = (output.predictions.argmax(-1) == RandomClips(13).labels.numpy()).mean()
    assert output.metrics["test_top1_accuracy"] == pytest.approx(right)
    assert output.metrics["test_top5_accuracy"] >= right


def test_the_dataset_is_told_each_epoch(tmp_path, tiny_config):
    class Listening(RandomClips):
        epochs: list[int] = []

        def set_epoch(self, epoch):
            self.epochs.append(epoch)

    train(tmp_path, tiny_config, Listening(8), max_steps=-1, num_train_epochs=3)
    assert list(dict.fromkeys(Listening.epochs)) == [0, 1, 2]


@pytest.mark.slow
def test_two_processes_count_every_clip_once(tmp_path):
    script = tmp_path / "two_processes.py"
    script.write_text(
        textwrap.dedent(
            """
            import json, sys
            sys.path.insert(0, sys.argv[1])
            import torch
            from transformers import TrainingArguments
            from small_trainings import RandomClips, arguments
            from hf_dvflnet import *
            torch.manual_seed(0)
            model = VideoFocalNetForVideoClassification(VideoFocalNetConfig(embed_dim=8, num_labels=6))
            args = TrainingArguments(**arguments(sys.argv[2], per_device_eval_batch_size=3))
            trainer = VideoClassificationTrainer(model, args)
            output = trainer.predict(RandomClips(13))
            if trainer.is_world_process_zero():
                found = {"world_size": args.world_size, "clips": len(output.predictions),
                         "logits": output.predictions.tolist(), "top1": output.metrics["test_top1_accuracy"]}
                print(json.dumps(found))
            trainer.accelerator.end_training()
            """
        )
    )
    results = []
    for processes in (1, 2):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        launch = [
            *(sys.executable, "-m", "torch.distributed.run", f"--nproc_per_node={processes}"),
            *(f"--master_port={port}", str(script), str(HELPERS), str(tmp_path / "out")),
        ]
        process = subprocess.run(
            launch, capture_output=True, text=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
        assert process.returncode == 0, process.stderr
        results.append(json.loads([line for line in process.stdout.splitlines() if line.startswith("{")][-1]))
    one, two = results
    assert (one["world_size"], two["world_size"]) == (1, 2)
    assert one["clips"] == two["clips"] == 13 and one["top1"] == two["top1"]
    torch.testing.assert_close(torch.tensor(one["logits"]), torch.tensor(two["logits"]), rtol=0, atol=1e-5)


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


def train_by_recipe(folder, config, dataset, resume=None, **changes):
    torch.manual_seed(0)
    model = VideoFocalNetForVideoClassification(config)
    args = VideoTrainingArguments(**arguments(folder, optim="sgd", optim_args="momentum=0.9,nesterov=True", **changes))
    trainer = VideoClassificationTrainer(model, args, train_dataset=dataset)
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def test_learning_rates_are_scaled_with_the_global_batch(tmp_path, tiny_config):
    trainer = train_by_recipe(
        tmp_path,
        tiny_config,
        RandomClips(64),
        learning_rate=0.1,
        min_learning_rate=0.01,
        published_schedule=True,
        warmup_steps=2,
        max_steps=8,
        logging_steps=1,
        reference_batch_size=32,
        gradient_accumulation_steps=2,
    )
    rates = [entry["learning_rate"] for entry in trainer.state.log_history if "learning_rate" in entry]
    expected = [0.1 * published_schedule(step, 8, 2, 0.1) * (4 * 2) / 32 for step in range(8)]
    assert rates == pytest.approx(expected)
    group = trainer.optimizer.param_groups[0]
    assert (group["momentum"], group["nesterov"]) == (0.9, True)


def test_a_mixed_run_that_is_stopped_goes_on_to_the_same_weights(tmp_path, tiny_config):
    config = VideoFocalNetConfig(**{**tiny_config.to_dict(), "drop_path_rate": 0.5})
    recipe = {
        **{"mixup_alpha": 0.8, "cutmix_alpha": 1.0, "label_smoothing_factor": 0.1, "gradient_accumulation_steps": 2},
        **{"max_steps": 4, "save_strategy": "steps", "save_steps": 2, "published_schedule": True},
    }
    whole = train_by_recipe(tmp_path / "whole", config, RandomClips(24), **recipe)
    resumed = train_by_recipe(
        tmp_path / "resumed", config, RandomClips(24), resume=str(tmp_path / "whole" / "checkpoint-2"), **recipe
    )
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(weight, resumed.model.state_dict()[name]), name
    plain = train_by_recipe(
        tmp_path / "plain", config, RandomClips(24), **{**recipe, "mixup_alpha": 0, "cutmix_alpha": 0}
    )
    assert not torch.equal(whole.model.classifier.weight, plain.model.classifier.weight)


def test_each_micro_batch_is_mixed_by_a_draw_of_its_own(tmp_path, tiny_config, monkeypatch):
    seeds = []

    def note(pixel_values, *, seed, **options):
        seeds.append(seed)
        return mix_clips(pixel_values, seed=seed, **options)

    monkeypatch.setattr("hf_dvflnet.training.trainer.mix_clips", note)
    options = {"mixup_alpha": 0.8, "gradient_accumulation_steps": 2, "max_steps": 3}
    train_by_recipe(tmp_path, tiny_config, RandomClips(24), **options)
    first = list(seeds)
    train_by_recipe(tmp_path, tiny_config, RandomClips(24), **options, seed=1)
    assert len(set(first)) == 6
    assert not set(first) & set(seeds[6:])


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"mixup_alpha": -1.0}, "mixup_alpha must not be negative"),
        ({"min_learning_rate": 1.0}, "is above learning_rate"),
        ({"reference_batch_size": 0}, "reference_batch_size must be at least 1"),
    ],
)
def test_settings_out_of_range_are_refused(tmp_path, changes, reason):
    with pytest.raises(ValueError, match=reason):
        VideoTrainingArguments(**arguments(tmp_path, **changes))


# broken clips, dead workers, slow data, and what is left behind


def unreadable():
    raise VideoDecodeError("no frame can be decoded")


@pytest.fixture
def troubled(motion_tree, tiny_processor):
    def make(**trouble) -> TroubledClips:
        rows = load_video_folder(motion_tree)["train"]
        clips = TroubledClips(rows, tiny_processor, train=True, on_error="replace")
        clips.trouble = {name.replace("__", "/") + ".mp4": what for name, what in trouble.items()}
        return clips

    return make


def train_on(folder, config, clips, resume=None, **changes):
    config = VideoFocalNetConfig(**{**config.to_dict(), "num_labels": 16})
    options = {"max_steps": 16, "logging_steps": 4, **changes}
    trainer = VideoClassificationTrainer(
        VideoFocalNetForVideoClassification(config),
        VideoTrainingArguments(**arguments(folder, **options)),
        train_dataset=clips,
    )
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def test_a_broken_clip_is_named_in_a_file_and_counted_in_the_log(tmp_path, tiny_config, troubled):
    clips = troubled(move_000__0001=unreadable, move_045__0000=unreadable)
    trainer = train_on(tmp_path, tiny_config, clips, max_broken_share=0.1)
    assert trainer.state.global_step == 16
    rows = [json.loads(line) for line in (tmp_path / "broken_clips.jsonl").read_text().splitlines()]
    assert sorted(row["clip"] for row in rows) == ["move_000/0001.mp4", "move_045/0000.mp4"]
    assert {row["reason"] for row in rows} == {"no frame can be decoded"}
    assert [entry["broken_clips"] for entry in trainer.state.log_history if "broken_clips" in entry][-1] == 2


def test_a_run_goes_on_where_broken_clips_cannot_be_written_down(tmp_path, tiny_config, troubled, caplog):
    def unreadable_and_no_room():
        (tmp_path / "broken_clips.jsonl").symlink_to("/dev/full")
        unreadable()

    logger = logging.get_logger()
    logger.propagate = True
    try:
        clips = troubled(move_000__0001=unreadable_and_no_room)
        trainer = train_on(tmp_path, tiny_config, clips, max_broken_share=0.1, max_steps=8)
    finally:
        logger.propagate = False
    assert list(trainer.broken) == ["move_000/0001.mp4"]
    assert re.search(r"broken_clips.jsonl: cannot be written \(.*missing from it: move_000/0001.mp4", caplog.text)


def test_too_many_broken_clips_stop_the_run_with_their_list(tmp_path, tiny_config, troubled):
    with pytest.raises(
        RuntimeError,
        match=r"1 of 32 training clips cannot be read, more than max_broken_share=0.01: "
        r"move_000/0001.mp4: no frame can be decoded",
    ):
        train_on(tmp_path, tiny_config, troubled(move_000__0001=unreadable))


def test_a_resumed_run_remembers_what_was_broken(tmp_path, tiny_config, troubled):
    clips = troubled(move_000__0001=unreadable, move_045__0000=unreadable)
    options = {"max_broken_share": 0.1, "save_strategy": "steps", "save_steps": 8}
    train_on(tmp_path, tiny_config, clips, **options)
    with open(tmp_path / "broken_clips.jsonl", "a") as file:
        file.write('{"clip": "zoom')  # as a run leaves it that is killed just then
    trainer = train_on(tmp_path, tiny_config, clips, resume=str(tmp_path / "checkpoint-8"), **options)
    assert len(trainer.broken) == 2
    assert (tmp_path / "broken_clips.jsonl").read_text().splitlines()[2:] == ['{"clip": "zoom']


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def hang():
    time.sleep(600)


@pytest.mark.parametrize(
    ("trouble", "message"), [(die, "killed by signal|exited unexpectedly"), (hang, "timed out after 4")]
)
def test_a_worker_that_dies_or_hangs_is_reported_with_its_clip(tmp_path, tiny_config, troubled, trouble, message):
    clips = troubled(turn_left_fast__0000=trouble)
    with pytest.raises(
        RuntimeError, match=rf"(?s)({message}).*The worker was reading the clip turn_left_fast/0000.mp4 \(for \d+ s\)"
    ):
        train_on(tmp_path, tiny_config, clips, dataloader_num_workers=1, dataloader_timeout=4.0)


def test_waiting_for_clips_is_timed_and_warned_about(tmp_path, tiny_config, troubled, caplog):
    slow = {f"{name}__000{number}": lambda: time.sleep(0.05) for name in MOTIONS for number in (0, 1)}
    logger = logging.get_logger()
    logger.propagate = True
    try:
        trainer = train_on(tmp_path, tiny_config, troubled(**slow), max_steps=8)
    finally:
        logger.propagate = False
    logged = [entry for entry in trainer.state.log_history if "data_seconds" in entry]
    assert len(logged) == 2 and all(0.15 <= entry["data_seconds"] < entry["step_seconds"] for entry in logged)
    assert caplog.text.count("of a step are spent waiting for clips") == 1
    assert "dataloader_num_workers, now 0" in caplog.text and "dvflnet prepare" in caplog.text


def test_the_report_shows_how_the_training_went(tmp_path, tiny_config, troubled):
    trainer = train_on(tmp_path, tiny_config, troubled(move_045__0000=unreadable), max_broken_share=0.1)
    trainer.save_report()
    report = (tmp_path / "training_report.md").read_text()
    last = [entry for entry in trainer.state.log_history if "loss" in entry][-1]
    assert f"| loss | {last['loss']:.6g} |" in report
    assert "16 steps of 1 x 1 x 4 clips" in report and "![curves](training_curves.png)" in report
    assert "Unreadable training clips: 1, replaced by others and listed in broken_clips.jsonl" in report
    with PIL.Image.open(tmp_path / "training_curves.png") as picture:
        assert picture.width > 1000 and len(picture.convert("RGB").getcolors(1 << 24)) > 10


def test_the_log_goes_to_tensorboard(tmp_path, tiny_config, troubled):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train_on(tmp_path, tiny_config, troubled(), report_to="tensorboard")
    files = list(tmp_path.rglob("events.out.tfevents*"))
    events = EventAccumulator(str(files[0])).Reload()
    assert {"train/loss", "train/learning_rate", "train/data_seconds", "train/step_seconds"} <= set(
        events.Tags()["scalars"]
    )
    assert [event.step for event in events.Scalars("train/loss")] == [4, 8, 12, 16]
