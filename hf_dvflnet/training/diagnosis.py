"""Interprets the figures of a training: confidence intervals, and what to try if nothing was learned."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from scipy.stats import binomtest


def wilson_interval(share: float, clips: int) -> tuple[float, float]:
    """The 95 % interval of an accuracy in [0, 1] that was measured on `clips` independent clips, by Wilson's score."""
    interval = binomtest(round(share * clips), clips).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def accuracy_text(share: float, clips: int) -> str:
    """An accuracy with its interval, such as `65.0% (95 % interval 43% to 82%, 20 clips)`."""
    low, high = wilson_interval(share, clips)
    return f"{share:.1%} (95 % interval {low:.0%} to {high:.0%}, {clips} clips)"


def chance_loss(labels: Sequence[int]) -> float:
    """The cross-entropy of answering each class as often as it occurs in `labels`, without looking at the clips."""
    return sum(
        -labels.count(label) / len(labels) * math.log(labels.count(label) / len(labels)) for label in set(labels)
    )


def smoothing_floor(num_labels: int, smoothing: float) -> float:
    """The least cross-entropy that label smoothing leaves."""
    other = smoothing / num_labels
    right = 1 - smoothing + other
    return -right * math.log(right) - ((num_labels - 1) * other * math.log(other) if other else 0.0)


def diagnose(
    history: Sequence[dict[str, Any]],
    training_labels: Sequence[int],
    validation_labels: Sequence[int],
    top1: float,
    *,
    smoothing: float = 0.0,
    image_network: bool = False,
) -> str | None:
    """
    Say in a sentence or two if a training learned nothing or does not generalize, and what to try; nothing if `top1`,
    the accuracy on validation clips, is better than that of always answering the commonest class.

    `history` is a Trainer's `state.log_history`, with the cross-entropy of the training clips as `loss`. Labels are
    class ids, `smoothing` is that of the training, and `image_network` says that the model is made of one already.
    """
    clips, classes = len(validation_labels), len(set(training_labels))
    commonest = max(Counter(validation_labels).values()) / clips
    losses = [entry["loss"] for entry in history if "loss" in entry][-3:]
    chance, floor = chance_loss(training_labels), smoothing_floor(max(classes, 2), smoothing)
    learned = (chance - sum(losses) / len(losses)) / (chance - floor) if losses and chance > floor else None
    pretrained = "" if image_network else "start from image weights (--image_model efficientnet-lite0)"
    if learned is not None and learned < 0.05:
        tries = [pretrained, "more epochs (--num_train_epochs)", "a learning rate 3 times as high or as low"]
        return (
            f"The training loss ends at {sum(losses) / len(losses):.2f}, no better than chance ({chance:.2f}): the "
            f"model has not learned its own clips. Try, in this order: {_listed(tries)}"
        )
    if wilson_interval(top1, clips)[0] > commonest:
        return None
    what = f"The validation accuracy of {top1:.0%} on {clips} clips cannot be told from chance ({commonest:.0%})"
    if learned is not None and learned > 0.5:
        tries = [
            pretrained,
            "check that the folders of training and validation mean the same by each class",
            "clips of more recordings, rather than more clips of the same ones",
            "fewer classes",
        ]
        return f"{what}, although the model fits its training clips. Try, in this order: {_listed(tries)}"
    tries = [pretrained, "more epochs (--num_train_epochs)", "clips of more recordings", "more validation clips"]
    return f"{what}. Try, in this order: {_listed(tries)}"


def _listed(tries: Sequence[str]) -> str:
    return "; ".join(f"({number}) {one}" for number, one in enumerate(filter(None, tries), start=1))
