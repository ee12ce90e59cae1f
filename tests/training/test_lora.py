"""LoRA with PEFT: training, resuming, merging, loading and pushing, in Python and through the examples."""

import shutil
import sys
from pathlib import Path

import pytest
import torch
from example_scripts import run_training
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from small_trainings import RandomClips, arguments, new_model
from transformers import pipeline

from dvflnet_cli import runs
from dvflnet_cli.training import Train
from hf_dvflnet import (
    DistillationConfig,
    DistillationTrainer,
    VideoClassificationTrainer,
    VideoFocalNetConfig,
    VideoFocalNetForVideoClassification,
    VideoTrainingArguments,
)


SAVING = {"max_steps": 6, "save_strategy": "steps", "save_steps": 2, "logging_steps": 1}


@pytest.fixture
def base(tmp_path, tiny_config) -> Path:
    """A saved model for adapters."""
    config = VideoFocalNetConfig(**{**tiny_config.to_dict(), "drop_path_rate": 0.5})
    new_model(config, seed=0).save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def with_adapter(base: Path, seed: int = 0, **changes) -> PeftModel:
    model = VideoFocalNetForVideoClassification.from_pretrained(base)
    torch.manual_seed(seed)
    settings = {"r": 2, "lora_dropout": 0.2, "target_modules": "all-linear", "modules_to_save": ["classifier"]}
    return get_peft_model(model, LoraConfig(**{**settings, **changes}))


def trainer_of(model, folder: Path, **changes) -> VideoClassificationTrainer:
    args = VideoTrainingArguments(**arguments(folder, **{**SAVING, **changes}))
    return VideoClassificationTrainer(model, args, train_dataset=RandomClips(16))


def student_of(model, folder: Path, **changes) -> DistillationTrainer:
    args = DistillationConfig(**arguments(folder, **{**SAVING, **changes}))
    teacher = new_model(VideoFocalNetConfig(**{**model.config.to_dict(), "embed_dim": 16}), seed=7)
    return DistillationTrainer(model, args, teacher_model=teacher, train_dataset=RandomClips(16))


# resuming


@pytest.mark.parametrize(
    "make, changes",
    [(trainer_of, {}), (student_of, {}), (student_of, {"feature_weight": 0.5})],
    ids=["alone", "distilled", "distilled with features"],
)
def test_a_resumed_adapter_ends_at_the_same_weights_and_losses(make, changes, base, tmp_path):
    whole = make(with_adapter(base), tmp_path / "run", **changes)
    whole.train()
    shutil.rmtree(tmp_path / "run" / "checkpoint-6")
    resumed = make(with_adapter(base, seed=5), tmp_path / "run", **changes)
    resumed.train(resume_from_checkpoint=True)
    states = [trainer.model.state_dict() for trainer in (whole, resumed)]
    for name, weight in states[0].items():
        assert torch.equal(weight, states[1][name]), name
    logs = [[entry["loss"] for entry in trainer.state.log_history if "loss" in entry] for trainer in (whole, resumed)]
    assert len(logs[0]) == 6 and logs[0] == logs[1]


def test_only_the_adapter_and_the_head_are_trained_and_saved(base, tmp_path):
    trainer = trainer_of(with_adapter(base), tmp_path / "run", max_steps=2)
    before = {name: weight.clone() for name, weight in trainer.model.named_parameters()}
    trainer.train()
    for name, weight in trainer.model.named_parameters():
        if "lora_A" not in name:  # these follow once lora_B is no longer zero
            trained = "lora_B" in name or "classifier.modules_to_save" in name
            assert torch.equal(weight, before[name]) != trained, name
    saved = load_file(tmp_path / "run" / "checkpoint-2" / "adapter_model.safetensors")
    assert all("lora_" in name or "classifier" in name for name in saved)
    assert not (tmp_path / "run" / "checkpoint-2" / "model.safetensors").exists()


def test_a_whole_model_does_not_resume_from_an_adapter(base, tmp_path):
    trainer_of(with_adapter(base), tmp_path / "run", max_steps=2).train()
    other = trainer_of(VideoFocalNetForVideoClassification.from_pretrained(base), tmp_path / "run")
    with pytest.raises(ValueError, match=r"checkpoint-2: contains an adapter .* the model is not a PeftModel"):
        other.train(resume_from_checkpoint=True)


def test_an_adapter_does_not_resume_from_a_whole_model(base, tmp_path):
    trainer_of(VideoFocalNetForVideoClassification.from_pretrained(base), tmp_path / "run", max_steps=2).train()
    other = trainer_of(with_adapter(base), tmp_path / "run")
    with pytest.raises(ValueError, match=r"checkpoint-2: contains a whole model .* the model is a PeftModel"):
        other.train(resume_from_checkpoint=True)


def test_an_adapter_of_other_settings_is_refused(base, tmp_path):
    trainer_of(with_adapter(base), tmp_path / "run", max_steps=2).train()
    for changes, difference in (
        ({"r": 4}, "r was 2 and is 4"),
        ({"lora_alpha": 16}, "lora_alpha was 8 and is 16"),
        ({"target_modules": ["fc1"]}, r"target_modules was .* and is \['fc1'\]"),
    ):
        other = trainer_of(with_adapter(base, **changes), tmp_path / "run")
        with pytest.raises(ValueError, match=f"checkpoint-2: was written by a run with other adapter: {difference}"):
            other.train(resume_from_checkpoint=True)


@pytest.mark.parametrize("make", [trainer_of, student_of])
def test_an_adapter_does_not_resume_on_other_base_weights(make, base, tmp_path):
    make(with_adapter(base), tmp_path / "run", max_steps=2).train()
    other = with_adapter(base)
    with torch.no_grad():
        next(weight for name, weight in other.named_parameters() if name.endswith("fc1.base_layer.bias")).add_(1e-3)
    with pytest.raises(
        ValueError, match="checkpoint-2: was written by a run with other base_weights: [0-9a-f]{64} then"
    ):
        make(other, tmp_path / "run").train(resume_from_checkpoint=True)


# the examples

SHOWN = {
    **{"image_size": 32, "short_side": 36, "num_frames": 4, "per_device_train_batch_size": 8, "use_cpu": True},
    **{"num_train_epochs": 2, "save_strategy": "epoch", "disable_tqdm": True, "report_to": "none"},
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory, motion_tree) -> tuple[Path, dict]:
    """The folder of a run of `train.py` that has adapted a model of other classes, and its options."""
    folder = tmp_path_factory.mktemp("lora")
    config = VideoFocalNetConfig(embed_dim=8, image_size=32, num_frames=4, num_labels=6, drop_path_rate=0.5)
    new_model(config, seed=0).save_pretrained(folder / "base")
    options = {**SHOWN, "data_dir": motion_tree, "output_dir": folder / "out", "model_name_or_path": folder / "base"}
    options |= {"lora_rank": 2, "lora_target_modules": "fc1 fc2"}
    run_training("train", options)
    return folder / "out", options


def test_a_stopped_lora_run_goes_on_from_its_last_checkpoint_to_the_same_model(finished, tmp_path):
    folder, options = finished
    # as if it had been stopped in the second epoch
    stopped = shutil.copytree(folder, tmp_path / "stopped")
    for name in ("results.json", "model.safetensors", "training_args.bin"):
        (stopped / name).unlink()
    shutil.rmtree(stopped / "checkpoint-8")
    run_training("train", {**options, "output_dir": stopped, "resume_from_checkpoint": "last"})
    states = [load_file(place / "model.safetensors") for place in (folder, stopped)]
    for name, weight in states[0].items():
        assert torch.equal(weight, states[1][name]), name


@pytest.fixture(scope="module")
def distilled(tmp_path_factory, finished) -> tuple[Path, dict]:
    """The folder of a run of `distill.py` with LoRA students, and its options."""
    folder, options = finished
    options = {**options, "student_model_name_or_path": options["model_name_or_path"], "num_train_epochs": 1}
    del options["model_name_or_path"]
    options |= {"output_dir": tmp_path_factory.mktemp("distilled") / "out", "teacher_model_name_or_path": folder}
    run_training("distill", options)
    return options["output_dir"], options


@pytest.mark.parametrize("name", ["student", "student_alone"])
def test_a_lora_student_is_saved_as_a_merged_model_that_the_pipeline_opens(name, distilled, motion_tree):
    folder = distilled[0] / name
    assert (folder / "adapter" / "adapter_model.safetensors").is_file()
    clip = str(next(motion_tree.rglob("*.mp4")))
    assert len(pipeline("video-classification", model=str(folder), device="cpu")(clip, top_k=3)) == 3


def test_a_wrong_cache_ends_a_distillation_before_anything_is_trained(distilled, tmp_path, monkeypatch):
    monkeypatch.setattr(VideoClassificationTrainer, "train", lambda *args, **kwargs: pytest.fail("trained"))
    options = {**distilled[1], "output_dir": tmp_path / "out", "teacher_cache": tmp_path / "cache"}
    with pytest.raises(FileNotFoundError, match="contains no teacher_cache.json"):
        run_training("distill", options)


@pytest.mark.parametrize(
    "options, reason",
    [
        ({"lora_target_modules": ["fc1"]}, "--lora_target_modules needs --lora_rank"),
        ({"lora_rank": 0}, "--lora_rank 0 .*positive integer"),
        ({"lora_rank": 2, "lora_target_modules": ["fc1", "query"]}, "query: no such layer.*fc1, fc2"),
        ({"lora_rank": 2, "lora_target_modules": ["classifier"]}, "classifier: no such layer apart from the head"),
        ({"lora_rank": 2, "lora_target_modules": ["norm1"]}, "norm1: Target module LayerNorm.* is not supported"),
    ],
)
def test_a_lora_option_that_cannot_be_met_is_refused_in_a_line(options, reason, base, tmp_path):
    model = VideoFocalNetForVideoClassification.from_pretrained(base)
    args = VideoTrainingArguments(**arguments(tmp_path / "out"))
    with pytest.raises(ValueError, match=reason):
        runs.with_lora(model, Train(**options), args)


def test_pushing_while_training_an_adapter_is_refused(base, tmp_path):
    args = VideoTrainingArguments(**arguments(tmp_path / "out"), push_to_hub=True)
    model = VideoFocalNetForVideoClassification.from_pretrained(base)
    with pytest.raises(ValueError, match="--push_to_hub would mix"):
        runs.with_lora(model, Train(lora_rank=2), args)


def test_lora_without_peft_names_the_extra(base, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    args = VideoTrainingArguments(**arguments(tmp_path / "out"))
    model = VideoFocalNetForVideoClassification.from_pretrained(base)
    with pytest.raises(ImportError, match=r"pip install 'hf_dvflnet\[peft\]'"):
        runs.with_lora(model, Train(lora_rank=2), args)
