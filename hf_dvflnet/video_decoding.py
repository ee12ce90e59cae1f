"""
Decodes video files to frames with PyAV.

Frame i is the i-th frame of a full sequential decode, bit for bit, shown upright. `video_container` opens the files,
and `video_limits` limits the resources that they may use.
"""

import warnings
from bisect import bisect_right
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import av
import av.error
import numpy as np
from av.video.frame import PictureType
from av.video.reformatter import VideoReformatter
from transformers.video_utils import VideoMetadata

from .pixel_conversion import on_white
from .video_container import (
    DecodedVideoMetadata,
    Doubts,
    Packets,
    Shown,
    Source,
    VideoSource,
    demux,
    describe,
    open_container,
    open_decoder,
    opened,
    refuse_format,
    refuse_large,
    scan,
)
from .video_limits import VideoDecodeError, VideoLimits


# Codecs in which a frame that no other frame refers to can be skipped. In VP8 and VP9, such a frame may still change
# how the next frames are decoded.
_NOTHING_CARRIED_ON = {"h264", "hevc", "mpeg4"}


def read_video(
    video: VideoSource,
    indices: Sequence[int] | Callable[[VideoMetadata], np.ndarray] | None = None,
    *,
    limits: VideoLimits | None = None,
) -> tuple[np.ndarray, DecodedVideoMetadata]:
    """
    Decode all or some frames of a video. If the file has several video tracks, the default track is decoded.

    Args:
        video: A path, an http or https URL, the bytes of a file, or a seekable binary file object.
        indices: Indices of the frames to decode, in any order, with or without repetitions; a function that returns
            them from the metadata; or `None` for all frames.
        limits: Limits on the resources that the video may use. Defaults to those of [`set_video_limits`]. They do not
            limit the memory of the returned frames, which may be too large if all frames of a long video are decoded.

    Returns:
        The frames, uint8 RGB of shape (len(indices), height, width, 3), from 0 to 255, with transparent pixels shown
        on white; and the metadata.

    Raises:
        FileNotFoundError: If the file does not exist.
        VideoDecodeError: If the file is not a video, contains no frame that can be decoded, cannot be downloaded,
            exceeds a limit, or does not have all frames in `indices`.

    Warns:
        UserWarning: If the file ends earlier than its header says. A function in `indices` is then called again, with
            the actual number of frames. Also if the transparency of VP8 or VP9 cannot be read, so that colours that
            should be hidden are shown.
    """
    with opened(video, limits) as source:
        name = source.name
        container, stream = open_container(source)
        with container:
            packets = _counted(scan(container, stream, source), source)
            metadata = packets.metadata
            wanted = _wanted(indices, metadata, name)
            clip = _decode_after_seeking(container, stream, source, packets, wanted)
        if clip is None:
            clip, count = _decode_from_start(source, wanted)
            if not count:
                raise VideoDecodeError(_none_decoded(name, metadata))
            if clip.missing:
                warnings.warn(_decoding_ends(name, metadata, count), stacklevel=2)
                metadata.total_num_frames = count
                wanted = _wanted(indices, metadata, name)
                clip, _ = _decode_from_start(source, wanted)
                if clip.missing:
                    raise VideoDecodeError(f"{name}: decoding it again gives a different number of frames")

    metadata.height, metadata.width = clip.frames.shape[1:3]
    metadata.frames_indices = np.asarray(wanted)
    return clip.frames, metadata


@contextmanager
def open_frames(
    video: VideoSource, limits: VideoLimits | None = None
) -> Iterator[tuple[DecodedVideoMetadata, Iterator[av.VideoFrame]]]:
    """
    Decode all frames of a video one by one, in one thread, as FFmpeg frames.

    These are the frames that [`read_video`] counts, in the same order, but as the file stores them: [`ToArray`] tells
    whether they are upright, and rotates them. `limits` is as in [`read_video`]; the time that the caller spends on
    the frames does not count.

    Raises:
        FileNotFoundError, VideoDecodeError: As in [`read_video`]. Decoding errors are raised while the frames are
            read.

    Warns:
        UserWarning: If the file ends earlier than its header says. Missing frames are reported after the last frame.
    """
    with opened(video, limits) as source:
        container, stream = open_container(source)
        with container:
            metadata = _counted(scan(container, stream, source), source).metadata
        container, stream = open_container(source)
        with container:
            stream.codec_context.thread_count = 1
            source.deadline.stop()
            yield metadata, _all_frames(container, stream, metadata, source)


def _all_frames(
    container: av.container.InputContainer, stream: av.VideoStream, metadata: DecodedVideoMetadata, source: "Source"
) -> Iterator[av.VideoFrame]:
    count = 0
    source.deadline.start()
    for frame in _frames(container, stream, source):
        if count < metadata.total_num_frames:
            count += 1
            source.deadline.stop()
            yield frame
            source.deadline.start()
    if not count:
        raise VideoDecodeError(_none_decoded(source.name, metadata))
    if count < metadata.total_num_frames:
        warnings.warn(_decoding_ends(source.name, metadata, count), stacklevel=2)


def _none_decoded(name: str, metadata: DecodedVideoMetadata) -> str:
    return f"{name}: none of its {metadata.total_num_frames} frames can be decoded"


def _decoding_ends(name: str, metadata: DecodedVideoMetadata, count: int) -> str:
    return f"{name}: decoding ends after {count} of {metadata.total_num_frames} frames; these are used"


def _counted(packets: Packets, source: Source) -> Packets:
    """
    Return the packets without those that give no frame.

    If some packets may give no frame, the video is decoded, without conversion to RGB. If only frames before the first
    keyframe are in doubt, it is decoded only up to the second keyframe.
    """
    doubts = packets.doubts
    if doubts is None:
        return packets
    until = None if doubts.placeholders else doubts.until
    times = []
    position = source.tell()
    container, stream = open_container(source)
    with container:
        for frame in _frames(container, stream, source):
            times.append(frame.pts)
            if until is not None and frame.pts is not None and frame.pts >= until:
                break
        come = _come(doubts, times)
        counted = describe(come, stream) if times else packets  # no frame at all raises an error later
    source.seek(position)  # the other container, which is still open, continues to read here
    if times and len(doubts.shown) - len(come) > len(doubts.leading) + doubts.placeholders:
        warnings.warn(_decoding_ends(source.name, packets.metadata, len(come)), stacklevel=3)
    return counted


def _come(doubts: Doubts, times: list[int | None]) -> list[Shown]:
    """Return the packets that give the frames with these timestamps."""
    known = [pts for pts in times if pts is not None]
    if not doubts.placeholders:
        never = doubts.leading.difference(known) if len(known) == len(times) else set()
        return [packet for packet in doubts.shown if packet[0] not in never]
    if len(known) < len(times) or known != sorted(set(known)):
        return [(None, 0, False)] * len(times)  # timestamps do not identify frames: decode all from the start
    packets = {pts: (length, is_keyframe) for pts, length, is_keyframe in doubts.shown}
    return [(pts, *packets.get(pts, (0, False))) for pts in known]


def _wanted(
    indices: Sequence[int] | Callable[[VideoMetadata], np.ndarray] | None, metadata: DecodedVideoMetadata, name: str
) -> list[int]:
    total = metadata.total_num_frames
    if indices is None:
        return list(range(total))
    wanted = [int(index) for index in (indices(metadata) if callable(indices) else indices)]
    if not wanted or min(wanted) < 0 or max(wanted) >= total:
        raise VideoDecodeError(f"{name}: has frames 0 to {total - 1}, but the requested frames are {wanted}")
    return wanted


class _Clip:
    """The requested frames, decoded directly into one array, so that a long clip is never in memory twice."""

    def __init__(self, wanted: Sequence[int], name: str):
        self.name = name
        self.positions: dict[int, list[int]] = {}
        for position, index in enumerate(wanted):
            self.positions.setdefault(index, []).append(position)
        self.missing = set(self.positions)
        self.frames = np.empty((len(wanted), 0, 0, 3), np.uint8)
        self.to_array = ToArray()

    def add(self, index: int, frame: av.VideoFrame):
        image = self.to_array(frame)
        shape = (len(self.frames), *image.shape)
        if len(self.missing) == len(self.positions):
            try:
                self.frames = np.empty(shape, np.uint8)
            except MemoryError:
                size = f"{np.prod(shape) / 2**30:.1f} GiB"
                raise VideoDecodeError(
                    f"{self.name}: {shape[0]} frames of {shape[2]} x {shape[1]} take {size}, more memory than is "
                    f"available; request fewer frames"
                ) from None
        if shape != self.frames.shape:
            shapes = sorted([shape[1:], self.frames.shape[1:]])
            raise VideoDecodeError(
                f"{self.name}: its frames change size midway; their shapes (height, width, channels) are {shapes}"
            )
        for position in self.positions[index]:
            self.frames[position] = image
        self.missing.discard(index)


def _decode_from_start(source: Source, wanted: Sequence[int]) -> tuple[_Clip, int]:
    """
    Return the requested frames that exist, and how many frames were decoded: all frames if a requested one is missing.
    """
    clip, count = _Clip(wanted, source.name), 0
    container, stream = open_container(source)
    with container:
        for frame in _frames(container, stream, source):
            if count in clip.missing:
                clip.add(count, frame)
            count += 1
            if not clip.missing:
                break
    return clip, count


def _decode_after_seeking(
    container: av.container.InputContainer,
    stream: av.VideoStream,
    source: Source,
    packets: Packets,
    wanted: Sequence[int],
) -> _Clip | None:
    """
    Return the requested frames. After each of them, skip to the last keyframe before the next one. Return `None` if
    the timestamps do not identify the frames, or if the decoded frames do not match the timestamps.
    """
    if packets.timestamps is None:
        return None
    # each requested frame, and the keyframe from which its decoding starts
    starts = {index: bisect_right(packets.keyframes, packets.timestamps[index]) - 1 for index in sorted(set(wanted))}
    if min(starts.values()) < 0:
        return None
    numbers = {packets.timestamps[index]: index for index in starts}
    clip = _Clip(wanted, source.name)
    reached = -1  # the keyframe from which the decoder has started
    decoded: Iterator[av.VideoFrame] = iter(())
    for index, start in starts.items():
        if start > reached:
            keyframe = packets.keyframes[start]
            try:
                container.seek(keyframe, stream=stream)
            except av.error.FFmpegError:
                return None
            decoded = _frames(container, stream, source, needed=numbers)
            # frames before the keyframe in time, but after it in the file, lack their reference frames
            frame = next((frame for frame in decoded if frame.pts is None or frame.pts >= keyframe), None)
            # libvpx states no picture type, and starts at keyframes only
            if frame is None or frame.pts != keyframe or frame.pict_type not in (PictureType.I, PictureType.NONE):
                return None
            if keyframe in numbers:
                clip.add(numbers[keyframe], frame)
            reached = start
        while index in clip.missing:
            frame = next(decoded, None)
            if frame is None or frame.pts is None or frame.pts > packets.timestamps[index]:
                return None
            if frame.pts in numbers:
                clip.add(numbers[frame.pts], frame)
    return clip


def _frames(
    container: av.container.InputContainer,
    stream: av.VideoStream,
    source: Source,
    needed: Container[int] | None = None,
) -> Iterator[av.VideoFrame]:
    """Yield the frames from here on. With `needed` timestamps, skip some other frames that no frame refers to."""
    if stream.codec_context.codec.canonical_name not in _NOTHING_CARRIED_ON:
        needed = None
    decoder = open_decoder(stream, source)
    # AVI: the four bytes of a pixel without a codec tag (BI_RGB) are three colours and one unused byte, often 0
    filled = stream.codec_context.name == "rawvideo" and stream.codec_context.codec_tag == "\0\0\0\0"
    for packet in demux(container, stream, source):
        if needed is not None:
            whole = packet.pts is None or packet.pts in needed or packet.is_keyframe
            stream.codec_context.skip_frame = "DEFAULT" if whole else "NONREF"
        for frame in _decode(decoder, packet, source):
            yield frame.reformat(format="bgr0") if filled and frame.format.name == "bgra" else frame


def _decode(decoder: av.VideoStream | av.VideoCodecContext, packet: av.Packet, source: Source) -> list[av.VideoFrame]:
    try:
        frames = decoder.decode(packet)
    except (av.error.FFmpegError, ValueError):  # ValueError: PyAV 19, where a decoder cannot be opened
        return []  # a damaged packet; the number of frames shows that one is missing
    source.deadline.check()
    for frame in frames:
        refuse_large(frame.width, frame.height, source)
        if frame.format.name not in source.formats:
            refuse_format(frame.format.name, source)
            source.formats.add(frame.format.name)
    return frames


@cache
def _has_alpha(pixel_format: str) -> bool:
    described = av.VideoFormat(pixel_format)
    return described.has_palette or any(component.is_alpha for component in described.components)


class ToArray:
    """
    Converts the frames of one stream to RGB, uint8 of shape (height, width, 3), from 0 to 255. Rotates and mirrors
    them as the display matrix says, and shows transparent pixels on white, see [`on_white`].
    """

    def __init__(self):
        # one converter for all frames: with one per frame, the setup and its threads would take longer than converting
        # a small picture
        self.reformatter = VideoReformatter()
        self.matrix: list[int] | None = None

    def is_upright(self, frame: av.VideoFrame) -> bool:
        """
        Whether the frame is shown as it is stored: not rotated or mirrored, and without transparent pixels. The first
        frame of the stream determines the rotation of all frames.
        """
        return not _has_alpha(frame.format.name) and not self._is_turned(frame)

    def _is_turned(self, frame: av.VideoFrame) -> bool:
        if self.matrix is None:
            side_data: Any = frame.side_data.get("DISPLAYMATRIX")
            # without a display matrix: the identity
            self.matrix = [1, 0, 0, 0, 1] if side_data is None else np.frombuffer(bytes(side_data), np.int32).tolist()
        a, b, _, _, d = self.matrix[:5]
        return abs(a) < abs(b) or a <= 0 or d <= 0

    def __call__(self, frame: av.VideoFrame) -> np.ndarray:
        has_alpha = _has_alpha(frame.format.name)
        image = self.reformatter.reformat(frame, format="rgba" if has_alpha else "rgb24", threads=1).to_ndarray()
        if has_alpha:
            image = on_white(image)
        if not self._is_turned(frame):
            return image
        assert self.matrix is not None  # noqa: S101
        # x' = a x + c y and y' = b x + d y; of these, a grid of pixels allows only quarter turns and mirroring
        a, b, _, c, d = self.matrix[:5]
        if abs(a) < abs(b):
            image = image.swapaxes(0, 1)
            a, d = c, b
        turned = image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
        # copying channel by channel takes a quarter of the time of copying pixel by pixel
        upright = np.empty(turned.shape, np.uint8)
        for channel in range(3):
            upright[..., channel] = turned[..., channel]
        return upright


__all__ = ["DecodedVideoMetadata", "VideoDecodeError", "read_video"]
