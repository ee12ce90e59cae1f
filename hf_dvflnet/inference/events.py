"""Events instead of a flood of answers: `EventFinder` joins the answers for a stream or a file."""

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, TextIO

from .streams import VideoStreamClassifier


@dataclass
class Event:
    """
    Something that lasted.

    Args:
        label: The class.
        start, end: Seconds from the first frame. Of an event that goes on, `end` is as far as it was seen.
        score: The mean score of the answers in it.
    """

    label: str
    start: float
    end: float
    score: float
    answers: int = field(default=1, repr=False)  # in the mean
    announced: bool = field(default=False, repr=False)

    def row(self) -> dict[str, Any]:
        times = {name: round(getattr(self, name), 3) for name in ("start", "end")}
        return {"label": self.label, **times, "score": round(self.score, 6)}


class EventFinder:
    """
    Join answers into events, each class by itself.

    An event begins with a score of at least `start_score` and goes on while scores are at least `end_score`. Lower
    scores for up to `longest_gap` do not end it. An event that is shorter than `shortest` is dropped. The defaults
    were chosen on joined videos (`benchmarks/events.py`).

    Args:
        lag: Seconds by which an answer comes after what it is about: half a window, and 0 for a causal model.
        stride: Seconds between two answers, at most `longest_gap`.
    """

    def __init__(
        self,
        start_score: float = 0.4,
        end_score: float = 0.1,
        shortest: float = 0.25,
        longest_gap: float = 0.75,
        *,
        lag: float = 0.0,
        stride: float = 0.0,
    ):
        if not 0 < end_score <= start_score <= 1:
            raise ValueError(
                "the score that starts an event must be at most 1 and the one that ends it above 0 and not higher, "
                f"got {start_score} and {end_score}"
            )
        if stride > longest_gap:
            raise ValueError(
                f"there is an answer every {stride:g} s, and a gap of {longest_gap:g} s ends an event: take a smaller "
                "stride or a longer gap"
            )
        self.start_score, self.end_score = start_score, end_score
        self.shortest, self.longest_gap, self.lag = shortest, longest_gap, lag
        # answers come with frames, so two may be somewhat further apart than a stride
        self.longest_silence = max(longest_gap, 1.5 * stride)
        self.highest = 0.0  # of all scores
        self.open: dict[str, Event] = {}
        self.until = 0.0  # up to where there were answers

    @classmethod
    def of(cls, classifier: VideoStreamClassifier, fps: float | None = None, **settings: float) -> "EventFinder":
        """
        A finder for the answers of a classifier, which counts frames at `fps` if its window is in frames. No event
        starts below the classifier's threshold.
        """
        settings["start_score"] = max(settings.get("start_score", 0.4), classifier.threshold)
        window = classifier.window_seconds or (classifier.window or 0) / (fps or 1)
        stride = classifier.stride_seconds or (classifier.stride or 1) / (fps or classifier.processor.fps or 1)
        return cls(**settings, lag=window / 2, stride=stride)

    def add(self, time: float, scores: dict[str, float]) -> Iterator[tuple[str, Event]]:
        """
        Add the scores of an answer, and yield `("start", event)` and `("end", event)` for what they show.

        Args:
            time: When the answer came ([`StreamAnswer`]), not before that of the last one.
            scores: By class; classes that are left out have none.
        """
        end = max(0.0, time - self.lag)
        if end < self.until:
            raise ValueError(
                f"answers must come in the order of their times, got {time} after {self.until + self.lag}"
            )
        gone = end - self.until > self.longest_silence and self.until > 0  # nothing is known of what was before
        start = end if gone else self.until
        self.until = end
        for label in [label for label, event in self.open.items() if gone or end - event.end > self.longest_gap]:
            if scores.get(label, 0.0) < self.end_score or gone:
                yield from self._close(label)
        self.highest = max(self.highest, *scores.values(), 0.0)
        for label, score in scores.items():
            event = self.open.get(label)
            if event is None and score >= self.start_score:
                event = self.open[label] = Event(label, start, end, score)
            elif event is not None and score >= self.end_score:
                event.answers += 1
                event.end, event.score = end, event.score + (score - event.score) / event.answers
            if event is not None and not event.announced and event.end - event.start >= self.shortest:
                event.announced = True
                yield "start", event

    def finish(self) -> Iterator[tuple[str, Event]]:
        """Yield the ends of the events that go on, as the source has ended."""
        for label in list(self.open):
            yield from self._close(label)

    def _close(self, label: str) -> Iterator[tuple[str, Event]]:
        event = self.open.pop(label)
        if event.announced:
            yield "end", event


def write_events(rows: list[dict[str, Any]], file: TextIO, suffix: str):
    """Write rows with `video` and those of [`Event`] as `.csv`, as a list in `.json`, or as WebVTT, `.vtt`."""
    if suffix == ".json":
        file.write(json.dumps(rows, indent=1, ensure_ascii=False) + "\n")
    elif suffix == ".vtt":
        cues = [f"{_clock(row['start'])} --> {_clock(row['end'])}\n{_text(row['label'])}\n" for row in rows]
        file.write("\n".join(["WEBVTT\n", *cues]))
    else:
        table = csv.DictWriter(file, ["video", "label", "start", "end", "score"], lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


def _clock(seconds: float) -> str:
    milliseconds = round(1000 * seconds)
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{rest // 1000:02}.{rest % 1000:03}"


def _text(label: str) -> str:
    """A class name as the text of a cue, which is a line of markup."""
    label = " ".join(label.split())
    return label.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
