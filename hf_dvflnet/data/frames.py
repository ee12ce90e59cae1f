"""Decodes a video from its start to its end, frame by frame, without keeping the frames: `open_video`."""

from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from dataclasses import replace

import av
import numpy as np

from ..video_decoding import (
    DecodingLimits,
    Source,
    ToArray,
    VideoDecodeError,
    VideoInfo,
    VideoSource,
    decode,
    of_package,
    opened,
    scan,
    video_limits,
)


Pictures = Iterator[tuple[int, np.ndarray]]


@contextmanager
def open_video(
    video: VideoSource, limits: DecodingLimits | None = None
) -> Iterator[tuple[VideoInfo, Callable[[Container[int] | None], Pictures]]]:
    """
    Decode a video that may be too long for memory.

    Gives the [`VideoInfo`], and a function that yields index and picture of each frame, uint8 RGB of shape (height,
    width, 3). Its argument is a set of the frames to convert, or `None` for all. Errors and warnings are those of
    [`read_video`]; they may come while the frames are read.
    """
    limits = limits or video_limits()
    if limits.sandbox:
        with of_package("sandbox", "Decoding in a sandbox").open_video(video, limits) as found:
            yield found
        return
    with open_frames(video, limits) as (info, decoded):

        def pictures(wanted: Container[int] | None = None) -> Pictures:
            to_array = ToArray()
            for index, frame in enumerate(decoded):
                if wanted is None or index in wanted:
                    yield index, to_array(frame)

        yield info, pictures


@contextmanager
def open_frames(
    video: VideoSource, limits: DecodingLimits | None = None
) -> Iterator[tuple[VideoInfo, Iterator[av.VideoFrame]]]:
    """Same as [`open_video`], always in this process, in one thread, and with the frames as the file stores them."""
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


__all__ = ["open_frames", "open_video"]
