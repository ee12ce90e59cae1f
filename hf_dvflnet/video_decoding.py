"""
Decodes videos with PyAV. Frame i is the i-th frame of a full sequential decode, bit for bit, upright, in RGB.

A few frames are read without decoding the others: one pass over the packets finds the timestamps of the frames, and
each requested frame is decoded from the last keyframe before it. Not every packet gives a frame:

    packets, in file order   I2   B0   B1   P4   P3   p5   I7   P6      numbered by timestamp
    leading                       -    -                                refer to frames that were cut off
    placeholder                                       -                 of MPEG-4: a dropped frame without a picture
    edit list                                                   -       decoded, but never shown
    frames                   0              2    1         3            the others, ordered by time

A file with leading packets or placeholders is first decoded to count. So are interlaced H.264, where a packet may be
one field of a frame; joined recordings, whose timestamps run back; and codecs that are not listed here.

This module imports PyAV and NumPy only, so that a process that decodes starts fast.
"""

import importlib
import io
import multiprocessing
import os
import stat
import warnings
from bisect import bisect_right
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from typing import IO, Any

import av
import av.error
import numpy as np
from av.container import InputContainer
from av.stream import Disposition
from av.video.frame import PictureType


# Codecs in which each packet is one frame, so that a timestamp identifies a frame. Others are decoded from the start.
_ONE_FRAME_PER_PACKET = {"h264", "hevc", "vp8", "vp9", "av1", "mpeg4", "mjpeg"}
# Codecs in which a frame that no other frame refers to can be skipped. In VP9, it may change how others are decoded.
_SKIPPABLE = {"h264", "hevc", "mpeg4"}
# FFmpeg decoders that read transparency, for codecs whose default decoder does not
_WITH_ALPHA = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
_PROGRESSIVE, _CLOCK_MAY_JUMP = 1, 0x200  # FFmpeg's AV_FIELD_PROGRESSIVE and AVFMT_TS_DISCONT
_LARGEST_PLACEHOLDER = 19  # bytes up to which FFmpeg takes an MPEG-4 packet for a placeholder (MAX_NVOP_SIZE)
# The supported file formats, by FFmpeg's names. Some of its 300 others make it open further files, such as playlists.
_FORMATS = (
    "3g2,3gp,asf,av1,avi,dv,flv,gif,h264,hevc,ivf,m4v,matroska,mjpeg,mov,mp4,mpeg,mpegts,mpegvideo,mxf,nut,obu,ogg,"
    "rm,webm,wtv,yuv4mpegpipe"
)


class VideoDecodeError(ValueError):
    """Raised if a video cannot be read or exceeds a limit. The message names the file and the reason."""


class VideoWarning(UserWarning):
    """Warns of a video that is not read as it should be. The message names the file."""


@dataclass(frozen=True)
class DecodingLimits:
    """Limits on one video. `VideoLimits` of the package documents them, and adds those of sandbox and downloads."""

    max_pixels: int = 40_000_000  # above 8K
    max_aspect_ratio: float = 32.0  # resizing makes thin frames large
    max_frames: int = 1_000_000
    max_threads: int = 4
    sandbox: bool = "sandbox=yes" in os.environ.get("DVFLNET_VIDEO_LIMITS", "")


_limits = DecodingLimits()


def video_limits() -> Any:
    """Return the default limits of this process."""
    return _limits


def set_video_limits(limits: DecodingLimits):
    """Set the default limits of this process, for calls without `limits`."""
    global _limits
    _limits = limits


@dataclass
class VideoInfo:
    """
    Facts about a video, known before any frame is returned.

    Args:
        total_num_frames: Number of frames.
        fps: Frames per second, or `None` if unknown.
        width, height: Size of a frame in pixels; of the upright picture, once frames have been decoded.
        duration: Seconds, or `None` if unknown.
        codec: Name of the codec, such as `"h264"`.
        frame_times: Times of the frames in seconds since the first one, float64 of shape (frames,), ascending, or
            `None` if the container does not give them exactly. They include frames that turn out not to be decodable.
        frames_indices: Indices of the frames that were decoded.
        pixel_aspect_ratio: Width of a pixel in units of its height, as the file says. Frames are not scaled by it.
        remarks: What was warned of.
    """

    total_num_frames: int
    fps: float | None
    width: int
    height: int
    duration: float | None
    codec: str
    frame_times: np.ndarray | None = field(default=None, repr=False, compare=False)
    frames_indices: np.ndarray | None = field(default=None, compare=False)
    pixel_aspect_ratio: float = 1.0
    remarks: list[str] = field(default_factory=list)


VideoSource = str | os.PathLike | bytes | IO[bytes]
Indices = Sequence[int] | Callable[[VideoInfo], Sequence[int] | np.ndarray] | None


def read_video(
    video: VideoSource, indices: Indices = None, *, limits: DecodingLimits | None = None
) -> tuple[np.ndarray, VideoInfo]:
    """
    Decode all or some frames of a video. If the file has several video tracks, the default track is decoded.

    Args:
        video: A path, an http or https URL, the bytes of a file, or a seekable binary file object.
        indices: Indices of the frames, in any order, with or without repetitions; a function that returns them from
            the [`VideoInfo`]; or `None` for all frames.
        limits: Limits on the resources that the video may use. Defaults to those of [`set_video_limits`].

    Returns:
        The frames, uint8 RGB of shape (len(indices), height, width, 3), from 0 to 255, with transparent pixels shown
        on white; and the [`VideoInfo`].

    Raises:
        FileNotFoundError: If the file does not exist.
        VideoDecodeError: If the file is not a video, contains no frame that can be decoded, cannot be downloaded,
            exceeds a limit, or does not have all frames in `indices`.

    Warns:
        VideoWarning: If the file ends earlier than its header says. A function in `indices` is then called again, with
            the actual number of frames. Also if the transparency of VP8 or VP9 cannot be read, or if pixels are not
            square: frames have the stored size, as in the published code.
    """
    limits = limits or _limits
    if limits.sandbox:
        return of_package("sandbox", "Decoding in a sandbox").read_video(video, indices, limits)
    with opened(video, limits) as source:
        try:
            return read_source(source, indices)
        except MemoryError:
            raise VideoDecodeError(
                f"{source.name}: needs more memory than is available; request fewer frames"
            ) from None


def read_source(source: "Source", indices: Indices) -> tuple[np.ndarray, VideoInfo]:
    with source.open() as (container, stream):
        packets = scan(container, stream, source)
        info = packets.info
        wanted = wanted_frames(indices, info, source.name)
        pictures = _after_seeking(container, stream, source, packets, wanted)
    if pictures is None:
        pictures = _from_start(source, wanted)
        if len(pictures) < len(set(wanted)):
            with source.open() as (container, stream):
                info = scan(container, stream, source, by_decoding=True).info
            wanted = wanted_frames(indices, info, source.name)
            pictures = _from_start(source, wanted)
    if len(pictures) < len(set(wanted)):
        raise VideoDecodeError(f"{source.name}: decoding it again gives a different number of frames")
    shapes = sorted({picture.shape for picture in pictures.values()})
    if len(shapes) > 1:
        raise VideoDecodeError(
            f"{source.name}: its frames change size midway; their shapes (height, width, channels) are {shapes}"
        )
    frames = np.empty((len(wanted), *shapes[0]), np.uint8)
    last_use = {index: place for place, index in enumerate(wanted)}
    for place, index in enumerate(wanted):  # a long clip is hardly in memory twice
        frames[place] = pictures[index]
        if place == last_use[index]:
            del pictures[index]
    info.height, info.width = frames.shape[1:3]
    info.frames_indices = np.asarray(wanted)
    if not 0.9 < info.pixel_aspect_ratio < 1.1:
        ratio = f"{info.pixel_aspect_ratio:.3g} to 1"
        source.warn(
            f"its pixels are not square ({ratio}); they are used as if they were, and the picture is distorted"
        )
    return frames, info


def wanted_frames(indices: Indices, info: VideoInfo, name: str) -> list[int]:
    total = info.total_num_frames
    if indices is None:
        return list(range(total))
    known = len(info.remarks)
    wanted = [int(index) for index in (indices(info) if callable(indices) else indices)]
    for place in range(known, len(info.remarks)):  # what `indices` remarks
        info.remarks[place] = f"{name}: {info.remarks[place]}"
        warnings.warn(info.remarks[place], VideoWarning, stacklevel=5)
    if not wanted or min(wanted) < 0 or max(wanted) >= total:
        raise VideoDecodeError(f"{name}: has frames 0 to {total - 1}, but the requested frames are {wanted}")
    return wanted


# Open a file


def of_package(module: str, purpose: str) -> Any:
    """A module of the package that is not carried by saved models."""
    try:
        return importlib.import_module(f"hf_dvflnet.data.{module}")
    except ModuleNotFoundError as error:
        raise VideoDecodeError(f"{purpose} needs the package hf_dvflnet ({error}); install it") from error


@contextmanager
def opened(video: VideoSource, limits: DecodingLimits) -> Iterator["Source"]:
    """Open a video as a binary file, and close it, unless it is the caller's."""
    if isinstance(video, str) and "://" in video:
        file, name = of_package("storages", f"{video}: downloading").fetch_video(video, limits), video
    elif isinstance(video, (str, os.PathLike)):
        name = str(os.fspath(video))
        kind = os.stat(name).st_mode
        if stat.S_ISDIR(kind) or stat.S_ISFIFO(kind):  # opening a pipe would wait for a writer
            raise VideoDecodeError(f"{name}: is a folder or a named pipe, not a video file")
        file = open(name, "rb")  # noqa: SIM115
    elif isinstance(video, bytes):
        file, name = io.BytesIO(video), f"<{len(video)} bytes>"
    elif hasattr(video, "read") and hasattr(video, "seek"):
        file, name = video, str(getattr(video, "name", f"<{type(video).__name__}>"))
    else:
        raise TypeError(
            f"a video must be a path, a URL, bytes or a seekable binary file object, but got {type(video).__name__}"
        )
    try:
        yield Source(file, name, limits)
    finally:
        if file is not video:
            file.close()


class Source:
    """A file, which can be opened as a video several times. FFmpeg reads it, and opens no other file and no URL."""

    def __init__(self, file: IO[bytes], name: str, limits: DecodingLimits):
        self.file, self.name, self.limits = file, name, limits
        self.remarks: list[str] = []

    @contextmanager
    def open(self) -> Iterator[tuple[InputContainer, av.VideoStream]]:
        """The container and its main track. A container that was opened before is continued afterwards."""
        position = self.file.tell()
        self.file.seek(0)
        # the size that FFmpeg allocates includes margins, which can be as large as a small picture itself
        options = {"max_pixels": str(2 * self.limits.max_pixels + (1 << 16))}
        # FFmpeg decodes and keeps a frame of each track when it opens a file, but ignores tracks beyond `max_streams`
        guards = {"format_whitelist": _FORMATS, "protocol_whitelist": "none", "max_streams": "32"}
        try:
            container = av.open(self.file, "r", options=options, container_options=guards)
        except MemoryError:
            raise  # is an FFmpegError, too
        except av.error.ArgumentError as error:
            raise VideoDecodeError(
                f"{self.name}: cannot be opened as a video: it is not a video, or its format is not supported"
            ) from error
        except (av.error.FFmpegError, ValueError, OSError) as error:
            reason = getattr(error, "strerror", None) or error
            raise VideoDecodeError(f"{self.name}: cannot be opened as a video: {reason}") from error
        with container:
            stream = main_track(container, self.name)
            codec = stream.codec_context
            codec.options = options  # later frames may be larger than the header says
            self.refuse_size(codec.width, codec.height)
            # starting threads takes longer than decoding a small picture, and workers of a data loader use all cores
            if codec.width * codec.height < 640 * 360 or multiprocessing.parent_process() is not None:
                codec.thread_count = 1
            else:
                codec.thread_type, codec.thread_count = "AUTO", min(self.limits.max_threads, os.cpu_count() or 1)
            yield container, stream
        self.file.seek(position)

    def warn(self, remark: str):
        if f"{self.name}: {remark}" not in self.remarks:
            self.remarks.append(f"{self.name}: {remark}")
            warnings.warn(self.remarks[-1], VideoWarning, stacklevel=4)

    def warn_of_end(self, total: int, count: int):
        if not count:
            raise VideoDecodeError(f"{self.name}: none of its {total} frames can be decoded")
        self.warn(f"decoding ends after {count} of {total} frames; these are used")

    def refuse_size(self, width: int, height: int):
        limit = self.limits.max_pixels
        if width * height > limit:
            raise VideoDecodeError(
                f"{self.name}: has frames of {width} x {height}, more than the limit of {limit} pixels (max_pixels)"
            )
        refuse_thin(width, height, self.name, self.limits)


def refuse_thin(width: int, height: int, name: str, limits: DecodingLimits | None = None):
    ratio = (limits or _limits).max_aspect_ratio
    if max(width, height) > ratio * min(width, height) > 0:
        raise VideoDecodeError(
            f"{name}: has frames of {width} x {height}, thinner than the limit of {ratio:g} to 1 (max_aspect_ratio)"
        )


def main_track(container: InputContainer, name: str) -> av.VideoStream:
    """Return the video track that FFmpeg and players show: of several, the default one."""
    best = container.streams.best("video")
    # the cover picture of a song is a video stream too
    tracks = [track for track in container.streams.video if not track.disposition & Disposition.attached_pic]
    # of equal tracks, the first
    stream = min(
        tracks, key=lambda track: (track is not best, not track.disposition & Disposition.default), default=None
    )
    if stream is None or stream.codec_context is None:
        lacks = "has no video stream" if stream is None else "its video codec is not known to this FFmpeg"
        raise VideoDecodeError(f"{name}: {lacks}")
    return stream


# Find the frames in the packets


@dataclass
class Packets:
    """What the packets of a video stream show."""

    info: VideoInfo
    timestamps: list[int] | None  # of the frames, ascending; None if seeking by them is not exact
    keyframes: list[int]  # timestamps of the keyframes, ascending
    has_fields: bool


def _demux(container: InputContainer, stream: av.VideoStream) -> Iterator[av.Packet]:
    """Yield the packets of a stream as far as the file can be read. The last one is empty and flushes the decoder."""
    packets = container.demux(stream)
    try:
        yield from packets
    except MemoryError:
        raise
    except (av.error.FFmpegError, IndexError):  # IndexError: a stream appears midway
        yield av.Packet()


def scan(container: InputContainer, stream: av.VideoStream, source: Source, by_decoding: bool = False) -> Packets:
    """Find the frames of a video by its packets; `by_decoding`, or where packets do not tell, by decoding it once."""
    name, max_frames = source.name, source.limits.max_frames
    codec = stream.codec_context.codec
    # mp4 has one complete index; in AVI and WebM, missing data shows in the file size
    announced = len(stream.index_entries) if "mp4" in container.format.name else 0
    frames: list[tuple[int | None, int]] = []  # timestamp and duration
    keyframes: list[int] = []
    last = -(1 << 63)  # decoding timestamp
    placeholders = discarded = 0
    # AVI stores no timestamps; FFmpeg numbers packets in the order of decoding, which for Xvid only it corrects
    by_decoding |= container.format.name == "avi" and codec.reorder and codec.canonical_name != "mpeg4"
    for packet in _demux(container, stream):
        if len(frames) + discarded > max_frames:
            raise VideoDecodeError(f"{name}: has more frames than the limit of {max_frames} (max_frames)")
        # decoded but never shown: cut off by an edit list, or only a reference frame (RFC 6386, 9.1: show_frame)
        if packet.is_discard or (codec.canonical_name == "vp8" and packet.size and not memoryview(packet)[0] & 0x10):
            discarded += 1
        elif packet.size:
            if packet.is_keyframe and packet.pts is not None:
                keyframes.append(packet.pts)
            placeholders += codec.canonical_name == "mpeg4" and packet.size <= _LARGEST_PLACEHOLDER
            by_decoding |= packet.pts is None or (packet.dts is not None and packet.dts < last)
            last = last if packet.dts is None else packet.dts
            frames.append((packet.pts, packet.duration or 0))
    if not frames:
        raise VideoDecodeError(f"{name}: its video stream contains no frames")
    missing = _missing_bytes(source.file)
    if len(frames) + discarded < announced or missing:
        reason = f"{missing} bytes are missing" if missing else f"its index lists {announced - discarded} frames"
        source.warn(f"is truncated ({reason}); only the {len(frames)} frames that exist are used")
    seekable = codec.intra_only or codec.canonical_name in _ONE_FRAME_PER_PACKET
    # of H.264, the two fields of a frame may be two packets, in broadcasts also of some frames only
    durations = {duration for _, duration in frames}
    is_broadcast = bool(container.format.flags & _CLOCK_MAY_JUMP)
    has_fields = codec.canonical_name == "h264" and (
        stream.codec_context.field_order != _PROGRESSIVE or (is_broadcast and 2 * min(durations) <= max(durations))
    )
    leading = sum(pts is not None and pts < keyframes[0] for pts, _ in frames) if keyframes else 0
    is_unique = len({pts for pts, _ in frames}) == len(frames)
    if by_decoding or has_fields or leading or placeholders or not (seekable and is_unique):
        listed, packets = len(frames) - leading - placeholders, sorted(pts for pts, _ in frames if pts is not None)
        with source.open() as (again, decoded):
            found = decode(again, decoded, source)
            frames = [(frame.pts, 0 if has_fields else frame.duration or 0) for frame in found]
        if has_fields:  # of a frame that was decoded, the second packet has no frame
            shown = {pts for pts, _ in frames}
            lost = [{one, two} & shown for one, two in pairwise(packets[leading:])].count(set())
            listed = len(frames) + lost
        if len(frames) < max(1, listed):
            source.warn_of_end(max(1, listed), len(frames))
    else:
        frames.sort()
    timestamps = [pts for pts, _ in frames if pts is not None]
    is_ascending = len(timestamps) == len(frames) and all(one < two for one, two in pairwise(timestamps))
    return Packets(
        _describe(frames, stream, is_broadcast, source.remarks),
        timestamps=timestamps if seekable and is_ascending else None,
        keyframes=sorted(set(keyframes).intersection(timestamps)),
        has_fields=has_fields,
    )


def _describe(
    frames: list[tuple[int | None, int]], stream: av.VideoStream, is_broadcast: bool, remarks: list[str]
) -> VideoInfo:
    """Describe a stream by the timestamps and durations of its frames, in the order of decoding."""
    context, count = stream.codec_context, len(frames)
    fps = float(stream.average_rate or stream.guessed_rate or 0) or None
    duration = count / fps if fps else None
    times = None
    ticks = _ticks([pts for pts, _ in frames], float(stream.time_base or 0), is_broadcast)
    if ticks is not None and stream.time_base:
        times = ticks * float(stream.time_base)
        # without a stated duration, the last frame is shown as long as the others, on average
        last = frames[-1][1] or (ticks[-1] / (count - 1) if count > 1 else 0)
        duration = float((ticks[-1] + last) * float(stream.time_base)) or duration
        # Recordings of browsers state no rate, and FFmpeg then reports the 1000 ticks per second of their clock. Or
        # fields are counted. The median distance of two frames is not changed by a pause.
        if count > 1 and duration and not (fps and 0.5 < fps * float(np.median(np.diff(times))) < 2):
            fps = count / duration
    return VideoInfo(
        count,
        fps,
        context.width,
        context.height,
        duration,
        context.codec.canonical_name,
        times,
        pixel_aspect_ratio=float(stream.sample_aspect_ratio or 1),
        remarks=remarks,
    )


def _ticks(timestamps: list[int | None], time_base: float, is_broadcast: bool) -> np.ndarray | None:
    """
    Times of the frames since the first one, ascending, in units of `time_base`; `None` if they are not known.

    Where recordings were joined, their clocks continue each other:

        timestamps   7 8 9 | 0 1 2 | 900 901
        ticks        0 1 2   3 4 5   6   7
    """
    steps = np.diff(np.array(timestamps, float))  # NaN at a frame without a timestamp
    # As FFmpeg's tools decide it. In other formats than those for broadcasting, a long step is a still picture.
    goes_on = (steps >= 0) & (steps * time_base <= (10 if is_broadcast else 30 * 3600))
    if goes_on.sum() < 0.8 * len(steps) or None in timestamps[:1]:
        return None  # not those of frames in the order in which they are shown
    if len(steps):
        steps[~goes_on] = np.median(steps[goes_on])
    return np.concatenate([[0.0], np.cumsum(steps)])


def _missing_bytes(file: IO[bytes]) -> int:
    """Return by how many bytes an AVI (RIFF), WebM or Matroska (EBML) file is shorter than its header says."""
    position = file.tell()
    end = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(4096)
    file.seek(position)  # FFmpeg continues to read here
    if head[:4] == b"RIFF":
        return max(0, 8 + int.from_bytes(head[4:8], "little") - end)
    start = head.find(b"\x18\x53\x80\x67") + 4  # of the size of the EBML segment
    if head[:4] != b"\x1a\x45\xdf\xa3" or start < 4 or start == len(head):
        return 0
    # a number of n bytes begins with n - 1 zero bits and a one; if only ones follow, the size is unknown
    width = 9 - head[start].bit_length()
    size = int.from_bytes(head[start : start + width], "big") - (1 << 7 * width)
    return 0 if size == (1 << 7 * width) - 1 else max(0, start + width + size - end)


# Decode the frames


def _from_start(source: Source, wanted: Sequence[int]) -> dict[int, np.ndarray]:
    """The requested frames that exist."""
    pictures, to_array = {}, ToArray()
    needed, last = set(wanted), max(wanted)
    with source.open() as (container, stream):
        for index, frame in enumerate(decode(container, stream, source)):
            if index in needed:
                pictures[index] = to_array(frame)
            if index >= last:
                break
    return pictures


def _after_seeking(
    container: InputContainer, stream: av.VideoStream, source: Source, packets: Packets, wanted: Sequence[int]
) -> dict[int, np.ndarray] | None:
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
    pictures: dict[int, np.ndarray] = {}
    to_array, reached = ToArray(), -1  # the keyframe from which the decoder has started
    decoded: Iterator[av.VideoFrame] = iter(())
    for index, start in starts.items():
        if start > reached:
            reached, keyframe = start, packets.keyframes[start]
            try:
                container.seek(keyframe, stream=stream)
            except av.error.FFmpegError:
                return None
            # of a frame in two fields, the second has another timestamp, and would be skipped
            decoded = decode(container, stream, source, needed=None if packets.has_fields else numbers)
            # frames before the keyframe in time, but after it in the file, lack their reference frames
            frame = next((frame for frame in decoded if frame.pts is None or frame.pts >= keyframe), None)
            # libvpx states no picture type, and starts at keyframes only
            if frame is None or frame.pts != keyframe or frame.pict_type not in (PictureType.I, PictureType.NONE):
                return None
            if keyframe in numbers:
                pictures[numbers[keyframe]] = to_array(frame)
        while index not in pictures:
            frame = next(decoded, None)
            if frame is None or frame.pts is None or frame.pts > packets.timestamps[index]:
                return None
            if frame.pts in numbers:
                pictures[numbers[frame.pts]] = to_array(frame)
    return pictures


def decode(
    container: InputContainer, stream: av.VideoStream, source: Source, needed: Container[int] | None = None
) -> Iterator[av.VideoFrame]:
    """Yield the frames from here on. With `needed` timestamps, skip some other frames that no frame refers to."""
    codec: Any = stream.codec_context
    if codec.codec.canonical_name not in _SKIPPABLE:
        needed = None
    decoder: Any = stream
    if codec.codec.canonical_name in _WITH_ALPHA and stream.metadata.get("alpha_mode") == "1":
        decoder = _decoder_with_alpha(codec, source) or stream
    # AVI: the four bytes of a pixel without a codec tag (BI_RGB) are three colours and one unused byte, often 0
    filled = codec.name == "rawvideo" and codec.codec_tag == "\0\0\0\0"
    for packet in _demux(container, stream):
        if needed is not None:
            whole = packet.pts is None or packet.pts in needed or packet.is_keyframe
            codec.skip_frame = "DEFAULT" if whole else "NONREF"
        try:
            frames = decoder.decode(packet)
        except MemoryError:
            raise  # is an FFmpegError, too
        except (av.error.FFmpegError, ValueError):  # ValueError: PyAV 19, where a decoder cannot be opened
            continue  # a damaged packet; the number of frames shows that one is missing
        for frame in frames:
            source.refuse_size(frame.width, frame.height)
            try:
                _rgb_format(frame.format.name)
            except MemoryError:
                raise
            except av.error.FFmpegError as error:
                pixel_format = f"the unsupported pixel format {frame.format.name}"
                raise VideoDecodeError(f"{source.name}: has frames of {pixel_format}") from error
            yield frame.reformat(format="bgr0") if filled and frame.format.name == "bgra" else frame


def _decoder_with_alpha(codec: Any, source: Source) -> av.VideoCodecContext | None:
    decoder_name = _WITH_ALPHA[codec.codec.canonical_name]
    try:
        decoder: Any = av.VideoCodecContext.create(decoder_name, "r")
    except av.codec.codec.UnknownCodecError:
        source.warn(
            f"its transparency is not read, because this needs FFmpeg's decoder {decoder_name}; colours that should "
            "be hidden are shown"
        )
        return None
    decoder.options, decoder.thread_count = codec.options, codec.thread_count
    return decoder


@cache
def _rgb_format(pixel_format: str) -> str:
    """The format to convert frames to, with alpha if they may be transparent. Raises an error if FFmpeg cannot."""
    described = av.VideoFormat(pixel_format)
    av.VideoFrame(16, 16, pixel_format).reformat(format="rgb24")
    has_alpha = described.has_palette or any(component.is_alpha for component in described.components)
    return "rgba" if has_alpha else "rgb24"


class ToArray:
    """
    Converts the frames of one stream to RGB, uint8 of shape (height, width, 3). Rotates and mirrors them as the first
    frame's display matrix says, and shows transparent pixels on white.
    """

    def __init__(self):
        # one for all frames: with one per frame, its setup would take longer than converting a small picture
        self.reformatter = av.video.reformatter.VideoReformatter()
        self.matrix: list[int] = []  # a, b, -, c, d, ...; that of the first frame

    def is_turned(self, frame: av.VideoFrame) -> bool:
        if not self.matrix:
            side_data: Any = frame.side_data.get("DISPLAYMATRIX")
            # without a display matrix: the identity
            self.matrix = [1, 0, 0, 0, 1] if side_data is None else np.frombuffer(bytes(side_data), np.int32).tolist()
        a, b, _, _, d = self.matrix[:5]
        return abs(a) < abs(b) or a <= 0 or d <= 0

    def is_upright(self, frame: av.VideoFrame) -> bool:
        """Whether the frame is shown as it is stored: not rotated or mirrored, and without transparent pixels."""
        return _rgb_format(frame.format.name) == "rgb24" and not self.is_turned(frame)

    def __call__(self, frame: av.VideoFrame) -> np.ndarray:
        rgb = _rgb_format(frame.format.name)
        image = self.reformatter.reformat(frame, format=rgb, threads=1).to_ndarray()
        if rgb == "rgba":
            image = on_white(image)
        if not self.is_turned(frame):
            return image
        # x' = a x + c y and y' = b x + d y; of these, a grid of pixels allows only quarter turns and mirroring
        a, b, _, c, d = self.matrix[:5]
        if abs(a) < abs(b):
            image = image.swapaxes(0, 1)
            a, d = c, b
        return np.ascontiguousarray(image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])


def on_white(frames: np.ndarray) -> np.ndarray:
    """
    Composite RGBA pictures, uint8 of shape (..., 4), on a white background, as transformers' `convert_to_rgb` does.

    Returns RGB of shape (..., 3): `colour * alpha / 255 + 255 - alpha`, rounded to the nearest integer.
    """
    alpha = frames[..., 3:]
    if (alpha == 255).all():
        return np.ascontiguousarray(frames[..., :3])
    # at most 255 * 255 + 127, which fits in 16 bits
    weighted = frames[..., :3].astype(np.uint16) * alpha + np.uint16(255) * (255 - alpha).astype(np.uint16) + 127
    return (weighted // 255).astype(np.uint8)
