"""Which frames of a video make a clip: indices only, no I/O. The rules are those of the published code."""

import numpy as np


def evaluation_indices(total_num_frames: int, *, num_frames: int, frame_interval: int = 4) -> np.ndarray:
    """
    Frames of the one evaluation clip: the middles of `num_frames` equal parts of the video.

    With N frames, T wanted and interval f, `a = (N - f + 1) / T`; frame i is `floor(i * a + a / 2)`, or 0 where
    N < f, taken modulo N. The interval only shortens the video at its end. A video shorter than the clip repeats
    frames.

    >>> evaluation_indices(32, num_frames=8)  # a = 29 / 8
    array([ 1,  5,  9, 12, 16, 19, 23, 27])

    Returns:
        Indices of shape (num_frames,), int64, each in [0, total_num_frames).

    Raises:
        ValueError: If one of the numbers is not positive.
    """
    _check_positive(total_num_frames=total_num_frames, num_frames=num_frames, frame_interval=frame_interval)
    if total_num_frames < frame_interval:
        return np.zeros(num_frames, dtype=np.int64)
    part = (total_num_frames - frame_interval + 1) / num_frames
    return (np.arange(num_frames) * part + part / 2).astype(np.int64) % total_num_frames


def multi_clip_indices(total_num_frames: int, *, num_frames: int, num_clips: int) -> np.ndarray:
    """
    Frames of several evaluation clips that interleave: clip k takes the point `(2 k + 1) / (2 K)` of each part.

    Deterministic, unlike the published 4-clip test, which draws its frames at random. One clip is the evaluation rule
    with an interval of 1.

    >>> multi_clip_indices(16, num_frames=4, num_clips=2)
    array([[ 1,  5,  9, 13],
           [ 3,  7, 11, 15]])

    Returns:
        Indices of shape (num_clips, num_frames), int64, each in [0, total_num_frames).

    Raises:
        ValueError: If one of the numbers is not positive.
    """
    _check_positive(total_num_frames=total_num_frames, num_frames=num_frames, num_clips=num_clips)
    part = total_num_frames / num_frames
    offsets = (2 * np.arange(num_clips)[:, None] + 1) * part / (2 * num_clips)
    return (np.arange(num_frames)[None, :] * part + offsets).astype(np.int64) % total_num_frames


def training_indices(
    total_num_frames: int, *, num_frames: int, frame_interval: int = 4, generator: np.random.Generator
) -> np.ndarray:
    """
    Frames of one training clip: a random frame of each of `num_frames` equal parts of the video.

    With `b = (N - f + 1) // T`: if b > 0, frame i is `i * b` plus a draw from [0, b); else, if N > max(T, f), the
    frames are sorted draws from [0, N - f + 1); else, if b = 0, frame i is `round(i * (N - f + 1) / T)`; else 0. All
    modulo N.

    Returns:
        Indices of shape (num_frames,), int64, ascending before the modulo, each in [0, total_num_frames).

    Raises:
        ValueError: If one of the numbers is not positive.
    """
    _check_positive(total_num_frames=total_num_frames, num_frames=num_frames, frame_interval=frame_interval)
    usable = total_num_frames - frame_interval + 1
    part = usable // num_frames
    if part > 0:
        indices = np.arange(num_frames) * part + generator.integers(part, size=num_frames)
    elif total_num_frames > max(num_frames, frame_interval):
        indices = np.sort(generator.integers(usable, size=num_frames))
    elif part == 0:
        indices = np.round(np.arange(num_frames) * usable / num_frames).astype(np.int64)
    else:
        indices = np.zeros(num_frames, dtype=np.int64)
    return indices % total_num_frames


def _check_positive(**numbers: int):
    for name, number in numbers.items():
        if number < 1:
            raise ValueError(f"{name} must be at least 1, got {number}")


__all__ = ["evaluation_indices", "multi_clip_indices", "training_indices"]
