"""What the numbers of a picture stand for: the range of its values, and transparency."""

import numpy as np
import torch


def to_byte_range(frames: torch.Tensor) -> torch.Tensor:
    """
    Bring the values of frames to [0, 255], which is what a processor's `do_rescale` starts from.

    Values decide, as a dtype does not tell the range: floats in [0, 1], which is what torchvision's `ToTensor` gives,
    and booleans are multiplied by 255; floats and integers in [0, 255] are taken as they are.

    Args:
        frames: Of any shape and dtype, all of one video.

    Returns:
        Frames of the same shape, uint8 where they were integers and float32 otherwise.

    Raises:
        ValueError: If a value lies outside [0, 255] or is not a number. Such frames are normalised already, or have
            more than 8 bits.
    """
    if frames.dtype == torch.uint8:
        return frames
    if frames.dtype == torch.bool:
        return frames.to(torch.uint8) * 255
    is_float = frames.is_floating_point()
    # PyTorch knows no least and greatest of unsigned integers wider than a byte
    frames = frames.to(torch.float32 if is_float else torch.int64)
    least, greatest = (value.item() for value in frames.aminmax())
    if not 0 <= least <= greatest <= 255:
        raise ValueError(
            f"the values of frames must lie in [0, 255], or in [0, 1] as floats, but these go from {least:g} to "
            f"{greatest:g}. Divide frames of more than 8 bits by their greatest possible value; for frames that are "
            "scaled and normalised already, set do_rescale=False and do_normalize=False"
        )
    if not is_float:
        return frames.to(torch.uint8)
    return frames * 255 if greatest <= 1 else frames


def on_white(frames: np.ndarray) -> np.ndarray:
    """
    Pictures with transparency as they look on a white page, as transformers' `convert_to_rgb` shows them.

    The colours of transparent pixels are arbitrary: most programs leave black there, some what was there before.

    Args:
        frames: RGBA, uint8 of shape (..., 4), each value from 0 to 255. The colours are not multiplied by alpha.

    Returns:
        RGB, uint8 of shape (..., 3): `colour * alpha / 255 + 255 - alpha`, rounded to the nearest integer.

    Raises:
        ValueError: If `frames` are of another type or shape.
    """
    if frames.dtype != np.uint8 or frames.ndim == 0 or frames.shape[-1] != 4:
        raise ValueError(f"RGBA pixels are uint8 of shape (..., 4), but these are {frames.dtype} of {frames.shape}")
    alpha = frames[..., 3:]
    if (alpha == 255).all():
        return np.ascontiguousarray(frames[..., :3])
    # at most 255 * 255 + 127, which 16 bits hold
    weighted = frames[..., :3].astype(np.uint16) * alpha
    weighted += np.uint16(255) * (255 - alpha).astype(np.uint16)
    weighted += 127
    weighted //= 255
    return weighted.astype(np.uint8)


def drop_alpha(frames: torch.Tensor) -> torch.Tensor:
    """
    Lay frames of an array with transparency on white, as [`on_white`] does.

    Args:
        frames: RGBA of shape (frames, 4, height, width), integers or booleans in the range of [`to_byte_range`], or
            floats in [0, 1] or [0, 255].

    Returns:
        RGB of shape (frames, 3, height, width): uint8, or floats in the range that they came in.
    """
    if frames.is_floating_point():
        white = 1.0 if frames.max() <= 1 else 255.0
        colours, alpha = frames[:, :3], frames[:, 3:] / white
        return colours * alpha + white * (1 - alpha)
    rgba = to_byte_range(frames).permute(0, 2, 3, 1).cpu().numpy()
    return torch.from_numpy(on_white(rgba)).permute(0, 3, 1, 2).to(frames.device)


__all__ = ["drop_alpha", "on_white", "to_byte_range"]
