"""Writes model folders with their cards, completely or not at all, and pushes them to the Hub."""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from huggingface_hub import HfApi, ModelCard, ModelCardData
from huggingface_hub.utils import httpx
from torch.utils.flop_counter import FlopCounterMode
from transformers.dynamic_module_utils import get_relative_import_files

from ..configuration_videofocalnet import PRESETS, VideoFocalNetConfig
from ..image_processing_videofocalnet import VideoFocalNetImageProcessor
from ..modeling_frame_model import FrameModelConfig, FrameModelForVideoClassification
from ..modeling_videofocalnet import VideoFocalNetForVideoClassification
from ..video_processing_videofocalnet import VideoFocalNetVideoProcessor
from .loading import load_config, refuse_adapter


# a small trained model, which comes with the package; its card says what it is good for
MOTIONS_STUDENT = Path(__file__).with_name("motions-student")

# what a processor does to a frame
FRAME_SETTINGS = (
    *("size", "crop_size", "image_mean", "image_std", "resample", "rescale_factor", "do_rescale", "do_normalize"),
)

# The files of a model, without others in the same folder, such as a checkpoint's optimizer or a pickle.
_PARTS = re.compile(
    r"(config|(video_)?preprocessor_config|processor_config|model\.safetensors\.index)\.json"
    r"|model(-\d+-of-\d+)?\.safetensors|README\.md|\w+\.py|\.gitattributes"
    r"|export(_report)?\.json|model\.(onnx(\.data)?|pte)|openvino_model\.(xml|bin)"
)


@contextmanager
def whole_or_nothing(out: str | os.PathLike, overwrite: bool = False) -> Iterator[Path]:
    """
    A temporary path to write a folder or file to. It is moved to `out` if the block ends without an exception.

    Raises:
        FileExistsError, ValueError: As in [`refuse_existing`].
    """
    out = Path(out)
    refuse_existing(out, overwrite)
    out.parent.mkdir(parents=True, exist_ok=True)
    unfinished, previous = (out.with_name(f".{out.name}.{os.getpid()}.{end}") for end in ("unfinished", "previous"))
    try:
        yield unfinished
        if out.is_dir() and not out.is_symlink():
            out.rename(previous)
        os.replace(unfinished, out)
        shutil.rmtree(previous, ignore_errors=True)
    finally:
        if unfinished.is_dir():
            shutil.rmtree(unfinished)
        unfinished.unlink(missing_ok=True)


def refuse_existing(out: Path, overwrite: bool):
    """
    Raise `FileExistsError` if `out` exists and `overwrite` is false, and `ValueError` if it is a folder that contains
    anything other than the files of a model: such a folder is never deleted.
    """
    if not (out.exists() or out.is_symlink()):
        return
    if not overwrite:
        raise FileExistsError(f"{out}: exists already; choose another name, or overwrite it (--overwrite)")
    if not out.is_dir():
        return
    foreign = [entry.name for entry in out.iterdir() if entry.is_dir() or not _PARTS.fullmatch(entry.name)]
    config = out / "config.json"
    ours = config.is_file() and re.search('"(videofocalnet|frame_model)"', config.read_text("utf-8"))
    if any(out.iterdir()) and (foreign or not ours):
        holds = f"contains {sorted(foreign)[0]}" if foreign else "has no config.json of a model of this package"
        raise ValueError(f"{out}: {holds}, so it is not only a model folder and is not overwritten")


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
    Write a model folder: config, weights, both processors, the code for `trust_remote_code=True`, and a model card.

    Args:
        out: The folder to write. It must not exist yet, unless `overwrite` is true.
        model: The model.
        title: Heading of the model card.
        introduction: Text below the heading, in Markdown. Says where the weights come from.
        frame_interval: Interval f of the sampling rules, in frames.
        overwrite: Whether to replace an existing model folder.

    Raises:
        FileExistsError, ValueError: As in [`whole_or_nothing`].
    """
    side = model.config.image_size
    shown: dict[str, Any] = {
        "size": {"shortest_edge": side * 256 // 224},  # the published ratio of short side to crop
        "crop_size": {"height": side, "width": side},
    }
    with whole_or_nothing(out, overwrite) as folder:
        model.save_pretrained(folder)
        VideoFocalNetVideoProcessor(
            num_frames=model.config.num_frames, frame_interval=frame_interval, **shown
        ).save_pretrained(folder)
        VideoFocalNetImageProcessor(**shown).save_pretrained(folder)
        about = describe_config(model.config)
        facts = {
            "parameters": f"{about['parameters'] / 1e6:.2f} M",
            "multiply-adds": f"{about['multiply_adds'] / 1e9:.1f} G for a clip of {about['input']}",
            "blocks, width": f"{model.config.depths}, {model.config.embed_dim}",
            "classes": model.config.num_labels,
            "sampling": f"{model.config.num_frames} frames, interval {frame_interval}",
            "frames": f"short side {shown['size']['shortest_edge']} (bilinear, no antialiasing), centre crop {side}, "
            "ImageNet mean and standard deviation",
        }
        write_card(folder, title, introduction, facts, name=Path(out).name)
    return Path(out)


def write_card(folder: Path, title: str, introduction: str, facts: dict[str, Any], name: str):
    """Write the model card of a folder, with facts in a table. `name` is that of the model in the example."""
    data = ModelCardData(library_name="transformers", pipeline_tag="video-classification", tags=["dvflnet"])
    rows = "\n".join(f"| {key} | {value} |" for key, value in facts.items())
    ModelCard(
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
    ).save(folder / "README.md")


def with_fact(card: str, name: str, value: str) -> str:
    """A card with a row in its table of facts, in place of an earlier one of this name."""
    card = re.sub(rf"^\| {name} \|.*\n", "", card, flags=re.MULTILINE)
    return card.replace("\n|---|---|\n", f"\n|---|---|\n| {name} | {value} |\n", 1)


def describe_config(
    config: VideoFocalNetConfig | FrameModelConfig, num_frames: int | None = None, image_size: int | None = None
) -> dict[str, Any]:
    """
    Compute the size and cost of the network that a config describes. The network is not built in memory.

    Args:
        config: The config.
        num_frames: Number of frames of the clip for which multiply-adds are counted. Defaults to `config.num_frames`.
        image_size: Height and width of this clip, in pixels. Defaults to `config.image_size`.

    Returns:
        A dict with `parameters`, `multiply_adds` (of convolutions and linear layers, for one clip), `input` (frames x
        height x width), `preset` (or None) of a Video-FocalNet, `image_network` of a model that is made of one,
        `num_labels`, `labels` (None if the classes have no names), `num_frames`, `image_size`, and every field that
        describes the architecture.

    Raises:
        ValueError: If the config does not describe a valid network, or if the network does not accept such a clip.
    """
    frames, side = num_frames or config.num_frames, image_size or config.image_size
    about, architecture = _kind_of(config)
    try:
        with torch.device("meta"):
            kind = (
                FrameModelForVideoClassification if "image_network" in about else VideoFocalNetForVideoClassification
            )
            model = kind(config).eval()
            clip = torch.empty(1, frames, getattr(config, "num_channels", 3), side, side)
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model(clip)
    except (RuntimeError, TypeError, OverflowError) as error:  # from sizes that are too large
        name = config.name_or_path or "the config"
        raise ValueError(
            f"{name}: does not describe a network for clips of {frames}x{side}x{side}: {error}"
        ) from error
    labels = [config.id2label[index] for index in range(config.num_labels)]
    return {
        **about,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "multiply_adds": counter.get_total_flops() // 2,  # one operation is a multiplication or an addition
        "input": f"{frames}x{side}x{side}",
        "num_labels": config.num_labels,
        "labels": None if labels == [f"LABEL_{index}" for index in range(config.num_labels)] else labels,
        "num_frames": config.num_frames,
        "image_size": config.image_size,
        **{name: getattr(config, name) for name in architecture},
    }


def _kind_of(config: VideoFocalNetConfig | FrameModelConfig) -> tuple[dict[str, Any], tuple[str, ...]]:
    """What kind of network a config describes, and the fields that describe its architecture."""
    if isinstance(config, FrameModelConfig):
        body: Any = config.body_config
        name = getattr(body, "architecture", None) or body.model_type  # timm's, or that of transformers
        return {"image_network": name}, ("feature_size", "freeze_body", "head_dropout", "pooling")
    sizes = {name: {**fields, "drop_path_rate": config.drop_path_rate} for name, fields in PRESETS.items()}
    preset = [name for name, size in sizes.items() if all(getattr(config, key) == size[key] for key in size)]
    return {"preset": preset[0] if preset else None}, (
        "depths", "embed_dim", "num_channels", "patch_size", "tubelet_size", "focal_levels", "focal_windows",
        "mlp_ratio", "hidden_act", "drop_path_rate", "use_conv_embed", "use_layerscale", "use_post_layernorm",
        "use_post_layernorm_in_modulation", "normalize_modulator", "depthwise_along_frames", "pair_frames",
        "layer_norm_eps",
    )  # fmt: skip


def image_processor_like(processor: VideoFocalNetVideoProcessor) -> VideoFocalNetImageProcessor:
    """The image processor that prepares frames like a video processor; pipelines look for one."""
    names = (*FRAME_SETTINGS, "do_resize", "do_center_crop")
    return VideoFocalNetImageProcessor(**{name: getattr(processor, name) for name in names})


def _own_code(config: VideoFocalNetConfig | FrameModelConfig) -> list[Path]:
    """The modules that `save_pretrained` writes into the folder of a model with this config."""
    folder = Path(__file__).parents[1]
    names = ["modeling_frame_model"] if isinstance(config, FrameModelConfig) else []
    files = [folder / f"{name}.py" for name in (*names, "video_processing_videofocalnet")]
    return sorted({Path(file) for first in files for file in (first, *get_relative_import_files(first))})


def save_motions_student(out: str | os.PathLike, overwrite: bool = False) -> Path:
    """
    Write the trained model that comes with the package, with its card and the code for `trust_remote_code=True`, into
    a folder, as in [`whole_or_nothing`].
    """
    with whole_or_nothing(out, overwrite) as folder:
        folder.mkdir()
        for file in (*_own_code(VideoFocalNetConfig()), *MOTIONS_STUDENT.iterdir()):
            shutil.copy(file, folder)
    return Path(out)


def push_model_folder(folder: str | os.PathLike, repo_id: str, *, private: bool = False) -> str:
    """
    Upload a model folder with its card and its code, so that it can be loaded with and without this package.

    A folder without any code, such as one in `examples/models`, gets the code of this package. Other files, such as
    the checkpoints of a training, are not uploaded.

    Returns the URL of the commit.

    Raises:
        FileNotFoundError: If the folder lacks one of its parts: config, weights, video processor, card, or code.
        ValueError: If the folder contains an adapter of PEFT, which has its own `push_to_hub`, or an invalid config.
        ConnectionError: If the Hub cannot be reached or refuses the upload.
    """
    folder = Path(folder)
    refuse_adapter(str(folder))
    for name in ("config.json", "video_preprocessor_config.json", "README.md"):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder}: has no {name}, which `dvflnet create` and `convert` write")
    if not list(folder.glob("*.safetensors")):
        raise FileNotFoundError(f"{folder}: has no weights (*.safetensors)")
    config = load_config(str(folder))
    auto_map = getattr(config, "auto_map", None) or {}
    files = {entry.name: entry for entry in folder.iterdir() if entry.is_file() and _PARTS.fullmatch(entry.name)}
    if auto_map and not list(folder.glob("*.py")):
        files |= {file.name: file for file in _own_code(config)}
    for auto_class in ("AutoConfig", "AutoModelForVideoClassification"):
        if f"{auto_map.get(auto_class, '').split('.')[0]}.py" not in files:
            raise FileNotFoundError(
                f"{folder}: contains no code for {auto_class}; load the model with this package and save it again"
            )
    api = HfApi()
    try:
        repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        with TemporaryDirectory() as parts:
            for file in files.values():
                shutil.copy(file, parts)
            commit = api.upload_folder(
                repo_id=repo_id, folder_path=parts, commit_message="Upload the model with its code"
            )
    except httpx.HTTPError as error:
        raise ConnectionError(f"{repo_id}: cannot be pushed: {error}") from error
    return str(commit.commit_url)
