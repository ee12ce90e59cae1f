"""
Published checkpoints in and out: reading them safely, naming their weights as
[`VideoFocalNetForVideoClassification`] does, and finding out from the weights which network they belong to.

Known are the checkpoints of TalalWasim/Video-FocalNets, hayatkhan8660-maker/DVFL-Net and microsoft/FocalNet (images),
and transformers' own FocalNet. No code from a file is ever run.
"""

import pickle
import re
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from transformers import FocalNetForImageClassification

from ..configuration_videofocalnet import PRESETS, VideoFocalNetConfig
from ..data.label_sets import LabelSet
from ..modeling_videofocalnet import VideoFocalNetForVideoClassification, VideoFocalNetModulation
from .model_folder import DAMAGED, read_config


class _ConfigNode:
    """Stands for `yacs.config.CfgNode` while a checkpoint is read: a plain ordered dict, without any code of yacs."""

    def __new__(cls, *args, **kwargs):
        return OrderedDict()


def load_published_checkpoint(path: str | Path) -> dict[str, Any]:
    """
    Read a published `.pth` or `.safetensors` file without running any code from it and without yacs.

    Returns what the file holds: `{"model": state_dict, "config": nested dicts, "epoch": ..., ...}`, or a bare state
    dict.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is no PyTorch checkpoint, or holds objects other than tensors, numbers, text and the
            configuration node.
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
    # whatever a damaged or hostile file makes of the reader, short of a lack of memory
    except (
        pickle.UnpicklingError,
        zipfile.BadZipFile,
        struct.error,
        SafetensorError,
        RuntimeError,
        EOFError,
        ValueError,
        TypeError,
        AttributeError,
        LookupError,
        OverflowError,
        AssertionError,
    ) as error:
        reason = str(error).split("\n")[0].split(". This file")[0] or type(error).__name__
        raise ValueError(f"{path}: cannot be read as a published checkpoint: {reason}") from error


def _refuse_packed(path: Path):
    """PyTorch stores weights as they are: where they are compressed, or overlap, the memory would be filled."""
    with open(path, "rb") as file:
        if file.read(2) != b"PK":  # the format before PyTorch 1.6, which knows no compression
            return
        with zipfile.ZipFile(file) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
    if unpacked > path.stat().st_size:
        raise ValueError(f"it has {path.stat().st_size} bytes, but {unpacked} when it is unpacked")


# Weight names there and here. `#` is a number, `^` the beginning; each rule is applied once, in this order.
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


def _rename(key: str, rules: Iterable[tuple[str, str]]) -> str:
    for old, new in rules:
        pattern = re.escape(old).replace(r"\^", "^").replace(r"\#", r"(\d+)")
        groups = iter(range(1, 10))
        key = re.sub(pattern, re.sub("#", lambda _: rf"\{next(groups)}", new.removeprefix("^")), key)  # noqa: B023
    return key


def _move_downsample(key: str, by: int) -> str:
    """There a downsampling ends its stage, here it begins the next one."""
    return re.sub(r"\.(\d+)\.downsample\.", lambda match: f".{int(match[1]) + by}.downsample.", key)


def rename_published_key(key: str) -> str:
    """This package's name for a published weight name; any other name comes back unchanged."""
    renamed = _rename(key, _PUBLISHED_NAMES)
    return key if renamed == key else _move_downsample(renamed, by=1)


def publish_key(key: str) -> str:
    """The published name for a weight name of this package; any other name comes back unchanged."""
    renamed = _rename(key, [(ours, published) for published, ours in reversed(_PUBLISHED_NAMES)])
    return key if renamed == key else _move_downsample(renamed, by=-1)


def _rename_transformers_key(key: str) -> str:
    renamed = _rename(key, _TRANSFORMERS_NAMES)
    return key if renamed == key else _move_downsample(renamed, by=1)


def _reshape(key: str, weight: torch.Tensor) -> torch.Tensor:
    if key.endswith("projection_context.weight"):
        return weight.flatten(1)
    if ".temporal_focal_layers." in key:
        return weight.unsqueeze(-1)
    if key == _STEM and weight.ndim == 5:
        return weight.transpose(1, 2).flatten(1, 2)
    return weight


_STEM = "videofocalnet.embeddings.projection.weight"


def convert_published_state_dict(state_dict: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """
    Published names and shapes -> those of [`VideoFocalNetForVideoClassification`]. Values are never changed.

    A 1x1 convolution becomes a linear layer, (out, in, 1, 1) or (out, in, 1) -> (out, in); a convolution along frames
    a 2-D one, (out, in, k) -> (out, in, k, 1); a tubelet stem a 2-D one over folded frames, (out, channels, frames, h,
    w) -> (out, frames * channels, h, w).
    """
    renamed = {rename_published_key(key): weight for key, weight in state_dict.items()}
    return {key: _reshape(key, weight) for key, weight in renamed.items()}


def publish_state_dict(model: VideoFocalNetForVideoClassification) -> dict[str, torch.Tensor]:
    """The reverse of [`convert_published_state_dict`]: a model's weights under the published names and shapes."""
    published = {}
    for key, weight in model.state_dict().items():
        if key.endswith(".modulation.projection_context.weight"):
            weight = weight[..., None, None]
        elif key.endswith(".modulation.temporal_projection_context.weight"):
            weight = weight[..., None]
        elif ".temporal_focal_layers." in key:
            weight = weight.squeeze(-1)
        elif key == _STEM and model.config.tubelet_size > 1:
            weight = weight.unflatten(1, (model.config.tubelet_size, -1)).transpose(1, 2)
        published[publish_key(key)] = weight.contiguous()
    return published


# Fields of the config and where the configuration node of a checkpoint names them.
_PUBLISHED_FIELDS = {
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
_FRAME_INTERVAL = "AUG.FRAME_INTERVAL"
# What `DATA.DATASET` of a checkpoint's configuration says of the lists that it was trained on.
_TRAINED_ON = {
    name: {"benchmark": name, "protocol": protocol, "fold": 1, "split": "train"}
    for name, protocol in (
        *(("ucf50", "dvflnet_8020"), ("ucf101", "dvflnet_8020"), ("hmdb51", "dvflnet")),
        *(("ssv2", "official"), ("kinetics400", "official")),
    )
}
_FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
_NO_TRACE = {"use_post_layernorm": "--use-postln", "normalize_modulator": "--normalize-modulator"}


def publish_checkpoint(model: VideoFocalNetForVideoClassification, frame_interval: int = 4) -> dict[str, Any]:
    """
    A checkpoint in the published format, `{"model": state_dict, "config": nested dicts}`, for `torch.save`.

    The configuration is of plain dicts, under the names that the published one has. Class names have no place there.
    """
    config: dict[str, Any] = {"AUG": {"FRAME_INTERVAL": frame_interval}}
    for name, published in _PUBLISHED_FIELDS.items():
        *sections, last = published.split(".")
        node = config
        for section in sections:
            node = node.setdefault(section, {})
        node[last] = getattr(model.config, name)
    return {"model": publish_state_dict(model), "config": config}


def _lookup(config: Mapping[str, Any], name: str) -> Any:
    """`MODEL.FOCAL.DEPTHS` of nested dicts, or None."""
    node: Any = config
    for part in name.split("."):
        if not isinstance(node, Mapping):
            return None
        node = node.get(part)
    return node


@dataclass
class _Source:
    """What was read: weights under this package's names, and what the source says beside them."""

    weights: dict[str, torch.Tensor]
    tubelet_size: int = 1
    stated: dict[str, Any] = field(default_factory=dict)  # fields of the config
    frame_interval: int | None = None
    id2label: dict[int, str] | None = None
    left: list[str] = field(default_factory=list)
    training_data: dict[str, Any] | None = None
    known_by: str = "published"  # whose names its owner knows


@dataclass
class Conversion:
    """
    A converted checkpoint.

    Args:
        model: The network, in float32, on the CPU.
        frame_interval: The interval f of the sampling rules that it was trained with, or that of the recipe, 4.
        copied: Names of weights that come from the source.
        new: Names of weights that the source lacks, and that are initialised.
        left: Names of weights that the source holds and the network has no place for.
        notes: Sentences on what was assumed or contradicts itself.
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
    Build the network that a published checkpoint belongs to, with its weights.

    Depths, width, focal levels and windows, conv embedding, layer scale, post-norm in modulation, tubelets and classes
    are read off the weights. What the checkpoint's configuration says otherwise is noted, and the weights win.

    An image network (ImageNet FocalNet) becomes a video network: its spatial weights are copied, and a temporal branch
    is added.

    Args:
        source: A `.pth` or `.safetensors` file of published names; or a folder or Hub id of transformers' FocalNet.
        labels: The class names. Those of an image network's source give it a new head; without, its head is kept.
        num_frames: Frames of a clip, by default what the checkpoint's configuration says, else 8.
        use_post_layernorm: The checkpoint's `use_postln`, which leaves no trace in the weights; its configuration, if
            it has one, says so itself.
        normalize_modulator: Likewise.
        depths: Blocks of each stage, for image networks only: the first blocks of each stage are taken.
        temporal_init: How the temporal branch of an image network starts: `"identity"` (the temporal modulator is 1
            everywhere, so that each frame gets the image network's features) or `"random"` (as published).

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the source cannot be read, belongs to another architecture, or the arguments do not fit it.
    """
    if temporal_init not in ("identity", "random"):
        raise ValueError(f"temporal_init must be 'identity' or 'random', got {temporal_init!r}")
    found = _read_transformers(str(source)) if _is_transformers_source(source) else _read_file(Path(source))
    architecture = _architecture(found, source)
    is_image = not any(".temporal_" in name for name in found.weights)
    notes = []

    for name, value in architecture.items():
        stated = found.stated.get(name, value)
        if stated != value and not (isinstance(stated, (list, tuple)) and list(stated) == value):
            notes.append(f"the configuration says {name}={stated}, the weights {value}: the weights were taken")
    for name, told in (("use_post_layernorm", use_post_layernorm), ("normalize_modulator", normalize_modulator)):
        stated = found.stated.get(name)
        if stated is None and not told:
            notes.append(f"{name} leaves no trace in the weights and was taken as false ({_NO_TRACE[name]} sets it)")
        elif stated is False and told:
            notes.append(f"the configuration says {name}=False, {_NO_TRACE[name]} True: True was taken")
        architecture[name] = told or bool(stated)
    for name in ("hidden_act", "layer_norm_eps", "drop_path_rate", "image_size"):
        if name in found.stated:
            architecture[name] = found.stated[name]
    stated_frames = found.stated.get("num_frames")
    if num_frames and stated_frames and num_frames != stated_frames:
        notes.append(f"the configuration says num_frames={stated_frames}, you {num_frames}: yours was taken")
    if num_frames or stated_frames:
        architecture["num_frames"] = num_frames or stated_frames
    elif not is_image:
        notes.append("nothing says num_frames, and 8 was taken (--num-frames sets it)")
    if found.frame_interval is None and not is_image:
        notes.append("nothing says the frame interval, and that of the recipe, 4, was taken")

    if depths is not None:
        if not is_image:
            raise ValueError(f"{source}: is a video network; only an image network's depth can be chosen")
        if len(depths) != len(architecture["depths"]) or any(
            wanted > given for wanted, given in zip(depths, architecture["depths"], strict=True)
        ):
            raise ValueError(f"{source}: has {architecture['depths']} blocks, too few for depths={depths}")
        architecture["depths"] = list(depths)
    if "drop_path_rate" not in architecture:
        for preset in PRESETS.values():
            if preset["depths"] == architecture["depths"] and preset["embed_dim"] == architecture["embed_dim"]:
                architecture["drop_path_rate"] = preset["drop_path_rate"]

    classes = architecture.pop("num_labels")
    id2label = found.id2label
    if labels is not None:
        id2label = dict(enumerate(labels.names))
        if is_image:
            for name in ("classifier.weight", "classifier.bias"):
                if found.weights.pop(name, None) is not None:
                    found.left.append(_known_name(name, found))
        elif classes is not None and len(labels.names) != classes:
            raise ValueError(f"{source}: has {classes} classes, but {labels.source} names {len(labels.names)}")
    elif classes is None and is_image:
        raise ValueError(f"{source}: has no head; name the classes of the new one (labels)")
    if id2label is not None:
        architecture["id2label"] = id2label
        architecture["label2id"] = {name: index for index, name in id2label.items()}
    elif classes is not None:
        architecture["num_labels"] = classes
    try:
        config = VideoFocalNetConfig(**architecture)
    except StrictDataclassError as error:
        raise ValueError(f"{source}: {' '.join(str(error).split())}") from error

    if found.training_data is not None:
        config.training_data = found.training_data  # so that an evaluation on it warns
    with torch.device("meta"):  # of any size: one weight of a hostile file could ask for a network of terabytes
        new, left = _compare(VideoFocalNetForVideoClassification(config), found, is_image, source)
    model = VideoFocalNetForVideoClassification(config)
    model.load_state_dict({name: found.weights[name] for name in model.state_dict() if name not in new}, strict=False)
    if is_image and temporal_init == "identity":
        start_temporal_branch_as_identity(model)
    copied = sorted(set(model.state_dict()) - set(new))
    return Conversion(model.eval(), found.frame_interval or 4, copied, new, left, notes)


@torch.no_grad()
def start_temporal_branch_as_identity(model: nn.Module):
    """
    Make every temporal modulator exactly 1, so that the network treats each frame as an image network would.

    Only its last projection is set, weights 0 and bias 1: the first step of training moves it, whatever is before it.
    """
    for module in model.modules():
        if isinstance(module, VideoFocalNetModulation):
            module.temporal_projection_context.weight.zero_()
            module.temporal_projection_context.bias.fill_(1)


def _is_transformers_source(source: str | Path) -> bool:
    path = Path(source)
    is_file_name = path.suffix in (".pth", ".pt", ".bin", ".ckpt", ".tar", ".safetensors")
    is_hub_id = not is_file_name and not path.is_absolute() and str(source).count("/") == 1 and "\\" not in str(source)
    return path.is_dir() or (is_hub_id and not path.exists())


def _read_transformers(source: str) -> _Source:
    try:
        config = read_config(source)
        if config.model_type != "focalnet":
            raise ValueError(
                f"model_type is {config.model_type!r}; of transformers' models only 'focalnet' can be converted"
            )
        model, info = FocalNetForImageClassification.from_pretrained(
            source, config=config, dtype=torch.float32, output_loading_info=True
        )
    except (pickle.UnpicklingError, *DAMAGED) as error:
        raise ValueError(f"{source}: cannot be read as a FocalNet of transformers: {error}") from error
    lacking = sorted(name for name in info["missing_keys"] if not name.startswith("classifier."))
    left = sorted(info["unexpected_keys"])
    unknown = [name for name in left if not name.startswith(("decoder.", "focalnet.embeddings.mask_token"))]
    if lacking or unknown or info["mismatched_keys"]:
        raise ValueError(
            f"{source}: is no whole FocalNet. Missing: {', '.join(lacking) or 'none'}. Unexpected: "
            f"{', '.join(unknown) or 'none'}. Of another shape: {info['mismatched_keys'] or 'none'}"
        )
    names = {name: _rename_transformers_key(name) for name in model.state_dict() if name not in info["missing_keys"]}
    config = model.config
    stated = {
        name: getattr(config, name)
        for name in ("hidden_act", "layer_norm_eps", "use_post_layernorm", "normalize_modulator")
    }
    return _Source(
        weights={ours: _reshape(ours, model.state_dict()[theirs]) for theirs, ours in names.items()},
        stated=stated,
        id2label=None if info["missing_keys"] else dict(config.id2label),
        left=left,
        known_by="transformers",
    )


def _read_file(path: Path) -> _Source:
    checkpoint = load_published_checkpoint(path)
    state_dict = checkpoint
    if isinstance(checkpoint, Mapping):
        state_dict = checkpoint.get("model", checkpoint)
    if (
        not isinstance(state_dict, Mapping)
        or not state_dict
        or not all(isinstance(name, str) and isinstance(weight, torch.Tensor) for name, weight in state_dict.items())
    ):
        raise ValueError(f"{path}: holds no state dict, alone or under 'model'")
    if all(name.startswith("module.") for name in state_dict):  # saved from DistributedDataParallel
        state_dict = {name.removeprefix("module."): weight for name, weight in state_dict.items()}
    for name, weight in state_dict.items():
        if weight.dtype not in _FLOATS:
            expected = ", ".join(map(str, _FLOATS))
            raise ValueError(f"{path}: {name} has the dtype {weight.dtype}; expected is one of {expected}")
        if not weight.numel() or weight.nbytes > weight.untyped_storage().nbytes():
            raise ValueError(f"{path}: {name} has the shape {tuple(weight.shape)}, for which it holds no numbers")
    if any(name.startswith("videofocalnet.") for name in state_dict):
        raise ValueError(f"{path}: holds this package's own names; there is nothing to convert")

    try:
        found = _Source(convert_published_state_dict(state_dict))
    except (IndexError, RuntimeError) as error:
        raise ValueError(f"{path}: a weight has a shape that no Video-FocalNet has: {error}") from error
    stem = state_dict.get("patch_embed.proj.weight")
    if stem is not None and stem.ndim == 5:
        found.tubelet_size = stem.shape[2]
    config = checkpoint.get("config") if "model" in checkpoint else None
    if isinstance(config, Mapping):
        stated = {name: _lookup(config, published) for name, published in _PUBLISHED_FIELDS.items()}
        found.stated = {name: value for name, value in stated.items() if value is not None}
        found.frame_interval = _lookup(config, _FRAME_INTERVAL)
        found.training_data = _TRAINED_ON.get(str(_lookup(config, "DATA.DATASET")).lower().replace("-", ""))
    return found


def _architecture(found: _Source, source: str | Path) -> dict[str, Any]:
    """Fields of the config that the weights tell; `num_labels` is None without a head."""
    blocks: dict[int, set[int]] = {}
    for name in found.weights:
        match = re.match(r"videofocalnet\.stages\.(\d+)\.layers\.(\d+)\.modulation\.", name)
        if match:
            blocks.setdefault(int(match[1]), set()).add(int(match[2]))
    if not blocks:
        names = list(found.weights)
        raise ValueError(
            f"{source}: holds no Video-FocalNet, DVFL-Net or FocalNet. Its weights are called {', '.join(names[:5])}"
            f"{', ...' if len(names) > 5 else ''}; layers.0.blocks.0.modulation.f.weight and the like are expected"
        )

    def shape(name: str, rank: int) -> torch.Size:
        weight = found.weights.get(name)
        if weight is None:
            raise ValueError(f"{source}: lacks {_known_name(name, found)}")
        if weight.ndim != rank:
            raise ValueError(f"{source}: {_known_name(name, found)} has shape {tuple(weight.shape)}, not {rank} sizes")
        return weight.shape

    embed_dim, stem_channels, _, stem_kernel = shape(_STEM, 4)
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


def _known_name(name: str, found: _Source) -> str:
    return publish_key(name) if found.known_by == "published" else name


def _compare(
    model: VideoFocalNetForVideoClassification, found: _Source, is_image: bool, source: str | Path
) -> tuple[list[str], list[str]]:
    """Names that the source lacks and those it has too many; an error if it does not fill the network."""
    wanted = model.state_dict()
    missing = sorted(set(wanted) - set(found.weights))
    unexpected = sorted(set(found.weights) - set(wanted))
    other_shape = [
        f"{_known_name(name, found)} {tuple(found.weights[name].shape)} rather than {tuple(wanted[name].shape)}"
        for name in wanted
        if name in found.weights and found.weights[name].shape != wanted[name].shape
    ]
    new, left = [], list(found.left)
    if is_image:
        # what an image network is known to lack, and the blocks that a shallower network leaves
        new = [name for name in missing if ".temporal_" in name or name.startswith("classifier.")]
        cut = [
            name
            for name in unexpected
            if (match := re.match(r"videofocalnet\.stages\.(\d+)\.layers\.(\d+)\.", name))
            and int(match[2]) >= model.config.depths[int(match[1])]
        ]
        missing = [name for name in missing if name not in new]
        unexpected = [name for name in unexpected if name not in cut]
        left += [_known_name(name, found) for name in cut]
    if missing or unexpected or other_shape:
        raise ValueError(
            f"{source}: does not fill the network that its weights describe. "
            f"Missing: {', '.join(_known_name(name, found) for name in missing) or 'none'}. "
            f"Unexpected: {', '.join(_known_name(name, found) for name in unexpected) or 'none'}. "
            f"Of another shape: {', '.join(other_shape) or 'none'}"
        )
    return new, left


def read_depths(depths: str) -> list[int]:
    """`"nano"` or another preset, or `"1,1,2,1"` -> blocks of each stage."""
    if depths in PRESETS:
        return list(PRESETS[depths]["depths"])
    if not re.fullmatch(r"\d+(,\d+)*", depths):
        raise ValueError(f"depths must be numbers such as 1,1,2,1 or one of {', '.join(PRESETS)}, got {depths!r}")
    return [int(depth) for depth in depths.split(",")]


__all__ = [
    "Conversion",
    "convert_checkpoint",
    "convert_published_state_dict",
    "load_published_checkpoint",
    "publish_checkpoint",
    "publish_key",
    "publish_state_dict",
    "rename_published_key",
    "start_temporal_branch_as_identity",
]
