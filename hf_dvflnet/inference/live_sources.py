"""Read cameras, network streams and files as frames with their times: `open_stream`."""

import errno
import os
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache, partial
from itertools import count
from typing import Any

import av
import av.error
import numpy as np

from ..data import sandbox
from ..data.frames import open_frames
from ..video_decoding import ToArray, VideoDecodeError, main_track, video_limits


# The only protocols that FFmpeg may use for each kind of live source. A playlist can therefore not open local files.
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
SECONDS_BEHIND = 1.0  # how far decoding may fall behind a live source before frames are skipped
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0  # seconds before a lost source is opened again; each pause doubles the last
SECONDS_STEADY = 2.0  # how long a source must go on after a return for the pauses to be short again
SECONDS_STILL = 5.0  # how long a camera may show the same picture, or a black one, before it is not classified
BLACK = 16  # largest value of a black picture, of 255


@dataclass
class VideoStream:
    """
    An opened source.

    Args:
        name: The source as it was passed.
        fps: Frames per second, or `None` if the source does not state them.
        live: Whether frames arrive at their own pace. A recording on an http server states its duration, and is read
            like a file.
        frames: For each frame, a function that returns its picture, uint8 RGB of shape (height, width, 3), and its
            time in seconds from the first one, by the timestamps of the source; if it has none, when it arrived. They
            can be read once.
        lost: Number of frames that were not decoded because decoding was too slow, or that showed nothing.
        returns: How often a live source was lost and came back.
        say: Is told, in a sentence each, when a live source is lost, comes back, or shows nothing.
        reader: The thread that reads the frames, if there is one.
        stop: The event that ends this thread.
    """

    name: str
    fps: float | None
    live: bool
    frames: Iterator[tuple[Callable[[], np.ndarray], float]]
    lost: int = 0
    returns: int = 0
    say: Callable[[str], None] = warnings.warn
    reader: threading.Thread | None = None
    stop: threading.Event = field(default_factory=threading.Event)


@contextmanager
def open_stream(
    source: str | os.PathLike, options: dict[str, str] | None = None, *, reconnect: float = 0.0
) -> Iterator[VideoStream]:
    """
    Open a file, a network stream or a camera.

    Args:
        source: A path to a video file; an rtsp, rtsps, rtmp, rtmps, udp, http or https URL; or a camera. A
            camera is `/dev/video0` on Linux, or an FFmpeg device with its input format: `v4l2:/dev/video0`,
            `avfoundation:0` (macOS) or `dshow:video=NAME` (Windows). The server of a URL is trusted: it can refer to
            other network addresses, as a playlist does, but not to local files.
        options: FFmpeg options for a network stream or camera, such as `{"video_size": "640x480"}` or
            `{"rtsp_transport": "udp"}`.
        reconnect: Seconds for which a live source that ends or fails is opened again, after pauses of 0.5, 1, 2, ...
            and at most 30 seconds. It may return with another size or rate; times include the gap.

    Raises:
        FileNotFoundError: If the file does not exist.
        VideoDecodeError: If the source cannot be opened within 20 seconds or is not a video; or if, during reading, it
            sends no video for 10 seconds or fails, and does not return within `reconnect` seconds. Without
            `reconnect`, a source that simply ends raises no error.
    """
    with ExitStack() as resources:
        stream = _open_source(source, options, reconnect, resources)
        try:
            yield stream
        finally:
            reader = stream.reader
            if reader is not None and reader.is_alive():
                # closing a container that the thread still reads would crash the process
                left = resources.pop_all()
                left.callback(reader.join)  # the last one, and so the first that `close` calls
                threading.Thread(target=left.close, daemon=True).start()


def _open_source(
    source: str | os.PathLike, options: dict[str, str] | None, reconnect: float, resources: ExitStack
) -> VideoStream:
    name = os.fspath(source)
    scheme = name.split("://")[0].lower() if "://" in name else None
    device, _, rest = name.partition(":")
    camera = (device, rest) if device in _CAMERAS else ("v4l2", name) if name.startswith("/dev/video") else None
    if camera is None and scheme is None:
        return VideoStream(name, *_file(source, resources))
    if camera is None and scheme not in _PROTOCOLS:
        raise VideoDecodeError(f"{name}: only {', '.join(_PROTOCOLS)} URLs, cameras and files can be opened")
    settings = {}
    if camera is None and scheme in ("rtsp", "rtsps"):
        settings["rtsp_transport"] = "tcp"  # udp loses packets, and many routers block it
    if camera is not None and camera[0] == "avfoundation":
        settings["framerate"] = "30"  # cameras refuse the default of avfoundation
    whitelist = "none" if camera is not None else _PROTOCOLS[str(scheme)]
    opened = VideoStream(name, None, True, iter(()))
    connection = resources.enter_context(ExitStack())  # holds the container that is read now

    def connect() -> Iterator[tuple[Callable[[], np.ndarray], float]]:
        connection.close()
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
        connection.enter_context(container)
        stream = main_track(container, name)
        stream.thread_type = "SLICE"  # frame threading would delay the output by one frame per thread
        fps = float(stream.average_rate or stream.guessed_rate or 0)
        # a source without a stated rate reports the rate of its clock instead
        opened.fps = fps if 0 < fps <= 240 else None
        opened.live = scheme not in ("http", "https") or container.duration is None
        return _live(container, stream, opened)

    opened.frames = connect()
    if opened.live and reconnect > 0:
        opened.frames = _returning(opened.frames, connect, opened, reconnect)
    return opened


def _returning(
    frames: Iterator[Any] | None, connect: Callable[[], Iterator[Any]], opened: VideoStream, limit: float
) -> Iterator[tuple[Callable[[], np.ndarray], float]]:
    """The frames of a live source that is opened again, for `limit` seconds, whenever it ends or fails."""
    began = back = last = time.perf_counter()  # back: when it last returned; last: when the newest frame came
    newest = 0.0  # its time
    gone = began  # since when it is away, or returns for moments only
    pause, reason = FIRST_PAUSE, None  # reason: why there are no frames now
    while True:
        try:
            frames = connect() if frames is None else frames
            offset = 0.0
            for picture, seconds in frames:
                now = time.perf_counter()
                if reason:
                    offset, back = newest + now - last, now
                    opened.returns += 1
                    opened.say(f"{opened.name}: is back, {now - last:.1f} s after its last frame")
                last, reason, newest = now, None, offset + seconds
                yield picture, newest
            failure = f"{opened.name}: ended after {time.perf_counter() - began:.1f} s"
        except VideoDecodeError as error:
            failure = str(error)
        if opened.stop.is_set():
            return
        if reason is None and last - back >= SECONDS_STEADY:
            pause, gone = FIRST_PAUSE, last
        if time.perf_counter() - gone + pause > limit:
            raise VideoDecodeError(f"{failure}; did not return for good within {limit:g} s")
        if reason is None:
            opened.say(f"{failure}; tried again for {limit:g} s")
        frames, reason = None, failure
        opened.stop.wait(pause)
        pause = min(2 * pause, LONGEST_PAUSE)


def worth_answering(
    frames: Iterable[tuple[Callable[[], np.ndarray], float]], stream: VideoStream
) -> Iterator[tuple[Callable[[], np.ndarray], float, bool]]:
    """
    Yield the frames of a stream and whether what came before them is to be forgotten, as after a gap.

    Frames of a live source that has shown the same picture or black ones for `SECONDS_STILL` are left out.
    """
    last: np.ndarray | None = None
    since, blank, returns = 0.0, False, stream.returns
    for picture, seconds in frames:
        if not stream.live:
            yield picture, seconds, False
            continue
        picture = cache(picture)
        small = picture()[::8, ::8].copy()
        black = small.max() <= BLACK
        if black:
            small[:] = 0  # the noise of a camera in the dark is no change
        if returns != stream.returns or last is None or not np.array_equal(small, last):
            since = seconds
        last = small
        if seconds - since < SECONDS_STILL:
            yield picture, seconds, blank or returns != stream.returns
            blank, returns = False, stream.returns
            continue
        stream.lost += 1
        if not blank:
            shown = "has been black" if black else "has not changed"
            stream.say(f"{stream.name}: the picture {shown} since {since:.1f} s; not classified until it changes")
        blank = True


def _live(
    container: av.container.InputContainer, stream: av.VideoStream, opened: VideoStream
) -> Iterator[tuple[Callable[[], np.ndarray], float]]:
    start, to_array = time.perf_counter(), ToArray()
    first: float | None = None  # timestamp of the first frame
    packets = container.demux()  # of all streams: demuxing one stream would not return while only others send packets
    lead: float | None = None  # clock minus timestamp of the last packet that this loop had to wait for
    catching_up = False
    while True:
        asked = time.perf_counter()
        try:
            packet = next(packets)
            while packet.stream_index != stream.index and not opened.stop.is_set():
                if time.perf_counter() - asked > SECONDS_TO_READ:
                    raise TimeoutError(f"no video received for {SECONDS_TO_READ:g} s")
                packet = next(packets)
        except StopIteration:
            return
        except (av.error.FFmpegError, OSError) as error:
            if not (opened.live and opened.name.lower().startswith("http") and error.errno == errno.EIO):
                reason = _reason(error, SECONDS_TO_READ)
                after = time.perf_counter() - start
                raise VideoDecodeError(f"{opened.name}: failed after {after:.1f} s: {reason}") from error
            # FFmpeg 9 reports so the end of a response whose length is not known; what the decoder holds comes yet
            packets, packet = iter(()), av.Packet()
            packet.stream, packet.time_base = stream, stream.time_base or Fraction(1)
        if opened.stop.is_set():  # checked here, because a packet may contain no frame
            return
        now, behind = time.perf_counter(), 0.0
        if packet.dts is not None and packet.time_base is not None:
            ahead = now - float(packet.dts * packet.time_base)
            # A packet that this loop had to wait for is the newest. Packets that arrive in bursts, as those of HLS do,
            # are compared with the first of a burst.
            lead = ahead if lead is None or now - asked > 0.002 else lead
            behind = ahead - lead
        catching_up = opened.live and (catching_up or behind > SECONDS_BEHIND)
        if catching_up and packet.size:
            catching_up = not (packet.is_keyframe and behind < SECONDS_BEHIND / 10)
            if catching_up:
                opened.lost += 1
                continue
        try:
            frames = stream.decode(packet)
        except (av.error.FFmpegError, ValueError):  # ValueError: PyAV 19, where a decoder cannot be opened
            continue  # a damaged packet, such as the first ones after joining a stream between keyframes
        for frame in frames:
            seconds = time.perf_counter() - start if frame.time is None else frame.time
            first = seconds if first is None else first
            yield partial(to_array, frame), seconds - first


def _reason(error: Exception, seconds: float) -> str:
    # PyAV raises ExitError when our time limit interrupts FFmpeg
    return f"nothing received for {seconds:g} s" if isinstance(error, av.error.ExitError) else str(error)


def _file(source: str | os.PathLike, resources: ExitStack) -> tuple[float | None, bool, Iterator[Any]]:
    """Frame rate of a file, that it is not live, and its frames with their times."""
    frames: Iterator[Callable[[], np.ndarray]]
    if video_limits().sandbox:
        info, pictures = resources.enter_context(sandbox.open_video(source, video_limits()))
        frames = (partial(np.asarray, picture) for picture in pictures)
    else:
        info, decoded = resources.enter_context(open_frames(source))
        to_array = ToArray()
        frames = (partial(to_array, frame) for frame in decoded)
    known = info.frame_times
    times = (number / (info.fps or 25.0) for number in count()) if known is None else map(float, known)
    return info.fps, False, zip(frames, times, strict=False)
