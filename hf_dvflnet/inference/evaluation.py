"""
The published test protocol: a checkpoint on a split of a benchmark, every clip once, and figures that can be computed
again from what is written.
"""

import csv
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from tqdm.auto import tqdm

from ..data.loader_workers import ClipsInHand, naming_clips_of_dead_workers
from ..data.loading import split_facts
from ..data.video_column import video_source
from ..modeling_videofocalnet import VideoFocalNetForVideoClassification
from ..plots import charts as plots
from ..video_processing_videofocalnet import VideoFocalNetVideoProcessor
from .streams import best_classes


VIEWS = {1: (1, 1), 12: (4, 3)}  # views -> clips, crops


class _Clips(torch.utils.data.Dataset):
    """Some rows of a dataset, decoded once and shown in every view; a clip that cannot be decoded is said to be so."""

    def __init__(self, dataset: datasets.Dataset, rows: Sequence[int], processor: Any, views: int):
        self.dataset, self.rows, self.processor = dataset, rows, processor
        self.num_clips, self.num_crops = VIEWS[views]
        self.in_hand = ClipsInHand()

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = self.dataset[self.rows[index]]
        clip = {"row": self.rows[index], "video_id": row["video_id"], "label": row["label"]}
        self.in_hand.take(row["video_id"])
        try:
            shown = self.processor(
                video_source(row["video"]), num_clips=self.num_clips, num_crops=self.num_crops, return_tensors="pt"
            )
        except (OSError, ValueError) as error:
            return {**clip, "error": str(error)}
        finally:
            self.in_hand.drop()
        return {**clip, "pixel_values": shown["pixel_values"][0]}


def predict_clips(
    model: VideoFocalNetForVideoClassification,
    processor: VideoFocalNetVideoProcessor,
    dataset: datasets.Dataset,
    *,
    views: int = 1,
    batch_size: int = 8,
    num_workers: int = 0,
    accelerator: Accelerator | None = None,
) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """
    Classify every clip of a dataset once, on however many processes there are.

    Args:
        model: The classifier.
        processor: Its video processor.
        dataset: Rows of [`~benchmark_datasets.load_benchmark`].
        views: 1, or 12 for 4 clips x 3 crops, whose softmax is averaged. A video is decoded once for all of them.
        batch_size: Clips that are classified at once.
        num_workers: Processes that decode.
        accelerator: What runs it; a new one by default.

    Returns:
        Predictions in the dataset's order, `{"video_id", "label", "top5": [[class name, score], ...]}`, and the clips
        that could not be decoded, `{"video_id", "reason"}`. The same on every process.

    Raises:
        ValueError: If the model knows other classes than the dataset has, or `views` is another number.
    """
    if views not in VIEWS:
        raise ValueError(f"views must be 1 or 12, got {views}")
    accelerator = accelerator or Accelerator()
    classes = dataset.features["label"].names
    refuse_other_classes(model, classes)
    # every process takes each n-th clip: no clip is padded, dropped or counted twice, however uneven the shares
    rows = range(accelerator.process_index, len(dataset), accelerator.num_processes)
    clips = _Clips(dataset, rows, processor, views)
    loader: torch.utils.data.DataLoader = torch.utils.data.DataLoader(
        clips, batch_size=batch_size, num_workers=num_workers, collate_fn=list
    )
    model = model.to(accelerator.device).eval()
    found, failed = [], []
    progress = tqdm(total=len(dataset), unit="clip", disable=None if accelerator.is_main_process else True)
    with naming_clips_of_dead_workers(clips):
        for batch in loader:
            failed += [
                (clip["row"], {"video_id": clip["video_id"], "reason": clip["error"]})
                for clip in batch
                if "error" in clip
            ]
            batch = [clip for clip in batch if "error" not in clip]
            if batch:
                pixel_values = torch.stack([clip["pixel_values"] for clip in batch]).to(accelerator.device)
                with torch.inference_mode():
                    scores = model(pixel_values=pixel_values).logits.float().softmax(-1).cpu()
                for clip, values in zip(batch, scores, strict=True):
                    top = [[name, round(score, 6)] for name, score in best_classes(model, values, 5)]
                    row = {"video_id": clip["video_id"], "label": classes[clip["label"]], "top5": top}
                    found.append((clip["row"], row))
            progress.update(min(batch_size * accelerator.num_processes, len(dataset) - progress.n))
    progress.close()
    predictions, failures = gather_object(found), gather_object(failed)
    return [row for _, row in sorted(predictions, key=_first)], [row for _, row in sorted(failures, key=_first)]


def _first(pair: tuple[int, Any]) -> int:
    return pair[0]


def refuse_other_classes(model: VideoFocalNetForVideoClassification, classes: Sequence[str]):
    """Raise `ValueError` unless model and dataset have the same class names. Their order does not matter."""
    theirs = {model.config.id2label[index] for index in range(model.config.num_labels)}
    if theirs != set(classes):
        only_model, only_data = sorted(theirs - set(classes)), sorted(set(classes) - theirs)
        raise ValueError(
            f"the model has {len(theirs)} classes, the data {len(classes)}, and they differ by name: only the model "
            f"has {', '.join(only_model[:5]) or 'none'}, only the data {', '.join(only_data[:5]) or 'none'}"
        )


def warn_of_training_data(model: VideoFocalNetForVideoClassification, facts: dict[str, Any]):
    """Warn if the checkpoint says that it was trained on what it is about to be tested on, or may have been."""
    trained = getattr(model.config, "training_data", None)
    if not trained or trained["benchmark"] != facts["benchmark"]:
        return
    lists = [(of["protocol"], of["fold"]) for of in (trained, facts)]
    if trained["split"] == facts["split"] and lists[0] == lists[1]:
        warnings.warn(f"this checkpoint was trained on this very split, {describe(facts)}", stacklevel=2)
    elif lists[0] != lists[1]:
        warnings.warn(
            f"this checkpoint was trained on {describe(trained)}, with which {describe(facts)} may share clips",
            stacklevel=2,
        )


def describe(facts: dict[str, Any]) -> str:
    """`ucf101, official fold 1, test`."""
    fold = f" fold {facts['fold']}" if facts.get("folds", 1) > 1 else ""
    return f"{facts['benchmark']}, {facts['protocol']}{fold}, {facts['split']}"


def compute_figures(predictions: Sequence[dict[str, Any]], classes: Sequence[str]) -> dict[str, Any]:
    """
    Accuracies of predictions as [`predict_clips`] gives them.

    Returns:
        `clips`; `top1`, `top5` and `mean_class` (the mean of the classes' top-1, of classes that have clips), in
        [0, 1]; `per_class`, rows of `class`, `clips`, `top1`, `top5`; and `confusion`, counts of true by predicted
        class.

    Raises:
        ValueError: If there are no predictions, or one names a class that is not among `classes`.
    """
    if not predictions:
        raise ValueError("there are no predictions")
    number = {name: index for index, name in enumerate(classes)}
    confusion = np.zeros((len(classes), len(classes)), dtype=int)
    among_five = np.zeros(len(classes), dtype=int)
    for row in predictions:
        names = [name for name, _ in row["top5"]]
        unknown = {row["label"], *names} - set(number)
        if unknown:
            raise ValueError(f"{row['video_id']}: names the class {unknown.pop()!r}, which the data has not")
        confusion[number[row["label"]], number[names[0]]] += 1
        among_five[number[row["label"]]] += row["label"] in names
    clips = confusion.sum(axis=1)
    right = confusion.diagonal()
    seen = clips > 0
    return {
        "clips": int(clips.sum()),
        "top1": float(right.sum() / clips.sum()),
        "top5": float(among_five.sum() / clips.sum()),
        "mean_class": float((right[seen] / clips[seen]).mean()),
        "per_class": [
            {
                "class": name,
                "clips": int(clips[index]),
                "top1": float(right[index] / clips[index]) if clips[index] else None,
                "top5": float(among_five[index] / clips[index]) if clips[index] else None,
            }
            for index, name in enumerate(classes)
        ],
        "confusion": confusion.tolist(),
    }


def write_predictions(path: str | os.PathLike, header: dict[str, Any], predictions: Sequence[dict[str, Any]]):
    """JSON Lines: one line on what was done, then one per clip."""
    with open(path, "w", encoding="utf-8") as file:
        for row in (header, *predictions):
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def read_predictions(path: str | os.PathLike) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """
    What [`write_predictions`] wrote.

    Raises:
        ValueError: If the file is something else, or names a clip twice.
    """
    try:
        with open(path, encoding="utf-8") as file:
            header, *predictions = [json.loads(line) for line in file]
        ids = [row["video_id"] for row in predictions]
        complete = {"benchmark", "protocol", "fold", "split", "listed", "views", "classes", "unread"} <= set(header)
        for row in predictions:
            if not row["top5"] or not isinstance(row["label"], str):
                raise ValueError(f"{row['video_id']} has no answer")
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: is no file of predictions: {error}") from error
    if not complete:
        raise ValueError(f"{path}: is no file of predictions: its first line says too little")
    if len(set(ids)) < len(ids):
        raise ValueError(f"{path}: names a clip twice")
    return header, predictions


def prediction_header(
    dataset: datasets.Dataset, failures: list[dict[str, str]], model: str, views: int
) -> dict[str, Any]:
    """The first line of a file of predictions: protocol, classes, and the clips that the figures lack."""
    facts = split_facts(dataset)
    unread = {row["video_id"]: row for row in failures}
    for reason in ("missing", "blocked"):
        unread.update({video_id: {"video_id": video_id, "reason": reason} for video_id in facts[reason] or ()})
    return {
        **{name: facts[name] for name in ("benchmark", "protocol", "fold", "folds", "split")},
        "listed": facts["listed"] or len(dataset),
        "views": views,
        "model": model,
        "classes": dataset.features["label"].names,
        "unread": list(unread.values()),
        "command": " ".join(["dvflnet", *sys.argv[1:]]),
        "commit": commit(),
    }


def commit() -> str:
    """The commit of this package's code, or its version where it is not a checkout."""
    from .. import __version__

    folder = Path(__file__).parent
    if not (folder.parent / ".git").exists():
        return f"hf_dvflnet {__version__}"
    git = subprocess.run(  # noqa: S603
        ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40"],  # noqa: S607
        capture_output=True,
        text=True,
        check=False,
    )
    return git.stdout.strip() or f"hf_dvflnet {__version__}"


def write_report(folder: str | os.PathLike, header: dict[str, Any], figures: dict[str, Any]) -> dict[str, Any]:
    """
    Write `results.json`, `per_class.csv`, `class_bars.png`, `confusion.csv` and `confusion.png` into a folder.

    Returns the row for `hub_cards/results.json`: percentages, with protocol, command and commit.
    """
    folder = Path(folder)
    row = {
        "split": describe(header),
        "views": "4 clips x 3 crops" if header["views"] == 12 else "1",
        "clips": figures["clips"],
        "listed": header["listed"],
        **{name: round(100 * figures[name], 2) for name in ("top1", "top5", "mean_class")},
        "command": header["command"],
        "commit": header["commit"],
    }
    (folder / "results.json").write_text(json.dumps(row, indent=2) + "\n", encoding="utf-8")
    with open(folder / "per_class.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["class", "clips", "top1", "top5"])
        writer.writeheader()
        writer.writerows(figures["per_class"])
    with open(folder / "confusion.csv", "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["true \\ predicted", *header["classes"]])
        rows.writerows([name, *counts] for name, counts in zip(header["classes"], figures["confusion"], strict=True))
    title = f"{describe(header)}: top-1 {figures['top1']:.1%} of {figures['clips']} clips"
    plots.save_class_bars(figures["per_class"], folder / "class_bars.png", title)
    plots.save_confusion_matrix(np.array(figures["confusion"]), header["classes"], folder / "confusion.png", title)
    return row


__all__ = [
    "compute_figures",
    "describe",
    "predict_clips",
    "prediction_header",
    "read_predictions",
    "warn_of_training_data",
    "write_predictions",
    "write_report",
]
