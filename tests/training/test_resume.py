"""A run that is stopped, in whatever way, loses nothing: it ends at the weights of a run that was not."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from example_scripts import EXAMPLES, SMALL
from small_trainings import NAMES, RandomClips, arguments, labelled, new_model

from hf_dvflnet import (
    ClipAugmentation,
    DistillationConfig,
    DistillationTrainer,
    VideoClassificationTrainer,
    VideoClipDataset,
    VideoFocalNetConfig,
    VideoFocalNetForVideoClassification,
    VideoTrainingArguments,
    cache_teacher,
    load_video_folder,
)
from hf_dvflnet.data.motion_videos import MOTIONS
from hf_dvflnet.training.checkpoints import last_whole_checkpoint


RECIPE = {
    **{"optim": "sgd", "optim_args": "momentum=0.9,nesterov=True", "learning_rate": 0.1, "published_schedule": True},
    **{"mixup_alpha": 0.8, "cutmix_alpha": 1.0, "label_smoothing_factor": 0.1, "gradient_accumulation_steps": 2},
    # 32 clips are 4 steps of 2 x 4: stopped in the middle of the second epoch, ended in the third
    **{"max_steps": 10, "save_steps": 6, "save_strategy": "steps", "logging_steps": 1},
}


@pytest.fixture
def config(tiny_config) -> VideoFocalNetConfig:
    return labelled(tiny_config, list(MOTIONS), drop_path_rate=0.5)


@pytest.fixture
def teacher(config) -> VideoFocalNetForVideoClassification:
    model = new_model(config, seed=7)
    torch.nn.init.normal_(model.classifier.weight, std=1.0)
    return model.eval()


@pytest.fixture
def make_clips(motion_tree, tiny_processor):
    def make() -> VideoClipDataset:
        options = {"seed": 1, "augmentation": ClipAugmentation()}
        return VideoClipDataset(load_video_folder(motion_tree)["train"], tiny_processor, train=True, **options)

    return make


@pytest.mark.parametrize("answers", ["online", "cached"])
def test_a_resumed_run_ends_at_the_same_weights_and_losses(answers, tmp_path, config, teacher, make_clips):
    if answers == "cached":
        cache_teacher(teacher, make_clips(), tmp_path / "cache", views=2)

    def run(folder, seed, resume=None):
        cache = {"teacher_cache": str(tmp_path / "cache")} if answers == "cached" else {}
        args = DistillationConfig(**{**arguments(folder, **RECIPE), **cache})
        asked = teacher if answers == "online" else None
        trainer = DistillationTrainer(new_model(config, seed), args, teacher_model=asked, train_dataset=make_clips())
        trainer.train(resume_from_checkpoint=resume)
        return trainer

    whole = run(tmp_path / "whole", seed=0)
    resumed = run(tmp_path / "resumed", seed=5, resume=str(tmp_path / "whole" / "checkpoint-6"))
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(weight, resumed.model.state_dict()[name]), name
    logs = [
        [(e["step"], e["loss"], e["loss_kl"]) for e in t.state.log_history if "loss" in e] for t in (whole, resumed)
    ]
    assert len(logs[0]) == 10 and logs[0] == logs[1]


def test_a_run_resumed_from_before_an_evaluation_ends_at_the_same_weights(tmp_path, config, teacher, make_clips):
    def run(folder, resume=None):
        # 32 clips are 4 steps: the checkpoint of step 4 is saved, then the epoch is evaluated
        args = DistillationConfig(
            **arguments(folder, **{**RECIPE, "max_steps": 6, "save_steps": 4}), eval_strategy="epoch"
        )
        clips = make_clips()
        trainer = DistillationTrainer(
            new_model(config, 0), args, teacher_model=teacher, train_dataset=clips, eval_dataset=clips
        )
        trainer.train(resume_from_checkpoint=resume)
        return trainer.model.state_dict()

    whole = run(tmp_path / "whole")
    resumed = run(tmp_path / "resumed", str(tmp_path / "whole" / "checkpoint-4"))
    for name, weight in whole.items():
        assert torch.equal(weight, resumed[name]), name


# which checkpoint is gone on from


@pytest.fixture
def stopped(tmp_path, config, teacher, make_clips) -> Path:
    """A run with two whole checkpoints."""
    args = DistillationConfig(**arguments(tmp_path / "run", **{**RECIPE, "max_steps": 2, "save_steps": 1}))
    DistillationTrainer(new_model(config, 0), args, teacher_model=teacher, train_dataset=make_clips()).train()
    return tmp_path / "run"


def cut_state(checkpoint: Path):
    state = checkpoint / "trainer_state.json"
    state.write_bytes(state.read_bytes()[: state.stat().st_size // 2])


@pytest.mark.parametrize(
    "spoil",
    [
        cut_state,
        lambda checkpoint: (checkpoint / "trainer_state.json").unlink(),
        lambda checkpoint: (checkpoint / "checkpoint-is-incomplete.txt").touch(),  # transformers' marker
    ],
    ids=["cut", "missing", "marked"],
)
def test_an_incomplete_checkpoint_is_passed_over_and_named(stopped, spoil, logs):
    spoil(stopped / "checkpoint-2")
    assert last_whole_checkpoint(stopped) == str(stopped / "checkpoint-1")
    assert "checkpoint-2: the checkpoint is incomplete" in logs.text


def test_two_processes_need_the_random_state_of_both(stopped):
    for checkpoint in stopped.glob("checkpoint-*"):
        state = checkpoint / "trainer_state.json"
        state.write_text(state.read_text().replace('"processes": 1', '"processes": 2'))
        (checkpoint / "rng_state.pth").rename(checkpoint / "rng_state_0.pth")
    assert last_whole_checkpoint(stopped, processes=2) is None
    shutil.copy(stopped / "checkpoint-1" / "rng_state_0.pth", stopped / "checkpoint-1" / "rng_state_1.pth")
    assert last_whole_checkpoint(stopped, processes=2) == str(stopped / "checkpoint-1")


def test_a_checkpoint_of_another_number_of_processes_is_whole(stopped, logs):
    assert last_whole_checkpoint(stopped, processes=2) == str(stopped / "checkpoint-2")
    assert "checkpoint-2: was written by a different number of processes (1, now 2)" in logs.text


def going_on(folder, config, teacher, make_clips, **ends) -> DistillationTrainer:
    """One clip a step, where the run before had eight."""
    changed = {**RECIPE, "per_device_train_batch_size": 1, "gradient_accumulation_steps": 1, **ends}
    args = DistillationConfig(**arguments(folder, **changed))
    return DistillationTrainer(new_model(config, 0), args, teacher_model=teacher, train_dataset=make_clips())


def test_other_steps_an_epoch_are_refused(stopped, config, teacher, make_clips):
    trainer = going_on(stopped, config, teacher, make_clips, max_steps=-1, num_train_epochs=2)
    with pytest.raises(ValueError, match="checkpoint-2: was written with 8 clips per step .*, but this run has 1 "):
        trainer.train(resume_from_checkpoint=True)


# a run that is not the one of the checkpoint


def on_classes(folder, names=NAMES, clips=16, resume=False, **changes) -> VideoClassificationTrainer:
    """A run of four steps with a checkpoint after the second one."""
    options = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2, "logging_steps": 1, "weight_decay": 0.1}
    config = VideoFocalNetConfig(embed_dim=changes.pop("embed_dim", 8), image_size=32, num_frames=4, num_labels=6)
    args = VideoTrainingArguments(**arguments(folder, **{**options, **changes}))
    model = new_model(labelled(config, names), seed=0)
    data = {"train_dataset": RandomClips(clips), "eval_dataset": RandomClips(4)}
    trainer = VideoClassificationTrainer(model, args, **data)
    trainer.train(resume_from_checkpoint=resume)
    return trainer


@pytest.fixture(scope="module")
def named(tmp_path_factory) -> Path:
    """A checkpoint of a run on classes with names."""
    folder = tmp_path_factory.mktemp("named")
    on_classes(folder, max_steps=2)
    return folder / "checkpoint-2"


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"names": ["zap", *NAMES[1:]]}, "other classes: only the checkpoint has 'clap', only this run has 'zap'"),
        ({"names": NAMES[::-1]}, "other classes: class 0 was 'clap' and is 'wave'"),
        ({"names": [*NAMES, "zap"]}, "other classes: only the checkpoint has none, only this run has 'zap'"),
        ({"clips": 32}, "other clips: 16 then, 32 now"),
        ({"embed_dim": 16}, r"other weights: classifier.weight was \[6, 64\] and is \[6, 128\]"),
        ({"optim": "sgd"}, "other optimizer: adamw_torch then, sgd now"),
    ],
)
def test_another_run_than_that_of_the_checkpoint_is_refused(tmp_path, named, changes, difference):
    with pytest.raises(ValueError, match=f"checkpoint-2: was .* {difference}"):
        on_classes(tmp_path, resume=str(named), **changes)


def test_classes_of_the_data_are_compared_if_the_model_has_no_names(tmp_path, tiny_config, tiny_processor, video_tree):
    def run(resume):
        args = VideoTrainingArguments(**arguments(tmp_path / "run", max_steps=1, save_strategy="steps", save_steps=1))
        clips = VideoClipDataset(load_video_folder(video_tree)["train"], tiny_processor, train=True)
        VideoClassificationTrainer(new_model(tiny_config, 0), args, train_dataset=clips).train(resume)

    run(resume=False)
    for split in ("train", "val", "test"):
        (video_tree / split / "jump").rename(video_tree / split / "zoom")
    with pytest.raises(ValueError, match="only the checkpoint has 'jump', only this run has 'zoom'"):
        run(resume=True)


@pytest.mark.parametrize("schedule", [{}, {"published_schedule": True, "min_learning_rate": 1e-4}])
def test_a_resumed_run_has_the_rates_of_its_own_arguments(tmp_path, named, schedule):
    changes = {"learning_rate": 1e-2, "weight_decay": 0.2, "adam_beta1": 0.8, **schedule}
    whole = on_classes(tmp_path / "whole", **changes)
    resumed = on_classes(tmp_path / "resumed", resume=str(named), **changes)
    rates = [[e["learning_rate"] for e in t.state.log_history if "loss" in e] for t in (whole, resumed)]
    assert rates[0][0] != rates[1][0] and rates[0][2:] == rates[1][2:]
    for group, expected in zip(resumed.optimizer.param_groups, whole.optimizer.param_groups, strict=True):
        assert {name: group[name] for name in expected if name != "params"} == {
            name: value for name, value in expected.items() if name != "params"
        }


def test_resuming_where_nothing_is_whole_is_refused(tmp_path, config, teacher, make_clips):
    args = DistillationConfig(**arguments(tmp_path))
    trainer = DistillationTrainer(new_model(config, 0), args, teacher_model=teacher, train_dataset=make_clips())
    with pytest.raises(ValueError, match="contains no complete checkpoint to resume from"):
        trainer.train(resume_from_checkpoint=True)


@pytest.mark.slow
def test_a_run_that_is_killed_again_and_again_ends_at_the_same_student(tmp_path):
    """`kill -9` at random moments; then the same command goes on, until it comes to its end."""
    options = {
        **{**SMALL, "num_train_epochs": 6, "save_strategy": "steps", "save_steps": 1, "save_total_limit": 2},
        **{"augment": True, "mixup_alpha": 0.8, "compare_alone": False, "resume_from_checkpoint": "last"},
    }

    def start(folder: Path) -> subprocess.Popen:
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        return subprocess.Popen(
            [
                sys.executable,
                str(EXAMPLES / "distill.py"),
                str(EXAMPLES / "demo.yaml"),
                "--output_dir",
                folder,
                *words,
            ],
            stdout=subprocess.DEVNULL,
            stderr=open(folder.with_suffix(".log"), "ab"),
            start_new_session=True,
        )

    whole = tmp_path / "whole"
    assert start(whole).wait(timeout=300) == 0, whole.with_suffix(".log").read_text()
    killed = tmp_path / "killed"
    shutil.copytree(whole / "motion_videos", killed / "motion_videos")
    moments = random.Random(0)
    kills = 0
    for attempt in range(30):
        process = start(killed)
        if attempt < 6:
            # within the work, not within the imports: some time after the next checkpoint is begun
            seen = set(killed.glob("*/checkpoint-*"))
            while process.poll() is None and not set(killed.glob("*/checkpoint-*")) - seen:
                time.sleep(0.002)
            time.sleep(moments.uniform(0, 0.3))
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                kills += 1
        if process.wait(timeout=300) == 0:
            break
    assert kills >= 3, "it was hardly ever killed"
    assert process.returncode == 0, killed.with_suffix(".log").read_text()
    students = [
        VideoFocalNetForVideoClassification.from_pretrained(f / "student").state_dict() for f in (whole, killed)
    ]
    for name, weight in students[0].items():
        assert torch.equal(weight, students[1][name]), name
    results = [json.loads((folder / "results.json").read_text())["results"] for folder in (whole, killed)]
    assert results[0] == results[1]
