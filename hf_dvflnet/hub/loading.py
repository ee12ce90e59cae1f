"""Reading models that may come from a stranger: whole, from safetensors alone, and without running their code."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, AutoModelForVideoClassification, PreTrainedConfig, PreTrainedModel
from transformers.utils import cached_file

from ..configuration_videofocalnet import VideoFocalNetConfig
from ..modeling_videofocalnet import VideoFocalNetForVideoClassification
from ..video_processing_videofocalnet import VideoFocalNetVideoProcessor


# whatever transformers makes of a damaged or hostile folder, short of a lack of memory
DAMAGED = (
    *(OSError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, AssertionError, RuntimeError),
    *(SafetensorError, StrictDataclassError),
)


def read_config(model: str) -> PreTrainedConfig:
    """
    The config of a folder or Hub id, of any architecture.

    Raises:
        ValueError: If there is none, its classes are not named one by one, or it names weights of its own.
    """
    try:
        config = AutoConfig.from_pretrained(model, trust_remote_code=False)
        config._attn_implementation = None  # could name a kernel on the Hub, which is code
        names = config.id2label
        if set(names) != set(range(len(names))) or not all(isinstance(name, str) for name in names.values()):
            raise ValueError(f"id2label must name the classes 0 to {len(names) - 1} by text, but is {names}")
        if getattr(config, "transformers_weights", None) is not None:
            raise ValueError(f"transformers_weights is {config.transformers_weights!r}; leave it out")
    except DAMAGED as error:
        raise ValueError(f"{model}: is no model folder, and no model on the Hub within reach: {error}") from error
    return config


def load_config(model: str) -> VideoFocalNetConfig:
    """
    The config of a folder or Hub id.

    Raises:
        ValueError: As [`read_config`], or if it is of another architecture.
    """
    config = read_config(model)
    if not isinstance(config, VideoFocalNetConfig):
        raise ValueError(f"{model}: is a model of type {config.model_type!r}, not {VideoFocalNetConfig.model_type!r}")
    return config


def load_model(model: str) -> VideoFocalNetForVideoClassification:
    """
    Load the model of a folder or Hub id. Missing weights are an error, where transformers would use random ones.

    Raises:
        ValueError: If it cannot be read, or its weights are not exactly those of its config.
    """
    config = load_config(model)
    try:
        dtypes: dict[str, str] = {}
        for path in _weight_files(model):
            with safe_open(path, "pt") as file:
                dtypes |= {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118 (is no dict)
    except DAMAGED as error:
        raise ValueError(f"{model}: the weights cannot be read: {error}") from error
    for name, dtype in dtypes.items():  # transformers would make floats of whatever there is
        if dtype not in ("F64", "F32", "F16", "BF16"):
            raise ValueError(f"{model}: {name} has the dtype {dtype}; F64, F32, F16 or BF16 is expected")
    network, unexpected = _load_whole(VideoFocalNetForVideoClassification, model, config)
    if unexpected:
        raise ValueError(f"{model}: the weights are not those of a classifier of its config: unexpected {unexpected}")
    return network.eval()


def load_teacher(model: str, dtype: str = "auto") -> PreTrainedModel:
    """
    Load a video classifier of any transformers architecture from a folder or Hub id.

    Raises:
        ValueError: If it cannot be read, or lacks weights.
    """
    return _load_whole(AutoModelForVideoClassification, model, read_config(model), dtype=dtype)[0]


def _load_whole(kind: Any, model: str, config: PreTrainedConfig, **options: Any) -> tuple[Any, list[str]]:
    """The network, and the names of weights that it has no place for."""
    try:
        _weight_files(model)
        # what does not fit is named below, not in a report on the side
        network, found = kind.from_pretrained(
            model,
            config=config,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            **options,
        )
    except DAMAGED as error:
        raise ValueError(f"{model}: the weights cannot be read: {error}") from error
    if found["mismatched_keys"]:
        shapes = [
            f"{name} {tuple(there)} rather than {tuple(wanted)}"
            for name, there, wanted in sorted(found["mismatched_keys"])
        ]
        raise ValueError(f"{model}: the weights have other shapes than those of its config: {', '.join(shapes)}")
    missing, unexpected = (sorted(map(str, found[kind])) for kind in ("missing_keys", "unexpected_keys"))
    if missing:
        raise ValueError(f"{model}: the weights are not those of a classifier of its config: missing {missing}")
    return network, unexpected


def _weight_files(model: str) -> list[str]:
    """
    The safetensors files of a folder or Hub id.

    transformers would also read pickles, and files that lie wherever an index says.

    Raises:
        ValueError, OSError: If there are none, or the index names anything else.
    """
    optional = {"_raise_exceptions_for_missing_entries": False}
    path = cached_file(model, "model.safetensors", **optional)
    if path is not None:
        return [path]
    index = cached_file(model, "model.safetensors.index.json", **optional)
    if index is None:
        raise ValueError(
            "there is no model.safetensors, and pickles (pytorch_model.bin) are not opened: save the model again, "
            "with save_pretrained"
        )
    content = json.loads(Path(index).read_text(encoding="utf-8"))
    shards = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(shards, dict) or not all(
        re.fullmatch(r"[\w.-]+\.safetensors", str(name)) for name in shards.values()
    ):
        raise ValueError(f"{Path(index).name} must name .safetensors files of this folder, but names {shards}")
    return [cached_file(model, name) for name in sorted(set(shards.values()))]


def load_processor(model: str) -> VideoFocalNetVideoProcessor:
    """
    The video processor of a folder or Hub id.

    Raises:
        ValueError: If it cannot be read, or no clip can be prepared with it.
    """
    try:
        processor = VideoFocalNetVideoProcessor.from_pretrained(model)
        numbers = {
            name: getattr(processor, name) for name in ("num_frames", "frame_interval", "num_clips", "num_crops")
        }
        for name in ("size", "crop_size"):
            sides = dict(getattr(processor, name) or {})
            numbers |= {f"{name}.{side}": number for side, number in sides.items() if number is not None}
        for name, number in numbers.items():
            if type(number) is not int or not 1 <= number <= 10_000:
                raise ValueError(f"{name} must be a whole number from 1 to 10,000, got {number!r}")
        replaced = [name for name in vars(processor) if callable(getattr(type(processor), name, None))]
        if replaced:
            raise ValueError(f"{', '.join(replaced)}: are no settings, but methods")
        frame = np.zeros((1, 32, 32, 3), np.uint8)
        clip = processor(frame, do_sample_frames=False, num_clips=1, num_crops=1, return_tensors="pt")["pixel_values"]
        if not clip.isfinite().all():
            raise ValueError("image_mean, image_std and rescale_factor make numbers that are not finite")
    except DAMAGED as error:
        raise ValueError(f"{model}: the video processor cannot be used: {error}") from error
    return processor


__all__ = ["DAMAGED", "load_config", "load_model", "load_processor", "load_teacher", "read_config"]
