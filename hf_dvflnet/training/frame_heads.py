"""
Heads of image networks with a frozen body: trained in seconds on the features of a data set, each of which is computed
once, and trained out of fold, so that a teacher's answers are not those of a network that knows the clip by heart.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F
from tqdm.auto import tqdm

from ..data.clips import VideoClipDataset, collate_clips
from ..data.video_column import clip_name
from ..frame_model.modeling import FrameModelForVideoClassification
from ..hub.loaded_models import weights_digest
from .class_matching import with_labels_of


def pooled_features(
    model: FrameModelForVideoClassification,
    clips: torch.utils.data.Dataset,
    *,
    batch_size: int = 8,
    num_workers: int = 0,
    device: torch.device | str = "cpu",
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    What a model's head is given for each clip, and the clips' labels.

    Args:
        model: The model; only its image network is used.
        clips: Items `{"pixel_values", "labels"}`, such as a [`VideoClipDataset`].
        batch_size: Number of clips per forward pass.
        num_workers: Number of decoding processes.
        device: Device of the forward passes.

    Returns:
        float32 of shape (clips, 2 * feature_size) and int64 of shape (clips,), on the CPU.
    """
    loader: torch.utils.data.DataLoader = torch.utils.data.DataLoader(
        clips, batch_size=batch_size, num_workers=num_workers, collate_fn=collate_clips
    )
    features, labels = [], []
    model = model.to(device).eval()
    for batch in tqdm(loader, desc="features", unit="batch", disable=None):
        with torch.inference_mode():
            features.append(model.pooled_features(batch["pixel_values"].to(device, model.dtype)).float().cpu())
        labels.append(batch["labels"])
    return torch.cat(features), torch.cat(labels)


def fit_head(
    features: torch.Tensor,
    labels: torch.Tensor,
    num_labels: int,
    *,
    seed: int = 0,
    steps: int = 400,
    learning_rate: float = 3e-3,
    dropout: float = 0.5,
    label_smoothing: float = 0.1,
) -> nn.Linear:
    """
    Train a linear head on pooled features, with AdamW on all clips at once and a cosine schedule.

    Args:
        features: (clips, size), float32.
        labels: Class ids, (clips,).
        num_labels: Number of classes.
        seed: Seed of initial weights and dropout. The global random state is not changed.
        steps, learning_rate, dropout, label_smoothing: The recipe.

    Returns:
        The head, a linear layer from `size` to `num_labels`.
    """
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(seed)
        head = nn.Linear(features.shape[1], num_labels)
        optimizer = torch.optim.AdamW(head.parameters(), lr=learning_rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        for _ in range(steps):
            logits = head(F.dropout(features, dropout))
            loss = F.cross_entropy(logits, labels, label_smoothing=label_smoothing)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return head.requires_grad_(False)


def train_head(
    model: FrameModelForVideoClassification, clips: torch.utils.data.Dataset, *, seed: int = 0, **options
) -> float:
    """
    Replace a model's head by one trained on the features of `clips` ([`pooled_features`], [`fit_head`]).

    Args:
        model: A model whose body is frozen. Its head is changed.
        clips: The training clips, usually as the evaluation shows them: each is computed once.
        seed: Seed of the head.
        options: Passed to [`pooled_features`].

    Returns:
        The share of `clips` that the new head answers rightly.

    Raises:
        ValueError: If the model's body is not frozen.
    """
    if not model.config.freeze_body:
        raise ValueError(
            "only the head of a model with freeze_body=True is trained here; use the Trainer for the rest"
        )
    features, labels = pooled_features(model, with_labels_of(model, clips), **options)
    head = fit_head(features, labels, model.config.num_labels, seed=seed, dropout=model.config.head_dropout)
    model.classifier.load_state_dict(head.state_dict())
    return float((head(features).argmax(-1) == labels).float().mean())


def folds_of_groups(groups: Sequence[str | int | None], folds: int, seed: int = 0) -> torch.Tensor:
    """
    Divide clips into folds of about equal size; clips of one group are in the same fold.

    Args:
        groups: The group of each clip, such as the title of its source video.
        folds: Number of folds, at least 2.
        seed: Seed of the division.

    Returns:
        The fold of each clip, int64 of shape (clips,).

    Raises:
        ValueError: If a clip has no group, or if there are fewer groups than folds.
    """
    if any(group is None for group in groups):
        raise ValueError("each clip needs a group, such as the title of its source video, that is not to be split")
    names, numbers, sizes = np.unique([str(group) for group in groups], return_inverse=True, return_counts=True)
    if not 2 <= folds <= len(names):
        raise ValueError(f"folds must be from 2 to the number of groups, {len(names)}, got {folds}")
    filled, fold_of = np.zeros(folds, int), np.zeros(len(names), int)
    shuffled = np.random.default_rng(seed).permutation(len(names))
    for number in sorted(shuffled, key=lambda number: -sizes[number]):  # the largest first; equal ones as shuffled
        fold_of[number] = filled.argmin()
        filled[fold_of[number]] += sizes[number]
    return torch.from_numpy(fold_of[numbers])


class OutOfFoldAnswers:
    """
    A teacher's answers to clips that its head has not seen: for each fold, a head that was trained on the others.

    Args:
        model: A model whose body is frozen.
        clips: The training clips, whose dataset has a column `group`. The heads are trained on their first views.
        folds: Number of folds.
        folder: Where the heads are kept, in `heads.safetensors`. If that file exists, they are read from it.
        options: Passed to [`pooled_features`].

    Attributes:
        folds: The fold of each clip, by its id.
        digest: SHA-256 digest of the heads.

    Raises:
        ValueError: If the model is of another architecture or not frozen, if the data has no column `group`, or as in
            [`folds_of_groups`].
    """

    def __init__(
        self,
        model: FrameModelForVideoClassification,
        clips: VideoClipDataset,
        folds: int,
        folder: str | os.PathLike,
        **options: Any,
    ):
        if not isinstance(model, FrameModelForVideoClassification) or not model.config.freeze_body:
            raise ValueError(
                "answers out of fold need a FrameModelForVideoClassification with freeze_body=True, whose head is "
                f"trained again for each fold; got {type(model).__name__}"
            )
        if "group" not in clips.dataset.column_names:
            raise ValueError(
                "answers out of fold need a column `group` in the data, such as the title of each clip's source "
                f"video, but it has only {', '.join(clips.dataset.column_names)}"
            )
        fold_of = folds_of_groups(clips.dataset["group"], folds, clips.seed)
        self.folds = {
            clip_name(row): int(fold) for row, fold in zip(clips.dataset.remove_columns("group"), fold_of, strict=True)
        }
        self.heads = nn.ModuleList(
            nn.Linear(2 * model.config.feature_size, model.config.num_labels) for _ in range(folds)
        ).requires_grad_(False)
        kept = Path(folder, "heads.safetensors")
        if kept.is_file():
            self.heads.load_state_dict(load_file(kept))
        else:
            features, labels = pooled_features(model, clips, **options)
            for fold, head in enumerate(self.heads):
                seen = fold_of != fold
                trained = fit_head(features[seen], labels[seen], model.config.num_labels, seed=clips.seed)
                head.load_state_dict(trained.state_dict())
            save_file(self.heads.state_dict(), kept.with_suffix(".unfinished"))
            os.replace(kept.with_suffix(".unfinished"), kept)
        self.digest = weights_digest(self.heads)

    def __call__(self, features: torch.Tensor, clips: Sequence[str]) -> torch.Tensor:
        """Logits, (clips, num_labels), for pooled features, (clips, size), of the clips with these ids."""
        rows = zip(features.float().cpu(), clips, strict=True)
        return torch.stack([self.heads[self.folds[clip]](row) for row, clip in rows])


__all__ = ["OutOfFoldAnswers", "fit_head", "folds_of_groups", "pooled_features", "train_head"]
