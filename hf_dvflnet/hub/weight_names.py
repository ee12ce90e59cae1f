"""Converts published names and shapes of weights to those of this package, and back."""

import re
from collections.abc import Iterable, Mapping

import torch

from ..modeling_videofocalnet import VideoFocalNetForVideoClassification


# Published weight names and those of this package. `#` is a number, `^` the beginning of a name. Each rule is applied
# once, in this order.
_PUBLISHED_NAMES = [
    ("^patch_embed.proj.", "^videofocalnet.embeddings.projection."),
    ("^patch_embed.norm.", "^videofocalnet.embeddings.norm."),
    ("^norm.", "^videofocalnet.layernorm."),
    ("^head.", "^classifier."),
    ("^layers.#.downsample.proj.", "^videofocalnet.stages.#.downsample.projection."),
    ("^layers.#.downsample.norm.", "^videofocalnet.stages.#.downsample.norm."),
    ("^layers.#.blocks.#.", "^videofocalnet.stages.#.layers.#."),
    (".modulation.f.", ".modulation.projection_in."),
    (".modulation.h.", ".modulation.projection_context."),
    (".modulation.proj.", ".modulation.projection_out."),
    (".modulation.ln.", ".modulation.layernorm."),
    (".modulation.f_temporal.", ".modulation.temporal_projection_in."),
    (".modulation.h_temporal.", ".modulation.temporal_projection_context."),
    (".modulation.focal_layers.#.0.", ".modulation.focal_layers.#."),
    (".modulation.focal_layers_temporal.#.0.", ".modulation.temporal_focal_layers.#."),
]
_TRANSFORMERS_NAMES = [
    ("^focalnet.embeddings.patch_embeddings.projection.", "^videofocalnet.embeddings.projection."),
    ("^focalnet.embeddings.norm.", "^videofocalnet.embeddings.norm."),
    ("^focalnet.layernorm.", "^videofocalnet.layernorm."),
    ("^focalnet.encoder.stages.#.downsample.", "^videofocalnet.stages.#.downsample."),
    ("^focalnet.encoder.stages.#.layers.#.", "^videofocalnet.stages.#.layers.#."),
    (".modulation.focal_layers.#.0.", ".modulation.focal_layers.#."),
]


def _rename(key: str, rules: Iterable[tuple[str, str]]) -> str:
    for old, new in rules:
        pattern = re.escape(old).replace(r"\^", "^").replace(r"\#", r"(\d+)")
        groups = iter(range(1, 10))
        key = re.sub(pattern, re.sub("#", lambda _: rf"\{next(groups)}", new.removeprefix("^")), key)  # noqa: B023
    return key


def _move_downsample(key: str, by: int) -> str:
    """Change the stage of a downsampling: published ones end a stage, those of this package begin the next stage."""
    return re.sub(r"\.(\d+)\.downsample\.", lambda match: f".{int(match[1]) + by}.downsample.", key)


def rename_published_key(key: str) -> str:
    """Return this package's name for a published weight name, and any other name unchanged."""
    renamed = _rename(key, _PUBLISHED_NAMES)
    return key if renamed == key else _move_downsample(renamed, by=1)


def publish_key(key: str) -> str:
    """Return the published name for a weight name of this package, and any other name unchanged."""
    renamed = _rename(key, [(ours, published) for published, ours in reversed(_PUBLISHED_NAMES)])
    return key if renamed == key else _move_downsample(renamed, by=-1)


def rename_transformers_key(key: str) -> str:
    renamed = _rename(key, _TRANSFORMERS_NAMES)
    return key if renamed == key else _move_downsample(renamed, by=1)


def reshape_weight(key: str, weight: torch.Tensor) -> torch.Tensor:
    if key.endswith("projection_context.weight"):
        return weight.flatten(1)
    if ".temporal_focal_layers." in key:
        return weight.unsqueeze(-1)
    if key == STEM and weight.ndim == 5:
        return weight.transpose(1, 2).flatten(1, 2)
    return weight


STEM = "videofocalnet.embeddings.projection.weight"


def convert_published_state_dict(state_dict: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """
    Convert published names and shapes to those of [`VideoFocalNetForVideoClassification`]. Values are never changed.

    - A 1x1 convolution becomes a linear layer: (out, in, 1, 1) or (out, in, 1) -> (out, in).
    - A convolution along frames becomes a 2-D convolution: (out, in, k) -> (out, in, k, 1).
    - A tubelet stem becomes a 2-D convolution over folded frames: (out, channels, frames, h, w) -> (out, frames *
      channels, h, w).
    """
    renamed = {rename_published_key(key): weight for key, weight in state_dict.items()}
    return {key: reshape_weight(key, weight) for key, weight in renamed.items()}


def publish_state_dict(model: VideoFocalNetForVideoClassification) -> dict[str, torch.Tensor]:
    """The reverse of [`convert_published_state_dict`]: a model's weights under the published names and shapes."""
    published = {}
    for key, weight in model.state_dict().items():
        if key.endswith(".modulation.projection_context.weight"):
            weight = weight[..., None, None]
        elif key.endswith(".modulation.temporal_projection_context.weight"):
            weight = weight[..., None]
        elif ".temporal_focal_layers." in key:
            weight = weight.squeeze(-1)
        elif key == STEM and model.config.tubelet_size > 1:
            weight = weight.unflatten(1, (model.config.tubelet_size, -1)).transpose(1, 2)
        published[publish_key(key)] = weight.contiguous()
    return published


__all__ = [
    "STEM",
    "convert_published_state_dict",
    "publish_key",
    "publish_state_dict",
    "rename_published_key",
    "rename_transformers_key",
    "reshape_weight",
]
