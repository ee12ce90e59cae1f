"""What holds for videos of any length, rate and size. Hypothesis draws them, the same ones in each run."""

import io

import av
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from hf_dvflnet import VideoFocalNetVideoProcessor, read_video
from hf_dvflnet.clip_sampling import evaluation_indices, multi_clip_indices
from hf_dvflnet.data.augmentation import training_indices
from hf_dvflnet.video_decoding import on_white


MANY = settings(max_examples=100, derandomize=True, deadline=None)
FEW = settings(
    max_examples=25, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

frame_counts = st.integers(1, 10**7)
clip_lengths = st.integers(1, 256)
intervals = st.integers(1, 1000)


@MANY
@given(total=frame_counts, num_frames=st.integers(1, 64), num_clips=st.integers(1, 12))
def test_several_clips_take_frames_of_the_video_one_clip_behind_the_other(total, num_frames, num_clips):
    clips = multi_clip_indices(total, num_frames=num_frames, num_clips=num_clips)
    assert clips.shape == (num_clips, num_frames)
    assert clips.min() >= 0 and clips.max() < total
    assert (np.diff(clips, axis=0) >= 0).all() and (np.diff(clips, axis=1) >= 0).all()


@MANY
@given(total=frame_counts, num_frames=clip_lengths, frame_interval=intervals, seed=st.integers(0, 2**32))
def test_training_takes_frames_of_the_video_and_the_same_for_the_same_seed(total, num_frames, frame_interval, seed):
    first, again = (
        training_indices(
            total, num_frames=num_frames, frame_interval=frame_interval, generator=np.random.default_rng(seed)
        )
        for _ in range(2)
    )
    assert first.tolist() == again.tolist()
    assert first.shape == (num_frames,) and first.min() >= 0 and first.max() < total


@MANY
@given(total=st.integers(-(2**40), 0), num_frames=st.integers(-2, 8), frame_interval=st.integers(-2, 4))
def test_a_video_without_frames_has_no_clip(total, num_frames, frame_interval):
    with pytest.raises(ValueError, match="total_num_frames must be at least 1"):
        evaluation_indices(total, num_frames=num_frames, frame_interval=frame_interval)


@FEW
@given(
    count=st.integers(1, 40),
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    num_frames=st.integers(1, 9),
    side=st.integers(16, 48),
    num_clips=st.integers(1, 3),
    num_crops=st.sampled_from([1, 3]),
    channels_first=st.booleans(),
)
def test_the_processor_makes_of_any_array_what_the_model_takes(
    count, height, width, num_frames, side, num_clips, num_crops, channels_first
):
    assume(max(height, width) <= 32 * min(height, width))  # thinner ones are refused
    processor = VideoFocalNetVideoProcessor(
        num_frames=num_frames, size={"shortest_edge": side}, crop_size={"height": side, "width": side}
    )
    shape = (count, 3, height, width) if channels_first else (count, height, width, 3)
    video = np.random.default_rng(count).integers(0, 256, shape, dtype=np.uint8)
    pixels = processor(
        video,
        num_clips=num_clips,
        num_crops=num_crops,
        return_tensors="pt",
        input_data_format="channels_first" if channels_first else "channels_last",
    )["pixel_values"]
    views = num_clips * num_crops
    assert pixels.shape == (1, *([views] if views > 1 else []), num_frames, 3, side, side)
    assert pixels.dtype == torch.float32 and pixels.isfinite().all()


def encoded(count: int, width: int, height: int, rate: int, gop: int) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as container:
        stream = container.add_stream("mpeg4", rate=rate, options={"g": str(gop), "bf": "0", "b": "10000000"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number in range(count):
            # a grey that tells the frame's number
            picture = np.full((height, width, 3), 6 * number + 10, np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return file.getvalue()


@FEW
@given(
    count=st.integers(1, 40),
    width=st.integers(4, 70),
    height=st.integers(4, 50),
    rate=st.integers(1, 1000),
    gop=st.integers(1, 50),
    data=st.data(),
)
def test_any_frames_of_a_file_of_any_length_rate_and_size_are_the_ones_asked_for(
    count, width, height, rate, gop, data
):
    asked = data.draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=6))
    frames, metadata = read_video(encoded(count, width, height, rate, gop), asked)
    assert metadata.total_num_frames == count
    assert frames.shape == (len(asked), height, width, 3)
    assert metadata.fps == pytest.approx(rate, rel=0.01)
    numbers = (frames.mean(axis=(1, 2, 3)) - 10) / 6
    assert np.abs(numbers - asked).max() < 0.5


def test_every_colour_of_every_opacity_is_rounded_exactly_on_white():
    colour, alpha = np.meshgrid(np.arange(256), np.arange(256))
    pixels = np.stack([colour, 255 - colour, colour, alpha], axis=-1).astype(np.uint8)
    exact = (pixels[..., :3].astype(int) * alpha[..., None] + 255 * (255 - alpha[..., None])) / 255
    assert np.array_equal(on_white(pixels), np.rint(exact))
