"""What the runs of `real_video.py` say: their summary in `hub_cards/results.json`, and a picture."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from hf_dvflnet.data.label_sets import LABEL_SETS
from hf_dvflnet.plots.charts import COLOUR_MAP, FONT_SIZE, styled


ROOT = Path(__file__).parents[1]
CARDS = ROOT / "hub_cards" / "results.json"
PICTURES = ROOT / "docs" / "images"
KINDS = ("teacher", "alone", "distilled", "features", "pretrained")
CLASSES = LABEL_SETS["jhmdb"].names


def gain(alone: np.ndarray, other: np.ndarray, titles: list[str], draws: int = 10_000) -> tuple[float, float, float]:
    """
    Mean difference in accuracy and its 95 % interval, by a bootstrap over titles and over seeds.

    Args:
        alone, other: Whether a run of each seed is right on each clip, (seeds, clips); a seed's runs are a pair.
        titles: The title of each clip's source video. Clips of a title are drawn together.
        draws: Number of bootstrap samples.
    """
    names, numbers = np.unique(titles, return_inverse=True)
    difference = other.astype(float) - alone
    sums = np.stack([np.bincount(numbers, row, len(names)) for row in difference])  # (seeds, titles)
    sizes = np.bincount(numbers)
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(draws):
        seeds, chosen = rng.integers(len(sums), size=len(sums)), rng.integers(len(names), size=len(names))
        drawn.append(sums[seeds][:, chosen].sum() / (len(sums) * sizes[chosen].sum()))
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(difference.mean()), float(low), float(high)


def right_by_seed(rows: list[dict[str, Any]], labels: list[int]) -> dict[int, np.ndarray]:
    """Whether each run's first answer is right on each clip, by its seed."""
    return {row["seed"]: np.array([best[0] for best in row["best"]]) == labels for row in rows}


def summarize(runs: list[dict[str, Any]], clips: dict[str, Any]) -> dict[str, Any]:
    """
    Figures in percent: mean and spread over the seeds for each kind of network, and the gains over the student alone.

    Args:
        runs: Rows of `real_video.json` with the same settings.
        clips: The label and the title of each clip that was classified.
    """
    by_kind = {kind: [row for row in runs if row["kind"] == kind] for kind in KINDS}
    networks = {}
    for kind, rows in by_kind.items():
        if rows:
            values = {name: [100 * row[name] for row in rows] for name in ("top1", "top5", "mean_class")}
            networks[kind] = {
                "seeds": sorted(row["seed"] for row in rows),
                "parameters": rows[0]["parameters"],
                "input": rows[0]["input"],
                **{name: round(float(np.mean(each)), 1) for name, each in values.items()},
                "spread": round(float(np.std(values["top1"], ddof=1)), 1) if len(rows) > 1 else None,
                "minutes": round(float(np.median([row["seconds"] for row in rows])) / 60, 1),
            }
    right = {kind: right_by_seed(rows, clips["labels"]) for kind, rows in by_kind.items()}
    gains = {}
    for kind in ("distilled", "features", "pretrained"):
        seeds = sorted(right["alone"].keys() & right[kind].keys())
        if seeds:
            pair = [np.stack([right[name][seed] for seed in seeds]) for name in ("alone", kind)]
            gains[kind] = [round(100 * value, 1) for value in gain(*pair, clips["titles"])]
    return {"networks": networks, "gains": gains}


def confusions(runs: list[dict[str, Any]], labels: list[int], kind: str) -> np.ndarray:
    """Share of each class's clips (rows) that is given each class (columns), over all runs of a kind."""
    counts = np.zeros((len(CLASSES), len(CLASSES)))
    for row in runs:
        if row["kind"] == kind:
            np.add.at(counts, (labels, [best[0] for best in row["best"]]), 1)
    return counts / np.maximum(counts.sum(1, keepdims=True), 1)


@styled
def save_picture(runs: list[dict[str, Any]], labels: list[int], folder: Path):
    """Draw a confusion matrix for each kind of network."""
    names = {"teacher": "teacher", "alone": "student alone", "distilled": "student distilled"}
    shares = {kind: confusions(runs, labels, kind) for kind in names}
    shown = [name.replace("_", " ") for name in CLASSES]

    figure = Figure(figsize=(13, 5.2), layout="constrained")
    panels = figure.subplots(1, len(names), sharey=True)
    for axes, (kind, name) in zip(panels, names.items(), strict=True):
        image = axes.imshow(shares[kind], vmin=0, vmax=1, cmap=COLOUR_MAP, interpolation="nearest")
        axes.set_title(f"{name}: mean class accuracy {np.trace(shares[kind]) / len(CLASSES):.1%}")
        axes.set_xticks(range(len(shown)), shown, rotation=90)
        axes.set_xlabel("predicted")
        axes.tick_params(length=0)
    panels[0].set_yticks(range(len(shown)), shown)
    panels[0].set_ylabel("true")
    figure.colorbar(image, ax=panels, shrink=0.6).set_label("share of the true class's clips", fontsize=FONT_SIZE)
    figure.savefig(folder / "real_video_confusion.png", dpi=110)


def write(runs: list[dict[str, Any]], clips: dict[str, Any], date: str, command: str):
    """Write the summary of runs with the same settings to `hub_cards/results.json`, and draw the picture."""
    cards = json.loads(CARDS.read_text(encoding="utf-8"))
    cards["real_video"] = {
        "data": "JHMDB, official split 1: 660 training and 268 test clips of 21 human actions",
        "protocol": "one view of 8 frames, the middle ones of eight equal parts of the clip",
        "chance": round(100 / len(CLASSES), 1),
        "command": command,
        "date": date,
        **summarize(runs, clips),
    }
    CARDS.write_text(json.dumps(cards, indent=2) + "\n", encoding="utf-8")
    save_picture(runs, clips["labels"], PICTURES)
    print(f"{CARDS}: real_video\n{PICTURES / 'real_video_confusion.png'}")
