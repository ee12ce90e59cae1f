"""
Divergences between the answers of a student and of its teacher: what distillation makes small.

All of them take logits of shape (batch, num_labels), compute in float32 (in float64 if the student's logits are
float64), return the mean over the batch, and are 0 where student and teacher agree. At temperature T the gradient of a
divergence of softmaxes shrinks by 1 / T^2. It is therefore multiplied by T^2, so that its weight beside the
cross-entropy does not depend on T (Hinton et al., arXiv 1503.02531).
"""

import math

import torch
from torch.nn import functional as F


DIVERGENCES = ("forward_kl", "reverse_kl", "jensen_shannon", "mse")


def _wide(*logits: torch.Tensor) -> tuple[torch.Tensor, ...]:
    dtype = torch.float64 if logits[0].dtype == torch.float64 else torch.float32
    return tuple(each.to(dtype) for each in logits)


def _log_probabilities(*logits: torch.Tensor, temperature: float) -> tuple[torch.Tensor, ...]:
    return tuple(F.log_softmax(each / temperature, dim=-1) for each in _wide(*logits))


def _kl(log_p: torch.Tensor, log_q: torch.Tensor) -> torch.Tensor:
    """KL(p || q). `F.kl_div(input, target)` is KL(target || input): its arguments are in the reverse order."""
    return F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)


def forward_kl(student_logits: torch.Tensor, teacher_logits: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
    """
    `T^2 * KL(teacher || student)` of the softmaxes at temperature T (Hinton et al., arXiv 1503.02531).

    The divergence of the DVFL-Net paper. The student is punished for each class that the teacher holds possible and it
    does not.

    Args:
        student_logits, teacher_logits: Logits of shape (batch, num_labels).
        temperature: T, above 0.
    """
    student, teacher = _log_probabilities(student_logits, teacher_logits, temperature=temperature)
    return _kl(teacher, student) * temperature**2


def reverse_kl(student_logits: torch.Tensor, teacher_logits: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
    """
    `T^2 * KL(student || teacher)` of the softmaxes at temperature T (as in MiniLLM, arXiv 2306.08543).

    The student is punished for each class that it holds possible and the teacher does not.

    Args:
        student_logits, teacher_logits: Logits of shape (batch, num_labels).
        temperature: T, above 0.
    """
    student, teacher = _log_probabilities(student_logits, teacher_logits, temperature=temperature)
    return _kl(student, teacher) * temperature**2


def jensen_shannon(
    student_logits: torch.Tensor, teacher_logits: torch.Tensor, temperature: float = 1.0, beta: float = 0.5
) -> torch.Tensor:
    """
    `T^2` times the generalized Jensen-Shannon divergence of the softmaxes at temperature T (GKD, arXiv 2306.13649):
    `beta * KL(teacher || m) + (1 - beta) * KL(student || m)` with `m = beta * teacher + (1 - beta) * student`.

    Divided by `beta` it tends to KL(teacher || student) as `beta` goes to 0; divided by `1 - beta`, to
    KL(student || teacher) as `beta` goes to 1. Unlike both it is bounded, by `T^2 * log(2)`.

    Args:
        student_logits, teacher_logits: Logits of shape (batch, num_labels).
        temperature: T, above 0.
        beta: The teacher's share of the mixture, strictly between 0 and 1.

    Raises:
        ValueError: If `beta` is 0 or 1, where the divergence is 0 whatever the logits, or outside of them.
    """
    refuse_other_beta(beta)
    student, teacher = _log_probabilities(student_logits, teacher_logits, temperature=temperature)
    mixture = torch.logaddexp(teacher + math.log(beta), student + math.log(1 - beta))
    return (beta * _kl(teacher, mixture) + (1 - beta) * _kl(student, mixture)) * temperature**2


def logit_mse(student_logits: torch.Tensor, teacher_logits: torch.Tensor) -> torch.Tensor:
    """
    Mean squared difference of the logits, each less its mean over the classes (Ba and Caruana, arXiv 1312.6184).

    A constant added to all logits of a clip does not change its softmax, and is therefore left out. There is no
    temperature, and hence no T^2: this is twice the limit of [`forward_kl`] as T grows.

    Args:
        student_logits, teacher_logits: Logits of shape (batch, num_labels).
    """
    student, teacher = (each - each.mean(-1, keepdim=True) for each in _wide(student_logits, teacher_logits))
    return F.mse_loss(student, teacher)


def refuse_other_beta(beta: float):
    """Raise `ValueError` unless `beta` is strictly between 0 and 1."""
    if not 0 < beta < 1:
        raise ValueError(
            f"beta must be above 0 and below 1, got {beta}; for the limits at 0 and 1, set divergence to forward_kl "
            "and to reverse_kl"
        )


def divergence_of(
    name: str, student_logits: torch.Tensor, teacher_logits: torch.Tensor, temperature: float, beta: float
) -> torch.Tensor:
    """The divergence of a name in `DIVERGENCES`, a scalar."""
    if name == "mse":
        return logit_mse(student_logits, teacher_logits)
    if name == "jensen_shannon":
        return jensen_shannon(student_logits, teacher_logits, temperature, beta)
    return {"forward_kl": forward_kl, "reverse_kl": reverse_kl}[name](student_logits, teacher_logits, temperature)


def mixed_answers(name: str, teacher_logits: torch.Tensor, shares: torch.Tensor, temperature: float) -> torch.Tensor:
    """
    The teacher's answers to mixed clips that it has not seen, made of its answers to their parts.

    What the divergence compares is mixed in the clips' shares: the probabilities at the given temperature, or the
    logits less their mean (`"mse"`).

    Args:
        name: A name in `DIVERGENCES`.
        teacher_logits: Logits of shape (batch, num_labels).
        shares: Share of each clip (column) in each mixed clip (row), of shape (batch, batch).
        temperature: T, above 0.

    Returns:
        Logits of shape (batch, num_labels).
    """
    teacher_logits = teacher_logits.to(shares)
    if name == "mse":
        return shares @ (teacher_logits - teacher_logits.mean(-1, keepdim=True))
    probabilities = shares @ (teacher_logits / temperature).softmax(-1)
    return probabilities.log() * temperature  # logits whose softmax is `probabilities`


__all__ = [
    "DIVERGENCES",
    "divergence_of",
    "forward_kl",
    "jensen_shannon",
    "logit_mse",
    "mixed_answers",
    "refuse_other_beta",
    "reverse_kl",
]
