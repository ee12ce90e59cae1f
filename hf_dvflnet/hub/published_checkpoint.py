"""
Reads published checkpoint files without running any code from them, and writes such files.

The format is that of TalalWasim/Video-FocalNets and hayatkhan8660-maker/DVFL-Net: weights under `"model"`, and a
configuration node under `"config"`.
"""

import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from ..modeling_videofocalnet import VideoFocalNetForVideoClassification
from .weight_names import publish_state_dict


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
    # all errors that a damaged or hostile file may cause, except a lack of memory
    except (
        pickle.UnpicklingError,
        zipfile.BadZipFile,
        struct.error,
        SafetensorError,
        RuntimeError,
        EOFError,
        ValueError,
        TypeError,
        AttributeError,
        LookupError,
        OverflowError,
        AssertionError,
    ) as error:
        reason = str(error).split("\n")[0].split(". This file")[0] or type(error).__name__
        raise ValueError(f"{path}: cannot be read as a published checkpoint: {reason}") from error


def _refuse_packed(path: Path):
    """
    Raise `ValueError` if an archive is larger when it is unpacked, because it could fill the memory. PyTorch neither
    compresses weights nor lets them overlap.
    """
    with open(path, "rb") as file:
        if file.read(2) != b"PK":  # the format before PyTorch 1.6, which has no compression
            return
        with zipfile.ZipFile(file) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
    if unpacked > path.stat().st_size:
        raise ValueError(f"it has {path.stat().st_size} bytes, but {unpacked} when it is unpacked")


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
# The lists that a checkpoint was trained on, by `DATA.DATASET` of its configuration.
TRAINED_ON = {
    name: {"benchmark": name, "protocol": protocol, "fold": 1, "split": "train"}
    for name, protocol in (
        *(("ucf50", "dvflnet_8020"), ("ucf101", "dvflnet_8020"), ("hmdb51", "dvflnet")),
        *(("ssv2", "official"), ("kinetics400", "official")),
    )
}


def publish_checkpoint(model: VideoFocalNetForVideoClassification, frame_interval: int = 4) -> dict[str, Any]:
    """
    Return a checkpoint in the published format, `{"model": state_dict, "config": nested dicts}`, for `torch.save`.

    The configuration consists of plain dicts with the published names. The format has no place for class names.
    """
    config: dict[str, Any] = {"AUG": {"FRAME_INTERVAL": frame_interval}}
    for name, published in PUBLISHED_FIELDS.items():
        *sections, last = published.split(".")
        node = config
        for section in sections:
            node = node.setdefault(section, {})
        node[last] = getattr(model.config, name)
    return {"model": publish_state_dict(model), "config": config}


def look_up(config: Mapping[str, Any], name: str) -> Any:
    """Return the value of a name such as `MODEL.FOCAL.DEPTHS` in nested dicts, or None."""
    node: Any = config
    for part in name.split("."):
        if not isinstance(node, Mapping):
            return None
        node = node.get(part)
    return node


__all__ = [
    "FRAME_INTERVAL",
    "PUBLISHED_FIELDS",
    "TRAINED_ON",
    "load_published_checkpoint",
    "look_up",
    "publish_checkpoint",
]
