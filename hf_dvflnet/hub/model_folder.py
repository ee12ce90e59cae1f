"""A model as a folder: written whole or not at all, read with care, described, and pushed to the Hub."""

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub import HfApi, ModelCard, ModelCardData
from huggingface_hub.errors import StrictDataclassError
from huggingface_hub.utils import httpx
from safetensors import SafetensorError, safe_open
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForVideoClassification, PreTrainedConfig, PreTrainedModel
from transformers.utils import cached_file

from ..configuration_videofocalnet import PRESETS, VideoFocalNetConfig
from ..image_processing_videofocalnet import VideoFocalNetImageProcessor
from ..modeling_videofocalnet import VideoFocalNetForVideoClassification
from ..video_processing_videofocalnet import VideoFocalNetVideoProcessor


@contextmanager
def whole_or_nothing(out: str | os.PathLike, overwrite: bool = False) -> Iterator[Path]:
    """
    A path to write a folder or file at, which becomes `out` when the block has ended without an exception.

    Raises:
        FileExistsError, ValueError: As [`refuse_existing`].
    """
    out = Path(out)
    refuse_existing(out, overwrite)
    out.parent.mkdir(parents=True, exist_ok=True)
    unfinished = out.with_name(f".{out.name}.{os.getpid()}.unfinished")
    try:
        yield unfinished
        if out.is_dir() and not out.is_symlink():
            previous = out.with_name(f".{out.name}.{os.getpid()}.previous")
            out.rename(previous)
            try:
                unfinished.rename(out)
            except OSError:
                previous.rename(out)
                raise
            shutil.rmtree(previous)
        else:
            os.replace(unfinished, out)
    finally:
        if unfinished.is_dir():
            shutil.rmtree(unfinished)
        unfinished.unlink(missing_ok=True)


def refuse_existing(out: Path, overwrite: bool):
    """
    Raise `FileExistsError` if `out` exists and `overwrite` is false, and `ValueError` if it is a folder that holds
    anything but what a model consists of: that is never deleted.
    """
    if not (out.exists() or out.is_symlink()):
        return
    if not overwrite:
        raise FileExistsError(f"{out}: exists already; choose another name, or overwrite it (--overwrite)")
    if not out.is_dir():
        return
    foreign = [entry.name for entry in out.iterdir() if entry.is_dir() or not _belongs_to_a_model(entry.name)]
    config = out / "config.json"
    if any(out.iterdir()) and (foreign or not config.is_file() or '"videofocalnet"' not in config.read_text("utf-8")):
        holds = f"holds {sorted(foreign)[0]}" if foreign else "has no config.json of a Video-FocalNet"
        raise ValueError(f"{out}: {holds}, hence is not just a model folder: it is not overwritten")


def save_model_folder(
    out: str | os.PathLike,
    model: VideoFocalNetForVideoClassification,
    *,
    title: str,
    introduction: str,
    frame_interval: int = 4,
    overwrite: bool = False,
) -> Path:
    """
    Write config, weights, both processors, the code for `trust_remote_code=True`, and a card.

    Args:
        out: The folder, which must not exist yet.
        model: The model.
        title: The card's heading.
        introduction: What the card says first, in Markdown: where the weights come from.
        frame_interval: The interval f of the sampling rules.
        overwrite: Replace a model that is there already.

    Raises:
        FileExistsError, ValueError: As [`whole_or_nothing`].
    """
    side = model.config.image_size
    shown: dict[str, Any] = {
        "size": {"shortest_edge": side * 256 // 224},  # the published proportion of short side and crop
        "crop_size": {"height": side, "width": side},
    }
    with whole_or_nothing(out, overwrite) as folder:
        model.save_pretrained(folder)
        VideoFocalNetVideoProcessor(
            num_frames=model.config.num_frames, frame_interval=frame_interval, **shown
        ).save_pretrained(folder)
        VideoFocalNetImageProcessor(**shown).save_pretrained(folder)
        _card(model.config, title, introduction, Path(out).name, frame_interval).save(folder / "README.md")
    return Path(out)


def _card(config: VideoFocalNetConfig, title: str, introduction: str, name: str, frame_interval: int) -> ModelCard:
    data = ModelCardData(library_name="transformers", pipeline_tag="video-classification", tags=["dvflnet"])
    about = describe_config(config)
    rows = "\n".join(
        f"| {key} | {value} |"
        for key, value in (
            ("parameters", f"{about['parameters'] / 1e6:.2f} M"),
            ("multiply-adds", f"{about['multiply_adds'] / 1e9:.1f} G for a clip of {about['input']}"),
            ("blocks, width", f"{config.depths}, {config.embed_dim}"),
            ("classes", config.num_labels),
            ("sampling", f"{config.num_frames} frames, interval {frame_interval}"),
            (
                "frames",
                f"short side {config.image_size * 256 // 224} (bilinear, no antialiasing), centre crop "
                f"{config.image_size}, ImageNet mean and standard deviation",
            ),
        )
    )
    return ModelCard(
        f"""---
{data.to_yaml()}
---

# {title}

{introduction}

| | |
|---|---|
{rows}

```python
import hf_dvflnet  # or trust_remote_code=True below
from transformers import pipeline

pipeline("video-classification", model="{name}")("video.mp4")
```

Papers, to be cited: [DVFL-Net](https://arxiv.org/abs/2507.12426),
[Video-FocalNets](https://arxiv.org/abs/2307.06947). Converted weights have the licence of their source, and the limits
of what they were trained on.
"""
    )


def describe_config(
    config: VideoFocalNetConfig, num_frames: int | None = None, image_size: int | None = None
) -> dict[str, Any]:
    """
    Size and cost of the network that a config describes, without building it in memory.

    Args:
        config: The config.
        num_frames: Frames of the clip that multiply-adds are counted for, by default `config.num_frames`.
        image_size: Its height and width, by default `config.image_size`.

    Returns:
        `parameters`, `multiply_adds` (of convolutions and linear layers, one clip), `input` (frames x height x
        width), `preset` (or None), `num_labels`, `labels` (None if they have no names), `num_frames`, `image_size`,
        and every field that describes the architecture.

    Raises:
        ValueError: If there is no such network, or it takes no such clip.
    """
    frames, side = num_frames or config.num_frames, image_size or config.image_size
    try:
        with torch.device("meta"):
            model = VideoFocalNetForVideoClassification(config).eval()
            clip = torch.empty(1, frames, config.num_channels, side, side)
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model(clip)
    except (RuntimeError, TypeError, OverflowError) as error:  # of sizes that no number of bits holds
        name = config.name_or_path or "the config"
        raise ValueError(f"{name}: describes no network for clips of {frames}x{side}x{side}: {error}") from error
    sizes = {name: (fields["depths"], fields["embed_dim"]) for name, fields in PRESETS.items()}
    preset = [name for name, size in sizes.items() if size == (config.depths, config.embed_dim)]
    labels = [config.id2label[index] for index in range(config.num_labels)]
    architecture = (
        "depths", "embed_dim", "num_channels", "patch_size", "tubelet_size", "focal_levels", "focal_windows",
        "mlp_ratio", "hidden_act", "drop_path_rate", "use_conv_embed", "use_layerscale", "use_post_layernorm",
        "use_post_layernorm_in_modulation", "normalize_modulator", "layer_norm_eps",
    )  # fmt: skip
    return {
        "preset": preset[0] if preset else None,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "multiply_adds": counter.get_total_flops() // 2,  # an operation is a multiplication or an addition
        "input": f"{frames}x{side}x{side}",
        "num_labels": config.num_labels,
        "labels": None if labels == [f"LABEL_{index}" for index in range(config.num_labels)] else labels,
        "num_frames": config.num_frames,
        "image_size": config.image_size,
        **{name: getattr(config, name) for name in architecture},
    }


# What a model consists of; never a checkpoint's optimizer or a pickle that lies beside it.
_PARTS = re.compile(
    r"(config|(video_)?preprocessor_config|processor_config|model\.safetensors\.index)\.json"
    r"|model(-\d+-of-\d+)?\.safetensors|README\.md|\w+\.py|\.gitattributes"
    r"|export(_report)?\.json|model\.(onnx(\.data)?|pte)|openvino_model\.(xml|bin)"
)


def _belongs_to_a_model(name: str) -> bool:
    return _PARTS.fullmatch(name) is not None


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
    The model of a folder or Hub id, whole: transformers would fill what is missing with random weights.

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
    A video classifier of any architecture of transformers, whole, from a folder or Hub id.

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
            "there is no model.safetensors, and pickles (pytorch_model.bin) are not opened: save the model anew, with "
            "save_pretrained"
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


def push_model_folder(folder: str | os.PathLike, repo_id: str, *, private: bool = False) -> str:
    """
    Upload a model folder with its card and its code, so that it opens with and without this package.

    Returns the commit's URL.

    Raises:
        FileNotFoundError: If the folder lacks a part: config, weights, video processor, card, or code.
        ConnectionError: If the Hub cannot be reached, or refuses.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: there is no such folder")
    for name in ("config.json", "video_preprocessor_config.json", "README.md"):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder}: has no {name}; a folder that `dvflnet create` or `convert` wrote has")
    if not list(folder.glob("*.safetensors")):
        raise FileNotFoundError(f"{folder}: has no weights (*.safetensors)")
    auto_map = getattr(load_config(str(folder)), "auto_map", None) or {}
    for auto_class in ("AutoConfig", "AutoModel", "AutoModelForVideoClassification"):
        module = auto_map.get(auto_class, "").split(".")[0]
        if not module or not (folder / f"{module}.py").is_file():
            raise FileNotFoundError(
                f"{folder}: carries no code for {auto_class}; load the model with this package and save it again"
            )
    for file in folder.glob("*.py"):
        for module in re.findall(r"^from \.(\w+) import", file.read_text("utf-8"), flags=re.MULTILINE):
            if not (folder / f"{module}.py").is_file():
                raise FileNotFoundError(f"{folder}: {file.name} imports {module}, but there is no {module}.py")
    parts = [entry.name for entry in folder.iterdir() if entry.is_file() and _belongs_to_a_model(entry.name)]
    api = HfApi()
    try:
        repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        commit = api.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            allow_patterns=parts,
            ignore_patterns=["*/*"],
            commit_message="Upload the model with its code",
        )
    except httpx.HTTPError as error:
        raise ConnectionError(f"{repo_id}: cannot be pushed: {error}") from error
    return str(commit.commit_url)


__all__ = ["describe_config", "push_model_folder", "save_model_folder"]
