"""Encodes one video as a small clip that allows fast seeking: H.264 with a short distance between keyframes."""

import errno
import hashlib
import io
import warnings
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
import av.error
import numpy as np
from av.video.frame import PictureType
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

from ..video_container import DecodedVideoMetadata
from ..video_decoding import ToArray, VideoDecodeError, open_frames
from .prepared_folders import Row
from .whole_files import whole_file
from .worker_processes import LOST


_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)  # errors of the disk, not of a video


class Task(NamedTuple):
    """Input of a worker: the manifest line to fill in, the video, and where to write its clip."""

    row: Row
    video: str | bytes
    name: str  # name of the video in messages
    target: Path
    unfinished: Path
    settings: dict[str, Any]


def prepare_one(task: Task) -> Row:
    row = _new_row(task)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            content = task.video if isinstance(task.video, bytes) else Path(task.video).read_bytes()
            if not content:
                raise VideoDecodeError(f"{task.name}: 0 bytes")
            file = io.BytesIO(content)
            file.name = task.name
            with whole_file(task.target, task.unfinished) as unfinished:
                about = _encode(file, task.name, unfinished, task.settings)
                clip = unfinished.read_bytes()
                task.target.parent.mkdir(parents=True, exist_ok=True)
        except (OSError, ValueError) as error:
            if isinstance(error, OSError) and error.errno in _DISK:
                raise
            return _unreadable(task, str(error).removeprefix(f"{task.name}: "))
    reasons = [str(one.message).removeprefix(f"{task.name}: ") for one in said if one.category is UserWarning]
    if reasons:
        row |= {"outcome": "repaired", "reason": "; ".join(reasons)}
    return {**row, **about, "bytes": len(clip), "sha256": hashlib.sha256(clip).hexdigest()}


def _new_row(task: Task) -> Row:
    row: Row = {**task.row, "outcome": "ok", "reason": None, "frames": None, "width": None, "height": None}
    row["source_bytes"] = len(task.video) if isinstance(task.video, bytes) else task.row["stamp"][0]
    return {**row, "bytes": None, "sha256": None, "tar": None, "offset": None}


def _unreadable(task: Task, reason: str) -> Row:
    task.target.unlink(missing_ok=True)  # the clip of an earlier run, in which the video was different
    return {**_new_row(task), "outcome": "unreadable", "reason": reason}


def lost(task: Task) -> Row:
    return _unreadable(task, LOST)


def _encode(video: io.BytesIO, name: str, target: Path, settings: dict[str, Any]) -> dict[str, int]:
    """Write a clip. Returns its number of frames, width and height."""
    interval = str(settings["keyframe_interval"])
    options = {**settings["x264"], "crf": str(settings["crf"]), "g": interval, "keyint_min": interval}
    reformatter, to_array = VideoReformatter(), ToArray()
    stored: set[tuple[int, int]] = set()
    number = width = height = 0
    with (
        open_frames(video) as (metadata, frames),
        av.open(str(target), "w", format="mp4", container_options={"movflags": "+faststart"}) as container,
    ):
        # frame rates such as 29.97 need a denominator of 1001
        rate = Fraction(metadata.fps or 25).limit_denominator(1001) or Fraction(1)
        stream: av.VideoStream = container.add_stream("libx264", rate=rate, options=options)
        codec = stream.codec_context
        ticks = _varying_ticks(metadata, float(rate))
        if ticks is not None:
            codec.time_base = _CLOCK
        for number, frame in enumerate(frames):
            stored.add((frame.height, frame.width))
            if len(stored) > 1:
                raise VideoDecodeError(
                    f"{name}: its frame size changes within the video; (height, width) are {sorted(stored)}"
                )
            if not to_array.is_upright(frame):
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(to_array(frame)), format="rgb24")
            if number == 0:
                width, height = _small_size(frame.width, frame.height, settings["short_side"])
            # keep the source's colour matrix and range, so that conversion to RGB gives the same colours
            is_rgb = frame.format.is_rgb
            picture = reformatter.reformat(
                frame,
                width,
                height,
                "yuv420p",
                dst_colorspace=Colorspace.ITU601 if is_rgb else None,
                dst_color_range=ColorRange.MPEG if is_rgb else None,
                interpolation="BICUBIC",
                threads=1,
            )
            if number == 0:
                stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
                codec.colorspace, codec.color_range = picture.colorspace, picture.color_range
                codec.thread_count = 1
                if width < 256:
                    # for some small frames, x264's macroblock tree gives different bytes in different runs on
                    # processors with AVX-512 (seen at 64 and 160 pixels)
                    codec.options = {**options, "x264-params": "mbtree=0"}
            picture.pts, picture.time_base = number, 1 / rate
            if ticks is not None:
                picture.pts, picture.time_base = ticks[number], _CLOCK
            picture.pict_type = PictureType.NONE  # otherwise the clip takes over the source's keyframes
            _mux(container, stream.encode(picture), ticks, metadata)
        _mux(container, stream.encode(), ticks, metadata)
    return {"frames": number + 1, "width": width, "height": height}


def _mux(
    container: av.container.OutputContainer,
    packets: list[av.Packet],
    ticks: list[int] | None,
    metadata: DecodedVideoMetadata,
):
    for packet in packets:
        # only the last frame needs a duration: every other frame is shown until the time of the next one
        if ticks is not None and packet.pts == ticks[-1]:
            packet.duration = max(1, round((metadata.duration or 0) / _CLOCK) - ticks[-1])
        container.mux(packet)


_CLOCK = Fraction(1, 90_000)


def _varying_ticks(metadata: DecodedVideoMetadata, rate: float) -> list[int] | None:
    """Frame times in units of `_CLOCK`; None if unknown, or if a constant rate fits to within half a frame."""
    times = metadata.frame_times
    if times is None or np.abs(times - np.arange(len(times)) / rate).max() <= 0.5 / rate:
        return None
    return [round(seconds / _CLOCK) for seconds in times.tolist()]


def _small_size(width: int, height: int, short_side: int) -> tuple[int, int]:
    """Even width and height of a frame, scaled down to a short side of at most `short_side`."""
    scale = short_side / min(width, height)
    if scale < 1:
        return 2 * round(width * scale / 2), 2 * round(height * scale / 2)
    return max(2, width // 2 * 2), max(2, height // 2 * 2)


__all__ = ["Task", "lost", "prepare_one"]
