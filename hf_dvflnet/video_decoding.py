"""
Video files to frames, on PyAV.

Frame i is the i-th frame of a full sequential decode, bit for bit, shown upright. How a file is opened, and what it
may cost, is in `video_container` and `video_limits`.
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


# Codecs in which a frame that no other refers to can be left out. In VP8 and VP9 such a frame may still change how the
# next ones are read.
_NOTHING_CARRIED_ON = {"h264", "hevc", "mpeg4"}


def read_video(
    video: VideoSource,
    indices: Sequence[int] | Callable[[VideoMetadata], np.ndarray] | None = None,
    *,
    limits: VideoLimits | None = None,
) -> tuple[np.ndarray, DecodedVideoMetadata]:
    """
    Decode some frames of a video, of several video tracks those of the default one.

    Args:
        video: A path, an http or https URL, the bytes of a file, or a seekable binary file object.
        indices: The frames wanted, in any order, repeated or not; a function from the metadata to them; or `None` for
            all frames.
        limits: What the video may cost, by default those of [`set_video_limits`]. All frames of a
            long video may take more memory than there is: no limit counts that.

    Returns:
        Frames, uint8 RGB of shape (len(indices), height, width, 3), from 0 to 255, transparent pixels shown on white;
        and metadata.

    Raises:
        FileNotFoundError: If there is no such file.
        VideoDecodeError: If it is no video, holds no frame that can be decoded, cannot be downloaded, goes beyond a
            limit, or has fewer frames than `indices` name.

    Warns:
        UserWarning: If the file ends earlier than it says. A function in `indices` is then asked again, with the
            number of frames that there are. Also if the transparency of VP8 or VP9 cannot be read, so that colours
            that are meant to be hidden are shown.
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
                    raise VideoDecodeError(f"{name}: other frames come out each time that it is decoded")

    metadata.height, metadata.width = clip.frames.shape[1:3]
    metadata.frames_indices = np.asarray(wanted)
    return clip.frames, metadata


@contextmanager
def open_frames(
    video: VideoSource, limits: VideoLimits | None = None
) -> Iterator[tuple[DecodedVideoMetadata, Iterator[av.VideoFrame]]]:
    """
    All frames that [`read_video`] counts, in its order, as FFmpeg's own frames, decoded one by one in one thread.

    They are as the file stores them: [`ToArray`] tells whether they are upright, and turns them. `limits` as there;
    what is done with the frames does not count as time.

    Raises:
        FileNotFoundError, VideoDecodeError: As [`read_video`]; what concerns the decoding, while the frames are read.

    Warns:
        UserWarning: If the file ends earlier than it says; if frames are missing, after the last one.
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
    The packets that give a frame: where some may give none, those are left out.

    For that the video is decoded, without turning pictures to RGB; only up to the second keyframe where nothing but
    the frames before the first one is in doubt.
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
        counted = describe(come, stream) if times else packets  # that none comes is said later
    source.seek(position)  # from where the container that is open beside this one reads on
    if times and len(doubts.shown) - len(come) > len(doubts.leading) + doubts.placeholders:
        warnings.warn(_decoding_ends(source.name, packets.metadata, len(come)), stacklevel=3)
    return counted


def _come(doubts: Doubts, times: list[int | None]) -> list[Shown]:
    """Those of the packets that give the frames with these timestamps."""
    known = [pts for pts in times if pts is not None]
    if not doubts.placeholders:
        never = doubts.leading.difference(known) if len(known) == len(times) else set()
        return [packet for packet in doubts.shown if packet[0] not in never]
    if len(known) < len(times) or known != sorted(set(known)):
        return [(None, 0, False)] * len(times)  # no timestamp tells a frame: all are decoded from the start
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
        raise VideoDecodeError(f"{name}: has frames 0 to {total - 1}, but the frames asked for are {wanted}")
    return wanted


class _Clip:
    """The frames wanted, in one array from the start: a long clip is never held twice."""

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
                    f"{self.name}: {shape[0]} frames of {shape[2]} x {shape[1]} take {size}, more memory than there "
                    f"is; ask for fewer"
                ) from None
        if shape != self.frames.shape:
            shapes = sorted([shape[1:], self.frames.shape[1:]])
            raise VideoDecodeError(
                f"{self.name}: its frames change size midway, (height, width, channels) are {shapes}"
            )
        for position in self.positions[index]:
            self.frames[position] = image
        self.missing.discard(index)


def _decode_from_start(source: Source, wanted: Sequence[int]) -> tuple[_Clip, int]:
    """Those of the frames wanted that exist, and how many frames were decoded: all of them if any is missing."""
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
    The frames wanted, skipping what lies between a frame and the last keyframe before the next. `None` where
    timestamps do not tell the frames, or where what comes out is not what they promised.
    """
    if packets.timestamps is None:
        return None
    # each frame wanted and the keyframe that decoding it starts from
    starts = {index: bisect_right(packets.keyframes, packets.timestamps[index]) - 1 for index in sorted(set(wanted))}
    if min(starts.values()) < 0:
        return None
    numbers = {packets.timestamps[index]: index for index in starts}
    clip = _Clip(wanted, source.name)
    reached = -1  # the keyframe behind which the decoder stands
    decoded: Iterator[av.VideoFrame] = iter(())
    for index, start in starts.items():
        if start > reached:
            keyframe = packets.keyframes[start]
            try:
                container.seek(keyframe, stream=stream)
            except av.error.FFmpegError:
                return None
            decoded = _frames(container, stream, source, needed=numbers)
            # frames that precede the keyframe in time, but follow it in the file, lack what they refer to
            frame = next((frame for frame in decoded if frame.pts is None or frame.pts >= keyframe), None)
            # libvpx names no type, and begins at no other frame
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
    """The frames from here on; with timestamps that are needed, without some others that no frame refers to."""
    if stream.codec_context.codec.canonical_name not in _NOTHING_CARRIED_ON:
        needed = None
    decoder = open_decoder(stream, source)
    # AVI: four bytes a pixel without a name (BI_RGB) are three colours and one that means nothing, often 0
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
    except av.error.FFmpegError:
        return []  # a damaged packet; that a frame is missing shows in their number
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
    Frames of one stream to RGB, uint8 (height, width, 3), from 0 to 255, turned and mirrored as the display matrix
    says. Transparent pixels are shown on white, see [`on_white`].
    """

    def __init__(self):
        # one converter for all frames: a frame's own sets itself up anew, threads and all, which takes longer than
        # converting a small picture
        self.reformatter = VideoReformatter()
        self.matrix: list[int] | None = None

    def is_upright(self, frame: av.VideoFrame) -> bool:
        """
        Whether the frame is shown as it is stored: neither turned, which the stream's first frame decides for all, nor
        with transparent pixels.
        """
        return not _has_alpha(frame.format.name) and not self._is_turned(frame)

    def _is_turned(self, frame: av.VideoFrame) -> bool:
        if self.matrix is None:
            side_data: Any = frame.side_data.get("DISPLAYMATRIX")
            # unity, where there is none
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
        # x' = a x + c y and y' = b x + d y, of which a grid of pixels can only follow quarter turns and mirrors
        a, b, _, c, d = self.matrix[:5]
        if abs(a) < abs(b):
            image = image.swapaxes(0, 1)
            a, d = c, b
        turned = image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
        # one channel after the other is copied in a quarter of the time that pixel after pixel takes
        upright = np.empty(turned.shape, np.uint8)
        for channel in range(3):
            upright[..., channel] = turned[..., channel]
        return upright


__all__ = ["DecodedVideoMetadata", "VideoDecodeError", "read_video"]
