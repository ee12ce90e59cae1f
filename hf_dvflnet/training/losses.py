"""Loss functions for labels: class ids, class probabilities, multiple labels and regression."""

import torch
from torch.nn import functional as F
from transformers import PreTrainedConfig


def problem_type(config: PreTrainedConfig) -> str:
    """
    The problem type: `"single_label_classification"`, `"multi_label_classification"` or `"regression"`.

    If the config does not set it, a model with one output is a regression model, and a model with several outputs is a
    single-label classifier.
    """
    return config.problem_type or ("regression" if config.num_labels == 1 else "single_label_classification")


def soft_loss(logits: torch.Tensor, labels: torch.Tensor, kind: str, smoothing: float = 0.0) -> torch.Tensor:
    """
    The loss for hard or soft labels, averaged over the batch, in float32.

    Args:
        logits: Logits of shape (batch, num_labels).
        labels: Depends on `kind`:

            - single-label classification (cross-entropy): class ids of shape (batch,), where -100 means no label, or
              probabilities of shape (batch, num_labels);
            - multi-label classification (binary cross-entropy): the probability of each label, of shape (batch,
              num_labels);
            - regression (mean squared error): values of the shape of the logits, or of shape (batch,).
        kind: The problem type, as returned by [`problem_type`].
        smoothing: Label smoothing (arXiv 1512.00567), spread over all classes. Used for single-label classification
            only.
    """
    logits = logits.float()
    if kind == "regression":
        return F.mse_loss(logits.squeeze(), labels.float().squeeze())
    if kind == "multi_label_classification":
        return F.binary_cross_entropy_with_logits(logits, labels.float())
    if labels.is_floating_point():
        return F.cross_entropy(logits, labels.float(), label_smoothing=smoothing)
    # PyTorch's mean over zero labels is NaN
    labelled = (labels != -100).sum().clamp(min=1)
    return F.cross_entropy(logits, labels, label_smoothing=smoothing, reduction="sum") / labelled


def as_probabilities(labels: torch.Tensor, num_labels: int) -> torch.Tensor:
    """
    Convert class ids of shape (batch,) to probabilities of shape (batch, num_labels).

    The row of a clip without a label (-100) is all zeros. Labels that are probabilities already are returned as is.
    """
    if labels.is_floating_point():
        return labels
    labels = labels.long()
    unlabelled = labels == -100
    return F.one_hot(labels.masked_fill(unlabelled, 0), num_labels).float().masked_fill(unlabelled[:, None], 0.0)


__all__ = ["as_probabilities", "problem_type", "soft_loss"]
