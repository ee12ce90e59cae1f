"""Arithmetic on the pixels of decoded frames."""

import numpy as np


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


__all__ = ["on_white"]
