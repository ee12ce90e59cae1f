"""
What a Video-FocalNet's modulators weigh: the maps of the papers' figures, for any clip.

A modulator is what a block gathered around a position, in its frame (spatial) or along the frames (temporal), and
multiplies the position's query with. Its L2 norm over the channels tells how strongly it does.
"""

from dataclasses import dataclass

import numpy as np
import torch

from ..modeling_videofocalnet import VideoFocalNetForVideoClassification
from ..video_processing_videofocalnet import VideoFocalNetVideoProcessor


@dataclass
class ModulationMaps:
    """
    Maps of one clip, of the last block of each stage.

    Args:
        spatial (`tuple[np.ndarray, ...]`):
            L2 norm over the channels of the spatial modulator, one per stage, float32 of shape `(frames, height,
            width)`, at least 0 and without an upper bound: stages and models differ in scale. Frames counts those
            behind the stem, `num_frames / tubelet_size`; height and width are those of the clip divided by the stride
            and rounded down, but at least 1.
        temporal (`tuple[np.ndarray, ...]`):
            The same of the temporal modulator, of the same shapes.
        logits (`np.ndarray` of shape `(num_labels,)`):
            Scores of the clip before the softmax, float32.
        strides (`tuple[int, ...]`):
            Pixels that a cell of each stage's maps spans, down and across. Pixels at the lower and right border that
            fill no cell were not seen by that stage; a clip smaller than a cell is completed with zeros.
    """

    spatial: tuple[np.ndarray, ...]
    temporal: tuple[np.ndarray, ...]
    logits: np.ndarray
    strides: tuple[int, ...]


def modulation_maps(model: VideoFocalNetForVideoClassification, pixel_values: torch.Tensor) -> ModulationMaps:
    """
    The modulation maps of one clip.

    Args:
        model: The classifier, in evaluation mode, as `from_pretrained` gives it. Nothing stays on it.
        pixel_values: The clip as the video processor gives it, `(1, frames, channels, height, width)` or `(frames,
            channels, height, width)`, of any size.

    Raises:
        ValueError: If there is more than one clip or view, or the model is in training mode, where its answers are
            partly random; or as the model's forward.
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
    The pictures that the network saw: `pixel_values` with the processor's normalisation and scaling taken back.

    Args:
        pixel_values: `(1, frames, 3, height, width)` or `(frames, 3, height, width)`.
        processor: What made them.

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
