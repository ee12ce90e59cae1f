"""
Compute the modulation maps of a Video-FocalNet for any clip, as shown in the figures of the papers.

A modulator is the context that a block gathers around a position, within its frame (spatial) or along the frames
(temporal). The block multiplies it with the query of that position. The L2 norm of the modulator over the channels
measures the strength of the modulation.
"""

from dataclasses import dataclass

import numpy as np
import torch

from ..modeling_videofocalnet import VideoFocalNetForVideoClassification
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


def modulation_maps(model: VideoFocalNetForVideoClassification, pixel_values: torch.Tensor) -> ModulationMaps:
    """
    Compute the modulation maps of one clip.

    Args:
        model: The classifier, in evaluation mode, as `from_pretrained` returns it. It is not modified.
        pixel_values: The clip as the video processor returns it, `(1, frames, channels, height, width)` or `(frames,
            channels, height, width)`, of any size.

    Raises:
        ValueError: If there is more than one clip or view, or the model is in training mode, where its answers are
            partly random. The forward pass of the model can raise it, too.
    """
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


__all__ = ["ModulationMaps", "modulation_maps", "pixels_to_frames"]
