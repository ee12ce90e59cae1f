"""
How sure a classifier is: the calibration error of its scores, temperatures that lower it, folded into its head so that
all that calls the model gets calibrated scores, and a threshold below which it gives no answer.

Temperature scaling is from Guo et al. (arXiv 1706.04599), the targets that it is fitted to are from Platt (1999).
"""

import math
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedConfig
from transformers.utils import logging

from ..modeling_videofocalnet import average_views
from .loaded_models import head_of


MIN_CLIPS = 20  # to calibrate on: each of 120 such draws lowered the error (benchmarks/calibration.py)
MIN_POSITIVES = 10  # clips with a label, and without it, for a temperature of its own

logger = logging.get_logger(__name__)


def calibration_error(
    confidence: np.ndarray, right: np.ndarray, weights: np.ndarray | None = None, bins: int = 15
) -> float:
    """
    Expected calibration error, in [0, 1]: the mean distance of confidence and accuracy over bins of equal width.

    Args:
        confidence: The highest score of each clip, (clips,), in [0, 1].
        right: Whether its class is the true one, (clips,).
        weights: How often each clip counts, (clips,); once by default.
        bins: Number of bins.
    """
    number = np.clip((np.asarray(confidence) * bins).astype(int), 0, bins - 1)
    weights = np.ones(len(number)) if weights is None else weights
    distance = np.bincount(number, weights * (confidence - np.asarray(right, dtype=float)), minlength=bins)
    return float(np.abs(distance).sum() / weights.sum())


def error_interval(error: float, drawn: tuple[float, float]) -> tuple[float, float]:
    """
    The interval of a calibration error, from the one in which a bootstrap's errors lie: the basic bootstrap interval
    (Davison and Hinkley, 1997, eq. 5.6).

    Noise in the bins only adds to the error, and drawing clips again adds as much noise again. So the bootstrap's
    errors lie as far above `error` as that lies above the error without noise.
    """
    low, high = drawn
    return max(0.0, 2 * error - high), max(0.0, 2 * error - low)


def fit_temperature(
    logits: torch.Tensor, labels: torch.Tensor, problem_type: str | None = None
) -> float | list[float]:
    """
    The temperature by which logits must be divided so that the scores are as likely as they say.

    It minimizes the negative log-likelihood of the scores that views average to. The targets are not 1 but as for one
    more clip that goes wrong, or without any error among the clips, scores of 100 % would be the best.

    Args:
        logits: Of each view of each clip, (clips, views, num_labels).
        labels: Class ids, (clips,); for `"multi_label_classification"` 0 or 1 for each label, (clips, num_labels).
        problem_type: Of the model's config.

    Returns:
        One temperature; for several labels one each, and 1 for those that fewer than 10 clips have or have not.
    """
    logits = logits.double()
    if problem_type != "multi_label_classification":
        true = labels[:, None]
        return _best(
            lambda temperature: average_views(logits / temperature, problem_type).softmax(-1).gather(1, true),
            torch.ones_like(true),
        )
    counts = labels.sum(0)
    enough = torch.minimum(counts, len(labels) - counts) >= MIN_POSITIVES
    return [
        _best(lambda temperature, of=logits[..., label]: (of / temperature).sigmoid().mean(1), labels[:, label])
        if enough[label]
        else 1.0
        for label in range(logits.shape[-1])
    ]


def _best(chance: Any, happened: torch.Tensor) -> float:
    """The temperature at which chances, a function of it, fit best to what happened, 0 or 1."""
    yes = int(happened.sum())
    targets = torch.where(happened > 0, (yes + 1) / (yes + 2), 1 / (happened.numel() - yes + 2)).double()
    found = minimize_scalar(
        lambda exponent: F.binary_cross_entropy(chance(math.exp(exponent)).clamp(0, 1), targets).item(),
        bounds=(-4, 4),
        method="bounded",
    )
    return math.exp(found.x)


@torch.no_grad()
def divide_logits(model: nn.Module, temperature: float | list[float]):
    """Divide the logits of a classifier, by dividing the weights of its head."""
    divisor = torch.tensor(temperature, dtype=torch.float64)
    for layer in head_of(model).modules():  # of an adapter, the head and its copy
        if isinstance(layer, nn.Linear):
            layer.weight.copy_(layer.weight.double() / divisor.to(layer.weight.device)[..., None])
            layer.bias.copy_(layer.bias.double() / divisor.to(layer.bias.device))


def uncalibrate(model: Any, why: str):
    """
    Take temperature and threshold out of a model, if it has any, and say so in the log.

    A temperature fits the weights for which it was chosen: a model that is trained further, or whose answers are
    learned, must have its own logits.
    """
    config: Any = getattr(model, "config", None)
    if (known := getattr(config, "calibration", None)) is not None:
        temperature = np.array(known["temperature"], dtype=float)
        if not (np.isfinite(temperature) & (temperature > 0)).all():
            raise ValueError(f"the config's calibration has the temperature {known['temperature']}, expected are > 0")
        divide_logits(model, (1 / temperature).tolist())
        del config.calibration
        if hasattr(config, "threshold"):
            del config.threshold
        name = config.name_or_path or "the model"
        logger.warning(f"{name}: its calibration (temperature {known['temperature']}) was taken out, since {why}")


def threshold_of(config: PreTrainedConfig) -> float:
    """The score below which a model gives no answer; 0 without one."""
    threshold = getattr(config, "threshold", None)
    if threshold is None:
        return 0.0
    if not isinstance(threshold, int | float) or not 0 <= threshold <= 1:
        raise ValueError(f"{config.name_or_path or 'the config'}: threshold must be in [0, 1], got {threshold!r}")
    return threshold


def threshold_of_coverage(confidence: np.ndarray, coverage: float) -> float:
    """The highest threshold that at least a share `coverage` of the highest scores of clips, (clips,), reach."""
    return float(np.quantile(confidence, 1 - coverage, method="lower"))


def threshold_of_false_alarms(confidence: np.ndarray, right: np.ndarray, max_false_alarms: float) -> float:
    """
    The lowest threshold with which at most a share `max_false_alarms` of the answers are wrong.

    Args:
        confidence: The highest score of each clip, (clips,).
        right: Whether its class is the true one, (clips,).
        max_false_alarms: In [0, 1].

    Raises:
        ValueError: If there is no such threshold.
    """
    order = np.argsort(-confidence, kind="stable")
    scores, wrong = confidence[order], np.cumsum(~right[order])
    last_of_its_score = np.append(scores[1:] < scores[:-1], True)
    fits = last_of_its_score & (wrong <= max_false_alarms * np.arange(1, len(wrong) + 1))
    if not fits.any():
        raise ValueError(
            f"even the surest of {len(scores)} answers are wrong, so that no threshold keeps false alarms to "
            f"{max_false_alarms:g} of the answers"
        )
    return float(scores[np.flatnonzero(fits)[-1]])
