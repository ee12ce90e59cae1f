"""
Labels that mean the same to data, model and teacher: classes are matched by name, since their ids may differ, and
labels that do not fit the model are refused where they are loaded.
"""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import datasets
import torch
from transformers import PreTrainedModel
from transformers.utils import logging

from ..data.clips import VideoClipDataset
from ..data.label_sets import are_named, listed, match_classes
from .losses import problem_type


logger = logging.get_logger(__name__)


# Class names


def label_names(model: PreTrainedModel) -> list[str]:
    """The names of a model's classes, in the order of its logits."""
    return [model.config.id2label[index] for index in range(model.config.num_labels)]


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
        dataset: The dataset. The labels of a [`VideoClipDataset`] are translated, also in a
            `Subset` or `ConcatDataset`. Other wrappers may translate labels in their own way.

    Returns:
        The dataset itself, or a view of it with translated labels.

    Raises:
        ValueError: If the model does not know a class, or has too few outputs; if the parts of a `ConcatDataset` have
            different classes, and the model has no class names; or if a dataset of a type whose labels
            cannot be translated has its classes in a different order.
    """
    config = getattr(model, "config", None)
    if isinstance(dataset, torch.utils.data.Subset):
        return _with_parts(dataset, dataset=with_labels_of(model, dataset.dataset))
    if isinstance(dataset, torch.utils.data.ConcatDataset):
        lists = [names for part in dataset.datasets if (names := class_names(part)) is not None]
        other = next((names for names in lists if names != lists[0]), None)
        if other is not None and not (getattr(config, "id2label", None) and are_named(label_names(model))):
            raise ValueError(
                f"the parts of a ConcatDataset have different classes, {listed(lists[0])} and {listed(other)}, and "
                "the model has no class names to match them with; create the model with all of them (id2label)"
            )
        return _with_parts(dataset, datasets=[with_labels_of(model, part) for part in dataset.datasets])
    names = class_names(dataset)
    if names is None or not getattr(config, "id2label", None):
        return dataset
    theirs = label_names(model)
    if are_named(theirs):
        ids = match_classes(names, theirs, of=("data", "model"))
    elif len(theirs) >= len(names):
        ids = list(range(len(names)))
    else:
        raise ValueError(
            f"the model has {len(theirs)} outputs, but the data has {len(names)} classes; create the model with "
            f"num_labels={len(names)}, or better with the class names (id2label)"
        )
    if isinstance(dataset, VideoClipDataset):
        return dataset.with_label_ids(ids)
    if ids != list(range(len(ids))):
        moved = next(index for index, number in enumerate(ids) if index != number)
        message = (
            f"the model has the data's classes in a different order: {names[moved]!r} is class {moved} of the data, "
            f"but class {ids[moved]} of the model"
        )
        if not (isinstance(dataset, datasets.Dataset) and dataset.format["type"] == "custom"):
            raise ValueError(f"{message}. Translate the labels, or create the model with the data's id2label")
        logger.warning_once(
            f"{message}. The labels are used unchanged; check that the dataset's transform translates them"
        )
    return dataset


def _with_parts(wrapper: Any, **parts: Any) -> Any:
    """A copy of a wrapper with other parts; itself if these are the same."""
    if all(getattr(wrapper, name) == value for name, value in parts.items()):
        return wrapper
    wrapper = copy.copy(wrapper)
    vars(wrapper).update(parts)
    return wrapper


def refuse_other_classes(teacher: PreTrainedModel, names: Sequence[str] | None):
    """Raise `ValueError` unless a teacher has the data's classes, in any order; data without names has any."""
    if names is None:
        return
    theirs = label_names(teacher)
    if not are_named(theirs):
        raise ValueError(
            f"the teacher's classes have no names ({listed(theirs)}), so they cannot be matched with those of the "
            f"data ({listed(names)}). If it was trained on these classes, write them into its config.json (id2label "
            "and label2id), in the order of its outputs"
        )
    try:
        match_classes(names, theirs, of=("data", "teacher"))
        match_classes(theirs, names, of=("teacher", "data"))
    except ValueError as error:
        raise ValueError(
            f"{error}. Choose a teacher that was trained on these classes, or train one on this data first"
        ) from error


def balanced_class_weights(dataset: Any, num_labels: int) -> torch.Tensor:
    """
    Weights that are inversely proportional to how often each class occurs, as with `class_weight="balanced"` in
    scikit-learn: `clips / (classes * clips of the class)`. Their mean over the clips is 1. A class without clips has
    the weight 0.

    Args:
        dataset: A [`VideoClipDataset`], whose label column is counted. Clips without a label are left out.
        num_labels: Number of classes of the model.

    Raises:
        ValueError: If `dataset` is of another kind or has no labels.
    """
    if not isinstance(dataset, VideoClipDataset) or "label" not in dataset.dataset.column_names:
        raise ValueError(
            "class_weights='balanced' counts the column `label` of a VideoClipDataset, but `train_dataset` is a "
            f"{type(dataset).__name__}{' without one' if isinstance(dataset, VideoClipDataset) else ''}; set "
            "class_weights to 'none', or pass compute_loss_func"
        )
    ids = torch.tensor([-100 if label is None else label for label in dataset.dataset["label"]])
    ids = ids[ids >= 0]
    if dataset.label_ids is not None:
        ids = torch.tensor(dataset.label_ids)[ids]
    counts = ids.bincount(minlength=num_labels).float()
    return torch.where(counts > 0, len(ids) / ((counts > 0).sum() * counts.clamp(min=1)), 0.0)


# Labels of a batch


class FittingLabels:
    """
    A `collate_fn` that checks the labels of the batches of another one ([`fitting_labels`]). It works on the CPU,
    where the data is loaded: on a GPU, each batch would wait for the check, and a label that does not exist ends in a
    CUDA error that does not name it.
    """

    def __init__(self, collate: Callable[[Any], dict[str, Any]], kind: str, num_labels: int):
        self.collate, self.kind, self.num_labels = collate, kind, num_labels

    def __call__(self, items: Any) -> dict[str, Any]:
        batch = self.collate(items)
        if batch.get("labels") is None:
            return batch
        return {**batch, "labels": fitting_labels(batch["labels"], self.kind, self.num_labels, batch.get("clip"))}


def fitting_labels(labels: Any, kind: str, num_labels: int, clips: Sequence[str] | None = None) -> torch.Tensor:
    """
    The labels of a batch as [`soft_loss`] and transformers' losses take them: integers become class ids of shape
    (batch,) for single-label classification, and floats for multiple labels and for regression.

    Raises:
        ValueError: If the labels are not numbers, or not of the shape that fits the problem type; if a class id does
            not exist; if a row of probabilities does not sum to 1; or if one of multiple labels is not in [0, 1].
    """
    if not isinstance(labels, torch.Tensor):
        raise ValueError(f"labels must be numbers, such as class ids from 0 to {num_labels - 1}, got {labels!r:.100}")
    shape, floats = tuple(labels.shape), labels.is_floating_point()
    table = shape == (len(labels), num_labels)

    def refuse(wrong: torch.Tensor, values: torch.Tensor, what: str, expected: str):
        if wrong.any():
            index = int(wrong.nonzero()[0])
            clip = f"clip {clips[index]}" if clips else f"clip {index} of a batch"
            raise ValueError(f"{clip} has {what} {values[index].tolist()}, but {expected}")

    if kind == "single_label_classification":
        if not floats and labels.numel() == len(labels):
            labels = labels.flatten().long()
            unknown = (labels < 0) & (labels != -100) | (labels >= num_labels)
            classes = f"the model has the classes 0 to {num_labels - 1}; the label of a clip without one is -100"
            refuse(unknown, labels, "the label", classes)
            return labels
        several = 'For multiple labels per clip, set the model\'s config.problem_type = "multi_label_classification"'
        if not floats or not table:
            raise ValueError(
                "labels must be class ids, integers of shape (batch,), or class probabilities, floats of shape "
                f"(batch, {num_labels}), got {labels.dtype} of shape {shape}. {several}"
            )
        sums = labels.float().sum(-1)
        reason = f"labels of this shape are class probabilities, so each row must sum to 1. {several}"
        refuse((sums - 1).abs() > 1e-3, sums, "a row that sums to", reason)
    elif not table and not (kind == "regression" and num_labels == 1 and labels.numel() == len(labels)):
        raise ValueError(
            f"the model has {num_labels} outputs and the problem type {kind}, so labels must have the shape (batch, "
            f"{num_labels}), got {shape}. For one label per clip, set the model's config.problem_type = "
            '"single_label_classification"'
        )
    elif kind == "multi_label_classification":
        wrong = ~((labels >= 0) & (labels <= 1))  # NaN too
        refuse(wrong.any(-1), labels, "the labels", "multiple labels per clip are 0 or 1, or probabilities")
    return labels if floats else labels.float()


# Classifiers


def refuse_other_than_classifier(model: Any, role: str):
    """Raise `ValueError` unless a model, such as the `"teacher"`, classifies clips that have one label each."""
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
