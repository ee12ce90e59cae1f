"""Every picture of the package: one place, one look. Figures are drawn without a display and written as PNG."""

import os
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from torch.nn import functional as F


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


# Okabe and Ito's colours, which colour-blind eyes tell apart
LINE_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_CURVES = {
    "loss": ("loss", "loss_kl", "loss_ce", "eval_loss"),
    "share of clips": ("eval_top1_accuracy", "eval_top5_accuracy", "teacher_top1_accuracy", "agreement"),
    "learning rate": ("learning_rate",),
    "seconds a step": ("step_seconds", "data_seconds"),
}


def save_training_curves(history: Sequence[dict[str, Any]], path: str | os.PathLike, title: str):
    """
    Draw how a training went: loss and its parts, accuracies and agreement, learning rate, and seconds a step.

    Args:
        history: A Trainer's `state.log_history`. What it does not hold is left out.
        path: The PNG to write.
        title: What stands above it.
    """
    lines: dict[str, list[tuple[str, list[float], list[float]]]] = {}
    for quantity, names in _CURVES.items():
        for name in names:
            points = [(entry["step"], entry[name]) for entry in history if name in entry]
            if points:
                steps, values = map(list, zip(*points, strict=True))
                lines.setdefault(quantity, []).append((name, steps, values))
    figure = Figure(figsize=(8, 2.2 * max(len(lines), 1) + 0.6), layout="constrained")
    figure.suptitle(title, fontsize=FONT_SIZE + 1)
    panels = figure.subplots(max(len(lines), 1), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (quantity, curves) in zip(panels, lines.items(), strict=False):
        for colour, (name, steps, values) in zip(LINE_COLOURS, curves, strict=False):
            # a single point, such as the teacher's accuracy, holds for the whole run
            if len(steps) == 1 and name.startswith("teacher"):
                axes.axhline(values[0], color=colour, linestyle="--", label=name, linewidth=1.2)
            else:
                axes.plot(
                    steps, values, color=colour, label=name, linewidth=1.4, marker="." if len(steps) < 30 else None
                )
        axes.set_ylabel(quantity, fontsize=FONT_SIZE)
        axes.grid(alpha=0.3)
        axes.tick_params(labelsize=FONT_SIZE - 1)
        axes.legend(fontsize=FONT_SIZE - 1, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
        if quantity in ("share of clips", "seconds a step"):
            axes.set_ylim(bottom=0)
    panels[-1].set_xlabel("step", fontsize=FONT_SIZE)
    figure.savefig(path, dpi=DOTS_PER_INCH, facecolor="white")


def upsample_maps(norms: np.ndarray, frames: int, height: int, width: int, stride: int | None = None) -> np.ndarray:
    """
    Maps at the size of the pictures, bilinear, and each repeated for the frames of its tubelet.

    Args:
        norms: Maps, (map frames, rows, columns); `frames` is a multiple of map frames.
        frames, height, width: Those of the clip.
        stride: Pixels that a cell spans: the last row and column may reach beyond the picture. By default the map is
            stretched over the picture, which is the same where the stride divides height and width.

    Returns:
        float32, (frames, height, width).
    """
    count, rows, columns = norms.shape
    if frames % count:
        raise ValueError(f"a map of {count} frames does not fit a clip of {frames}")
    size = (height, width) if stride is None else (rows * stride, columns * stride)
    maps = F.interpolate(torch.from_numpy(norms).float()[None], size=size, mode="bilinear", align_corners=False)
    return maps[0, :, :height, :width].numpy().repeat(frames // count, axis=0)


MAP_OPACITY = 0.6


def blend_map(frames: np.ndarray, norms: np.ndarray, stride: int | None = None) -> np.ndarray:
    """
    A map over the pictures that it is of: upsampled, scaled, coloured, and blended with the pictures in grey, whose
    own colours would be taken for the map's.

    Scaled to [0, 1] over the whole clip, from the least to the greatest value of all frames and positions of this one
    map: colours compare frames of a map, not stages, kinds or clips. A map of one value is 0 throughout.

    Args:
        frames: uint8 RGB, (frames, height, width, 3), as [`~modulation_maps.pixels_to_frames`] gives them.
        norms: One stage's map of [`~modulation_maps.modulation_maps`], (frames / tubelet_size, rows, columns).
        stride: The stage's stride, as in [`upsample_maps`].

    Returns:
        uint8 RGB, (frames, height, width, 3).
    """
    count, height, width = frames.shape[:3]
    maps = upsample_maps(norms, count, height, width, stride)
    scaled = (maps - maps.min()) / max(float(np.ptp(maps)), 1e-12)
    colours = matplotlib.colormaps[COLOUR_MAP](scaled, bytes=True)[..., :3]
    grey = frames @ np.array([0.299, 0.587, 0.114])
    return (MAP_OPACITY * colours + (1 - MAP_OPACITY) * grey[..., None]).round().astype(np.uint8)


__all__ = ["blend_map", "save_confusion_matrix", "save_training_curves", "upsample_maps"]
