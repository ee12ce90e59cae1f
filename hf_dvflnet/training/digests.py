"""Digests of the clips and weights that a teacher cache or a checkpoint was written for."""

import hashlib
import json
from typing import Any

import datasets
import pyarrow.compute
from torch import nn
from transformers.utils import is_peft_available

from ..data.video_column import clip_name, video_size
from ..hub.loaded_models import digest_of_weights


def clip_sizes(rows: datasets.Dataset) -> dict[str, int]:
    """Size of each clip's video in bytes, by clip id; -1 for a video at a URL."""
    sizes: dict[str, int] = {}
    if "video_id" not in rows.column_names:
        for video in rows.select_columns("video")["video"]:
            data = video["bytes"]
            sizes[clip_name({"video": video})] = video_size(video["path"]) if data is None else len(data)
        return sizes
    for batch in rows.with_format("arrow").iter(batch_size=1000):
        names = batch["video_id"].to_pylist()
        for chunk in batch["video"].chunks:  # in Arrow format, the size of a video is known without reading its bytes
            paths = chunk.field("path").to_pylist()
            lengths = pyarrow.compute.binary_length(chunk.field("bytes")).to_pylist()
            for path, length in zip(paths, lengths, strict=True):
                sizes[names.pop(0)] = video_size(path) if length is None else length
    return sizes


def digest_of(sizes: dict[str, int]) -> str:
    return hashlib.sha256(json.dumps(sorted(sizes.items())).encode()).hexdigest()


def base_weights_digest(model: nn.Module) -> str | None:
    """
    The digest of the weights that the adapters of a `PeftModel` do not replace, and its checkpoints do not contain.

    None for any other model.
    """
    if not has_adapters(model):
        return None
    # in a path, an adapter's weights have its name; `original_module` is what `modules_to_save` replaces
    peft_model: Any = model
    not_base = {*peft_model.peft_config, "original_module"}
    weights = {
        name.replace(".base_layer.", "."): weight
        for name, weight in model.state_dict().items()
        if not_base.isdisjoint(name.split("."))
    }
    return digest_of_weights(weights)


def has_adapters(model: nn.Module) -> bool:
    """Whether a model is a `PeftModel`."""
    if not is_peft_available():
        return False
    from peft import PeftModel

    return isinstance(model, PeftModel)


__all__ = ["base_weights_digest", "clip_sizes", "digest_of", "has_adapters"]
