"""
Converts published checkpoints: infers the network from the weights and builds it with them.

Supported are the checkpoints of TalalWasim/Video-FocalNets, hayatkhan8660-maker/DVFL-Net and microsoft/FocalNet
(images), and transformers' FocalNet. No code from a file is ever run.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import nn

from ..configuration_videofocalnet import PRESETS, VideoFocalNetConfig
from ..data.label_sets import LabelSet
from ..modeling_videofocalnet import VideoFocalNetForVideoClassification, VideoFocalNetModulation
from .checkpoint_sources import CheckpointSource, known_name, read_source
from .weight_names import STEM


_NO_TRACE = {"use_post_layernorm": "--use-postln", "normalize_modulator": "--normalize-modulator"}


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
    temporal_init: str = "identity",
) -> Conversion:
    """
    Build the network of a published checkpoint, with its weights.

    The depths, width, focal levels and windows, conv embedding, layer scale, post-norm in modulation, tubelets and
    classes are inferred from the weights. If the checkpoint's configuration disagrees, the weights take precedence and
    a note is added.

    An image network (ImageNet FocalNet) becomes a video network: its spatial weights are copied, and a temporal branch
    is added.

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
        temporal_init: Initialisation of the temporal branch of an image network: `"identity"` (the temporal modulator
            is 1 everywhere, so that each frame gets the image network's features) or `"random"` (as in the published
            code).

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If the source cannot be read or has another architecture, or if the arguments do not fit it.
    """
    if temporal_init not in ("identity", "random"):
        raise ValueError(f"temporal_init must be 'identity' or 'random', got {temporal_init!r}")
    found = read_source(source)
    architecture = _architecture(found, source)
    is_image = not any(".temporal_" in name for name in found.weights)
    told = {"use_post_layernorm": use_post_layernorm, "normalize_modulator": normalize_modulator}
    notes = _settle_with_configuration(architecture, found, told, num_frames, is_image)
    if depths is not None:
        _choose_depths(architecture, depths, is_image, source)
    if "drop_path_rate" not in architecture:
        for preset in PRESETS.values():
            if preset["depths"] == architecture["depths"] and preset["embed_dim"] == architecture["embed_dim"]:
                architecture["drop_path_rate"] = preset["drop_path_rate"]

    _name_classes(architecture, found, labels, is_image, source)
    try:
        config = VideoFocalNetConfig(**architecture)
    except StrictDataclassError as error:
        raise ValueError(f"{source}: {' '.join(str(error).split())}") from error

    if found.training_data is not None:
        config.training_data = found.training_data  # an evaluation on this data then gives a warning
    with torch.device("meta"):  # no memory is allocated: a hostile file could describe a network of terabytes
        new, left = _compare(VideoFocalNetForVideoClassification(config), found, is_image, source)
    model = VideoFocalNetForVideoClassification(config)
    model.load_state_dict({name: found.weights[name] for name in model.state_dict() if name not in new}, strict=False)
    if is_image and temporal_init == "identity":
        start_temporal_branch_as_identity(model)
    copied = sorted(set(model.state_dict()) - set(new))
    return Conversion(model.eval(), found.frame_interval or 4, copied, new, left, notes)


def _settle_with_configuration(
    architecture: dict[str, Any],
    found: CheckpointSource,
    told: dict[str, bool],
    num_frames: int | None,
    is_image: bool,
) -> list[str]:
    """Add the settings of the checkpoint's configuration and of the caller; return notes where they disagree."""
    notes = []
    for name, value in architecture.items():
        stated = found.stated.get(name, value)
        if stated != value and not (isinstance(stated, (list, tuple)) and list(stated) == value):
            notes.append(f"the configuration says {name}={stated}, but the weights say {value}: the weights are used")
    for name, wanted in told.items():
        stated = found.stated.get(name)
        if stated is None and not wanted:
            notes.append(f"{name} cannot be inferred from the weights: false is used ({_NO_TRACE[name]} sets it)")
        elif stated is False and wanted:
            notes.append(f"the configuration says {name}=False, but {_NO_TRACE[name]} says True: True is used")
        architecture[name] = wanted or bool(stated)
    for name in ("hidden_act", "layer_norm_eps", "drop_path_rate", "image_size"):
        if name in found.stated:
            architecture[name] = found.stated[name]
    stated_frames = found.stated.get("num_frames")
    if num_frames and stated_frames and num_frames != stated_frames:
        notes.append(f"the configuration says num_frames={stated_frames}, but you set {num_frames}, which is used")
    if num_frames or stated_frames:
        architecture["num_frames"] = num_frames or stated_frames
    elif not is_image:
        notes.append("num_frames is unknown: 8 is used (--num-frames sets it)")
    if found.frame_interval is None and not is_image:
        notes.append("the frame interval is unknown: 4, that of the recipe, is used")
    return notes


def _choose_depths(architecture: dict[str, Any], depths: list[int], is_image: bool, source: str | Path):
    if not is_image:
        raise ValueError(f"{source}: is a video network; depths can be chosen only for an image network")
    if len(depths) != len(architecture["depths"]) or any(
        wanted > given for wanted, given in zip(depths, architecture["depths"], strict=True)
    ):
        raise ValueError(f"{source}: has {architecture['depths']} blocks, which cannot give depths={depths}")
    architecture["depths"] = list(depths)


def _name_classes(
    architecture: dict[str, Any], found: CheckpointSource, labels: LabelSet | None, is_image: bool, source: str | Path
):
    """Add the class names, or their number, to the architecture. Drop a head that `labels` replace."""
    classes = architecture.pop("num_labels")
    id2label = found.id2label
    if labels is not None:
        id2label = dict(enumerate(labels.names))
        if is_image:
            for name in ("classifier.weight", "classifier.bias"):
                if found.weights.pop(name, None) is not None:
                    found.left.append(known_name(name, found))
        elif classes is not None and len(labels.names) != classes:
            raise ValueError(f"{source}: has {classes} classes, but {labels.source} names {len(labels.names)}")
    elif classes is None and is_image:
        raise ValueError(f"{source}: has no classification head; give the class names of a new one (labels)")
    if id2label is not None:
        architecture["id2label"] = id2label
        architecture["label2id"] = {name: index for index, name in id2label.items()}
    elif classes is not None:
        architecture["num_labels"] = classes


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


def _architecture(found: CheckpointSource, source: str | Path) -> dict[str, Any]:
    """Infer fields of the config from the weights. `num_labels` is None without a head."""
    blocks: dict[int, set[int]] = {}
    for name in found.weights:
        match = re.match(r"videofocalnet\.stages\.(\d+)\.layers\.(\d+)\.modulation\.", name)
        if match:
            blocks.setdefault(int(match[1]), set()).add(int(match[2]))
    if not blocks:
        names = list(found.weights)
        raise ValueError(
            f"{source}: contains no Video-FocalNet, DVFL-Net or FocalNet. Its weights are named {', '.join(names[:5])}"
            f"{', ...' if len(names) > 5 else ''}; names such as layers.0.blocks.0.modulation.f.weight are expected"
        )

    def shape(name: str, rank: int) -> torch.Size:
        weight = found.weights.get(name)
        if weight is None:
            raise ValueError(f"{source}: lacks the weight {known_name(name, found)}")
        if weight.ndim != rank:
            raise ValueError(
                f"{source}: {known_name(name, found)} has shape {tuple(weight.shape)}, not {rank} dimensions"
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


def _compare(
    model: VideoFocalNetForVideoClassification, found: CheckpointSource, is_image: bool, source: str | Path
) -> tuple[list[str], list[str]]:
    """Return the names of missing and of unused weights. Raise an error if the source does not fill the network."""
    wanted = model.state_dict()
    missing = sorted(set(wanted) - set(found.weights))
    unexpected = sorted(set(found.weights) - set(wanted))
    other_shape = [
        f"{known_name(name, found)} {tuple(found.weights[name].shape)} instead of {tuple(wanted[name].shape)}"
        for name in wanted
        if name in found.weights and found.weights[name].shape != wanted[name].shape
    ]
    new, left = [], list(found.left)
    if is_image:
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
        left += [known_name(name, found) for name in cut]
    if missing or unexpected or other_shape:
        raise ValueError(
            f"{source}: the weights do not match the network that they describe. "
            f"Missing: {', '.join(known_name(name, found) for name in missing) or 'none'}. "
            f"Unexpected: {', '.join(known_name(name, found) for name in unexpected) or 'none'}. "
            f"With a different shape: {', '.join(other_shape) or 'none'}"
        )
    return new, left


def read_depths(depths: str) -> list[int]:
    """Return the number of blocks of each stage for a preset such as `"nano"` or a text such as `"1,1,2,1"`."""
    if depths in PRESETS:
        return list(PRESETS[depths]["depths"])
    if not re.fullmatch(r"\d+(,\d+)*", depths):
        raise ValueError(f"depths must be numbers such as 1,1,2,1 or one of {', '.join(PRESETS)}, got {depths!r}")
    return [int(depth) for depth in depths.split(",")]


__all__ = ["Conversion", "convert_checkpoint", "read_depths", "start_temporal_branch_as_identity"]
