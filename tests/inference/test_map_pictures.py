import matplotlib
import numpy as np
import pytest

from hf_dvflnet.inference import modulation_maps as map_pictures
from hf_dvflnet.inference.modulation_maps import ModulationMaps
from hf_dvflnet.plots.charts import COLOUR_MAP


def frames(count: int = 2, height: int = 8, width: int = 8) -> np.ndarray:
    return np.full((count, height, width, 3), 100, dtype=np.uint8)


def test_the_greatest_of_the_whole_clip_has_the_last_colour_and_the_least_the_first():
    norms = np.array([[[2.0, 2.0], [2.0, 2.0]], [[3.0, 3.0], [3.0, 3.0]]])
    blended = map_pictures.blend_map(frames(), norms)
    for pictures, level in zip(blended, (0.0, 1.0), strict=True):
        colour = np.array(matplotlib.colormaps[COLOUR_MAP](level, bytes=True)[:3], dtype=float)
        expected = map_pictures.MAP_OPACITY * colour + (1 - map_pictures.MAP_OPACITY) * 100
        assert np.abs(pictures - expected).max() <= 0.5


def test_a_map_of_one_value_has_the_first_colour():
    assert np.array_equal(
        map_pictures.blend_map(frames(), np.ones((2, 2, 2))), map_pictures.blend_map(frames(), np.zeros((2, 2, 2)))
    )


def test_a_map_of_tubelets_is_repeated_for_their_frames():
    maps = map_pictures.upsample_maps(np.array([[[1.0]], [[2.0]]]), frames=6, height=2, width=3)
    assert maps.shape == (6, 2, 3)
    assert maps[:, 0, 0].tolist() == [1, 1, 1, 2, 2, 2]


def test_a_map_of_another_number_of_frames_is_refused():
    with pytest.raises(ValueError, match="a map of 4 frames does not fit a clip of 6"):
        map_pictures.upsample_maps(np.ones((4, 1, 1)), frames=6, height=2, width=2)


def test_the_last_cells_of_a_map_reach_beyond_a_picture_that_the_stride_does_not_divide():
    norms = np.array([[[0.0, 1.0]]])
    maps = map_pictures.upsample_maps(norms, frames=1, height=4, width=6, stride=4)
    # the middles of the two cells are at 2 and 6, the edge of the picture: the columns' at 0.5 to 5.5
    np.testing.assert_allclose(maps[0, 0], [0, 0, 0.125, 0.375, 0.625, 0.875])


def test_a_border_that_fills_no_cell_stays_grey():
    pictures = np.full((1, 5, 4, 3), 100, np.uint8)
    blended = map_pictures.blend_map(pictures, np.array([[[0.0, 1.0], [0.5, 0.2]]]), stride=2)
    assert (blended[:, 4] == 100).all()
    assert (blended[:, :4].max(-1) != blended[:, :4].min(-1)).all()


@pytest.mark.parametrize("stages, path", [([0], "a.png"), ([], "a.png"), ([1], "a.jpg")])
def test_maps_that_cannot_be_drawn_are_refused(tmp_path, stages, path):
    maps = ModulationMaps((np.ones((2, 2, 2)),), (np.ones((2, 2, 2)),), np.zeros(3), (4,))
    with pytest.raises(ValueError, match="stages are numbered from 1 to 1|use one of these suffixes"):
        map_pictures.save_modulation_maps(frames(), maps, tmp_path / path, "title", stages=stages)
