"""Configuration of Video-FocalNet (arXiv 2307.06947) and of DVFL-Net, its nano size (arXiv 2507.12426)."""

import json
import math
import os
from pathlib import Path
from typing import Any

from huggingface_hub.dataclasses import strict
from transformers.activations import ACT2FN
from transformers.configuration_utils import PreTrainedConfig


# The published sizes. The comments give the parameters with 400 classes and the multiply-adds for a clip of 8x224x224.
PRESETS: dict[str, dict[str, Any]] = {
    "nano": {
        "depths": [1, 1, 2, 1],
        "embed_dim": 96,
        "drop_path_rate": 0.1,
    },  # 22.44 M,  27.1 G: DVFL-Net, the student
    "tiny": {"depths": [2, 2, 6, 2], "embed_dim": 96, "drop_path_rate": 0.2},  # 49.55 M,  63.0 G
    "small": {"depths": [2, 2, 18, 2], "embed_dim": 96, "drop_path_rate": 0.3},  # 88.74 M, 124.3 G
    "base": {"depths": [2, 2, 18, 2], "embed_dim": 128, "drop_path_rate": 0.5},  # 157.39 M, 220.7 G: the teacher
}


# computed from `embed_dim` and `depths`
DERIVED = ("hidden_size", "hidden_sizes", "num_hidden_layers")


@strict
class VideoFocalNetConfig(PreTrainedConfig):
    r"""
    Configuration of a Video-FocalNet. The defaults are those of the nano size, DVFL-Net.

    Args:
        image_size (`int`, *optional*, defaults to 224):
            Height and width of the processors' default crop, in pixels. The model itself accepts any size.
        num_frames (`int`, *optional*, defaults to 8):
            Number of frames that the processors and the pipeline sample for a clip. The model itself accepts any
            number of frames that is a multiple of `tubelet_size`.
        num_channels (`int`, *optional*, defaults to 3):
            Number of channels of a frame.
        patch_size (`int`, *optional*, defaults to 4):
            Side length of the patches of the stem, in pixels. Each later stage halves height and width again.
        tubelet_size (`int`, *optional*, defaults to 1):
            Number of consecutive frames that the stem merges into one.
        embed_dim (`int`, *optional*, defaults to 96):
            Number of channels of the first stage. Each later stage doubles it.
        depths (`list[int]`, *optional*, defaults to `[1, 1, 2, 1]`):
            Number of blocks of each stage.
        focal_levels (`list[int]`, *optional*, defaults to `[2, 2, 2, 2]`):
            Number of focal levels of each stage, without the global level, which is always added.
        focal_windows (`list[int]`, *optional*, defaults to `[3, 3, 3, 3]`):
            Kernel size of the first focal level of each stage. Must be odd. Level `l`, counted from 0, has the kernel
            size `window + 2 * l`.
        mlp_ratio (`float`, *optional*, defaults to 4.0):
            Number of hidden channels of a block's MLP, as a multiple of the block's channels.
        hidden_act (`str`, *optional*, defaults to `"gelu"`):
            Activation function of the MLPs and of the focal contexts.
        drop_path_rate (`float`, *optional*, defaults to 0.1):
            Stochastic depth rate of the last block, in [0, 1). The rate increases linearly from 0 at the first block.
        use_conv_embed (`bool`, *optional*, defaults to `False`):
            Whether to use overlapping convolutions as the stem (kernel 7, stride 4) and between stages (kernel 3,
            stride 2). Requires `patch_size=4` and `tubelet_size=1`.
        use_layerscale (`bool`, *optional*, defaults to `False`):
            Whether to scale both branches of every block by a learned vector.
        layerscale_value (`float`, *optional*, defaults to 1e-4):
            Initial value of the layer scale vectors.
        use_post_layernorm (`bool`, *optional*, defaults to `False`):
            Whether to apply layer norm after the modulation and the MLP instead of before them (the published
            `use_postln`).
        use_post_layernorm_in_modulation (`bool`, *optional*, defaults to `False`):
            Whether to apply layer norm to the modulated query before its output projection (the published
            `use_postln_in_modulation`).
        normalize_modulator (`bool`, *optional*, defaults to `False`):
            Whether to divide the summed context by the number of levels, including the global level.
        initializer_range (`float`, *optional*, defaults to 0.02):
            Standard deviation of the truncated normal distribution that initialises the linear layers.
        layer_norm_eps (`float`, *optional*, defaults to 1e-5):
            Epsilon of all layer norms.

    Raises:
        huggingface_hub.errors.StrictDataclassError:
            If a value has the wrong type, or if the values do not describe a valid network.
        ValueError:
            If `hidden_size`, `hidden_sizes` or `num_hidden_layers` is given and differs from what `embed_dim` and
            `depths` give. (All three together are taken for those of `to_dict`, and computed anew.)

    Example:

    ```python
    >>> from hf_dvflnet import VideoFocalNetConfig, VideoFocalNetForVideoClassification

    >>> config = VideoFocalNetConfig.from_preset("nano", num_labels=101)
    >>> model = VideoFocalNetForVideoClassification(config)
    ```"""

    model_type = "videofocalnet"
    keys_to_ignore_at_inference = ["hidden_states", "spatial_modulators", "temporal_modulators"]

    image_size: int = 224
    num_frames: int = 8
    num_channels: int = 3
    patch_size: int = 4
    tubelet_size: int = 1
    embed_dim: int = 96
    depths: list[int] | tuple[int, ...] = (1, 1, 2, 1)
    focal_levels: list[int] | tuple[int, ...] = (2, 2, 2, 2)
    focal_windows: list[int] | tuple[int, ...] = (3, 3, 3, 3)
    mlp_ratio: float | int = 4.0
    hidden_act: str = "gelu"
    drop_path_rate: float | int = 0.1
    use_conv_embed: bool = False
    use_layerscale: bool = False
    layerscale_value: float | int = 1e-4
    use_post_layernorm: bool = False
    use_post_layernorm_in_modulation: bool = False
    normalize_modulator: bool = False
    initializer_range: float | int = 0.02
    layer_norm_eps: float | int = 1e-5

    def __post_init__(self, **kwargs):
        # JSON has no tuples: with lists, a config equals itself after saving and loading
        self.depths = list(self.depths)
        self.focal_levels = list(self.focal_levels)
        self.focal_windows = list(self.focal_windows)
        if all(name in kwargs for name in DERIVED):
            # the values of a dict, `config.to_dict()`, in which `embed_dim` or `depths` may have been changed since
            kwargs = {name: value for name, value in kwargs.items() if name not in DERIVED}
        super().__post_init__(**kwargs)

    @classmethod
    def from_preset(cls, name: str, **kwargs) -> "VideoFocalNetConfig":
        """
        Return the config of the published size `name` (`"nano"`, `"tiny"`, `"small"` or `"base"`). `kwargs` override
        individual fields.
        """
        if name not in PRESETS:
            raise ValueError(f"unknown preset {name!r}; choose one of {', '.join(PRESETS)}")
        return cls(**{**PRESETS[name], **kwargs})

    @property
    def hidden_sizes(self) -> list[int]:
        """Number of channels of each stage."""
        return [self.embed_dim * 2**stage for stage in range(len(self.depths))]

    @hidden_sizes.setter
    def hidden_sizes(self, value: list[int]):
        self._refuse_other("hidden_sizes", list(value) if isinstance(value, tuple) else value)

    @property
    def hidden_size(self) -> int:
        """Number of channels of the last stage, and therefore of `last_hidden_state`."""
        return self.hidden_sizes[-1]

    @hidden_size.setter
    def hidden_size(self, value: int):
        self._refuse_other("hidden_size", value)

    @property
    def num_hidden_layers(self) -> int:
        """Number of stages, each with an entry in `hidden_states`, as in other networks of stages (Swin, ConvNeXt)."""
        return len(self.depths)

    @num_hidden_layers.setter
    def num_hidden_layers(self, value: int):
        self._refuse_other("num_hidden_layers", value)

    def _refuse_other(self, name: str, value: Any):
        """What a saved config contains can be set again, but nothing else."""
        if value != getattr(self, name):
            raise ValueError(
                f"{name}={value} contradicts embed_dim={self.embed_dim} and depths={self.depths}, which give "
                f"{name}={getattr(self, name)}. Set `embed_dim` and `depths`, and leave out `{name}`"
            )

    def to_dict(self) -> dict[str, Any]:
        """The fields, and `hidden_size`, `hidden_sizes` and `num_hidden_layers`, which other tools look for."""
        return {**super().to_dict(), **{name: getattr(self, name) for name in DERIVED}}

    def validate_architecture(self):
        """Check the values. `@strict` calls this method when a config is constructed."""
        stages = len(self.depths)
        for name in ("focal_levels", "focal_windows"):
            if len(getattr(self, name)) != stages:
                raise ValueError(
                    f"{name}={getattr(self, name)} must have one entry per stage, like depths={self.depths}"
                )
        for name in ("depths", "focal_levels"):
            if not getattr(self, name) or min(getattr(self, name)) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be a non-empty list of positive integers")
        if any(window < 1 or window % 2 == 0 for window in self.focal_windows):
            raise ValueError(
                f"focal_windows={self.focal_windows} must be odd and positive: an even kernel would shift the frame"
            )
        for name in ("image_size", "num_frames", "num_channels", "patch_size", "tubelet_size", "embed_dim"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        for name in ("mlp_ratio", "layer_norm_eps"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name}={getattr(self, name)} must be a finite number greater than or equal to 0")
        if not 0 <= self.drop_path_rate < 1:
            raise ValueError(f"drop_path_rate={self.drop_path_rate} must be in [0, 1)")
        if self.hidden_act not in ACT2FN:
            raise ValueError(f"hidden_act={self.hidden_act!r} is not an activation of transformers: {list(ACT2FN)}")
        if self.num_frames % self.tubelet_size:
            raise ValueError(f"num_frames={self.num_frames} must be a multiple of tubelet_size={self.tubelet_size}")
        if self.use_conv_embed and self.tubelet_size > 1:
            raise ValueError(
                f"use_conv_embed=True cannot be combined with tubelet_size={self.tubelet_size}: the published stem of "
                "overlapping convolutions does not merge frames. Set one of them to its default."
            )
        if self.use_conv_embed and self.patch_size != 4:
            raise ValueError(f"use_conv_embed=True has a stem of stride 4, so patch_size={self.patch_size} must be 4")


def refuse_other_num_frames(folder: str | os.PathLike, num_frames: int, file_name: str):
    """Raise `ValueError` if `file_name` exists in `folder` and has a `num_frames` that differs from the argument."""
    path = Path(folder, file_name)
    if not path.is_file():
        return
    saved = json.loads(path.read_text(encoding="utf-8")).get("num_frames")
    if saved is not None and saved != num_frames:
        raise ValueError(
            f"{path} has num_frames={saved}, but num_frames={num_frames} is about to be saved in the same folder. A "
            "model and its processor must have the same `num_frames`: change one of them, or choose another folder."
        )


__all__ = ["PRESETS", "VideoFocalNetConfig"]
