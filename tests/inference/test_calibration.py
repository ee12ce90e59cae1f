import json
from pathlib import Path

import pytest
import torch
from commands import refused
from small_trainings import arguments
from transformers import AutoModelForVideoClassification

from hf_dvflnet import VideoClassificationTrainer, VideoTrainingArguments, load_model
from hf_dvflnet.data.motion_videos import write_motion_videos
from hf_dvflnet.hub.model_folder import save_motions_student


@pytest.fixture(scope="module")
def motions(tmp_path_factory) -> Path:
    clips = {"train": 1, "validation": 4, "test": 0}
    return write_motion_videos(tmp_path_factory.mktemp("motions"), clips_per_class=clips, size=64, num_workers=0)


@pytest.fixture
def unsure(tmp_path) -> Path:
    """The student that comes with the package, made less sure than it should be, and wrong at times."""
    folder = save_motions_student(tmp_path / "unsure")
    model = load_model(str(folder))
    torch.manual_seed(0)
    model.classifier.weight.data += 0.4 * torch.randn_like(model.classifier.weight)
    model.classifier.weight.data /= 8
    model.classifier.bias.data /= 8
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def calibrate(dvflnet, motions, tmp_path):
    def calibrate(model, name, *options):
        words = ("--data_dir", motions, "--output", tmp_path / name, "--num_workers", 0, "--device", "cpu", "--json")
        code, out, err = dvflnet("calibrate", model, *words, *options)
        assert code == 0, err
        return json.loads(out)

    return calibrate


def test_a_calibrated_model_is_as_right_as_before_and_as_sure_as_it_is_right(calibrate, unsure, tmp_path):
    found = calibrate(unsure, "calibrated")
    assert found["temperature"] < 0.7
    assert found["ece_after"] < found["ece_before"] / 2
    assert found["top1_after"] == found["top1_before"] < 1
    # without this package's loader, as by remote code
    models = [
        AutoModelForVideoClassification.from_pretrained(each).eval() for each in (unsure, tmp_path / "calibrated")
    ]
    clip = torch.randn(2, 8, 3, 64, 64)
    before, after = (model(clip).logits for model in models)
    torch.testing.assert_close(after, before / found["temperature"])
    assert models[1].config.calibration["views"] == 1 and not hasattr(models[1].config, "threshold")
    card = (tmp_path / "calibrated" / "README.md").read_text("utf-8")
    assert f"| calibration | temperature {found['temperature']:.3g}, fitted to 64 clips" in card


def test_calibrating_again_starts_from_the_models_own_logits(calibrate, unsure, tmp_path):
    first = calibrate(unsure, "first", "--coverage", 0.9)
    again = calibrate(tmp_path / "first", "again")
    assert again["temperature"] == pytest.approx(first["temperature"], rel=1e-3)
    assert first["coverage"] >= 0.9 and "threshold" not in again
    assert (tmp_path / "again" / "README.md").read_text("utf-8").count("| calibration |") == 1


def test_views_are_fitted_as_they_are_averaged(calibrate, unsure):
    assert calibrate(unsure, "four", "--views", 4)["views"] == 4


def test_training_takes_the_calibration_out(calibrate, unsure, tmp_path, caplog):
    calibrate(unsure, "calibrated", "--coverage", 0.9)
    model = load_model(str(tmp_path / "calibrated"))
    clips = [{"pixel_values": torch.randn(8, 3, 64, 64), "labels": label} for label in range(4)]
    args = VideoTrainingArguments(**arguments(tmp_path / "run", max_steps=1, learning_rate=0.0))
    trainer = VideoClassificationTrainer(model, args, train_dataset=clips)
    trainer.train()
    own = load_model(str(unsure)).classifier.weight
    torch.testing.assert_close(trainer.model.classifier.weight.detach(), own.detach())
    assert not hasattr(trainer.model.config, "calibration") and not hasattr(trainer.model.config, "threshold")


def test_what_cannot_be_calibrated_is_refused(dvflnet, unsure, motions, motion_tree, tmp_path):
    options = ("--output", tmp_path / "out", "--num_workers", 0)
    refused(dvflnet("calibrate", unsure, "--data_dir", motion_tree, *options), "16 validation clips are too few")
    both = ("--coverage", 0.9, "--max_false_alarms", 0.1)
    refused(dvflnet("calibrate", unsure, "--data_dir", motions, *options, *both), "pass one of them")
    (tmp_path / "program").mkdir()
    (tmp_path / "program" / "export.json").write_text("{}")
    refused(dvflnet("calibrate", tmp_path / "program", "--data_dir", motions, *options), "is exported")
