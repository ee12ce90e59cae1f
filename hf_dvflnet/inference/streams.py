"""A label over a window that slides along a camera, a network stream or a file: `VideoStreamClassifier`."""

import math
import os
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import av
import numpy as np
import torch

from ..modeling_videofocalnet import VideoFocalNetForVideoClassification
from ..video_decoding import ToArray
from ..video_processing_videofocalnet import VideoFocalNetVideoProcessor
from . import live_sources
from .live_sources import VideoStream, open_stream
from .prediction import best_classes, classify, refuse_below_one
from .sliding_window import DueWindow, SlidingWindow


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
        latency: Seconds from when the frame that made the answer due came out of the decoder, or with `realtime`
            should have, to this answer. That is the window's newest frame or, where it comes late, the next one. What
            camera and network take before is not seen here.
        dropped: Frames so far that were part of no answer: the model was busy from before they came until after they
            had left the window, or decoding fell behind the source and they were not decoded.
        skipped: Answers so far that were due and left out, for a newer window was there before the model was free, or
            was due with the same frame.
    """

    time: float | None
    label: str | None
    score: float
    top: list[tuple[str, float]]
    latency: float
    dropped: int
    skipped: int


class VideoStreamClassifier:
    """
    Classify a window that slides along a stream.

    The window holds the newest `window` frames, or what was shown in the last `window_seconds` by the frames'
    timestamps, which is right for a rate that varies, too. Once it is full, and then with every stride, the evaluation
    rule picks the model's frames from it, as from a video of these frames, so that an answer equals that of processor
    and model for the same frames. A frame is brought to the model's size once, when it comes, and in a window of
    frames only if it will be shown; memory stays at a window of such frames. Frames may change size midway if the
    processor crops, as by default.

    Windows in seconds end `window_seconds`, `window_seconds + stride_seconds`, ... after the first frame. An answer
    comes with the frame that completes its window, as far as the distance of the frames so far tells. If several come
    due at once, after a gap longer than a stride, a file gets an answer to each and a live source to the newest.

    >>> classifier = VideoStreamClassifier(model, processor, window=60, stride=15)
    >>> for answer in classifier.run("rtsp://camera/stream"):
    ...     print(answer.time, answer.label, answer.score)

    Args:
        model: The classifier, on any device; put into evaluation mode.
        processor: Its video processor. One view is shown, whatever its `num_clips` and `num_crops`.
        window: Frames that an answer spans, at least 1; 64 by default.
        stride: Frames from answer to answer, at least 1; 16 by default.
        window_seconds: Seconds that an answer spans, instead; needs `stride_seconds`.
        stride_seconds: Seconds from answer to answer.
        smoothing: Weight of the previous answers in the exponential average of the softmax, in [0, 1); 0 shows each
            window by itself.
        threshold: Score below which there is no label, in [0, 1].
        top_k: Classes named in an answer.

    Raises:
        ValueError: If a number is out of its range, or frames and seconds are mixed.
    """

    def __init__(
        self,
        model: VideoFocalNetForVideoClassification,
        processor: VideoFocalNetVideoProcessor,
        *,
        window: int | None = None,
        stride: int | None = None,
        window_seconds: float | None = None,
        stride_seconds: float | None = None,
        smoothing: float = 0.0,
        threshold: float = 0.0,
        top_k: int = 5,
    ):
        if not 0 <= smoothing < 1:
            raise ValueError(f"smoothing must be at least 0 and less than 1, got {smoothing}")
        if not 0 <= threshold <= 1:
            raise ValueError(f"threshold must lie in [0, 1], got {threshold}")
        refuse_below_one(top_k=top_k)
        lengths: tuple[float, float]
        if window_seconds is None and stride_seconds is None:
            window, stride = 64 if window is None else window, 16 if stride is None else stride
            refuse_below_one(window=window, stride=stride)
            lengths = window, stride
        elif window_seconds is None or stride_seconds is None or window is not None or stride is not None:
            raise ValueError(
                "a window and its stride are given both in frames (window, stride) or both in seconds "
                "(window_seconds, stride_seconds)"
            )
        else:
            lengths = window_seconds, stride_seconds
            if not (0 < window_seconds < math.inf and 0 < stride_seconds < math.inf):
                raise ValueError(
                    "a window and its stride must be longer than 0 s and end, "
                    f"got {window_seconds} and {stride_seconds}"
                )
        self._lengths, self._in_seconds = lengths, window_seconds is not None
        self.model = model.eval()
        self.processor = processor
        self.window, self.stride = window, stride
        self.window_seconds, self.stride_seconds = window_seconds, stride_seconds
        self.smoothing, self.threshold, self.top_k = smoothing, threshold, top_k
        self.reset()

    def reset(self):
        """Forget all frames, scores and counts."""
        self._window = SlidingWindow(self.processor, *self._lengths, in_seconds=self._in_seconds)
        self._scores: torch.Tensor | None = None
        self._answered = 0  # frames up to the end of the window answered last
        self._next = 0  # the number of the window behind that one
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
            timestamp: Its time in seconds, which the answer repeats. A window in seconds needs it.

        Raises:
            ValueError: If it is no such array, or comes out of the processor in another size than those before it; if
                a window in seconds gets no timestamp, or one before the last.
        """
        if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
            found = f"{frame.dtype} {frame.shape}" if isinstance(frame, np.ndarray) else type(frame).__name__
            raise ValueError(f"a frame is a uint8 array of shape (height, width, 3), RGB, but this is {found}")
        if self._in_seconds:
            if timestamp is None or not math.isfinite(timestamp):
                raise ValueError(f"a window in seconds needs the timestamp of each frame, got {timestamp}")
            last = self._window.timestamp
            if last is not None and timestamp < last:
                raise ValueError(f"timestamps must not go backwards, got {timestamp} after {last}")
        due = self._window.add(lambda: frame, timestamp)
        if not due:
            return None
        self.skipped += len(due) - 1
        return self._answer(self._window.window_of(due[-1]))

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
        self._window.fps = source.fps
        if source.live or realtime:
            yield from self._run_live(source)
            return
        to_array = ToArray()
        for frame, seconds in _never_back(source.frames):
            for number in self._window.add(partial(to_array, frame), seconds):
                yield self._answer(self._window.window_of(number))

    def _run_live(self, stream: VideoStream) -> Iterator[StreamAnswer]:
        waiting: list[DueWindow] = []  # the newest window that the model has not seen: one or none
        changed = threading.Condition()
        stop = stream.stop = threading.Event()
        failure: list[Exception] = []

        def read():
            to_array, start = ToArray(), time.perf_counter()
            try:
                for frame, seconds in _never_back(stream.frames):
                    if not stream.live:
                        stop.wait(start + seconds - time.perf_counter())
                    if stop.is_set():
                        return
                    numbers = self._window.add(partial(to_array, frame), seconds)
                    if numbers:
                        due = self._window.window_of(numbers[-1])
                        if not stream.live:
                            due.arrived = start + seconds
                        with changed:
                            self.skipped += len(waiting) + len(numbers) - 1
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
            reader.join(live_sources.SECONDS_TO_READ + 1)
        if failure:
            raise failure[0]

    def _answer(self, due: DueWindow) -> StreamAnswer:
        scores = classify(self.model, self._window.small.clips([due.pictures]))[0]
        if self._scores is not None and self.smoothing:
            scores = self.smoothing * self._scores + (1 - self.smoothing) * scores
        self._scores = scores
        if due.number > self._next:  # else what lies between the windows is left out as the stride wants it
            self._left_out += max(0, due.first - self._answered)
        self._answered, self._next = due.stop, due.number + 1
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


def _never_back(frames: Iterable[tuple[av.VideoFrame, float]]) -> Iterator[tuple[av.VideoFrame, float]]:
    """Frames with their seconds, which go on where they stopped if a source starts its clock anew."""
    shift, last = 0.0, -math.inf
    for frame, seconds in frames:
        shift = max(shift, last - seconds)
        last = seconds + shift
        yield frame, last


__all__ = ["StreamAnswer", "VideoStreamClassifier"]
