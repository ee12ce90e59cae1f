"""
A faster form of the network for inference on a CPU in float32, with the same answers: `prepare_for_inference`.

It does less arithmetic. The convolutions along frames, a third of a block's multiply-adds, are computed by Toom-Cook's
method in the form of Winograd (Lavin and Gray, arXiv 1509.09308) in one dimension: of kernel 3, 4 frames take 6
products instead of 12, and of kernel 5, 8 instead of 20. The linear layer before the first of them is multiplied into
its weights.

It moves less memory, too. Clips of large maps are computed one by one, and positions and frames a few at a time
wherever they do not need the others, so that what lies between two layers stays in the processor's cache. And query,
context and gates have a matrix product each, since one product with an odd number of outputs is slow. Products are of
two-dimensional matrices where that can be, so that exported programs add a bias in the product, too.
"""

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from ..modeling_videofocalnet import PastFrames


TILE = 4  # frames that one set of products gives
# Where polynomials are evaluated, besides infinity: the first 5 for kernel 3, all for kernel 5. Of the sets that were
# tried, this one rounds least.
POINTS = (0.0, 1.0, -1.0, 2.0, -0.5, -2.0, 0.5)
# How much is computed at a time: what lies between two layers then has some MB at most.
ROWS = 784  # positions that the MLP computes at a time, in whole frames
VALUES = ROWS * 96  # that it computes at least
POSITIONS = 256  # that the temporal context takes, of all frames
CLIP_VALUES = 2**18  # of a clip's map; below, several clips fit into the cache, and fewer calls are faster
LEAST_VALUES = 8192  # of a clip's map; below, more calls cost more than fewer products gain


def powers(kernel_size: int, columns: int) -> np.ndarray:
    """What a polynomial's `columns` coefficients contribute at each point: (points, columns), infinity last."""
    finite = np.vander(POINTS[: TILE + kernel_size - 2], columns, increasing=True)
    return np.vstack([finite, np.eye(columns)[-1:]])


@lru_cache
def frame_matrices(kernel_size: int, frames: int) -> tuple[np.ndarray, np.ndarray]:
    """
    The matrices (points * tiles, frames) to the factors of the products, and (frames, points * tiles) back.

    Each tile reads some frames before the first or after the last. Their columns are left out, which is the padding
    with zeros, and so are the rows of frames that the last tile would give beyond the last.
    """
    points, padding, tiles = TILE + kernel_size - 1, kernel_size // 2, -(-frames // TILE)
    forward = np.zeros((points, tiles, padding + frames + points))
    back = np.zeros((tiles * TILE, points, tiles))
    for tile in range(tiles):
        first = tile * TILE
        forward[:, tile, first : first + points] = np.linalg.inv(powers(kernel_size, points)).T
        back[first : first + TILE, :, tile] = powers(kernel_size, TILE).T
    there = forward[:, :, padding : padding + frames]
    return there.reshape(-1, frames).astype(np.float32), back[:frames].reshape(frames, -1).astype(np.float32)


class ShortConvolution:
    """
    A convolution along frames with zero padding, in fewer products, after a linear layer if one is given.

    Args:
        convolution: Has a kernel of shape (3, 1) or (5, 1), and no bias.
        weight, bias: Those of the linear layer, (channels, in_channels) and (channels,).
    """

    def __init__(self, convolution: nn.Conv2d, weight: torch.Tensor | None = None, bias: torch.Tensor | None = None):
        kernel = convolution.weight.detach().double().squeeze(3)  # (out_channels, channels, kernel_size)
        self.kernel_size = kernel.shape[2]
        at_points = torch.from_numpy(powers(self.kernel_size, self.kernel_size))
        factors = torch.einsum("pk,oik->pio", at_points, kernel)
        self.bias = None if bias is None else (bias.detach().double() @ factors).float()  # (points, out_channels)
        if weight is not None:
            factors = weight.detach().double().T @ factors
        self.factors = factors.float()  # (points, in_channels, out_channels)

    def __call__(self, hidden_states: torch.Tensor) -> torch.Tensor:
        # hidden_states: (frames, positions, channels)
        frames, positions, channels = hidden_states.shape
        forward, back = map(torch.from_numpy, frame_matrices(self.kernel_size, frames))
        at_points = (forward @ hidden_states.flatten(1)).view(len(self.factors), -1, channels)
        products = torch.bmm(at_points, self.factors)  # `@` would have programs copy the factors for each clip
        output = (back @ products.view(len(forward), -1)).view(frames, positions, -1)
        if self.bias is not None:
            # by the padding, what the bias contributes differs from frame to frame
            contributed = forward.sum(1).view(len(self.bias), -1, 1) * self.bias[:, None]
            output = output + (back @ contributed.flatten(0, 1))[:, None]
        return output


def in_pieces(function: Callable, hidden_states: torch.Tensor, size: int, dim: int) -> torch.Tensor:
    if torch.compiler.is_compiling():  # exporters included: a program would get all of it for every piece
        return function(hidden_states)
    return torch.cat([function(piece) for piece in hidden_states.split(size, dim)], dim)


def rows_of(linear: nn.Linear, start: int, stop: int | None, hidden_states: torch.Tensor) -> torch.Tensor:
    return on_matrix(lambda rows: F.linear(rows, linear.weight[start:stop], linear.bias[start:stop]), hidden_states)


def on_matrix(function: Callable, hidden_states: torch.Tensor) -> torch.Tensor:
    return function(hidden_states.flatten(0, -2)).view(*hidden_states.shape[:-1], -1)


def has_faster_form(modulation: Any) -> bool:
    """Whether kernels are dense and of size 3 or 5, and no adapter has replaced a layer whose weights are read."""
    convolutions = modulation.temporal_focal_layers
    linears = (modulation.projection_in, modulation.temporal_projection_in)
    return all(type(layer) is nn.Linear for layer in linears) and all(
        type(layer) is nn.Conv2d and layer.groups == 1 and layer.kernel_size in ((3, 1), (5, 1))
        for layer in convolutions
    )


class InferenceForm(nn.Module):
    """Computes what a plain module does, with its children: weights and checkpoints keep their names."""

    plain: Any

    def __init__(self, plain: Any):
        super().__init__()
        self._modules = plain._modules  # the same dictionary: whoever replaces a child replaces it in both
        self.__dict__["plain"] = plain  # is no child itself
        self.train(plain.training)


class InferenceStage(InferenceForm):
    def forward(
        self, hidden_states: torch.Tensor, past: PastFrames | None = None, output_modulators: bool = False
    ) -> tuple[torch.Tensor, ...]:
        # hidden_states: (batch, frames, height, width, channels)
        if past is not None or torch.compiler.is_compiling() or hidden_states.device.type != "cpu":
            return self.plain(hidden_states, past, output_modulators)
        if len(hidden_states) == 1 or hidden_states[0].numel() < CLIP_VALUES:
            return self.plain(hidden_states, None, output_modulators)
        clips = [self.plain(clip, None, output_modulators) for clip in hidden_states.split(1)]
        return tuple(torch.cat(outputs) for outputs in zip(*clips, strict=True))


class InferenceMlp(InferenceForm):
    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        # hidden_states: (batch, frames, height, width, channels)
        _, _, height, width, channels = hidden_states.shape
        frames = max(1, max(ROWS, VALUES // channels) // (height * width))
        size = frames * height * width
        return in_pieces(self.plain, hidden_states.flatten(0, 3), size, 0).view(hidden_states.shape)


class InferenceModulation(InferenceForm):
    def __init__(self, plain: Any):
        super().__init__(plain)
        self.transform()
        self.register_load_state_dict_post_hook(InferenceModulation.transform)

    def transform(self, *_):
        """Read the weights, again after others are loaded."""
        linear, (first, *others) = self.plain.temporal_projection_in, self.plain.temporal_focal_layers
        channels = first.in_channels
        self.short_convolutions = [
            ShortConvolution(first, linear.weight[:channels], linear.bias[:channels]),
            *map(ShortConvolution, others),
        ]

    def spatial_modulator(self, hidden_states: torch.Tensor) -> torch.Tensor:
        # hidden_states: (batch * frames, height, width, channels)
        plain, channels = self.plain, hidden_states.shape[-1]
        context = rows_of(plain.projection_in, channels, 2 * channels, hidden_states)
        gates = rows_of(plain.projection_in, 2 * channels, None, hidden_states)
        context = plain.gather_context(context, gates, plain.focal_layers, dim=(1, 2))
        return on_matrix(plain.projection_context, context)

    def temporal_modulator(self, hidden_states: torch.Tensor) -> torch.Tensor:
        # hidden_states: (frames, positions, channels), which these convolutions take as they are
        plain, channels = self.plain, hidden_states.shape[-1]
        gates = rows_of(plain.temporal_projection_in, channels, None, hidden_states)
        context, gathered = hidden_states, hidden_states.new_zeros(())
        for level, convolution in enumerate(self.short_convolutions):
            context = plain.activation(convolution(context))
            gathered = torch.addcmul(gathered, context, gates[..., level : level + 1])
        context = plain.activation(context.mean(0, keepdim=True))
        gathered = torch.addcmul(gathered, context, gates[..., -1:])
        if plain.normalize_modulator:
            gathered = gathered / (len(self.short_convolutions) + 1)
        return on_matrix(plain.temporal_projection_context, gathered)

    def forward(
        self, hidden_states: torch.Tensor, past: PastFrames | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        # hidden_states: (batch, frames, height, width, channels)
        if self.training:
            raise RuntimeError("this model was prepared for inference; load it again to train it")
        batch, frames, _, _, channels = shape = hidden_states.shape
        plain = self.plain
        if (
            past is not None  # few frames at a time
            or hidden_states.dtype != torch.float32
            or hidden_states.device.type != "cpu"
            or frames < TILE
            or math.prod(shape[1:]) < LEAST_VALUES
            or not has_faster_form(plain)
        ):
            return plain(hidden_states, past)
        # frames first, and the positions of all clips together; of one clip, nothing moves
        positions = hidden_states.flatten(2, 3).transpose(0, 1).flatten(1, 2)
        temporal_modulator = in_pieces(self.temporal_modulator, positions, POSITIONS, 1)
        temporal_modulator = temporal_modulator.view(frames, batch, -1, channels).transpose(0, 1).reshape(shape)
        spatial_modulator = self.spatial_modulator(hidden_states.flatten(0, 1)).view(shape)
        query = rows_of(plain.projection_in, 0, channels, hidden_states)
        output = plain.layernorm(query * spatial_modulator * temporal_modulator)
        output = on_matrix(plain.projection_out, output)
        return output, spatial_modulator, temporal_modulator


def prepare_for_inference(model: Any) -> Any:
    """
    Turn a Video-FocalNet into a form that is faster on a CPU in float32, in place.

    The answers are the same but for rounding: logits differ by less than 1e-4. The model keeps its plain weights and
    their names, and is saved as before; it holds another 60 % of them in memory. It cannot be trained any more. On
    other devices and in other types, and where the faster form gains nothing, the plain form computes.

    Args:
        model: Any model of this package in float32 on the CPU. It is put into evaluation mode.

    Returns:
        The model.

    Raises:
        ValueError: If a weight is not float32 on the CPU, or was quantized.
    """
    for name, weight in model.named_parameters():
        if weight.device.type != "cpu" or weight.dtype != torch.float32 or type(weight.data) is not torch.Tensor:
            raise ValueError(
                f"{name} is {weight.dtype} on {weight.device}; only models in float32 on the CPU have a faster form"
            )
    for module in model.eval().requires_grad_(False).modules():
        # by name, since the classes of remote code are others; image networks have stages and modulations, too
        kind = type(module).__name__
        if kind == "VideoFocalNetModel" and not isinstance(module.stages[0], InferenceStage):
            module.stages = nn.ModuleList(map(InferenceStage, module.stages))
        if kind == "VideoFocalNetLayer" and not isinstance(module.mlp, InferenceMlp):
            module.mlp = InferenceMlp(module.mlp)
            if has_faster_form(module.modulation):
                module.modulation = InferenceModulation(module.modulation)
    return model
