import json

import numpy as np
import pytest

from hf_dvflnet.data.motion_videos import (
    write_motion_videos,
)


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
