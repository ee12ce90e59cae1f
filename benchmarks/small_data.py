"""
Few clips of one's own: what a head on an image network and a small student reach, and with which settings.

    python benchmarks/small_data.py JHMDB UCF101 [--parts NAME ...]

JHMDB is its release with `groups.csv` (`clip,group`: class/file, class/title of the source video), UCF101 a folder
with `UCF-101/<class>/<video>`, of which sixteen classes are read. Each clip is decoded once (`small_data_features.py`,
half an hour of one core). Each run is written to `benchmarks/small_data.json` when it ends and is not repeated: the
same command continues where it was stopped. The parts:

- `features`: what the others read;
- `choose_heads`, `heads`: temporal focal modulation over the features of frames, against the pooled head of the
  package, by three folds of JHMDB's training titles, and those in `CHOSEN` on the test clips of split 1;
- `motions`: the same on rendered motions, each of which is its opposite when it is played backwards;
- `choose_draws`, `draws`: ten classes, 60 / 10 / 20 clips of 6 / 1 / 2 groups a class, for a pooled head;
- `choose_students`, `students`: the same for a student of 0.7 M parameters and 64 x 64 pixels;
- `sizes`: how many clips, how many classes: what to expect of a pooled head.

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
from hf_dvflnet.data.motion_videos import MOTIONS
from hf_dvflnet.hub.model_folder import MOTIONS_STUDENT


RESULTS = Path(__file__).with_name("small_data.json")


# Data


@functools.cache
def kept(file: Path, array: str, views: int | None) -> torch.Tensor:
    return torch.from_numpy(np.load(file)[array][:views])


def load(cache: Path, name: str, clips: list[dict], array: str = "features", views: int | None = None) -> torch.Tensor:
    """An array of each clip, stacked, float16; of `features`, (clips, views, frames, 5, 1280)."""
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

    def __init__(self, features: int, classes: int, trend: bool = False, dropout: float = 0.5):
        super().__init__()
        self.trend, self.dropout = trend, dropout
        self.classifier = nn.Linear((2 + trend) * features, classes)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        pooled = [frames.mean(1), frames.diff(dim=1).abs().mean(1)]
        if self.trend:
            time = torch.linspace(-1, 1, frames.shape[1])
            pooled.append((frames * time[:, None]).mean(1) * 2)
        return self.classifier(F.dropout(torch.cat(pooled, -1), self.dropout, self.training))


class TemporalModulation(nn.Module):
    """The temporal half of Video-FocalNet's modulation with its query, over frames, (clips, frames, channels)."""

    def __init__(self, channels: int, windows: tuple[int, ...] = (3, 5)):
        super().__init__()
        self.split = [channels, channels, len(windows) + 1]
        self.projection_in = nn.Linear(channels, sum(self.split))
        self.focal_layers = nn.ModuleList(
            nn.Conv1d(channels, channels, size, padding=size // 2, bias=False) for size in windows
        )
        self.projection_context = nn.Linear(channels, channels)
        self.projection_out = nn.Linear(channels, channels)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        query, context, gates = self.projection_in(frames).split(self.split, -1)
        context, gates = context.transpose(1, 2), gates.transpose(1, 2)
        gathered = torch.zeros(())
        for level, focal_layer in enumerate(self.focal_layers):
            context = F.gelu(focal_layer(context))
            gathered = gathered + context * gates[:, level : level + 1]
        gathered = gathered + F.gelu(context.mean(-1, keepdim=True)) * gates[:, -1:]
        return self.projection_out(query * self.projection_context(gathered.transpose(1, 2)))


class TemporalHead(nn.Module):
    """
    Blocks of temporal focal modulation over projected features of frames, their mean over the frames, a linear layer.

    Args:
        differences: Whether each frame is given beside its difference from the frame before.
        frame_dropout: Share of the frames of a training clip that are replaced by the frame before.
    """

    def __init__(
        self,
        features: int,
        classes: int,
        channels: int = 128,
        blocks: int = 1,
        differences: bool = False,
        frame_dropout: float = 0.0,
    ):
        super().__init__()
        self.differences, self.frame_dropout = differences, frame_dropout
        self.projection = nn.Linear(features * (1 + differences), channels)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(channels), TemporalModulation(channels), nn.Dropout(0.2)) for _ in range(blocks)
        )
        self.norm = nn.LayerNorm(channels)
        self.classifier = nn.Linear(channels, classes)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        if self.training and self.frame_dropout:
            number = torch.arange(frames.shape[1]).expand(frames.shape[:2])
            kept = torch.where(torch.rand(number.shape) < self.frame_dropout, 0, number).cummax(1).values
            frames = frames.gather(1, kept[..., None].expand_as(frames))
        if self.differences:
            frames = torch.cat([frames, F.pad(frames.diff(dim=1), (0, 0, 1, 0))], -1)
        states = self.projection(F.dropout(frames, 0.3, self.training))
        for block in self.blocks:
            states = states + block(states)
        return self.classifier(F.dropout(self.norm(states).mean(1), 0.5, self.training))


def fit(
    head: nn.Module,
    features: torch.Tensor,
    labels: torch.Tensor,
    *,
    seed: int,
    known: torch.Tensor | None = None,
    opposites: torch.Tensor | None = None,
    steps: int = 400,
    batch_size: int = 64,
    learning_rate: float = 3e-3,
    weight_decay: float = 0.01,
    smoothing: float = 0.1,
) -> nn.Module:
    """
    Train a head on features (clips, views, frames, features): AdamW, cosine schedule, a random view of each clip.

    Args:
        known: Scores that are added to the head's, (clips, classes).
        opposites: The class of each class's clips when they are played backwards, which half of the clips then are.
    """
    torch.manual_seed(seed)
    weights = [[], []]
    for weight in head.parameters():
        weights[weight.ndim > 1].append(weight)
    groups = [{"params": weights[1], "weight_decay": weight_decay}, {"params": weights[0], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, steps, pct_start=0.1)
    order = torch.empty(0, dtype=torch.long)
    head.train()
    for _ in range(steps):
        while len(order) < min(batch_size, len(labels)):
            order = torch.cat([order, torch.randperm(len(labels))])
        batch, order = order[:batch_size], order[batch_size:]
        shown, truth = features[batch, torch.randint(features.shape[1], batch.shape)].float(), labels[batch]
        if opposites is not None:
            backwards = torch.rand(len(batch)) < 0.5
            shown = torch.where(backwards[:, None, None], shown.flip(1), shown)
            truth = torch.where(backwards, opposites[truth], truth)
        logits = head(shown) if known is None else head(shown) + known[batch]
        loss = F.cross_entropy(logits, truth, label_smoothing=smoothing)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(head.parameters(), 5.0)
        optimizer.step()
        schedule.step()
    return head.eval().requires_grad_(False)


def scores(head: nn.Module, features: torch.Tensor) -> torch.Tensor:
    """Log-probabilities of the evaluation's view, (clips, classes)."""
    with torch.inference_mode():
        return torch.cat([head(part.float()) for part in features[:, 0].split(256)]).log_softmax(-1)


def principal(features: torch.Tensor, size: int = 256) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and principal directions of the training clips' frames, scaled to a variance of about 1."""
    torch.manual_seed(0)
    frames = features[:, 0].flatten(0, 1)
    frames = frames[:: 1 + len(frames) // 4096].float()
    mean = frames.mean(0)
    _, _, directions = torch.pca_lowrank(frames - mean, size, center=False, niter=2)
    return mean, directions / ((frames - mean) @ directions)[:, :10].std()


def reduced(features: torch.Tensor, mean: torch.Tensor, directions: torch.Tensor) -> torch.Tensor:
    return torch.stack([(view.float() - mean) @ directions for view in features.unbind(1)], 1)


POOLED = {"head": "pooled", "views": 4}
TEMPORAL = {"head": "temporal", "views": 4, "frame_dropout": 0.2, "weight_decay": 0.1, "learning_rate": 1e-3}
HEADS: dict[str, dict[str, Any]] = {
    "pooled, one view": POOLED | {"views": 1},  # as `train_head`
    "pooled": POOLED,
    "pooled, trend": POOLED | {"trend": True},
    "pooled, trend, quarters": POOLED | {"trend": True, "quarters": True},
    "temporal": TEMPORAL,
    "temporal, two blocks": TEMPORAL | {"blocks": 2},
    "temporal, differences": TEMPORAL | {"differences": True},
    "temporal, reversed clips": TEMPORAL | {"reverse": True},
    "temporal, quarters": TEMPORAL | {"quarters": True},
    "temporal beside pooled": TEMPORAL | {"beside": True, "reverse": True},
}


def answers(
    kind: dict[str, Any],
    train: torch.Tensor,
    labels: torch.Tensor,
    groups: list[str],
    test: torch.Tensor,
    classes: int,
    seed: int,
    opposites: torch.Tensor | None = None,
) -> torch.Tensor:
    """
    Train a head of a kind on (clips, views, frames, 5, features), and classify clips of the same shape, one view.

    Returns:
        Log-probabilities, (clips, classes).
    """
    options = {name: kind[name] for name in ("steps", "learning_rate", "weight_decay") if name in kind}
    train, test = train[:, : kind["views"]], test[:, :1]
    if kind["head"] == "pooled":
        torch.manual_seed(seed)
        if kind.get("quarters"):
            train, test = train.flatten(3), test.flatten(3)
        else:
            train, test = train[..., 0, :], test[..., 0, :]
        head = PooledHead(train.shape[-1], classes, kind.get("trend", False), kind.get("dropout", 0.5))
        return scores(fit(head, train, labels, seed=seed, opposites=opposites, **options), test)
    known, beside = None, None
    if kind.get("beside"):  # scores of pooled heads that have not seen the clip's group, as those of new clips will be
        folds = fold_of(groups, 3)
        known = torch.zeros(len(train), classes)
        for fold in range(3):
            inside = [index for index in range(len(train)) if folds[index] != fold]
            outside = [index for index in range(len(train)) if folds[index] == fold]
            some = [groups[index] for index in inside]
            known[outside] = answers(POOLED, train[inside], labels[inside], some, train[outside], classes, seed)
        beside = answers(POOLED, train, labels, groups, test, classes, seed)
    if kind.get("quarters"):
        train, test = train.flatten(3), test.flatten(3)
    else:
        train, test = train[..., 0, :], test[..., 0, :]
    basis = principal(train)
    train, test = reduced(train, *basis), reduced(test, *basis)
    torch.manual_seed(seed)
    outputs = classes
    if kind.get("reverse") and opposites is None:  # clips played backwards are clips of as many other classes
        outputs = 2 * classes
        opposites = torch.arange(outputs).roll(classes)
        known = None if known is None else torch.cat([known, known], -1)
    head = TemporalHead(train.shape[-1], outputs, **{name: kind[name] for name in ARCHITECTURE if name in kind})
    if known is not None:  # begins as the pooled head
        nn.init.zeros_(head.classifier.weight)
    head = fit(head, train, labels, seed=seed, known=known, opposites=opposites, **options)
    found = scores(head, test)[:, :classes]
    return found if beside is None else (found + beside).log_softmax(-1)


ARCHITECTURE = ("blocks", "differences", "frame_dropout")


def fold_of(groups: list[str], folds: int) -> list[int]:
    """A fold for each clip, the same for all clips of a group."""
    names = sorted(set(groups))
    number = dict(zip(names, np.random.default_rng(0).permutation(len(names)) % folds, strict=True))
    return [int(number[group]) for group in groups]


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


def choose_heads(results: Results, cache: Path, of: dict[str, list[dict]]):
    """Each head on JHMDB's training clips, by three folds of titles, one seed."""
    clips = [clip for clip in of["jhmdb"] if not clip["test"]]
    features, labels = load(cache, "jhmdb", clips, views=4), labels_of(clips)
    groups = [clip["group"] for clip in clips]
    folds = torch.tensor(fold_of(groups, 3))

    def measure(kind: dict[str, Any]) -> dict[str, Any]:
        found = torch.zeros(len(clips), 21)
        for fold in range(3):
            some = [group for group, other in zip(groups, folds.tolist(), strict=True) if other != fold]
            given = (features[folds != fold], labels[folds != fold], some, features[folds == fold], 21, 0)
            found[folds == fold] = answers(kind, *given)
        return right(found, labels)

    for name, kind in HEADS.items():
        results.run("choose_heads", {"head": name, "settings": kind}, lambda kind=kind: measure(kind))


def heads(results: Results, cache: Path, of: dict[str, list[dict]]):
    """The chosen heads on JHMDB's and UCF101's test clips of split 1, three seeds."""
    for name in ("jhmdb", "ucf101"):
        train, test = sides(of[name])
        labels, truth = labels_of(train), labels_of(test)
        classes, groups = int(labels.max()) + 1, [clip["group"] for clip in train]
        features = [load(cache, name, train, views=4), load(cache, name, test, views=1)]
        for head in CHOSEN:
            for seed in range(3):
                kind = HEADS[head]
                given = (kind, features[0], labels, groups, features[1], classes, seed)
                key = {"data": name, "head": head, "seed": seed, "settings": kind}
                results.run("heads", key, lambda given=given, truth=truth: right(answers(*given), truth))


def sides(clips: list[dict]) -> tuple[list[dict], list[dict]]:
    """Training and test clips of split 1; of UCF101, the first clip of each group."""
    clips = [clip for clip in clips if clip.get("place", 0) == 0]
    return [clip for clip in clips if not clip["test"]], [clip for clip in clips if clip["test"]]


def motions(results: Results, cache: Path, of: dict[str, list[dict]]):
    """Heads on 100 rendered motions a class, and the share of 25 a class that is told from its opposite."""
    names = list(MOTIONS)
    features = torch.stack(
        [torch.from_numpy(np.load(cache / "motions" / f"{name}.npz")["features"]) for name in names]
    )
    labels = torch.arange(len(names))[:, None].expand(features.shape[:2])
    backwards = torch.tensor([names.index(opposite(name)) for name in names])
    train, test = features[:, :100].flatten(0, 1)[:, None], features[:, 100:].flatten(0, 1)[:, None]
    truth = labels[:, 100:].flatten()

    def measure(kind: dict[str, Any], seed: int) -> dict[str, Any]:
        given = (train, labels[:, :100].flatten(), [], test, len(names), seed)
        found = answers(kind, *given, opposites=backwards)
        margin = found.gather(1, truth[:, None]) - found.gather(1, backwards[truth][:, None])
        told = (margin > 0).float().unflatten(0, (-1, 25)).mean((1, 2))
        kinds = {part: told[[name.startswith(part) for name in names]].mean() for part in ("move", "turn", "zoom")}
        told_apart = {name: round(float(value), 3) for name, value in {"all": told.mean(), **kinds}.items()}
        return {**right(found, truth), "told_from_opposite": told_apart}

    for head, kind in MOTION_HEADS.items():
        for seed in range(2):
            key = {"head": head, "seed": seed, "settings": kind}
            results.run("motions", key, lambda kind=kind, seed=seed: measure(kind, seed))


def opposite(motion: str) -> str:
    """The motion that a clip shows when it is played backwards."""
    if motion.startswith("move_"):
        return f"move_{(int(motion[5:]) + 180) % 360:03d}"
    swap = {"left": "right", "right": "left", "in": "out", "out": "in"}
    return "_".join(swap.get(word, word) for word in motion.split("_"))


def classified(cache: Path, name: str, drawn: dict[str, list[dict]], kind: dict[str, Any], seed: int = 0) -> dict:
    """Accuracy on each side of a draw of a pooled head, of a pace where the kind names one."""

    def of(clips: list[dict], views: int) -> torch.Tensor:
        if "fps" not in kind:
            return load(cache, name, clips, views=views)
        return load(cache, name, clips, "paced")[:, PACES.index(kind["fps"]), None, :, None]

    train = drawn["train"]
    groups = [clip["group"] for clip in train]
    parts = {side: drawn[side] for side in ("validation", "test", "others") if side in drawn}
    clips = [clip for part in parts.values() for clip in part]
    given = (kind, of(train, kind["views"]), labels_of(train), groups, of(clips, 1))
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


MOTION_TEMPORAL = TEMPORAL | {"steps": 1000, "views": 1, "frame_dropout": 0.0}
MOTION_HEADS = {
    "pooled": POOLED,
    "pooled, trend": POOLED | {"trend": True},
    "temporal": MOTION_TEMPORAL,
    "temporal, quarters": MOTION_TEMPORAL | {"quarters": True},
}
CHOSEN = ("pooled, one view", "pooled", "pooled, trend", "temporal")
ONE = POOLED | {"views": 1}
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
PARTS = (choose_heads, heads, motions, choose_draws, draws, choose_students, students, sizes)


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
