"""
What the runs of `ucf101.py` with 64 pixels on split 1 say: docs/images/ucf101.png.

    python benchmarks/ucf101_figures.py

Above: accuracy of each class, and on the test clips during training. Below: what the student alone and the distilled
one make of the classes that mostly movement tells apart. All are means over the seeds that both have, with one view.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hf_dvflnet.plots.charts import LINE_COLOURS, styled


ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "docs" / "images" / "ucf101.png"
ARMS = {"alone": "student alone", "both": "distilled"}
COLOURS = dict(zip(ARMS, LINE_COLOURS[1::-1], strict=True))
BY_MOVEMENT = ("BodyWeightSquats", "Lunges", "JumpingJack", "PushUps", "Punch", "BoxingPunchingBag")


def load() -> tuple[dict[str, list[dict[str, Any]]], np.ndarray, list[str]]:
    """The runs of each arm, the same seeds for all; the labels of the test clips; and the names of the classes."""
    stored = json.loads((ROOT / "benchmarks" / "ucf101.json").read_text())
    rows = [row for row in stored["test"] if row["fold"] == 1 and row["size"] == 64]
    by_arm = {arm: {row["seed"]: row for row in rows if row["arm"] == arm} for arm in ARMS}
    seeds = sorted(set.intersection(*(set(found) for found in by_arm.values())))
    clips = stored["clips"]["test"]["1"]
    names = dict(zip(clips["labels"], (group.split()[0] for group in clips["groups"]), strict=True))
    return (
        {arm: [found[seed] for seed in seeds] for arm, found in by_arm.items()},
        np.array(clips["labels"]),
        [names[label] for label in sorted(names)],
    )


def confusion(runs: list[dict[str, Any]], labels: np.ndarray, classes: int) -> np.ndarray:
    """Share of the clips of each class (rows) that are given each class (columns), mean of the runs."""
    counts = np.zeros((classes, classes))
    for run in runs:
        np.add.at(counts, (labels, run["1 view"]["answers"]), 1)
    return counts / counts.sum(1, keepdims=True)


@styled
def draw():
    runs, labels, names = load()
    shares = {arm: confusion(found, labels, len(names)) for arm, found in runs.items()}
    figure = Figure(figsize=(9, 8.5), layout="constrained")
    upper, lower = figure.subfigures(2, height_ratios=[1.15, 1])
    per_class, curves = upper.subplots(1, 2, width_ratios=[1.5, 1])
    order = np.argsort(shares["both"].diagonal())
    for arm, share in shares.items():
        per_class.plot(100 * share.diagonal()[order], range(len(names)), "o", color=COLOURS[arm], label=ARMS[arm])
        for run in runs[arm]:
            epochs, right = np.array(run["curve"]).T
            curves.plot(epochs, 100 * right, color=COLOURS[arm], linewidth=1)
    per_class.set_yticks(range(len(names)), [names[index] for index in order])
    per_class.set(xlabel="test clips right, %", xlim=(-3, 103))
    per_class.grid(alpha=0.3)
    per_class.legend(loc="lower right")
    curves.set(xlabel="epoch", ylabel="test clips right, %", ylim=(0, None))
    curves.grid(alpha=0.3)
    shown = [names.index(name) for name in BY_MOVEMENT]
    for axes, (arm, share) in zip(lower.subplots(1, 2, sharey=True), shares.items(), strict=True):
        draw_confusion(axes, share[np.ix_(shown, shown)], ARMS[arm])
    figure.savefig(PICTURE, dpi=130)
    print(f"{PICTURE.name}: {len(runs['alone'])} seeds")


def draw_confusion(axes: Axes, share: np.ndarray, title: str):
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.ndindex(share.shape):
        colour = "white" if share[row, column] > 0.5 else "black"
        axes.text(column, row, f"{100 * share[row, column]:.0f}", ha="center", va="center", color=colour)
    axes.set_xticks(range(len(BY_MOVEMENT)), BY_MOVEMENT, rotation=40, ha="right")
    axes.set_yticks(range(len(BY_MOVEMENT)), BY_MOVEMENT)
    axes.set(title=title, ylabel="true class", xlabel="answer, % of the class")


if __name__ == "__main__":
    draw()
