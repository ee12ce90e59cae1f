"""
Few clips of one's own: what a head on an image network and a small student reach, and with which settings.

    python benchmarks/small_data.py JHMDB UCF101 [--parts NAME ...]

JHMDB is its release with `groups.csv` (`clip,group`: class/file, class/title of the source video), UCF101 a folder
with `UCF-101/<class>/<video>`, of which sixteen classes are read. Each clip is decoded once (`small_data_features.py`,
half an hour of one core). Each run is written to `benchmarks/small_data.json` when it ends and is not repeated: the
same command continues where it was stopped. The parts:

- `features`: what the others read;
- `heads`: heads of the package on the test clips of split 1;
- `choose_draws`, `draws`: ten classes, 60 / 10 / 20 clips of 6 / 1 / 2 groups a class, for a head;
- `choose_students`, `students`: the same for a student of 0.7 M parameters and 64 x 64 pixels;
- `sizes`: how many clips, how many classes: what to expect of a head.

The JSON also has `choose_heads` and `motions`, and in `heads` the head "temporal": temporal focal modulation, which
was worse than pooling and is not in the package (FINDINGS.md); its code is in the history, up to commit `1c71491`.

What is chosen for the draws is chosen on groups 14 to 25 of UCF101; the draws are of groups 1 to 13, and of JHMDB.
"""

import argparse
import functools
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import machine
from small_data_features import FRAMES, PACES, jhmdb, kept_at, ucf101, write_all
from torch import nn
from torch.nn import functional as F

from hf_dvflnet import (
    ClipAugmentation,
    VideoClassificationTrainer,
    VideoFocalNetConfig,
    VideoFocalNetForVideoClassification,
    VideoFocalNetModel,
    VideoTrainingArguments,
)
from hf_dvflnet.clip_sampling import evaluation_indices, paced_indices
from hf_dvflnet.data.augmentation import training_indices
from hf_dvflnet.hub.model_folder import MOTIONS_STUDENT


RESULTS = Path(__file__).with_name("small_data.json")


# Data


@functools.cache
def kept(file: Path, array: str, views: int | None) -> torch.Tensor:
    return torch.from_numpy(np.load(file)[array][:views])


def load(cache: Path, name: str, clips: list[dict], array: str = "features", views: int | None = None) -> torch.Tensor:
    """An array of each clip, stacked, float16; of `features`, (clips, views, frames, 1280)."""
    return torch.stack([kept(kept_at(cache, name, clip), array, views) for clip in clips])


def labels_of(clips: list[dict]) -> torch.Tensor:
    classes = sorted({clip["class"] for clip in clips})
    return torch.tensor([classes.index(clip["class"]) for clip in clips])


def draw(clips: list[dict], seed: int, classes: int = 10) -> dict[str, list[dict]]:
    """
    Ten classes, of each 6, 1 and 2 groups for training, validation and test, and one clip of each group.

    A group is on one side only, in all classes. `others` are all clips of these classes whose groups are in neither
    training nor validation: more test clips than the 20, for figures of a smaller error.
    """
    rng = np.random.default_rng(seed)
    groups: dict[str, dict[str, list[dict]]] = {}
    for clip in clips:
        groups.setdefault(clip["class"], {}).setdefault(clip["group"], []).append(clip)
    wide = sorted(name for name in groups if len(groups[name]) >= 10)
    chosen = sorted(rng.choice(wide, classes, replace=False))
    side_of: dict[str, str] = {}
    sides: dict[str, list[dict]] = {"train": [], "validation": [], "test": []}
    for name in chosen:
        free = [str(title) for title in rng.permutation(sorted(groups[name]))]
        for side, wanted in (("train", 6), ("validation", 1), ("test", 2)):
            fitting = [title for title in free if side_of.get(title, side) == side][:wanted]
            if len(fitting) < wanted:
                raise ValueError(
                    f"seed {seed}, {name}: {len(fitting)} groups are left for {side}, {wanted} are wanted"
                )
            for title in fitting:
                free.remove(title)
                side_of[title] = side
                of_group = groups[name][title]
                sides[side].append(of_group[rng.integers(len(of_group))])
    seen = {title for title, side in side_of.items() if side != "test"}
    sides["others"] = [clip for clip in clips if clip["class"] in chosen and clip["group"] not in seen]
    return sides


# Heads over the features of frames


class PooledHead(nn.Module):
    """The package's head: mean and mean absolute difference of the frames. With `trend`, also their linear trend."""

    def __init__(self, features: int, classes: int, trend: bool = False):
        super().__init__()
        self.trend = trend
        self.classifier = nn.Linear((2 + trend) * features, classes)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        pooled = [frames.mean(1), frames.diff(dim=1).abs().mean(1)]
        if self.trend:
            time = torch.linspace(-1, 1, frames.shape[1])
            pooled.append((frames * time[:, None]).mean(1) * 2)
        return self.classifier(F.dropout(torch.cat(pooled, -1), 0.5, self.training))


def fit(head: nn.Module, features: torch.Tensor, labels: torch.Tensor, *, seed: int, steps: int = 400) -> nn.Module:
    """Train a head on features (clips, views, frames, features): AdamW, cosine, a random view of each clip."""
    torch.manual_seed(seed)
    batch_size, learning_rate = 64, 3e-3
    weights = [[], []]
    for weight in head.parameters():
        weights[weight.ndim > 1].append(weight)
    groups = [{"params": weights[1], "weight_decay": 0.01}, {"params": weights[0], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, steps, pct_start=0.1)
    order = torch.empty(0, dtype=torch.long)
    head.train()
    for _ in range(steps):
        while len(order) < min(batch_size, len(labels)):
            order = torch.cat([order, torch.randperm(len(labels))])
        batch, order = order[:batch_size], order[batch_size:]
        shown = features[batch, torch.randint(features.shape[1], batch.shape)].float()
        loss = F.cross_entropy(head(shown), labels[batch], label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(head.parameters(), 5.0)
        optimizer.step()
        schedule.step()
    return head.eval().requires_grad_(False)


def answers(
    kind: dict[str, Any], train: torch.Tensor, labels: torch.Tensor, test: torch.Tensor, classes: int, seed: int
) -> torch.Tensor:
    """
    Train a head of a kind on (clips, views, frames, features), and classify clips of the same shape, one view.

    Returns:
        Scores, (clips, classes).
    """
    torch.manual_seed(seed)
    head = PooledHead(train.shape[-1], classes, kind.get("trend", False))
    head = fit(head, train[:, : kind["views"]], labels, seed=seed, steps=kind.get("steps", 400))
    with torch.inference_mode():
        return torch.cat([head(part.float()) for part in test[:, 0].split(256)])


# Results


class Results:
    """What was measured; a run that is stored is not repeated."""

    def __init__(self):
        self.rows = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}

    def run(self, part: str, key: dict[str, Any], measure) -> dict[str, Any]:
        rows = self.rows.setdefault(part, [])
        for row in rows:
            if {name: row.get(name) for name in key} == key:
                return row
        began = time.process_time()
        row = {**key, **measure(), "cpu_seconds": round(time.process_time() - began, 1)}
        rows.append(row)
        self.rows["machine"] = machine()
        RESULTS.write_text(json.dumps(self.rows) + "\n")
        print(part, {name: value for name, value in row.items() if name != "right"}, flush=True)
        return row


def right(found: torch.Tensor, labels: torch.Tensor) -> dict[str, Any]:
    is_right = found.argmax(-1) == labels
    return {"accuracy": round(float(is_right.float().mean()), 4), "right": is_right.int().tolist()}


# Parts


def heads(results: Results, cache: Path, of: dict[str, list[dict]]):
    """Heads on JHMDB's and UCF101's test clips of split 1, three seeds."""
    for name in ("jhmdb", "ucf101"):
        train, test = sides(of[name])
        labels, truth = labels_of(train), labels_of(test)
        classes = int(labels.max()) + 1
        features = [load(cache, name, train, views=4), load(cache, name, test, views=1)]
        for head, kind in HEADS.items():
            for seed in range(3):
                given = (kind, features[0], labels, features[1], classes, seed)
                key = {"data": name, "head": head, "seed": seed, "settings": kind}
                results.run("heads", key, lambda given=given, truth=truth: right(answers(*given), truth))


def sides(clips: list[dict]) -> tuple[list[dict], list[dict]]:
    """Training and test clips of split 1; of UCF101, the first clip of each group."""
    clips = [clip for clip in clips if clip.get("place", 0) == 0]
    return [clip for clip in clips if not clip["test"]], [clip for clip in clips if clip["test"]]


def classified(cache: Path, name: str, drawn: dict[str, list[dict]], kind: dict[str, Any], seed: int = 0) -> dict:
    """Accuracy on each side of a draw of a pooled head, of a pace where the kind names one."""

    def of(clips: list[dict], views: int) -> torch.Tensor:
        if "fps" not in kind:
            return load(cache, name, clips, views=views)
        return load(cache, name, clips, "paced")[:, PACES.index(kind["fps"]), None]

    train = drawn["train"]
    parts = {side: drawn[side] for side in ("validation", "test", "others") if side in drawn}
    clips = [clip for part in parts.values() for clip in part]
    given = (kind, of(train, kind["views"]), labels_of(train), of(clips, 1))
    classes = sorted({clip["class"] for clip in train})
    found = answers(*given, len(classes), seed)
    truth = torch.tensor([classes.index(clip["class"]) for clip in clips])
    is_right = (found.argmax(-1) == truth).float().split([len(part) for part in parts.values()])
    return {
        side: {"clips": len(part), "accuracy": round(float(part.mean()), 4)}
        for side, part in zip(parts, is_right, strict=True)
    }


def for_choosing(clips: list[dict], choose: bool) -> list[dict]:
    """UCF101's clips of groups 14 to 25, to choose with, or of the others; the first of each group."""
    return [clip for clip in clips if clip["place"] == 0 and (int(clip["group"][-2:]) >= 14) == choose]


def choose_draws(results: Results, cache: Path, of: dict[str, list[dict]]):
    """Settings of the pooled head, on five draws of UCF101's groups 14 to 25."""
    clips = for_choosing(of["ucf101"], True)
    for name, kind in DRAWN.items():
        for seed in range(5):
            key = {"head": name, "draw": seed, "settings": kind}
            results.run("choose_draws", key, lambda k=kind, s=seed: classified(cache, "ucf101", draw(clips, s), k))


def draws(results: Results, cache: Path, of: dict[str, list[dict]]):
    """The pooled head on five draws of each data set, as the package trains it now, and as chosen."""
    for name in ("ucf101", "jhmdb"):
        clips = for_choosing(of[name], False) if name == "ucf101" else of[name]
        for head, kind in (("before", ONE), ("after", AFTER)):
            for seed in range(5):
                key = {"data": name, "head": head, "draw": seed, "settings": kind}
                results.run("draws", key, lambda n=name, c=clips, k=kind, s=seed: classified(cache, n, draw(c, s), k))


def sizes(results: Results, cache: Path, of: dict[str, list[dict]]):
    """Clips a class and classes: the test clips of split 1, three draws of classes and clips, one view a clip."""
    for name, numbers in (("ucf101", (5, 10, 16)), ("jhmdb", (5, 10, 21))):
        clips = [clip for clip in of[name] if clip.get("place", 0) == 0]
        every = sorted({clip["class"] for clip in clips})
        for classes in numbers:
            for count in (2, 6, 12, 18 if name == "ucf101" else 24):
                for seed in range(3):
                    rng = np.random.default_rng([seed, classes])
                    chosen = set(rng.choice(every, classes, replace=False))
                    train = [clip for clip in clips if clip["class"] in chosen and not clip["test"]]
                    train = spread_over_groups([train[number] for number in rng.permutation(len(train))], count)
                    test = [clip for clip in clips if clip["class"] in chosen and clip["test"]]
                    drawn = {"train": train, "test": test}
                    key = {"data": name, "classes": classes, "clips": count, "draw": seed}
                    kind = AFTER
                    results.run("sizes", key, lambda n=name, d=drawn, k=kind: classified(cache, n, d, k))


def spread_over_groups(clips: list[dict], count: int) -> list[dict]:
    """As many clips of each class, of as many groups as possible."""
    place, ordered = {}, []
    for clip in clips:
        place[clip["group"]] = place.get(clip["group"], 0) + 1
        ordered.append((place[clip["group"]], len(ordered), clip))
    taken: dict[str, list[dict]] = {}
    for *_, clip in sorted(ordered, key=lambda entry: entry[:2]):
        taken.setdefault(clip["class"], []).append(clip)
    return [clip for of_class in taken.values() for clip in of_class[:count]]


# Students


class KeptClips(torch.utils.data.Dataset):
    """Clips of the kept frames, of 8 x 64 x 64: drawn anew each time for training, else as in the evaluation."""

    def __init__(self, cache: Path, name: str, clips: list[dict], labels: torch.Tensor, settings: dict | None, fps):
        files = [np.load(kept_at(cache, name, clip)) for clip in clips]
        self.clips = [(torch.from_numpy(file["frames"]).permute(0, 3, 1, 2), float(file["seconds"])) for file in files]
        self.labels, self.fps = labels, fps
        self.augmentation = None if settings is None else ClipAugmentation(**settings)
        self.generator = np.random.default_rng(0)

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> dict[str, Any]:
        frames, seconds = self.clips[index]
        train, total = self.augmentation is not None, len(frames)
        if self.fps is not None:
            times, position = np.arange(total) * seconds / total, self.generator.random() if train else 0.5
            chosen = paced_indices(times, num_frames=FRAMES, fps=self.fps, position=position)
        elif train:
            chosen = training_indices(total, num_frames=FRAMES, frame_interval=1, generator=self.generator)
        else:
            chosen = evaluation_indices(total, num_frames=FRAMES, frame_interval=1)
        shown = frames[chosen]
        if self.augmentation is not None:
            shown = self.augmentation(shown, 64, self.generator)
        else:
            short = min(shown.shape[-2:])
            top, left = (shown.shape[-2] - short) // 2, (shown.shape[-1] - short) // 2
            shown = F.interpolate(
                shown[..., top : top + short, left : left + short].float(), (64, 64), mode="bilinear"
            )
        pixels = shown / 255 - torch.tensor([0.485, 0.456, 0.406])[:, None, None]
        return {
            "pixel_values": pixels / torch.tensor([0.229, 0.224, 0.225])[:, None, None],
            "labels": self.labels[index],
        }


def student(cache: Path, name: str, drawn: dict[str, list[dict]], settings: dict[str, Any], seed: int = 0) -> dict:
    """Train a student on a draw; accuracy on each side, and the last training losses."""
    torch.manual_seed(seed)
    classes = sorted({clip["class"] for clip in drawn["train"]})

    def clips_of(side: str, augmentation: dict | None) -> KeptClips:
        labels = torch.tensor([classes.index(clip["class"]) for clip in drawn[side]])
        return KeptClips(cache, name, drawn[side], labels, augmentation, settings["fps"])

    config = VideoFocalNetConfig.from_pretrained(MOTIONS_STUDENT, num_labels=len(classes))
    model = VideoFocalNetForVideoClassification(config)
    if settings["start"]:
        model.base_model.load_state_dict(VideoFocalNetModel.from_pretrained(MOTIONS_STUDENT).state_dict())
    with tempfile.TemporaryDirectory() as folder:
        args = VideoTrainingArguments(
            output_dir=folder,
            save_strategy="no",
            report_to="none",
            use_cpu=True,
            disable_tqdm=True,
            logging_steps=50,
            per_device_eval_batch_size=32,
            seed=seed,
            **settings["arguments"],
        )
        train = clips_of("train", settings["augmentation"])
        trainer = VideoClassificationTrainer(model, args, train_dataset=train)
        trainer.train()
        losses = [round(row["loss"], 3) for row in trainer.state.log_history if "loss" in row]
        found = {}
        for side in ("validation", "test", "others"):
            output = trainer.predict(clips_of(side, None))
            accuracy = float((output.predictions.argmax(-1) == output.label_ids).mean())
            found[side] = {"clips": len(output.label_ids), "accuracy": round(accuracy, 4)}
    return {**found, "losses": losses, "steps": trainer.state.global_step}


def choose_students(results: Results, cache: Path, of: dict[str, list[dict]]):
    """Settings of the student, on draws of UCF101's groups 14 to 25."""
    clips = for_choosing(of["ucf101"], True)
    for seed in range(1):
        for name, settings in STUDENTS.items():
            key = {"student": name, "draw": seed, "settings": settings}
            results.run("choose_students", key, lambda s=settings, d=seed: student(cache, "ucf101", draw(clips, d), s))


def students(results: Results, cache: Path, of: dict[str, list[dict]]):
    """The student on five draws of each data set, as the guide trains it, and as chosen."""
    for seed in range(5):
        for name in ("ucf101", "jhmdb"):
            clips = for_choosing(of[name], False) if name == "ucf101" else of[name]
            for which in (AFTER_STUDENT, "guide"):
                settings = STUDENTS[which]
                key = {"data": name, "student": which, "draw": seed, "settings": settings}
                drawn = draw(clips, seed)
                results.run("students", key, lambda n=name, d=drawn, s=settings: student(cache, n, d, s))


POOLED = {"head": "pooled", "views": 4}
ONE = POOLED | {"views": 1}  # as `train_head`
HEADS = {"pooled, one view": ONE, "pooled": POOLED, "pooled, trend": POOLED | {"trend": True}}
DRAWN = {
    "one view": ONE,
    "four views": POOLED,
    "one view, 100 steps": ONE | {"steps": 100},
    "one view, 1000 steps": ONE | {"steps": 1000},
    "one view, trend": ONE | {"trend": True},
    **{f"one view, {fps} frames a second": ONE | {"fps": fps} for fps in PACES},
}
AFTER = ONE | {"trend": True, "steps": 200}
GUIDE = {
    "start": True,
    "fps": None,
    "augmentation": {},  # published
    "arguments": {"num_train_epochs": 30, "learning_rate": 1e-4, "per_device_train_batch_size": 8},
}
MILD_CROPS = {"area": [0.5, 1.0], "jitter": 0.0, "grayscale": 0.0}
RECIPE = {
    "max_steps": 300,
    "learning_rate": 1e-3,
    "per_device_train_batch_size": 16,
    "weight_decay": 0.05,
    "label_smoothing_factor": 0.1,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 0.1,
    "max_grad_norm": 5.0,
}
STEPS = {"start": True, "fps": None, "augmentation": MILD_CROPS, "arguments": RECIPE}
STUDENTS = {
    "guide": GUIDE,
    "300 steps, 1e-3": STEPS,
    "3e-3": STEPS | {"arguments": RECIPE | {"learning_rate": 3e-3}},
    "random weights": STEPS | {"start": False},
    "4 frames a second": STEPS | {"fps": 4.0},
    "published augmentation": STEPS | {"augmentation": {}},
    "600 steps, 1e-3": STEPS | {"arguments": RECIPE | {"max_steps": 600}},
}
AFTER_STUDENT = "300 steps, 1e-3"
PARTS = (heads, choose_draws, draws, choose_students, students, sizes)


def main():
    names = ["features", *(part.__name__ for part in PARTS)]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("jhmdb", type=Path, metavar="JHMDB")
    parser.add_argument("ucf101", type=Path, metavar="UCF101")
    parser.add_argument("--parts", nargs="*", choices=names, default=names)
    parser.add_argument("--cache", type=Path, default=Path("runs/small_data"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if "features" in arguments.parts:
        write_all(arguments.cache, arguments.jhmdb, arguments.ucf101)
    of = {"jhmdb": jhmdb(arguments.jhmdb), "ucf101": ucf101(arguments.ucf101)}
    results = Results()
    for part in PARTS:
        if part.__name__ in arguments.parts:
            part(results, arguments.cache, of)


if __name__ == "__main__":
    main()
