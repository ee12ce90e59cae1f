"""What the runs of `distillation_ablation.py` say: the contenders, tables, and a picture."""

import statistics
from pathlib import Path
from typing import Any

import numpy as np
import scipy.stats
from matplotlib.figure import Figure

from hf_dvflnet.plots.charts import LINE_COLOURS, styled


ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "docs" / "images" / "distillation_ablation.png"
REFERENCES = ("alone", "forward_kl")
PAPER = "forward_kl, alpha 0.2, T 10 (the paper's)"
FAMILIES = (  # of variants, by their names; each sends one to the second stage
    lambda name: name.startswith(("forward_kl, T ", "forward_kl, alpha ")) and name != PAPER,
    lambda name: name.startswith(("reverse_kl", "jensen_shannon", "mse")),
    lambda name: "modulators" in name,
    lambda name: "features" in name,
)

Row = dict[str, Any]


def of_stage(rows: list[Row], stage: str) -> dict[str, dict[int, float]]:
    """Accuracy in percent by variant and seed, best variant first."""
    found: dict[str, dict[int, float]] = {}
    for row in rows:
        if row["stage"] == stage:
            found.setdefault(row["variant"], {})[row["seed"]] = 100 * row["top1"]
    return dict(sorted(found.items(), key=lambda item: -statistics.mean(item[1].values())))


def contenders(rows: list[Row]) -> list[str]:
    """`alone`, `forward_kl`, the paper's, and of each family the variant that was best in the first stage."""
    return [*REFERENCES, PAPER, *(next(filter(family, of_stage(rows, "first"))) for family in FAMILIES)]


def difference(one: dict[int, float], other: dict[int, float], comparisons: int) -> tuple[float, float, float]:
    """
    Mean difference of the accuracies of the seeds that both have, and its 95 % interval, by Student's t.

    The interval is that of one of `comparisons` comparisons of which none is wrong with probability 0.95 (Bonferroni).
    """
    differences = [one[seed] - other[seed] for seed in sorted(one.keys() & other.keys())]
    mean = statistics.mean(differences)
    if len(differences) < 2:
        return mean, float("-inf"), float("inf")
    error = statistics.stdev(differences) / len(differences) ** 0.5
    half = float(scipy.stats.t.ppf(1 - 0.025 / comparisons, len(differences) - 1)) * error
    return mean, mean - half, mean + half


def first_table(rows: list[Row]) -> str:
    lines = ["| variant | validation clips right, seed 0 |", "|---|---|"]
    for variant, seeds in of_stage(rows, "first").items():
        lines.append(f"| {variant} | {seeds[0]:.1f} |")
    return "\n".join(lines)


def second_table(rows: list[Row]) -> str:
    """Accuracies on the test clips, and differences whose interval excludes 0 in bold."""
    found = of_stage(rows, "second")
    pairs = {frozenset((variant, reference)) for variant in found for reference in REFERENCES if variant != reference}
    lines = [
        "| variant | test clips right | seeds | above alone | above forward_kl |",
        "|---|---|---|---|---|",
    ]
    for variant, seeds in found.items():
        cells = []
        for reference in REFERENCES:
            if variant == reference or reference not in found:
                cells.append("")
                continue
            mean, low, high = difference(seeds, found[reference], len(pairs))
            text = f"{mean:+.1f} ({low:+.1f} to {high:+.1f})"
            cells.append(f"**{text}**" if low > 0 or high < 0 else text)
        spread = f" +- {statistics.stdev(seeds.values()):.1f}" if len(seeds) > 1 else ""
        right = f"{statistics.mean(seeds.values()):.1f}{spread}"
        lines.append(f"| {variant} | {right} | {len(seeds)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def budget_table(rows: list[Row]) -> str:
    lines = ["| clips of each class | passes | validation clips right, alone | seeds |", "|---|---|---|---|"]
    budgets: dict[tuple[int, int], list[float]] = {}
    for row in rows:
        if row["stage"] == "budget":
            budget = row["settings"]["budget"]
            budgets.setdefault((budget["clips"], budget["epochs"]), []).append(100 * row["top1"])
    for (clips, epochs), values in budgets.items():
        spread = f" +- {statistics.stdev(values):.1f}" if len(values) > 1 else ""
        lines.append(f"| {clips} | {epochs} | {statistics.mean(values):.1f}{spread} | {len(values)} |")
    return "\n".join(lines)


@styled
def save_picture(rows: list[Row], path: Path):
    """Draw both stages side by side, sorted: a point a seed, and a bar at their mean."""
    stages = {name: found for name in ("first", "second") if (found := of_stage(rows, name))}
    figure = Figure(figsize=(10.5, 6), layout="constrained")
    panels = figure.subplots(1, len(stages), squeeze=False)[0]
    titles = {"first": "Stage 1: seed 0, validation clips", "second": "Stage 2: five other seeds, test clips"}
    for axes, (stage, found) in zip(panels, stages.items(), strict=True):
        places = np.arange(len(found))[::-1]
        for place, (variant, seeds) in zip(places, found.items(), strict=True):
            colour = LINE_COLOURS[1] if variant in REFERENCES else LINE_COLOURS[0]
            axes.plot(list(seeds.values()), [place] * len(seeds), "o", color=colour, alpha=0.6, markersize=5)
            mean = statistics.mean(seeds.values())
            axes.plot([mean, mean], [place - 0.3, place + 0.3], color=colour, linewidth=2)
        if "alone" in found:
            axes.axvline(statistics.mean(found["alone"].values()), color="#BBBBBB", zorder=0)
        axes.set_yticks(places, list(found))
        axes.set_title(titles[stage], loc="left")
        axes.set_xlabel("clips right (%)")
        axes.grid(visible=True, axis="x")
    figure.savefig(path)


def write(rows: list[Row]):
    """Print the tables, and draw the picture."""
    print(budget_table(rows), first_table(rows), second_table(rows), sep="\n\n")
    save_picture(rows, PICTURE)
    print(PICTURE)
