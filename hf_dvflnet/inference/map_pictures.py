"""Pictures of modulation maps: a map over the frames that it is of, and whole clips as PNG, GIF or MP4."""

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import av
import matplotlib
import numpy as np
import PIL.Image
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from torch.nn import functional as F

from ..hub.model_folder import whole_or_nothing
from ..plots.style import COLOUR_MAP, FONT_SIZE, SMALL_FONT_SIZE, styled, text_width, wrapped
from .modulation_maps import ModulationMaps


def upsample_maps(norms: np.ndarray, frames: int, height: int, width: int, stride: int | None = None) -> np.ndarray:
    """
    Maps at the size of the pictures, bilinear, and each repeated for the frames of its tubelet.

    Args:
        norms: Maps, (map frames, rows, columns); `frames` is a multiple of map frames.
        frames, height, width: Those of the clip.
        stride: Pixels that a cell spans. By default the map is stretched over the picture, which is the same where
            the stride divides height and width.

    Returns:
        float32, (frames, height, width). Pixels at the lower and right border that fill no cell are NaN.
    """
    count, rows, columns = norms.shape
    if frames % count:
        raise ValueError(f"a map of {count} frames does not fit a clip of {frames}")
    size = (height, width) if stride is None else (rows * stride, columns * stride)
    maps = F.interpolate(torch.from_numpy(norms).float()[None], size=size, mode="bilinear", align_corners=False)
    maps = maps[0, :, :height, :width]
    maps = F.pad(maps, (0, width - maps.shape[2], 0, height - maps.shape[1]), value=math.nan)
    return maps.numpy().repeat(frames // count, axis=0)


MAP_OPACITY = 0.6
FRAMES_PER_SECOND = 4
CELL_INCHES = 1.2
MAP_SUFFIXES = (".gif", ".mp4", ".png")


def blend_map(frames: np.ndarray, norms: np.ndarray, stride: int | None = None) -> np.ndarray:
    """
    A map over the pictures that it is of: upsampled, scaled, coloured, and blended with the pictures in grey, whose
    own colours would be taken for the map's.

    Scaled to [0, 1] over the whole clip, from the least to the greatest value of all frames and positions of this one
    map: colours compare frames of a map, not stages, kinds or clips. A map of one value is 0 throughout. Where the
    stage saw no pixels, at the border, the picture stays grey.

    Args:
        frames: uint8 RGB, (frames, height, width, 3), as [`pixels_to_frames`] gives them.
        norms: One stage's map of [`modulation_maps`], (frames / tubelet_size, rows, columns).
        stride: The stage's stride, as in [`upsample_maps`].

    Returns:
        uint8 RGB, (frames, height, width, 3).
    """
    count, height, width = frames.shape[:3]
    maps = upsample_maps(norms, count, height, width, stride)
    least, greatest = np.nanmin(maps), np.nanmax(maps)
    colours = matplotlib.colormaps[COLOUR_MAP]((maps - least) / max(greatest - least, 1e-12), bytes=True)[..., :3]
    grey = (frames @ np.array([0.299, 0.587, 0.114]))[..., None]
    blended = MAP_OPACITY * colours + (1 - MAP_OPACITY) * grey
    return np.where(np.isnan(maps)[..., None], grey, blended).round().astype(np.uint8)


@styled
def save_modulation_maps(
    frames: np.ndarray,
    maps: ModulationMaps,
    path: str | os.PathLike,
    title: str,
    *,
    stages: Sequence[int] = (1, 2, 3, 4),
    kinds: Sequence[str] = ("spatial", "temporal"),
):
    """
    Draw the modulation maps of a clip beside its frames, as [`blend_map`] colours them.

    Args:
        frames: uint8 RGB, (frames, height, width, 3), as [`pixels_to_frames`] gives them.
        maps: Those of [`modulation_maps`].
        path: What to write. A PNG shows all at once: a row for the frames and for each map, a column for each frame.
            A GIF or MP4 (H.264) shows the frames one after the other, and each map beside them.
        title: What stands above it.
        stages: Which stages, from 1.
        kinds: `"spatial"`, `"temporal"` or both.

    Raises:
        ValueError: If `path` has another suffix, or there is no such stage.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in MAP_SUFFIXES:
        raise ValueError(f"{path}: maps are written as {', '.join(MAP_SUFFIXES)}; name it so")
    wrong = [stage for stage in stages if not 1 <= stage <= len(maps.spatial)]
    if wrong or not stages:
        raise ValueError(f"stages are numbered from 1 to {len(maps.spatial)}, got {wrong[0] if wrong else 'none'}")
    blended, ranges = {}, {}
    for kind in kinds:
        for stage in stages:
            norms = getattr(maps, kind)[stage - 1]
            blended[kind, stage] = blend_map(frames, norms, maps.strides[stage - 1])
            ranges[kind, stage] = f"{norms.min():.3g} to {norms.max():.3g}"
    if suffix == ".png":
        steps = [[list(frames), *(list(pictures) for pictures in blended.values())]]
        rows = ["input", *(f"{kind} {stage}\n{ranges[kind, stage]}" for kind, stage in blended)]
        columns, captions = [f"frame {number}" for number in range(1, len(frames) + 1)], []
    else:
        steps = [
            [[frame, *(blended[kind, stage][number] for stage in stages)] for kind in kinds]
            for number, frame in enumerate(frames)
        ]
        rows, columns = list(kinds), ["input", *(f"stage {stage}" for stage in stages)]
        captions = [["", *(ranges[kind, stage] for stage in stages)] for kind in kinds]
    pictures = _draw_mosaic(steps, rows, columns, captions, title)
    with whole_or_nothing(path, overwrite=True) as unfinished:
        if suffix == ".mp4":
            return _encode(pictures, unfinished)
        first, *others = map(PIL.Image.fromarray, pictures)
        if suffix == ".png":
            return first.save(unfinished, format="png")
        first, *others = map(_with_palette, (first, *others))
        duration = 1000 // FRAMES_PER_SECOND
        first.save(unfinished, format="gif", save_all=True, append_images=others, duration=duration, loop=0)


def _mosaic(rows: Sequence[Sequence[np.ndarray]], gap_down: int, gap_across: int) -> np.ndarray:
    """Pictures of one size in rows, uint8, on white; each with a gap below and to its right."""
    padding = ((0, gap_down), (0, gap_across), (0, 0))
    lines = [np.concatenate([np.pad(cell, padding, constant_values=255) for cell in row], axis=1) for row in rows]
    return np.concatenate(lines)


def _draw_mosaic(
    steps: Sequence[Sequence[Sequence[np.ndarray]]],
    row_labels: Sequence[str],
    column_labels: Sequence[str],
    captions: Sequence[Sequence[str]],
    title: str,
) -> Iterator[np.ndarray]:
    """A figure of rows of pictures, drawn once for each step: uint8 RGB, of even height and width."""
    height, width = steps[0][0][0].shape[:2]
    per_inch = max(height, width) / CELL_INCHES  # pixels of a picture
    gap_across = math.ceil(0.04 * per_inch)
    gap_down = math.ceil(0.2 * per_inch) if captions else gap_across
    grid = _mosaic(steps[0], gap_down, gap_across)

    # everything in inches: constrained layout takes seconds, and moves what should stay in place from step to step
    left = max(text_width(line) for label in row_labels for line in label.splitlines()) + 0.15
    size = grid.shape[1] / per_inch, grid.shape[0] / per_inch
    total_width = max(left + size[0] + 0.1, 5)
    title = wrapped(title, total_width)
    top, bottom = 0.17 * (title.count("\n") + 1) + 0.35, 0.6
    total_height = top + size[1] + bottom
    figure = Figure(figsize=(total_width, total_height))
    canvas = FigureCanvasAgg(figure)
    figure.text(0.5, 1 - 0.08 / total_height, title, ha="center", va="top", fontsize=FONT_SIZE + 1)
    left += (total_width - left - size[0] - 0.1) / 2  # in the middle, where the title is wider
    place = (left / total_width, bottom / total_height, size[0] / total_width, size[1] / total_height)
    axes = figure.add_axes(place)
    image = axes.imshow(grid)
    axes.spines[:].set_visible(False)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.set_yticks([row * (height + gap_down) + height / 2 for row in range(len(row_labels))], row_labels)
    axes.set_xticks([column * (width + gap_across) + width / 2 for column in range(len(column_labels))], column_labels)
    for row, texts in enumerate(captions):
        for column, text in enumerate(texts):
            across, down = column * (width + gap_across) + width / 2, row * (height + gap_down) + height
            axes.text(across, down, text, ha="center", va="top", fontsize=SMALL_FONT_SIZE - 1)
    bar = figure.add_axes((0.5 - 0.7 / total_width, 0.38 / total_height, 1.4 / total_width, 0.1 / total_height))
    figure.colorbar(ScalarMappable(), cax=bar, orientation="horizontal", ticks=[])
    bar.text(-0.05, 0.5, "least", ha="right", va="center", transform=bar.transAxes, fontsize=SMALL_FONT_SIZE)
    bar.text(1.05, 0.5, "greatest", ha="left", va="center", transform=bar.transAxes, fontsize=SMALL_FONT_SIZE)
    bar.set_xlabel("L2 norm over channels, of each map in this clip", fontsize=SMALL_FONT_SIZE)
    for step in steps:
        image.set_data(_mosaic(step, gap_down, gap_across))
        canvas.draw()
        drawn = np.asarray(canvas.buffer_rgba())[..., :3]
        yield drawn[: drawn.shape[0] // 2 * 2, : drawn.shape[1] // 2 * 2].copy()


def _with_palette(picture: PIL.Image.Image) -> PIL.Image.Image:
    # of Pillow's methods, the one that keeps rare colours, such as a map's greatest values, and takes no seconds
    palette = picture.quantize(method=PIL.Image.Quantize.FASTOCTREE)
    return picture.quantize(palette=palette, dither=PIL.Image.Dither.FLOYDSTEINBERG)


def _encode(pictures: Iterable[np.ndarray], path: str | os.PathLike):
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=FRAMES_PER_SECOND, options={"crf": "16"})
        stream.pix_fmt = "yuv420p"
        for number, picture in enumerate(pictures):
            if number == 0:
                stream.height, stream.width = picture.shape[:2]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


__all__ = ["MAP_SUFFIXES", "blend_map", "save_modulation_maps", "upsample_maps"]
