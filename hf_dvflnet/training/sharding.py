"""What FSDP changes for a trainer: it is refused where it would do something else, and models are saved as usual."""

from collections.abc import Iterator
from contextlib import contextmanager

from accelerate import Accelerator
from accelerate.utils import parse_flag_from_env
from torch import nn
from torch.distributed.fsdp import FSDPModule


def refuse_unfit_sharding(accelerator: Accelerator):
    """
    Check before a training that FSDP, where it was asked for, does what this package expects.

    Raises:
        ValueError: If accelerate does not apply FSDP on this kind of device; if it is FSDP 1; or if only the first
            process would load weights (`cpu_ram_efficient_loading`).
    """
    plugin = getattr(accelerator.state, "fsdp_plugin", None)
    if plugin is None:
        # accelerate sets the variable for `fsdp=True` too, and would train with DDP without a word
        if parse_flag_from_env("ACCELERATE_USE_FSDP") and accelerator.num_processes > 1:
            raise ValueError(
                f"FSDP was asked for, but accelerate does not apply it on the device {accelerator.device.type!r}; use "
                "GPUs, or train without it (a config with distributed_type MULTI_GPU, no --fsdp)"
            )
        return
    if plugin.fsdp_version != 2:
        raise ValueError(
            "FSDP 1 flattens the weights, so that those without weight decay cannot be told from the others; set "
            "fsdp_version: 2 in the accelerate config, or version 2 in fsdp_config"
        )
    if plugin.cpu_ram_efficient_loading:
        raise ValueError(
            "with cpu_ram_efficient_loading, only the first process would have the weights of a teacher, which is not "
            "sharded; set fsdp_cpu_ram_efficient_loading: false in the accelerate config, or in fsdp_config"
        )


def refuse_unsharded_projection(accelerator: Accelerator):
    """
    Raise `ValueError` if features are to be matched and FSDP or DeepSpeed shards the student. Both take one model with
    all weights of the optimizer, and the projection of the features is no part of the student.
    """
    plugins = {"fsdp_plugin": "FSDP", "deepspeed_plugin": "DeepSpeed"}
    used = [name for plugin, name in plugins.items() if getattr(accelerator.state, plugin, None) is not None]
    if used:
        raise ValueError(
            f"features cannot be matched with {used[0]}, since their projection is trained but is no part of the "
            "student; set feature_weight to 0, or train without sharding"
        )


def sharding_of_checkpoints(accelerator: Accelerator) -> str | None:
    """`"FULL_STATE_DICT"` or `"SHARDED_STATE_DICT"` with FSDP, None without."""
    plugin = getattr(accelerator.state, "fsdp_plugin", None)
    return None if plugin is None else plugin.state_dict_type.name


@contextmanager
def whole_weights(accelerator: Accelerator) -> Iterator[None]:
    """Within it, the Trainer saves whole weights. With `"SHARDED_STATE_DICT"`, it would save no model at all."""
    kind = sharding_of_checkpoints(accelerator)
    if kind is None:
        yield
        return
    plugin = accelerator.state.fsdp_plugin
    plugin.set_state_dict_type("FULL_STATE_DICT")
    try:
        yield
    finally:
        plugin.set_state_dict_type(kind)


@contextmanager
def class_before_sharding(model: nn.Module) -> Iterator[None]:
    """
    Within it, a model that FSDP has sharded is of the class that it was.

    FSDP makes it an instance of a subclass, whose name and source transformers would save as those of the model.
    """
    kind = type(model)
    if isinstance(model, FSDPModule):
        model.__class__ = next(base for base in kind.__bases__ if base is not FSDPModule)
    try:
        yield
    finally:
        model.__class__ = kind


def place_unsharded(model: nn.Module, accelerator: Accelerator):
    """
    Place a model that is evaluated before a training. Accelerate shards a model only together with its optimizer, so
    until then each process has the whole model.
    """
    known = any(model is prepared for prepared in accelerator._models)
    if accelerator.is_fsdp2 and not known and not isinstance(model, FSDPModule):
        accelerator.prepare_model(model.to(accelerator.device), evaluation_mode=True)


__all__ = [
    "class_before_sharding",
    "place_unsharded",
    "refuse_unfit_sharding",
    "refuse_unsharded_projection",
    "sharding_of_checkpoints",
    "whole_weights",
]
