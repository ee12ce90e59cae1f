"""
Heads of image networks with a frozen body: trained in seconds on the features of a data set, each computed once.
"""

import torch
from torch import nn
from torch.nn import functional as F
from tqdm.auto import tqdm

from ..data.clips import collate_clips
from ..frame_model.modeling import FrameModelForVideoClassification
from .labels import with_labels_of


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
