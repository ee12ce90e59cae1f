"""
Which frames of a video form a clip, by the rules of the published code or at a frame rate.

Indices are int64 in [0, total_num_frames). `ValueError` is raised if a number is not positive.
"""

from typing import Any

import numpy as np


def evaluation_indices(total_num_frames: int, *, num_frames: int, frame_interval: int = 4) -> np.ndarray:
    """
    Return the indices of the evaluation clip, (num_frames,): the middle frame of each of equal segments of the video.

    With N frames, T = `num_frames`, f = `frame_interval` and `a = (N - f + 1) / T`, frame i of the clip is the frame
    `floor(i * a + a / 2)` modulo N, or 0 if N < f. The interval only excludes the last f - 1 frames of the video; it
    is not the distance between the sampled frames. A video shorter than the clip has its frames repeated.

    >>> evaluation_indices(32, num_frames=8)  # a = 29 / 8
    array([ 1,  5,  9, 12, 16, 19, 23, 27])
    """
    check_positive(total_num_frames=total_num_frames, num_frames=num_frames, frame_interval=frame_interval)
    segment = max(0, total_num_frames - frame_interval + 1) / num_frames
    return (np.arange(num_frames) * segment + segment / 2).astype(np.int64) % total_num_frames


def multi_clip_indices(total_num_frames: int, *, num_frames: int, num_clips: int) -> np.ndarray:
    """
    Return the indices of K = `num_clips` interleaved evaluation clips, (num_clips, num_frames).

    Clip k takes the frame at the fraction `(2 k + 1) / (2 K)` of each of `num_frames` equal segments of the video.
    (The published 4-clip test draws its frames at random.)

    >>> multi_clip_indices(16, num_frames=4, num_clips=2)
    array([[ 1,  5,  9, 13],
           [ 3,  7, 11, 15]])
    """
    check_positive(total_num_frames=total_num_frames, num_frames=num_frames, num_clips=num_clips)
    segment = total_num_frames / num_frames
    offsets = (2 * np.arange(num_clips)[:, None] + 1) * segment / (2 * num_clips)
    return (np.arange(num_frames) * segment + offsets).astype(np.int64) % total_num_frames


def paced_indices(times: np.ndarray, *, num_frames: int, fps: float, position: float = 0.5) -> np.ndarray:
    """
    Return the indices of a clip at `fps` frames per second, (num_frames,), whatever the length of the video.

    The clip lasts `(num_frames - 1) / fps` seconds and takes the frame that is on the screen at each of its times.
    `times` are those of all frames of the video in seconds, ascending ([`frame_times`]). `position` is where the clip
    lies, from 0 (it starts with the video) to 1 (it ends with it). Beyond the video, its first or last frame repeats.

    >>> paced_indices(np.arange(50) / 25, num_frames=4, fps=5)  # two seconds at 25 frames per second
    array([17, 22, 27, 32])
    """
    check_positive(frames=len(times), num_frames=num_frames)
    if not fps > 0:
        raise ValueError(f"fps must be greater than 0, got {fps}")
    start = times[0] + position * (times[-1] - times[0] - (num_frames - 1) / fps)
    # a microsecond more, so that rounding does not show the frame before
    shown = np.searchsorted(times, start + np.arange(num_frames) / fps + 1e-6, side="right") - 1
    return shown.clip(0, len(times) - 1)


def frame_times(metadata: Any) -> np.ndarray | None:
    """
    Return the time of each frame in seconds, (frames,), as the file of a `VideoInfo` states it or as the frame rate of
    a `VideoMetadata` gives it; `None` if neither is known.
    """
    if getattr(metadata, "frame_times", None) is not None:
        return metadata.frame_times[: metadata.total_num_frames]
    if not metadata.fps:
        return None
    numbers = metadata.frames_indices  # of frames that were taken from a longer video
    return (np.arange(metadata.total_num_frames) if numbers is None else np.asarray(numbers)) / metadata.fps


def check_positive(**numbers: int):
    for name, number in numbers.items():
        if number < 1:
            raise ValueError(f"{name} must be at least 1, got {number}")
