"""
A release with some of its classes: those that are chosen, with the official lists cut to them.

`DVFLNET_UCF101` names a folder in the layout of UCF101's release with at least the class Basketball; without it, the
tests on that are skipped.
"""

import json
import os
import shutil
import warnings
from pathlib import Path

import pytest
from mini_releases import write_hmdb51, write_ucf101

from hf_dvflnet import VideoFocalNetForVideoClassification, load_benchmark, prepare_videos
from hf_dvflnet.data.loading import split_facts
from hf_dvflnet.data.verification import verify_benchmark
from hf_dvflnet.inference.evaluation import describe_split


PRESENT = ["ApplyEyeMakeup", "HammerThrow", "Hammering", "HandstandPushups", "JumpRope"]


@pytest.fixture(scope="module")
def release(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("ucf101")
    write_ucf101(root)
    return root


@pytest.fixture
def load(release):
    def load(split: str, *, data_dir=release, name="ucf101", **options):
        return load_benchmark(name, data_dir, split, **options)

    return load


def test_all_classes_are_loaded_unless_some_are_chosen(load):
    assert len(load("test").features["label"].names) == 101
    assert "part" not in split_facts(load("test"))


def test_the_chosen_classes_have_the_first_ids_in_the_order_of_the_benchmark(load):
    clips = load("test", classes=["JumpRope", "ApplyEyeMakeup"])
    assert clips.features["label"].names == ["ApplyEyeMakeup", "JumpRope"]
    assert [(row["video_id"].split("/")[0], row["label"]) for row in clips] == [("ApplyEyeMakeup", 0)] * 2 + [
        ("JumpRope", 1)
    ] * 2
    facts = split_facts(clips)
    assert (facts["listed"], facts["missing"], facts["part"]) == (4, [], "2 of 101 classes")
    assert describe_split(facts) == "ucf101 (2 of 101 classes), official fold 1, test"


def test_classes_without_videos_are_named_once_and_left_out_on_request(load):
    with warnings.catch_warnings(record=True) as caught:  # with Python's own filter, which shows a text once
        for split in ("train", "test"):
            clips = load(split, classes="present")
            assert sorted(clips.features["label"].names) == PRESENT
    said = [str(warning.message) for warning in caught if "classes have no videos" in str(warning.message)]
    assert said[0].startswith("UCF101: 96 of 101 classes have no videos in ")
    assert len(set(said)) == 1


@pytest.mark.parametrize(
    ("classes", "got"), [(["JumpRope", "Jumping"], "'Jumping'"), ("JumpRope", "'JumpRope'"), ([], r"\[\]")]
)
def test_other_classes_are_refused(load, classes, got):
    with pytest.raises(ValueError, match=f"classes must be 'present' or a list of classes of UCF101, .*; got {got}"):
        load("test", classes=classes)


def test_a_release_without_any_listed_video_has_no_classes(load, release):
    with pytest.raises(FileNotFoundError, match="contains none of the listed videos"):
        load("test", data_dir=release / "ucfTrainTestlist", classes="present")


@pytest.mark.filterwarnings("ignore:.*(no videos|missing in):UserWarning")
def test_classes_are_chosen_from_lists_of_each_class_too(load, tmp_path):
    write_hmdb51(tmp_path / "hmdb51")
    clips = load("train", name="hmdb51", data_dir=tmp_path / "hmdb51", classes="present")
    assert clips.features["label"].names == ["brush_hair", "climb", "climb_stairs", "sword"]


def test_prepared_classes_are_those_of_the_release(load, release, tmp_path):
    prepare_videos(release, tmp_path / "prepared", num_workers=0)
    before, after = (load("test", data_dir=of, classes=["HammerThrow"]) for of in (release, tmp_path / "prepared"))
    assert sorted(after["video_id"]) == sorted(before["video_id"])
    assert after.features == before.features


def test_class_folders_have_no_classes_to_choose(motion_tree):
    with pytest.raises(ValueError, match=r"its splits are defined by its folders or files, so classes=\['a'\]"):
        load_benchmark("folder", motion_tree, "train", classes=["a"])


def test_a_clip_in_both_lists_is_refused(load, release, tmp_path):
    shutil.copytree(release, tmp_path / "copy")
    with open(tmp_path / "copy" / "ucfTrainTestlist" / "trainlist01.txt", "a") as file:
        file.write("JumpRope/v_JumpRope_g01_c02.avi 48\n")
    with pytest.raises(ValueError, match="the lists have 'JumpRope/v_JumpRope_g01_c02' in both train and test"):
        load("test", data_dir=tmp_path / "copy")


def test_a_model_of_the_chosen_classes_is_evaluated_with_twelve_views(
    release, tmp_path, tiny_config, tiny_processor, dvflnet
):
    names = ["ApplyEyeMakeup", "HammerThrow"]
    tiny_config.id2label = dict(enumerate(names))
    tiny_config.label2id = {name: index for index, name in enumerate(names)}
    VideoFocalNetForVideoClassification(tiny_config).save_pretrained(tmp_path / "model")
    tiny_processor.save_pretrained(tmp_path / "model")
    options = ("--dataset", "ucf101", "--data-dir", release, "--classes", *names, "--views", 12, "--num-workers", 0)
    code, out, error = dvflnet("evaluate", tmp_path / "model", *options, "--output", tmp_path / "out", "--json")
    assert code == 0, error
    assert json.loads(out)["clips"] == 4
    header = json.loads((tmp_path / "out" / "predictions.jsonl").read_text().splitlines()[0])
    assert (header["classes"], header["part"]) == (names, "2 of 101 classes")


def test_a_training_clip_that_is_also_tested_is_named_and_left_out_on_request(load, release, tmp_path, dvflnet):
    shutil.copytree(release, tmp_path / "copy")
    folder = tmp_path / "copy" / "UCF-101" / "JumpRope"
    shutil.copy(folder / "v_JumpRope_g01_c02.avi", folder / "v_JumpRope_g22_c01.avi")
    report = tmp_path / "report.jsonl"
    options = ("--classes", "JumpRope", "--report", report, "--num-workers", 0)
    code, out, _ = dvflnet("verify", "ucf101", tmp_path / "copy", *options)
    assert code == 0
    assert "JumpRope/v_JumpRope_g22_c01 in train: same bytes as JumpRope/v_JumpRope_g01_c02 in test" in out
    table = {line.split()[0]: line.split()[1:] for line in out.splitlines()}
    assert (table["train"], table["test"]) == (
        ["6", "-", "5", "0", "0", "0", "0", "0", "1"],
        ["2", "-", "1", "0", "0", "0", "1", "0", "0"],
    )
    clips = load("train", data_dir=tmp_path / "copy", classes=["JumpRope"], block_list=report)
    assert split_facts(clips)["blocked"] == ["JumpRope/v_JumpRope_g22_c01"]
    assert "JumpRope/v_JumpRope_g22_c01" not in clips["video_id"]
    assert len(load("train", data_dir=tmp_path / "copy", classes=["JumpRope"])) == 6  # the official list


VARIABLE = "DVFLNET_UCF101"
real = pytest.mark.skipif(VARIABLE not in os.environ, reason=f"{VARIABLE} does not name UCF101's release")


@real
@pytest.mark.filterwarnings("ignore:.*no videos:UserWarning")
def test_the_present_classes_of_the_real_release_are_whole(load):
    for fold in (1, 2, 3):
        for split in ("train", "test"):
            clips = load(split, data_dir=os.environ[VARIABLE], fold=fold, classes="present")
            assert split_facts(clips)["missing"] == []
            assert set(clips["label"]) == set(range(len(clips.features["label"].names)))


@real
def test_the_basketball_clip_on_both_sides_of_the_first_split_is_named(tmp_path):
    options = {"classes": ["Basketball"], "num_workers": 0}
    found = verify_benchmark("ucf101", os.environ[VARIABLE], tmp_path / "report.jsonl", **options)
    assert found["leaked"] == {
        "Basketball/v_Basketball_g23_c01": "same bytes as Basketball/v_Basketball_g03_c01 in test"
    }
    found = verify_benchmark("ucf101", os.environ[VARIABLE], tmp_path / "second.jsonl", fold=2, **options)
    assert found["leaked"] == {}
