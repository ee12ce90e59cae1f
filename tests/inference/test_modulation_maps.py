import matplotlib
import numpy as np
import PIL.Image
import pytest
import torch
from commands import refused
from places import GOLDEN
from safetensors.torch import load_file

from hf_dvflnet import (
    VideoFocalNetConfig,
    VideoFocalNetForVideoClassification,
    VideoFocalNetVideoProcessor,
    modulation_maps,
    read_video,
)
from hf_dvflnet.hub.checkpoint_conversion import convert_checkpoint
from hf_dvflnet.hub.loading import load_model
from hf_dvflnet.inference import modulation_maps as drawing
from hf_dvflnet.inference.modulation_maps import ModulationMaps, pixels_to_frames
from hf_dvflnet.plots.charts import COLOUR_MAP


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


def test_a_size_that_no_stride_divides_gives_maps_rounded_down(model):
    maps = modulation_maps(model, clip(1, 4, 3, 37, 50))
    assert maps.strides == (4, 8, 16, 32)
    assert [norms.shape for norms in maps.temporal] == [(4, 9, 12), (4, 4, 6), (4, 2, 3), (4, 1, 1)]


def test_a_tubelet_stem_gives_a_map_per_tubelet():
    config = VideoFocalNetConfig(embed_dim=8, image_size=32, num_frames=4, tubelet_size=2, num_labels=6)
    maps = modulation_maps(VideoFocalNetForVideoClassification(config).eval(), clip(1, 4, 3, 32, 32))
    assert [len(norms) for norms in maps.spatial] == [2, 2, 2, 2]


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


# pictures of the maps


def frames(count: int = 2, height: int = 8, width: int = 8) -> np.ndarray:
    return np.full((count, height, width, 3), 100, dtype=np.uint8)


def test_the_greatest_of_the_whole_clip_has_the_last_colour_and_the_least_the_first():
    norms = np.array([[[2.0, 2.0], [2.0, 2.0]], [[3.0, 3.0], [3.0, 3.0]]])
    blended = drawing.blend_map(frames(), norms, 4)
    for pictures, level in zip(blended, (0.0, 1.0), strict=True):
        colour = np.array(matplotlib.colormaps[COLOUR_MAP](level, bytes=True)[:3], dtype=float)
        expected = drawing.MAP_OPACITY * colour + (1 - drawing.MAP_OPACITY) * 100
        assert np.abs(pictures - expected).max() <= 0.5


def test_a_map_of_tubelets_is_repeated_for_their_frames():
    maps = drawing.upsample_maps(np.array([[[1.0]], [[2.0]]]), frames=6, height=2, width=3, stride=3)
    assert maps.shape == (6, 2, 3)
    assert maps[:, 0, 0].tolist() == [1, 1, 1, 2, 2, 2]


def test_a_border_that_fills_no_cell_stays_grey():
    pictures = np.full((1, 5, 4, 3), 100, np.uint8)
    blended = drawing.blend_map(pictures, np.array([[[0.0, 1.0], [0.5, 0.2]]]), stride=2)
    assert (blended[:, 4] == 100).all()
    assert (blended[:, :4].max(-1) != blended[:, :4].min(-1)).all()


@pytest.mark.parametrize("stages, path", [([0], "a.png"), ([], "a.png"), ([1], "a.gif")])
def test_maps_that_cannot_be_drawn_are_refused(tmp_path, stages, path):
    maps = ModulationMaps((np.ones((2, 2, 2)),), (np.ones((2, 2, 2)),), np.zeros(3), (4,))
    with pytest.raises(ValueError, match="stages are numbered from 1 to 1|use this suffix"):
        drawing.save_modulation_maps(frames(), maps, tmp_path / path, "title", stages=stages)


# the command


@pytest.mark.slow
def test_visualize_draws_as_many_rows_as_were_asked_for(dvflnet, tiny_folder, video_files, tmp_path):
    heights = []
    for options in (("--stages", "2"), ("--stages", "1", "3"), ()):
        path = tmp_path / f"{len(options)}.png"
        assert dvflnet("visualize", tiny_folder, video_files["vp9.webm"], path, *options)[0] == 0
        heights.append(PIL.Image.open(path).height)
    assert heights[0] < heights[1] < heights[2]  # input and two, four and eight maps


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
        ("out.avi", (), "visualize writes .png files"),
        ("out.png", ("--stages", "5"), "5"),
    ],
)
def test_visualize_refuses_what_it_cannot_draw(dvflnet, tiny_folder, video_files, tmp_path, name, options, reason):
    refused(dvflnet("visualize", tiny_folder, video_files["vp9.webm"], tmp_path / name, *options), reason)
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]
