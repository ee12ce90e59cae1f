"""A model with `config.threshold` gives no answer below it, wherever it is used, and says its best guess."""

import csv
import io
import json
from pathlib import Path

import pytest

from hf_dvflnet import export_model, load_exported, load_model, load_processor, predict_to_file
from hf_dvflnet.hub.calibration import threshold_of
from hf_dvflnet.inference.demo_page import build_page


@pytest.fixture
def silent(tiny_folder) -> Path:
    """A model that is never sure enough."""
    config = json.loads((tiny_folder / "config.json").read_text())
    (tiny_folder / "config.json").write_text(json.dumps({**config, "threshold": 0.99}))
    return tiny_folder


@pytest.fixture
def video(video_files) -> Path:
    return video_files["h264_short_gop.mp4"]


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_predict_gives_no_label_and_the_best_guess_beside_it(dvflnet, silent, video):
    best = json.loads(dvflnet("predict", silent, video, "--json")[1])["answers"]
    assert best[0]["label"] is None and best[0]["best_guess"].startswith("LABEL_") and best[1]["label"]
    assert f"none of these (best guess: {best[0]['best_guess']})" in dvflnet("predict", silent, video)[1]


def test_files_of_predictions_have_a_column_for_the_best_guess(silent, video, tmp_path):
    predict_to_file(load_model(str(silent)), load_processor(str(silent)), [video], tmp_path / "out.csv", num_workers=0)
    (row,) = rows_of((tmp_path / "out.csv").read_text())
    assert row["label_1"] == "" and row["best_guess"].startswith("LABEL_")
    model = load_model(str(silent))
    model.config.threshold = 0.01
    predict_to_file(model, load_processor(str(silent)), [video], tmp_path / "sure.csv", num_workers=0)
    (sure,) = rows_of((tmp_path / "sure.csv").read_text())
    assert (sure["label_1"], sure["best_guess"]) == (row["best_guess"], "")


def test_watch_and_segments_find_nothing(dvflnet, silent, video):
    lines = dvflnet("watch", silent, video, "--window", 0.5, "--json")[1].splitlines()
    assert json.loads(lines[0])["label"] is None
    lines = dvflnet("watch", silent, video, "--window", 0.5, "--json", "--threshold", 0.01)[1].splitlines()
    assert json.loads(lines[0])["label"] is not None
    found = dvflnet("segments", silent, video, "--window", 0.5, "--start_score", 0.001, "--end_score", 0.001)
    assert rows_of(found[1]) == [] and "--start_score is 0.99" in found[2]


def test_the_demo_page_says_none_of_these(silent, video):
    model, processor = load_model(str(silent)), load_processor(str(silent))
    page = build_page({"tiny": (model, processor)}, [video], 60.0)
    answer = next(one.fn for one in page.fns.values() if one.fn.__name__ == "answer_example")
    scores, notes, _ = answer(0, "tiny")
    assert all(label.endswith("?") for label in scores)
    assert notes.split("\n\n")[1].startswith("None of these")


@pytest.mark.slow
def test_an_exported_folder_keeps_the_threshold(silent, tmp_path):
    pytest.importorskip("onnxruntime", reason="needs the extra export")
    export_model(silent, tmp_path / "program", format="onnx")
    assert threshold_of(load_exported(tmp_path / "program").config) == 0.99
