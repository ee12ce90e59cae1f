"""Matches the classes of a dataset, a model and a teacher by name, since their class ids may differ."""

from collections.abc import Sequence
from typing import Any

import datasets
import torch
from transformers import PreTrainedModel
from transformers.utils import logging

from ..data.clips import VideoClipDataset, VideoClipStream
from ..data.label_sets import are_named, match_classes


logger = logging.get_logger(__name__)


def label_names(model: PreTrainedModel) -> list[str]:
    """The names of a model's classes, in the order of its logits."""
    return [model.config.id2label[index] for index in range(model.config.num_labels)]


def label_order(student: PreTrainedModel, teacher_names: Sequence[str]) -> torch.Tensor:
    """
    The teacher's class id for each of the student's classes, matched by name: int64 of shape (num_labels,).

    Raises:
        ValueError: If student and teacher do not have the same class names, or if a name occurs twice.
    """
    names = label_names(student)
    match_classes(teacher_names, names, of=("teacher", "student"))
    return torch.tensor(match_classes(names, teacher_names, of=("student", "teacher")))


def with_labels_of(model: Any, dataset: Any) -> Any:
    """
    Translate the labels of a dataset to the class ids of a model, matched by class name.

    If the dataset has no class names, or the model has only generic ones (`LABEL_0`, `LABEL_1`, ...), the class ids
    are assumed to mean the same in both.

    Args:
        model: A model. A model without a config has no class names.
        dataset: The dataset. The labels of a [`VideoClipDataset`] or [`VideoClipStream`] are translated.

    Returns:
        The dataset itself, or a view of it with translated labels.

    Raises:
        ValueError: If the model does not know a class, or has too few outputs; or if a dataset of a type whose labels
            cannot be translated has its classes in a different order.
    """
    names = class_names(dataset)
    config = getattr(model, "config", None)
    if names is None or not getattr(config, "id2label", None):
        return dataset
    theirs = label_names(model)
    if not are_named(theirs):
        if len(theirs) < len(names):
            raise ValueError(
                f"the model has {len(theirs)} outputs, but the data has {len(names)} classes; create the model with "
                f"num_labels={len(names)}, or better with the class names (id2label)"
            )
        ids = list(range(len(names)))
    else:
        ids = match_classes(names, theirs, of=("data", "model"))
    if isinstance(dataset, (VideoClipDataset, VideoClipStream)):
        return dataset.with_label_ids(ids)
    if ids != list(range(len(ids))):
        moved = next(index for index, number in enumerate(ids) if index != number)
        message = (
            f"the model has the data's classes in a different order: {names[moved]!r} is class {moved} of the data, "
            f"but class {ids[moved]} of the model"
        )
        if not _labels_may_be_translated(dataset):
            raise ValueError(f"{message}. Translate the labels, or create the model with the data's id2label")
        logger.warning_once(
            f"{message}. The labels are used unchanged; check that the dataset's transform translates them"
        )
    return dataset


def refuse_other_classes(teacher: PreTrainedModel, names: Sequence[str] | None):
    """
    Raise `ValueError` unless a teacher has the data's classes, in any order.

    A teacher without class names must have the same number of classes.
    """
    theirs = label_names(teacher)
    if names is None or (not are_named(theirs) and len(theirs) == len(names)):
        return
    try:
        match_classes(names, theirs, of=("data", "teacher"))
        match_classes(theirs, names, of=("teacher", "data"))
    except ValueError as error:
        raise ValueError(
            f"{error}. Choose a teacher that was trained on these classes, or train one on this data first"
        ) from error


def class_names(dataset: Any) -> list[str] | None:
    """
    The class names of a dataset, or None if it has none.

    Supports the datasets of this package and of `datasets`, and torch's `Subset` and `ConcatDataset` of them.
    """
    if isinstance(dataset, torch.utils.data.ConcatDataset):
        found = [class_names(part) for part in dataset.datasets]
        return found[0] if all(names == found[0] for names in found) else None
    features = getattr(dataset, "features", None)
    if isinstance(features, datasets.Features):
        for column in ("labels", "label"):
            if isinstance(features.get(column), datasets.ClassLabel):
                return list(features[column].names)
        return None
    inner = getattr(dataset, "dataset", None)  # the clip datasets and torch's Subset have this attribute
    return None if inner is None else class_names(inner)


def _labels_may_be_translated(dataset: Any) -> bool:
    return isinstance(dataset, datasets.Dataset) and dataset.format["type"] == "custom"


__all__ = ["class_names", "label_names", "label_order", "refuse_other_classes", "with_labels_of"]
