"""
What matching features and modulators adds to a step of distillation from a teacher that runs along.

    python benchmarks/teacher_losses.py

Nano student, base teacher, clips of 8 x 224 x 224, random weights: forward and backward of `DistillationTrainer` with
the logits alone, with features, and with the modulators of all stages, in turn. The peak memory of a step, less what
was there before it, is that of a process of its own. Writes the figures as JSON.
"""

import argparse
import functools
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from machine import machine
from memory import added_memory, measured_memory
from timing import ratio, seconds, take_turns

from hf_dvflnet import (
    DistillationConfig,
    DistillationTrainer,
    VideoFocalNetConfig,
    VideoFocalNetForVideoClassification,
)


SIDES = {"logits": {}, "features": {"feature_weight": 1.0}, "modulators": {"modulator_weight": 1.0}}
GOALS = {"features": 1.02, "modulators": 1.05}
CLIPS = 1


@functools.cache
def teacher() -> VideoFocalNetForVideoClassification:
    torch.manual_seed(0)
    return VideoFocalNetForVideoClassification(VideoFocalNetConfig.from_preset("base", num_labels=51)).eval()


def step_of(side: str) -> Callable[[], object]:
    """A function that takes a step with one of `SIDES`."""
    torch.manual_seed(0)
    student = VideoFocalNetForVideoClassification(VideoFocalNetConfig.from_preset("nano", num_labels=51))
    args = DistillationConfig(
        output_dir=tempfile.mkdtemp(), report_to="none", use_cpu=True, max_steps=1, **SIDES[side]
    )
    trainer = DistillationTrainer(student, args, teacher_model=teacher())
    trainer.create_optimizer()
    trainer.current_gradient_accumulation_steps = 1  # what `train` sets
    clips = {"pixel_values": torch.randn(CLIPS, 8, 3, 224, 224), "labels": torch.zeros(CLIPS, dtype=torch.int64)}

    def step():
        student.zero_grad()
        trainer.training_step(student.train(), dict(clips))

    return step


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".json"))
    parser.add_argument("--memory", choices=SIDES, help="only print the peak memory of a step of this, in MB")
    arguments = parser.parse_args()
    if arguments.memory:
        print(added_memory(step_of(arguments.memory)))
        return
    times = take_turns({side: step_of(side) for side in SIDES}, arguments.rounds)
    found = {
        "machine": machine(),
        "rounds": arguments.rounds,
        "clips": CLIPS,
        "seconds": {side: seconds(times, side) for side in SIDES},
        "ratio": {side: ratio(times, side, "logits") for side in GOALS},
        "goals": GOALS,
        "added_memory_mb": {side: measured_memory(__file__, side) for side in SIDES},
    }
    arguments.output.write_text(json.dumps(found, indent=2) + "\n")
    for side, goal in GOALS.items():
        print(f"{side}: {found['ratio'][side]['median']:.3f} of a step from logits alone (goal: at most {goal})")


if __name__ == "__main__":
    main()
