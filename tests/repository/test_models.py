"""The trained models of the repository: their files, their cards, and that they answer rightly."""

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForVideoClassification, AutoVideoProcessor, pipeline

from hf_dvflnet import load_model, load_processor, load_video_folder
from hf_dvflnet.data.motion_videos import write_motion_videos
from hf_dvflnet.inference.evaluation import predict_clips


MODELS = Path(__file__).parents[2] / "examples" / "models"
sys.path.insert(0, str(MODELS))

import publish  # noqa: E402


ROLES = ["teacher", "student"]
FOLDERS = publish.FOLDERS
RESULTS = json.loads(publish.RESULTS.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def test_clips(tmp_path_factory) -> Path:
    """Three of the 30 test clips of each class, as `dvflnet render` makes them."""
    counts = {"train": 1, "validation": 0, "test": 3}
    return write_motion_videos(tmp_path_factory.mktemp("motions"), clips_per_class=counts, num_workers=0, size=64)


@pytest.mark.parametrize("role", ROLES)
def test_weights_are_stored_in_half_precision_and_load_as_float32(role):
    folder = FOLDERS[role]
    with safe_open(folder / "model.safetensors", "pt") as file:
        assert {file.get_slice(name).get_dtype() for name in file.keys()} == {"F16"}  # noqa: SIM118
    assert AutoModelForVideoClassification.from_pretrained(folder).dtype == torch.float32
    assert pipeline("video-classification", model=str(folder), device="cpu").model.dtype == torch.float32
    assert AutoVideoProcessor.from_pretrained(folder).crop_size.height == 64


def test_both_models_are_small():
    sizes = {role: sum(file.stat().st_size for file in folder.iterdir()) for role, folder in FOLDERS.items()}
    assert sizes["teacher"] <= 6e6 and sizes["student"] <= 2e6  # the student is in every installed package
    assert 3 * RESULTS["student"]["parameters"] <= RESULTS["teacher"]["parameters"]
    assert RESULTS["teacher"]["top1"] >= 0.95 and RESULTS["teacher"]["clips"] == 480


@pytest.mark.parametrize("role", ROLES)
def test_the_card_has_the_figures_of_the_results(role):
    card = (FOLDERS[role] / "README.md").read_text(encoding="utf-8")
    assert card.strip() == str(publish.card(role, RESULTS)).strip()


@pytest.mark.parametrize("role", ROLES)
def test_the_figures_hold_on_a_slice_of_the_test_clips(role, test_clips):
    folder = str(FOLDERS[role])
    rows = load_video_folder(test_clips)["test"]
    predictions, _ = predict_clips(load_model(folder), load_processor(folder), rows, batch_size=16)
    right = sum(row["top5"][0][0] == row["label"] for row in predictions)
    stated = RESULTS[role]["top1"]
    # three standard errors of 48 clips
    assert len(predictions) == 48 and right / 48 >= stated - 3 * (stated * (1 - stated) / 48) ** 0.5


def test_the_student_that_the_readme_shows_answers_a_clip_of_each_class_rightly(dvflnet, tmp_path):
    dvflnet("render", tmp_path / "motions", "--train", 0, "--validation", 0)
    clips = sorted((tmp_path / "motions" / "test").glob("*/0000.mp4"))
    code, out, _ = dvflnet("predict", FOLDERS["student"], *clips, "--json")
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 0 and len(rows) == 16
    best = {Path(row["video"]).parent.name: row["answers"][0] for row in rows}
    assert {name: answer["label"] for name, answer in best.items()} == {name: name for name in best}
    assert min(answer["score"] for answer in best.values()) > 0.5
