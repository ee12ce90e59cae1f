"""
Tried for training, and left out: convolutions along frames in fewer products, and another backward pass of the
depthwise ones. For each shape of nano at 224 and 64 pixels, two clips, forward and backward, against PyTorch's.

    python benchmarks/training_convolutions.py

Writes the figures as JSON.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from inference_form import STAGES
from machine import machine
from timing import ratio, seconds, take_turns
from torch.nn import functional as F

from hf_dvflnet.inference.inference_form import frame_matrices, powers


CLIPS, FRAMES = 2, 8
SMALL = {96: 16, 192: 8, 384: 4, 768: 2}  # for 64 pixels


class ShortConvolution(torch.autograd.Function):
    """That of the inference form, with a backward pass of as few products, and without a linear layer before it."""

    @staticmethod
    def forward(ctx: Any, hidden_states: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        # hidden_states: (batch, channels, frames, positions), channels-last in memory
        ctx.save_for_backward(hidden_states, weight)
        products = ShortConvolution.at_points(hidden_states, weight, 0) @ ShortConvolution.factors(weight)
        return ShortConvolution.at_frames(products, weight, 1)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        hidden_states, weight = ctx.saved_tensors
        gradients = ShortConvolution.at_points(gradient, weight, 1)
        products = gradients @ ShortConvolution.factors(weight).transpose(1, 2)
        of_factors = (ShortConvolution.at_points(hidden_states, weight, 0).transpose(2, 3) @ gradients).sum(0)
        of_weight = torch.einsum("pk,pio->oik", ShortConvolution.points(weight), of_factors)
        return ShortConvolution.at_frames(products, weight, 0), of_weight.unsqueeze(3)

    @staticmethod
    def points(weight: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(powers(weight.shape[2], weight.shape[2])).float()

    @staticmethod
    def factors(weight: torch.Tensor) -> torch.Tensor:
        return torch.einsum("pk,oik->pio", ShortConvolution.points(weight), weight.squeeze(3))

    @staticmethod
    def matrix(weight: torch.Tensor, back: int) -> torch.Tensor:
        """(points * tiles, frames)"""
        found = torch.from_numpy(frame_matrices(weight.shape[2], FRAMES)[back])
        return found.T if back else found

    @staticmethod
    def at_points(values: torch.Tensor, weight: torch.Tensor, back: int) -> torch.Tensor:
        values = values.permute(0, 2, 3, 1)
        products = ShortConvolution.matrix(weight, back) @ values.flatten(2)
        return products.view(len(values), len(ShortConvolution.points(weight)), -1, values.shape[3])

    @staticmethod
    def at_frames(products: torch.Tensor, weight: torch.Tensor, back: int) -> torch.Tensor:
        matrix = ShortConvolution.matrix(weight, back)
        output = matrix.T @ products.reshape(len(products), len(matrix), -1)
        return output.view(len(products), FRAMES, -1, products.shape[3]).permute(0, 3, 1, 2)


class DepthwiseConvolution(torch.autograd.Function):
    """Its input's gradient as a convolution, its weight's by products of shifted maps."""

    @staticmethod
    def forward(ctx: Any, hidden_states: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(hidden_states, weight)
        return plain_depthwise(hidden_states, weight)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        hidden_states, weight = ctx.saved_tensors
        size, (height, width) = weight.shape[2], gradient.shape[2:]
        padded, maps = F.pad(hidden_states, [size // 2] * 4).permute(0, 2, 3, 1), gradient.permute(0, 2, 3, 1)
        sums = [
            (padded[:, row : row + height, column : column + width] * maps).sum((0, 1, 2))
            for row in range(size)
            for column in range(size)
        ]
        return plain_depthwise(gradient, weight.flip(2, 3)), torch.stack(sums, 1).view(weight.shape)


def plain_short(hidden_states: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return F.conv2d(hidden_states, weight, padding=(weight.shape[2] // 2, 0))


def plain_depthwise(hidden_states: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return F.conv2d(hidden_states, weight, padding=weight.shape[2] // 2, groups=len(weight))


def step(function: Callable, hidden_states: torch.Tensor, weight: torch.Tensor, gradient: torch.Tensor) -> Callable:
    def call() -> list[torch.Tensor]:
        inputs = [hidden_states.requires_grad_(), weight.requires_grad_()]
        output = function(*inputs)
        return [output.detach(), *torch.autograd.grad(output, inputs, gradient)]

    return call


def sides(channels: int, side: int, size: int) -> dict[str, dict[str, Callable]]:
    """Both sides of both kinds of convolution."""
    short = torch.randn(2, CLIPS, FRAMES, side**2, channels).permute(0, 1, 4, 2, 3)
    maps = torch.randn(2, CLIPS * FRAMES, side, side, channels).permute(0, 1, 4, 2, 3)
    dense = torch.randn(channels, channels, size, 1) / (channels * size) ** 0.5
    depthwise = torch.randn(channels, 1, size, size) / size
    return {
        "along frames": {
            "plain": step(plain_short, short[0], dense, short[1]),
            "tried": step(ShortConvolution.apply, short[0], dense, short[1]),
        },
        "depthwise": {
            "plain": step(plain_depthwise, maps[0], depthwise, maps[1]),
            "tried": step(DepthwiseConvolution.apply, maps[0], depthwise, maps[1]),
        },
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/training_convolutions.json"))
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    found: dict[str, Any] = {"machine": machine(), "rounds": arguments.rounds, "shapes": {}}
    for channels, side in (*STAGES.items(), *SMALL.items()):
        for size in (3, 5):
            name = f"{channels} channels, {side} x {side}, kernel {size}"
            found["shapes"][name] = {}
            for kind, calls in sides(channels, side, size).items():
                for plain, tried in zip(calls["plain"](), calls["tried"](), strict=True):
                    torch.testing.assert_close(tried, plain, atol=1e-3 * float(plain.abs().max()), rtol=0)
                times = take_turns(calls, arguments.rounds)
                found["shapes"][name][kind] = {
                    "plain": seconds(times, "plain"),
                    "ratio": ratio(times, "tried", "plain"),
                }
            print(name, {kind: round(each["ratio"]["median"], 2) for kind, each in found["shapes"][name].items()})
    arguments.output.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
