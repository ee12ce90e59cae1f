"""Every command that takes files of others goes on when one of them crashes its decoder."""

import json
import shutil
import threading

import pytest
import torch
from mini_releases import write_ucf101
from places import HELPERS

from hf_dvflnet import load_model
from hf_dvflnet.data import sandbox


@pytest.fixture(autouse=True)
def crashing(monkeypatch):
    """Decoders crash at files with `crashes` in their name; in the process of the test, this ends it."""
    monkeypatch.setenv("PYTHONPATH", str(HELPERS / "crashing"))
    monkeypatch.setenv("DVFLNET_TEST_CRASH", "crashes")
    monkeypatch.setattr(sandbox, "_local", threading.local())


@pytest.fixture
def clips(tmp_path, video_files):
    """Class folders with a video that crashes its decoder in each split."""
    for split in ("train", "validation", "test"):
        for name, label in (("a.mp4", "jump"), ("crashes.mp4", "jump"), ("b.mp4", "wave")):
            (tmp_path / "clips" / split / label).mkdir(parents=True, exist_ok=True)
            shutil.copy(video_files["h264_short_gop.mp4"], tmp_path / "clips" / split / label / name)
    return tmp_path / "clips"


@pytest.fixture
def model(tiny_folder):
    """A model of the two classes."""
    network = load_model(str(tiny_folder))
    network.classifier = torch.nn.Linear(network.config.hidden_size, 2)
    network.config.id2label = {0: "jump", 1: "wave"}
    network.save_pretrained(tiny_folder)
    return tiny_folder


CRASHED = r"ended (SIGSEGV): its decoder crashed"


def test_predict_names_it_and_answers_the_others(dvflnet, model, clips):
    code, out, err = dvflnet("predict", model, clips / "test")
    assert code == 1 and "a.mp4" in out and "b.mp4" in out and CRASHED in err


def test_predict_to_a_table_has_a_row_for_it(dvflnet, model, clips, tmp_path):
    assert dvflnet("predict", model, clips / "test", "--output", tmp_path / "rows.jsonl", "--num_workers", 2)[0] == 0
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert [row["error_kind"] for row in rows] == [None, "DecoderCrash", None]


def test_evaluate_counts_it_as_missing(dvflnet, model, clips, tmp_path):
    options = ("--dataset", "folder", "--data_dir", clips, "--output", tmp_path / "out")
    code, _, err = dvflnet("evaluate", model, *options)
    assert code == 1 and CRASHED in err and "1 of 3 clips" in err


def test_prepare_calls_it_unreadable(dvflnet, clips, tmp_path):
    code, _, err = dvflnet("prepare", clips / "test", tmp_path / "out")
    assert code == 1 and "crashes.mp4" in err and CRASHED in err
    assert len(list((tmp_path / "out").rglob("*.mp4"))) == 2


def test_verify_calls_it_undecodable(dvflnet, tmp_path, monkeypatch):
    write_ucf101(tmp_path / "ucf101")
    monkeypatch.setenv("DVFLNET_TEST_CRASH", "bytes")  # clips are given as bytes, which have no other name
    options = ("--report", tmp_path / "report.jsonl", "--num_workers", 2, "--classes", "JumpRope")
    assert dvflnet("verify", "ucf101", tmp_path / "ucf101", *options)[0] == 1
    rows = [json.loads(line) for line in (tmp_path / "report.jsonl").read_text().splitlines()]
    assert {row["outcome"] for row in rows if "bytes" in row} <= {"undecodable", "empty"}
    assert any(CRASHED in (row.get("reason") or "") for row in rows)


@pytest.mark.parametrize("workers", [0, 1])
def test_cache_teacher_replaces_it(dvflnet, model, clips, tmp_path, workers):
    options = ("--dataset", "folder", "--data_dir", clips, "--views", 1, "--num_workers", workers)
    assert dvflnet("cache-teacher", model, tmp_path / "cache", *options)[0] == 0
