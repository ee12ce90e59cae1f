"""Whether one model can teach another: both are classifiers with one label per clip, and share no weights."""

import math
from typing import Any

import torch
from transformers.utils import logging

from .losses import problem_type


logger = logging.get_logger(__name__)


def refuse_other_than_classifier(model: Any, role: str):
    """
    Raise `ValueError` unless a model classifies clips that have one label each.

    `role` is what the model is called in the message, such as `"teacher"`.
    """
    if getattr(model, "config", None) is None:
        raise ValueError(
            f"the {role} must be a video classifier of transformers or of this package, got {type(model).__name__}"
        )
    kind = problem_type(model.config)
    if kind != "single_label_classification":
        raise ValueError(
            f"distillation needs one label per clip, but the {role} has num_labels={model.config.num_labels} and the "
            f"problem_type {kind!r}: softmaxes of its logits say nothing. For two classes, set num_labels=2"
        )


def refuse_shared_weights(student: torch.nn.Module, teacher: torch.nn.Module):
    """Raise `ValueError` if a weight belongs to both models: freezing the teacher would freeze the student."""
    weights = {id(weight) for weight in teacher.parameters()}
    shared = [name for name, weight in student.named_parameters() if id(weight) in weights]
    if shared:
        raise ValueError(
            f"teacher and student share {len(shared)} weights, such as {shared[0]}, but the teacher is frozen; give "
            "the teacher weights of its own, for example with copy.deepcopy"
        )


def logits_of(outputs: Any, role: str, num_labels: int) -> torch.Tensor:
    """
    The logits in a model's outputs, of shape (batch, num_labels).

    Raises:
        ValueError: If there are none, since the model has no head, or if their shape is another one.
    """
    # of a tuple with `config.return_dict=False`, for clips without labels
    logits = outputs[0] if isinstance(outputs, tuple) else getattr(outputs, "logits", None)
    if logits is None or logits.ndim != 2 or logits.shape[1] != num_labels:
        found = "no logits" if logits is None else f"logits of shape {tuple(logits.shape)}"
        raise ValueError(
            f"the {role} gives {found} ({type(outputs).__name__}); expected is a video classifier with a head, whose "
            f"logits have the shape (batch, {num_labels})"
        )
    return logits


def warn_of_chance(metrics: dict[str, float], num_labels: int):
    """Warn if a teacher's accuracy, as returned by `evaluate_teacher`, is not known or no better than chance."""
    clips, chance = metrics["teacher_clips"], 1 / num_labels
    if not clips:
        logger.warning("No evaluation clip has a label, so the teacher's accuracy is not known")
        return
    accuracy = metrics["teacher_top1_accuracy"]
    if accuracy <= chance + 2 * math.sqrt(chance * (1 - chance) / clips):
        logger.warning(
            f"The teacher's accuracy is {accuracy:.1%} on {clips} evaluation clips, no better than chance "
            f"({chance:.1%}). Check that its head was trained, and on these classes"
        )


__all__ = ["logits_of", "refuse_other_than_classifier", "refuse_shared_weights", "warn_of_chance"]
