"""Selects the frames of a video that form a clip, by the published rules or at a frame rate. Computes indices only."""

import numpy as np
from transformers.video_utils import VideoMetadata


def evaluation_indices(total_num_frames: int, *, num_frames: int, frame_interval: int = 4) -> np.ndarray:
    """
    Return the indices of the evaluation clip: the middle frame of each of `num_frames` equal segments of the video.

    For a video of N frames, T = `num_frames` and f = `frame_interval`, let `a = (N - f + 1) / T`. The index of frame i
    of the clip is `floor(i * a + a / 2)` modulo N, or 0 if N < f. The interval only excludes the last f - 1 frames of
    the video; it is not the distance between the sampled frames. If the video has fewer frames than the clip, indices
    are repeated.

    >>> evaluation_indices(32, num_frames=8)  # a = 29 / 8
    array([ 1,  5,  9, 12, 16, 19, 23, 27])

    Returns:
        Indices of shape (num_frames,), int64, each in [0, total_num_frames).

    Raises:
        ValueError: If an argument is not positive.
    """
    _check_positive(total_num_frames=total_num_frames, num_frames=num_frames, frame_interval=frame_interval)
    if total_num_frames < frame_interval:
        return np.zeros(num_frames, dtype=np.int64)
    part = (total_num_frames - frame_interval + 1) / num_frames
    return (np.arange(num_frames) * part + part / 2).astype(np.int64) % total_num_frames


def multi_clip_indices(total_num_frames: int, *, num_frames: int, num_clips: int) -> np.ndarray:
    """
    Return the indices of K = `num_clips` interleaved evaluation clips.

    The video is divided into `num_frames` equal segments. Clip k takes the frame at the fraction `(2 k + 1) / (2 K)`
    of each segment. The indices are deterministic, whereas the published 4-clip test draws its frames at random. With
    `num_clips=1`, they equal those of [`evaluation_indices`] with `frame_interval=1`.

    >>> multi_clip_indices(16, num_frames=4, num_clips=2)
    array([[ 1,  5,  9, 13],
           [ 3,  7, 11, 15]])

    Returns:
        Indices of shape (num_clips, num_frames), int64, each in [0, total_num_frames).

    Raises:
        ValueError: If an argument is not positive.
    """
    _check_positive(total_num_frames=total_num_frames, num_frames=num_frames, num_clips=num_clips)
    part = total_num_frames / num_frames
    offsets = (2 * np.arange(num_clips)[:, None] + 1) * part / (2 * num_clips)
    return (np.arange(num_frames)[None, :] * part + offsets).astype(np.int64) % total_num_frames


def training_indices(
    total_num_frames: int, *, num_frames: int, frame_interval: int = 4, generator: np.random.Generator
) -> np.ndarray:
    """
    Return the indices of a training clip: a random frame of each of `num_frames` equal segments of the video.

    For a video of N frames, T = `num_frames`, f = `frame_interval` and `b = (N - f + 1) // T`, the first rule that
    applies gives the indices, which are then taken modulo N:
    - if b > 0, frame i is `i * b` plus a random integer from [0, b);
    - if N > max(T, f), the indices are T random integers from [0, N - f + 1), sorted;
    - if b = 0, frame i is `round(i * (N - f + 1) / T)`;
    - otherwise, all indices are 0.

    Returns:
        Indices of shape (num_frames,), int64, ascending before the modulo, each in [0, total_num_frames).

    Raises:
        ValueError: If an argument is not positive.
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


def paced_indices(times: np.ndarray, *, num_frames: int, fps: float, position: float = 0.5) -> np.ndarray:
    """
    Return the indices of a clip of `num_frames` frames at `fps` frames per second, whatever the length of the video.

    The clip lasts `(num_frames - 1) / fps` seconds. It takes the frame that is on the screen at each of its times.
    Where it is longer than the video, the first and the last frame are repeated.

    >>> paced_indices(np.arange(50) / 25, num_frames=4, fps=5)  # two seconds at 25 frames per second
    array([17, 22, 27, 32])

    Args:
        times: Time of each frame, in seconds, ascending, of shape (frames,). See [`frame_times`].
        num_frames: Number of frames of the clip.
        fps: Frames of the clip per second.
        position: Where the clip lies, from 0 (it starts with the video) to 1 (it ends with the video).

    Returns:
        Indices of shape (num_frames,), int64, ascending, each in [0, frames).

    Raises:
        ValueError: If there are no times, or `num_frames` or `fps` is not positive.
    """
    _check_positive(frames=len(times), num_frames=num_frames)
    if not fps > 0:
        raise ValueError(f"fps must be greater than 0, got {fps}")
    start = times[0] + position * (times[-1] - times[0] - (num_frames - 1) / fps)
    # a microsecond more, so that rounding does not show the frame before
    shown = np.searchsorted(times, start + np.arange(num_frames) / fps + 1e-6, side="right") - 1
    return shown.clip(0, len(times) - 1)


def frame_times(metadata: VideoMetadata) -> np.ndarray | None:
    """
    Return the time of each frame in seconds, float64 of shape (frames,): what the file states, or what its frame rate
    gives. `None` if neither is known.
    """
    times = getattr(metadata, "frame_times", None)  # of `DecodedVideoMetadata`
    if times is not None:
        return times[: metadata.total_num_frames]
    if not metadata.fps:
        return None
    numbers = metadata.frames_indices  # of frames that were taken from a longer video
    return (np.arange(metadata.total_num_frames) if numbers is None else np.asarray(numbers)) / metadata.fps


def _check_positive(**numbers: int):
    for name, number in numbers.items():
        if number < 1:
            raise ValueError(f"{name} must be at least 1, got {number}")


__all__ = ["evaluation_indices", "frame_times", "multi_clip_indices", "paced_indices", "training_indices"]
