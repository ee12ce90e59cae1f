"""
The style of all pictures of the package, and its charts: accuracy of each class, confusion matrix, and students beside
their teacher. They are drawn without a display.

The background is opaque white and the text nearly black, independent of the page and of the user's matplotlib style.
"""

import math
import os
import textwrap
from collections.abc import Sequence
from typing import Any

import matplotlib.style
import numpy as np
from cycler import cycler
from matplotlib.figure import Figure


# sequential, with uniform lightness steps, and also readable by colour-blind people
COLOUR_MAP = "cividis"
# the colours of Okabe and Ito, which colour-blind people can distinguish, that have a contrast of 3:1 to white
LINE_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
FONT_SIZE = 9
SMALL_FONT_SIZE = 8
STYLE = {
    "axes.facecolor": "#FFFFFF",
    "axes.edgecolor": "#555555",
    "axes.grid": False,
    "axes.labelsize": FONT_SIZE,
    "axes.prop_cycle": cycler(color=LINE_COLOURS),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": FONT_SIZE + 1,
    "figure.dpi": 150,
    "figure.facecolor": "#FFFFFF",
    "figure.titlesize": FONT_SIZE + 1,
    "font.family": "DejaVu Sans",  # comes with matplotlib, so it is the same everywhere
    "font.size": FONT_SIZE,
    "grid.alpha": 0.3,
    "image.cmap": COLOUR_MAP,
    "legend.fontsize": SMALL_FONT_SIZE,
    "legend.frameon": False,
    "lines.linewidth": 1.4,
    "savefig.dpi": "figure",
    "text.color": "#222222",
    "text.parse_math": False,  # a dollar sign in a class or file name does not start a formula
    "xtick.labelsize": SMALL_FONT_SIZE,
    "ytick.labelsize": SMALL_FONT_SIZE,
}
# decorator of the drawing functions: sets this style, and leaves the user's own settings unchanged
styled = matplotlib.style.context(["default", STYLE])


def text_width(text: str, font_size: float = FONT_SIZE) -> float:
    """Return the approximate width of a text, in inches."""
    return len(text) * 0.6 * font_size / 72


def wrapped(title: str, width: float) -> str:
    """Break the lines of a title at the width of the figure, in inches."""
    columns = int(width / text_width("x", FONT_SIZE + 1))
    return "\n".join(line for part in title.splitlines() for line in textwrap.wrap(part, columns))


@styled
def save_confusion_matrix(counts: np.ndarray, classes: Sequence[str], path: str | os.PathLike, title: str):
    """
    Draw a confusion matrix: how often each true class is predicted as each class.

    Args:
        counts: Number of clips of each true class (row) and predicted class (column), of shape (classes, classes).
        path: The PNG file to write.
    """
    counts = np.asarray(counts)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    # each class has its own row; the text of many classes is smaller, but can be read when enlarged
    font_size = SMALL_FONT_SIZE if len(classes) <= 60 else 6
    matrix = max(3.0, len(classes) * font_size * 1.35 / 72)
    side = matrix + text_width(max(classes, key=len), font_size) + 1
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    # in a large chart, title and legend must be readable when the whole chart fits a screen
    scale = max(1.0, side / 12)
    axes = figure.add_subplot()
    image = axes.imshow(shares, vmin=0, vmax=1, interpolation="nearest")
    axes.set_title(wrapped(title, side / scale), fontsize=(FONT_SIZE + 1) * scale)
    axes.set_xlabel("predicted", fontsize=FONT_SIZE * scale)
    axes.set_ylabel("true", fontsize=FONT_SIZE * scale)
    axes.set_xticks(range(len(classes)), classes, rotation=90, fontsize=font_size)
    axes.set_yticks(range(len(classes)), classes, fontsize=font_size)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(image, ax=axes, shrink=0.6)
    bar.set_label("share of the true class's clips", fontsize=FONT_SIZE * scale)
    bar.ax.tick_params(labelsize=SMALL_FONT_SIZE * scale)
    figure.savefig(path, dpi=150 if side < 20 else 110)


@styled
def save_reliability(confidence: np.ndarray, right: np.ndarray, path: str | os.PathLike, title: str):
    """
    Draw how often answers are right by how sure they are, and how many are wrong of the surest ones.

    Args:
        confidence: The highest score of each clip, (clips,), in [0, 1].
        right: Whether its class is the true one, (clips,).
        path: The PNG file to write.
    """
    bins = 15
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    figure.suptitle(wrapped(title, 8))
    reliability, risk = figure.subplots(1, 2)
    number = np.clip((confidence * bins).astype(int), 0, bins - 1)
    counts = np.bincount(number, minlength=bins)
    shares = np.bincount(number, right, bins) / np.maximum(counts, 1)
    places = (np.arange(bins) + 0.5) / bins
    reliability.bar(places, shares, width=0.9 / bins, label="right")
    reliability.bar(places, counts / len(confidence), width=0.4 / bins, color=LINE_COLOURS[1], label="of all clips")
    reliability.plot([0, 1], [0, 1], color="#555555", linestyle="--", linewidth=1, label="as sure as right")
    reliability.set_xlabel("highest score")
    reliability.set_ylabel("share")
    reliability.legend(loc="upper left")
    wrong = ~np.asarray(right, dtype=bool)[np.argsort(-confidence, kind="stable")]
    answered = np.arange(1, len(wrong) + 1)
    risk.plot(answered / len(wrong), np.cumsum(wrong) / answered)
    risk.set_xlabel("share of clips that are answered, the surest first")
    risk.set_ylabel("wrong answers")
    risk.set_ylim(bottom=0)
    risk.grid(visible=True)
    figure.savefig(path)


@styled
def save_class_bars(per_class: Sequence[dict[str, Any]], path: str | os.PathLike, title: str):
    """
    Draw the top-1 accuracy of each class, from the best to the worst.

    Args:
        per_class: Rows with `class`, `clips` and `top1` in [0, 1], as returned by [`compute_figures`]. Classes without
            clips are not drawn; the title gives their number.
        path: The PNG file to write.
    """
    rows = sorted((row for row in per_class if row["clips"]), key=lambda row: (-row["top1"], row["class"]))
    mean = sum(row["top1"] for row in rows) / max(len(rows), 1)
    if len(rows) < len(per_class):
        title += f"; classes without clips: {len(per_class) - len(rows)}"
    columns = max(1, math.ceil(len(rows) / 60))
    length = max(1, math.ceil(len(rows) / columns))
    names = max((text_width(row["class"], SMALL_FONT_SIZE) for row in rows), default=0)
    width = max(columns * (names + 2.5), 5)
    figure = Figure(figsize=(width, length * 0.155 + 1.2), layout="constrained")
    figure.suptitle(wrapped(f"{title}\nline: mean of the classes, {mean:.1%}", width))
    for number, axes in enumerate(figure.subplots(1, columns, squeeze=False)[0]):
        shown = rows[number * length : (number + 1) * length]
        places = range(len(shown))
        axes.barh(places, [row["top1"] for row in shown], height=0.75)
        axes.set_yticks(places, [row["class"] for row in shown])
        for place, row in zip(places, shown, strict=True):
            axes.text(1.04, place, f"{row['top1']:.0%} of {row['clips']}", va="center", fontsize=SMALL_FONT_SIZE - 1)
        axes.axvline(mean, color=LINE_COLOURS[1], linewidth=1)
        axes.set_ylim(length - 0.5, -0.5)
        axes.set_xlim(0, 1.5)  # space for the numbers
        axes.set_xticks([0, 0.5, 1], ["0%", "50%", "100%"])
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel("top-1")
    figure.savefig(path)


@styled
def save_comparison(
    results: dict[str, dict[str, float]],
    histories: dict[str, Sequence[dict[str, Any]]],
    path: str | os.PathLike,
    title: str,
):
    """
    Draw students beside their teacher: accuracies at the end as bars, and validation accuracies while training.

    Args:
        results: Figures by network, with `top1` in [0, 1]; that of `"teacher"`, if there is one, becomes a line.
        histories: A Trainer's `state.log_history` by network. Without validation accuracies there are only bars.
        path: The PNG to write.
        title: Title of the picture.
    """
    teacher = results.get("teacher")
    students = [name for name in results if name != "teacher"]
    curves = {
        name: [(entry["step"], entry["eval_top1_accuracy"]) for entry in history if "eval_top1_accuracy" in entry]
        for name, history in histories.items()
    }
    curves = {name: points for name, points in curves.items() if points}
    figure = Figure(figsize=(8 if curves else 4, 3.2), layout="constrained")
    figure.suptitle(wrapped(title, 8 if curves else 4))
    panels = figure.subplots(1, 2 if curves else 1, sharey=True, squeeze=False)[0]
    colours = dict(zip(students, LINE_COLOURS, strict=False))
    panels[0].bar(students, [results[name]["top1"] for name in students], color=list(colours.values()), width=0.6)
    for place, name in enumerate(students):
        panels[0].text(place, results[name]["top1"] + 0.015, f"{results[name]['top1']:.1%}", ha="center")
    panels[0].set_ylabel("top-1")
    panels[0].set_title("at the end")
    for name, points in curves.items():
        panels[1].plot(*zip(*points, strict=True), color=colours[name], label=name, marker=".")
    if curves:
        panels[1].set_xlabel("step")
        panels[1].set_title("validation, while training")
        panels[1].legend(loc="best")
    for axes in panels:
        axes.grid(visible=True, axis="y")
        axes.set_axisbelow(True)
        if teacher is not None:
            axes.axhline(teacher["top1"], color="#555555", linestyle="--", linewidth=1)
    if teacher is not None:
        panels[0].text(-0.28, teacher["top1"] + 0.015, f"teacher {teacher['top1']:.1%}", fontsize=SMALL_FONT_SIZE)
    panels[0].set_ylim(0, 1.1)
    panels[0].set_yticks([0, 0.25, 0.5, 0.75, 1], ["0%", "25%", "50%", "75%", "100%"])
    figure.savefig(path)


@styled
def save_training_curves(history: Sequence[dict[str, Any]], path: str | os.PathLike, title: str):
    """
    Draw the losses and the validation accuracy in the course of a training.

    Args:
        history: A Trainer's `state.log_history`. A curve without points is named as such.
        path: The PNG to write.
    """
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    figure.suptitle(wrapped(title, 8))
    panels = figure.subplots(1, 2)
    curves = [
        (panels[0], "loss", "training"),
        (panels[0], "eval_loss", "validation"),
        (panels[1], "eval_top1_accuracy", "validation"),
    ]
    for axes, key, name in curves:
        points = [(entry["step"], entry[key]) for entry in history if key in entry]
        if points:
            axes.plot(*zip(*points, strict=True), color=LINE_COLOURS[name == "validation"], label=name, marker=".")
        else:
            axes.plot([], [], label=f"{name}: not measured")
    panels[0].set_ylabel("loss")
    panels[1].set_ylabel("top-1")
    panels[1].set_ylim(0, 1.05)
    for axes in panels:
        axes.set_xlabel("step")
        axes.grid(visible=True, axis="y")
        axes.legend(loc="best")
    figure.savefig(path)
