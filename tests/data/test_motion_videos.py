import json

import numpy as np
import pytest
import torch

from hf_dvflnet.data.motion_videos import (
    MOTIONS,
    Motion,
    look_at,
    random_plane,
    render_clip,
    to_uint8,
    write_motion_videos,
)


def shift_between(first: np.ndarray, second: np.ndarray) -> tuple[int, int]:
    """How far the picture moved right and down, in whole pixels, by trying all shifts up to 11 pixels."""

    def difference(shift: tuple[int, int]) -> float:
        right, down = shift
        before = first[max(0, -down) : 64 - max(0, down), max(0, -right) : 64 - max(0, right)].astype(int)
        after = second[max(0, down) : 64 + min(0, down), max(0, right) : 64 + min(0, right)]
        return np.abs(before - after).mean()

    return min(((right, down) for right in range(-11, 12) for down in range(-11, 12)), key=difference)


@pytest.mark.parametrize(
    "name, right, down", [("move_000", 1, 0), ("move_090", 0, -1), ("move_180", -1, 0), ("move_270", 0, 1)]
)
def test_headings_are_counted_counterclockwise_from_right(name, right, down):
    frames = render_clip(MOTIONS[name], np.random.default_rng(0))
    found = shift_between(frames[0], frames[1])
    # an eighth of the frame, 8 pixels, at a pace within 10 %
    assert found == (8 * right, 8 * down) or np.abs(np.subtract(found, (8 * right, 8 * down))).sum() == 1


def view(motion: Motion, seconds: float) -> np.ndarray:
    """The picture after some time, from a start at which it is not wrapped."""
    plane = random_plane(np.random.default_rng(0), 64)
    return to_uint8(look_at(plane, np.full(4, 0.1), motion, torch.full((1, 1, 1), seconds)))[0]


def test_a_turn_to_the_right_is_clockwise():
    before, after = (view(Motion(clockwise=0.25), seconds) for seconds in (0, 1))
    difference = np.abs(np.rot90(before, k=-1).astype(int) - after).mean()
    assert difference < 3 < np.abs(np.rot90(before, k=1).astype(int) - after).mean()


def test_every_class_has_an_opposite():
    assert len(MOTIONS) == 16
    for motion in MOTIONS.values():
        assert sum(np.allclose(np.negative(motion), other) for other in MOTIONS.values()) == 1


def test_worker_processes_write_the_same_files(tmp_path):
    for folder, workers in (("a", 0), ("b", 2)):
        write_motion_videos(tmp_path / folder, clips_per_class={"test": 2}, num_workers=workers)
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*.mp4"))
    assert len(files) == 32
    assert all((tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes() for file in files)


def test_an_interrupted_run_goes_on_and_keeps_what_is_there(tmp_path):
    write_motion_videos(tmp_path, clips_per_class={"train": 1}, num_workers=0)
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.mp4")}
    assert len(files) == 16
    lost = next(iter(files))
    lost.unlink()
    write_motion_videos(tmp_path, clips_per_class={"train": 1}, num_workers=0)
    assert {path for path in files if path.stat().st_mtime_ns != files[path]} == {lost}


def test_a_folder_of_other_settings_or_other_things_is_refused(tmp_path):
    write_motion_videos(tmp_path / "videos", clips_per_class={}, seed=0)
    assert json.loads((tmp_path / "videos" / "motion_videos.json").read_text())["seed"] == 0
    with pytest.raises(ValueError, match="choose another folder"):
        write_motion_videos(tmp_path / "videos", clips_per_class={}, seed=1)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    with pytest.raises(ValueError, match="is neither empty nor"):
        write_motion_videos(tmp_path / "mine", clips_per_class={})


def test_both_sampling_rules_take_the_same_eight_frames_of_a_clip_with_the_demos_interval():
    # so that a motion looks as fast in training as in evaluation
    from hf_dvflnet.clip_sampling import evaluation_indices
    from hf_dvflnet.data.augmentation import training_indices

    trained = training_indices(12, num_frames=8, frame_interval=5, generator=np.random.default_rng(0))
    assert trained.tolist() == evaluation_indices(12, num_frames=8, frame_interval=5).tolist() == list(range(8))
