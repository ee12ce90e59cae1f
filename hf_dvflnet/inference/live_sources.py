"""Cameras, network streams and files as frames with their times: `open_stream`."""

import os
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import av
import av.error

from ..video_container import main_track
from ..video_decoding import VideoDecodeError, open_frames


# What FFmpeg may open for each kind of live source, and nothing else: no local file, whatever a playlist names.
_PROTOCOLS = {
    "rtsp": "rtp,udp,tcp",
    "rtsps": "rtp,srtp,tls,tcp",
    "rtmp": "rtmp,tcp",
    "rtmps": "rtmps,tls,tcp",
    "udp": "udp",
    "http": "http,https,tls,tcp",
    "https": "http,https,tls,tcp",
}
_CAMERAS = ("v4l2", "avfoundation", "dshow")
SECONDS_TO_OPEN, SECONDS_TO_READ = 20.0, 10.0
SECONDS_BEHIND = 1.0  # that decoding may fall behind a live source before it leaves frames out


@dataclass
class VideoStream:
    """
    An opened source: its name, frames per second (`None` where it does not tell), whether frames come at their own
    pace (`live`), the frames with their times in seconds, to be read once, how many were not decoded because there was
    no time (`lost`), the thread that reads them, if one does (`reader`), and the event that ends it (`stop`).
    """

    name: str
    fps: float | None
    live: bool
    frames: Iterator[tuple[av.VideoFrame, float]]
    lost: int = 0
    reader: threading.Thread | None = None
    stop: threading.Event = field(default_factory=threading.Event)


@contextmanager
def open_stream(source: str | os.PathLike, options: dict[str, str] | None = None) -> Iterator[VideoStream]:
    """
    Open a file, a network stream or a camera.

    Args:
        source: A path to a video file; an rtsp, rtsps, rtmp, rtmps, udp, http or https URL; or a camera, `/dev/video0`
            on Linux, or a device of FFmpeg by its input format, `v4l2:/dev/video0`, `avfoundation:0` (macOS) or
            `dshow:video=NAME` (Windows). The source of a URL is trusted to name further network addresses (a playlist
            does), but no local file is opened for it.
        options: FFmpeg's options for a network stream or camera, such as `{"video_size": "640x480"}` or
            `{"rtsp_transport": "udp"}`.

    Raises:
        FileNotFoundError: If there is no such file.
        VideoDecodeError: If the source cannot be opened within 20 seconds, is no video, or, while it is read, gives
            no video for 10 seconds or breaks off with an error. A source that just ends, ends.
    """
    with ExitStack() as resources:
        stream = _open_source(source, options, resources)
        try:
            yield stream
        finally:
            reader = stream.reader
            if reader is not None and reader.is_alive():
                # what a thread still reads must not be closed under it: that ends the process
                threading.Thread(target=_close_after, args=(reader, resources.pop_all()), daemon=True).start()


def _close_after(reader: threading.Thread, resources: ExitStack):
    reader.join()
    resources.close()


def _open_source(source: str | os.PathLike, options: dict[str, str] | None, resources: ExitStack) -> VideoStream:
    name = os.fspath(source)
    scheme = name.split("://")[0].lower() if "://" in name else None
    device, _, rest = name.partition(":")
    camera = (device, rest) if device in _CAMERAS else ("v4l2", name) if name.startswith("/dev/video") else None
    if camera is None and scheme is None:
        metadata, frames = resources.enter_context(open_frames(source))
        return VideoStream(name, metadata.fps, False, timed(frames, metadata.fps))
    if camera is None and scheme not in _PROTOCOLS:
        raise VideoDecodeError(f"{name}: only {', '.join(_PROTOCOLS)} URLs, cameras and files can be opened")
    settings = {}
    if camera is None and scheme in ("rtsp", "rtsps"):
        settings["rtsp_transport"] = "tcp"  # udp loses packets, and does not pass many a router
    if camera is not None and camera[0] == "avfoundation":
        settings["framerate"] = "30"  # its own default is one that cameras refuse
    whitelist = "none" if camera is not None else _PROTOCOLS[str(scheme)]
    try:
        container = av.open(
            camera[1] if camera else name,
            "r",
            format=camera[0] if camera else None,
            container_options={**settings, **(options or {}), "protocol_whitelist": whitelist},
            timeout=(SECONDS_TO_OPEN, SECONDS_TO_READ),
        )
    except (av.error.FFmpegError, ValueError, OSError) as error:
        reason = _reason(error, SECONDS_TO_OPEN)
        raise VideoDecodeError(f"{name}: cannot be opened as a live video: {reason}") from error
    resources.enter_context(container)
    stream = main_track(container)
    if stream is None:
        raise VideoDecodeError(f"{name}: has no video stream")
    if stream.codec_context is None:
        raise VideoDecodeError(f"{name}: its video codec is not known to this FFmpeg")
    stream.thread_type = "SLICE"  # threads that share out frames hold as many of them back
    fps = float(stream.average_rate or stream.guessed_rate or 0)
    # where it is not told, the clock's rate stands in for it
    opened = VideoStream(name, fps if 0 < fps <= 240 else None, True, iter(()))
    opened.frames = _live(container, stream, opened)
    return opened


def _live(
    container: av.container.InputContainer, stream: av.VideoStream, opened: VideoStream
) -> Iterator[tuple[av.VideoFrame, float]]:
    start = time.perf_counter()
    packets = container.demux()  # of all streams: asked for one, it does not return while only others give packets
    lead: float | None = None  # how far the clock is ahead of the timestamps where no packets have piled up
    catching_up = False
    while True:
        asked = time.perf_counter()
        try:
            packet = next(packets)
            while packet.stream_index != stream.index and not opened.stop.is_set():
                if time.perf_counter() - asked > SECONDS_TO_READ:
                    raise TimeoutError(f"no video came for {SECONDS_TO_READ:g} s")
                packet = next(packets)
        except StopIteration:
            return
        except (av.error.FFmpegError, OSError) as error:
            reason = _reason(error, SECONDS_TO_READ)
            after = time.perf_counter() - start
            raise VideoDecodeError(f"{opened.name}: broke off after {after:.1f} s: {reason}") from error
        if opened.stop.is_set():  # looked at here, for packets need not give frames
            return
        now, behind = time.perf_counter(), 0.0
        if packet.dts is not None and packet.time_base is not None:
            ahead = now - float(packet.dts * packet.time_base)
            # a packet that had to be waited for is the newest
            lead = ahead if lead is None or now - asked > 0.002 else min(lead, ahead)
            behind = ahead - lead
        catching_up = catching_up or behind > SECONDS_BEHIND
        if catching_up and packet.size:
            catching_up = not (packet.is_keyframe and behind < SECONDS_BEHIND / 10)
            if catching_up:
                opened.lost += 1
                continue
        try:
            frames = stream.decode(packet)
        except av.error.FFmpegError:
            continue  # a damaged packet, as the first ones are where a stream is joined between keyframes
        for frame in frames:
            yield frame, time.perf_counter() - start


def _reason(error: Exception, seconds: float) -> str:
    # so FFmpeg calls what our limit made it do
    return f"nothing came for {seconds:g} s" if isinstance(error, av.error.ExitError) else str(error)


def timed(frames: Iterable[av.VideoFrame], fps: float | None) -> Iterator[tuple[av.VideoFrame, float]]:
    """A file's frames with their seconds since the first, by their timestamps or else by the frame rate."""
    start: float | None = None
    for number, frame in enumerate(frames):
        seconds = frame.time
        if seconds is None:
            seconds = number / (fps or 25.0)
        start = seconds if start is None else start
        yield frame, seconds - start


__all__ = ["VideoStream", "open_stream", "timed"]
