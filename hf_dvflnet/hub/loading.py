"""Loads models from untrusted sources: all weights, only from safetensors, and without running their code."""

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from transformers import AutoConfig, AutoModel, AutoModelForVideoClassification, PreTrainedConfig, PreTrainedModel
from transformers.utils import cached_file

from ..configuration_videofocalnet import VideoFocalNetConfig
from ..modeling_frame_model import FrameModelConfig, FrameModelForVideoClassification
from ..modeling_videofocalnet import VideoFocalNetForVideoClassification
from ..video_processing_videofocalnet import VideoFocalNetVideoProcessor


_ADAPTER = "adapter_config.json"


@contextmanager
def damage_named(what: str) -> Iterator[None]:
    """Turn any exception into a `ValueError`: transformers raises all kinds for a damaged or hostile folder."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        path = str(error).rpartition("No such file or directory: ")[2]
        is_locked = isinstance(error, FileNotFoundError) and os.path.exists(path)  # as safetensors calls it
        raise ValueError(f"{what}: {f'no permission to read {path}' if is_locked else error}") from error


def read_config(model: str) -> PreTrainedConfig:
    """
    Load the config of a folder or Hub id, of any architecture.

    Raises:
        ValueError: If there is no config, if it does not name each class, or if it names its own weight files; or as
            in [`refuse_adapter`].
    """
    refuse_adapter(model)
    with damage_named(f"{model}: is neither a model folder nor an accessible model on the Hub"):
        config = AutoConfig.from_pretrained(model, trust_remote_code=False)
        config._attn_implementation = None  # could name a kernel on the Hub, which is code
        names = config.id2label
        if set(names) != set(range(len(names))) or not all(isinstance(name, str) for name in names.values()):
            raise ValueError(f"id2label must map the ids 0 to {len(names) - 1} to class names, but is {names}")
        if getattr(config, "transformers_weights", None) is not None:
            raise ValueError(f"transformers_weights is {config.transformers_weights!r}; remove it")
    return config


def refuse_adapter(model: str):
    """Raise `ValueError` if a folder contains an adapter of PEFT."""
    if Path(model, _ADAPTER).is_file():
        raise ValueError(
            f"{model}: contains an adapter ({_ADAPTER}), which is no model by itself; load it with PEFT, merge it "
            "(merge_and_unload), and save the merged model in a different folder"
        )


def load_config(model: str) -> VideoFocalNetConfig | FrameModelConfig:
    """
    Load the config of a model of this package, a Video-FocalNet or an image network, from a folder or Hub id.

    Raises:
        ValueError: As in [`read_config`], or if the config is of another architecture.
    """
    config = read_config(model)
    if not isinstance(config, (VideoFocalNetConfig, FrameModelConfig)):
        kinds = f"{VideoFocalNetConfig.model_type!r} or {FrameModelConfig.model_type!r}"
        raise ValueError(f"{model}: is a model of type {config.model_type!r}, not {kinds}")
    return config


def load_model(model: str) -> VideoFocalNetForVideoClassification | FrameModelForVideoClassification:
    """
    Load a model of this package, a Video-FocalNet or an image network, from a folder or Hub id. Missing weights are an
    error; transformers would initialise them at random.

    Raises:
        ValueError: If the model cannot be read, or if its weights are not exactly those of its config.
    """
    config = load_config(model)
    frames = isinstance(config, FrameModelConfig)
    return _load(FrameModelForVideoClassification if frames else VideoFocalNetForVideoClassification, model, config)


def load_teacher(model: str, dtype: str = "auto") -> PreTrainedModel:
    """
    Load a video classifier of any transformers architecture from a folder or Hub id.

    Raises:
        ValueError: If the model cannot be read or lacks weights.
    """
    return _load(AutoModelForVideoClassification, model, read_config(model), exactly=False, dtype=dtype)


def load_encoder(model: str, dtype: str = "auto") -> PreTrainedModel:
    """
    Load a vision model of any transformers architecture, without its head, from a folder or Hub id. One whose layer
    `pooler` was not saved, as it is not used by the head, comes without it.

    Raises:
        ValueError: If the model cannot be read or lacks other weights.
    """
    config = read_config(model)
    kind = FrameModelForVideoClassification if isinstance(config, FrameModelConfig) else AutoModel
    return _load(kind, model, config, exactly=False, dtype=dtype)


def _load(kind: Any, model: str, config: PreTrainedConfig, exactly: bool = True, **options: Any) -> Any:
    """Load a network, and with `exactly` refuse weights that it does not use or that are not floats."""
    with damage_named(f"{model}: the weights cannot be read"):
        files = _weight_files(model)
        for path in files if exactly else ():
            with safe_open(path, "pt") as file:
                for name in file.keys():  # noqa: SIM118 (is no dict)
                    dtype = file.get_slice(name).get_dtype()
                    # transformers would convert any dtype to floats
                    if dtype not in ("F64", "F32", "F16", "BF16") and not name.endswith("num_batches_tracked"):
                        raise ValueError(f"{name} has the dtype {dtype}; F64, F32, F16 or BF16 is expected")
        # mismatches raise an error below, instead of a report in the log
        network, found = kind.from_pretrained(
            model,
            config=config,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            **options,
        )
    shapes = [f"{name} {tuple(there)} instead of {tuple(wanted)}" for name, there, wanted in found["mismatched_keys"]]
    if shapes:
        raise ValueError(f"{model}: the shapes of the weights do not match its config: {', '.join(sorted(shapes))}")
    if kind is AutoModel and "pooler.dense.weight" in found["missing_keys"]:
        network.pooler = None
        found["missing_keys"] -= {"pooler.dense.weight", "pooler.dense.bias"}
    for problem in ("missing", "unexpected") if exactly else ("missing",):
        names = sorted(map(str, found[f"{problem}_keys"]))
        if names:
            raise ValueError(f"{model}: the weights do not match a classifier with its config: {problem} {names}")
    return network.eval()


def _weight_files(model: str) -> list[str]:
    """
    The safetensors files of a folder or Hub id. transformers would also read pickle files, files at any path that an
    index names, and in place of this model the one that an adapter names.
    """
    optional = {"_raise_exceptions_for_missing_entries": False}
    if cached_file(model, _ADAPTER, **optional) is not None:
        raise ValueError(f"there is an adapter ({_ADAPTER}) beside them; merge it, or load the model with PEFT")
    path = cached_file(model, "model.safetensors", **optional)
    if path is not None:
        return [path]
    index = cached_file(model, "model.safetensors.index.json", **optional)
    if index is None and Path(model, "export.json").is_file():
        raise ValueError(
            "this is an exported program, which predict, windows, watch, evaluate and benchmark run; here, pass the "
            "model folder that it was exported from"
        )
    if index is None:
        raise ValueError(
            "there is no model.safetensors, and pickles (pytorch_model.bin) are not opened: save the model again "
            "with save_pretrained"
        )
    names = set(map(str, json.loads(Path(index).read_text(encoding="utf-8"))["weight_map"].values()))
    if not all(re.fullmatch(r"[\w.-]+\.safetensors", name) for name in names):
        raise ValueError(f"{Path(index).name} must name .safetensors files of this folder, but names {sorted(names)}")
    return [cached_file(model, name) for name in sorted(names)]


def load_processor(model: str) -> VideoFocalNetVideoProcessor:
    """
    Load the video processor of a folder or Hub id.

    Raises:
        ValueError: If the processor cannot be read or cannot prepare a clip.
    """
    with damage_named(f"{model}: the video processor cannot be used"):
        processor = VideoFocalNetVideoProcessor.from_pretrained(model)
        names = ("num_frames", "frame_interval", "num_clips", "num_crops")
        numbers = {name: getattr(processor, name) for name in names}
        for name in ("size", "crop_size"):
            sides = dict(getattr(processor, name) or {})
            numbers |= {f"{name}.{side}": number for side, number in sides.items() if number is not None}
        for name, number in numbers.items():
            if type(number) is not int or not 1 <= number <= 10_000:
                raise ValueError(f"{name} must be an integer from 1 to 10,000, got {number!r}")
        if processor.fps is not None and not 0 < processor.fps <= 1000:
            raise ValueError(f"fps must be a number greater than 0 and up to 1000, got {processor.fps!r}")
        frame = np.zeros((1, 32, 32, 3), np.uint8)
        clip = processor(frame, do_sample_frames=False, num_clips=1, num_crops=1, return_tensors="pt")["pixel_values"]
        if not clip.isfinite().all():
            raise ValueError("image_mean, image_std and rescale_factor give values that are not finite")
    return processor
