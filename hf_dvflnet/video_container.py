"""
Opening a video file that may come from a stranger, and what one pass over its packets shows, without decoding.

FFmpeg only ever reads the bytes it is handed: it opens no URL, and no second file that a playlist may name. What a
file may cost is limited, see [`VideoLimits`].
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


# Codecs in which each packet is one frame, so that a timestamp tells a frame's number. The others are decoded from the
# start. Of VP8 this holds for the packets that say that they are shown.
_ONE_FRAME_PER_PACKET = {"h264", "hevc", "vp8", "vp9", "av1", "mpeg4", "mjpeg"}

# The largest packet of MPEG-4 that FFmpeg takes for one without a picture (MAX_NVOP_SIZE): a placeholder for a frame
# that was left out, or for one that the packet before it holds.
_LARGEST_PLACEHOLDER = 19

# FFmpeg's decoders that read the transparency of a codec, where the usual one does not.
_WITH_ALPHA = {"vp8": "libvpx", "vp9": "libvpx-vp9"}

VideoSource = str | os.PathLike | bytes | IO[bytes]
Shown = tuple[int | None, int, bool]  # of one packet: timestamp, duration, whether it is a keyframe


@dataclass
class DecodedVideoMetadata(VideoMetadata):
    """
    transformers' metadata (`total_num_frames`, `fps`, `width`, `height`, `duration` in seconds, `frames_indices`), the
    codec's name, such as `"h264"`, and when each frame comes. Width and height are those of the upright picture, in
    pixels.

    `frame_times` are seconds since the first frame, float64 (frames,), ascending, one for each frame that the packets
    tell of, even if fewer can be decoded; `None` where the container's timestamps do not tell them exactly.
    """

    codec: str | None = None
    frame_times: np.ndarray | None = field(default=None, repr=False, compare=False)


@dataclass
class Packets:
    """What one pass over the packets, without decoding, shows of a video stream."""

    metadata: DecodedVideoMetadata
    timestamps: list[int] | None  # of the frames, ascending, where seeking by them is exact
    keyframes: list[int]  # timestamps of the keyframes, ascending
    doubts: "Doubts | None" = None  # where decoding may give fewer frames


@dataclass
class Doubts:
    """Which of a stream's packets may give no frame. Only decoding tells whether they do."""

    shown: list[Shown]  # all packets that are to be shown, in the file's order
    leading: set[int]  # timestamps before the first keyframe's: what these frames refer to may be cut off
    until: int | None  # timestamp of the second keyframe, before which all leading frames come; None if there is none
    placeholders: int  # packets elsewhere that may only stand in for a frame


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
        if stat.S_ISFIFO(kind):  # opening it waits until somebody writes
            raise VideoDecodeError(f"{name}: is a named pipe, not a video file")
        return open(name, "rb"), str(name)
    if hasattr(video, "read") and hasattr(video, "seek"):
        return video, str(getattr(video, "name", f"<{type(video).__name__}>"))
    raise TypeError(
        f"a video is a path, a URL, bytes or a seekable binary file object, but this is a {type(video).__name__}"
    )


class Source:
    """What FFmpeg reads a file through: no longer than the limit allows."""

    def __init__(self, file: IO[bytes], name: str, limits: VideoLimits):
        self.file, self.name, self.limits = file, name, limits
        self.seek, self.tell = file.seek, file.tell
        self.formats: set[str] = set()  # of frames that were decoded, which can be turned to RGB
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
    raise PermissionError(f"the video names another file, {url}, which is not opened")


# Kinds of video files, by FFmpeg's names. Of its 300 others many are no video, and some are lists of further files.
_FORMATS = (
    "3g2,3gp,asf,av1,avi,dv,flv,gif,h264,hevc,ivf,m4v,matroska,mjpeg,mov,mp4,mpeg,mpegts,mpegvideo,mxf,nut,obu,ogg,"
    "rm,webm,wtv,yuv4mpegpipe"
)

# Three guards, each of which is enough for the files that the tests know: which kinds of files are read at all; what a
# demuxer asks to be opened; and what one opens by itself.
_GUARDS: dict[str, Any] = {
    "io_open": _refuse_nested,
    "container_options": {"format_whitelist": _FORMATS, "protocol_whitelist": "none"},
}

# FFmpeg decodes a frame of each on opening, and keeps them all; further ones are ignored
_MAX_TRACKS = 32


def open_container(source: Source) -> tuple[av.container.InputContainer, av.VideoStream]:
    name = source.name
    # what FFmpeg makes room for; it counts margins too, which for small pictures are as large as these
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
            f"{name}: cannot be opened as a video: it is none, or of a kind that is not read"
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
            f"{name}: is in {codec.codec.canonical_name}, and only {', '.join(decoders)} can be read here (decoders)"
        )
    codec.options = options  # frames may become larger than the header says
    try:
        refuse_large(codec.width, codec.height, source)
    except VideoDecodeError:
        container.close()
        raise
    # threads take longer to start than a small picture to decode, and a loader's workers have the cores already
    if codec.width * codec.height < 640 * 360 or torch.utils.data.get_worker_info() is not None:
        codec.thread_count = 1
    else:
        stream.thread_type = "AUTO"
    return container, stream


def main_track(container: av.container.InputContainer) -> av.VideoStream | None:
    """The video track that FFmpeg and players show, `None` where there is none: the default one of several."""
    best = container.streams.best("video")
    # a picture on the cover of a song is a video stream too
    tracks = [track for track in container.streams.video if not track.disposition & Disposition.attached_pic]
    # of equal ones the first
    return min(
        tracks, key=lambda track: (track is not best, not track.disposition & Disposition.default), default=None
    )


def open_decoder(stream: av.VideoStream, source: Source) -> av.VideoStream | VideoCodecContext:
    """
    What decodes a stream from here on: the stream itself, but for VP8 and VP9 with transparency, which FFmpeg's own
    decoders leave out, one of libvpx.
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
            f"{source.name}: its transparency is not read, for that needs FFmpeg's decoder {name}; colours that are "
            "meant to be hidden are shown",
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
    """Some formats FFmpeg writes, but turns into no other."""
    try:
        VideoReformatter().reformat(av.VideoFrame(16, 16, name), format="rgb24", threads=1)
    except av.error.FFmpegError as error:
        raise VideoDecodeError(f"{source.name}: has frames of the pixel format {name}, which is not read") from error


def demux(container: av.container.InputContainer, stream: av.VideoStream, source: Source) -> Iterator[av.Packet]:
    """The packets of a stream, the empty one that flushes the decoder last, up to where the file can be read."""
    packets = container.demux(stream)
    while True:
        source.deadline.check()
        try:
            packet = next(packets)
        except StopIteration:
            return
        except (av.error.FFmpegError, IndexError):  # so PyAV ends where a stream comes to light midway
            yield av.Packet()
            return
        yield packet


def scan(container: av.container.InputContainer, stream: av.VideoStream, source: Source) -> Packets:
    name, max_frames = source.name, source.limits.max_frames
    codec = stream.codec_context.codec.canonical_name
    # mp4 has its index in one place; what AVI and WebM lack shows in their length
    announced = len(stream.index_entries) if "mp4" in container.format.name else 0
    shown: list[Shown] = []
    discarded = 0
    small: list[int | None] = []  # timestamps of packets that may be placeholders
    keyframes: list[tuple[int, int | None]] = []  # the first two: packets to be shown before each, and its timestamp
    for packet in demux(container, stream, source):
        if len(shown) + discarded > max_frames:
            raise VideoDecodeError(f"{name}: has more frames than the limit of {max_frames} (max_frames)")
        if packet.is_keyframe and packet.size and len(keyframes) < 2:
            keyframes.append((len(shown), packet.pts))
        # decoded, never shown: cut off by an edit list, or there for others to refer to (RFC 6386, 9.1: show_frame)
        if packet.is_discard or (codec == "vp8" and packet.size and not memoryview(packet)[0] & 0x10):
            discarded += 1
        elif packet.size:
            shown.append((packet.pts, packet.duration or 0, packet.is_keyframe))
            if codec == "mpeg4" and packet.size <= _LARGEST_PLACEHOLDER:
                small.append(packet.pts)
    if not shown:
        raise VideoDecodeError(f"{name}: its video stream holds no frames")
    missing = _missing_bytes(source.file)
    if len(shown) + discarded < announced or missing:
        reason = f"{missing} bytes are missing" if missing else f"its index names {announced - discarded} frames"
        warnings.warn(f"{name}: is cut short ({reason}): {len(shown)} frames are there; these are used", stacklevel=3)
    packets = describe(shown, stream)
    first = keyframes[0][1] if keyframes else None
    number, until = keyframes[1] if len(keyframes) == 2 else (len(shown), None)
    # a timestamp that is lower further on is one of a clock that was set anew
    leading = {pts for pts, _, _ in shown[:number] if pts is not None and first is not None and pts < first}
    placeholders = sum(pts not in leading for pts in small)
    if leading or placeholders:
        packets.doubts = Doubts(shown, leading, until, placeholders)
    return packets


def describe(shown: list[Shown], stream: av.VideoStream) -> Packets:
    """What these packets of a stream tell of it, if each gives a frame."""
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
    The frame rate that a file states, or else that of its frames: what browsers record states none, and FFmpeg then
    takes the 1000 ticks a second of its clock.
    """
    if len(times) < 2:
        return told
    # against the usual distance of two frames, which a pause or a jump in the timestamps does not change
    if told and 0.5 <= told * float(np.median(np.diff(times))) <= 2:
        return told
    # such a file need not tell either how long the last frame is shown: as long as the others, where it is less
    return len(times) / max(duration, float(times[-1] - times[0]) * len(times) / (len(times) - 1))


def _missing_bytes(source: IO[bytes]) -> int:
    """How far the header of an AVI (RIFF) or of a WebM or Matroska file (EBML) reaches beyond the file's end."""
    position = source.tell()
    end = source.seek(0, os.SEEK_END)
    source.seek(0)
    head = source.read(4096)
    source.seek(position)  # where FFmpeg, which does not ask, reads on
    if head[:4] == b"RIFF":
        return max(0, 8 + int.from_bytes(head[4:8], "little") - end)
    segment = head.find(b"\x18\x53\x80\x67")
    if head[:4] != b"\x1a\x45\xdf\xa3" or segment < 0 or segment + 4 == len(head):
        return 0
    # a number of n bytes begins with n - 1 zero bits and a one; all ones behind that mean that the size is not known
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
