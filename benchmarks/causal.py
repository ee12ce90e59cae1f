"""
What a causal student costs in accuracy: against a student of whole windows, after each number of frames.

    python benchmarks/causal.py            # all runs, some 40 CPU minutes
    python benchmarks/causal.py --picture  # the table and the picture from the runs so far

On the rendered motions, with teacher, student and recipe of `distillation_ablation.py` (`forward_kl`, clips of 8
frames). The arms are the window student, the causal student from scratch, and the causal student that starts from the
trained window student of its seed, and so has twice the passes. The test clips have 128 frames. The window student
sees the last 8 frames, or all if there are fewer; the causal student sees all frames so far.

Each run is written to `benchmarks/causal.json` when it ends, and is not repeated.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import torch
from distillation_ablation import BUDGET, STUDENT, TEACHER, student_of, train_student
from distillation_ablation_figures import difference
from matplotlib.figure import Figure
from measuring import continued

from hf_dvflnet import (
    VideoFocalNetForVideoClassification,
    VideoFocalNetVideoProcessor,
    load_video_folder,
    read_video,
)
from hf_dvflnet.data.motion_videos import write_motion_videos
from hf_dvflnet.plots.charts import styled


RESULTS = Path(__file__).with_name("causal.json")
PICTURE = Path(__file__).parents[1] / "docs" / "images" / "causal.png"
ARMS = ("window", "causal", "causal from window")
SEEDS = (0, 1, 2, 3, 4)
WINDOW, LONGEST = 8, 128
COUNTS = (1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 24, 32, 48, 64, 96, 128)  # frames after which the answers are compared


def start_of(arm: str, seed: int, work: Path, names: list[str]) -> VideoFocalNetForVideoClassification:
    if arm == "causal from window":
        return VideoFocalNetForVideoClassification.from_pretrained(work / f"window-{seed}", causal=True)
    student = student_of(seed, names)
    if arm == "window":
        return student
    config = type(student.config)(**{**student.config.to_dict(), "causal": True})
    causal = VideoFocalNetForVideoClassification(config)
    causal.load_state_dict(student.state_dict())  # the same first weights
    return causal


@torch.inference_mode()
def accuracies(model: VideoFocalNetForVideoClassification, clips: torch.Tensor, labels: torch.Tensor) -> list[float]:
    """Share of right answers after each of `COUNTS` frames."""
    right = torch.zeros(len(COUNTS))
    for clip, label in zip(clips.split(8), labels.split(8), strict=True):
        if model.config.causal:
            frames = model(clip).frame_logits
            logits = [frames[:, count - 1] for count in COUNTS]
        else:
            logits = [model(clip[:, max(0, count - WINDOW) : count]).logits for count in COUNTS]
        right += torch.stack([(each.argmax(-1) == label).sum() for each in logits])
    return [round(float(share), 4) for share in right / len(clips)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--picture", action="store_true", help="Only print the table and draw the picture.")
    parser.add_argument("--work", type=Path, default=Path("runs/causal"))
    arguments = parser.parse_args()

    found = json.loads(RESULTS.read_text()) if arguments.picture else continued(RESULTS)
    found |= {"settings": {"student": STUDENT, "budget": BUDGET, "counts": COUNTS}, "runs": found.get("runs", [])}
    done = {(run["arm"], run["seed"]) for run in found["runs"]}
    left = [(arm, seed) for seed in SEEDS for arm in ARMS if (arm, seed) not in done]
    if left and not arguments.picture:
        short = write_motion_videos(arguments.work / "motion_videos", clips_per_class={"train": BUDGET["clips"]})
        rows = load_video_folder(short)
        # another seed, or the test clips would begin as the training clips
        options = {"clips_per_class": {"train": 1, "test": 20}, "num_frames": LONGEST, "seed": 1}
        test = load_video_folder(write_motion_videos(arguments.work / "long", **options))["test"]
        processor = VideoFocalNetVideoProcessor.from_pretrained(TEACHER)
        clips = torch.cat(
            [
                processor(read_video(row["video"]["path"])[0], do_sample_frames=False, return_tensors="pt")[
                    "pixel_values"
                ]
                for row in test
            ]
        )
        labels = torch.tensor(test["label"])
        for arm, seed in left:
            began = time.process_time()
            student = start_of(arm, seed, arguments.work, rows["train"].features["label"].names)
            trainer = train_student("forward_kl", seed, BUDGET, rows, processor, arguments.work, student)
            trainer.model.eval().save_pretrained(arguments.work / f"{arm.replace(' ', '-')}-{seed}")
            top1 = accuracies(trainer.model, clips, labels)
            found["runs"].append(
                {"arm": arm, "seed": seed, "top1": top1, "cpu_seconds": round(time.process_time() - began)}
            )
            RESULTS.write_text(json.dumps(found) + "\n")
            print(arm, seed, dict(zip(COUNTS, top1, strict=True)), flush=True)
    report(found["runs"])


@styled
def report(runs: list[dict]):
    """Print the accuracies and the differences to the window student, and draw them by number of frames."""
    by_arm = {arm: {run["seed"]: run["top1"] for run in runs if run["arm"] == arm} for arm in ARMS}
    figure = Figure(figsize=(7, 3.6), layout="constrained")
    axes = figure.add_subplot()
    for arm, seeds in by_arm.items():
        means = []
        for place, count in enumerate(COUNTS):
            values = {seed: 100 * top1[place] for seed, top1 in seeds.items()}
            means.append(statistics.mean(values.values()))
            if count in (WINDOW, 4 * WINDOW, 16 * WINDOW):
                windows = {seed: 100 * top1[place] for seed, top1 in by_arm["window"].items()}
                mean, low, high = difference(values, windows, 1)
                print(f"{arm}, {count} frames: {means[-1]:.1f}; {mean:+.1f} ({low:+.1f} to {high:+.1f})")
        (line,) = axes.plot(COUNTS, means, "o-", markersize=3, label=arm)
        for top1 in seeds.values():
            axes.plot(COUNTS, [100 * share for share in top1], color=line.get_color(), alpha=0.2, linewidth=0.8)
    axes.axvline(WINDOW, color="#BBBBBB", zorder=0)
    axes.set_xscale("log", base=2)
    axes.set_xticks([1, 2, 4, 8, 16, 32, 64, 128], ["1", "2", "4", "8", "16", "32", "64", "128"])
    axes.set_xlabel(f"frames so far (trained on clips of {WINDOW})")
    axes.set_ylabel("test clips right (%)")
    axes.legend()
    figure.savefig(PICTURE)


if __name__ == "__main__":
    main()
