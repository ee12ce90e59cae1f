"""Heads of image networks with a frozen body, trained in seconds on the features of a data set, computed once."""

from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from torch import nn
from torch.nn import functional as F
from tqdm.auto import tqdm

from ..data.clips import VideoClipDataset, collate_clips
from ..modeling_frame_model import FrameModelForVideoClassification
from .labels import with_labels_of


class FeatureClips(VideoClipDataset):
    """
    Clips as what the head of a frozen image network is given, computed when this dataset is made. Several processes
    share the work.

    The head can then be trained by a [`VideoClassificationTrainer`], in seconds: an item is `{"features": (size,),
    "labels", "clip", "broken"}`. Each epoch shows the same: other draws of the clips do not help a head.

    Args:
        model: A model whose body is frozen. It is moved to `device`.
        clips: The clips. Those of a training are drawn as in the first epoch.
        batch_size, num_workers, device: Of the forward passes through the body.

    Raises:
        ValueError: If the model's body is not frozen.
        VideoDecodeError: If a clip cannot be read, as in [`VideoClipDataset`].
    """

    def __init__(
        self,
        model: FrameModelForVideoClassification,
        clips: VideoClipDataset,
        *,
        batch_size: int = 8,
        num_workers: int = 0,
        device: torch.device | str = "cpu",
    ):
        clips = with_labels_of(model, clips)
        vars(self).update(vars(clips))
        with PartialState().split_between_processes(list(range(len(clips)))) as mine:
            part = torch.utils.data.Subset(clips, mine)
            items = _with_features(model, part, batch_size, num_workers, device)
        self._items = gather_object(items)  # in the order of the processes

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self._items[index]


def _with_features(
    model: FrameModelForVideoClassification,
    clips: torch.utils.data.Dataset,
    batch_size: int,
    num_workers: int,
    device: torch.device | str,
) -> list[dict[str, Any]]:
    """The items of `clips` with `features`, float32 on the CPU, in place of `pixel_values`."""
    if not model.config.freeze_body:
        raise ValueError(
            "only the head of a model with freeze_body=True is trained on its features; use the Trainer for the rest"
        )
    loader: torch.utils.data.DataLoader = torch.utils.data.DataLoader(
        clips, batch_size=batch_size, num_workers=num_workers, collate_fn=collate_clips
    )
    model, items = model.to(device).eval(), []
    for batch in tqdm(loader, desc="features", unit="batch", disable=None):
        with torch.inference_mode():
            features = model.pooled_features(batch.pop("pixel_values").to(device, model.dtype)).float().cpu()
        columns = {"features": features.clone(), **batch}
        items += [dict(zip(columns, item, strict=True)) for item in zip(*columns.values(), strict=True)]
    return items


def train_head(
    model: FrameModelForVideoClassification,
    clips: torch.utils.data.Dataset,
    *,
    seed: int = 0,
    batch_size: int = 8,
    num_workers: int = 0,
    device: torch.device | str = "cpu",
) -> float:
    """
    Replace a model's head by one trained on the features of `clips`.

    Args:
        model: A model whose body is frozen. Its head is changed.
        clips: The training clips, usually as the evaluation shows them: each is computed once.
        seed: Seed of the head.
        batch_size, num_workers, device: Of the forward passes through the body.

    Returns:
        The share of `clips` that the new head classifies correctly.

    Raises:
        ValueError: If the model's body is not frozen.
    """
    items = _with_features(model, with_labels_of(model, clips), batch_size, num_workers, device)
    features, labels = (torch.stack([item[name] for item in items]) for name in ("features", "labels"))
    head = fit_head(features, labels, model.config.num_labels, seed=seed, dropout=model.config.head_dropout)
    model.classifier.load_state_dict(head.state_dict())
    return float((head(features).argmax(-1) == labels).float().mean())


def fit_head(
    features: torch.Tensor,
    labels: torch.Tensor,
    num_labels: int,
    *,
    seed: int = 0,
    steps: int = 400,
    dropout: float = 0.5,
) -> nn.Linear:
    """
    Train a linear head on features (clips, size) and class ids (clips,): AdamW on all clips at once, cosine schedule,
    dropout of the features and label smoothing. The global random state is not changed.
    """
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(seed)
        head = nn.Linear(features.shape[1], num_labels)
        optimizer = torch.optim.AdamW(head.parameters(), lr=3e-3)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        for _ in range(steps):
            loss = F.cross_entropy(head(F.dropout(features, dropout)), labels, label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return head.requires_grad_(False)
