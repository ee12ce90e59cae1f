"""
Published checkpoints (TalalWasim/Video-FocalNets, hayatkhan8660-maker/DVFL-Net): reading them safely, and naming their
weights as [`VideoFocalNetForVideoClassification`] does.
"""

import pickle
import re
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch


class _ConfigNode:
    """Stands for `yacs.config.CfgNode` while a checkpoint is read: a plain ordered dict, without any code of yacs."""

    def __new__(cls, *args, **kwargs):
        return OrderedDict()


def load_published_checkpoint(path: str | Path) -> dict[str, Any]:
    """
    Read a published `.pth` file without running any code from it and without yacs.

    Returns what the file holds: `{"model": state_dict, "config": nested dicts, "epoch": ..., ...}`, or a bare state
    dict.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is no PyTorch checkpoint, or holds objects other than tensors, numbers, text and the
            configuration node.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file")
    try:
        with torch.serialization.safe_globals([(_ConfigNode, "yacs.config.CfgNode")]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read as a published checkpoint: {error}") from error


# Published name -> ours, in this order, each applied once. `layers.N.downsample` ends stage N there and begins stage
# N + 1 here, which a pattern cannot say: see `rename_published_key`.
_RENAMINGS = [
    (r"^patch_embed\.proj\.", "videofocalnet.embeddings.projection."),
    (r"^patch_embed\.norm\.", "videofocalnet.embeddings.norm."),
    (r"^norm\.", "videofocalnet.layernorm."),
    (r"^head\.", "classifier."),
    (r"^layers\.(\d+)\.downsample\.proj\.", r"videofocalnet.stages.\1.downsample.projection."),
    (r"^layers\.(\d+)\.downsample\.norm\.", r"videofocalnet.stages.\1.downsample.norm."),
    (r"^layers\.(\d+)\.blocks\.(\d+)\.", r"videofocalnet.stages.\1.layers.\2."),
    (r"\.modulation\.f\.", ".modulation.projection_in."),
    (r"\.modulation\.h\.", ".modulation.projection_context."),
    (r"\.modulation\.proj\.", ".modulation.projection_out."),
    (r"\.modulation\.ln\.", ".modulation.layernorm."),
    (r"\.modulation\.f_temporal\.", ".modulation.temporal_projection_in."),
    (r"\.modulation\.h_temporal\.", ".modulation.temporal_projection_context."),
    (r"\.modulation\.focal_layers\.(\d+)\.0\.", r".modulation.focal_layers.\1."),
    (r"\.modulation\.focal_layers_temporal\.(\d+)\.0\.", r".modulation.temporal_focal_layers.\1."),
]


def rename_published_key(key: str) -> str:
    """This package's name for a published weight name; any other name comes back unchanged."""
    key = re.sub(r"^layers\.(\d+)\.downsample\.", lambda match: f"layers.{int(match[1]) + 1}.downsample.", key)
    for pattern, replacement in _RENAMINGS:
        key = re.sub(pattern, replacement, key)
    return key


def convert_published_state_dict(state_dict: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """
    Published names and shapes -> those of [`VideoFocalNetForVideoClassification`]. Values are never changed.

    A 1x1 convolution becomes a linear layer, (out, in, 1, 1) or (out, in, 1) -> (out, in); a convolution along frames
    a 2-D one, (out, in, k) -> (out, in, k, 1); a tubelet stem a 2-D one over folded frames, (out, channels, frames, h,
    w)
    -> (out, frames * channels, h, w).
    """
    converted = {}
    for key, weight in state_dict.items():
        key = rename_published_key(key)
        if key.endswith("projection_context.weight"):
            weight = weight.flatten(1)
        elif ".temporal_focal_layers." in key:
            weight = weight.unsqueeze(-1)
        elif key == "videofocalnet.embeddings.projection.weight" and weight.ndim == 5:
            weight = weight.transpose(1, 2).flatten(1, 2)
        converted[key] = weight
    return converted
