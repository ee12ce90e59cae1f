"""
Draws `docs/images/architecture.svg`: the modules of the package in groups, and which group imports from which.

    python docs/architecture.py

The groups are chosen here; the arrows are read off the import statements.
"""

import ast
from pathlib import Path


ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "docs" / "images" / "architecture.svg"

# two columns, from top to bottom: what is used by what stands above it
GROUPS = [
    ("Training", ["trainer", "distillation", "metrics"]),
    ("Evaluation and use", ["evaluation", "video_stream", "speed", "model_export", "demo_page"]),
    (
        "Data sets",
        [
            *("video_dataset", "benchmark_datasets", "teacher_cache", "motion_videos"),
            *("video_preparation", "verification"),
        ],
    ),
    ("Model folders and pictures", ["model_folder", "checkpoint_conversion", "plots", "modulation_maps"]),
    (
        "Clips",
        [
            *("video_decoding", "clip_sampling", "augmentation", "video_processing_videofocalnet"),
            *("image_processing_videofocalnet", "video_limits", "worker_processes"),
        ],
    ),
    ("Network and classes", ["configuration_videofocalnet", "modeling_videofocalnet", "label_sets"]),
]

WIDTH, COLUMN, MARGIN, GAP, LINE = 1000, 400, 60, 60, 34


def imports() -> dict[str, set[str]]:
    """For each module of the package, those of the package that it imports."""
    modules = {path.stem: path for path in sorted((ROOT / "hf_dvflnet").glob("*.py")) if path.stem != "__init__"}
    found = {}
    for module, path in modules.items():
        nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        relative = [node for node in nodes if isinstance(node, ast.ImportFrom) and node.level == 1]
        names = {node.module for node in relative} | {alias.name for node in relative for alias in node.names}
        found[module] = names & set(modules)  # `from .plots import name`, and `from . import plots`
    return found


def arrows() -> list[tuple[int, int]]:
    """Which group imports from which other one, by their numbers."""
    place = {module: number for number, (_, modules) in enumerate(GROUPS) for module in modules}
    pairs = {(place[module], place[used]) for module, found in imports().items() for used in found}
    return sorted((first, second) for first, second in pairs if first != second)


def lines_of(modules: list[str]) -> list[list[tuple[str, float]]]:
    """The modules in lines that fit a column, each with the width of its box."""
    lines: list[list[tuple[str, float]]] = [[]]
    for module in modules:
        width = 7.6 * len(module) + 18
        if lines[-1] and sum(taken + 8 for _, taken in lines[-1]) + width > COLUMN - 28:
            lines.append([])
        lines[-1].append((module, width))
    return lines


def box(x: float, y: float, width: float, height: float, kind: str) -> str:
    return f'<rect class="{kind}" x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="6"/>'


def text(x: float, y: float, kind: str, words: str) -> str:
    return f'<text class="{kind}" x="{x:g}" y="{y:g}">{words}</text>'


def svg() -> str:
    parts, boxes = [], []
    top = 20.0
    parts += [
        box(MARGIN, top, WIDTH - 2 * MARGIN, 44, "outside"),
        text(MARGIN + 14, top + 27, "title", "From outside"),
    ]
    parts.append(text(MARGIN + 130, top + 27, "module", "dvflnet_cli.py, examples/, your own code"))
    top += 44 + GAP
    for row in range(0, len(GROUPS), 2):
        height = 40 + LINE * max(len(lines_of(modules)) for _, modules in GROUPS[row : row + 2])
        for column, (title, modules) in enumerate(GROUPS[row : row + 2]):
            left = MARGIN + column * (WIDTH - 2 * MARGIN - COLUMN)
            boxes.append((left, top, height))
            parts += [box(left, top, COLUMN, height, "group"), text(left + 14, top + 24, "title", title)]
            for number, line in enumerate(lines_of(modules)):
                x = left + 14.0
                for module, width in line:
                    parts.append(box(x, top + 36 + LINE * number, width, 26, "part"))
                    parts.append(text(x + 9, top + 54 + LINE * number, "module", module))
                    x += width + 8
        top += height + GAP
    height = top - GAP + 20

    middle = WIDTH / 2
    for column in (0, 1):  # everything is used from outside
        x = MARGIN + COLUMN / 2 + column * (WIDTH - 2 * MARGIN - COLUMN)
        parts.append(f'<path class="arrow" d="M{x:g} 64V{20 + 44 + GAP - 8:g}"/>')
    for first, second in arrows():
        (left, upper, tall), (other, lower, _) = boxes[first], boxes[second]
        bottom, side = upper + tall, 1 if left > middle else 0
        if lower == upper:  # neighbours
            inner = (left + COLUMN, other - 8) if other > left else (left, other + COLUMN + 8)
            path = f"M{inner[0]:g} {upper + tall / 2:g}H{inner[1]:g}"
        elif second // 2 - first // 2 == 1:  # the row below
            start = left + COLUMN / 2 + (0 if left == other else (COLUMN / 4 if other > left else -COLUMN / 4))
            end = other + COLUMN / 2 + (0 if left == other else (-COLUMN / 4 if other > left else COLUMN / 4))
            tip = lower - (8 if left == other else 2)  # a slanting head is hardly as high as it is long
            path = f"M{start:g} {bottom:g}L{end:g} {tip:g}"
        elif left == other:  # two rows down, around the box between
            outer = WIDTH - 24 if side else 24
            edge, tip = (left + COLUMN, left + COLUMN + 8) if side else (left, left - 8)
            path = f"M{edge:g} {upper + tall / 2:g}H{outer:g}V{lower + 24:g}H{tip:g}"
        else:  # two rows down, between the columns
            edge = left if side else left + COLUMN
            tip = other + COLUMN + 8 if side else other - 8
            path = f"M{edge:g} {upper + tall / 2:g}H{middle:g}V{lower + 24:g}H{tip:g}"
        parts.append(f'<path class="arrow" d="{path}"/>')
    body = "\n".join(parts)
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}" role="img">
<title>The modules of hf_dvflnet, and which group imports from which</title>
<style>
.page {{ fill: #ffffff }}
.group {{ fill: #eaf2f8; stroke: #0072b2; stroke-width: 1.5 }}
.outside {{ fill: #fdf3e1; stroke: #b36b00; stroke-width: 1.5 }}
.part {{ fill: #ffffff; stroke: #7f8c9a }}
.title {{ font: bold 15px sans-serif; fill: #1b1f24 }}
.module {{ font: 12.5px monospace; fill: #1b1f24 }}
.arrow {{ fill: none; stroke: #45525f; stroke-width: 1.5; marker-end: url(#tip) }}
</style>
<marker id="tip" viewBox="0 0 8 8" refX="1" refY="4" markerWidth="6" markerHeight="6" orient="auto">
<path d="M0 0L8 4L0 8z" fill="#45525f"/>
</marker>
<rect class="page" width="{WIDTH}" height="{height:g}" rx="10"/>
{body}
</svg>
"""


def main():
    PICTURE.parent.mkdir(exist_ok=True)
    PICTURE.write_text(svg(), encoding="utf-8")
    print(f"{PICTURE.relative_to(ROOT)} is written")


if __name__ == "__main__":
    main()
