"""
How sure scores are before and after calibration, and which score tells unknown classes best.

    python benchmarks/calibration.py DIR --work WORK

DIR is UCF101's release, with all of its classes or some, as for `ucf101.py`; WORK has the frame features that
`ucf101.py` caches, and those of missing clips are computed. Heads of EfficientNet-Lite0 are trained on split 1's
training clips without the groups of `FITTED` and `HELD_OUT`; temperature and threshold are fitted to the former and
measured on the latter, with the intervals of a bootstrap over groups. Unknown are four classes that the heads are not
trained on, others for each seed. The student of `dvflnet create motions-student` is calibrated and measured on
rendered motions, and a threshold is tried on joined clips of 8 motions, of which it may only name half: the rows of
the others are cut from its head.
"""

import argparse
import json
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
from hf_dvflnet.hub.calibration import calibration_error, divide_logits, fit_temperature, threshold_of_coverage
from hf_dvflnet.inference.calibration import view_logits
from hf_dvflnet.inference.evaluation import bootstrap
from hf_dvflnet.training.frame_heads import fit_head


RESULTS = Path(__file__).with_name("calibration.json")
SEEDS = range(5)
UNKNOWN = 4  # classes
FITTED, HELD_OUT = (8, 9), (10, 11, 12)  # groups
COVERAGE = 0.95
SCORES = {
    "largest probability": lambda logits: logits.softmax(-1).amax(-1),
    "energy": lambda logits: logits.logsumexp(-1),
    "margin": lambda logits: logits.softmax(-1).topk(2).values.diff().neg()[:, 0],
}


def ece(logits: torch.Tensor, labels: torch.Tensor, groups: list) -> dict[str, Any]:
    """Calibration error with its interval, and accuracy, of logits (clips, num_labels)."""
    best = logits.softmax(-1).max(-1)
    confidence, right = best.values.double().numpy(), (best.indices == labels).numpy()
    of_weights = lambda weights: {"ece": calibration_error(confidence, right, weights)}  # noqa: E731
    return {
        "ece": round(calibration_error(confidence, right), 4),
        "interval": [round(side, 4) for side in bootstrap(of_weights, groups)["ece"]],
        "top1": round(float(right.mean()), 4),
    }


def calibrated(fit: tuple, held_out: tuple, groups: list) -> dict[str, Any]:
    """Before and after, of logits and labels to fit to and to measure on."""
    temperature = fit_temperature(fit[0][:, None], fit[1])
    logits, labels = held_out
    return {
        "temperature": round(temperature, 3),
        "clips": [len(fit[1]), len(labels)],
        "before": ece(logits, labels, groups),
        "after": ece(logits / temperature, labels, groups),
    }


# UCF101


def frame_head(folder: Path, work: Path) -> dict[str, Any]:
    rows, _ = load_clips(folder, work, 1, False)
    views = Views(work, SETTINGS)
    views.make(rows, "features", SETTINGS["teacher_size"], ["train-0"])
    # one view of each clip, as `dvflnet train --image_model` shows it
    frames = [torch.from_numpy(np.array(views.features("train-0", name)[0])).float() for name in rows["video_id"]]
    given = pooled(torch.stack(frames))  # (clips, 2 * width)
    labels, numbers = torch.tensor(rows["label"]), np.array([int(group[1:]) for group in rows["group"]])
    groups = np.array([f"{label} {number}" for label, number in zip(labels.tolist(), numbers, strict=True)])
    fit, held_out = np.isin(numbers, FITTED), np.isin(numbers, HELD_OUT)
    rest, classes = ~(fit | held_out), rows.features["label"].num_classes

    def head_of(chosen: np.ndarray, seed: int) -> tuple[torch.nn.Linear, torch.Tensor]:
        """A head of the classes that are chosen, and their numbers."""
        known = torch.from_numpy(np.flatnonzero(chosen))
        train = rest & chosen[labels.numpy()]
        return fit_head(given[train], torch.searchsorted(known, labels[train]), len(known), seed=seed), known

    found: dict[str, Any] = {"heads": [], "unknown": {name: [] for name in SCORES}}
    for seed in SEEDS:
        head, _ = head_of(np.ones(classes, dtype=bool), seed)
        logits = head(given)
        of = ((logits[part], labels[part]) for part in (fit, held_out))
        found["heads"].append(calibrated(*of, groups[held_out].tolist()))

        chosen = np.ones(classes, dtype=bool)
        chosen[np.random.default_rng(seed).choice(classes, UNKNOWN, replace=False)] = False
        head, known = head_of(chosen, seed)
        is_known = chosen[labels.numpy()]
        logits = head(given)
        temperature = fit_temperature(
            logits[fit & is_known][:, None], torch.searchsorted(known, labels[fit & is_known])
        )
        for name, score in SCORES.items():
            scores = score(logits / temperature).double().numpy()
            threshold = threshold_of_coverage(scores[fit & is_known], COVERAGE)
            found["unknown"][name].append(
                {
                    "auroc": round(float(roc_auc_score(is_known[held_out], scores[held_out])), 4),
                    "false_alarms": round(float((scores[held_out & ~is_known] >= threshold).mean()), 4),
                    "kept": round(float((scores[held_out & is_known] >= threshold).mean()), 4),
                }
            )
    return found


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
    parts = {"UCF101": lambda: frame_head(arguments.folder, arguments.work), "motions": motions}
    for name, measure in parts.items():
        if name not in found:
            found[name] = measure() | {"machine": machine()}
            RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
