import av
import numpy as np
import PIL.Image
import pytest
import torch
from commands import refused
from moving_objects import render_moving_object
from places import GOLDEN
from safetensors.torch import load_file

from hf_dvflnet import (
    VideoFocalNetConfig,
    VideoFocalNetForVideoClassification,
    VideoFocalNetVideoProcessor,
    modulation_maps,
    read_video,
)
from hf_dvflnet.data.motion_videos import MOTIONS, Motion
from hf_dvflnet.hub.checkpoint_conversion import convert_checkpoint
from hf_dvflnet.hub.loading import load_model
from hf_dvflnet.inference.modulation_maps import pixels_to_frames


@pytest.fixture
def model(tiny_folder):
    return load_model(str(tiny_folder))


def clip(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


# the arrays


def test_maps_are_the_norms_of_the_published_modulators():
    expected = load_file(GOLDEN / "default.expected.safetensors")
    maps = modulation_maps(convert_checkpoint(GOLDEN / "default.pth").model.eval(), expected["pixel_values"])
    for kind in ("spatial", "temporal"):
        for stage, norms in enumerate(getattr(maps, kind), start=1):
            # (frames, channels, height, width)
            modulator = expected[f"stage{stage}.modulator_{kind}"].numpy()
            assert norms.shape == (8, *modulator.shape[2:])
            np.testing.assert_allclose(norms, np.sqrt((modulator.astype(float) ** 2).sum(1)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(maps.logits, expected["logits"][0].numpy(), atol=1e-5)


def test_a_clip_without_a_batch_dimension_gives_the_same_maps(model):
    pixel_values = clip(4, 3, 32, 32)
    one, other = modulation_maps(model, pixel_values), modulation_maps(model, pixel_values[None])
    assert all(map(np.array_equal, one.spatial + one.temporal, other.spatial + other.temporal))


def test_a_size_that_no_stride_divides_gives_maps_rounded_down(model):
    maps = modulation_maps(model, clip(1, 4, 3, 37, 50))
    assert maps.strides == (4, 8, 16, 32)
    assert [norms.shape for norms in maps.temporal] == [(4, 9, 12), (4, 4, 6), (4, 2, 3), (4, 1, 1)]


def test_a_tubelet_stem_gives_a_map_per_tubelet():
    config = VideoFocalNetConfig(embed_dim=8, image_size=32, num_frames=4, tubelet_size=2, num_labels=6)
    maps = modulation_maps(VideoFocalNetForVideoClassification(config).eval(), clip(1, 4, 3, 32, 32))
    assert [len(norms) for norms in maps.spatial] == [2, 2, 2, 2]


def test_maps_of_a_half_precision_model_are_float32(model):
    maps = modulation_maps(model.to(torch.bfloat16), clip(1, 4, 3, 32, 32))
    assert {array.dtype for array in (*maps.spatial, *maps.temporal, maps.logits)} == {np.dtype("float32")}


@pytest.mark.parametrize("shape", [(2, 4, 3, 32, 32), (1, 3, 4, 3, 32, 32), (3, 32, 32)])
def test_more_than_one_clip_or_view_is_refused(model, shape):
    with pytest.raises(ValueError, match="one clip in one view"):
        modulation_maps(model, clip(*shape))


def test_a_model_in_training_mode_is_refused(model):
    with pytest.raises(ValueError, match=r"call model\.eval\(\)"):
        modulation_maps(model.train(), clip(4, 3, 32, 32))


# the frames that the network saw


@pytest.mark.parametrize("settings", [{}, {"do_normalize": False}, {"do_normalize": False, "do_rescale": False}])
def test_pixels_are_taken_back_to_the_frames_of_the_file(video_files, settings):
    processor = VideoFocalNetVideoProcessor(do_resize=False, do_center_crop=False, num_frames=4, **settings)
    frames, _ = read_video(video_files["vp9.webm"], [0, 10, 20, 30])
    pixel_values = processor(frames, do_sample_frames=False, return_tensors="pt")["pixel_values"]
    assert np.array_equal(pixels_to_frames(pixel_values, processor), frames)


# what the maps are compared with


def test_the_background_of_a_moving_object_rests_outside_its_masks():
    frames, masks = render_moving_object(MOTIONS["move_045"], np.random.default_rng(0))
    both = ~(masks[1:] | masks[:-1])
    assert np.array_equal(frames[1:][both], frames[:-1][both])
    assert np.abs(frames[1:].astype(int) - frames[:-1])[masks[1:] & masks[:-1]].mean() > 10


def test_a_moving_object_goes_where_its_motion_says():
    _, masks = render_moving_object(Motion(right=1.0), np.random.default_rng(0), num_frames=9)
    # after a second it is 64 pixels, within 10 %, further to the right, in a picture that goes round
    shifts = [np.mean(np.roll(masks[0], shift, axis=1) & masks[8]) for shift in range(128)]
    assert int(np.argmax(shifts)) in range(57, 72)
    assert masks.mean() == pytest.approx(np.pi * 0.22**2, abs=0.005)


# the command


@pytest.mark.parametrize("name", [pytest.param("out.gif", marks=pytest.mark.slow), "out.mp4"])
def test_visualize_animates_the_sampled_frames(dvflnet, tiny_folder, video_files, tmp_path, name):
    code, out, _ = dvflnet("visualize", tiny_folder, video_files["h264_rotated.mp4"], tmp_path / name)
    assert code == 0
    assert out.startswith(f"{tmp_path / name}: LABEL_")
    with av.open(str(tmp_path / name)) as container:
        stream = container.streams.video[0]
        frames = [frame.to_ndarray(format="rgb24").astype(int) for frame in container.decode(stream)]
        assert name == "out.gif" or (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
    assert len(frames) == 4
    assert np.abs(frames[0] - frames[1]).max() > 50


@pytest.mark.slow
def test_visualize_draws_as_many_rows_as_were_asked_for(dvflnet, tiny_folder, video_files, tmp_path):
    heights = []
    for options in (("--stages", "2"), ("--stages", "1", "3", "--kind", "temporal"), ()):
        path = tmp_path / f"{len(options)}.png"
        assert dvflnet("visualize", tiny_folder, video_files["vp9.webm"], path, *options)[0] == 0
        heights.append(PIL.Image.open(path).height)
    # input and two maps, the same, input and eight maps
    assert heights[0] == heights[1] < heights[2] / 2


def test_visualize_keeps_a_file_unless_overwriting_is_asked_for(dvflnet, tiny_folder, video_files, tmp_path):
    out = tmp_path / "out.png"
    out.write_text("mine")
    command = ("visualize", tiny_folder, video_files["vp9.webm"], out, "--stages", "1")
    refused(dvflnet(*command), f"{out}: exists already", "--overwrite")
    assert out.read_text() == "mine"
    assert dvflnet(*command, "--overwrite")[0] == 0
    assert PIL.Image.open(out).format == "PNG"


@pytest.mark.parametrize(
    "name, options, reason",
    [
        ("out.avi", (), "visualize writes .gif, .mp4, .png files"),
        ("out.png", ("--stages", "5"), "5"),
    ],
)
def test_visualize_refuses_what_it_cannot_draw(dvflnet, tiny_folder, video_files, tmp_path, name, options, reason):
    refused(dvflnet("visualize", tiny_folder, video_files["vp9.webm"], tmp_path / name, *options), reason)
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]
