"""
Video files to frames, on PyAV.

Frame i is the i-th frame of a full sequential decode, bit for bit, shown upright. FFmpeg only ever reads the bytes it
is handed: it opens no URL, and no second file that a playlist may name. What a file may cost is limited, see
[`~video_limits.VideoLimits`].
"""

import io
import os
import stat
import warnings
from bisect import bisect_right
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

import av
import av.error
import numpy as np
import torch
from av.stream import Disposition
from av.video.frame import PictureType
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

# Those of them in which a frame that no other refers to can be left out: in VP8 and VP9 it may still change how the
# next ones are read.
_NOTHING_CARRIED_ON = {"h264", "hevc", "mpeg4"}

VideoSource = str | os.PathLike | bytes | IO[bytes]


@dataclass
class DecodedVideoMetadata(VideoMetadata):
    """
    transformers' metadata (`total_num_frames`, `fps`, `width`, `height`, `duration` in seconds, `frames_indices`) and
    the codec's name, such as `"h264"`. Width and height are those of the upright picture, in pixels.
    """

    codec: str | None = None


def read_video(
    video: VideoSource,
    indices: Sequence[int] | Callable[[VideoMetadata], np.ndarray] | None = None,
    *,
    limits: VideoLimits | None = None,
) -> tuple[np.ndarray, DecodedVideoMetadata]:
    """
    Decode some frames of a video.

    Args:
        video: A path, an http or https URL, the bytes of a file, or a seekable binary file object.
        indices: The frames wanted, in any order, repeated or not; a function from the metadata to them; or `None` for
            all frames.
        limits: What the video may cost, by default what [`~video_limits.set_video_limits`] was told. All frames of a
            long video may take more memory than there is: no limit counts that.

    Returns:
        Frames, uint8 RGB of shape (len(indices), height, width, 3), and metadata.

    Raises:
        FileNotFoundError: If there is no such file.
        VideoDecodeError: If it is no video, holds no frame that can be decoded, cannot be downloaded, goes beyond a
            limit, or has fewer frames than `indices` name.

    Warns:
        UserWarning: If the file ends earlier than it says. A function in `indices` is then asked again, with the
            number of frames that there are.
    """
    with _opened(video, limits) as source:
        name = source.name
        container, stream = _open(source)
        with container:
            packets = _scan(container, stream, source)
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
    with _opened(video, limits) as source:
        container, stream = _open(source)
        with container:
            metadata = _scan(container, stream, source).metadata
        container, stream = _open(source)
        with container:
            stream.codec_context.thread_count = 1
            source.deadline.stop()
            yield metadata, _all_frames(container, stream, metadata, source)


def _all_frames(
    container: av.container.InputContainer, stream: av.VideoStream, metadata: DecodedVideoMetadata, source: "_Source"
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


@dataclass
class _Packets:
    """What one pass over the packets, without decoding, tells of a video stream."""

    metadata: DecodedVideoMetadata
    timestamps: list[int] | None  # of the frames, ascending, where seeking by them is exact
    keyframes: list[int]  # timestamps of the keyframes, ascending


def _as_file(video: VideoSource, limits: VideoLimits | None = None) -> tuple[IO[bytes], str]:
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


class _Source:
    """What FFmpeg reads a file through: no longer than the limit allows."""

    def __init__(self, file: IO[bytes], name: str, limits: VideoLimits):
        self.file, self.name, self.limits = file, name, limits
        self.seek, self.tell = file.seek, file.tell
        self.formats: set[str] = set()  # of frames that were decoded, which can be turned to RGB
        self.deadline = Deadline(name, limits)

    def read(self, size: int = -1) -> bytes:
        self.deadline.check()
        return self.file.read(size)


@contextmanager
def _opened(video: VideoSource, limits: VideoLimits | None) -> Iterator[_Source]:
    limits = limits or video_limits()
    file, name = _as_file(video, limits)
    try:
        source = _Source(file, name, limits)
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


def _open(source: _Source) -> tuple[av.container.InputContainer, av.VideoStream]:
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
    # a picture on the cover of a song is a video stream too
    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not streams:
        container.close()
        raise VideoDecodeError(f"{name}: has no video stream")
    stream = streams[0]
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
        _refuse_large(codec.width, codec.height, source)
    except VideoDecodeError:
        container.close()
        raise
    # threads take longer to start than a small picture to decode, and a loader's workers have the cores already
    if codec.width * codec.height < 640 * 360 or torch.utils.data.get_worker_info() is not None:
        codec.thread_count = 1
    else:
        stream.thread_type = "AUTO"
    return container, stream


def _refuse_large(width: int, height: int, source: _Source):
    limit = source.limits.max_pixels
    if width * height > limit:
        raise VideoDecodeError(
            f"{source.name}: has frames of {width} x {height}, more than the limit of {limit} pixels (max_pixels)"
        )
    refuse_thin(width, height, source.name, source.limits)


def _refuse_format(name: str, source: _Source):
    """Some formats FFmpeg writes, but turns into no other."""
    try:
        VideoReformatter().reformat(av.VideoFrame(16, 16, name), format="rgb24", threads=1)
    except av.error.FFmpegError as error:
        raise VideoDecodeError(f"{source.name}: has frames of the pixel format {name}, which is not read") from error


def _demux(container: av.container.InputContainer, stream: av.VideoStream, source: _Source) -> Iterator[av.Packet]:
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


def _scan(container: av.container.InputContainer, stream: av.VideoStream, source: _Source) -> _Packets:
    name, max_frames = source.name, source.limits.max_frames
    codec = stream.codec_context.codec.canonical_name
    # mp4 has its index in one place; what AVI and WebM lack shows in their length
    announced = len(stream.index_entries) if "mp4" in container.format.name else 0
    shown: list[tuple[int | None, int, bool]] = []  # timestamp, duration, whether it is a keyframe
    discarded = 0
    for packet in _demux(container, stream, source):
        if len(shown) + discarded > max_frames:
            raise VideoDecodeError(f"{name}: has more frames than the limit of {max_frames} (max_frames)")
        # decoded, never shown: cut off by an edit list, or there for others to refer to (RFC 6386, 9.1: show_frame)
        if packet.is_discard or (codec == "vp8" and packet.size and not memoryview(packet)[0] & 0x10):
            discarded += 1
        elif packet.size:
            shown.append((packet.pts, packet.duration or 0, packet.is_keyframe))
    if not shown:
        raise VideoDecodeError(f"{name}: its video stream holds no frames")
    missing = _missing_bytes(source.file)
    if len(shown) + discarded < announced or missing:
        reason = f"{missing} bytes are missing" if missing else f"its index names {announced - discarded} frames"
        warnings.warn(f"{name}: is cut short ({reason}): {len(shown)} frames are there; these are used", stacklevel=3)
    stamped = sorted((pts, length, is_keyframe) for pts, length, is_keyframe in shown if pts is not None)
    exact = codec in _ONE_FRAME_PER_PACKET and len({pts for pts, _, _ in stamped}) == len(shown)
    fps = float(stream.average_rate or stream.guessed_rate or 0) or None
    duration = len(shown) / fps if fps else None
    if exact and stream.time_base:
        duration = float((stamped[-1][0] + stamped[-1][1] - stamped[0][0]) * stream.time_base)
        fps = _rate(fps, np.array([pts for pts, _, _ in stamped]) * float(stream.time_base), duration)
    return _Packets(
        metadata=DecodedVideoMetadata(
            total_num_frames=len(shown),
            fps=fps,
            width=stream.codec_context.width,
            height=stream.codec_context.height,
            duration=duration,
            video_backend="pyav",
            codec=codec,
        ),
        timestamps=[pts for pts, _, _ in stamped] if exact else None,
        keyframes=[pts for pts, _, is_keyframe in stamped if is_keyframe],
    )


def _rate(told: float | None, times: np.ndarray, duration: float) -> float | None:
    """
    The frame rate that a file tells, or else that of its frames: what browsers record tells none, for which FFmpeg
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
    end = source.seek(0, os.SEEK_END)
    source.seek(0)
    head = source.read(4096)
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


def _decode_from_start(source: _Source, wanted: Sequence[int]) -> tuple[_Clip, int]:
    """Those of the frames wanted that exist, and how many frames were decoded: all of them if any is missing."""
    clip, count = _Clip(wanted, source.name), 0
    container, stream = _open(source)
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
    source: _Source,
    packets: _Packets,
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
            if frame is None or frame.pts != keyframe or frame.pict_type != PictureType.I:
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
    source: _Source,
    needed: Container[int] | None = None,
) -> Iterator[av.VideoFrame]:
    """The frames from here on; with timestamps that are needed, without some others that no frame refers to."""
    if stream.codec_context.codec.canonical_name not in _NOTHING_CARRIED_ON:
        needed = None
    for packet in _demux(container, stream, source):
        if needed is not None:
            whole = packet.pts is None or packet.pts in needed or packet.is_keyframe
            stream.codec_context.skip_frame = "DEFAULT" if whole else "NONREF"
        yield from _decode(stream, packet, source)


def _decode(stream: av.VideoStream, packet: av.Packet, source: _Source) -> list[av.VideoFrame]:
    try:
        frames = stream.decode(packet)
    except av.error.FFmpegError:
        return []  # a damaged packet; that a frame is missing shows in their number
    source.deadline.check()
    for frame in frames:
        _refuse_large(frame.width, frame.height, source)
        if frame.format.name not in source.formats:
            _refuse_format(frame.format.name, source)
            source.formats.add(frame.format.name)
    return frames


class ToArray:
    """Frames of one stream to RGB, uint8 (height, width, 3), turned and mirrored as the display matrix says."""

    def __init__(self):
        # one converter for all frames: a frame's own sets itself up anew, threads and all, which takes longer than
        # converting a small picture
        self.reformatter = VideoReformatter()
        self.matrix: list[int] | None = None

    def is_upright(self, frame: av.VideoFrame) -> bool:
        """Whether the frame is shown as it is stored. The stream's first frame decides for all."""
        if self.matrix is None:
            side_data: Any = frame.side_data.get("DISPLAYMATRIX")
            # unity, where there is none
            self.matrix = [1, 0, 0, 0, 1] if side_data is None else np.frombuffer(bytes(side_data), np.int32).tolist()
        a, b, _, _, d = self.matrix[:5]
        return abs(a) >= abs(b) and a > 0 and d > 0

    def __call__(self, frame: av.VideoFrame) -> np.ndarray:
        image = self.reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray()
        if self.is_upright(frame):
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
