"""
How sure scores are before and after calibration, and which score tells unknown classes best.

    python benchmarks/calibration.py DIR --work WORK

DIR is UCF101's release, with all of its classes or some, as for `ucf101.py`; WORK has the frame features that
`ucf101.py` caches, and those of missing clips are computed. Heads of EfficientNet-Lite0 are trained on split 1's
training clips without the groups of `FITTED`; temperature and threshold are fitted to these and measured on the test
clips, with the intervals of a bootstrap over groups. Unknown are four classes that the heads are not
trained on, others for each seed. The student of `dvflnet create motions-student` is calibrated and measured on
rendered motions, and a threshold is tried on joined clips of 8 motions, of which it may only name half: the rows of
the others are cut from its head.
"""

import argparse
import json
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import events
import numpy as np
import torch
from measuring import machine
from sklearn.metrics import roc_auc_score
from ucf101 import SETTINGS, Views, load_clips, pooled

from hf_dvflnet import VideoStreamClassifier, load_benchmark, load_model, load_processor, write_motion_videos
from hf_dvflnet.hub.calibration import (
    calibration_error,
    divide_logits,
    error_interval,
    fit_temperature,
    threshold_of_coverage,
)
from hf_dvflnet.inference.calibration import view_logits
from hf_dvflnet.inference.evaluation import bootstrap
from hf_dvflnet.training.frame_heads import fit_head


RESULTS = Path(__file__).with_name("calibration.json")
SEEDS = range(5)
UNKNOWN = 4  # classes
FITTED = (8, 9, 10)  # groups of training clips
COVERAGE = 0.95
SCORES = {
    "largest probability": lambda logits: logits.softmax(-1).amax(-1),
    "energy": lambda logits: logits.logsumexp(-1),
    "margin": lambda logits: logits.softmax(-1).topk(2).values.diff().neg()[:, 0],
}


def errors(before: torch.Tensor, after: torch.Tensor, labels: torch.Tensor, groups: list) -> dict[str, Any]:
    """Calibration errors of logits (clips, num_labels), and how much less than half the second is, with intervals."""
    tops = {name: logits.softmax(-1).max(-1) for name, logits in {"before": before, "after": after}.items()}
    right = {name: (top.indices == labels).numpy() for name, top in tops.items()}

    def measure(weights: np.ndarray) -> dict[str, float]:
        found = {
            name: calibration_error(top.values.double().numpy(), right[name], weights) for name, top in tops.items()
        }
        return {**found, "below half": found["before"] / 2 - found["after"]}

    figures, drawn = measure(np.ones(len(labels))), bootstrap(measure, groups)
    low, high = drawn["below half"]
    margin = figures["below half"]
    return {
        **{
            name: {
                "ece": round(figures[name], 4),
                "interval": [round(side, 4) for side in error_interval(figures[name], drawn[name])],
                "top1": round(float(right[name].mean()), 4),
            }
            for name in tops
        },
        "below half": [round(side, 4) for side in (margin, 2 * margin - high, 2 * margin - low)],
    }


def calibrated(fit: tuple, held_out: tuple, groups: list) -> dict[str, Any]:
    """Before and after, of logits and labels to fit to and to measure on."""
    temperature = fit_temperature(fit[0][:, None], fit[1])
    logits, labels = held_out
    return {
        "temperature": round(temperature, 3),
        "clips": [len(fit[1]), len(labels)],
        **errors(logits, logits / temperature, labels, groups),
    }


# UCF101


def features(folder: Path, work: Path) -> tuple[list[torch.Tensor], list[torch.Tensor], list[str]]:
    """What heads are given, (clips, 2 * width), and labels, of training, fit and test; and the groups of the test."""
    train, test = load_clips(folder, work, 1, False)
    views = Views(work, SETTINGS)
    is_fitted = np.array([int(group[1:]) in FITTED for group in train["group"]])
    parts = (train.select(np.flatnonzero(~is_fitted)), train.select(np.flatnonzero(is_fitted)), test)
    kinds = ("train-0", "test-1", "test-1")
    given, labels = [], []
    for rows, kind in zip(parts, kinds, strict=True):
        views.make(rows, "features", SETTINGS["teacher_size"], [kind])
        # one view of each clip, as `dvflnet train --image_model` shows it
        frames = [torch.from_numpy(np.array(views.features(kind, name)[0])).float() for name in rows["video_id"]]
        given.append(pooled(torch.stack(frames)))  # (clips, 2 * width)
        labels.append(torch.tensor(rows["label"]))
    return given, labels, [f"{row['label']} {row['group']}" for row in test]


def frame_head(given: list[torch.Tensor], labels: list[torch.Tensor], groups: list[str]) -> dict[str, Any]:
    classes = int(labels[0].max()) + 1

    def head_of(chosen: np.ndarray, seed: int) -> tuple[torch.nn.Linear, torch.Tensor]:
        """A head of the classes that are chosen, and their numbers."""
        known = torch.from_numpy(np.flatnonzero(chosen))
        train = chosen[labels[0].numpy()]
        return fit_head(given[0][train], torch.searchsorted(known, labels[0][train]), len(known), seed=seed), known

    found: dict[str, Any] = {"heads": [], "unknown": {name: [] for name in SCORES}}
    for seed in SEEDS:
        head, _ = head_of(np.ones(classes, dtype=bool), seed)
        found["heads"].append(calibrated(*((head(given[part]), labels[part]) for part in (1, 2)), groups))

        chosen = np.ones(classes, dtype=bool)
        chosen[np.random.default_rng(seed).choice(classes, UNKNOWN, replace=False)] = False
        head, known = head_of(chosen, seed)
        fit, held_out = (chosen[labels[part].numpy()] for part in (1, 2))
        logits = head(given[1])[fit]
        temperature = fit_temperature(logits[:, None], torch.searchsorted(known, labels[1][fit]))
        for name, score in SCORES.items():
            threshold = threshold_of_coverage(score(logits / temperature).double().numpy(), COVERAGE)
            scores = score(head(given[2]) / temperature).double().numpy()
            found["unknown"][name].append(
                {
                    "auroc": round(float(roc_auc_score(held_out, scores)), 4),
                    "false_alarms": round(float((scores[~held_out] >= threshold).mean()), 4),
                    "kept": round(float((scores[held_out] >= threshold).mean()), 4),
                }
            )
    return found


def few_clips(given: list[torch.Tensor], labels: list[torch.Tensor], groups: list[str]) -> list[dict[str, Any]]:
    """Errors after calibration on few clips, drawn 40 times, of heads that were trained on few clips or on all."""
    generator, found = np.random.default_rng(0), []
    for per_class in (6, 12, 1000):
        order = generator.permutation(len(labels[0]))
        chosen = [order[labels[0][order] == label][:per_class] for label in labels[0].unique()]
        head = fit_head(given[0][np.concatenate(chosen)], labels[0][np.concatenate(chosen)], len(chosen))
        fit, held_out = head(given[1]), head(given[2])
        before = error_of(held_out, labels[2])
        for clips in (10, 20, 30, 50):
            after = []
            for _ in range(40):
                drawn = generator.permutation(len(fit))[:clips]
                after.append(error_of(held_out / fit_temperature(fit[drawn][:, None], labels[1][drawn]), labels[2]))
            row = {"trained on, of a class": min(per_class, max(map(len, chosen))), "fitted to": clips}
            row |= {
                "before": round(before, 3),
                "after": round(float(np.median(after)), 3),
                "worst": round(max(after), 3),
            }
            found.append(row | {"better": float(np.mean(np.array(after) < before))})
    return found


def error_of(logits: torch.Tensor, labels: torch.Tensor) -> float:
    best = logits.softmax(-1).max(-1)
    return calibration_error(best.values.double().numpy(), (best.indices == labels).numpy())


# Rendered motions


def motions() -> dict[str, Any]:
    with TemporaryDirectory() as folder:
        clips = {"train": 1, "validation": 10, "test": 20}
        write_motion_videos(folder, clips_per_class=clips, size=64, seed=1)
        model, processor = load_model(str(events.STUDENT)), load_processor(str(events.STUDENT))
        fit, held_out = (
            view_logits(model, processor, load_benchmark("folder", folder, split)) for split in ("validation", "test")
        )
    logits = fit[0][:, 0], held_out[0][:, 0]
    row = calibrated((logits[0], fit[1]), (logits[1], held_out[1]), list(range(len(held_out[1]))))
    divide_logits(model, row["temperature"])
    return row | {"events": joined(model, processor, logits[0] / row["temperature"], fit[1])}


def joined(model: Any, processor: Any, logits: torch.Tensor, labels: torch.Tensor) -> dict[str, Any]:
    """Events in joined files of a model that knows half of the motions, without a threshold and with one."""
    known = torch.arange(0, model.config.num_labels, 2)
    names = [model.config.id2label[index] for index in known.tolist()]
    model.classifier.weight.data, model.classifier.bias.data = (
        model.classifier.weight[known],
        model.classifier.bias[known],
    )
    model.config.update({"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}})
    scores = logits[torch.isin(labels, known)][:, known].softmax(-1).amax(-1).double().numpy()
    threshold = threshold_of_coverage(scores, COVERAGE)
    classifier = VideoStreamClassifier(
        model.eval(), processor, window_seconds=1.0, stride_seconds=0.25, top_k=len(known)
    )
    found: dict[str, Any] = {"threshold": round(threshold, 3)}
    streams = [
        events.answered(classifier, events.motions(np.random.default_rng(seed))) for seed in range(events.STREAMS)
    ]
    for name, start_score in {"without": 0.4, "with": max(0.4, threshold)}.items():
        told = [(events.events_of(answers, start_score=start_score, lag=0.5), truth) for answers, truth in streams]
        false = [unmatched(found_here, [span for span in truth if span[0] in names]) for found_here, truth in told]
        wanted = sum(span[0] in names for _, truth in told for span in truth)
        right = sum(len(each) for each, _ in told) - sum(false)
        found[name] = {"false events": sum(false), "events found": right, "events there": wanted}
    return found


def unmatched(found: list, truth: list) -> int:
    """Number of events that overlap no segment of their class."""
    return sum(
        not any(label == name and min(end, stop) > max(start, begin) for name, begin, stop in truth)
        for (label, start, end), _ in found
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--work", type=Path, default=Path("runs/ucf101"))
    arguments = parser.parse_args()
    found = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    of_ucf101 = cache(lambda: features(arguments.folder, arguments.work))
    parts = {
        "UCF101": lambda: frame_head(*of_ucf101()) | {"machine": machine()},
        "few clips": lambda: few_clips(*of_ucf101()),
        "motions": lambda: motions() | {"machine": machine()},
    }
    for name, measure in parts.items():
        if name not in found:
            found[name] = measure()
            RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
