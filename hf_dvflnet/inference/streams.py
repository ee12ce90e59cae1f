"""
Videos as they come: a label over a window that slides along a camera, a network stream or a long file, and videos
decoded ahead of the model.
"""

import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import repeat
from typing import Any, TypeVar

import av
import av.error
import numpy as np
import torch
from transformers.video_utils import VideoMetadata

from ..modeling_videofocalnet import VideoFocalNetForVideoClassification
from ..video_container import VideoSource, as_file
from ..video_decoding import ToArray, VideoDecodeError, open_frames, read_video
from ..video_processing_videofocalnet import VideoFocalNetVideoProcessor


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
_SECONDS_TO_OPEN, _SECONDS_TO_READ = 20.0, 10.0
_SECONDS_BEHIND = 1.0  # that decoding may fall behind a live source before it leaves frames out

T = TypeVar("T")


@dataclass(frozen=True)
class StreamAnswer:
    """
    One answer over the newest window of a stream.

    Args:
        time: Where the window ends, in seconds: its newest frame's timestamp as `feed` was given it, in a file since
            the first frame, in a live source since it was opened; `None` where `feed` was given none.
        label: The class with the highest score, or `None` if that is below the threshold.
        score: Its score after smoothing, in [0, 1].
        top: The `top_k` best classes and their scores, best first, whatever the threshold.
        latency: Seconds from when the window's newest frame came out of the decoder, or with `realtime` should have,
            to this answer. What camera and network take before is not seen here.
        dropped: Frames so far that were part of no answer: the model was busy from before they came until after they
            had left the window, or decoding fell behind the source and they were not decoded.
        skipped: Answers so far that were due and left out, for a newer window was there before the model was free.
    """

    time: float | None
    label: str | None
    score: float
    top: list[tuple[str, float]]
    latency: float
    dropped: int
    skipped: int


@dataclass
class VideoStream:
    """
    An opened source: its name, frames per second (`None` where it does not tell), whether frames come at their own
    pace (`live`), the frames with their times in seconds, to be read once, how many were not decoded for want of
    time (`lost`), the thread that reads them, if one does (`reader`), and what tells it to end (`stop`).
    """

    name: str
    fps: float | None
    live: bool
    frames: Iterator[tuple[av.VideoFrame, float]]
    lost: int = 0
    reader: threading.Thread | None = None
    stop: threading.Event = field(default_factory=threading.Event)


class VideoStreamClassifier:
    """
    Classify a window that slides along a stream.

    The window holds the newest `window` frames. Once it is full, and then every `stride` frames, the evaluation rule
    picks the model's frames from it, as from a video of `window` frames, so that an answer equals that of processor
    and model for the same frames. A frame is brought to the model's size once, when it comes, and only if a window
    will show it; memory stays at a window of such frames. Frames may change size midway if the processor crops, as by
    default.

    >>> classifier = VideoStreamClassifier(model, processor, window=60, stride=15)
    >>> for answer in classifier.run("rtsp://camera/stream"):
    ...     print(answer.time, answer.label, answer.score)

    Args:
        model: The classifier, on any device; put into evaluation mode.
        processor: Its video processor. One view is shown, whatever its `num_clips` and `num_crops`.
        window: Frames that an answer spans; at least 1.
        stride: Frames from answer to answer; at least 1.
        smoothing: Weight of the previous answers in the exponential average of the softmax, in [0, 1); 0 shows each
            window by itself.
        threshold: Score below which there is no label, in [0, 1].
        top_k: Classes named in an answer.

    Raises:
        ValueError: If a number is out of its range.
    """

    def __init__(
        self,
        model: VideoFocalNetForVideoClassification,
        processor: VideoFocalNetVideoProcessor,
        *,
        window: int = 64,
        stride: int = 16,
        smoothing: float = 0.0,
        threshold: float = 0.0,
        top_k: int = 5,
    ):
        if not 0 <= smoothing < 1:
            raise ValueError(f"smoothing must be at least 0 and less than 1, got {smoothing}")
        if not 0 <= threshold <= 1:
            raise ValueError(f"threshold must lie in [0, 1], got {threshold}")
        _refuse_below_one(window=window, stride=stride, top_k=top_k)
        self.model = model.eval()
        self.processor = processor
        self.window, self.stride = window, stride
        self.smoothing, self.threshold, self.top_k = smoothing, threshold, top_k
        self.reset()

    def reset(self):
        """Forget all frames, scores and counts."""
        self._window = _Window(self.processor, self.window, self.stride)
        self._scores: torch.Tensor | None = None
        self._answered = 0  # frames up to the end of the window answered last
        self._left_out = 0  # frames that were in no window that was answered
        self._stream: VideoStream | None = None
        self.answers = self.skipped = 0

    @property
    def frames(self) -> int:
        """Frames seen so far."""
        return self._window.count

    @property
    def dropped(self) -> int:
        """Frames so far that were part of no answer, see [`StreamAnswer`]."""
        return self._left_out + (self._stream.lost if self._stream is not None else 0)

    def feed(self, frame: np.ndarray, timestamp: float | None = None) -> StreamAnswer | None:
        """
        Add a frame, and classify the window if an answer is due.

        The caller waits for the model here; [`run`] is for sources that do not wait.

        Args:
            frame: RGB, uint8 (height, width, 3), upright.
            timestamp: Its time in seconds, which the answer repeats.

        Raises:
            ValueError: If it is no such array, or comes out of the processor in another size than those before it.
        """
        if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
            found = f"{frame.dtype} {frame.shape}" if isinstance(frame, np.ndarray) else type(frame).__name__
            raise ValueError(f"a frame is a uint8 array of shape (height, width, 3), RGB, but this is {found}")
        due = self._window.add(lambda: frame, timestamp)
        return self._answer(due) if due else None

    def run(self, source: str | os.PathLike | VideoStream, *, realtime: bool = False) -> Iterator[StreamAnswer]:
        """
        Answers over a whole source, from a state as after [`reset`].

        A file is read as fast as the model answers, and nothing is left out. A live source is read in a thread of its
        own: if the model is still busy when the next answer is due, the newest window waits for it and replaces the
        one that waited before, so that an answer never lies further behind than one stride and one forward pass. If
        decoding itself is too slow, frames up to a keyframe are left out whenever it is a second behind.

        Args:
            source: What [`open_stream`] opens, or what it has opened.
            realtime: Show a file at its own pace, as if it were live.

        Raises:
            FileNotFoundError, VideoDecodeError: As [`open_stream`]; also midway, after the answers up to there.
        """
        if not isinstance(source, VideoStream):
            with open_stream(source) as stream:
                yield from self.run(stream, realtime=realtime)
            return
        self.reset()
        self._stream = source
        if source.live or realtime:
            yield from self._run_live(source)
            return
        to_array = ToArray()
        for frame, seconds in source.frames:
            due = self._window.add(partial(to_array, frame), seconds)
            if due:
                yield self._answer(due)

    def _run_live(self, stream: VideoStream) -> Iterator[StreamAnswer]:
        waiting: list[_Due] = []  # the newest window that the model has not seen: one or none
        changed = threading.Condition()
        stop = stream.stop = threading.Event()
        failure: list[Exception] = []

        def read():
            to_array, start = ToArray(), time.perf_counter()
            try:
                for frame, seconds in stream.frames:
                    if not stream.live:
                        stop.wait(start + seconds - time.perf_counter())
                    if stop.is_set():
                        return
                    due = self._window.add(partial(to_array, frame), seconds)
                    if due:
                        if not stream.live:
                            due.arrived = start + seconds
                        with changed:
                            self.skipped += len(waiting)
                            waiting[:] = [due]
                            changed.notify()
            except Exception as error:  # raised where the answers are read
                failure.append(error)
            finally:
                with changed:
                    stop.set()
                    changed.notify()

        reader = stream.reader = threading.Thread(target=read, name="dvflnet-stream", daemon=True)
        reader.start()
        try:
            while True:
                with changed:
                    # with a limit, as a wait without one cannot be interrupted everywhere
                    while not waiting and not stop.is_set():
                        changed.wait(0.2)
                    if not waiting:
                        break
                    due = waiting.pop()
                yield self._answer(due)
        finally:
            stop.set()
            reader.join(_SECONDS_TO_READ + 1)
        if failure:
            raise failure[0]

    def _answer(self, due: "_Due") -> StreamAnswer:
        scores = _classify(self.model, self._window.clips([due.frames]))[0]
        if self._scores is not None and self.smoothing:
            scores = self.smoothing * self._scores + (1 - self.smoothing) * scores
        self._scores = scores
        self._left_out += max(0, due.count - self._answered - max(self.window, self.stride * (self.answers > 0)))
        self._answered = due.count
        self.answers += 1
        top = best_classes(self.model, scores, self.top_k)
        label, score = top[0]
        return StreamAnswer(
            time=due.time,
            label=label if score >= self.threshold else None,
            score=score,
            top=top,
            latency=time.perf_counter() - due.arrived,
            dropped=self.dropped,
            skipped=self.skipped,
        )


@dataclass
class _Due:
    """A window to be answered: its sampled frames, how many frames came up to its end, its end's time and arrival."""

    frames: list[torch.Tensor]
    count: int
    time: float | None
    arrived: float


class _Window:
    """The newest frames of a stream; of those that a window will show the small picture, of the others nothing."""

    def __init__(self, processor: VideoFocalNetVideoProcessor, window: int, stride: int):
        self.processor, self.window, self.stride = processor, window, stride
        self.indices = sampled(processor, window)
        # a window starts at each multiple of the stride: what it shows lies this far behind one
        self.shown = {index % stride for index in self.indices}
        self.frames: deque[torch.Tensor | None] = deque(maxlen=window)
        self.shape: torch.Size | None = None
        self.count = 0

    def add(self, frame: Callable[[], np.ndarray], timestamp: float | None) -> _Due | None:
        """Take a frame, made by `frame` if it is shown at all, and give the window if one ends with it."""
        arrived = time.perf_counter()
        small = self._shrink(frame()) if self.count % self.stride in self.shown else None
        if small is not None:
            if self.shape not in (None, small.shape):
                raise ValueError(
                    f"frame {self.count} comes out of the processor with (channels, height, width) of "
                    f"{tuple(small.shape)}, those before it with {tuple(self.shape or ())}: a processor that does not "
                    "crop needs frames of one size"
                )
            self.shape = small.shape
        self.frames.append(small)
        self.count += 1
        if self.count < self.window or (self.count - self.window) % self.stride:
            return None
        frames = [self.frames[index] for index in self.indices]
        return _Due([small for small in frames if small is not None], self.count, timestamp, arrived)

    def _shrink(self, frame: np.ndarray) -> torch.Tensor:
        # only called channels first, not laid out so: the copy would take several times as long as resizing
        picture = torch.from_numpy(np.require(frame, requirements=["C", "W"])).permute(2, 0, 1)
        shown = self.processor(
            picture[None],
            do_sample_frames=False,
            num_clips=1,
            num_crops=1,
            do_rescale=False,
            do_normalize=False,
            return_tensors="pt",
        )
        return shown["pixel_values"][0, 0]

    def clips(self, windows: list[list[torch.Tensor]]) -> torch.Tensor:
        """What the model is shown of some windows: (windows, num_frames, channels, height, width)."""
        return self.processor(
            [torch.stack(frames) for frames in windows],
            do_sample_frames=False,
            num_clips=1,
            num_crops=1,
            do_resize=False,
            do_center_crop=False,
            return_tensors="pt",
        )["pixel_values"]


def sampled(processor: VideoFocalNetVideoProcessor, num_frames: int) -> list[int]:
    """The frames that the evaluation rule picks from `num_frames`."""
    return processor.sample_frames(VideoMetadata(total_num_frames=num_frames), num_clips=1).tolist()


def _classify(model: VideoFocalNetForVideoClassification, pixel_values: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return model(pixel_values=pixel_values.to(model.device)).logits.float().softmax(-1).cpu()


def best_classes(
    model: VideoFocalNetForVideoClassification, scores: torch.Tensor, top_k: int
) -> list[tuple[str, float]]:
    """
    The names and scores of the best classes, best first, of scores of shape (num_labels,).

    Raises:
        ValueError: If a score is not finite.
    """
    if not scores.isfinite().all():
        raise ValueError(
            f"{model.config.name_or_path or 'the model'}: its scores are not finite. Are its weights damaged, or does "
            "it overflow in half precision?"
        )
    best = scores.topk(min(top_k, len(scores)))
    names = [model.config.id2label[index] for index in best.indices.tolist()]
    return list(zip(names, best.values.tolist(), strict=True))


def predict_windows(
    model: VideoFocalNetForVideoClassification,
    processor: VideoFocalNetVideoProcessor,
    video: VideoSource,
    *,
    seconds: float,
    stride_seconds: float | None = None,
    top_k: int = 5,
    batch_size: int = 1,
    num_workers: int = 1,
) -> Iterator[dict[str, Any]]:
    """
    Classify a long video window by window, in one pass, with memory for one window however long it is.

    Windows have `seconds` times the video's frame rate frames, rounded, and start at each multiple of the stride. If
    frames remain behind the last of them, one more window of the same length ends with the video; a video shorter
    than a window is one window.

    Args:
        model: The classifier, on any device; put into evaluation mode.
        processor: Its video processor. One view of a window is shown, its frames picked by the evaluation rule.
        video: As [`~video_decoding.read_video`] takes it.
        seconds: Length of a window.
        stride_seconds: Seconds from window to window; `seconds` by default, so that windows do not overlap.
        top_k: Classes named for each window.
        batch_size: Windows that are classified at once.
        num_workers: 1 decodes in a thread while the model runs, 0 in turn with it.

    Returns:
        Rows `{"start", "end", "first_frame", "frames", "answers"}`: seconds since the first frame, the end being that
        of the last frame's showing; the number of the window's first frame and how many it has; and `answers`,
        `{"label", "score"}`, best first.

    Raises:
        FileNotFoundError, VideoDecodeError: As [`~video_decoding.read_video`]; also if the video tells no frame rate.
        ValueError: If a number is out of its range.
    """
    _refuse_below_one(top_k=top_k, batch_size=batch_size)
    stride_seconds = seconds if stride_seconds is None else stride_seconds
    if not (0 < seconds < math.inf and 0 < stride_seconds < math.inf):
        raise ValueError(
            f"a window and its stride must be longer than 0 s and end, got {seconds} and {stride_seconds}"
        )
    model = model.eval()
    windows = _windows(processor, video, seconds, stride_seconds)
    batch: list[tuple[dict[str, Any], torch.Tensor]] = []
    for get in run_ahead(repeat(partial(next, windows, None)), min(num_workers, 1)):
        window = get()
        if window is not None:
            batch.append(window)
        if batch and (window is None or len(batch) == batch_size):
            scores = _classify(model, torch.cat([clip for _, clip in batch]))
            for (row, _), values in zip(batch, scores, strict=True):
                best = best_classes(model, values, top_k)
                yield {**row, "answers": [{"label": label, "score": score} for label, score in best]}
            batch = []
        if window is None:
            return


def _windows(
    processor: VideoFocalNetVideoProcessor, video: VideoSource, seconds: float, stride_seconds: float
) -> Iterator[tuple[dict[str, Any], torch.Tensor]]:
    source, name = as_file(video)  # a URL is downloaded once, although the last window may be read anew
    try:
        with open_frames(source) as (metadata, frames):
            if not metadata.fps:
                raise VideoDecodeError(f"{name}: tells no frame rate, so that no window of {seconds} s can be counted")
            window, stride = (max(1, round(length * metadata.fps)) for length in (seconds, stride_seconds))
            sliding, to_array = _Window(processor, window, stride), ToArray()
            times: deque[float] = deque(maxlen=window)

            def row(frames: int) -> dict[str, Any]:
                start, end = times[0], times[-1] + 1 / metadata.fps
                return {"start": start, "end": end, "first_frame": sliding.count - frames, "frames": frames}

            answered = 0
            for frame, second in _timed(frames, metadata.fps):
                times.append(second)
                due = sliding.add(partial(to_array, frame), second)
                if due:
                    answered = due.count
                    yield row(window), sliding.clips([due.frames])
        if answered < sliding.count:
            # its frames are known only now that the video has ended, and are kept small only where a window shows them
            first, length = max(0, sliding.count - window), min(sliding.count, window)
            clip, _ = read_video(source, [first + index for index in sampled(processor, length)])
            shown = processor(clip, do_sample_frames=False, num_clips=1, num_crops=1, return_tensors="pt")
            yield row(length), shown["pixel_values"]
    except VideoDecodeError as error:
        if name in str(error):
            raise
        raise VideoDecodeError(f"{name}: {error}") from error  # a download goes by the name of its URL
    finally:
        if source is not video:
            source.close()


def _timed(frames: Iterable[av.VideoFrame], fps: float | None) -> Iterator[tuple[av.VideoFrame, float]]:
    """A file's frames with their seconds since the first, by their timestamps or else by the frame rate."""
    start: float | None = None
    for number, frame in enumerate(frames):
        seconds = frame.time
        if seconds is None:
            seconds = number / (fps or 25.0)
        start = seconds if start is None else start
        yield frame, seconds - start


def run_ahead(calls: Iterable[Callable[[], T]], num_workers: int) -> Iterator[Callable[[], T]]:
    """
    Make calls in threads, a few ahead of where their results are used, in order.

    Gives for each call a function that waits for its result and returns or raises what it did. With no workers, that
    is the call itself.
    """
    if not num_workers:
        yield from calls
        return
    pool = ThreadPoolExecutor(num_workers)
    running: deque = deque()
    try:
        for call in calls:
            running.append(pool.submit(call))
            if len(running) > 2 * num_workers:
                yield running.popleft().result
        while running:
            yield running.popleft().result
    finally:
        pool.shutdown(cancel_futures=True)


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
        return VideoStream(name, metadata.fps, False, _timed(frames, metadata.fps))
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
            timeout=(_SECONDS_TO_OPEN, _SECONDS_TO_READ),
        )
    except (av.error.FFmpegError, ValueError, OSError) as error:
        reason = _reason(error, _SECONDS_TO_OPEN)
        raise VideoDecodeError(f"{name}: cannot be opened as a live video: {reason}") from error
    resources.enter_context(container)
    if not container.streams.video:
        raise VideoDecodeError(f"{name}: has no video stream")
    stream = container.streams.video[0]
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
                if time.perf_counter() - asked > _SECONDS_TO_READ:
                    raise TimeoutError(f"no video came for {_SECONDS_TO_READ:g} s")
                packet = next(packets)
        except StopIteration:
            return
        except (av.error.FFmpegError, OSError) as error:
            reason = _reason(error, _SECONDS_TO_READ)
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
        catching_up = catching_up or behind > _SECONDS_BEHIND
        if catching_up and packet.size:
            catching_up = not (packet.is_keyframe and behind < _SECONDS_BEHIND / 10)
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


def _refuse_below_one(**numbers: int):
    for name, number in numbers.items():
        if number < 1:
            raise ValueError(f"{name} must be at least 1, got {number}")


__all__ = ["StreamAnswer", "VideoStream", "VideoStreamClassifier", "open_stream", "predict_windows"]
