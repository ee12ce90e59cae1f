"""
The published checkpoint format of TalalWasim/Video-FocalNets and hayatkhan8660-maker/DVFL-Net: reads files without
running any code from them, converts the names and shapes of weights to those of this package and back, and writes such
checkpoints.

A checkpoint has the weights under `"model"`, and a configuration node under `"config"`.
"""

import re
import zipfile
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from ..modeling_videofocalnet import VideoFocalNetForVideoClassification


# Fields of the config, and their names in the configuration node of a checkpoint.
PUBLISHED_FIELDS = {
    "num_frames": "DATA.NUM_FRAMES",
    "image_size": "DATA.IMG_SIZE",
    "drop_path_rate": "MODEL.DROP_PATH_RATE",
    "tubelet_size": "MODEL.TUBELET_SIZE",
    "num_labels": "MODEL.NUM_CLASSES",
    "patch_size": "MODEL.FOCAL.PATCH_SIZE",
    "num_channels": "MODEL.FOCAL.IN_CHANS",
    "embed_dim": "MODEL.FOCAL.EMBED_DIM",
    "depths": "MODEL.FOCAL.DEPTHS",
    "mlp_ratio": "MODEL.FOCAL.MLP_RATIO",
    "focal_levels": "MODEL.FOCAL.FOCAL_LEVELS",
    "focal_windows": "MODEL.FOCAL.FOCAL_WINDOWS",
    "use_conv_embed": "MODEL.FOCAL.USE_CONV_EMBED",
    "use_layerscale": "MODEL.FOCAL.USE_LAYERSCALE",
    "use_post_layernorm": "MODEL.FOCAL.USE_POSTLN",
    "use_post_layernorm_in_modulation": "MODEL.FOCAL.USE_POSTLN_IN_MODULATION",
    "normalize_modulator": "MODEL.FOCAL.NORMALIZE_MODULATOR",
}
FRAME_INTERVAL = "AUG.FRAME_INTERVAL"

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
STEM = "videofocalnet.embeddings.projection.weight"


class _ConfigNode:
    """Replaces `yacs.config.CfgNode` while a checkpoint is read: a plain ordered dict, without any code of yacs."""

    def __new__(cls, *args, **kwargs):
        return OrderedDict()


def load_published_checkpoint(path: str | Path) -> dict[str, Any]:
    """
    Read a published `.pth` or `.safetensors` file without running any code from it and without yacs.

    Returns the content of the file: `{"model": state_dict, "config": nested dicts, "epoch": ..., ...}`, or a bare
    state dict.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If the file is not a PyTorch checkpoint, or contains objects other than tensors, numbers, text and
            the configuration node.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        _refuse_packed(path)
        with torch.serialization.safe_globals([(_ConfigNode, "yacs.config.CfgNode")]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # a damaged or hostile file may cause any
        reason = str(error).split("\n")[0].split(". This file")[0] or type(error).__name__
        raise ValueError(f"{path}: cannot be read as a published checkpoint: {reason}") from error


def _refuse_packed(path: Path):
    """Refuse a compressed archive, which could fill the memory. PyTorch compresses no weights."""
    with open(path, "rb") as file:
        if file.read(2) != b"PK":  # the format before PyTorch 1.6, which has no compression
            return
        with zipfile.ZipFile(file) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
    if unpacked > path.stat().st_size:
        raise ValueError(f"it has {path.stat().st_size} bytes, but {unpacked} when it is unpacked")


def publish_checkpoint(model: VideoFocalNetForVideoClassification, frame_interval: int = 4) -> dict[str, Any]:
    """
    Return a checkpoint in the published format, `{"model": state_dict, "config": nested dicts}`, for `torch.save`.

    The configuration consists of plain dicts with the published names. The format has no place for class names.
    """
    if not isinstance(model, VideoFocalNetForVideoClassification):
        raise ValueError(f"{type(model).__name__} has no published form; only a Video-FocalNet has")
    config: dict[str, Any] = {"AUG": {"FRAME_INTERVAL": frame_interval}}
    for name, published in PUBLISHED_FIELDS.items():
        *sections, last = published.split(".")
        node = config
        for section in sections:
            node = node.setdefault(section, {})
        node[last] = getattr(model.config, name)
    return {"model": publish_state_dict(model), "config": config}


def look_up(config: Any, name: str) -> Any:
    """Return the value of a name such as `MODEL.FOCAL.DEPTHS` in nested dicts, or None."""
    for part in name.split("."):
        config = config.get(part) if isinstance(config, Mapping) else None
    return config


def rename_published_key(key: str) -> str:
    """Return this package's name for a published weight name, and any other name unchanged."""
    return _rename(key, _PUBLISHED_NAMES, 1)


def publish_key(key: str) -> str:
    """Return the published name for a weight name of this package, and any other name unchanged."""
    return _rename(key, [(ours, published) for published, ours in reversed(_PUBLISHED_NAMES)], -1)


def rename_transformers_key(key: str) -> str:
    """Return this package's name for a weight name of transformers' FocalNet, and any other name unchanged."""
    return _rename(key, _TRANSFORMERS_NAMES, 1)


def _rename(key: str, rules: Iterable[tuple[str, str]], stages: int) -> str:
    """Published downsamplings end a stage, those of this package begin the next one, `stages` further."""
    renamed = key
    for old, new in rules:
        pattern = re.escape(old).replace(r"\^", "^").replace(r"\#", r"(\d+)")
        new = new.removeprefix("^").replace("#", r"\1", 1).replace("#", r"\2")
        renamed = re.sub(pattern, new, renamed)
    if renamed == key:
        return key
    return re.sub(r"\.(\d+)\.downsample\.", lambda match: f".{int(match[1]) + stages}.downsample.", renamed)


def reshape_weight(key: str, weight: torch.Tensor) -> torch.Tensor:
    """Return a weight, under this package's name, in the shape that this package uses."""
    if key.endswith("projection_context.weight"):
        return weight.flatten(1)
    if ".temporal_focal_layers." in key:
        return weight.unsqueeze(-1)
    if key == STEM and weight.ndim == 5:
        return weight.transpose(1, 2).flatten(1, 2)
    return weight


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
