"""Training while something goes wrong: the error says what, and the same command continues without a loss."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from example_scripts import EXAMPLES
from places import HELPERS
from small_trainings import RandomClips, SomeBroken, TroubledClips, trainer_on, weights_of
from transformers import TrainerCallback

from hf_dvflnet import (
    VideoDecodeError,
    VideoFocalNetForVideoClassification,
    load_video_folder,
)
from hf_dvflnet.data.motion_videos import MOTIONS
from hf_dvflnet.training.checkpoints import last_whole_checkpoint


class AtStep(TrainerCallback):
    """Does something in the middle of a step, counted from 1: before the weights change."""

    def __init__(self, step, action):
        self.step, self.action = step, action

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        if state.global_step == self.step - 1:
            self.action()


def written(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("checkpoint-*"))


# a full disk


@pytest.fixture
def no_large_files():
    """Calling it lets no file of this process grow above so many bytes, as on a disk that is full."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.slow
@pytest.mark.parametrize(("size", "cut"), [(100_000, "model.safetensors"), (700_000, "scheduler.pt")])
def test_a_full_disk_is_named_and_the_run_goes_on_once_there_is_room(tmp_path, tiny_config, no_large_files, size, cut):
    whole = trainer_on(tmp_path / "whole", tiny_config, RandomClips(24))
    whole.train()
    trainer = trainer_on(tmp_path / "full", tiny_config, RandomClips(24), AtStep(3, lambda: no_large_files(size)))
    with pytest.raises(
        OSError,
        match=r"full/checkpoint-4: the checkpoint cannot be written \(.+ MB are free there\).*"
        r"can then resume from its last complete checkpoint$",
    ):
        trainer.train()
    assert not (tmp_path / "full" / "checkpoint-4" / cut).exists()
    assert last_whole_checkpoint(tmp_path / "full") == str(tmp_path / "full" / "checkpoint-2")
    no_large_files(resource.RLIM_INFINITY if (hard := resource.getrlimit(resource.RLIMIT_FSIZE)[1]) < 0 else hard)
    resumed = trainer_on(tmp_path / "full", tiny_config, RandomClips(24))
    resumed.train(resume_from_checkpoint=True)
    assert torch.equal(weights_of(whole), weights_of(resumed))


# clips that cannot be read, slow clips and hung workers


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
    options = {"max_steps": 16, "logging_steps": 4, "save_strategy": "no", **changes}
    trainer = trainer_on(folder, config, clips, num_labels=16, **options)
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def test_a_broken_clip_is_named_in_a_file_and_counted_in_the_log(tmp_path, tiny_config, troubled):
    clips = troubled(move_000__0001=unreadable, move_045__0000=unreadable)
    trainer = train_on(tmp_path, tiny_config, clips, max_broken_share=0.1)
    rows = [json.loads(line) for line in (tmp_path / "broken_clips.jsonl").read_text().splitlines()]
    assert sorted(row["clip"] for row in rows) == ["move_000/0001.mp4", "move_045/0000.mp4"]
    assert {row["reason"] for row in rows} == {"no frame can be decoded"}
    assert [entry["broken_clips"] for entry in trainer.state.log_history if "broken_clips" in entry][-1] == 2


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
    (tmp_path / "broken_clips.jsonl").unlink()
    trainer = train_on(tmp_path, tiny_config, clips, resume=str(tmp_path / "checkpoint-8"), **options)
    assert len(trainer.broken_clips.found) == 2


def test_a_worker_that_hangs_stops_the_run(tmp_path, tiny_config, troubled):
    clips = troubled(turn_left_fast__0000=lambda: time.sleep(600))
    with pytest.raises(RuntimeError, match="timed out after 4"):
        train_on(tmp_path, tiny_config, clips, dataloader_num_workers=1, dataloader_timeout=4.0)


def test_waiting_for_clips_is_timed_and_warned_about(tmp_path, tiny_config, troubled, logs):
    slow = {f"{name}__000{number}": lambda: time.sleep(0.05) for name in MOTIONS for number in (0, 1)}
    trainer = train_on(tmp_path, tiny_config, troubled(**slow), max_steps=8)
    logged = [entry for entry in trainer.state.log_history if "data_seconds" in entry]
    assert len(logged) == 2 and all(0.15 <= entry["data_seconds"] < entry["step_seconds"] for entry in logged)
    assert logs.text.count("of a step are spent waiting for clips") == 1


# a loss that is no number


@pytest.mark.parametrize("accumulated", [1, 3])
def test_a_loss_that_is_no_number_stops_the_run_with_the_clips(tmp_path, tiny_config, accumulated):
    trainer = trainer_on(
        *(tmp_path, tiny_config, SomeBroken(24)),
        train_sampling_strategy="sequential",
        gradient_accumulation_steps=accumulated,
        save_steps=1,
    )
    # the fourth batch of four
    step = 4 if accumulated == 1 else 2
    with pytest.raises(
        RuntimeError,
        match=rf"The loss of step {step} is not finite: nan on process 0 \(clips: "
        r"clip 12, clip 13, clip 14, clip 15\)\. .+ the learning rate \(now 0\.00",
    ):
        trainer.train()
    assert written(tmp_path) == [f"checkpoint-{number}" for number in range(1, step)]
    assert all(weight.isfinite().all() for weight in trainer.model.parameters())


def test_weights_that_are_no_numbers_are_not_saved(tmp_path, tiny_config):
    trainer = trainer_on(tmp_path, tiny_config, SomeBroken(8), max_steps=1, save_steps=1)
    trainer.train_dataset.clips = trainer.train_dataset.clips[:8]
    trainer.model.classifier.weight.register_hook(lambda gradient: gradient * torch.nan)
    for save in (trainer.train, trainer.save_model):
        with pytest.raises(RuntimeError, match=r"not finite after step 1, .+ not saved\. .+ process 0: clip \d"):
            save()
    assert not written(tmp_path) and not (tmp_path / "model.safetensors").exists()


# signals


@pytest.fixture
def interruptible():
    """Ctrl-C is heard also where the tests run in the background of a shell, which turns it off."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize(
    ("number", "strategy", "expected", "code"),
    [(signal.SIGTERM, "no", SystemExit, (143,)), (signal.SIGINT, "epoch", KeyboardInterrupt, ())],
)
def test_a_signal_stops_after_the_step_with_a_checkpoint(tmp_path, tiny_config, number, strategy, expected, code):
    handlers = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    options = {"gradient_accumulation_steps": 2, "max_steps": 4, "save_strategy": strategy, "save_total_limit": 1}
    whole = trainer_on(tmp_path / "whole", tiny_config, RandomClips(16), **options)
    whole.train()
    told = AtStep(3, lambda: os.kill(os.getpid(), number))
    with pytest.raises(expected) as stop:
        trainer_on(tmp_path / "stopped", tiny_config, RandomClips(16), told, **options).train()
    assert stop.value.args == code
    assert written(tmp_path / "stopped") == ["checkpoint-3"]
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == handlers
    resumed = trainer_on(tmp_path / "stopped", tiny_config, RandomClips(16), **options)
    resumed.train(resume_from_checkpoint=True)
    assert torch.equal(weights_of(whole), weights_of(resumed))


@pytest.mark.usefixtures("interruptible")
def test_a_second_interrupt_stops_at_once(tmp_path, tiny_config):
    def interrupt_twice():
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1.1)

    with pytest.raises(KeyboardInterrupt):
        trainer_on(tmp_path, tiny_config, RandomClips(16), AtStep(3, interrupt_twice)).train()
    assert written(tmp_path) == ["checkpoint-2"]


# whole commands, of one process and of two


class Command:
    """`examples/train.py` on rendered motions, in a process group of its own."""

    def __init__(self, folder: Path, data: Path, *launcher: str, **changes):
        options = {
            **{"output_dir": folder, "data_dir": data, "num_frames": 4, "image_size": 32, "short_side": 36},
            **{"preset": "nano", "config_overrides": "embed_dim=8,drop_path_rate=0.2", "use_cpu": True},
            **{"learning_rate": 0.01, "logging_steps": 1, "report_to": "none", "num_train_epochs": 10},
            **{"save_strategy": "steps", "save_steps": 5, "resume_from_checkpoint": "last", "augment": True},
            **{"per_device_train_batch_size": 4, "mixup_alpha": 0.8, **changes},
        }
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        self.folder, self.log = folder, folder.with_suffix(".log")
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, *launcher, str(EXAMPLES / "train.py"), *words],
                **{"stdout": log, "stderr": log, "start_new_session": True},
                # or else processes that torchrun starts again look for each other where they were before
                env={**os.environ, "OMP_NUM_THREADS": "1", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"},
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )

    def wait_for(self, checkpoint: str):
        deadline = time.monotonic() + 200
        while not (self.folder / checkpoint / "trainer_state.json").exists():
            assert self.process.poll() is None and time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.002)

    def ends(self, code: int):
        assert self.process.wait(timeout=300) == code, self.log.read_text()

    def result(self) -> tuple[torch.nn.Module, list[tuple[int, float]]]:
        model = VideoFocalNetForVideoClassification.from_pretrained(self.folder)
        state = json.loads((Path(last_checkpoint(self.folder)) / "trainer_state.json").read_text())
        return model, [(entry["step"], entry["loss"]) for entry in state["log_history"] if "loss" in entry]


def last_checkpoint(folder: Path) -> Path:
    return max(folder.glob("checkpoint-*"), key=lambda path: int(path.name.partition("-")[2]))


def assert_same_run(one: Command, other: Command, steps: int):
    (model, losses), (other_model, other_losses) = one.result(), other.result()
    assert [step for step, _ in losses] == list(range(1, steps + 1)) and losses == other_losses
    weights, others = model.state_dict(), other_model.state_dict()
    assert all(torch.equal(weight, others[name]) for name, weight in weights.items())


TORCHRUN = ("-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone")


@pytest.fixture(scope="module")
def whole_on_two(tmp_path_factory, motion_tree) -> Command:
    command = Command(tmp_path_factory.mktemp("two") / "whole", motion_tree, *TORCHRUN)
    command.ends(0)
    return command


@pytest.mark.slow
def test_two_processes_stop_at_the_same_step_and_go_on_as_two_or_as_one(tmp_path, motion_tree, whole_on_two):
    command = Command(tmp_path / "stopped", motion_tree, *TORCHRUN)
    command.wait_for("checkpoint-10")
    command.process.send_signal(signal.SIGTERM)
    assert command.process.wait(timeout=120) != 0
    step = int(last_checkpoint(tmp_path / "stopped").name.partition("-")[2])
    assert f"stopped by SIGTERM after step {step} of 40. A checkpoint was saved" in command.log.read_text()
    assert last_whole_checkpoint(tmp_path / "stopped", processes=2) == str(last_checkpoint(tmp_path / "stopped"))
    shutil.copytree(tmp_path / "stopped", tmp_path / "one")
    two = Command(tmp_path / "stopped", motion_tree, *TORCHRUN)
    two.ends(0)
    assert_same_run(whole_on_two, two, steps=40)
    one = Command(tmp_path / "one", motion_tree, per_device_train_batch_size=8)
    one.ends(0)
    assert "a different number of processes (2, now 1)" in one.log.read_text()
    assert [step for step, _ in one.result()[1]] == list(range(1, 41))


ON_TWO = """
import sys
sys.path.insert(0, {tests!r})
import pytest, torch
from hf_dvflnet import VideoFocalNetConfig
from small_trainings import SomeBroken, trainer_on
config = VideoFocalNetConfig(embed_dim=8, image_size=32, num_frames=4)
trainer_on({folder!r}, config, SomeBroken(24), train_sampling_strategy="sequential", save_steps=1).train()
"""


@pytest.mark.slow
def test_a_process_whose_loss_is_no_number_stops_all_with_its_clips(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(ON_TWO.format(tests=str(HELPERS), folder=str(tmp_path / "run")))
    ended = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone", str(script)],
        **{"capture_output": True, "text": True, "timeout": 200, "env": {**os.environ, "OMP_NUM_THREADS": "1"}},
    )
    assert ended.returncode != 0
    # batches go to the processes in turn: the fourth is the second one's second
    assert (
        "The loss of step 2 is not finite: nan on process 1 (clips: clip 12, clip 13, clip 14, clip 15)."
        in ended.stderr
    )
    assert written(tmp_path / "run") == ["checkpoint-1"]
