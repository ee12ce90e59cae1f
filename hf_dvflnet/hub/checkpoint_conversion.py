"""
Converts published checkpoints: reads their format, infers the network from the weights and builds it with them.

Supported are the checkpoints of TalalWasim/Video-FocalNets, hayatkhan8660-maker/DVFL-Net and microsoft/FocalNet
(images), and transformers' FocalNet. A published checkpoint has the weights under `"model"`, and a configuration node
under `"config"`. No code from a file is ever run.
"""

import re
import zipfile
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors.torch import load_file
from torch import nn
from transformers import FocalNetForImageClassification

from ..configuration_videofocalnet import PRESETS, VideoFocalNetConfig
from ..data.label_sets import LabelSet
from ..modeling_videofocalnet import VideoFocalNetForVideoClassification, VideoFocalNetModulation
from .loading import damage_named, read_config


# Fields of the config, and their names in the configuration node of a checkpoint.
PUBLISHED_FIELDS = {
    "num_frames": "DATA.NUM_FRAMES",
    "image_size": "DATA.IMG_SIZE",
    "drop_path_rate": "MODEL.DROP_PATH_RATE",
    "tubelet_size": "MODEL.TUBELET_SIZE",
    "num_labels": "MODEL.NUM_CLASSES",
    "patch_size": "MODEL.FOCAL.PATCH_SIZE",
    "num_channels": "MODEL.FOCAL.IN_CHANS",
    "embed_dim": "MODEL.FOCAL.EMBED_DIM",
    "depths": "MODEL.FOCAL.DEPTHS",
    "mlp_ratio": "MODEL.FOCAL.MLP_RATIO",
    "focal_levels": "MODEL.FOCAL.FOCAL_LEVELS",
    "focal_windows": "MODEL.FOCAL.FOCAL_WINDOWS",
    "use_conv_embed": "MODEL.FOCAL.USE_CONV_EMBED",
    "use_layerscale": "MODEL.FOCAL.USE_LAYERSCALE",
    "use_post_layernorm": "MODEL.FOCAL.USE_POSTLN",
    "use_post_layernorm_in_modulation": "MODEL.FOCAL.USE_POSTLN_IN_MODULATION",
    "normalize_modulator": "MODEL.FOCAL.NORMALIZE_MODULATOR",
}
FRAME_INTERVAL = "AUG.FRAME_INTERVAL"

# Published weight names and those of this package. `#` is a number, `^` the beginning of a name. Each rule is applied
# once, in this order.
_PUBLISHED_NAMES = [
    ("^patch_embed.proj.", "^videofocalnet.embeddings.projection."),
    ("^patch_embed.norm.", "^videofocalnet.embeddings.norm."),
    ("^norm.", "^videofocalnet.layernorm."),
    ("^head.", "^classifier."),
    ("^layers.#.downsample.proj.", "^videofocalnet.stages.#.downsample.projection."),
    ("^layers.#.downsample.norm.", "^videofocalnet.stages.#.downsample.norm."),
    ("^layers.#.blocks.#.", "^videofocalnet.stages.#.layers.#."),
    (".modulation.f.", ".modulation.projection_in."),
    (".modulation.h.", ".modulation.projection_context."),
    (".modulation.proj.", ".modulation.projection_out."),
    (".modulation.ln.", ".modulation.layernorm."),
    (".modulation.f_temporal.", ".modulation.temporal_projection_in."),
    (".modulation.h_temporal.", ".modulation.temporal_projection_context."),
    (".modulation.focal_layers.#.0.", ".modulation.focal_layers.#."),
    (".modulation.focal_layers_temporal.#.0.", ".modulation.temporal_focal_layers.#."),
]
_TRANSFORMERS_NAMES = [
    ("^focalnet.embeddings.patch_embeddings.projection.", "^videofocalnet.embeddings.projection."),
    ("^focalnet.embeddings.norm.", "^videofocalnet.embeddings.norm."),
    ("^focalnet.layernorm.", "^videofocalnet.layernorm."),
    ("^focalnet.encoder.stages.#.downsample.", "^videofocalnet.stages.#.downsample."),
    ("^focalnet.encoder.stages.#.layers.#.", "^videofocalnet.stages.#.layers.#."),
    (".modulation.focal_layers.#.0.", ".modulation.focal_layers.#."),
]
STEM = "videofocalnet.embeddings.projection.weight"
# The options of `dvflnet convert` for what cannot be inferred from weights.
_NO_TRACE = {"use_post_layernorm": "--use-postln", "normalize_modulator": "--normalize-modulator"}
# The protocol of the lists that a checkpoint was trained on, by the `DATA.DATASET` of its configuration.
_TRAINED_ON = {
    "ucf50": "dvflnet_8020",
    "ucf101": "dvflnet_8020",
    "hmdb51": "dvflnet",
    "ssv2": "official",
    "kinetics400": "official",
}
_FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


class _ConfigNode:
    """Replaces `yacs.config.CfgNode` while a checkpoint is read: a plain ordered dict, without any code of yacs."""

    def __new__(cls, *args, **kwargs):
        return OrderedDict()


def load_published_checkpoint(path: str | Path) -> dict[str, Any]:
    """
    Read a published `.pth` or `.safetensors` file without running any code from it and without yacs. Objects other
    than tensors, numbers, text and the configuration node are refused.

    Returns the content of the file: `{"model": state_dict, "config": nested dicts, "epoch": ..., ...}`, or a bare
    state dict.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        _refuse_packed(path)
        with torch.serialization.safe_globals([(_ConfigNode, "yacs.config.CfgNode")]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # a damaged or hostile file may cause any
        reason = str(error).split("\n")[0].split(". This file")[0] or type(error).__name__
        raise ValueError(f"{path}: cannot be read as a published checkpoint: {reason}") from error


def _refuse_packed(path: Path):
    """Refuse a compressed archive, which could fill the memory. PyTorch compresses no weights."""
    with open(path, "rb") as file:
        if file.read(2) != b"PK":  # the format before PyTorch 1.6, which has no compression
            return
        with zipfile.ZipFile(file) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
    if unpacked > path.stat().st_size:
        raise ValueError(f"it has {path.stat().st_size} bytes, but {unpacked} when it is unpacked")


def look_up(config: Any, name: str) -> Any:
    """Return the value of a name such as `MODEL.FOCAL.DEPTHS` in nested dicts, or None."""
    for part in name.split("."):
        config = config.get(part) if isinstance(config, Mapping) else None
    return config


def publish_key(key: str) -> str:
    """Return the published name for a weight name of this package, and any other name unchanged."""
    return _rename(key, [(ours, published) for published, ours in reversed(_PUBLISHED_NAMES)], -1)


def _rename(key: str, rules: Iterable[tuple[str, str]], stages: int = 1) -> str:
    """
    The name that the rules give a weight; a name that none fits stays the same. Other networks' downsamplings end a
    stage, those of this package begin the next one, `stages` further.
    """
    renamed = key
    for old, new in rules:
        pattern = re.escape(old).replace(r"\^", "^").replace(r"\#", r"(\d+)")
        new = new.removeprefix("^").replace("#", r"\1", 1).replace("#", r"\2")
        renamed = re.sub(pattern, new, renamed)
    if renamed == key:
        return key
    return re.sub(r"\.(\d+)\.downsample\.", lambda match: f".{int(match[1]) + stages}.downsample.", renamed)


def reshape_weight(key: str, weight: torch.Tensor) -> torch.Tensor:
    """Return a weight, under this package's name, in the shape that this package uses."""
    if key.endswith("projection_context.weight"):
        return weight.flatten(1)
    if ".temporal_focal_layers." in key:
        return weight.unsqueeze(-1)
    if key == STEM and weight.ndim == 5:
        return weight.transpose(1, 2).flatten(1, 2)
    return weight


def convert_published_state_dict(state_dict: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """
    Convert published names and shapes to those of [`VideoFocalNetForVideoClassification`]. Values are never changed.

    - A 1x1 convolution becomes a linear layer: (out, in, 1, 1) or (out, in, 1) -> (out, in).
    - A convolution along frames becomes a 2-D convolution: (out, in, k) -> (out, in, k, 1).
    - A tubelet stem becomes a 2-D convolution over folded frames: (out, channels, frames, h, w) -> (out, frames *
      channels, h, w).
    """
    renamed = {_rename(key, _PUBLISHED_NAMES): weight for key, weight in state_dict.items()}
    return {key: reshape_weight(key, weight) for key, weight in renamed.items()}


@dataclass
class Conversion:
    """
    A converted checkpoint.

    Args:
        model: The network, in float32, on the CPU.
        frame_interval: Interval f of the sampling rules that the checkpoint was trained with, or 4, that of the
            recipe, if unknown.
        copied: Names of the weights that come from the source.
        new: Names of the weights that the source lacks and that are newly initialised.
        left: Names of the weights of the source that the network does not use.
        notes: Sentences about assumptions and contradictions.
    """

    model: VideoFocalNetForVideoClassification
    frame_interval: int
    copied: list[str]
    new: list[str]
    left: list[str]
    notes: list[str]


def convert_checkpoint(
    source: str | Path,
    *,
    labels: LabelSet | None = None,
    num_frames: int | None = None,
    use_post_layernorm: bool = False,
    normalize_modulator: bool = False,
    depths: list[int] | None = None,
) -> Conversion:
    """
    Build the network of a published checkpoint, with its weights.

    The depths, width, focal levels and windows, conv embedding, layer scale, post-norm in modulation, tubelets and
    classes are inferred from the weights. If the checkpoint's configuration disagrees, the weights take precedence and
    a note is added.

    An image network (ImageNet FocalNet) becomes a video network: its spatial weights are copied, and a temporal branch
    is added whose modulator is 1 everywhere, so that each frame gets the image network's features.

    Args:
        source: A `.pth` or `.safetensors` file with published names; or a folder or Hub id of transformers' FocalNet.
        labels: The class names. An image network gets a new head for these classes; without `labels`, it keeps its
            head.
        num_frames: Number of frames of a clip. Defaults to the value in the checkpoint's configuration, or to 8.
        use_post_layernorm: The checkpoint's `use_postln`, which cannot be inferred from the weights. Not needed if the
            checkpoint's configuration contains it.
        normalize_modulator: The checkpoint's `normalize_modulator`; the same applies.
        depths: Number of blocks to keep in each stage, for image networks only. The first blocks of each stage are
            kept.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If the source cannot be read or has another architecture, or if the arguments do not fit it.
    """
    path = Path(source)
    is_file_name = path.suffix in (".pth", ".pt", ".bin", ".ckpt", ".tar", ".safetensors")
    is_hub_id = not is_file_name and not path.exists() and re.fullmatch(r"[^/\\]+/[^/\\]+", str(source)) is not None
    found = _read_transformers(str(source)) if path.is_dir() or is_hub_id else _read_published(path)

    fields = _architecture(found)
    given = {"use_post_layernorm": use_post_layernorm, "normalize_modulator": normalize_modulator}
    notes = _add_stated_fields(fields, found, given, num_frames)
    if depths is not None:
        if not found.is_image:
            raise ValueError(f"{source}: is a video network; depths can be chosen only for an image network")
        if len(depths) != len(fields["depths"]) or not all(
            1 <= chosen <= there for chosen, there in zip(depths, fields["depths"], strict=True)
        ):
            raise ValueError(f"{source}: has {fields['depths']} blocks, which cannot give depths={depths}")
        fields["depths"] = list(depths)
    for preset in PRESETS.values():
        if all(fields.get(name) == value for name, value in preset.items() if name != "drop_path_rate"):
            fields.setdefault("drop_path_rate", preset["drop_path_rate"])
    _name_classes(fields, found, labels)
    try:
        config = VideoFocalNetConfig(**fields)
    except StrictDataclassError as error:
        raise ValueError(f"{source}: {' '.join(str(error).split())}") from error

    if found.training_data is not None:
        config.training_data = found.training_data  # an evaluation on this data then gives a warning
    with torch.device("meta"):  # no memory is allocated: a hostile file could describe a network of terabytes
        new, left = _compare(VideoFocalNetForVideoClassification(config), found)
    model = VideoFocalNetForVideoClassification(config)
    copied = sorted(set(model.state_dict()) - set(new))
    model.load_state_dict({name: found.weights[name] for name in copied}, strict=False)
    if found.is_image:
        start_temporal_branch_as_identity(model)
    return Conversion(model.eval(), found.frame_interval or 4, copied, new, left, notes)


@dataclass
class _Source:
    """A checkpoint: weights under this package's names (published ones in messages), and what is stored with them."""

    name: str
    weights: dict[str, torch.Tensor]
    tubelet_size: int = 1
    stated: dict[str, Any] = field(default_factory=dict)  # fields of the config that the source contains
    frame_interval: int | None = None
    id2label: dict[int, str] | None = None
    left: list[str] = field(default_factory=list)
    training_data: dict[str, Any] | None = None

    @property
    def is_image(self) -> bool:
        return not any(".temporal_" in name for name in self.weights)


def _read_transformers(source: str) -> _Source:
    with damage_named(f"{source}: cannot be read as a FocalNet of transformers"):
        config = read_config(source)
        if config.model_type != "focalnet":
            raise ValueError(
                f"model_type is {config.model_type!r}; of transformers' models, only 'focalnet' can be converted"
            )
        model, info = FocalNetForImageClassification.from_pretrained(
            source, config=config, dtype=torch.float32, output_loading_info=True
        )
    lacking = sorted(name for name in info["missing_keys"] if not name.startswith("classifier."))
    left = sorted(info["unexpected_keys"])
    unknown = [name for name in left if not name.startswith(("decoder.", "focalnet.embeddings.mask_token"))]
    if lacking or unknown or info["mismatched_keys"]:
        raise ValueError(
            f"{source}: is not a complete FocalNet. Missing: {', '.join(lacking) or 'none'}. Unexpected: "
            f"{', '.join(unknown) or 'none'}. With a different shape: {info['mismatched_keys'] or 'none'}"
        )
    weights = {
        _rename(name, _TRANSFORMERS_NAMES): weight
        for name, weight in model.state_dict().items()
        if name not in info["missing_keys"]
    }
    stated = ("hidden_act", "layer_norm_eps", "use_post_layernorm", "normalize_modulator")
    return _Source(
        source,
        {name: reshape_weight(name, weight) for name, weight in weights.items()},
        stated={name: getattr(config, name) for name in stated},
        id2label=None if info["missing_keys"] else dict(config.id2label),
        left=left,
    )


def _read_published(path: Path) -> _Source:
    checkpoint = load_published_checkpoint(path)
    state_dict = checkpoint.get("model", checkpoint) if isinstance(checkpoint, Mapping) else None
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
        found = _Source(str(path), convert_published_state_dict(state_dict))
    except (IndexError, RuntimeError) as error:
        raise ValueError(f"{path}: a weight has a shape that does not occur in a Video-FocalNet: {error}") from error
    stem = state_dict.get("patch_embed.proj.weight")
    if stem is not None and stem.ndim == 5:
        found.tubelet_size = stem.shape[2]
    config = checkpoint.get("config") if "model" in checkpoint else None
    stated = {name: look_up(config, published) for name, published in PUBLISHED_FIELDS.items()}
    found.stated = {name: value for name, value in stated.items() if value is not None}
    found.frame_interval = look_up(config, FRAME_INTERVAL)
    benchmark = str(look_up(config, "DATA.DATASET")).lower().replace("-", "")
    if benchmark in _TRAINED_ON:
        found.training_data = {"benchmark": benchmark, "protocol": _TRAINED_ON[benchmark], "fold": 1, "split": "train"}
    return found


def _architecture(found: _Source) -> dict[str, Any]:
    """Infer fields of the config from the weights. `num_labels` is None without a head."""
    blocks: dict[int, set[int]] = {}
    for name in found.weights:
        match = re.match(r"videofocalnet\.stages\.(\d+)\.layers\.(\d+)\.modulation\.", name)
        if match:
            blocks.setdefault(int(match[1]), set()).add(int(match[2]))
    if not blocks:
        names = list(found.weights)
        raise ValueError(
            f"{found.name}: contains no Video-FocalNet, DVFL-Net or FocalNet. Its weights are named "
            f"{', '.join(names[:5])}{', ...' if len(names) > 5 else ''}; names such as "
            "layers.0.blocks.0.modulation.f.weight are expected"
        )

    def shape(name: str, rank: int) -> torch.Size:
        weight = found.weights.get(name)
        if weight is None:
            raise ValueError(f"{found.name}: lacks the weight {publish_key(name)}")
        if weight.ndim != rank:
            raise ValueError(
                f"{found.name}: {publish_key(name)} has shape {tuple(weight.shape)}, not {rank} dimensions"
            )
        return weight.shape

    embed_dim, stem_channels, _, stem_kernel = shape(STEM, 4)
    first = "videofocalnet.stages.0.layers.0."
    levels, windows = [], []
    for stage in range(len(blocks)):
        layers = f"videofocalnet.stages.{stage}.layers.0.modulation.focal_layers."
        levels.append(sum(name.startswith(layers) for name in found.weights))
        windows.append(shape(f"{layers}0.weight", 4)[-1])
    if len(blocks) > 1:
        use_conv_embed = shape("videofocalnet.stages.1.downsample.projection.weight", 4)[-1] == 3
    else:
        use_conv_embed = stem_kernel == 7
    head = found.weights.get("classifier.weight")
    return {
        "num_channels": stem_channels // found.tubelet_size,
        "patch_size": 4 if use_conv_embed else stem_kernel,
        "tubelet_size": found.tubelet_size,
        "embed_dim": embed_dim,
        "depths": [len(blocks.get(stage, ())) for stage in range(len(blocks))],
        "focal_levels": levels,
        "focal_windows": windows,
        "mlp_ratio": shape(f"{first}mlp.fc1.weight", 2)[0] / embed_dim,
        "use_conv_embed": use_conv_embed,
        "use_layerscale": f"{first}gamma_1" in found.weights,
        "use_post_layernorm_in_modulation": f"{first}modulation.layernorm.weight" in found.weights,
        "num_labels": None if head is None else len(head),
    }


def _add_stated_fields(
    fields: dict[str, Any], found: _Source, given: dict[str, bool], num_frames: int | None
) -> list[str]:
    """Add the fields of the checkpoint's configuration and of the caller; return notes where they disagree."""
    notes = []
    for name, value in fields.items():
        stated = found.stated.get(name, value)
        if stated != value and not (isinstance(stated, (list, tuple)) and list(stated) == value):
            notes.append(f"the configuration says {name}={stated}, but the weights say {value}: the weights are used")
    for name, wanted in given.items():
        stated = found.stated.get(name)
        if stated is None and not wanted:
            notes.append(f"{name} cannot be inferred from the weights: false is used ({_NO_TRACE[name]} sets it)")
        elif stated is False and wanted:
            notes.append(f"the configuration says {name}=False, but {_NO_TRACE[name]} says True: True is used")
        fields[name] = wanted or bool(stated)
    for name in ("hidden_act", "layer_norm_eps", "drop_path_rate", "image_size"):
        if name in found.stated:
            fields[name] = found.stated[name]
    stated_frames = found.stated.get("num_frames")
    if num_frames and stated_frames and num_frames != stated_frames:
        notes.append(f"the configuration says num_frames={stated_frames}, but you set {num_frames}, which is used")
    if num_frames or stated_frames:
        fields["num_frames"] = num_frames or stated_frames
    elif not found.is_image:
        notes.append("num_frames is unknown: 8 is used (--num-frames sets it)")
    if found.frame_interval is None and not found.is_image:
        notes.append("the frame interval is unknown: 4, that of the recipe, is used")
    return notes


def _name_classes(fields: dict[str, Any], found: _Source, labels: LabelSet | None):
    """Add the class names, or their number, to the fields. Drop a head that `labels` replace."""
    classes = fields.pop("num_labels")
    id2label = found.id2label
    if labels is not None:
        id2label = dict(enumerate(labels.names))
        if found.is_image:
            for name in ("classifier.weight", "classifier.bias"):
                if found.weights.pop(name, None) is not None:
                    found.left.append(publish_key(name))
        elif classes is not None and len(labels.names) != classes:
            raise ValueError(f"{found.name}: has {classes} classes, but {labels.source} names {len(labels.names)}")
    elif classes is None and found.is_image:
        raise ValueError(f"{found.name}: has no classification head; give the class names of a new one (labels)")
    if id2label is not None:
        fields |= {"id2label": id2label, "label2id": {name: index for index, name in id2label.items()}}
    elif classes is not None:
        fields["num_labels"] = classes


def _compare(model: VideoFocalNetForVideoClassification, found: _Source) -> tuple[list[str], list[str]]:
    """Return the names of missing and of unused weights. Raise an error if the source does not fill the network."""
    wanted = model.state_dict()
    missing = sorted(set(wanted) - set(found.weights))
    unexpected = sorted(set(found.weights) - set(wanted))
    other_shape = [
        f"{publish_key(name)} {tuple(found.weights[name].shape)} instead of {tuple(weight.shape)}"
        for name, weight in wanted.items()
        if name in found.weights and found.weights[name].shape != weight.shape
    ]
    new, left = [], list(found.left)
    if found.is_image:
        # weights that an image network lacks, and blocks that a shallower network does not use
        new = [name for name in missing if ".temporal_" in name or name.startswith("classifier.")]
        cut = [
            name
            for name in unexpected
            if (match := re.match(r"videofocalnet\.stages\.(\d+)\.layers\.(\d+)\.", name))
            and int(match[2]) >= model.config.depths[int(match[1])]
        ]
        missing = [name for name in missing if name not in new]
        unexpected = [name for name in unexpected if name not in cut]
        left += map(publish_key, cut)
    if missing or unexpected or other_shape:
        raise ValueError(
            f"{found.name}: the weights do not match the network that they describe. "
            f"Missing: {', '.join(map(publish_key, missing)) or 'none'}. "
            f"Unexpected: {', '.join(map(publish_key, unexpected)) or 'none'}. "
            f"With a different shape: {', '.join(other_shape) or 'none'}"
        )
    return new, left


@torch.no_grad()
def start_temporal_branch_as_identity(model: nn.Module):
    """
    Make every temporal modulator exactly 1, so that the network processes each frame like an image network.

    Only the last projection of the temporal branch is set (weights 0, bias 1). The first training step already changes
    it, whatever the layers before it contain.
    """
    for module in model.modules():
        if isinstance(module, VideoFocalNetModulation):
            module.temporal_projection_context.weight.zero_()
            module.temporal_projection_context.bias.fill_(1)


def read_depths(depths: str) -> list[int]:
    """Return the number of blocks of each stage for a preset such as `"nano"` or a text such as `"1,1,2,1"`."""
    if depths in PRESETS:
        return list(PRESETS[depths]["depths"])
    if not re.fullmatch(r"\d+(,\d+)*", depths):
        raise ValueError(f"depths must be numbers such as 1,1,2,1 or one of {', '.join(PRESETS)}, got {depths!r}")
    return [int(depth) for depth in depths.split(",")]
