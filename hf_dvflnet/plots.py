"""Every picture of the package: one place, one look. Figures are drawn without a display and written as PNG."""

import os
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure


# sequential, even in lightness, and read alike by colour-blind eyes
COLOUR_MAP = "cividis"
FONT_SIZE = 9
DOTS_PER_INCH = 150


def save_confusion_matrix(counts: np.ndarray, classes: Sequence[str], path: str | os.PathLike, title: str):
    """
    Draw which classes are taken for which.

    Args:
        counts: Clips of each true class (rows) by predicted class (columns), (classes, classes).
        classes: Their names.
        path: The PNG to write.
        title: What stands above it.
    """
    counts = np.asarray(counts)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = min(max(4.5, 0.16 * len(classes) + 2), 60)
    # names get smaller with their number, down to what can be read when enlarged
    font_size = FONT_SIZE if len(classes) <= 30 else max(2.5, FONT_SIZE * 30 / len(classes))
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(shares, cmap=COLOUR_MAP, vmin=0, vmax=1, interpolation="nearest")
    axes.set_title(title, fontsize=FONT_SIZE + 1)
    axes.set_xlabel("predicted", fontsize=FONT_SIZE)
    axes.set_ylabel("true", fontsize=FONT_SIZE)
    axes.set_xticks(range(len(classes)), classes, rotation=90, fontsize=font_size)
    axes.set_yticks(range(len(classes)), classes, fontsize=font_size)
    axes.tick_params(length=0)
    bar = figure.colorbar(image, ax=axes, shrink=0.6)
    bar.set_label("share of the true class's clips", fontsize=FONT_SIZE)
    bar.ax.tick_params(labelsize=FONT_SIZE - 1)
    figure.savefig(path, dpi=DOTS_PER_INCH if len(classes) <= 60 else 100, facecolor="white")


__all__ = ["save_confusion_matrix"]
