"""A label over a window that slides along a camera, a network stream or a file: `VideoStreamClassifier`."""

import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

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
        refuse_below_one(window=window, stride=stride, top_k=top_k)
        self.model = model.eval()
        self.processor = processor
        self.window, self.stride = window, stride
        self.smoothing, self.threshold, self.top_k = smoothing, threshold, top_k
        self.reset()

    def reset(self):
        """Forget all frames, scores and counts."""
        self._window = SlidingWindow(self.processor, self.window, self.stride)
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
        waiting: list[DueWindow] = []  # the newest window that the model has not seen: one or none
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
            reader.join(live_sources.SECONDS_TO_READ + 1)
        if failure:
            raise failure[0]

    def _answer(self, due: DueWindow) -> StreamAnswer:
        scores = classify(self.model, self._window.clips([due.frames]))[0]
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


__all__ = ["StreamAnswer", "VideoStreamClassifier"]
