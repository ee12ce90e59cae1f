"""
Losses for labels, divergences of a student from its teacher, and distances of their features and modulators.

All of them return the mean over the batch. Divergences and distances compute in float32, or in float64 if the
student's tensors are float64, and are 0 where student and teacher agree.
"""

import math
from collections.abc import Sequence

import torch
from torch.nn import functional as F
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import ModelOutput

from ..configuration_videofocalnet import VideoFocalNetConfig


# Labels


def problem_type(config: PreTrainedConfig) -> str:
    """
    The problem type: `"single_label_classification"`, `"multi_label_classification"` or `"regression"`.

    If the config does not set it, a model with one output is a regression model, and a model with several outputs is a
    single-label classifier.
    """
    return config.problem_type or ("regression" if config.num_labels == 1 else "single_label_classification")


def soft_loss(
    logits: torch.Tensor,
    labels: torch.Tensor,
    kind: str,
    smoothing: float = 0.0,
    class_weights: torch.Tensor | None = None,
) -> torch.Tensor:
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
            only, like `class_weights`.
        class_weights: Weight of each class, of shape (num_labels,). The weighted losses are divided by the number of
            clips, not by the sum of their weights, so that accumulated batches add up to a larger one.
    """
    logits = logits.float()
    if kind == "regression":
        return F.mse_loss(logits.squeeze(), labels.float().squeeze())
    if kind == "multi_label_classification":
        return F.binary_cross_entropy_with_logits(logits, labels.float())
    if labels.is_floating_point():
        return F.cross_entropy(logits, labels.float(), class_weights, label_smoothing=smoothing)
    labelled = (labels != -100).sum().clamp(min=1)  # PyTorch's mean over zero labels is NaN
    return F.cross_entropy(logits, labels, class_weights, label_smoothing=smoothing, reduction="sum") / labelled


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


# Divergences of logits. At temperature T, the gradient of a divergence of softmaxes shrinks by 1 / T^2. All are
# multiplied by T^2, so that their weight beside the cross-entropy does not depend on T (Hinton et al., arXiv
# 1503.02531).

DIVERGENCES = ("forward_kl", "reverse_kl", "jensen_shannon", "mse")


def _wide(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
    dtype = torch.float64 if tensors[0].dtype == torch.float64 else torch.float32
    return tuple(each.to(dtype) for each in tensors)


def _log_probabilities(*logits: torch.Tensor, temperature: float) -> tuple[torch.Tensor, ...]:
    return tuple(F.log_softmax(each / temperature, dim=-1) for each in _wide(*logits))


def _kl(log_p: torch.Tensor, log_q: torch.Tensor) -> torch.Tensor:
    """KL(p || q). `F.kl_div(input, target)` is KL(target || input): its arguments are in the reverse order."""
    return F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)


def forward_kl(student_logits: torch.Tensor, teacher_logits: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
    """
    `T^2 * KL(teacher || student)` of the softmaxes at temperature T (Hinton et al., arXiv 1503.02531).

    Logits have the shape (batch, num_labels), and T is above 0. The divergence of the DVFL-Net paper. Mode-covering:
    penalizes missing probability mass.
    """
    student, teacher = _log_probabilities(student_logits, teacher_logits, temperature=temperature)
    return _kl(teacher, student) * temperature**2


def reverse_kl(student_logits: torch.Tensor, teacher_logits: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
    """
    `T^2 * KL(student || teacher)` of the softmaxes at temperature T (as in MiniLLM, arXiv 2306.08543).

    Logits have the shape (batch, num_labels), and T is above 0. Mode-seeking: penalizes probability mass where the
    teacher has none.
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
        ValueError: If `beta` is not strictly between 0 and 1. At 0 and 1 the divergence is 0 for all logits.
    """
    refuse_other_beta(beta)
    student, teacher = _log_probabilities(student_logits, teacher_logits, temperature=temperature)
    mixture = torch.logaddexp(teacher + math.log(beta), student + math.log(1 - beta))
    return (beta * _kl(teacher, mixture) + (1 - beta) * _kl(student, mixture)) * temperature**2


def logit_mse(student_logits: torch.Tensor, teacher_logits: torch.Tensor) -> torch.Tensor:
    """
    Mean squared difference of the logits, each less its mean over the classes (Ba and Caruana, arXiv 1312.6184).

    A constant added to all logits of a clip does not change its softmax, and is therefore left out. There is no
    temperature, and hence no T^2: this is twice the limit of [`forward_kl`] as T grows. Logits have the shape (batch,
    num_labels).
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
    The teacher's logits for mixed clips that it has not seen, made of its logits for their parts, (batch, num_labels).

    What the divergence of this name compares is mixed in the clips' shares: the probabilities at the given
    temperature, or the logits less their mean (`"mse"`). `shares`, (batch, batch), has those of each clip (column) in
    each mixed clip (row).
    """
    teacher_logits = teacher_logits.to(shares)
    if name == "mse":
        return shares @ (teacher_logits - teacher_logits.mean(-1, keepdim=True))
    probabilities = shares @ (teacher_logits / temperature).softmax(-1)
    return probabilities.log() * temperature  # logits whose softmax is `probabilities`


# Pooled features. A feature says more about a clip than the scores of a few classes, and a teacher without video
# training has it too: an image network with a new head.


def feature_distance(student_features: torch.Tensor, teacher_features: torch.Tensor) -> torch.Tensor:
    """
    One minus the cosine of the angle between features of shape (batch, width), or between all those of the frames of a
    clip, (batch, frames, width), averaged over the batch: in [0, 2].

    Only directions count, since the scale of a teacher's features depends on its last layer and says nothing about the
    clip.
    """
    student, teacher = (each.flatten(1) for each in _wide(student_features, teacher_features))
    return 1 - F.cosine_similarity(student, teacher, dim=-1).mean()


def relation_distance(student_features: torch.Tensor, teacher_features: torch.Tensor) -> torch.Tensor:
    """
    Difference between the distances of the clips of a batch from each other, as two networks see them: the
    distance-wise loss of relational knowledge distillation (RKD-D, arXiv 1904.05068, equations 6 to 9).

    Each network's distances are divided by their mean over the pairs, and compared by a Huber loss, averaged over the
    pairs. The networks' widths may differ, without a projection. 0 for a single clip.

    Args:
        student_features, teacher_features: (batch, ...), of any widths.
    """
    student, teacher = (F.pdist(each.flatten(1)) for each in _wide(student_features, teacher_features))
    if not len(student):
        return student.sum()
    student, teacher = (each / each.mean().clamp(min=1e-12) for each in (student, teacher))
    return F.smooth_l1_loss(student, teacher)


# Modulators: where in a clip a Video-FocalNet gathers strong context. The channels of two networks do not correspond,
# but their positions do. As in attention transfer (arXiv 1612.03928), the energy of all channels is therefore compared
# as a map over positions, which needs no projection between widths.

MODULATOR_KINDS = {"spatial": ("spatial",), "temporal": ("temporal",), "both": ("spatial", "temporal")}


def channel_energy(modulator: torch.Tensor) -> torch.Tensor:
    """The mean square of a modulator over its last dimension, the channels: (batch, frames, height, width)."""
    return _wide(modulator)[0].square().mean(-1)


def _energy_distance(student_energy: torch.Tensor, teacher_energy: torch.Tensor) -> torch.Tensor:
    if student_energy.shape != teacher_energy.shape:
        frames, height, width = student_energy.shape[1:]
        teacher_energy = F.adaptive_avg_pool3d(teacher_energy, (frames, height, width))
    student, teacher = (F.normalize(energy.flatten(1), dim=-1) for energy in (student_energy, teacher_energy))
    return (student - teacher).square().sum(-1).mean()


def modulator_distance(student_modulator: torch.Tensor, teacher_modulator: torch.Tensor) -> torch.Tensor:
    """
    Distance between the maps of where two modulators are strong, averaged over the batch: 0 if they are strong at the
    same positions in the same proportions, 2 if at no common position.

    A map is the mean square over the channels, divided by its L2 norm over all positions of all frames, since the
    strength of a modulator depends on the weights around it. The distance is the squared L2 norm of the difference.
    This is the activation-based loss of attention transfer (arXiv 1612.03928, with p = 2), squared as in its published
    code, but summed over the positions, so that it does not depend on their number. A map of zeros stays zero.

    Args:
        student_modulator: (batch, frames, height, width, channels), of any dtype.
        teacher_modulator: The teacher's, with any number of channels. If its frames, height or width differ, its map
            is resized to the student's: each cell of the student's grid takes the mean of the teacher's cells that it
            overlaps (`F.adaptive_avg_pool3d`), whether the teacher's grid is finer or coarser.
    """
    return _energy_distance(channel_energy(student_modulator), channel_energy(teacher_modulator))


class MatchedModulators:
    """
    Reads the modulators that are matched, those of the last block of each chosen stage, off a model's output.

    Args:
        student, teacher: The models. Only their configs are read.
        kinds: `"spatial"`, `"temporal"` or `"both"`.
        stages: The stages, numbered from 1; all if None.

    Raises:
        ValueError: If a model is no Video-FocalNet, or if the stages do not pair: one is missing in a model, or all
            are to be matched and the models have different numbers of them.
    """

    def __init__(
        self, student: PreTrainedModel, teacher: PreTrainedModel, kinds: str, stages: Sequence[int] | None = None
    ):
        depths = {}
        for role, model in (("student", student), ("teacher", teacher)):
            if model.config.model_type != VideoFocalNetConfig.model_type:
                raise ValueError(
                    f"the {role} is a {type(model).__name__}, which has no modulators to match; use a "
                    f"{VideoFocalNetConfig.model_type} model or a modulator_weight of 0"
                )
            depths[role] = len(model.config.depths)
        if stages is None and depths["student"] != depths["teacher"]:
            raise ValueError(
                f"the student has {depths['student']} stages and the teacher {depths['teacher']}, so they do not "
                f"pair; choose some from 1 to {min(depths.values())} with modulator_stages"
            )
        self.kinds = MODULATOR_KINDS[kinds]
        self.stages = list(range(1, depths["student"] + 1)) if stages is None else list(stages)
        for role, depth in depths.items():
            if max(self.stages) > depth:
                raise ValueError(
                    f"modulator_stages {self.stages} contain stage {max(self.stages)}, but the {role} has the stages "
                    f"1 to {depth}; choose some that both models have"
                )

    def energies(self, output: ModelOutput) -> list[torch.Tensor]:
        """The energy of each modulator, from the output of a forward pass with `output_modulators=True`."""
        return [
            channel_energy(output[f"{kind}_modulators"][stage - 1]) for kind in self.kinds for stage in self.stages
        ]

    def distance(self, output: ModelOutput, teacher_energies: Sequence[torch.Tensor]) -> torch.Tensor:
        """The mean of [`modulator_distance`] over the modulators, so that it does not depend on their number."""
        pairs = zip(self.energies(output), teacher_energies, strict=True)
        return torch.stack([_energy_distance(student, teacher) for student, teacher in pairs]).mean()
