"""
Which part of distillation does it: divergences, temperatures, weights, features and modulators, against no teacher.

    python benchmarks/distillation_ablation.py            # all stages; says first how long they will take
    python benchmarks/distillation_ablation.py --tables   # the tables and pictures from the runs so far

On the rendered motions, with the teacher in `examples/models` and a student of the size of `motions-student`. Students
of one seed start from the same weights and see the same clips in the same order.

- budget: the student alone, seeds 0 to 2, at several numbers of clips and passes, on validation clips. `BUDGET` is the
  one whose standard deviation over the seeds is below 5 points: where it is larger, some seeds have not left the
  plateau at which the network begins, and losses would be ranked by who leaves it first.
- first: every variant, seed 0, validation clips. It chooses and decides nothing: one seed cannot.
- second: `alone`, `forward_kl`, the paper's setting of it, and of each family the variant that was best in the first
  stage: forward KL with another temperature or alpha, another divergence, modulators, features; seeds 1 to 5, test
  clips.

What counts as a difference: in the second stage, the mean over the five seeds of a variant's accuracy less that of the
student with the same seed it is compared with, if its 95 % interval (Student's t with 4 degrees of freedom,
divided among the comparisons after Bonferroni) excludes 0. Each contender is compared with `alone`, and with
`forward_kl`. All else is reported as no difference that was seen, whatever the means.

Each run is written to `benchmarks/distillation_ablation.json` when it ends, and is not repeated: the same command
continues where it was stopped, and two of them with other `--seeds` or `--variants` can share the work.
"""

import argparse
import json
import math
import statistics
import time
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from accelerate import Accelerator
from distillation_ablation_figures import PAPER, contenders, write
from measuring import machine
from transformers import set_seed

from hf_dvflnet import (
    DistillationConfig,
    DistillationTrainer,
    VideoClassificationTrainer,
    VideoClipDataset,
    VideoFocalNetConfig,
    VideoFocalNetForVideoClassification,
    VideoFocalNetVideoProcessor,
    VideoTrainingArguments,
    cache_teacher,
    load_video_folder,
)
from hf_dvflnet.data.motion_videos import write_motion_videos
from hf_dvflnet.data.video_column import clip_name


RESULTS = Path(__file__).with_name("distillation_ablation.json")
TEACHER = Path(__file__).parents[1] / "examples" / "models" / "motions-teacher"
STUDENT: dict[str, Any] = {  # of `dvflnet create motions-student`
    **{"patch_size": 8, "image_size": 64, "embed_dim": 32, "depths": [1, 1, 2], "focal_levels": [1, 1, 1]},
    **{"focal_windows": [3, 3, 3], "drop_path_rate": 0.0},
}
CLIPS = {"train": 90, "validation": 15, "test": 30}  # of each of 16 motions
BUDGETS = ({"clips": 50, "epochs": 28}, {"clips": 30, "epochs": 47}, {"clips": 90, "epochs": 5})
BUDGET = BUDGETS[0]
SEEDS = {"budget": (0, 1, 2), "first": (0,), "second": (1, 2, 3, 4, 5)}

KL: dict[str, Any] = {"alpha": 0.5, "temperature": 4.0}
MODULATORS = {"modulator_weight": 1.0, "modulator_stages": [1, 2, 3]}  # the teacher has a fourth
DIVERGENCES: dict[str, dict[str, Any]] = {
    "forward_kl": {},
    "reverse_kl": {"divergence": "reverse_kl"},
    **{f"jensen_shannon {beta}": {"divergence": "jensen_shannon", "beta": beta} for beta in (0.1, 0.5, 0.9)},
}
VARIANTS: dict[str, dict[str, Any]] = {
    "alone": {},
    **{
        name + ("" if temperature == KL["temperature"] else f", T {temperature:g}"): KL
        | divergence
        | {"temperature": temperature}
        for name, divergence in DIVERGENCES.items()
        for temperature in (1.0, 4.0, 10.0)
    },
    "mse": KL | {"divergence": "mse"},  # which has no temperature
    PAPER: KL | {"alpha": 0.2, "temperature": 10.0},
    "forward_kl, alpha 0.2": KL | {"alpha": 0.2},
    "forward_kl, alpha 0.8": KL | {"alpha": 0.8},
    **{
        f"forward_kl, {kinds} modulators": KL | MODULATORS | {"modulator_kinds": kinds}
        for kinds in ("spatial", "temporal", "both")
    },
    "forward_kl, features": KL | {"feature_weight": 1.0},
    "features alone": {"alpha": 0.0, "feature_weight": 1.0},
    "modulators alone": {"alpha": 0.0} | MODULATORS,
    "published code's formula": KL,
    "forward_kl, teacher's head reset": KL,
}


class MotionClips(VideoClipDataset):
    """Clips that stay in memory, prepared: there is no augmentation, as a flip would change the class."""

    prepared: dict[str, dict[str, Any]] = {}  # of all runs

    def _read(self, row: dict[str, Any], generator: np.random.Generator) -> dict[str, Any]:
        name = clip_name(row)
        if name not in self.prepared:
            self.prepared[name] = super()._read(row, generator)
        return dict(self.prepared[name])


class PublishedCodeTrainer(DistillationTrainer):
    """With the formula of the published code, whose second factor is no logarithm, in the place of the divergence."""

    def compute_divergence(self, student_logits: torch.Tensor, teacher_logits: torch.Tensor) -> torch.Tensor:
        temperature = self.args.temperature
        student = (student_logits.float() / temperature).softmax(-1)
        log_teacher = (teacher_logits.float() / temperature).log_softmax(-1)
        return temperature**2 * (log_teacher.exp() * (log_teacher - student)).sum(-1).mean()


def teacher_of(variant: str) -> VideoFocalNetForVideoClassification:
    teacher = VideoFocalNetForVideoClassification.from_pretrained(TEACHER).eval()
    if "reset" in variant:
        set_seed(0)
        torch.nn.init.trunc_normal_(teacher.classifier.weight, std=teacher.config.initializer_range)
        torch.nn.init.zeros_(teacher.classifier.bias)
    return teacher


def student_of(seed: int, names: list[str]) -> VideoFocalNetForVideoClassification:
    set_seed(seed)
    labels = {"id2label": dict(enumerate(names)), "label2id": {name: index for index, name in enumerate(names)}}
    return VideoFocalNetForVideoClassification(VideoFocalNetConfig(**STUDENT, **labels))


def first_of_each_class(rows: datasets.Dataset, number: int) -> datasets.Dataset:
    labels = np.array(rows["label"])
    return rows.select(np.sort(np.concatenate([np.flatnonzero(labels == each)[:number] for each in set(labels)])))


def train_student(
    variant: str, seed: int, budget: dict[str, int], rows: datasets.DatasetDict, processor: Any, work: Path
) -> VideoClassificationTrainer:
    """Train a student; the same seed gives the same first weights and order of clips, whatever the variant."""
    train = first_of_each_class(rows["train"], budget["clips"])
    student = student_of(seed, train.features["label"].names)
    clips = MotionClips(train, processor, train=True)
    recipe: dict[str, Any] = {
        "output_dir": str(work / "student"),
        "num_train_epochs": budget["epochs"],
        "per_device_train_batch_size": 32,
        "per_device_eval_batch_size": 64,
        "learning_rate": 1e-3,
        "weight_decay": 0.05,
        "lr_scheduler_type": "cosine",
        "warmup_steps": 0.1,
        "max_grad_norm": 5.0,
        "seed": seed,
        "logging_steps": 100,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": not torch.cuda.is_available(),
    }
    trainer: VideoClassificationTrainer
    if variant == "alone":
        trainer = VideoClassificationTrainer(student, VideoTrainingArguments(**recipe), train_dataset=clips)
    elif "modulator_weight" in VARIANTS[variant]:
        args = DistillationConfig(**recipe, **VARIANTS[variant])
        trainer = DistillationTrainer(student, args, teacher_model=teacher_of(variant), train_dataset=clips)
    else:  # the clips are the same in each pass, and so are the teacher's answers
        cache = work / f"cache-{budget['clips']}{'-reset' if 'reset' in variant else ''}"
        cpu = Accelerator(cpu=not torch.cuda.is_available())
        options: dict[str, Any] = {"views": 1, "features": True, "dtype": "float32", "batch_size": 64}
        cache_teacher(teacher_of(variant), clips, cache, **options, accelerator=cpu)
        args = DistillationConfig(**recipe, **VARIANTS[variant], teacher_cache=str(cache))
        made = PublishedCodeTrainer if "published" in variant else DistillationTrainer
        trainer = made(student, args, train_dataset=clips)
    trainer.train()
    return trainer


def seconds_of_a_step() -> float:
    """Of the student alone, 32 clips, forward and backward."""
    student = student_of(0, [str(label) for label in range(16)])
    clips = torch.zeros(32, 8, 3, STUDENT["image_size"], STUDENT["image_size"])
    times = []
    for _ in range(4):
        began = time.perf_counter()
        student(clips, labels=torch.zeros(32, dtype=torch.int64)).loss.backward()
        times.append(time.perf_counter() - began)
    return statistics.median(times[1:])


def depends_on(variant: str, budget: dict[str, int]) -> dict[str, Any]:
    return {"budget": budget, **VARIANTS[variant]}


def stored() -> list[dict[str, Any]]:
    return json.loads(RESULTS.read_text()) if RESULTS.is_file() else []


def of_this_file(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows with the settings of this file, and those by which the budget was chosen."""
    return [
        row
        for row in rows
        if row["stage"] == "budget"
        or (row["variant"] in VARIANTS and row["settings"] == depends_on(row["variant"], BUDGET))
    ]


def runs_of(stage: str, variants: list[str]) -> list[tuple[str, int, dict[str, int]]]:
    """Variant, seed and budget of the runs of a stage, each seed with all variants before the next."""
    if stage == "budget":
        return [("alone", seed, budget) for budget in BUDGETS for seed in SEEDS[stage]]
    return [(variant, seed, BUDGET) for seed in SEEDS[stage] for variant in variants]


def missing(stage: str, variants: list[str], seeds: list[int]) -> list[tuple[str, int, dict[str, int]]]:
    """Of the runs of a stage with these variants and seeds, those that are not stored."""
    rows = stored()
    found = [(row["stage"], row["variant"], row["seed"], row["settings"]) for row in rows]
    all_variants = list(VARIANTS)
    if stage == "second":
        if left := missing("first", all_variants, list(SEEDS["first"])):
            raise SystemExit(f"the first stage, which chooses the contenders of the second, lacks {len(left)} runs")
        all_variants = contenders(of_this_file(rows))
    return [
        (variant, seed, budget)
        for variant, seed, budget in runs_of(stage, all_variants)
        if (stage, variant, seed, depends_on(variant, budget)) not in found and variant in variants and seed in seeds
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stages", nargs="*", choices=list(SEEDS), default=["first", "second"])
    parser.add_argument("--variants", nargs="*", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--seeds", nargs="*", type=int, default=list(range(6)))
    parser.add_argument("--tables", action="store_true", help="Only write the tables and pictures.")
    parser.add_argument("--work", type=Path, default=Path("runs/distillation_ablation"))
    arguments = parser.parse_args()

    for stage in [] if arguments.tables else arguments.stages:
        left = missing(stage, arguments.variants, arguments.seeds)
        if not left:
            continue
        steps = sum(budget["epochs"] * math.ceil(16 * budget["clips"] / 32) for _, _, budget in left)
        print(f"stage {stage}: {len(left)} runs, about {steps * seconds_of_a_step() / 3600:.1f} hours", flush=True)
        rows = load_video_folder(write_motion_videos(arguments.work / "motion_videos", clips_per_class=CLIPS))
        processor = VideoFocalNetVideoProcessor.from_pretrained(TEACHER)
        for number, (variant, seed, budget) in enumerate(left, start=1):
            began = time.perf_counter()
            trainer = train_student(variant, seed, budget, rows, processor, arguments.work)
            seconds = time.perf_counter() - began
            split = "test" if stage == "second" else "validation"
            metrics = trainer.evaluate(MotionClips(rows[split], processor))
            row = {
                **{"stage": stage, "variant": variant, "seed": seed, "split": split},
                "top1": round(metrics["eval_top1_accuracy"], 4),
                "seconds": round(seconds),
                "settings": depends_on(variant, budget),
                "machine": machine(),
            }
            RESULTS.write_text(json.dumps([*stored(), row]) + "\n")  # again, since another process may have added
            print(
                f"run {number} of {len(left)}: {variant}, seed {seed}: {row['top1']:.1%}, {seconds:.0f} s", flush=True
            )
    write(of_this_file(stored()))


if __name__ == "__main__":
    main()
