"""Checks where the data is loaded whether its labels are those of the model's problem type."""

from collections.abc import Callable, Sequence
from typing import Any

import torch


class FittingLabels:
    """
    A `collate_fn` that checks the labels of the batches of another one ([`fitting_labels`]). It works on the CPU,
    where the data is loaded: on a GPU, each batch would wait for the check, and a label that does not exist ends in a
    CUDA error that does not name it.
    """

    def __init__(self, collate: Callable[[Any], dict[str, Any]], kind: str, num_labels: int):
        self.collate, self.kind, self.num_labels = collate, kind, num_labels

    @classmethod
    def of(cls, collate: Callable[[Any], dict[str, Any]], *args) -> "FittingLabels":
        """The check of `collate`, which is returned as it is if it checks already, as a loader that persists does."""
        return collate if isinstance(collate, cls) else cls(collate, *args)

    def __call__(self, items: Any) -> dict[str, Any]:
        batch = self.collate(items)
        if batch.get("labels") is None:
            return batch
        return {**batch, "labels": fitting_labels(batch["labels"], self.kind, self.num_labels, batch.get("clip"))}


def fitting_labels(labels: Any, kind: str, num_labels: int, clips: Sequence[str] | None = None) -> torch.Tensor:
    """
    The labels of a batch as [`soft_loss`] and transformers' losses take them.

    Integers become class ids of shape (batch,) for single-label classification, and floats for multiple labels and
    for regression.

    Args:
        labels: Labels as a dataset gives them.
        kind: The problem type, as returned by [`problem_type`].
        num_labels: Number of outputs of the model.
        clips: Names of the clips, for error messages.

    Raises:
        ValueError: If the labels are not numbers, or not of the shape that fits the problem type; if a class id does
            not exist; if a row of probabilities does not sum to 1; or if one of multiple labels is not in [0, 1].
    """
    if not isinstance(labels, torch.Tensor):
        raise ValueError(f"labels must be numbers, such as class ids from 0 to {num_labels - 1}, got {labels!r:.100}")
    shape, floats = tuple(labels.shape), labels.is_floating_point()
    table = shape == (len(labels), num_labels)
    if kind == "single_label_classification":
        if not floats and labels.numel() == len(labels):
            labels = labels.flatten().long()
            _refuse(
                (labels < 0) & (labels != -100) | (labels >= num_labels),
                labels,
                clips,
                f"the model has the classes 0 to {num_labels - 1}; the label of a clip without one is -100",
            )
            return labels
        several = 'For multiple labels per clip, set the model\'s config.problem_type = "multi_label_classification"'
        if not floats or not table:
            raise ValueError(
                "labels must be class ids, integers of shape (batch,), or class probabilities, floats of shape "
                f"(batch, {num_labels}), got {labels.dtype} of shape {shape}. {several}"
            )
        sums = labels.float().sum(-1)
        reason = "labels of this shape are class probabilities, so each row must sum to 1"
        _refuse((sums - 1).abs() > 1e-3, sums, clips, f"{reason}. {several}", "a row that sums to")
    elif not table and not (kind == "regression" and num_labels == 1 and labels.numel() == len(labels)):
        raise ValueError(
            f"the model has {num_labels} outputs and the problem type {kind}, so labels must have the shape (batch, "
            f"{num_labels}), got {shape}. For one label per clip, set the model's config.problem_type = "
            '"single_label_classification"'
        )
    elif kind == "multi_label_classification":
        wrong = ~((labels >= 0) & (labels <= 1))  # NaN too
        _refuse(wrong.any(-1), labels, clips, "multiple labels per clip are 0 or 1, or probabilities", "the labels")
    return labels if floats else labels.float()


def _refuse(
    wrong: torch.Tensor, values: torch.Tensor, clips: Sequence[str] | None, expected: str, what: str = "the label"
):
    """Raise `ValueError` if an entry of `wrong`, of shape (batch,), is true."""
    if wrong.any():
        index = int(wrong.nonzero()[0])
        clip = f"clip {clips[index]}" if clips else f"clip {index} of a batch"
        raise ValueError(f"{clip} has {what} {values[index].tolist()}, but {expected}")


__all__ = ["FittingLabels", "fitting_labels"]
