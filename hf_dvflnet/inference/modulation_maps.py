"""
Compute the modulation maps of a Video-FocalNet for any clip, as shown in the figures of the papers.

A modulator is the context that a block gathers around a position, within its frame (spatial) or along the frames
(temporal). The block multiplies it with the query of that position. The L2 norm of the modulator over the channels
measures the strength of the modulation.
"""

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import av
import matplotlib
import numpy as np
import PIL.Image
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from torch.nn import functional as F

from ..configuration_videofocalnet import VideoFocalNetConfig
from ..hub.model_folder import whole_or_nothing
from ..modeling_videofocalnet import VideoFocalNetForVideoClassification
from ..plots.charts import COLOUR_MAP, SMALL_FONT_SIZE, styled, wrapped
from ..video_processing_videofocalnet import VideoFocalNetVideoProcessor


@dataclass
class ModulationMaps:
    """
    Modulation maps of one clip, from the last block of each stage.

    Args:
        spatial (`tuple[np.ndarray, ...]`):
            L2 norm of the spatial modulator over the channels, one array per stage, float32 of shape `(frames, height,
            width)`. Values are at least 0 and have no upper bound: their scale differs between stages and models.
            `frames` is the number of frames after the stem, `num_frames / tubelet_size`; `height` and `width` are
            those of the clip divided by the stride and rounded down, but at least 1.
        temporal (`tuple[np.ndarray, ...]`):
            The same for the temporal modulator, with the same shapes.
        logits (`np.ndarray` of shape `(num_labels,)`):
            Logits of the clip (scores before the softmax), float32.
        strides (`tuple[int, ...]`):
            Number of pixels that a cell in the maps of each stage spans, in height and width. A stage does not see
            pixels at the lower and right border that do not fill a cell. A clip smaller than a cell is padded with
            zeros.
    """

    spatial: tuple[np.ndarray, ...]
    temporal: tuple[np.ndarray, ...]
    logits: np.ndarray
    strides: tuple[int, ...]


def has_modulators(model: Any) -> bool:
    return isinstance(model, torch.nn.Module) and isinstance(model.config, VideoFocalNetConfig)


def refuse_without_modulators(model: Any):
    if not has_modulators(model):
        raise ValueError(f"{type(model).__name__} has no modulators to draw; only a Video-FocalNet has")


def modulation_maps(model: VideoFocalNetForVideoClassification, pixel_values: torch.Tensor) -> ModulationMaps:
    """
    Compute the modulation maps of one clip.

    Args:
        model: The classifier, in evaluation mode, as `from_pretrained` returns it. It is not modified.
        pixel_values: The clip as the video processor returns it, `(1, frames, channels, height, width)` or `(frames,
            channels, height, width)`, of any size.

    Raises:
        ValueError: If the model is no Video-FocalNet; if there is more than one clip or view, or the model is in
            training mode, where its answers are partly random. The forward pass of the model can raise it, too.
    """
    refuse_without_modulators(model)
    if pixel_values.ndim == 4:
        pixel_values = pixel_values[None]
    if pixel_values.ndim != 5 or len(pixel_values) != 1:
        raise ValueError(
            "pixel_values must be one clip in one view, (1, frames, channels, height, width) or (frames, channels, "
            f"height, width), but have shape {tuple(pixel_values.shape)}"
        )
    if model.training:
        raise ValueError("the model is in training mode, where its answers are partly random: call model.eval()")
    with torch.inference_mode():
        output = model(pixel_values.to(model.device), output_modulators=True, return_dict=True)
    spatial, temporal = (
        tuple(modulator[0].float().norm(dim=-1).cpu().numpy() for modulator in modulators)
        for modulators in (output.spatial_modulators, output.temporal_modulators)
    )
    strides = tuple(model.config.patch_size * 2**stage for stage in range(len(spatial)))
    return ModulationMaps(spatial, temporal, output.logits[0].float().cpu().numpy(), strides)


def pixels_to_frames(pixel_values: torch.Tensor, processor: VideoFocalNetVideoProcessor) -> np.ndarray:
    """
    Recover the frames that the network saw: undo the processor's normalisation and rescaling of `pixel_values`.

    Args:
        pixel_values: `(1, frames, 3, height, width)` or `(frames, 3, height, width)`.
        processor: The video processor that made `pixel_values`.

    Returns:
        uint8 RGB of shape `(frames, height, width, 3)`.
    """
    frames = pixel_values.reshape(-1, *pixel_values.shape[-3:]).float().cpu()
    if processor.do_normalize:
        mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (processor.image_mean, processor.image_std))
        frames = frames * std + mean
    if processor.do_rescale:
        frames = frames / processor.rescale_factor
    return frames.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()


# Pictures


def upsample_maps(norms: np.ndarray, frames: int, height: int, width: int, stride: int) -> np.ndarray:
    """
    Upsample maps to the frame size (bilinear), and repeat each map for the frames of its tubelet.

    Args:
        norms: Maps of shape (map frames, rows, columns). `frames` must be a multiple of map frames.
        frames, height, width: The number and size of the frames of the clip.
        stride: Number of pixels that a cell spans.

    Returns:
        float32 of shape (frames, height, width). Pixels at the lower and right border that do not fill a cell are NaN.
    """
    count, rows, columns = norms.shape
    size = (rows * stride, columns * stride)
    maps = F.interpolate(torch.from_numpy(norms).float()[None], size=size, mode="bilinear", align_corners=False)
    maps = maps[0, :, :height, :width]
    maps = F.pad(maps, (0, width - maps.shape[2], 0, height - maps.shape[1]), value=math.nan)
    return maps.numpy().repeat(frames // count, axis=0)


MAP_OPACITY = 0.6
FRAMES_PER_SECOND = 4
CELL_INCHES = 1.2
MAP_SUFFIXES = (".gif", ".mp4", ".png")


def blend_map(frames: np.ndarray, norms: np.ndarray, stride: int) -> np.ndarray:
    """
    Draw a map over its frames: the map is upsampled, scaled, coloured and blended with the frames. The frames are
    converted to grey, because their own colours could be mistaken for those of the map.

    The map is scaled to [0, 1] over the whole clip, from its minimum to its maximum over all frames and positions.
    Colours can therefore be compared between the frames of one map, but not between stages, kinds or clips. A map with
    a single value is 0 everywhere. Border pixels that the stage did not see stay grey.

    Args:
        frames: uint8 RGB, (frames, height, width, 3), as [`pixels_to_frames`] returns them.
        norms: The map of one stage from [`modulation_maps`], (frames / tubelet_size, rows, columns).
        stride: The stride of the stage, as in [`upsample_maps`].

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
    Draw the modulation maps of a clip next to its frames, coloured as in [`blend_map`].

    Args:
        frames: uint8 RGB, (frames, height, width, 3), as [`pixels_to_frames`] returns them.
        maps: The result of [`modulation_maps`].
        path: The file to write. A PNG shows everything at once, with a row for the frames, a row for each map and a
            column for each frame. A GIF or MP4 (H.264) shows the frames one after another, with each map next to them.
        title: The title above the pictures.
        stages: The stages to draw, numbered from 1.
        kinds: `"spatial"`, `"temporal"` or both.

    Raises:
        ValueError: If `path` has a different suffix, or a stage does not exist.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in MAP_SUFFIXES:
        raise ValueError(f"{path}: maps are written as {', '.join(MAP_SUFFIXES)}; use one of these suffixes")
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
        steps = [[list(frames), *map(list, blended.values())]]
        rows = ["input", *(f"{kind} {stage}\n{ranges[kind, stage]}" for kind, stage in blended)]
        columns, captions = [f"frame {number}" for number in range(1, len(frames) + 1)], []
    else:
        steps = [
            [[frame, *(blended[kind, stage][number] for stage in stages)] for kind in kinds]
            for number, frame in enumerate(frames)
        ]
        rows, columns = list(kinds), ["input", *(f"stage {stage}" for stage in stages)]
        captions = [["", *(ranges[kind, stage] for stage in stages)] for kind in kinds]
    pictures = _draw(steps, rows, columns, captions, title)
    with whole_or_nothing(path, overwrite=True) as unfinished:
        if suffix == ".mp4":
            return _encode(pictures, unfinished)
        first, *others = map(PIL.Image.fromarray, pictures)
        if suffix == ".png":
            return first.save(unfinished, format="png")
        first, *others = map(_with_palette, (first, *others))
        duration = 1000 // FRAMES_PER_SECOND
        first.save(unfinished, format="gif", save_all=True, append_images=others, duration=duration, loop=0)


def _draw(
    steps: Sequence[Sequence[Sequence[np.ndarray]]],
    row_labels: Sequence[str],
    column_labels: Sequence[str],
    captions: Sequence[Sequence[str]],
    title: str,
) -> Iterator[np.ndarray]:
    """Draw a figure of rows of pictures once for each step, and yield it as uint8 RGB of even height and width."""
    height, width = steps[0][0][0].shape[:2]
    inches = CELL_INCHES / max(height, width)  # of a picture's pixel
    size = len(column_labels) * width * inches + 1.5, len(row_labels) * height * inches + 1.3
    figure = Figure(figsize=(max(size[0], 5), size[1]), layout="compressed")
    canvas = FigureCanvasAgg(figure)
    figure.suptitle(wrapped(title, figure.get_figwidth()))
    panels = figure.subplots(len(row_labels), len(column_labels), squeeze=False)
    images = [axes.imshow(picture) for axes, picture in zip(panels.flat, chain(*steps[0]), strict=True)]
    for axes in panels.flat:
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    for axes, label in zip(panels[0], column_labels, strict=True):
        axes.set_title(label, fontsize=SMALL_FONT_SIZE)
    for axes, label in zip(panels[:, 0], row_labels, strict=True):
        axes.set_ylabel(label, fontsize=SMALL_FONT_SIZE, rotation=0, ha="right", va="center")
    for axes, caption in zip(panels.flat, chain(*captions), strict=False):
        axes.set_xlabel(caption, fontsize=SMALL_FONT_SIZE - 1)
    bar = figure.colorbar(ScalarMappable(), ax=panels, orientation="horizontal", aspect=15, shrink=0.3, ticks=[0, 1])
    bar.ax.set_xticklabels(["least", "greatest"])
    bar.set_label("L2 norm over channels, of each map in this clip", fontsize=SMALL_FONT_SIZE)
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # nothing moves between steps
    for step in steps:
        for image, picture in zip(images, chain(*step), strict=True):
            image.set_data(picture)
        canvas.draw()
        drawn = np.asarray(canvas.buffer_rgba())[..., :3]
        yield drawn[: drawn.shape[0] // 2 * 2, : drawn.shape[1] // 2 * 2].copy()


def _with_palette(picture: PIL.Image.Image) -> PIL.Image.Image:
    # Pillow's other methods lose rare colours, such as the largest values of a map, or take seconds
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
