"""
How well answers are joined into events, on streams with known borders.

    python benchmarks/events.py                # rendered motions and the student of `dvflnet create motions-student`
    python benchmarks/events.py MODEL FOLDER   # class folders of clips, such as UCF101's, and a model of these classes

Each stream joins 8 clips of different classes: motions of 2 to 8 seconds, or whole clips. The settings are chosen on
one half of the streams, by the mean of F1 at IoU 0.1, 0.25 and 0.5 (of equal ones the fastest), and measured on the
other, against windows that are not merged.
"""

import itertools
import json
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from measuring import machine

from hf_dvflnet import VideoStreamClassifier, load_processor, read_video
from hf_dvflnet.data.motion_videos import FRAMES_PER_SECOND, MOTIONS, look_at, random_plane, to_uint8
from hf_dvflnet.hub import model_folder
from hf_dvflnet.inference.events import EventFinder
from hf_dvflnet.inference.pipeline import load_placed


RESULTS = Path(__file__).with_name("events.json")
STUDENT = Path(model_folder.__file__).parent / "motions-student"
STREAMS, SEGMENTS = 12, 8
IOUS = (0.1, 0.25, 0.5)
GRID = {
    "start_score": (0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
    "end_score": (0.1, 0.2, 0.3, 0.4, 0.5, 0.6),
    "shortest": (0.25, 0.5, 0.75, 1.0, 1.5),
    "longest_gap": (0.5, 0.75, 1.0, 1.5),
}

Span = tuple[str, float, float]
Clips = Iterator[tuple[str, np.ndarray, float]]  # class, frames and frames per second of each clip of a stream


def motions(rng: np.random.Generator) -> Clips:
    for name in rng.choice(list(MOTIONS), SEGMENTS, replace=False):
        count = int(rng.integers(2 * FRAMES_PER_SECOND, 8 * FRAMES_PER_SECOND))
        time = torch.arange(count)[:, None, None] / FRAMES_PER_SECOND
        clip = look_at(random_plane(rng, 64), rng.random(4), MOTIONS[name], time)
        yield str(name), to_uint8(clip), FRAMES_PER_SECOND


def clips_of(folder: Path, rng: np.random.Generator) -> Clips:
    for name in rng.choice(sorted(path.name for path in folder.iterdir()), SEGMENTS, replace=False):
        video = rng.choice(sorted(map(str, (folder / name).iterdir())))
        frames, info = read_video(str(video))
        yield str(name), frames, info.fps


def answered(classifier: VideoStreamClassifier, clips: Clips) -> tuple[list[tuple[float, dict]], list[Span]]:
    """The time and the scores of each answer for a stream, and its segments."""
    answers, truth, start = [], [], 0.0
    classifier.reset()
    for name, frames, fps in clips:
        for number, frame in enumerate(frames):
            if answer := classifier.feed(frame, start + number / fps):
                answers.append((answer.time, dict(answer.top)))
        truth.append((name, start, start + len(frames) / fps))
        start += len(frames) / fps
    return answers, truth


def f1(found: list[tuple[Span, float]], truth: list[Span], iou: float) -> tuple[int, list[int], list[float]]:
    """Number of events found that match a segment of the same class; which ones, and how late each was said."""
    left, delays = list(range(len(truth))), []
    for (label, start, end), said in found:
        for index in left:
            name, begin, stop = truth[index]
            overlap = max(0.0, min(end, stop) - max(start, begin))
            if label == name and overlap >= iou * (max(end, stop) - min(start, begin)):
                left.remove(index)
                delays.append(said - begin)
                break
    return len(truth) - len(left), left, delays


def score(results: list[tuple[list[tuple[Span, float]], list[Span]]]) -> dict[str, float]:
    """F1 at each IoU, number of events and mean delay, over streams."""
    row: dict[str, float] = {"events": sum(len(found) for found, _ in results)}
    for iou in IOUS:
        matches = [f1(found, truth, iou) for found, truth in results]
        total = row["events"] + sum(len(truth) for _, truth in results)
        row[f"f1@{iou:g}"] = round(2 * sum(match[0] for match in matches) / total, 3)
        if iou == IOUS[0]:
            row["delay"] = round(statistics.mean([0.0, *itertools.chain(*(match[2] for match in matches))]), 2)
    return row


def events_of(answers: list[tuple[float, dict[str, float]]], **settings: float) -> list[tuple[Span, float]]:
    """The events of a stream, and when each was said to have started."""
    finder, said, found = EventFinder(**settings), {}, []
    for time, scores in [*answers, (None, {})]:
        for kind, event in finder.finish() if time is None else finder.add(time, scores):
            if kind == "start":
                said[event.label] = time
            else:
                found.append(((event.label, event.start, event.end), said[event.label]))
    return found


def main():
    folder = Path(sys.argv[2]) if sys.argv[1:] else None
    name = str(STUDENT) if folder is None else sys.argv[1]
    window, stride = (1.0, 0.25) if folder is None else (2.0, 0.5)
    lengths = {"window_seconds": window, "stride_seconds": stride}
    classifier = VideoStreamClassifier(load_placed(name), load_processor(name), **lengths, top_k=1000)
    streams = []
    for seed in range(STREAMS):
        rng = np.random.default_rng(seed)
        streams.append(answered(classifier, motions(rng) if folder is None else clips_of(folder, rng)))
    halves = streams[::2], streams[1::2]

    def measured(half, **settings):
        return score([(events_of(answers, **settings, lag=window / 2), truth) for answers, truth in half])

    grid = [dict(zip(GRID, values, strict=True)) for values in itertools.product(*GRID.values())]
    rows = [
        (settings, measured(halves[0], **settings))
        for settings in grid
        if settings["end_score"] <= settings["start_score"]
    ]
    best, _ = max(rows, key=lambda row: (sum(row[1][f"f1@{iou:g}"] for iou in IOUS), -row[1]["delay"]))
    early, late = (window + stride) / 2, (window - stride) / 2
    windows = [
        ([((max(scores, key=scores.get), time - early, time - late), time) for time, scores in answers], truth)
        for answers, truth in halves[1]
    ]
    found = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    found["rendered motions" if folder is None else "folder"] = {
        "machine": machine(),
        "streams": STREAMS,
        "segments": STREAMS * SEGMENTS,
        "best on the first half": best,
        "second half": {
            "windows, not merged": score(windows),
            "best": measured(halves[1], **best),
            "defaults": measured(halves[1]),
        },
    }
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
