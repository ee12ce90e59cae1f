"""Errors for a loss or weights that are not finite. They name the clips of the step."""

from collections.abc import Sequence

import torch
from accelerate.utils import gather_object
from torch import nn
from torch.distributed import get_rank, is_initialized


def not_finite(micro_batches: Sequence[tuple[torch.Tensor, Sequence[str]]], step: int, rate: float) -> RuntimeError:
    """
    Build the error for a step whose loss is not finite on at least one process. All processes must call it.

    Args:
        micro_batches: Loss and clip names of each micro-batch of this process.
        step: Number of the step, starting at 1.
        rate: Learning rate of the step.
    """
    here = [
        f"{loss.item()} on process {_process()} (clips: {_listed(clips)})"
        for loss, clips in micro_batches
        if not loss.isfinite()
    ]
    return RuntimeError(
        f"The loss of step {step} is not finite: {'; '.join(gather_object(here))}. The weights have not been updated, "
        "and nothing of this step is saved. Check these clips and their labels, or lower the learning rate (now "
        f"{rate:g}), then resume the run from its last checkpoint"
    )


def refuse_broken_weights(model: nn.Module, step: int, clips: Sequence[str]):
    """Raise `RuntimeError` if a weight is not finite after a step. `clips` are those of this process in the step."""
    weights = (getattr(parameter, "_local_tensor", parameter) for parameter in model.parameters())
    if not all(weight.isfinite().all() for weight in weights):
        raise RuntimeError(
            f"The weights are not finite after step {step}, although its loss was finite. They are not saved. Clips "
            f"of this step on process {_process()}: {_listed(clips)}"
        )


def _process() -> int:
    return get_rank() if is_initialized() else 0


def _listed(clips: Sequence[str]) -> str:
    return ", ".join(clips) or "the dataset gives no names"


__all__ = ["not_finite", "refuse_broken_weights"]
