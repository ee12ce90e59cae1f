"""Places a loaded classifier of any architecture on a device, tells it from others, and reads its pooled features."""

import hashlib
import os
import sys
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import nn


DType = Literal["auto", "float32", "bfloat16", "float16"]


def choose_device(device: str | torch.device = "auto") -> torch.device:
    """
    Return a device of this machine.

    Args:
        device: `"cpu"`, or an accelerator such as `"cuda"`, `"cuda:1"`, `"mps"` or `"xpu"`. `"auto"` is the
            machine's accelerator, or the CPU if it has none. Of several processes that a launcher started on a
            machine (`LOCAL_RANK`), each gets an accelerator of its own, as long as there are enough.

    Raises:
        ValueError: If there is no such device.
    """
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    count = torch.accelerator.device_count() if accelerator else 0
    own = int(os.environ.get("LOCAL_RANK", 0)) % max(count, 1)
    there = ["cpu", *(f"{accelerator}:{index}" for index in range(count))]
    if device == "auto":
        return torch.device(there[1 + own] if accelerator else "cpu")
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise ValueError(
            f"device {device}: is not the name of a device; this machine has {', '.join(there)}"
        ) from error
    if found.index is None and found.type != "cpu":
        found = torch.device(found.type, own)
    if str(found) not in (*there, "cpu:0"):
        raise ValueError(f"device {device}: is not available; this machine has {', '.join(there)}")
    return found


def place(
    model: Any,
    device: str | torch.device = "auto",
    dtype: DType = "auto",
    *,
    compile: bool = False,
) -> Any:
    """
    Move a model to a device, and return it.

    Args:
        model: The model, in evaluation mode.
        device: See [`choose_device`].
        dtype: Data type of the weights and of the computation; with `"auto"`, weights stay as they are saved.
        compile: Whether to compile the forward pass with `torch.compile`, which happens when it is first called.

    Raises:
        ValueError: If there is no such device or data type.
    """
    if dtype not in ("auto", "float32", "bfloat16", "float16"):
        raise ValueError(f"dtype must be auto, float32, bfloat16 or float16, got {dtype!r}")
    model = model.to(choose_device(device), None if dtype == "auto" else getattr(torch, dtype))
    if compile:
        model.compile()
    return model


def weights_digest(weights: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 digest of the names, data types, shapes and values of a state dict's weights."""
    digest = hashlib.sha256()
    for name, weight in sorted(weights.items()):
        digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}".encode())
        # as bytes, since NumPy has no bfloat16
        digest.update(weight.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def head_of(model: nn.Module) -> nn.Module:
    """
    The head of a classifier. What it is given are the model's pooled features.

    Raises:
        ValueError: If the model has no `classifier`, the name that transformers' video classifiers use.
    """
    head = getattr(model, "classifier", None)
    if not isinstance(head, nn.Module):
        raise ValueError(
            f"{type(model).__name__} has no `classifier`, whose input would be its pooled features; use another "
            "model, or no features"
        )
    return head


def feature_width(model: nn.Module) -> int:
    """Number of values of a model's pooled features."""
    return next(part.in_features for part in head_of(model).modules() if isinstance(part, nn.Linear))


class HeadInput:
    """Records the last input of a model's head."""

    def __init__(self, model: nn.Module):
        self._given: torch.Tensor | None = None
        if "torch._dynamo" in sys.modules:  # else code that was compiled before would run on without the hook
            torch.compiler.reset()
        self._hook = head_of(model).register_forward_pre_hook(self._keep)

    def _keep(self, head: nn.Module, inputs: tuple[torch.Tensor, ...]):
        self._given = inputs[0]

    def take(self) -> torch.Tensor:
        """The features of the last forward pass, of shape (batch, width)."""
        if self._given is None:
            raise RuntimeError("the last forward pass of the model did not call its `classifier`")
        given, self._given = self._given, None
        return given

    def remove(self):
        """Leave the model as it was."""
        self._hook.remove()
