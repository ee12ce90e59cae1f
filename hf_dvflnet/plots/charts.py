"""
Every picture of the package: one place, one look, written without a display.

The background is opaque white and the text near black, whatever the page or the user's matplotlib style: a picture
that is seen on light and on dark pages with no background of its own could only have greys and half of the colours.
"""

import math
import os
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import matplotlib
import matplotlib.style
import numpy as np
import PIL.Image
import torch
from cycler import cycler
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from torch.nn import functional as F

from ..hub.model_folder import whole_or_nothing


if TYPE_CHECKING:
    from ..inference.modulation_maps import ModulationMaps


# sequential, even in lightness, and read alike by colour-blind eyes
COLOUR_MAP = "cividis"
# those of Okabe and Ito's colours, which colour-blind eyes tell apart, that stand out from white by 3 to 1
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
    "font.family": "DejaVu Sans",  # comes with matplotlib, hence the same everywhere
    "font.size": FONT_SIZE,
    "grid.alpha": 0.3,
    "image.cmap": COLOUR_MAP,
    "legend.fontsize": SMALL_FONT_SIZE,
    "legend.frameon": False,
    "lines.linewidth": 1.4,
    "savefig.dpi": "figure",
    "text.color": "#222222",
    "text.parse_math": False,  # a dollar sign in the name of a class or file is one
    "xtick.labelsize": SMALL_FONT_SIZE,
    "ytick.labelsize": SMALL_FONT_SIZE,
}
# decorates what draws: every picture looks so, and the user's own settings stay as they are
styled = matplotlib.style.context(["default", STYLE])


def _text_width(text: str, font_size: float = FONT_SIZE) -> float:
    """About how wide a text is, in inches."""
    return len(text) * 0.6 * font_size / 72


def _wrapped(title: str, width: float) -> str:
    """The lines of a title, broken where the figure's width in inches ends."""
    columns = int(width / _text_width("x", FONT_SIZE + 1))
    return "\n".join(line for part in title.splitlines() for line in textwrap.wrap(part, columns))


@styled
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
    # every class has a line of its own; the more there are, the smaller, down to what can be read when enlarged
    font_size = SMALL_FONT_SIZE if len(classes) <= 60 else 6
    matrix = max(3.0, len(classes) * font_size * 1.35 / 72)
    side = matrix + _text_width(max(classes, key=len), font_size) + 1
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    # of a large one, title and legend are read when the whole of it fits a screen
    scale = max(1.0, side / 12)
    axes = figure.add_subplot()
    image = axes.imshow(shares, vmin=0, vmax=1, interpolation="nearest")
    axes.set_title(_wrapped(title, side / scale), fontsize=(FONT_SIZE + 1) * scale)
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
def save_class_bars(per_class: Sequence[dict[str, Any]], path: str | os.PathLike, title: str):
    """
    Draw the top-1 accuracy of each class, from the best to the worst.

    Args:
        per_class: Rows of `class`, `clips` and `top1` in [0, 1], as [`~evaluation.compute_figures`] gives them.
            Classes without clips are left out, and counted in the title.
        path: The PNG to write.
        title: What stands above it.
    """
    rows = sorted((row for row in per_class if row["clips"]), key=lambda row: (-row["top1"], row["class"]))
    mean = sum(row["top1"] for row in rows) / max(len(rows), 1)
    if len(rows) < len(per_class):
        title += f"; classes without clips: {len(per_class) - len(rows)}"
    columns = max(1, math.ceil(len(rows) / 60))
    length = max(1, math.ceil(len(rows) / columns))
    names = max((_text_width(row["class"], SMALL_FONT_SIZE) for row in rows), default=0)
    width = max(columns * (names + 2.5), 5)
    figure = Figure(figsize=(width, length * 0.155 + 1.2), layout="constrained")
    figure.suptitle(_wrapped(f"{title}\nline: mean of the classes, {mean:.1%}", width))
    for number, axes in enumerate(figure.subplots(1, columns, squeeze=False)[0]):
        shown = rows[number * length : (number + 1) * length]
        places = range(len(shown))
        axes.barh(places, [row["top1"] for row in shown], height=0.75)
        axes.set_yticks(places, [row["class"] for row in shown])
        for place, row in zip(places, shown, strict=True):
            axes.text(1.04, place, f"{row['top1']:.0%} of {row['clips']}", va="center", fontsize=SMALL_FONT_SIZE - 1)
        axes.axvline(mean, color=LINE_COLOURS[1], linewidth=1)
        axes.set_ylim(length - 0.5, -0.5)
        axes.set_xlim(0, 1.5)  # room for the figures
        axes.set_xticks([0, 0.5, 1], ["0%", "50%", "100%"])
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel("top-1")
    figure.savefig(path)


_CURVES = {
    "loss": ("loss", "loss_kl", "loss_ce", "eval_loss"),
    "share of clips": ("eval_top1_accuracy", "eval_top5_accuracy", "teacher_top1_accuracy", "agreement"),
    "learning rate": ("learning_rate",),
    "seconds a step": ("step_seconds", "data_seconds"),
}


@styled
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
    figure.suptitle(title)
    panels = figure.subplots(max(len(lines), 1), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (quantity, curves) in zip(panels, lines.items(), strict=False):
        for colour, (name, steps, values) in zip(LINE_COLOURS, curves, strict=False):
            # a single point, such as the teacher's accuracy, holds for the whole run
            if len(steps) == 1 and name.startswith("teacher"):
                axes.axhline(values[0], color=colour, linestyle="--", label=name)
            else:
                axes.plot(steps, values, color=colour, label=name, marker="." if len(steps) < 30 else None)
        axes.set_ylabel(quantity)
        axes.grid(visible=True)
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
        if quantity in ("share of clips", "seconds a step"):
            axes.set_ylim(bottom=0)
    panels[-1].set_xlabel("step")
    figure.savefig(path)


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
FRAMES_PER_SECOND = 4
CELL_INCHES = 1.2
MAP_SUFFIXES = (".gif", ".mp4", ".png")


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


@styled
def save_modulation_maps(
    frames: np.ndarray,
    maps: "ModulationMaps",
    path: str | os.PathLike,
    title: str,
    *,
    stages: Sequence[int] = (1, 2, 3, 4),
    kinds: Sequence[str] = ("spatial", "temporal"),
):
    """
    Draw the modulation maps of a clip beside its frames, as [`blend_map`] colours them.

    Args:
        frames: uint8 RGB, (frames, height, width, 3), as [`~modulation_maps.pixels_to_frames`] gives them.
        maps: Those of [`~modulation_maps.modulation_maps`].
        path: What to write. A PNG shows all at once: a row for the frames and for each map, a column for each frame.
            A GIF or MP4 (H.264) shows the frames one after the other, and each map beside them.
        title: What stands above it.
        stages: Which stages, from 1.
        kinds: `"spatial"`, `"temporal"` or both.

    Raises:
        ValueError: If `path` has another suffix, or there is no such stage.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in MAP_SUFFIXES:
        raise ValueError(f"{path}: maps are written as {', '.join(MAP_SUFFIXES)}; name it so")
    wrong = [stage for stage in stages if not 1 <= stage <= len(maps.spatial)]
    if wrong or not stages:
        raise ValueError(f"stages are numbered from 1 to {len(maps.spatial)}, got {wrong[0] if wrong else 'none'}")
    blended, ranges = {}, {}
    for kind in kinds:
        for stage in stages:
            norms = getattr(maps, kind)[stage - 1]
            blended[kind, stage] = blend_map(frames, norms, maps.strides[stage - 1])
            ranges[kind, stage] = f"{norms.min():.3g} to {norms.max():.3g}"
    if suffix == ".png":
        steps = [[list(frames), *(list(pictures) for pictures in blended.values())]]
        rows = ["input", *(f"{kind} {stage}\n{ranges[kind, stage]}" for kind, stage in blended)]
        columns, captions = [f"frame {number}" for number in range(1, len(frames) + 1)], []
    else:
        steps = [
            [[frame, *(blended[kind, stage][number] for stage in stages)] for kind in kinds]
            for number, frame in enumerate(frames)
        ]
        rows, columns = list(kinds), ["input", *(f"stage {stage}" for stage in stages)]
        captions = [["", *(ranges[kind, stage] for stage in stages)] for kind in kinds]
    pictures = _draw_mosaic(steps, rows, columns, captions, title)
    with whole_or_nothing(path, overwrite=True) as unfinished:
        if suffix == ".mp4":
            return _encode(pictures, unfinished)
        first, *others = map(PIL.Image.fromarray, pictures)
        if suffix == ".png":
            return first.save(unfinished, format="png")
        first, *others = map(_with_palette, (first, *others))
        duration = 1000 // FRAMES_PER_SECOND
        first.save(unfinished, format="gif", save_all=True, append_images=others, duration=duration, loop=0)


def _mosaic(rows: Sequence[Sequence[np.ndarray]], gap_down: int, gap_across: int) -> np.ndarray:
    """Pictures of one size in rows, uint8, on white; each with a gap below and to its right."""
    padding = ((0, gap_down), (0, gap_across), (0, 0))
    lines = [np.concatenate([np.pad(cell, padding, constant_values=255) for cell in row], axis=1) for row in rows]
    return np.concatenate(lines)


def _draw_mosaic(
    steps: Sequence[Sequence[Sequence[np.ndarray]]],
    row_labels: Sequence[str],
    column_labels: Sequence[str],
    captions: Sequence[Sequence[str]],
    title: str,
) -> Iterator[np.ndarray]:
    """A figure of rows of pictures, drawn once for each step: uint8 RGB, of even height and width."""
    height, width = steps[0][0][0].shape[:2]
    per_inch = max(height, width) / CELL_INCHES  # pixels of a picture
    gap_across = math.ceil(0.04 * per_inch)
    gap_down = math.ceil(0.2 * per_inch) if captions else gap_across
    grid = _mosaic(steps[0], gap_down, gap_across)

    # everything in inches: constrained layout takes seconds, and moves what should stay in place from step to step
    left = max(_text_width(line) for label in row_labels for line in label.splitlines()) + 0.15
    size = grid.shape[1] / per_inch, grid.shape[0] / per_inch
    total_width = max(left + size[0] + 0.1, 5)
    title = _wrapped(title, total_width)
    top, bottom = 0.17 * (title.count("\n") + 1) + 0.35, 0.6
    total_height = top + size[1] + bottom
    figure = Figure(figsize=(total_width, total_height))
    canvas = FigureCanvasAgg(figure)
    figure.text(0.5, 1 - 0.08 / total_height, title, ha="center", va="top", fontsize=FONT_SIZE + 1)
    left += (total_width - left - size[0] - 0.1) / 2  # in the middle, where the title is wider
    place = (left / total_width, bottom / total_height, size[0] / total_width, size[1] / total_height)
    axes = figure.add_axes(place)
    image = axes.imshow(grid)
    axes.spines[:].set_visible(False)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.set_yticks([row * (height + gap_down) + height / 2 for row in range(len(row_labels))], row_labels)
    axes.set_xticks([column * (width + gap_across) + width / 2 for column in range(len(column_labels))], column_labels)
    for row, texts in enumerate(captions):
        for column, text in enumerate(texts):
            across, down = column * (width + gap_across) + width / 2, row * (height + gap_down) + height
            axes.text(across, down, text, ha="center", va="top", fontsize=SMALL_FONT_SIZE - 1)
    bar = figure.add_axes((0.5 - 0.7 / total_width, 0.38 / total_height, 1.4 / total_width, 0.1 / total_height))
    figure.colorbar(ScalarMappable(), cax=bar, orientation="horizontal", ticks=[])
    bar.text(-0.05, 0.5, "least", ha="right", va="center", transform=bar.transAxes, fontsize=SMALL_FONT_SIZE)
    bar.text(1.05, 0.5, "greatest", ha="left", va="center", transform=bar.transAxes, fontsize=SMALL_FONT_SIZE)
    bar.set_xlabel("L2 norm over channels, of each map in this clip", fontsize=SMALL_FONT_SIZE)
    for step in steps:
        image.set_data(_mosaic(step, gap_down, gap_across))
        canvas.draw()
        drawn = np.asarray(canvas.buffer_rgba())[..., :3]
        yield drawn[: drawn.shape[0] // 2 * 2, : drawn.shape[1] // 2 * 2].copy()


def _with_palette(picture: PIL.Image.Image) -> PIL.Image.Image:
    # of Pillow's methods, the one that keeps rare colours, such as a map's greatest values, and takes no seconds
    palette = picture.quantize(method=PIL.Image.Quantize.FASTOCTREE)
    return picture.quantize(palette=palette, dither=PIL.Image.Dither.FLOYDSTEINBERG)


def _encode(pictures: Iterable[np.ndarray], path: str | os.PathLike):
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=FRAMES_PER_SECOND, options={"crf": "16"})
        stream.pix_fmt = "yuv420p"
        for number, picture in enumerate(pictures):
            if number == 0:
                stream.height, stream.width = picture.shape[:2]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


__all__ = [
    "blend_map",
    "save_class_bars",
    "save_confusion_matrix",
    "save_modulation_maps",
    "save_training_curves",
    "upsample_maps",
]
