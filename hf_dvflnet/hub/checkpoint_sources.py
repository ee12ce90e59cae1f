"""Reads a checkpoint to convert: its weights, under this package's names, and the information stored with them."""

import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import FocalNetForImageClassification

from .loading import DAMAGED, read_config
from .published_checkpoint import FRAME_INTERVAL, PUBLISHED_FIELDS, TRAINED_ON, load_published_checkpoint, look_up
from .weight_names import (
    convert_published_state_dict,
    publish_key,
    rename_transformers_key,
    reshape_weight,
)


_FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


@dataclass
class CheckpointSource:
    """A checkpoint: weights under this package's names, and the information stored with them."""

    weights: dict[str, torch.Tensor]
    tubelet_size: int = 1
    stated: dict[str, Any] = field(default_factory=dict)  # fields of the config that the source contains
    frame_interval: int | None = None
    id2label: dict[int, str] | None = None
    left: list[str] = field(default_factory=list)
    training_data: dict[str, Any] | None = None
    known_by: str = "published"  # names in messages: "published" or "transformers"


def read_source(source: str | Path) -> CheckpointSource:
    """
    Read a published file, or a folder or Hub id of transformers' FocalNet.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If the source cannot be read or contains no weights.
    """
    return _read_transformers(str(source)) if _is_transformers_source(source) else _read_file(Path(source))


def _is_transformers_source(source: str | Path) -> bool:
    path = Path(source)
    is_file_name = path.suffix in (".pth", ".pt", ".bin", ".ckpt", ".tar", ".safetensors")
    is_hub_id = not is_file_name and not path.is_absolute() and str(source).count("/") == 1 and "\\" not in str(source)
    return path.is_dir() or (is_hub_id and not path.exists())


def _read_transformers(source: str) -> CheckpointSource:
    try:
        config = read_config(source)
        if config.model_type != "focalnet":
            raise ValueError(
                f"model_type is {config.model_type!r}; of transformers' models, only 'focalnet' can be converted"
            )
        model, info = FocalNetForImageClassification.from_pretrained(
            source, config=config, dtype=torch.float32, output_loading_info=True
        )
    except (pickle.UnpicklingError, *DAMAGED) as error:
        raise ValueError(f"{source}: cannot be read as a FocalNet of transformers: {error}") from error
    lacking = sorted(name for name in info["missing_keys"] if not name.startswith("classifier."))
    left = sorted(info["unexpected_keys"])
    unknown = [name for name in left if not name.startswith(("decoder.", "focalnet.embeddings.mask_token"))]
    if lacking or unknown or info["mismatched_keys"]:
        raise ValueError(
            f"{source}: is not a complete FocalNet. Missing: {', '.join(lacking) or 'none'}. Unexpected: "
            f"{', '.join(unknown) or 'none'}. With a different shape: {info['mismatched_keys'] or 'none'}"
        )
    names = {name: rename_transformers_key(name) for name in model.state_dict() if name not in info["missing_keys"]}
    config = model.config
    stated = {
        name: getattr(config, name)
        for name in ("hidden_act", "layer_norm_eps", "use_post_layernorm", "normalize_modulator")
    }
    return CheckpointSource(
        weights={ours: reshape_weight(ours, model.state_dict()[theirs]) for theirs, ours in names.items()},
        stated=stated,
        id2label=None if info["missing_keys"] else dict(config.id2label),
        left=left,
        known_by="transformers",
    )


def _read_file(path: Path) -> CheckpointSource:
    checkpoint = load_published_checkpoint(path)
    state_dict = checkpoint
    if isinstance(checkpoint, Mapping):
        state_dict = checkpoint.get("model", checkpoint)
    if (
        not isinstance(state_dict, Mapping)
        or not state_dict
        or not all(isinstance(name, str) and isinstance(weight, torch.Tensor) for name, weight in state_dict.items())
    ):
        raise ValueError(f"{path}: contains no state dict, neither at the top level nor under 'model'")
    if all(name.startswith("module.") for name in state_dict):  # saved from DistributedDataParallel
        state_dict = {name.removeprefix("module."): weight for name, weight in state_dict.items()}
    for name, weight in state_dict.items():
        if weight.dtype not in _FLOATS:
            expected = ", ".join(map(str, _FLOATS))
            raise ValueError(f"{path}: {name} has the dtype {weight.dtype}; expected one of {expected}")
        if not weight.numel() or weight.nbytes > weight.untyped_storage().nbytes():
            raise ValueError(f"{path}: {name} has the shape {tuple(weight.shape)}, but contains too few values")
    if any(name.startswith("videofocalnet.") for name in state_dict):
        raise ValueError(f"{path}: the weights already have this package's names; there is nothing to convert")

    try:
        found = CheckpointSource(convert_published_state_dict(state_dict))
    except (IndexError, RuntimeError) as error:
        raise ValueError(f"{path}: a weight has a shape that does not occur in a Video-FocalNet: {error}") from error
    stem = state_dict.get("patch_embed.proj.weight")
    if stem is not None and stem.ndim == 5:
        found.tubelet_size = stem.shape[2]
    config = checkpoint.get("config") if "model" in checkpoint else None
    if isinstance(config, Mapping):
        stated = {name: look_up(config, published) for name, published in PUBLISHED_FIELDS.items()}
        found.stated = {name: value for name, value in stated.items() if value is not None}
        found.frame_interval = look_up(config, FRAME_INTERVAL)
        found.training_data = TRAINED_ON.get(str(look_up(config, "DATA.DATASET")).lower().replace("-", ""))
    return found


def known_name(name: str, found: CheckpointSource) -> str:
    return publish_key(name) if found.known_by == "published" else name


__all__ = ["CheckpointSource", "known_name", "read_source"]
