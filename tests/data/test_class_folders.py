import shutil
import unicodedata
from pathlib import Path

import pytest

from hf_dvflnet import load_benchmark, load_video_folder


NFC, NFD = (unicodedata.normalize(form, "caf\u00e9") for form in ("NFC", "NFD"))


def test_class_folders_become_splits_with_labels(video_tree):
    data = load_video_folder(video_tree)
    assert list(data) == ["train", "validation", "test"]
    assert data["train"].features["label"].names == ["jump", "wave hands"]
    assert data["train"]["label"] == [0, 1, 1, 1]
    assert data["test"][1]["video_id"].startswith("wave hands/0.")
    assert data["train"][0]["video"] == {"path": str(video_tree / "train" / "jump" / "0.mp4"), "bytes": None}


@pytest.mark.parametrize(
    "spoil, error, message",
    [
        (
            lambda tree: shutil.rmtree(tree / "train"),
            FileNotFoundError,
            r"`train` \(its folders: test, val\)",
        ),
        (lambda tree: shutil.rmtree(tree), FileNotFoundError, "the folder does not exist"),
        (
            lambda tree: (tree / "test" / "jump").rename(tree / "test" / "swim"),
            ValueError,
            "swim in test is not a class",
        ),
        (lambda tree: (tree / "train" / "swim").mkdir(), ValueError, "swim: contains no videos"),
        (lambda tree: [shutil.rmtree(p) for p in (tree / "train").iterdir()], ValueError, "has no class folders"),
    ],
)
def test_a_tree_that_does_not_fit_is_refused(video_tree, spoil, error, message):
    spoil(video_tree)
    with pytest.raises(error, match=message):
        load_video_folder(video_tree)


def ids(data) -> dict[str, list[str]]:
    return {split: rows["video_id"] for split, rows in data.items()}


def move(source: Path, target: Path):
    target.parent.mkdir(parents=True, exist_ok=True)
    source.rename(target)


# what is left out: the tree is read as if the file were not there, and the warning names it
LEFT_OUT = {
    "train/jump/._0.mp4": "1 hidden or system files (train/jump/._0.mp4)",
    "train/.ipynb_checkpoints/0.mp4": "1 hidden or system files (train/.ipynb_checkpoints/0.mp4)",
    "test/__MACOSX/0.mp4": "1 hidden or system files (test/__MACOSX/0.mp4)",
    "@eaDir/0.mp4": "1 hidden or system files (@eaDir/0.mp4)",
    "train/jump/more/1.mp4": "1 videos that are not at {train,validation,val,valid,test}/<class>/<video> "
    "(train/jump/more/1.mp4)",
    "train/0.mp4": "1 videos that are not at {train,validation,val,valid,test}/<class>/<video> (train/0.mp4)",
    "Test/jump/0.mp4": "1 videos that are not at {train,validation,val,valid,test}/<class>/<video> (Test/jump/0.mp4)",
    "train/jump/0.rmvb": "1 files with other endings (train/jump/0.rmvb)",
}


@pytest.mark.parametrize("name", LEFT_OUT)
def test_a_video_that_is_left_out_is_named(video_tree, name):
    expected = ids(load_video_folder(video_tree))
    (video_tree / name).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(video_tree / "train" / "jump" / "0.mp4", video_tree / name)
    with pytest.warns(UserWarning) as said:
        assert ids(load_video_folder(video_tree)) == expected
    assert [str(one.message) for one in said] == [f"{video_tree}: left out: {LEFT_OUT[name]}"]
    assert said[0].filename == __file__


def test_a_split_that_is_not_there_is_named_with_its_place(video_tree):
    shutil.rmtree(video_tree / "test")
    with pytest.raises(ValueError, match="has no split 'test', only train, .*; put videos into test/<class>/"):
        load_benchmark("folder", video_tree, "test")


def test_two_folders_of_one_split_are_refused(video_tree):
    shutil.copytree(video_tree / "val", video_tree / "valid")
    with pytest.raises(ValueError, match="val and .*/valid: are the same split; merge them"):
        load_video_folder(video_tree)


# one name, composed and decomposed


@pytest.fixture
def accented_tree(video_tree) -> Path:
    """A class whose name is composed in the training split, and decomposed in the others."""
    for split, name in (("train", NFC), ("val", NFD), ("test", NFD)):
        (video_tree / split / "wave hands").rename(video_tree / split / name)
    return video_tree


def test_composed_and_decomposed_spellings_are_one_class(accented_tree):
    data = load_video_folder(accented_tree)
    assert data["test"].features["label"].names == [NFC, "jump"]
    assert all(row["video_id"].startswith(f"{NFC}/") for row in data["test"] if row["label"] == 0)
    assert Path(data["test"][0]["video"]["path"]).is_file()


def test_both_spellings_in_one_split_are_refused(accented_tree):
    shutil.copytree(accented_tree / "train" / NFC, accented_tree / "train" / NFD)
    with pytest.raises(ValueError, match="train: has two folders named 'caf\u00e9'.*; merge them"):
        load_video_folder(accented_tree)
