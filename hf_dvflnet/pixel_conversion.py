"""Converts the values of frames: brings them to [0, 255], and removes transparency."""

import numpy as np
import torch


def to_byte_range(frames: torch.Tensor) -> torch.Tensor:
    """
    Bring the values of frames to [0, 255], the range that a processor's `do_rescale` expects.

    The range is inferred from the values, because the dtype does not determine it. Booleans and floats in [0, 1], such
    as the output of torchvision's `ToTensor`, are multiplied by 255. Other floats and integers in [0, 255] are not
    changed.

    Args:
        frames: All frames of one video, of any shape and dtype.

    Returns:
        Frames of the same shape: uint8 if the input has integers or booleans, float32 otherwise.

    Raises:
        ValueError: If a value is outside [0, 255] or NaN. Such frames are already normalised, or have more than 8 bits
            per value.
    """
    if frames.dtype == torch.uint8:
        return frames
    if frames.dtype == torch.bool:
        return frames.to(torch.uint8) * 255
    is_float = frames.is_floating_point()
    # PyTorch has no `aminmax` for unsigned integers of more than 8 bits
    frames = frames.to(torch.float32 if is_float else torch.int64)
    least, greatest = (value.item() for value in frames.aminmax())
    if not 0 <= least <= greatest <= 255:
        raise ValueError(
            f"the values of frames must be in [0, 255], or floats in [0, 1], but these range from {least:g} to "
            f"{greatest:g}. If they have more than 8 bits, divide them by the greatest possible value; if they are "
            "already scaled and normalised, set do_rescale=False and do_normalize=False"
        )
    if not is_float:
        return frames.to(torch.uint8)
    return frames * 255 if greatest <= 1 else frames


def on_white(frames: np.ndarray) -> np.ndarray:
    """
    Composite pictures with transparency on a white background, like transformers' `convert_to_rgb`.

    The colours of transparent pixels are arbitrary: most programs store black there, some keep the original colour.

    Args:
        frames: RGBA, uint8 of shape (..., 4), each value from 0 to 255. The colours are not premultiplied by alpha.

    Returns:
        RGB, uint8 of shape (..., 3): `colour * alpha / 255 + 255 - alpha`, rounded to the nearest integer.

    Raises:
        ValueError: If `frames` has a different dtype or shape.
    """
    if frames.dtype != np.uint8 or frames.ndim == 0 or frames.shape[-1] != 4:
        raise ValueError(f"RGBA pixels must be uint8 of shape (..., 4), but are {frames.dtype} of {frames.shape}")
    alpha = frames[..., 3:]
    if (alpha == 255).all():
        return np.ascontiguousarray(frames[..., :3])
    # at most 255 * 255 + 127, which fits in 16 bits
    weighted = frames[..., :3].astype(np.uint16) * alpha
    weighted += np.uint16(255) * (255 - alpha).astype(np.uint16)
    weighted += 127
    weighted //= 255
    return weighted.astype(np.uint8)


def drop_alpha(frames: torch.Tensor) -> torch.Tensor:
    """
    Composite frames with transparency on a white background, like [`on_white`], for tensors.

    Args:
        frames: RGBA of shape (frames, 4, height, width): integers or booleans in the range of [`to_byte_range`], or
            floats in [0, 1] or [0, 255].

    Returns:
        RGB of shape (frames, 3, height, width): uint8, or floats in the range of the input.
    """
    if frames.is_floating_point():
        white = 1.0 if frames.max() <= 1 else 255.0
        colours, alpha = frames[:, :3], frames[:, 3:] / white
        return colours * alpha + white * (1 - alpha)
    rgba = to_byte_range(frames).permute(0, 2, 3, 1).cpu().numpy()
    return torch.from_numpy(on_white(rgba)).permute(0, 3, 1, 2).to(frames.device)


__all__ = ["drop_alpha", "on_white", "to_byte_range"]
