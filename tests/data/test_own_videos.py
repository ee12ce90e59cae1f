import os
import shutil
from pathlib import Path

import numpy as np
import pandas
import pytest
from videos import read_number, write_video

from hf_dvflnet import load_video_folder, read_video
from hf_dvflnet.data.own_videos import read_own_videos, recordings, split_videos
from hf_dvflnet.data.preparation import prepare_videos


@pytest.fixture
def by_class(tmp_path, video_files) -> Path:
    """Two classes of six clips: two clips of each of three recordings, which the file names tell."""
    for label in ("jump", "wave"):
        for number in range(6):
            place = tmp_path / "mine" / label / f"{label}_g{number // 2}_c0{number % 2}.mp4"
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(video_files["h264_short_gop.mp4"], place)
    return tmp_path / "mine"


def test_clips_of_one_recording_are_in_one_split_and_each_class_in_every_split(by_class, tmp_path):
    found = split_videos(by_class, tmp_path / "out")
    assert (found["clips"], found["classes"], found["recordings"]) == (12, 2, 6)
    assert found["by"] == "the file names without their last number"
    assert found["counts"] == {split: {"jump": 2, "wave": 2} for split in ("test", "train", "validation")}
    clips = pandas.read_csv(tmp_path / "out" / "clips.csv")
    assert clips.groupby("group")["split"].nunique().max() == 1


def test_the_tree_that_is_written_is_read_by_everything_else(by_class, tmp_path):
    split_videos(by_class, tmp_path / "out")
    data = load_video_folder(tmp_path / "out")
    assert {split: len(rows) for split, rows in data.items()} == {"train": 4, "validation": 4, "test": 4}
    frames, _ = read_video(data["train"][0]["video"]["path"])
    assert np.array_equal(frames, read_video(by_class / "jump" / "jump_g0_c00.mp4")[0])


def test_recordings_are_known_to_whoever_loads_the_clips_prepared_or_not(tmp_path, video_files):
    for number in range(6):
        place = tmp_path / "mine" / "ab"[number % 2] / f"recording {number // 2}" / "clip.avi"
        place.parent.mkdir(parents=True)
        shutil.copy(video_files["xvid.avi"], place)
    split_videos(tmp_path / "mine", tmp_path / "out")
    prepare_videos(tmp_path / "out", tmp_path / "prepared", num_workers=0)
    for folder in ("out", "prepared"):
        clips, _ = read_own_videos(tmp_path / folder)
        known = {row.path: row.group for row in clips.itertuples()}
        loaded = [row for rows in load_video_folder(tmp_path / folder).values() for row in rows]
        assert {row["video"]["path"]: row["group"] for row in loaded} == known
        assert sorted(known.values()) == sorted(f"recording {number // 2}" for number in range(6))


def test_a_division_is_the_same_each_time_and_another_with_another_seed(tmp_path, video_files):
    for number in range(40):
        place = tmp_path / "mine" / "ab"[number % 2] / f"{number}" / "clip.mp4"
        place.parent.mkdir(parents=True)
        os.symlink(video_files["h264_short_gop.mp4"], place)

    def division(seed: int) -> dict[str, str]:
        split_videos(tmp_path / "mine", tmp_path / f"out{seed}", seed=seed)
        clips = pandas.read_csv(tmp_path / f"out{seed}" / "clips.csv")
        shutil.rmtree(tmp_path / f"out{seed}")
        return dict(zip(clips["source"], clips["split"], strict=True))

    assert division(0) == division(0) != division(1)


def test_given_splits_are_kept_and_the_missing_one_is_taken_from_training(by_class, tmp_path):
    for file in by_class.glob("*/*"):
        place = by_class / ("test" if "_g2_" in file.name else "train") / file.parent.name
        place.mkdir(parents=True, exist_ok=True)
        file.rename(place / file.name)
    split_videos(by_class, tmp_path / "out")
    clips = pandas.read_csv(tmp_path / "out" / "clips.csv")
    assert set(clips[clips["group"].str.endswith("g2")]["split"]) == {"test"}
    assert sorted(clips[clips["split"] == "validation"]["label"]) == ["jump", "jump", "wave", "wave"]


def test_a_segment_is_cut_to_its_frames(tmp_path):
    write_video(tmp_path / "long.mp4", num_frames=40, rate=25)
    starts = [0.2 * number for number in range(6)]
    table = {"video": ["long.mp4"] * 6, "start": starts, "end": [start + 0.2 for start in starts]}
    table |= {"action": list("ababab"), "group": list("xxyyzz")}
    found = split_videos(write(tmp_path, **table), tmp_path / "out", columns={"path": "video", "label": "action"})
    assert found["by"] == "the column `group`"
    frames, _ = read_video(next((tmp_path / "out").glob("*/b/long_0.2-0.4s.mp4")))
    assert [read_number(frame) for frame in frames] == [5, 6, 7, 8, 9]


def write(tmp_path: Path, **columns) -> Path:
    pandas.DataFrame(columns).to_csv(tmp_path / "list.csv", index=False)
    return tmp_path / "list.csv"


@pytest.mark.parametrize(
    "columns, error, message",
    [
        ({"path": ["a.mp4"]}, ValueError, "has no column 'label'; its columns are path"),
        ({"path": ["no.mp4"], "label": ["a"]}, FileNotFoundError, r"no.mp4: does not exist \(1 videos"),
        ({"path": ["a.mp4"] * 2, "label": ["a", "b"]}, ValueError, r"listed more than once \(a, b\)"),
        ({"path": ["a.mp4"], "label": ["../b"]}, ValueError, "row 1: the label '../b' is no folder name"),
        ({"path": ["a.mp4"], "label": ["a"], "split": ["dev"]}, ValueError, "row 1: the split 'dev' is none of"),
        ({"path": ["a.mp4"], "label": ["a"], "start": [2], "end": [1]}, ValueError, "start 2, end 1; a segment"),
        ({"path": ["a.mp4"], "label": ["a"], "start": [2]}, ValueError, "a segment needs both"),
        ({"path": ["a.mp4"], "label": [None]}, ValueError, "row 1 has no label"),
    ],
)
def test_a_list_that_cannot_be_used_is_refused(tmp_path, video_files, columns, error, message):
    shutil.copy(video_files["h264_short_gop.mp4"], tmp_path / "a.mp4")
    with pytest.raises(error, match=message):
        read_own_videos(write(tmp_path, **columns))


@pytest.mark.parametrize("clips", [3, 4, 5, 12])
def test_few_clips_of_a_class_beside_many_of_another_are_divided(tmp_path, video_files, clips):
    for label, count in (("few", clips), ("many", 30)):
        for number in range(count):
            place = tmp_path / "mine" / label / str(number) / "clip.mp4"
            place.parent.mkdir(parents=True)
            os.symlink(video_files["h264_short_gop.mp4"], place)
    counts = split_videos(tmp_path / "mine", tmp_path / "out")["counts"]
    assert min(count for of_split in counts.values() for count in of_split.values()) >= 1


def test_too_few_recordings_are_refused(by_class, tmp_path):
    shutil.rmtree(by_class / "jump")
    with pytest.raises(ValueError, match="has one class"):
        split_videos(by_class, tmp_path / "out")
    (by_class / "sit" / "monday").mkdir(parents=True)
    shutil.copy(by_class / "wave" / "wave_g0_c00.mp4", by_class / "sit" / "monday")
    with pytest.raises(ValueError, match="sit: has 1 recordings, which cannot be divided into train and test and val"):
        split_videos(by_class, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "names, groups",
    [
        (["v_g01_c01", "v_g01_c02", "v_g02_c01", "v_g03_c01"], ["v_g01", "v_g01", "v_g02", "v_g03"]),
        (
            ["20240131_1015", "20240131_1107", "20240201_0900", "20240202_0900"],
            ["20240131"] * 2 + ["20240201", "20240202"],
        ),
        (["clip_01", "clip_02", "clip_03", "clip_04"], ["clip_01", "clip_02", "clip_03", "clip_04"]),
    ],
)
def test_recordings_are_told_by_names_if_these_say_something(names, groups):
    found, by = recordings(names, [float("nan")] * 4, ["a"] * 4)
    assert found == groups
    assert by.startswith("nothing" if names == groups else "the file names")
