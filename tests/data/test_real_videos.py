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
import torch
from av.video.reformatter import VideoReformatter

from hf_dvflnet import (
    VideoFocalNetForVideoClassification,
    VideoStreamClassifier,
    evaluation_indices,
    load_benchmark,
    prepare_videos,
    read_video,
    split_facts,
    training_indices,
)
from hf_dvflnet.data.label_sets import LABEL_SETS
from hf_dvflnet.data.verification import verify_benchmark
from hf_dvflnet.data.video_column import video_source
from hf_dvflnet.inference.evaluation import predict_clips


VARIABLE = "DVFLNET_REAL_VIDEOS"
REASON = f"{VARIABLE} does not name the folder of JHMDB's release: nothing was tested on real footage"

# pytest folds these into one line of its summary, unless a test has a mark of its own
pytestmark = [] if VARIABLE in os.environ else [pytest.mark.skip(reason=REASON)]


def folder_of(setting: str) -> Path:
    if not setting or not Path(setting).is_dir():
        pytest.fail(
            f"{VARIABLE} is {setting!r}, which is not a folder; unset it, or name the folder of JHMDB's release"
        )
    return Path(setting)


@pytest.fixture(scope="module")
def jhmdb() -> Path:
    return folder_of(os.environ[VARIABLE])


@pytest.fixture
def tiny_model(tiny_config) -> VideoFocalNetForVideoClassification:
    """An untrained network with JHMDB's classes."""
    torch.manual_seed(0)
    tiny_config.id2label = dict(enumerate(LABEL_SETS["jhmdb"].names))
    tiny_config.label2id = {name: index for index, name in tiny_config.id2label.items()}
    return VideoFocalNetForVideoClassification(tiny_config).eval()


@pytest.fixture
def load(jhmdb, tmp_path):
    def load(split: str, data_dir: Path = jhmdb, name: str = "jhmdb", **options):
        return load_benchmark(name, data_dir, split, cache_dir=tmp_path / "cache", **options)

    return load


def every_frame(path: str) -> np.ndarray:
    """All frames, one after the other, in one thread."""
    reformatter = VideoReformatter()
    with av.open(path) as container:
        container.streams.video[0].thread_type = "NONE"
        frames = container.decode(video=0)
        return np.stack([reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray() for frame in frames])


def test_a_setting_that_names_no_folder_fails_rather_than_skips():
    for setting in ("", "no/such/folder", __file__):
        with pytest.raises(pytest.fail.Exception, match=f"{VARIABLE} is '.*', which is not a folder"):
            folder_of(setting)


def test_the_official_split_has_its_clips_and_streams_the_same_ones(load):
    for split, count in {"train": 660, "test": 268}.items():
        clips = load(split)
        assert (len(clips), split_facts(clips)["missing"]) == (count, [])
        assert list(load(split, streaming=True)) == list(clips)
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


def test_sampled_frames_of_all_clips_are_those_of_a_full_decode(load):
    generator = np.random.default_rng(0)
    compared = 0
    for row in (*load("train"), *load("test")):
        path = row["video"]["path"]
        reference = every_frame(path)
        total = len(reference)
        rules = (evaluation_indices(total, num_frames=8), training_indices(total, num_frames=8, generator=generator))
        for asked in rules:
            frames, metadata = read_video(path, asked)
            assert metadata.total_num_frames == total, path
            assert np.array_equal(frames, reference[asked]), path
        compared += 1
    assert compared == 928


def test_verification_finds_nothing_missing(jhmdb, tmp_path):
    found = verify_benchmark("jhmdb", jhmdb, tmp_path / "report.jsonl", min_frames=15, num_workers=0)
    faults = {"missing": 0, "empty": 0, "undecodable": 0, "short": 0, "duplicate": 0}
    assert found["counts"] == {
        split: {"listed": count, "official": count, "ok": count, **faults}
        for split, count in {"train": 660, "test": 268}.items()
    }
    frames = [json.loads(line)["frames"] for line in (tmp_path / "report.jsonl").read_text().splitlines()]
    assert (min(frames), max(frames)) == (15, 40)


def test_clips_prepared_to_tars_keep_ids_labels_groups_and_frames(load, jhmdb, tmp_path):
    out = tmp_path / "prepared"
    done = prepare_videos(jhmdb, out, short_side=64, num_workers=0)
    assert (done["ok"], done["repaired"], done["unreadable"]) == (928, 0, 0)
    columns = ["video_id", "label", "group"]
    prepared_frames = {}
    for split in ("train", "test"):
        expected = {tuple(row[name] for name in columns) for row in load(split)}
        rows = list(load(split, data_dir=out))
        assert {tuple(row[name] for name in columns) for row in rows} == expected
        prepared_frames |= {row["video_id"]: row["video"] for row in rows}
    for row in load("test").select(range(0, 268, 10)):
        frames, metadata = read_video(video_source(prepared_frames[row["video_id"]]))
        assert (len(frames), metadata.height) == (len(every_frame(row["video"]["path"])), 64)


def test_answers_of_twelve_views_repeat_to_the_last_digit(load, tiny_model, tiny_processor):
    clips = load("test")
    first, second = (predict_clips(tiny_model, tiny_processor, clips, views=12) for _ in range(2))
    assert first == second
    predictions, failures = first
    assert (len(predictions), failures) == (268, [])


WINDOW = 8


def first_of_each_class(clips) -> list[np.ndarray]:
    """All frames of the first clip of each class."""
    paths: dict[int, str] = {}
    for row in clips:
        paths.setdefault(row["label"], row["video"]["path"])
    return [read_video(path)[0] for path in paths.values()]


def live_scores(model, processor, frames) -> dict[int, list[float]]:
    """Scores in the order of the ids of each window of a stream, by the index after its last frame."""
    classifier = VideoStreamClassifier(model, processor, window=WINDOW, stride=1, top_k=model.config.num_labels)
    scores = {}
    for end, frame in enumerate(frames, start=1):
        if (answer := classifier.feed(frame)) is not None:
            scores[end] = [score for _, score in sorted(answer.top, key=lambda top: model.config.label2id[top[0]])]
    return scores


def test_a_window_in_one_clip_of_a_stream_is_answered_as_the_clips_frames_alone(load, tiny_model, tiny_processor):
    videos = first_of_each_class(load("test"))
    scores = live_scores(tiny_model, tiny_processor, np.concatenate(videos))
    start = 0
    for frames in videos:
        for end in (WINDOW, len(frames)):
            with torch.inference_mode():
                shown = tiny_processor(list(frames[end - WINDOW : end]), return_tensors="pt")
                alone = tiny_model(**shown).logits[0].softmax(-1).tolist()
            assert scores[start + end] == alone
        start += len(frames)
    assert len(videos) == 21


def test_live_answers_change_more_where_a_stream_goes_from_clip_to_clip(load, tiny_model, tiny_processor):
    videos = first_of_each_class(load("test"))
    scores = live_scores(tiny_model, tiny_processor, np.concatenate(videos))
    ends = np.cumsum([len(frames) for frames in videos])

    def change(end: int) -> float:
        """From the window that ends here to the one that begins here."""
        return float(np.abs(np.subtract(scores[end + WINDOW], scores[end])).sum())

    within = [
        change(end)
        for last, frames in zip(ends, videos, strict=True)
        for end in range(last - len(frames) + WINDOW, last - WINDOW + 1)
    ]
    at_joints = np.array([change(end) for end in ends[:-1]])
    # some clips are alike to a network that has learnt nothing: a wall and a meadow in the same light
    found = at_joints > np.quantile(within, 0.95)
    print(
        f"{found.sum()} of {len(found)} joints found; median change {np.median(at_joints)}, {np.median(within)} within"
    )
    assert found.sum() >= 15
    assert np.median(at_joints) > 3 * np.median(within)


def test_the_clips_load_as_hmdb51_from_its_layout(load, jhmdb, tmp_path):
    root = tmp_path / "hmdb51"
    lists = root / "testTrainMulti_7030_splits"
    lists.mkdir(parents=True)
    (root / "hmdb51_org").mkdir()
    for label in LABEL_SETS["hmdb51"].names:
        text = ""
        if label in LABEL_SETS["jhmdb"].names:
            (root / "hmdb51_org" / label).symlink_to(jhmdb / "ReCompress_Videos" / label)
            text = (jhmdb / "splits" / f"{label}_test_split1.txt").read_text()
        (lists / f"{label}_test_split1.txt").write_text(text.replace("\n", " \n"))
    for split in ("train", "test"):
        expected, clips = load(split), load(split, data_dir=root, name="hmdb51")
        assert split_facts(clips)["missing"] == []
        assert clips["video_id"] == expected["video_id"]
        labels = [data.features["label"].int2str(data["label"]) for data in (expected, clips)]
        assert labels[0] == labels[1]
        assert all(len(read_video(row["video"]["path"])[0]) >= 15 for row in clips.select(range(0, len(clips), 20)))
