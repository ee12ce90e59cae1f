"""
Decodes a video from its start to its end, frame by frame, without keeping the frames: `open_frames`.
`encode_clip` re-encodes it as a small H.264 clip with many keyframes, which allows fast seeking.

This module imports PyAV and NumPy only, as the process that decodes does (`sandbox_child.py`).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.video.frame import PictureType
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

from ..video_decoding import (
    DecodingLimits,
    Source,
    ToArray,
    VideoDecodeError,
    VideoInfo,
    VideoSource,
    decode,
    opened,
    scan,
    video_limits,
)


@contextmanager
def open_frames(
    video: VideoSource, limits: DecodingLimits | None = None
) -> Iterator[tuple[VideoInfo, Iterator[av.VideoFrame]]]:
    """
    Decode a video that may be too long for memory, in one thread of this process.

    Gives the [`VideoInfo`], and the frames as the file stores them. Errors and warnings are those of [`read_video`];
    they may come while the frames are read.
    """
    with opened(video, replace(limits or video_limits(), max_threads=1)) as source:
        try:
            with source.open() as (container, stream):
                info = scan(container, stream, source).info
            yield info, _all_frames(source, info)
        except MemoryError:
            raise VideoDecodeError(f"{source.name}: needs more memory than is available") from None


def _all_frames(source: Source, info: VideoInfo) -> Iterator[av.VideoFrame]:
    count = 0
    with source.open() as (container, stream):
        for frame in decode(container, stream, source):
            if count < info.total_num_frames:
                count += 1
                yield frame
    if count < info.total_num_frames:
        source.warn_of_end(info.total_num_frames, count)
        info.total_num_frames = count


# Encode a clip


def encode_clip(video: VideoSource, limits: DecodingLimits, target: str, settings: dict[str, Any]) -> dict[str, Any]:
    """
    Write a clip with all frames of a video, with the settings of `prepare_videos`. Returns `frames`, `width` and
    `height` of the clip, and `remarks`: the warnings.
    """
    interval = str(settings["keyframe_interval"])
    options = {**settings["x264"], "crf": str(settings["crf"]), "g": interval, "keyint_min": interval}
    reformatter, to_array = VideoReformatter(), ToArray()
    stored: set[tuple[int, int]] = set()
    number = width = height = 0
    with (
        open_frames(video, limits) as (metadata, frames),
        av.open(target, "w", format="mp4", container_options={"movflags": "+faststart"}) as container,
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
                    f"its frame size changes within the video; (height, width) are {sorted(stored)}"
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
                ratio = Fraction(metadata.pixel_aspect_ratio).limit_denominator(1000)
                codec.sample_aspect_ratio = 1 / ratio if abs(to_array.matrix[0]) < abs(to_array.matrix[1]) else ratio
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
    return {"frames": number + 1, "width": width, "height": height, "remarks": metadata.remarks}


def _mux(
    container: av.container.OutputContainer,
    packets: list[av.Packet],
    ticks: list[int] | None,
    metadata: VideoInfo,
):
    for packet in packets:
        # only the last frame needs a duration: every other frame is shown until the time of the next one
        if ticks is not None and packet.pts == ticks[-1]:
            packet.duration = max(1, round((metadata.duration or 0) / _CLOCK) - ticks[-1])
        container.mux(packet)


_CLOCK = Fraction(1, 90_000)


def _varying_ticks(metadata: VideoInfo, rate: float) -> list[int] | None:
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
