"""
Fill the tables of README, docs and `benchmarks/README.md` from the JSON files that the benchmarks write.

    python benchmarks/write_readme.py

A table stands between `<!-- table: NAME -->` and `<!-- end -->`, and `TABLES` has a function for each name.
"""

import json
import re
import statistics
import sys
from pathlib import Path


ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "hub_cards"))

import distillation_ablation_figures  # noqa: E402
import render  # noqa: E402
import ucf101 as experiment  # noqa: E402


PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "benchmarks" / "README.md"]
MARKED = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", flags=re.DOTALL)


def load(name: str) -> dict:
    return json.loads((ROOT / "benchmarks" / f"{name}.json").read_text(encoding="utf-8"))


def table(header: list[str], rows: list[list[str]]) -> str:
    lines = [f"| {' | '.join(line)} |" for line in (header, *rows)]
    return "\n".join([lines[0], "|---" * len(header) + "|", *lines[1:]])


def ratio(found: dict, digits: int = 2) -> str:
    low, high = found["quartiles"]
    return f"**{found['median']:.{digits}f}** ({low:.{digits}f} to {high:.{digits}f})"


def goal(value: float, limit: float, at_least: bool = False) -> str:
    met = value >= limit if at_least else value <= limit
    return f"{'>=' if at_least else '<='} {limit:g}: {'met' if met else '**missed**'}"


def demo() -> str:
    """Of every run of `make demo`, top-1 accuracy in percent."""
    runs = [run["results"] for run in load("demo")["runs"]]
    names = ("teacher", "student alone", "student distilled")
    top1 = {name: [100 * run[name]["top1"] for run in runs] for name in names}
    top1["gain of distillation, in points"] = [
        with_teacher - alone
        for alone, with_teacher in zip(top1["student alone"], top1["student distilled"], strict=True)
    ]
    rows = [
        [name, f"{statistics.median(values):.1f}", f"{min(values):.1f} to {max(values):.1f}"]
        for name, values in top1.items()
    ]
    return table(["", f"median of {len(runs)} runs", "range"], rows)


def forward() -> str:
    """Nano in each form."""
    found = load("forward")
    forms = {  # keys of the measured sides and of the goals
        "eager": ("eager float32", "eager float32"),
        "eager, prepared": ("eager prepared float32", "eager prepared float32"),
        "ONNX Runtime": ("onnx float32", "exported float32"),
        "OpenVINO": ("openvino float32", "exported float32"),
        "ExecuTorch": ("executorch float32", "exported float32"),
        "eager, bfloat16": ("eager bfloat16", "eager bfloat16"),
        "OpenVINO, bfloat16": ("openvino bfloat16", "exported bfloat16 or int8"),
        "ONNX Runtime, int8": ("onnx int8", "exported bfloat16 or int8"),
        "OpenVINO, int8": ("openvino int8", "exported bfloat16 or int8"),
    }
    rows = []
    for name, (key, limit) in forms.items():
        side = found["to_transcription"][key]
        verdict = goal(side["ratio"]["median"], found["goals"][limit])
        rows.append([name, f"{side['seconds']['median']:.3f} s", ratio(side["ratio"]), verdict])
    return table(["form", "seconds", "ratio", "goal"], rows)


def loading() -> str:
    """Ratios to torchcodec over the kinds of files, and how many are within the goal."""
    found = load("loading")
    ratios = {name: row["torchcodec"]["ratio"]["median"] for name, row in found["kinds"].items()}
    limit = found["goals"]["kinds"]
    missed = [f"{name} ({value:.2f})" for name, value in ratios.items() if value > limit]
    differ = [name for name, row in found["kinds"].items() if row["torchcodec"]["mean_pixel_difference"]]
    row = [str(len(ratios)), f"{statistics.median(ratios.values()):.2f}", f"{min(ratios.values()):.2f}"]
    return table(
        ["files", "median", "least", f"above the goal of {limit:g}", "other frames"],
        [[*row, ", ".join(missed), ", ".join(differ)]],
    )


def reader() -> str:
    found = load("loading")
    rows = []
    for name, row in found["1080p"].items():
        faster = 1 / row["transformers"]["ratio"]["median"]
        limit = found["goals"]["1080p"] if name.endswith(" 60") else None
        verdict = goal(faster, limit, at_least=True) if limit else ""
        rows.append([name, f"**{faster:.1f}**", verdict, ratio(row["torchcodec"]["ratio"])])
    return table(["", "times faster than transformers", "goal", "ratio to torchcodec"], rows)


def bulk() -> str:
    found = load("bulk")
    rows = []
    for side, rate in found["videos_per_second"].items():
        low, high = rate["quartiles"]
        start = found["seconds_to_start"][side]["median"]
        rows.append([side, f"{rate['median']:.1f} ({low:.1f} to {high:.1f})", f"{start:.0f} s"])
    return table(["", "videos per second", "start-up"], rows)


def sizes() -> str:
    """Top-1 accuracy in percent of the head of an image network, by clips a class and classes."""
    found: dict[tuple, dict[int, list[float]]] = {}
    for run in load("small_data")["sizes"]:
        of_size = found.setdefault((run["data"].upper(), run["classes"]), {})
        of_size.setdefault(run["clips"], []).append(100 * run["test"]["accuracy"])
    numbers = sorted({clips for of_size in found.values() for clips in of_size})
    rows = [
        [f"{data}, {classes} classes", *(f"{statistics.mean(one[n]):.0f}" if n in one else "" for n in numbers)]
        for (data, classes), one in found.items()
    ]
    return table(["", *(f"{number} clips a class" for number in numbers)], rows)


def ablation() -> str:
    rows = json.loads((ROOT / "benchmarks" / "distillation_ablation.json").read_text(encoding="utf-8"))
    return distillation_ablation_figures.second_table(rows)


def cards() -> dict:
    return json.loads((ROOT / "hub_cards" / "results.json").read_text(encoding="utf-8"))


def data_check() -> str:
    """Shares of the injected copies that are found, in percent, and how many pairs of different clips are."""
    rows = load("data_check")["copies"]
    kinds = [name for name in rows[0] if name != "cosine" and not name.startswith("pairs")]
    return table(
        ["cosine at least", *(f"{kind}, %" for kind in kinds), "pairs of two recordings"],
        [
            [f"{row['cosine']:g}", *(f"{100 * row[kind]:.0f}" for kind in kinds), str(row["pairs of two"])]
            for row in rows
        ],
    )


def calibration() -> str:
    """Calibration error before and after, of the head of UCF101 with the median error before, and of the student."""
    found = load("calibration")
    heads = sorted(found["UCF101"]["heads"], key=lambda row: row["before"]["ece"])
    rows = []
    for name, row in {"UCF101, 16 classes": heads[len(heads) // 2], "rendered motions": found["motions"]}.items():
        cells = [
            f"{figure:.3f} ({low:.3f} to {high:.3f})"
            for figure, (low, high) in (
                *((row[side]["ece"], row[side]["interval"]) for side in ("before", "after")),
                (row["below half"][0], row["below half"][1:]),
            )
        ]
        fit, held_out = row["clips"]
        top1 = f"{row['before']['top1']:.1%}, {row['after']['top1']:.1%}"
        rows.append([name, f"{fit}, {held_out}", f"{row['temperature']:.2f}", *cells, top1])
    header = ["", "clips fitted to, measured on", "temperature", "ECE before", "ECE after"]
    header += ["half of before, minus after", "top-1 before, after"]
    return table(header, rows)


def unknown() -> str:
    rows = []
    for name, seeds in load("calibration")["UCF101"]["unknown"].items():
        cells = ([row[key] for row in seeds] for key in ("auroc", "kept", "false_alarms"))
        rows.append(
            [
                name,
                *(f"{statistics.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})" for values in cells),
            ]
        )
    return table(["score", "AUROC", "known clips answered", "unknown clips answered"], rows)


def joined() -> str:
    found = load("calibration")["motions"]["events"]
    rows = [
        [name, str(found[key]["false events"]), f"{found[key]['events found']} of {found[key]['events there']}"]
        for name, key in {"no threshold": "without", f"threshold {found['threshold']:.2f}": "with"}.items()
    ]
    return table(["12 files of 8 motions, half of them unknown", "false events", "known motions found"], rows)


def suggest() -> str:
    """Accuracy after each choice of clips to label, in percent, mean of five seeds."""
    found = load("suggest")
    return table(
        ["labelled clips", *map(str, found["labelled"])],
        [
            [way, *(f"{100 * statistics.mean(values):.1f}" for values in zip(*curves, strict=True))]
            for way, curves in found["top1"].items()
        ],
    )


def ucf101() -> str:
    """The experiment's runs so far, in percent."""
    found = load("ucf101")
    names = {
        "teacher": "image network's frames, the teacher",
        "alone": "student alone",
        "forward_kl": "forward KL",
        "forward_kl, paper": "forward KL, alpha 0.2, T 10 (the paper's)",
        "reverse_kl": "reverse KL",
        "features": "features",
        "both": "forward KL and features",
        "both, causal": "forward KL and features, causal",
    }
    rows = []
    for line in experiment.table(found["test"], found["clips"]["test"]).splitlines()[2:]:
        split, size, _, arm, seeds, *figures = (cell.strip() for cell in line.strip("|").split("|"))
        rows.append([split, size, names[arm], str(len(seeds.split(","))), *figures])
    return table(["split", "pixels", "network", "seeds", "1 view", "gain", "12 views", "gain"], rows)


def first() -> str:
    """Accuracy on split 1's test clips with 12 views, means of the seeds."""
    rows = [row for row in load("ucf101")["test"] if row["fold"] == 1 and row["size"] == 64]
    names = {
        "teacher": "image network, the teacher: EfficientNet-Lite0 with a new head, frames of 160 pixels",
        "both": "small network, distilled: Video-FocalNet of 0.7 M parameters, 64 pixels",
        "alone": "small network, alone",
    }
    lines = []
    for arm, name in names.items():
        runs = [row for row in rows if row["arm"] == arm]
        top1 = statistics.mean(100 * row["12 views"]["top1"] for row in runs)
        lines.append([name, f"{top1:.1f}", str(len(runs))])
    return table(["UCF101, 16 of its 101 classes, split 1", "test clips right, %", "seeds"], lines)


TABLES = {
    "first": first,
    "ucf101": ucf101,
    "calibration": calibration,
    "joined": joined,
    "unknown": unknown,
    "demo": demo,
    "forward": forward,
    "loading": loading,
    "reader": reader,
    "bulk": bulk,
    "sizes": sizes,
    "ablation": ablation,
    "data_check": data_check,
    "suggest": suggest,
    "published": lambda: render.table(cards()),
    "real_video": lambda: render.real_video_table(cards()),
}


def filled(text: str) -> str:
    """A page with its tables written anew."""
    return MARKED.sub(lambda match: f"{match[1]}\n{TABLES[match[2]]()}\n\n{match[3]}", text)


def main():
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        if filled(text) != text:
            page.write_text(filled(text), encoding="utf-8")
            print(f"{page.relative_to(ROOT)}: tables written")


if __name__ == "__main__":
    main()
