"""A moving object in front of a static plane, to compare where a network looks with where something moves."""

import numpy as np
import torch
from torch.nn import functional as F

from hf_dvflnet.data.motion_videos import FRAMES_PER_SECOND, Motion, look_at, random_plane, to_uint8


def render_moving_object(
    motion: Motion, rng: np.random.Generator, num_frames: int = 12, size: int = 128
) -> tuple[np.ndarray, np.ndarray]:
    """
    Render a round object that moves in front of a static plane, to compare where a network looks with where something
    moves.

    Object and background have the same kind of texture: in one frame, only the outline distinguishes them. Scale and
    speed are those of [`render_clip`] at 64 pixels, for every `size`. An object that leaves at one border comes back
    at the opposite one. If the motion is a turn or a zoom, the outline stays and the picture inside turns or zooms.

    Args:
        motion: How the object moves.
        rng: Random generator of the planes, the positions and a speed within 10 % of the motion's.
        num_frames: Number of frames, at `FRAMES_PER_SECOND`.
        size: Height and width in pixels. The object's radius is 0.22 of it.

    Returns:
        Frames, uint8 of shape (num_frames, size, size, 3), and masks, boolean of shape (num_frames, size, size): the
        pixels whose centre is in the object.
    """
    period = 64
    time = torch.arange(num_frames)[:, None, None] / FRAMES_PER_SECOND * rng.uniform(0.9, 1.1)
    background = look_at(random_plane(rng, period), rng.random(4), Motion(), time[:1], size)
    # the object's texture around the centre of a frame; it is then moved to the object's position
    picture = look_at(random_plane(rng, period), rng.random(4), motion._replace(right=0.0, down=0.0), time, size)
    x, y = rng.random(2)
    pixels = (torch.arange(size) + 0.5) / size
    right, down = (period / size * speed * time for speed in (motion.right, motion.down))
    from_x = (pixels[None, None, :] - x - right + 0.5) % 1 - 0.5  # from the object's centre, in frame widths
    from_y = (pixels[None, :, None] - y - down + 0.5) % 1 - 0.5
    grid = torch.stack(torch.broadcast_tensors(2 * from_x, 2 * from_y), dim=-1)
    masks = torch.hypot(from_x, from_y) < 0.22  # (num_frames, size, size)
    frames = torch.where(masks[:, None], F.grid_sample(picture, grid, align_corners=False), background)
    return to_uint8(frames), masks.numpy()
