"""Computes the size and cost of the network of a config, and writes the model card of a model folder."""

from typing import Any

import torch
from huggingface_hub import ModelCard, ModelCardData
from torch.utils.flop_counter import FlopCounterMode

from ..configuration_videofocalnet import PRESETS, VideoFocalNetConfig
from ..modeling_videofocalnet import VideoFocalNetForVideoClassification


def model_card(
    config: VideoFocalNetConfig, title: str, introduction: str, name: str, frame_interval: int
) -> ModelCard:
    """Return the model card of a folder called `name`. `introduction` is Markdown."""
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
    Compute the size and cost of the network that a config describes. The network is not built in memory.

    Args:
        config: The config.
        num_frames: Number of frames of the clip for which multiply-adds are counted. Defaults to `config.num_frames`.
        image_size: Height and width of this clip, in pixels. Defaults to `config.image_size`.

    Returns:
        A dict with `parameters`, `multiply_adds` (of convolutions and linear layers, for one clip), `input` (frames x
        height x width), `preset` (or None), `num_labels`, `labels` (None if the classes have no names), `num_frames`,
        `image_size`, and every field that describes the architecture.

    Raises:
        ValueError: If the config does not describe a valid network, or if the network does not accept such a clip.
    """
    frames, side = num_frames or config.num_frames, image_size or config.image_size
    try:
        with torch.device("meta"):
            model = VideoFocalNetForVideoClassification(config).eval()
            clip = torch.empty(1, frames, config.num_channels, side, side)
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model(clip)
    except (RuntimeError, TypeError, OverflowError) as error:  # from sizes that are too large
        name = config.name_or_path or "the config"
        raise ValueError(
            f"{name}: does not describe a network for clips of {frames}x{side}x{side}: {error}"
        ) from error
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
        "multiply_adds": counter.get_total_flops() // 2,  # one operation is a multiplication or an addition
        "input": f"{frames}x{side}x{side}",
        "num_labels": config.num_labels,
        "labels": None if labels == [f"LABEL_{index}" for index in range(config.num_labels)] else labels,
        "num_frames": config.num_frames,
        "image_size": config.image_size,
        **{name: getattr(config, name) for name in architecture},
    }


__all__ = ["describe_config", "model_card"]
