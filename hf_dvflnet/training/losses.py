"""The losses of a training: of class ids, probabilities and several labels, and the divergence from a teacher."""

import torch
from torch.nn import functional as F
from transformers import PreTrainedConfig


def problem_type(config: PreTrainedConfig) -> str:
    """
    `"single_label_classification"`, `"multi_label_classification"` or `"regression"`.

    Where a config does not say, one output is regression and several are classes of which one is right.
    """
    return config.problem_type or ("regression" if config.num_labels == 1 else "single_label_classification")


def soft_loss(logits: torch.Tensor, labels: torch.Tensor, kind: str, smoothing: float = 0.0) -> torch.Tensor:
    """
    The loss of labels that may be soft, averaged over the batch, in float32.

    Args:
        logits: (batch, num_labels).
        labels: For one label a clip, class ids of shape (batch,), where -100 is no label, or probabilities of shape
            (batch, num_labels): the cross-entropy. For several, probabilities of each: the binary cross-entropy. For
            regression, values of the shape of the logits, or of (batch,): the mean squared error.
        kind: As [`problem_type`] gives it.
        smoothing: Label smoothing (arXiv 1512.00567), spread over all classes, where one label a clip is right.
    """
    logits = logits.float()
    if kind == "regression":
        return F.mse_loss(logits.squeeze(), labels.float().squeeze())
    if kind == "multi_label_classification":
        return F.binary_cross_entropy_with_logits(logits, labels.float())
    if labels.is_floating_point():
        return F.cross_entropy(logits, labels.float(), label_smoothing=smoothing)
    # PyTorch's mean over no labels at all is no number
    labelled = (labels != -100).sum().clamp(min=1)
    return F.cross_entropy(logits, labels, label_smoothing=smoothing, reduction="sum") / labelled


def refuse_other_than_probabilities(labels: torch.Tensor):
    """Raise `ValueError` unless each row of labels of shape (batch, num_labels) sums to 1."""
    sums = labels.float().sum(-1)
    if not torch.allclose(sums, torch.ones_like(sums), atol=1e-3):
        raise ValueError(
            f"labels of shape {tuple(labels.shape)} are the probabilities of classes of which one is right, but a row "
            f"sums to {sums[(sums - 1).abs().argmax()].item():g}. For several labels a clip, set the model's "
            'config.problem_type = "multi_label_classification"'
        )


def as_probabilities(labels: torch.Tensor, num_labels: int) -> torch.Tensor:
    """Class ids (batch,) -> probabilities (batch, num_labels), all 0 where there is no label (-100); others stay."""
    if labels.is_floating_point():
        return labels
    labels = labels.long()
    unlabelled = labels == -100
    return F.one_hot(labels.masked_fill(unlabelled, 0), num_labels).float().masked_fill(unlabelled[:, None], 0.0)


def forward_kl(student_logits: torch.Tensor, teacher_logits: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
    """
    `T^2 * KL(teacher || student)` of the softmaxes at temperature T, averaged over the batch (Hinton et al., 2015).

    Both logits have shape (batch, num_labels). Computed in float32, or in float64 where the student's logits are.
    """
    dtype = torch.float64 if student_logits.dtype == torch.float64 else torch.float32
    student_log_probs = F.log_softmax(student_logits.to(dtype) / temperature, dim=-1)
    teacher_log_probs = F.log_softmax(teacher_logits.to(dtype) / temperature, dim=-1)
    # F.kl_div(input, target) is KL(target || input), the reverse of how the formula is read
    divergence = F.kl_div(student_log_probs, teacher_log_probs, reduction="batchmean", log_target=True)
    return divergence * temperature**2


__all__ = ["as_probabilities", "forward_kl", "problem_type", "refuse_other_than_probabilities", "soft_loss"]
