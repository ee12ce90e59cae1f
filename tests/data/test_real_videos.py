"""
Real footage: the 928 clips of JHMDB, cut from films and web videos, in the layout of its release.

They are not part of the repository. `DVFLNET_REAL_VIDEOS` names the folder of the release; without it, these tests are
skipped.
"""

import csv
import json
import os
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.reformatter import VideoReformatter

from hf_dvflnet import load_benchmark, read_video
from hf_dvflnet.clip_sampling import evaluation_indices
from hf_dvflnet.data.augmentation import training_indices
from hf_dvflnet.data.label_sets import LABEL_SETS
from hf_dvflnet.data.loading import split_facts
from hf_dvflnet.data.verification import verify_benchmark


VARIABLE = "DVFLNET_REAL_VIDEOS"
REASON = f"{VARIABLE} does not name the folder of JHMDB's release: nothing was tested on real footage"

# pytest folds these into one line of its summary, unless a test has a mark of its own
pytestmark = [] if VARIABLE in os.environ else [pytest.mark.skip(reason=REASON)]


@pytest.fixture(scope="module")
def jhmdb() -> Path:
    folder = os.environ[VARIABLE]
    assert Path(folder or "/nowhere").is_dir(), f"{VARIABLE} is {folder!r}, which is not a folder"
    return Path(folder)


@pytest.fixture
def load(jhmdb):
    def load(split: str, data_dir: Path = jhmdb, name: str = "jhmdb", **options):
        return load_benchmark(name, data_dir, split, **options)

    return load


def every_frame(path: str) -> np.ndarray:
    """All frames, one after the other, in one thread."""
    reformatter = VideoReformatter()
    with av.open(path) as container:
        container.streams.video[0].thread_type = "NONE"
        frames = container.decode(video=0)
        return np.stack([reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray() for frame in frames])


def test_the_official_split_has_its_clips(load):
    for split, count in {"train": 660, "test": 268}.items():
        clips = load(split)
        assert (len(clips), split_facts(clips)["missing"]) == (count, [])
        names = clips.features["label"].names
        assert all(names[row["label"]] == Path(row["video"]["path"]).parent.name for row in clips)


def test_groups_are_those_of_the_list_beside_the_release(load, jhmdb):
    if not (jhmdb / "groups.csv").is_file():
        pytest.skip("groups.csv, which is not part of the release, does not lie beside it")
    with open(jhmdb / "groups.csv", newline="", encoding="utf-8") as file:
        expected = {row["clip"].removesuffix(".avi"): row["group"] for row in csv.DictReader(file)}
    names = LABEL_SETS["jhmdb"].names
    clips = [row for split in ("train", "test") for row in load(split)]
    assert {row["video_id"]: f"{names[row['label']]}/{row['group']}" for row in clips} == expected
    assert len({row["group"] for row in clips}) == 336


def test_sampled_frames_of_the_test_clips_are_those_of_a_full_decode(load):
    generator = np.random.default_rng(0)
    compared = 0
    for row in load("test"):
        path = row["video"]["path"]
        reference = every_frame(path)
        total = len(reference)
        rules = (evaluation_indices(total, num_frames=8), training_indices(total, num_frames=8, generator=generator))
        for asked in rules:
            frames, metadata = read_video(path, asked)
            assert metadata.total_num_frames == total, path
            assert np.array_equal(frames, reference[asked]), path
        compared += 1
    assert compared == 268


def test_verification_finds_nothing_missing(jhmdb, tmp_path):
    found = verify_benchmark("jhmdb", jhmdb, tmp_path / "report.jsonl", min_frames=15, num_workers=0)
    faults = {"missing": 0, "empty": 0, "undecodable": 0, "short": 0, "duplicate": 0, "leaked": 0}
    assert found["counts"] == {
        split: {"listed": count, "official": count, "ok": count, **faults}
        for split, count in {"train": 660, "test": 268}.items()
    }
    frames = [json.loads(line)["frames"] for line in (tmp_path / "report.jsonl").read_text().splitlines()]
    assert (min(frames), max(frames)) == (15, 40)
