"""Configuration of Video-FocalNet (arXiv 2307.06947) and of DVFL-Net, its nano size (arXiv 2507.12426)."""

import json
import math
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub.dataclasses import strict
from transformers.activations import ACT2FN
from transformers.configuration_utils import PreTrainedConfig
from transformers.utils import logging


if TYPE_CHECKING:
    # All files that are saved with a model or processor. transformers follows these lines when it copies code into a
    # folder, and when it hashes code: two folders that differ in one file do not run each other's.
    from .clip_sampling import frame_times  # noqa: F401
    from .image_processing_videofocalnet import VideoFocalNetImageProcessor  # noqa: F401
    from .modeling_videofocalnet import VideoFocalNetModel  # noqa: F401
    from .video_decoding import read_video  # noqa: F401
    from .video_processing_videofocalnet import VideoFocalNetVideoProcessor  # noqa: F401

logger = logging.get_logger(__name__)

CHEAP = {"depthwise_along_frames": True, "pair_frames": True, "drop_path_rate": 0.0}
# The published sizes, with their parameters for 400 classes and multiply-adds for a clip of 8 x 224 x 224. DVFL-Net
# distills base into nano.
PRESETS: dict[str, dict[str, Any]] = {
    "nano": {"depths": [1, 1, 2, 1], "embed_dim": 96, "drop_path_rate": 0.1},  # 22.44 M, 27.1 G
    "tiny": {"depths": [2, 2, 6, 2], "embed_dim": 96, "drop_path_rate": 0.2},  # 49.55 M, 63.0 G
    "small": {"depths": [2, 2, 18, 2], "embed_dim": 96, "drop_path_rate": 0.3},  # 88.74 M, 124.3 G
    "base": {"depths": [2, 2, 18, 2], "embed_dim": 128, "drop_path_rate": 0.5},  # 157.39 M, 220.7 G
    # Of this package, for PyTorch on one thread: the time of X3D-S and less than that of X3D-XS, for 8 and 4 frames of
    # 64 or 112 pixels a side (benchmarks/frontier.py).
    "pico": CHEAP | {"depths": [1, 1, 3, 1], "embed_dim": 48},
    "femto": CHEAP | {"depths": [1, 1, 2, 1], "embed_dim": 32},
}
DERIVED = ("hidden_size", "hidden_sizes", "num_hidden_layers")


@strict
class VideoFocalNetConfig(PreTrainedConfig):
    """
    Configuration of a Video-FocalNet. The defaults are those of the nano size, DVFL-Net.

    Args:
        image_size: Height and width of the processors' default crop, in pixels. The model itself accepts any size.
        num_frames: Number of frames of a clip that the processors sample. The model itself accepts any multiple of
            `tubelet_size`.
        num_channels: Number of channels of a frame.
        patch_size: Side length of the patches of the stem, in pixels. Each later stage halves height and width again.
        tubelet_size: Number of consecutive frames that the stem merges into one.
        embed_dim: Number of channels of the first stage. Each later stage doubles it.
        depths: Number of blocks of each stage.
        focal_levels: Number of focal levels of each stage, without the global level, which is always added.
        focal_windows: Odd kernel size of the first focal level of each stage. It grows by 2 with each further level.
        mlp_ratio: Number of hidden channels of a block's MLP, as a multiple of the block's channels.
        hidden_act: Activation function of the MLPs and of the focal contexts, by its name in transformers.
        drop_path_rate: Stochastic depth rate of the last block, in [0, 1). The rate increases linearly from 0 at the
            first block.
        use_conv_embed: Whether to use overlapping convolutions as the stem (kernel 7, stride 4) and between stages
            (kernel 3, stride 2). Requires `patch_size=4` and `tubelet_size=1`.
        use_layerscale: Whether to scale both branches of every block by a learned vector.
        layerscale_value: Initial value of the layer scale vectors.
        use_post_layernorm: Whether to apply layer norm after the modulation and the MLP instead of before them
            (`use_postln` in the published code).
        use_post_layernorm_in_modulation: Whether to apply layer norm to the modulated query before its projection
            (`use_postln_in_modulation`).
        normalize_modulator: Whether to divide the summed context by the number of levels, including the global level.
        depthwise_along_frames: Whether the convolutions along frames are depthwise, as those within a frame are. As
            published, they are dense, a third of the multiply-adds.
        pair_frames: Whether the third stage and those after it see the means of pairs of frames. Requires three stages
            and an even number of frames after the stem, and excludes `causal`.
        causal: Whether a frame sees itself and the frames before it only, in convolutions along frames and in means,
            which are over the last `num_frames` frames. Such a network answers a stream frame by frame
            ([`VideoFocalNetForVideoClassification.step`]). The weights have the same
            names and shapes as without it, but need further training.
        initializer_range: Standard deviation of the truncated normal distribution that initialises the linear layers.
        layer_norm_eps: Epsilon of all layer norms.

    Raises:
        StrictDataclassError (of `huggingface_hub.errors`): If values have a wrong type or describe no valid network.
        AttributeError: If `hidden_size`, `hidden_sizes` or `num_hidden_layers` is set, which `embed_dim` and `depths`
            determine. (All three together are assumed to come from `to_dict` and are computed again.)
    """

    model_type = "videofocalnet"
    keys_to_ignore_at_inference = [
        "frame_logits",
        "frame_pooler_output",
        "hidden_states",
        "spatial_modulators",
        "temporal_modulators",
        "state",
    ]

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
    depthwise_along_frames: bool = False
    pair_frames: bool = False
    causal: bool = False
    initializer_range: float | int = 0.02
    layer_norm_eps: float | int = 1e-5

    def __post_init__(self, **kwargs):
        for name in ("depths", "focal_levels", "focal_windows"):
            setattr(self, name, list(getattr(self, name)))  # as JSON has no tuples
        if kwargs.keys() >= set(DERIVED):  # of `to_dict()`, in which a field may have been changed since
            kwargs = {name: value for name, value in kwargs.items() if name not in DERIVED}
        super().__post_init__(**kwargs)

    @classmethod
    def from_preset(cls, name: str, **kwargs) -> "VideoFocalNetConfig":
        """
        Return the config of a size, with `kwargs` changed.

        Args:
            name: A published size, `"nano"`, `"tiny"`, `"small"` or `"base"`, or a smaller one of this package,
                `"pico"` or `"femto"`, with `depthwise_along_frames` and `pair_frames`.
            kwargs: Other fields.

        Raises:
            ValueError: If there is no such size.
        """
        if name not in PRESETS:
            raise ValueError(f"unknown preset {name!r}; choose one of {', '.join(PRESETS)}")
        return cls(**{**PRESETS[name], **kwargs})

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs) -> Any:
        """Return the config of a dictionary, with `kwargs` changed, and warn if they make saved weights causal."""
        saved = config_dict.get("causal", False)
        if kwargs.get("causal", saved) != saved:
            logger.warning(
                f"{config_dict.get('_name_or_path') or 'the checkpoint'} was trained with causal={saved} and is "
                f"loaded with causal={kwargs['causal']}: its answers change until it is trained further"
            )
        return super().from_dict(config_dict, **kwargs)

    @property
    def hidden_sizes(self) -> list[int]:
        """Number of channels of each stage."""
        return [self.embed_dim * 2**stage for stage in range(len(self.depths))]

    @property
    def hidden_size(self) -> int:
        """Number of channels of the last stage, and therefore of `last_hidden_state`."""
        return self.hidden_sizes[-1]

    @property
    def num_hidden_layers(self) -> int:
        """Number of stages, each with an entry in `hidden_states`, as in other networks of stages (Swin, ConvNeXt)."""
        return len(self.depths)

    def to_dict(self) -> dict[str, Any]:
        """The fields, and `hidden_size`, `hidden_sizes` and `num_hidden_layers`, which other tools look for."""
        return {**super().to_dict(), **{name: getattr(self, name) for name in DERIVED}}

    def validate_architecture(self):
        """Check the values. `@strict` calls this method when a config is constructed."""
        for name in ("image_size", "num_frames", "num_channels", "patch_size", "tubelet_size", "embed_dim"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        for name in ("depths", "focal_levels", "focal_windows"):
            values = getattr(self, name)
            if len(values) != len(self.depths):
                raise ValueError(f"{name}={values} must have one entry per stage, like depths={self.depths}")
            if not values or min(values) < 1:
                raise ValueError(f"{name}={values} must be a non-empty list of positive integers")
        if any(window % 2 == 0 for window in self.focal_windows):
            raise ValueError(f"focal_windows={self.focal_windows} must be odd: an even kernel would shift the frame")
        for name in ("mlp_ratio", "layer_norm_eps"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name}={getattr(self, name)} must be a finite number greater than or equal to 0")
        if not 0 <= self.drop_path_rate < 1:
            raise ValueError(f"drop_path_rate={self.drop_path_rate} must be in [0, 1)")
        if self.hidden_act not in ACT2FN:
            raise ValueError(f"hidden_act={self.hidden_act!r} is not an activation of transformers: {list(ACT2FN)}")
        if self.num_frames % self.tubelet_size:
            raise ValueError(f"num_frames={self.num_frames} must be a multiple of tubelet_size={self.tubelet_size}")
        if self.pair_frames and self.causal:
            raise ValueError("pair_frames=True excludes causal=True: half of the frames would need the next one")
        if self.pair_frames and (len(self.depths) < 3 or self.num_frames // self.tubelet_size % 2):
            raise ValueError(
                f"pair_frames=True requires three stages and an even number of frames after the stem, got depths="
                f"{self.depths}, num_frames={self.num_frames} and tubelet_size={self.tubelet_size}"
            )
        if self.use_conv_embed and (self.patch_size, self.tubelet_size) != (4, 1):
            raise ValueError(
                f"use_conv_embed=True requires patch_size=4 and tubelet_size=1, got patch_size={self.patch_size} and "
                f"tubelet_size={self.tubelet_size}: the published stem has stride 4 and does not merge frames"
            )


def refuse_other_num_frames(folder: str | os.PathLike, num_frames: int, file_name: str):
    """Raise `ValueError` if `file_name` exists in `folder` and has a `num_frames` that differs from the argument."""
    path = Path(folder, file_name)
    try:
        saved = json.loads(path.read_text(encoding="utf-8")).get("num_frames") if path.is_file() else None
    except ValueError:  # a run was killed while it wrote this file, which is now replaced
        return
    if saved not in (None, num_frames):
        raise ValueError(
            f"{path} has num_frames={saved}, but num_frames={num_frames} is about to be saved in the same folder. A "
            "model and its processor must have the same `num_frames`: change one of them, or choose another folder."
        )


def let_others_read(folder: str | os.PathLike):
    """Give the weights the file mode of their config: safetensors makes files that only their owner may read."""
    for config in Path(folder).glob("*config.json"):
        for weights in Path(folder).glob("*.safetensors"):
            shutil.copymode(config, weights)
