"""
What the teacher's answers add: students trained alone and distilled, over several seeds.

    python benchmarks/distillation_gain.py runs/seed0 runs/seed1 runs/seed2

reads the `results.json` of runs of `examples/distill.py` with the same teacher and one seed each, for example

    accelerate launch examples/distill.py benchmarks/distillation_gain.yaml --output_dir runs/seed0 --seed 0 \
        --rendered_train_clips 250 --teacher_epochs 15 --num_train_epochs 5
    accelerate launch examples/distill.py benchmarks/distillation_gain.yaml --output_dir runs/seed1 --seed 1 \
        --num_train_epochs 5 --data_dir runs/seed0/motion_videos --teacher_model_name_or_path runs/seed0/teacher

Within a seed both students start from the same weights and see the same clips in the same order at the same learning
rate, so the gain is taken pair by pair. Writes the figures as JSON, prints a table, and fails if the mean gain does
not exceed twice its standard error.
"""

import argparse
import json
import math
import statistics
from pathlib import Path
from typing import Any


def summarise(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Figures of several runs: one row a seed, and the mean gain with its standard error."""
    rows = [
        {
            "seed": run["seed"],
            "alone": run["results"]["student alone"]["top1"],
            "distilled": run["results"]["student distilled"]["top1"],
        }
        for run in runs
    ]
    gains = [row["distilled"] - row["alone"] for row in rows]
    teachers = {run["results"]["teacher"]["top1"] for run in runs}
    if len(teachers) > 1:
        raise SystemExit(f"the runs have different teachers, of top-1 {sorted(teachers)}")
    return {
        "test_clips": runs[0]["test clips"],
        "student_clips": runs[0]["training clips of the student"],
        "teacher": teachers.pop(),
        "seeds": rows,
        "gain": statistics.mean(gains),
        "standard_error": statistics.stdev(gains) / math.sqrt(len(gains)),
        "commands": [" ".join(run["arguments"]) for run in runs],
    }


def table(summary: dict[str, Any]) -> str:
    """The figures as Markdown, as the README shows them."""
    lines = ["| seed | student alone | distilled | gain |", "|---|---|---|---|"]
    for row in summary["seeds"]:
        gain = row["distilled"] - row["alone"]
        lines.append(f"| {row['seed']} | {row['alone']:.1%} | {row['distilled']:.1%} | {100 * gain:+.1f} |")
    mean = {name: statistics.mean(row[name] for row in summary["seeds"]) for name in ("alone", "distilled")}
    gain = f"**{100 * summary['gain']:+.1f} +- {100 * summary['standard_error']:.1f}**"
    return "\n".join([*lines, f"| mean | {mean['alone']:.1%} | {mean['distilled']:.1%} | {gain} |"])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/distillation_gain.json"))
    arguments = parser.parse_args()
    summary = summarise([json.loads((run / "results.json").read_text()) for run in arguments.runs])
    arguments.output.write_text(json.dumps(summary, indent=2) + "\n")
    print(f"Teacher: {summary['teacher']:.1%} of {summary['test_clips']} test clips\n\n{table(summary)}")
    assert summary["gain"] > 2 * summary["standard_error"], "the gain does not show"


if __name__ == "__main__":
    main()
