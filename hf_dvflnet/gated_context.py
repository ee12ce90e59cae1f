"""One level of focal modulation, which keeps less for the backward pass: `add_gated_context`."""

from typing import Any

import torch
from torch.nn import functional as F


class GatedContext(torch.autograd.Function):
    """
    `gathered + gelu(hidden_states) * gate`, and `gelu(hidden_states)`.

    The backward pass computes the context again, which PyTorch's would keep: at the last level nothing else needs it.
    And it adds up the gradients of the context in the pass that computes them.
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
        ctx.save_for_forward(hidden_states, gate)

    @staticmethod
    def backward(ctx: Any, of_gathered: torch.Tensor, of_context: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        # the gradients of both outputs
        hidden_states, gate = ctx.saved_tensors
        of_context = torch.addcmul(of_context, of_gathered, gate)
        of_hidden_states = torch.ops.aten.gelu_backward(of_context, hidden_states)
        of_gate = (F.gelu(hidden_states) * of_gathered).sum(1, keepdim=True)
        return of_gathered if ctx.needs_input_grad[0] else None, of_hidden_states, of_gate

    @staticmethod
    def jvp(ctx: Any, *tangents: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        hidden_states, gate = ctx.saved_tensors
        of_gathered, of_hidden_states, of_gate = (0.0 if tangent is None else tangent for tangent in tangents)
        of_context = torch.ops.aten.gelu_backward(of_hidden_states + torch.zeros_like(hidden_states), hidden_states)
        return of_gathered + of_context * gate + F.gelu(hidden_states) * of_gate, of_context


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
    is_recorded = torch.is_grad_enabled() and hidden_states.requires_grad and gate.requires_grad
    is_gelu = getattr(activation, "act", None) is F.gelu
    # compilers choose by themselves what to compute again, and traces hold plain operations
    if is_recorded and is_gelu and not (torch.compiler.is_compiling() or torch.jit.is_tracing()):
        return GatedContext.apply(gathered, hidden_states, gate)
    context = activation(hidden_states)
    return torch.addcmul(gathered, context, gate), context  # multiplies and adds in one pass over the memory
