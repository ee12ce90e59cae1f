"""One level of focal modulation, in fewer passes over the memory in training: `add_gated_context`."""

from typing import Any

import torch
from torch.nn import functional as F


class GatedContext(torch.autograd.Function):
    """
    `gathered + gelu(hidden_states) * gate`, and `gelu(hidden_states)`.

    PyTorch's own backward pass of these takes five passes over the map, and keeps the context for it. Here it takes
    three, and computes the context again.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(
        gathered: torch.Tensor, hidden_states: torch.Tensor, gate: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        context = F.gelu(hidden_states)
        return torch.addcmul(gathered, context, gate), context

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[torch.Tensor, ...], output: tuple[torch.Tensor, ...]):
        _, hidden_states, gate = inputs
        ctx.save_for_backward(hidden_states, gate)

    @staticmethod
    def backward(ctx: Any, gathered: torch.Tensor, context: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        # the gradients of both outputs
        hidden_states, gate = ctx.saved_tensors
        of_context = torch.ops.aten.gelu_backward(torch.addcmul(context, gathered, gate), hidden_states)
        of_gate = F.gelu(hidden_states).mul_(gathered).sum(1, keepdim=True)
        return gathered if ctx.needs_input_grad[0] else None, of_context, of_gate


def add_gated_context(
    gathered: torch.Tensor, hidden_states: torch.Tensor, gate: torch.Tensor, activation: torch.nn.Module
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Add a level's context to those of the levels before it.

    Args:
        gathered: The sum so far, of the shape of `hidden_states`, or of shape () before the first level.
        hidden_states: Output of the level's convolution, (n, channels, rows, columns).
        gate: (n, 1, rows, columns)
        activation: Gives the context.

    Returns:
        `gathered + activation(hidden_states) * gate`, and `activation(hidden_states)`.
    """
    training = torch.is_grad_enabled() and hidden_states.requires_grad and gate.requires_grad
    is_gelu = getattr(activation, "act", None) is F.gelu
    if training and is_gelu and not torch.compiler.is_compiling():  # a compiler chooses passes by itself
        return GatedContext.apply(gathered, hidden_states, gate)
    context = activation(hidden_states)
    return torch.addcmul(gathered, context, gate), context  # multiplies and adds in one pass over the memory
