"""Classes of a data set, a model and its teacher, matched by name: their ids may be in another order."""

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
    The position of each of the student's classes among the teacher's, matched by name: int64 of shape (num_labels,).

    Raises:
        ValueError: If they do not have the same names, or a name twice.
    """
    names = label_names(student)
    match_classes(teacher_names, names, of=("teacher", "student"))
    return torch.tensor(match_classes(names, teacher_names, of=("student", "teacher")))


def with_labels_of(model: Any, dataset: Any) -> Any:
    """
    A data set whose labels are the ids that a model gives their names.

    Data sets without class names, and models that have none of their own (`LABEL_0`, `LABEL_1`, ...), are taken as
    they are: their ids mean the same to both.

    Args:
        model: A model with a config; others have no class names.
        dataset: The data set. The labels of a [`VideoClipDataset`] or [`VideoClipStream`] are translated.

    Returns:
        The data set itself, or a view of it with translated labels.

    Raises:
        ValueError: If the model does not know a class, or a data set of another kind has the classes in another order.
    """
    names = class_names(dataset)
    config = getattr(model, "config", None)
    if names is None or not getattr(config, "id2label", None):
        return dataset
    theirs = label_names(model)
    if not are_named(theirs):
        if len(theirs) < len(names):
            raise ValueError(
                f"the model has {len(theirs)} outputs, and the data {len(names)} classes: give it num_labels="
                f"{len(names)}, or better their names (id2label)"
            )
        ids = list(range(len(names)))
    else:
        ids = match_classes(names, theirs, of=("data", "model"))
    if isinstance(dataset, (VideoClipDataset, VideoClipStream)):
        return dataset.with_label_ids(ids)
    if ids != list(range(len(ids))):
        moved = next(index for index, number in enumerate(ids) if index != number)
        message = (
            f"the model has the data's classes in another order: {names[moved]!r} is class {moved} of the data, and "
            f"class {ids[moved]} of the model"
        )
        if not _labels_may_be_translated(dataset):
            raise ValueError(f"{message}. Translate the labels, or make the model with the data's id2label")
        logger.warning_once(f"{message}. Its labels are taken as they come: does its transform translate them?")
    return dataset


def refuse_other_classes(teacher: PreTrainedModel, names: Sequence[str] | None):
    """Raise `ValueError` unless a teacher has the data's classes, in any order, or as many without names."""
    theirs = label_names(teacher)
    if names is None or (not are_named(theirs) and len(theirs) == len(names)):
        return
    match_classes(names, theirs, of=("data", "teacher"))
    match_classes(theirs, names, of=("teacher", "data"))


def class_names(dataset: Any) -> list[str] | None:
    """
    The class names of a data set of this package or of `datasets`, or of a part or a sum of such; None if it has none.
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
    inner = getattr(dataset, "dataset", None)  # of clips, and of torch's Subset
    return None if inner is None else class_names(inner)


def _labels_may_be_translated(dataset: Any) -> bool:
    return isinstance(dataset, datasets.Dataset) and dataset.format["type"] == "custom"


__all__ = ["class_names", "label_names", "label_order", "refuse_other_classes", "with_labels_of"]
