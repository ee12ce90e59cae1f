"""
Compute the modulation maps of a Video-FocalNet for any clip, as shown in the figures of the papers.

A modulator is the context that a block gathers around a position, within its frame (spatial) or along the frames
(temporal). The block multiplies it with the query of that position. The L2 norm of the modulator over the channels
measures the strength of the modulation.
"""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
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
CELL_INCHES = 1.2


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
):
    """
    Draw the modulation maps of a clip below its frames, coloured as in [`blend_map`]: a row for the frames, a row for
    each map and a column for each frame.

    Args:
        frames: uint8 RGB, (frames, height, width, 3), as [`pixels_to_frames`] returns them.
        maps: The result of [`modulation_maps`].
        path: The PNG file to write.
        title: The title above the pictures.
        stages: The stages to draw, numbered from 1.

    Raises:
        ValueError: If `path` has a different suffix, or a stage does not exist.
    """
    if Path(path).suffix.lower() != ".png":
        raise ValueError(f"{path}: maps are written as .png; use this suffix")
    wrong = [stage for stage in stages if not 1 <= stage <= len(maps.spatial)]
    if wrong or not stages:
        raise ValueError(f"stages are numbered from 1 to {len(maps.spatial)}, got {wrong[0] if wrong else 'none'}")
    rows = {"input": frames}
    for kind in ("spatial", "temporal"):
        for stage in stages:
            norms = getattr(maps, kind)[stage - 1]
            label = f"{kind} {stage}\n{norms.min():.3g} to {norms.max():.3g}"
            rows[label] = blend_map(frames, norms, maps.strides[stage - 1])
    height, width = frames.shape[1:3]
    inches = CELL_INCHES / max(height, width)  # of a picture's pixel
    size = len(frames) * width * inches + 1.5, len(rows) * height * inches + 1.3
    figure = Figure(figsize=(max(size[0], 5), size[1]), layout="compressed")
    figure.suptitle(wrapped(title, figure.get_figwidth()))
    panels = figure.subplots(len(rows), len(frames), squeeze=False)
    for axes, picture in zip(panels.flat, chain(*rows.values()), strict=True):
        axes.imshow(picture)
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    for number, axes in enumerate(panels[0], start=1):
        axes.set_title(f"frame {number}", fontsize=SMALL_FONT_SIZE)
    for axes, label in zip(panels[:, 0], rows, strict=True):
        axes.set_ylabel(label, fontsize=SMALL_FONT_SIZE, rotation=0, ha="right", va="center")
    bar = figure.colorbar(ScalarMappable(), ax=panels, orientation="horizontal", aspect=15, shrink=0.3, ticks=[0, 1])
    bar.ax.set_xticklabels(["least", "greatest"])
    bar.set_label("L2 norm over channels, of each map in this clip", fontsize=SMALL_FONT_SIZE)
    with whole_or_nothing(path, overwrite=True) as unfinished:
        figure.savefig(unfinished, format="png")
