"""Compute the metrics of an evaluation from its predictions file, and write the report."""

import csv
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np

from ..data.loading import split_facts
from ..hub.version import code_version
from ..plots.charts import save_class_bars, save_confusion_matrix


def describe_split(facts: dict[str, Any]) -> str:
    """Describe a split in one line, such as `ucf101, official fold 1, test`."""
    fold = f" fold {facts['fold']}" if facts.get("folds", 1) > 1 else ""
    return f"{facts['benchmark']}, {facts['protocol']}{fold}, {facts['split']}"


def compute_figures(predictions: Sequence[dict[str, Any]], classes: Sequence[str]) -> dict[str, Any]:
    """
    Compute accuracies from the predictions of [`predict_clips`].

    Returns:
        `clips`; `top1`, `top5` and `mean_class` (the mean top-1 accuracy of the classes that have clips), in [0, 1];
        `per_class`, rows of `class`, `clips`, `top1`, `top5`; and `confusion`, counts with a row per true class and a
        column per predicted class.

    Raises:
        ValueError: If there are no predictions, or one contains a class that is not in `classes`.
    """
    if not predictions:
        raise ValueError("there are no predictions to compute metrics from")
    number = {name: index for index, name in enumerate(classes)}
    confusion = np.zeros((len(classes), len(classes)), dtype=int)
    among_five = np.zeros(len(classes), dtype=int)
    for row in predictions:
        names = [name for name, _ in row["top5"]]
        unknown = {row["label"], *names} - set(number)
        if unknown:
            raise ValueError(f"{row['video_id']}: names the class {unknown.pop()!r}, which is not in the data")
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
    """Write a predictions file as JSON Lines: a header line, then one line per clip."""
    with open(path, "w", encoding="utf-8") as file:
        for row in (header, *predictions):
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def read_predictions(path: str | os.PathLike) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """
    Read a file that [`write_predictions`] wrote.

    Raises:
        ValueError: If the file is not a predictions file, or contains a clip twice.
    """
    try:
        with open(path, encoding="utf-8") as file:
            header, *predictions = [json.loads(line) for line in file]
        ids = [row["video_id"] for row in predictions]
        complete = {"benchmark", "protocol", "fold", "split", "listed", "views", "classes", "unread"} <= set(header)
        for row in predictions:
            if not row["top5"] or not isinstance(row["label"], str):
                raise ValueError(f"clip {row['video_id']} has no prediction")
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: is not a predictions file: {error}") from error
    if not complete:
        raise ValueError(f"{path}: is not a predictions file: its first line lacks some keys")
    if len(set(ids)) < len(ids):
        raise ValueError(f"{path}: contains a clip twice")
    return header, predictions


def prediction_header(
    dataset: datasets.Dataset, failures: list[dict[str, str]], model: str, views: int
) -> dict[str, Any]:
    """Return the first line of a predictions file: protocol, classes, and the clips without a prediction."""
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
        "commit": code_version(),
    }


def write_report(folder: str | os.PathLike, header: dict[str, Any], figures: dict[str, Any]) -> dict[str, Any]:
    """
    Write `results.json`, `per_class.csv`, `class_bars.png`, `confusion.csv` and `confusion.png` to a folder.

    Returns the row for `hub_cards/results.json`: metrics in percent, with protocol, command and commit.
    """
    folder = Path(folder)
    row = {
        "split": describe_split(header),
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
    title = f"{describe_split(header)}: top-1 {figures['top1']:.1%} of {figures['clips']} clips"
    save_class_bars(figures["per_class"], folder / "class_bars.png", title)
    save_confusion_matrix(np.array(figures["confusion"]), header["classes"], folder / "confusion.png", title)
    return row


__all__ = [
    "compute_figures",
    "describe_split",
    "prediction_header",
    "read_predictions",
    "write_predictions",
    "write_report",
]
