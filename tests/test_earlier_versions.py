"""What earlier versions of the package saved opens, and goes on, with this one."""

import importlib
import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoImageProcessor, AutoModelForVideoClassification, AutoVideoProcessor

from hf_dvflnet import cache_teacher
from hf_dvflnet.training.checkpoints import last_whole_checkpoint
from hf_dvflnet.training.teacher_cache import TeacherCache


VERSIONS = Path(__file__).parent / "earlier_versions"
sys.path.insert(0, str(VERSIONS))

from write_version import new_trainer, training_clips  # noqa: E402


@pytest.fixture(params=sorted(path.parent.name for path in VERSIONS.glob("*/expected.json")))
def saved(request, tmp_path) -> Path:
    """A copy of what a version saved."""
    return Path(shutil.copytree(VERSIONS / request.param, tmp_path / "saved"))


@pytest.fixture
def expected(saved) -> dict:
    return json.loads((saved / "expected.json").read_text())


def test_a_model_folder_gives_the_logits_that_it_gave(saved, expected):
    model = AutoModelForVideoClassification.from_pretrained(saved / "model").eval()
    clip = AutoVideoProcessor.from_pretrained(saved / "model")(
        str(saved / "clips/train/jump/0.mp4"), return_tensors="pt"
    )
    with torch.no_grad():
        logits = model(**clip).logits[0]
    torch.testing.assert_close(logits, torch.tensor(expected["logits"]), rtol=0, atol=1e-5)
    assert AutoImageProcessor.from_pretrained(saved / "model").crop_size.height == 32


def test_a_checkpoint_is_gone_on_from_to_the_weights_that_the_run_ended_at(saved):
    checkpoint = last_whole_checkpoint(saved / "run")
    assert checkpoint == str(saved / "run" / "checkpoint-2")
    trainer = new_trainer(saved / "run", saved / "teacher_cache", training_clips(saved))
    trainer.train(resume_from_checkpoint=checkpoint)
    assert trainer.state.global_step == 4
    weights = trainer.model.state_dict()
    for name, weight in load_file(saved / "run" / "final_weights.safetensors").items():
        torch.testing.assert_close(weights[name], weight, rtol=0, atol=1e-4, msg=name)


def test_a_teacher_cache_holds_what_it_held(saved, expected):
    cache = TeacherCache(saved / "teacher_cache")
    for name, views in expected["cached"].items():
        for view, logits in enumerate(views):
            assert cache.logits(name, view, name).tolist() == logits
    cache.refuse_other_clips(training_clips(saved))
    cache.refuse_other_teacher(AutoModelForVideoClassification.from_pretrained(saved / "model"))


def test_a_teacher_cache_is_gone_on_with(saved, expected):
    teacher = AutoModelForVideoClassification.from_pretrained(saved / "model")

    def go_on() -> int:
        clips = training_clips(saved)
        return cache_teacher(teacher, clips, saved / "teacher_cache", views=2, name="model", dtype="float32")[
            "written"
        ]

    assert go_on() == 0
    (saved / "teacher_cache" / "logits-00000.parquet").unlink()
    assert go_on() == 8
    cache = TeacherCache(saved / "teacher_cache")
    for name, views in expected["cached"].items():
        for view, logits in enumerate(views):
            torch.testing.assert_close(cache.logits(name, view, name), torch.tensor(logits), rtol=0, atol=1e-5)


def test_a_public_name_is_where_it_was(expected):
    for module, names in expected["names"].items():
        missing = [name for name in names if not hasattr(importlib.import_module(module), name)]
        assert set(missing) <= {"VideoClipStream", "predict_windows", "predict_with_ray"}, module
