"""
Distillation with the teacher's cached answers against distillation that asks the teacher, whole runs side by side.

    python benchmarks/cached_distillation.py --teacher runs/seed0/teacher

Renders 90 clips per class, the first of those that the teacher saw. For each seed: fills the cache (a view for each
epoch), trains a student online and one from the cache, which start from the same weights and see the same clips, and
tests both. Writes accuracies and wall-clock times as JSON. A run that was stopped continues: what is finished is not
done again. A teacher of the students' size is trained by

    python examples/distill.py benchmarks/cached_distillation.yaml --output_dir runs/seed0 --train_teacher true \
        --rendered_train_clips 250 --teacher_epochs 15 --compare_alone false
"""

import argparse
import json
import math
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from machine import machine

from hf_dvflnet import write_motion_videos


DEMO = Path(__file__).parents[1] / "examples"


def run(words: list[str], log: Path) -> float:
    """Run a command with its output in a file; seconds that it took."""
    began = time.perf_counter()
    with open(log, "w") as output:
        process = subprocess.run(words, stdout=output, stderr=subprocess.STDOUT)  # noqa: S603
    if process.returncode:
        raise SystemExit(f"{' '.join(words)}\nfailed; its output is in {log}")
    return time.perf_counter() - began


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", required=True)
    parser.add_argument("--work_dir", type=Path, default=Path("runs/cached_distillation"))
    parser.add_argument("--output", type=Path, default=Path("benchmarks/cached_distillation.json"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=5)
    arguments = parser.parse_args()
    arguments.work_dir.mkdir(parents=True, exist_ok=True)
    clips = {"train": 90, "validation": 5, "test": 30}
    data_dir = str(write_motion_videos(arguments.work_dir / "motion_videos", clips_per_class=clips))
    threads = str(torch.get_num_threads())
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "1", "--num_machines", "1"]
    launch += ["--mixed_precision", "no", "--dynamo_backend", "no", "--num_cpu_threads_per_process", threads]

    rows = []
    for seed in range(arguments.seeds):
        finished = arguments.work_dir / f"seed{seed}.json"
        if not finished.is_file():
            row: dict[str, float] = {"seed": seed}
            cache = arguments.work_dir / f"cache{seed}"
            words = ["cache-teacher", arguments.teacher, str(cache), "--dataset", "folder"]
            words += ["--data-dir", data_dir, "--seed", str(seed), "--views", str(arguments.epochs)]
            words += ["--no-augment", "--batch-size", "64", "--num-workers", "0"]
            row["caching_seconds"] = run([*launch, "-m", "dvflnet_cli", *words], cache.with_suffix(".log"))
            for side in ("online", "cached"):
                folder = arguments.work_dir / f"{side}{seed}"
                words = ["--output_dir", str(folder), "--data_dir", data_dir, "--seed", str(seed)]
                words += ["--teacher_model_name_or_path", arguments.teacher, "--compare_alone", "false"]
                words += ["--num_train_epochs", str(arguments.epochs), "--resume_from_checkpoint", "last"]
                words += ["--teacher_cache", str(cache)] if side == "cached" else []
                script = [str(DEMO / "distill.py"), str(Path(__file__).with_name("cached_distillation.yaml"))]
                row[f"{side}_run_seconds"] = run([*launch, *script, *words], folder.with_suffix(".log"))
                state = json.loads(next(folder.glob("student/checkpoint-*/trainer_state.json")).read_text())
                steps = [entry["step_seconds"] for entry in state["log_history"] if "step_seconds" in entry]
                row[f"{side}_step_seconds"] = statistics.median(steps)
                row["steps"] = state["global_step"]
                results = json.loads((folder / "results.json").read_text())
                row[side] = results["results"]["student distilled"]["top1"]
                row["test_clips"], row["student_clips"] = (
                    results["test clips"],
                    results["training clips of the student"],
                )
            finished.write_text(json.dumps(row))
        rows.append(json.loads(finished.read_text()))
        print(json.dumps(rows[-1]))

    differences = [row["cached"] - row["online"] for row in rows]
    summary = {
        "machine": machine(),
        "seeds": rows,
        "difference": statistics.mean(differences),
        "standard_error": statistics.stdev(differences) / math.sqrt(len(differences)),
        "step_ratio": statistics.median(row["cached_step_seconds"] / row["online_step_seconds"] for row in rows),
    }
    arguments.output.write_text(json.dumps(summary, indent=2) + "\n")
    print(json.dumps(summary, indent=2))


if __name__ == "__main__":
    main()
