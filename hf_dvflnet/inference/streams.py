"""Classify a window that slides along a camera, a network stream or a file: `VideoStreamClassifier`."""

import math
import os
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..clip_sampling import check_positive
from ..hub.calibration import threshold_of
from ..modeling_videofocalnet import VideoFocalNetForVideoClassification
from ..video_processing_videofocalnet import VideoFocalNetVideoProcessor
from . import live_sources
from .live_sources import VideoStream, open_stream, worth_answering
from .paced_frames import PacedFrames
from .pipeline import best_classes, class_scores, classify
from .sliding_window import DueWindow, SlidingWindow


@dataclass(frozen=True)
class StreamAnswer:
    """
    One answer for the newest window of a stream.

    Args:
        time: The end of the window in seconds from the first frame, by the timestamps of the source; with `feed`, the
            timestamp of the newest frame, or `None` if the caller passed none.
        label: The class with the highest score, or `None` if that score is below the threshold.
        score: The highest score after smoothing, in [0, 1].
        top: The `top_k` best classes and their scores, best first, regardless of the threshold.
        latency: Seconds from the frame that made the answer due to this answer. The time starts when the frame leaves
            the decoder or, with `realtime`, when it should have. The frame is the newest one of the window or, if that
            comes late, the next one. Delays in the camera and the network are not included.
        dropped: Number of frames so far that were part of no answer. Either the model was busy during the whole time
            that they were in the window, or decoding fell behind the source and they were not decoded.
        skipped: Number of answers so far that were due but skipped, because a newer window was ready before the model
            was free, or was due with the same frame.
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

    The window contains the newest `window` frames, or the frames of the last `window_seconds` by their timestamps,
    which also suits a variable frame rate. An answer is due when the window is full, and then after every stride. The
    evaluation rule picks the model's frames from the window as from a video of these frames, so an answer equals that
    of processor and model for the same frames. Each frame is resized once, when it arrives; for a window in frames,
    only if the model will see it. Memory use is limited to one window of resized frames. The frame size may change
    during the stream if the processor crops, as it does by default.

    Windows in seconds end `window_seconds`, `window_seconds + stride_seconds`, ... after the first frame. An answer
    comes with the frame that completes its window, estimated from the distances between the frames so far. If several
    answers are due at once, after a gap longer than a stride, a file gets all of them and a live source the newest.

    A causal model (`config.causal`) has no window: it is stepped through the frames at its pace, `processor.fps` per
    second, and answers after each one, or every `stride`. An answer then costs a frame instead of a window. If the
    model is too slow, it is given several frames at once, and the oldest are dropped and counted once more than a clip
    and a stride wait. After dropped frames, and after a gap as long as a clip, it begins anew.

    >>> classifier = VideoStreamClassifier(model, processor, window=60, stride=15)
    >>> for answer in classifier.run("rtsp://camera/stream"):
    ...     print(answer.time, answer.label, answer.score)

    Args:
        model: The classifier, on any device. It is put into evaluation mode.
        processor: Its video processor. The model sees one view, regardless of `num_clips` and `num_crops`.
        window: Number of frames in a window, at least 1; 64 by default. Not for a causal model.
        stride: Number of frames between two answers, at least 1; 16 by default, and 1 for a causal model, which counts
            frames at its pace.
        window_seconds: Length of a window in seconds, instead of `window`; needs `stride_seconds`.
        stride_seconds: Seconds between two answers, instead of `stride`.
        smoothing: Weight of the previous answers in the exponential average of the softmax, in [0, 1). With 0, each
            window is classified independently.
        threshold: Minimum score for a label, in [0, 1]; by default `config.threshold`, or 0 without one.
        top_k: Number of classes in an answer.

    Raises:
        ValueError: If an argument is out of range, or frames and seconds are mixed; if a causal model is given a
            window, or its processor has no `fps`.
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
        threshold: float | None = None,
        top_k: int = 5,
    ):
        if not 0 <= smoothing < 1:
            raise ValueError(f"smoothing must be at least 0 and less than 1, got {smoothing}")
        threshold = threshold_of(model.config) if threshold is None else threshold
        if not 0 <= threshold <= 1:
            raise ValueError(f"threshold must lie in [0, 1], got {threshold}")
        check_positive(top_k=top_k)
        self._causal = getattr(model.config, "causal", False)
        lengths: tuple[float, float]
        if self._causal:
            if (window, window_seconds, stride_seconds) != (None, None, None):
                raise ValueError("a causal model has no window: leave out window, window_seconds and stride_seconds")
            if not processor.fps:
                raise ValueError(
                    "a causal model is stepped through frames at the pace at which it was trained, but its processor "
                    "has no fps: train it on paced clips (--fps), or set processor.fps"
                )
            stride = 1 if stride is None else stride
            check_positive(stride=stride)
            lengths = 0, stride
        elif window_seconds is None and stride_seconds is None:
            window, stride = 64 if window is None else window, 16 if stride is None else stride
            check_positive(window=window, stride=stride)
            lengths = window, stride
        elif window_seconds is None or stride_seconds is None or window is not None or stride is not None:
            raise ValueError(
                "give a window and its stride both in frames (window, stride) or both in seconds "
                "(window_seconds, stride_seconds)"
            )
        else:
            lengths = window_seconds, stride_seconds
            if not (0 < window_seconds < math.inf and 0 < stride_seconds < math.inf):
                raise ValueError(
                    "a window and its stride must be longer than 0 s and finite, "
                    f"got {window_seconds} and {stride_seconds}"
                )
        self._lengths, self._in_seconds = lengths, window_seconds is not None or self._causal
        self.model = model.eval()
        self.processor = processor
        self.window, self.stride = window, stride
        self.window_seconds, self.stride_seconds = window_seconds, stride_seconds
        self.smoothing, self.threshold, self.top_k = smoothing, threshold, top_k
        self.reset()

    def reset(self):
        """Clear all frames, scores and counts."""
        self._window: SlidingWindow | PacedFrames
        if self._causal:
            self._window = PacedFrames(self.processor, int(self._lengths[1]))
        else:
            self._window = SlidingWindow(self.processor, *self._lengths, in_seconds=self._in_seconds)
        self._scores: torch.Tensor | None = None
        self._answered = 0  # number of frames up to the end of the last answered window
        self._next = 0  # the index of the window after that one
        self._left_out = 0  # number of frames that were in no answered window
        self._stream: VideoStream | None = None
        self.answers = self.skipped = 0

    @property
    def frames(self) -> int:
        """Number of frames seen so far."""
        return self._window.count

    @property
    def dropped(self) -> int:
        """Number of frames so far that were part of no answer, see [`StreamAnswer`]."""
        return self._left_out + (self._stream.lost if self._stream is not None else 0)

    def feed(self, frame: np.ndarray, timestamp: float | None = None) -> StreamAnswer | None:
        """
        Add a frame, and classify the window if an answer is due.

        The caller waits for the model. Use [`run`] for sources that do not wait.

        Args:
            frame: RGB, uint8 (height, width, 3), upright.
            timestamp: The time of the frame in seconds, returned in the answer. It is required for windows in seconds.

        Raises:
            ValueError: If `frame` is not such an array, or its size after processing differs from that of the frames
                before it; with a window in seconds, if the timestamp is missing, not finite or before the last one.
        """
        if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
            found = f"{frame.dtype} {frame.shape}" if isinstance(frame, np.ndarray) else type(frame).__name__
            raise ValueError(f"a frame must be a uint8 array of shape (height, width, 3), RGB, but it is {found}")
        if self._in_seconds:
            if timestamp is None or not math.isfinite(timestamp):
                raise ValueError(
                    f"a window in seconds or a causal model needs a finite timestamp for each frame, got {timestamp}"
                )
            last = self._window.timestamp
            if last is not None and timestamp < last:
                raise ValueError(f"timestamps must not go backwards, got {timestamp} after {last}")
        due = self._window.add(lambda: frame, timestamp)  # type: ignore[arg-type]
        if not due:
            return None
        self.skipped += len(due) - 1
        return self._answer(self._window.window_of(due[-1]))

    def run(self, source: str | os.PathLike | VideoStream, *, realtime: bool = False) -> Iterator[StreamAnswer]:
        """
        Reset the classifier, and yield the answers for a whole source.

        A file is read as fast as the model answers, and nothing is skipped. A live source is read in a separate
        thread. If the model is still busy when the next answer is due, the newest window waits and replaces a window
        that already waits, so an answer is never late by more than one stride and one forward pass. If decoding itself
        is too slow, frames up to the next keyframe are dropped whenever decoding is one second behind.

        Args:
            source: A source that [`open_stream`] accepts, or the stream that it opened.
            realtime: Whether to read a file at its own frame rate, as if it were live.

        Raises:
            FileNotFoundError, VideoDecodeError: See [`open_stream`]. An error during the stream is raised after the
                answers up to that point.
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
        for picture, seconds in _never_back(source.frames):
            for number in self._window.add(picture, seconds):
                yield self._answer(self._window.window_of(number))

    def _run_live(self, stream: VideoStream) -> Iterator[StreamAnswer]:
        waiting: list[DueWindow] = []  # at most one: the newest window that the model has not seen
        changed = threading.Condition()
        stop = stream.stop = threading.Event()
        failure: list[Exception] = []

        def read():
            start = time.perf_counter()
            try:
                for picture, seconds, anew in worth_answering(_never_back(stream.frames), stream):
                    if not stream.live:
                        stop.wait(start + seconds - time.perf_counter())
                    if stop.is_set():
                        return
                    if anew:
                        self._window.begin_anew()
                        self._window.fps, self._scores = stream.fps, None
                    numbers = self._window.add(picture, seconds)
                    if numbers:
                        due = self._window.window_of(numbers[-1])
                        if not stream.live:
                            due.arrived = start + seconds
                        with changed:
                            self.skipped += len(waiting) + len(numbers) - 1
                            waiting[:] = [due]
                            changed.notify()
            except Exception as error:  # raised in the thread that reads the answers
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
                    # with a timeout, as a wait without one cannot be interrupted on all platforms
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
        if isinstance(self._window, PacedFrames):
            scores = class_scores(self._window.step(self.model, due), self.model.config)
        else:
            scores = classify(self.model, self._window.small.clips([due.pictures]))[0]
        if self._scores is not None and self.smoothing:
            scores = self.smoothing * self._scores + (1 - self.smoothing) * scores
        self._scores = scores
        if due.number > self._next:  # otherwise the frames between the windows are left out because of the stride
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


def _never_back(frames: Iterable[tuple[Any, float]]) -> Iterator[tuple[Any, float]]:
    """Yield frames with their seconds, which continue from the last value if a source restarts its clock."""
    shift, last = 0.0, -math.inf
    for frame, seconds in frames:
        shift = max(shift, last - seconds)
        last = seconds + shift
        yield frame, last
