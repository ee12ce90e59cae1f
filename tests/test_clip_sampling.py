import json

import numpy as np
import pytest
from places import GOLDEN

from hf_dvflnet.clip_sampling import evaluation_indices, multi_clip_indices, paced_indices
from hf_dvflnet.data.augmentation import training_indices


def test_evaluation_indices_equal_the_published_ones_in_every_stored_case():
    table = json.loads((GOLDEN / "eval_sampling.json").read_text())
    assert len(table["rows"]) == 294
    for row in table["rows"]:
        case = dict(zip(table["columns"], row, strict=True))
        found = evaluation_indices(
            case["total_frames"], num_frames=case["num_frames"], frame_interval=case["frame_interval"]
        )
        assert found.tolist() == case["indices"], case


@pytest.mark.parametrize("total", [1, 3, 8, 31, 32, 250])
@pytest.mark.parametrize("num_frames", [1, 4, 8])
def test_one_of_several_clips_is_the_evaluation_clip_at_interval_one(total, num_frames):
    clips = multi_clip_indices(total, num_frames=num_frames, num_clips=1)
    assert clips.tolist() == [evaluation_indices(total, num_frames=num_frames, frame_interval=1).tolist()]


def test_several_clips_interleave():
    clips = multi_clip_indices(64, num_frames=8, num_clips=4)
    assert clips.tolist() == [[8 * i + 2 * k + 1 for i in range(8)] for k in range(4)]


def test_training_indices_take_one_random_frame_of_each_part():
    draws = np.stack(
        [training_indices(67, num_frames=8, frame_interval=4, generator=np.random.default_rng(s)) for s in range(300)]
    )
    for part in range(8):  # parts of (67 - 4 + 1) // 8 = 8 frames
        assert set(draws[:, part]) == set(range(8 * part, 8 * part + 8))


def test_training_indices_of_a_short_video_follow_the_published_cases():
    generator = np.random.default_rng(0)
    # b = 0 and N <= T: evenly spread, rounded
    short = training_indices(6, num_frames=8, frame_interval=4, generator=generator)
    assert short.tolist() == np.round(np.arange(8) * 3 / 8).astype(int).tolist()
    # b < 0: the first frame
    assert training_indices(2, num_frames=8, frame_interval=4, generator=generator).tolist() == [0] * 8
    # b = 0 and N > max(T, f): sorted draws from the first N - f + 1 frames
    drawn = training_indices(10, num_frames=8, frame_interval=4, generator=generator)
    assert drawn.max() < 7 and (np.diff(drawn) >= 0).all()


@pytest.mark.parametrize("rate", [24, 25, 29.97, 30, 60, 7])
@pytest.mark.parametrize("fps", [1, 6, 24, 30])
def test_a_paced_clip_shows_what_is_on_the_screen_at_each_of_its_times(rate, fps):
    times = np.arange(600) / rate
    for position in (0.0, 0.3, 0.5, 1.0):
        indices = paced_indices(times, num_frames=5, fps=fps, position=position)
        start = position * (times[-1] - 4 / fps)
        for index, time in zip(indices, start + np.arange(5) / fps, strict=True):
            assert times[index] <= time + 1e-6 and (index == 599 or times[index + 1] > time + 1e-6 - 1e-9)
        if fps <= rate:
            assert len(set(indices)) == 5


def test_a_paced_clip_lies_where_its_position_says():
    times = np.arange(11) / 10
    found = [paced_indices(times, num_frames=3, fps=5, position=position).tolist() for position in (0, 0.5, 1)]
    assert found == [[0, 2, 4], [3, 5, 7], [6, 8, 10]]


def test_a_paced_clip_longer_than_the_video_repeats_its_ends():
    assert paced_indices(np.arange(3) / 10, num_frames=7, fps=10).tolist() == [0, 0, 0, 1, 2, 2, 2]


def test_a_paced_clip_keeps_its_pace_where_the_frame_rate_varies():
    times = np.array([0.0, 0.1, 0.2, 1.0, 1.1, 1.2, 2.0])
    assert paced_indices(times, num_frames=3, fps=1).tolist() == [0, 3, 6]


@pytest.mark.parametrize("wrong", [{"fps": 0}, {"fps": float("nan")}, {"num_frames": 0}, {"times": np.array([])}])
def test_a_paced_clip_of_nothing_is_refused(wrong):
    with pytest.raises(ValueError, match=r"(fps must be greater than 0|must be at least 1)"):
        paced_indices(**{"times": np.arange(5.0), "num_frames": 2, "fps": 1, **wrong})
