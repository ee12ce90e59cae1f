"""
Opens video files from untrusted sources, and reads their metadata in one pass over the packets, without decoding.

FFmpeg reads only the bytes that it is given: it opens no URL, and no other file that a playlist may name. The
resources that a file may use are limited, see [`VideoLimits`].
"""

import io
import os
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import IO, Any

import av
import av.error
import numpy as np
import torch
from av.codec.codec import UnknownCodecError
from av.stream import Disposition
from av.video.codeccontext import VideoCodecContext
from av.video.reformatter import VideoReformatter
from transformers.video_utils import VideoMetadata

from .video_limits import (
    Deadline,
    VideoDecodeError,
    VideoLimits,
    fetch_video,
    refuse_inflated_index,
    refuse_thin,
    video_limits,
)


# Codecs in which each packet is one frame, so that a timestamp identifies a frame. Videos of other codecs are decoded
# from the start. In VP8, this applies only to packets that are marked as shown.
_ONE_FRAME_PER_PACKET = {"h264", "hevc", "vp8", "vp9", "av1", "mpeg4", "mjpeg"}

# Size in bytes up to which FFmpeg treats an MPEG-4 packet as one without a picture (MAX_NVOP_SIZE): a placeholder for
# a frame that was dropped, or for a frame in the previous packet.
_LARGEST_PLACEHOLDER = 19

# FFmpeg decoders that read transparency, for codecs whose default decoder does not.
_WITH_ALPHA = {"vp8": "libvpx", "vp9": "libvpx-vp9"}

VideoSource = str | os.PathLike | bytes | IO[bytes]
Shown = tuple[int | None, int, bool]  # of one packet: timestamp, duration, whether it is a keyframe


@dataclass
class DecodedVideoMetadata(VideoMetadata):
    """
    Metadata of transformers (`total_num_frames`, `fps`, `width`, `height`, `duration` in seconds, `frames_indices`),
    with the codec and the times of the frames. Width and height are those of the upright picture, in pixels.

    `codec` is the name of the codec, such as `"h264"`. `frame_times` are the times of the frames in seconds since the
    first frame, float64 of shape (frames,), ascending. They include all frames that the packets announce, even if
    fewer can be decoded. `frame_times` is `None` if the container's timestamps do not give the exact times.
    """

    codec: str | None = None
    frame_times: np.ndarray | None = field(default=None, repr=False, compare=False)


@dataclass
class Packets:
    """What one pass over the packets of a video stream shows, without decoding."""

    metadata: DecodedVideoMetadata
    timestamps: list[int] | None  # of the frames, ascending; None if seeking by them is not exact
    keyframes: list[int]  # timestamps of the keyframes, ascending
    doubts: "Doubts | None" = None  # not None if decoding may give fewer frames


@dataclass
class Doubts:
    """The packets of a stream that may give no frame. Only decoding shows whether they do."""

    shown: list[Shown]  # all packets that are meant to be shown, in the order of the file
    leading: set[int]  # timestamps before the first keyframe's, whose reference frames may be missing
    until: int | None  # timestamp of the second keyframe; all leading frames come before it; None if there is none
    placeholders: int  # number of other packets that may be placeholders for frames


def as_file(video: VideoSource, limits: VideoLimits | None = None) -> tuple[IO[bytes], str]:
    if isinstance(video, bytes):
        return io.BytesIO(video), f"<{len(video)} bytes>"
    if isinstance(video, str) and "://" in video:
        return fetch_video(video, limits), video
    if isinstance(video, (str, os.PathLike)):
        name = os.fspath(video)
        kind = os.stat(name).st_mode
        if stat.S_ISDIR(kind):
            raise VideoDecodeError(f"{name}: is a folder, not a video file")
        if stat.S_ISFIFO(kind):  # opening it would wait for a writer
            raise VideoDecodeError(f"{name}: is a named pipe, not a video file")
        return open(name, "rb"), str(name)
    if hasattr(video, "read") and hasattr(video, "seek"):
        return video, str(getattr(video, "name", f"<{type(video).__name__}>"))
    raise TypeError(
        f"a video must be a path, a URL, bytes or a seekable binary file object, but got {type(video).__name__}"
    )


class Source:
    """File object that FFmpeg reads from. Reading raises an error after the time limit."""

    def __init__(self, file: IO[bytes], name: str, limits: VideoLimits):
        self.file, self.name, self.limits = file, name, limits
        self.seek, self.tell = file.seek, file.tell
        self.formats: set[str] = set()  # pixel formats of the decoded frames, checked for conversion to RGB
        self.warned_of_alpha = False
        self.deadline = Deadline(name, limits)

    def read(self, size: int = -1) -> bytes:
        self.deadline.check()
        return self.file.read(size)


@contextmanager
def opened(video: VideoSource, limits: VideoLimits | None) -> Iterator[Source]:
    limits = limits or video_limits()
    file, name = as_file(video, limits)
    try:
        source = Source(file, name, limits)
        refuse_inflated_index(source, name, limits)
        yield source
    finally:
        if file is not video:
            file.close()


def _refuse_nested(url: str, flags: int, options: dict):
    raise PermissionError(f"the video refers to another file, {url}, which is not opened")


# The supported file formats, by FFmpeg's names. Many of its 300 other formats are not video, and some list other
# files.
_FORMATS = (
    "3g2,3gp,asf,av1,avi,dv,flv,gif,h264,hevc,ivf,m4v,matroska,mjpeg,mov,mp4,mpeg,mpegts,mpegvideo,mxf,nut,obu,ogg,"
    "rm,webm,wtv,yuv4mpegpipe"
)

# Three guards: the formats that are read at all, the files that a demuxer asks to open, and the files that it opens
# itself. Each guard alone is enough for the files of the tests.
_GUARDS: dict[str, Any] = {
    "io_open": _refuse_nested,
    "container_options": {"format_whitelist": _FORMATS, "protocol_whitelist": "none"},
}

# FFmpeg decodes and keeps a frame of each track when it opens a file; tracks beyond this number are ignored
_MAX_TRACKS = 32


def open_container(source: Source) -> tuple[av.container.InputContainer, av.VideoStream]:
    name = source.name
    # the size that FFmpeg allocates includes margins, which can be as large as a small picture itself
    options = {"max_pixels": str(2 * source.limits.max_pixels + (1 << 16))}
    source.seek(0)
    container_options = {**_GUARDS.get("container_options", {}), "max_streams": str(_MAX_TRACKS)}
    decoders = source.limits.decoders
    if decoders is not None:
        container_options["codec_whitelist"] = ",".join(decoders)
    guards = {**_GUARDS, "container_options": container_options}
    try:
        container = av.open(source, "r", options=options, **guards)
    except VideoDecodeError:
        raise
    except av.error.ArgumentError as error:
        raise VideoDecodeError(
            f"{name}: cannot be opened as a video: it is not a video, or its format is not supported"
        ) from error
    except (av.error.FFmpegError, PermissionError, ValueError, OSError, MemoryError) as error:
        raise VideoDecodeError(f"{name}: cannot be opened as a video: {error}") from error
    stream = main_track(container)
    if stream is None:
        container.close()
        raise VideoDecodeError(f"{name}: has no video stream")
    if stream.codec_context is None:
        container.close()
        raise VideoDecodeError(f"{name}: its video codec is not known to this FFmpeg")
    codec = stream.codec_context
    if decoders is not None and codec.name not in decoders:
        container.close()
        raise VideoDecodeError(
            f"{name}: is in {codec.codec.canonical_name}, but only {', '.join(decoders)} can be read here (decoders)"
        )
    codec.options = options  # later frames may be larger than the header says
    try:
        refuse_large(codec.width, codec.height, source)
    except VideoDecodeError:
        container.close()
        raise
    # starting threads takes longer than decoding a small picture, and a data loader's workers already use all cores
    if codec.width * codec.height < 640 * 360 or torch.utils.data.get_worker_info() is not None:
        codec.thread_count = 1
    else:
        stream.thread_type = "AUTO"
    return container, stream


def main_track(container: av.container.InputContainer) -> av.VideoStream | None:
    """Return the video track that FFmpeg and players show (of several, the default one), or `None` without one."""
    best = container.streams.best("video")
    # the cover picture of a song is a video stream too
    tracks = [track for track in container.streams.video if not track.disposition & Disposition.attached_pic]
    # of equal tracks, the first
    return min(
        tracks, key=lambda track: (track is not best, not track.disposition & Disposition.default), default=None
    )


def open_decoder(stream: av.VideoStream, source: Source) -> av.VideoStream | VideoCodecContext:
    """
    Return the decoder of a stream: the stream itself, or a libvpx decoder for VP8 and VP9 with transparency, which
    FFmpeg's own decoders ignore.
    """
    codec = stream.codec_context
    name = _WITH_ALPHA.get(codec.codec.canonical_name)
    if name is None or stream.metadata.get("alpha_mode") != "1":
        return stream
    if source.limits.decoders is None or name in source.limits.decoders:
        with suppress(UnknownCodecError):
            decoder: Any = VideoCodecContext.create(name, "r")
            decoder.options, decoder.thread_count = codec.options, codec.thread_count
            return decoder
    if not source.warned_of_alpha:
        source.warned_of_alpha = True
        warnings.warn(
            f"{source.name}: its transparency is not read, because this needs FFmpeg's decoder {name}; colours that "
            "should be hidden are shown",
            stacklevel=2,
        )
    return stream


def refuse_large(width: int, height: int, source: Source):
    limit = source.limits.max_pixels
    if width * height > limit:
        raise VideoDecodeError(
            f"{source.name}: has frames of {width} x {height}, more than the limit of {limit} pixels (max_pixels)"
        )
    refuse_thin(width, height, source.name, source.limits)


def refuse_format(name: str, source: Source):
    """Raise `VideoDecodeError` if FFmpeg cannot convert the pixel format `name` to RGB."""
    try:
        VideoReformatter().reformat(av.VideoFrame(16, 16, name), format="rgb24", threads=1)
    except av.error.FFmpegError as error:
        raise VideoDecodeError(f"{source.name}: has frames of the unsupported pixel format {name}") from error


def demux(container: av.container.InputContainer, stream: av.VideoStream, source: Source) -> Iterator[av.Packet]:
    """Yield the packets of a stream as far as the file can be read. The last one is empty and flushes the decoder."""
    packets = container.demux(stream)
    while True:
        source.deadline.check()
        try:
            packet = next(packets)
        except StopIteration:
            return
        except (av.error.FFmpegError, IndexError):  # IndexError: a stream appears midway
            yield av.Packet()
            return
        yield packet


def scan(container: av.container.InputContainer, stream: av.VideoStream, source: Source) -> Packets:
    name, max_frames = source.name, source.limits.max_frames
    codec = stream.codec_context.codec.canonical_name
    # mp4 has one complete index; in AVI and WebM, missing data shows in the file size
    announced = len(stream.index_entries) if "mp4" in container.format.name else 0
    shown: list[Shown] = []
    discarded = 0
    small: list[int | None] = []  # timestamps of packets that may be placeholders
    keyframes: list[tuple[int, int | None]] = []  # the first two: number of shown packets before, timestamp
    for packet in demux(container, stream, source):
        if len(shown) + discarded > max_frames:
            raise VideoDecodeError(f"{name}: has more frames than the limit of {max_frames} (max_frames)")
        if packet.is_keyframe and packet.size and len(keyframes) < 2:
            keyframes.append((len(shown), packet.pts))
        # decoded but never shown: cut off by an edit list, or only a reference frame (RFC 6386, 9.1: show_frame)
        if packet.is_discard or (codec == "vp8" and packet.size and not memoryview(packet)[0] & 0x10):
            discarded += 1
        elif packet.size:
            shown.append((packet.pts, packet.duration or 0, packet.is_keyframe))
            if codec == "mpeg4" and packet.size <= _LARGEST_PLACEHOLDER:
                small.append(packet.pts)
    if not shown:
        raise VideoDecodeError(f"{name}: its video stream contains no frames")
    missing = _missing_bytes(source.file)
    if len(shown) + discarded < announced or missing:
        reason = f"{missing} bytes are missing" if missing else f"its index lists {announced - discarded} frames"
        warnings.warn(
            f"{name}: is truncated ({reason}); only the {len(shown)} frames that exist are used", stacklevel=3
        )
    packets = describe(shown, stream)
    first = keyframes[0][1] if keyframes else None
    number, until = keyframes[1] if len(keyframes) == 2 else (len(shown), None)
    # a lower timestamp after the second keyframe comes from a clock that was reset
    leading = {pts for pts, _, _ in shown[:number] if pts is not None and first is not None and pts < first}
    placeholders = sum(pts not in leading for pts in small)
    if leading or placeholders:
        packets.doubts = Doubts(shown, leading, until, placeholders)
    return packets


def describe(shown: list[Shown], stream: av.VideoStream) -> Packets:
    """Describe a stream by its packets, assuming that each gives a frame."""
    codec = stream.codec_context.codec.canonical_name
    stamped = sorted((pts, length, is_keyframe) for pts, length, is_keyframe in shown if pts is not None)
    exact = codec in _ONE_FRAME_PER_PACKET and len({pts for pts, _, _ in stamped}) == len(shown)
    fps = float(stream.average_rate or stream.guessed_rate or 0) or None
    duration = len(shown) / fps if fps else None
    frame_times = None
    if exact and stream.time_base:
        duration = float((stamped[-1][0] + stamped[-1][1] - stamped[0][0]) * stream.time_base)
        frame_times = np.array([pts - stamped[0][0] for pts, _, _ in stamped]) * float(stream.time_base)
        fps = _rate(fps, frame_times, duration)
    return Packets(
        metadata=DecodedVideoMetadata(
            total_num_frames=len(shown),
            fps=fps,
            width=stream.codec_context.width,
            height=stream.codec_context.height,
            duration=duration,
            video_backend="pyav",
            codec=codec,
            frame_times=frame_times,
        ),
        timestamps=[pts for pts, _, _ in stamped] if exact else None,
        keyframes=[pts for pts, _, is_keyframe in stamped if is_keyframe],
    )


def _rate(told: float | None, times: np.ndarray, duration: float) -> float | None:
    """
    Return the frame rate that a file states if its timestamps confirm it, otherwise the rate of the timestamps.
    Recordings of browsers state none, and FFmpeg then reports the 1000 ticks per second of their clock.
    """
    if len(times) < 2:
        return told
    # compare with the median distance of two frames, which a pause or a jump in the timestamps does not change
    if told and 0.5 <= told * float(np.median(np.diff(times))) <= 2:
        return told
    # such a file may not state how long the last frame is shown: count at least the mean duration of the others
    return len(times) / max(duration, float(times[-1] - times[0]) * len(times) / (len(times) - 1))


def _missing_bytes(source: IO[bytes]) -> int:
    """Return by how many bytes an AVI (RIFF), WebM or Matroska (EBML) file is shorter than its header says."""
    position = source.tell()
    end = source.seek(0, os.SEEK_END)
    source.seek(0)
    head = source.read(4096)
    source.seek(position)  # FFmpeg continues to read here
    if head[:4] == b"RIFF":
        return max(0, 8 + int.from_bytes(head[4:8], "little") - end)
    segment = head.find(b"\x18\x53\x80\x67")
    if head[:4] != b"\x1a\x45\xdf\xa3" or segment < 0 or segment + 4 == len(head):
        return 0
    # a number of n bytes begins with n - 1 zero bits and a one; if only ones follow, the size is unknown
    start = segment + 4
    width = 9 - head[start].bit_length()
    size = int.from_bytes(head[start : start + width], "big") - (1 << 7 * width)
    known = size != (1 << 7 * width) - 1
    return max(0, start + width + size - end) if known else 0


__all__ = [
    "DecodedVideoMetadata",
    "Doubts",
    "Packets",
    "Source",
    "VideoSource",
    "as_file",
    "demux",
    "describe",
    "main_track",
    "open_container",
    "open_decoder",
    "opened",
    "refuse_format",
    "refuse_large",
    "scan",
]
