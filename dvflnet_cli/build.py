"""The command build: from a folder of videos to a small classifier that is measured, each step a command of its own."""

import json
import shlex
import shutil
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from .common import REQUIRED, argument, option, say


Sides = tuple[int, ...]
IMAGE_SIDES: Sides = (224, 160, 112)  # of frames for the image network, from the most accurate to the fastest
STUDENT_SIDES: Sides = (112, 64)
SHORT_SIDE = 192  # of prepared clips: what a crop of 160 pixels is taken from, and enough for the other sizes
VIEWS = 8  # of each training clip that the teacher answers to
# chosen by benchmarks/ucf101.py: forward KL and features, both from answers to stored views
DISTILLATION = "--alpha 0.5 --temperature 4 --feature_weight 4 --mixup_alpha 0.4 --label_smoothing_factor 0.1".split()
RECIPE = "--learning_rate 1e-3 --weight_decay 0.05 --lr_scheduler_type cosine --warmup_steps 0.1".split()


@dataclass
class Build:
    """
    Build a small classifier from a folder of videos, and measure it: one command for check, split, training and export.

    An image network with a new head learns your classes, and teaches a small Video-FocalNet. Of the two, and of the
    same small network trained alone, the one that is most accurate on validation clips and fits the budget is exported
    and measured on the test clips. OUTPUT has the data, each step's folder, and a report. The same command continues
    where it was stopped.
    """

    source: Path = argument("Folder or list of videos, as for `dvflnet split`.")
    output: Path = option(REQUIRED, "Folder for everything that is made.")
    budget: str = option("100 ms", "Time of a clip on this machine (`50 ms`), or size of the weights (`5 MB`).")
    image_model: str = option("efficientnet-lite0", "Image network: folder or Hub id.")
    epochs: int = option(100, "Epochs of the small network.", minimum=1)
    format: Literal["onnx", "openvino"] = option("onnx", "Format of the export.")
    ignore_findings: bool = option(False, "Go on although `check` found unreadable files or leaks.")
    seed: int = option(0, "Random seed of the division and of the trainings.")

    def run(self) -> int:
        budget = parse_budget(self.budget)
        self.output.mkdir(parents=True, exist_ok=True)
        data, clips = self.output / "data", self.output / "clips"
        steps = Steps(self.output)
        steps.do("split", f"split {q(self.source)} {q(data)} --seed {self.seed}", done=data)
        code = steps.do(
            "check", f"check {q(data)} --output {q(self.output / 'check')} --image_model {self.image_model}"
        )
        if code and not self.ignore_findings:
            say(
                "dvflnet build: stopped for what check found; see check/report.html, or add --ignore_findings",
                err=True,
            )
            return 1
        steps.do("prepare", f"prepare {q(data)} {q(clips)} --short_side {SHORT_SIDE}", done=clips / "manifest.jsonl")

        plan = self.plan(clips, budget)
        teacher, answers, pair = (self.output / name for name in ("teacher", "answers", "distilled"))
        common = f"--data_dir {q(clips)} --seed {self.seed} --data_seed {self.seed}"
        side = plan["image_side"]
        steps.do(
            "teacher",
            f"train {common} --output_dir {q(teacher)} --image_model {self.image_model} --image_size {side} "
            f"--short_side {side * 8 // 7}",
            done=teacher / "results.json",
        )
        steps.do(
            "answers",
            f"cache-teacher {q(teacher)} {q(answers)} --dataset folder --data_dir {q(clips)} --views {VIEWS} --features "
            f"--seed {self.seed}",
            done=answers / "done",
        )
        small = plan["student_side"]
        steps.do(
            "student, with the teacher and alone",
            f"distill {common} --output_dir {q(pair)} --teacher_model_name_or_path {q(teacher)} --teacher_cache "
            f"{q(answers)} --student_model_name_or_path {q(self.start())} --image_size {small} --short_side "
            f"{small * 8 // 7} --augment --num_train_epochs {self.epochs} --per_device_train_batch_size 16 "
            + shlex.join(DISTILLATION + RECIPE),
            done=pair / "results.json",
        )
        return self.finish(steps, plan, budget)
