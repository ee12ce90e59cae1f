"""Losses and weights that are no finite numbers: the errors that name the clips which brought them about."""

from collections.abc import Sequence

import torch
from accelerate.utils import gather_object
from torch import nn
from torch.distributed import get_rank, is_initialized


def not_finite(micro_batches: Sequence[tuple[torch.Tensor, Sequence[str]]], step: int, rate: float) -> RuntimeError:
    """
    The error of a step whose loss is not finite on some process. All processes must call it.

    Args:
        micro_batches: Loss and clips of each micro-batch of this process.
        step: The step, from 1.
        rate: Its learning rate.
    """
    here = [
        f"{loss.item()} on process {_process()} for the clips {_listed(clips)}"
        for loss, clips in micro_batches
        if not loss.isfinite()
    ]
    return RuntimeError(
        f"The loss of step {step} is no finite number: {'; '.join(gather_object(here))}. The weights have not taken "
        "it up, and nothing is saved of this step. Look at these clips and their labels, or lower the learning rate, "
        f"now {rate:g}; then the run can go on from its last checkpoint"
    )


def refuse_broken_weights(model: nn.Module, step: int, clips: Sequence[str]):
    """Raise `RuntimeError` if a weight is not finite after a step, for which this process has seen some clips."""
    weights = (getattr(parameter, "_local_tensor", parameter) for parameter in model.parameters())
    if not all(weight.isfinite().all() for weight in weights):
        raise RuntimeError(
            f"The weights are not finite after step {step}, although its loss was: nothing is written of them. Its "
            f"clips on process {_process()} were {_listed(clips)}"
        )


def _process() -> int:
    return get_rank() if is_initialized() else 0


def _listed(clips: Sequence[str]) -> str:
    return ", ".join(clips) or "that the dataset gives no names of"


__all__ = ["not_finite", "refuse_broken_weights"]
