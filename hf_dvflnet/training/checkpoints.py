"""
Checkpoints: finding the one to resume from, refusing one of another run, and what PEFT changes.

A checkpoint holds what transformers' Trainer saves (weights or adapter, optimizer, schedule, scaler, random states,
`trainer_state.json`), the projection of `feature_weight` among the weights, and in `trainer_state.json` the facts of
the run by which another run is refused (`VideoClassificationTrainer.about_run`).
"""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import nn
from transformers import TrainingArguments
from transformers.trainer_utils import sort_checkpoints
from transformers.utils import is_peft_available, logging

from ..data.label_sets import listed
from ..hub.loaded_models import weights_digest


logger = logging.get_logger(__name__)

RUN = "VideoClassificationTrainer"  # what a run says of itself in the `stateful_callbacks` of trainer_state.json


def last_whole_checkpoint(folder: str | Path, processes: int = 1) -> str | None:
    """
    Find the last complete checkpoint of a run, for `train(resume_from_checkpoint=...)`.

    A run that is killed while it writes a checkpoint leaves an incomplete one, which transformers'
    `get_last_checkpoint` would return. It is skipped with a warning: `trainer_state.json`, which is written last, or
    the random state of a process is missing. A checkpoint written by a different number of processes or with
    `save_only_model` is used, also with a warning.

    Args:
        folder: The output folder of the run.
        processes: Number of processes of the new run. Each process has its own random state, so a run resumes exactly
            only with the same number of processes.

    Returns:
        The path of the checkpoint, or None if there is no complete checkpoint.
    """
    for checkpoint in map(Path, reversed(sort_checkpoints(str(folder)))):
        try:
            before = run_of(checkpoint).get("processes", processes)
        except (OSError, ValueError):
            logger.warning(f"{checkpoint}: the checkpoint is incomplete (trainer_state.json) and is skipped")
            continue
        names = ["rng_state.pth"] if before == 1 else [f"rng_state_{rank}.pth" for rank in range(before)]
        missing = [name for name in names if not (checkpoint / name).is_file()]
        if (checkpoint / "checkpoint-is-incomplete.txt").exists() or 0 < len(missing) < len(names):
            logger.warning(f"{checkpoint}: the checkpoint is incomplete ({', '.join(missing)}) and is skipped")
            continue
        if missing:
            logger.warning(
                f"{checkpoint}: was written with save_only_model. The step and the weights are those of the "
                "checkpoint, but the optimizer, the learning rate schedule and the random numbers begin anew, so the "
                "final weights will not be those of an uninterrupted run"
            )
        elif before != processes:
            logger.warning(
                f"{checkpoint}: was written by a different number of processes ({before}, now {processes}). The "
                "random numbers will differ, so the final weights will not be those of an uninterrupted run"
            )
        return str(checkpoint)
    return None


def run_of(checkpoint: Path) -> dict[str, Any]:
    """What a checkpoint says of its run, see `about_run` of the trainer. Empty if a different Trainer wrote it."""
    state = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    return state["stateful_callbacks"].get(RUN, {}) if state.get("stateful_callbacks") else {}


def refuse_other_run(checkpoint: Path, args: TrainingArguments, now: dict[str, Any], model: nn.Module):
    """
    Raise `ValueError` if a run cannot resume from a checkpoint. The message names what differs.

    These must be the same: whether the model has adapters, with their settings and base weights; the classes and their
    order; the weights that are trained; the kind of optimizer; and the number of clips, of an epoch and of a step.
    `now` is what [`run_of`] will say of the new run; what an earlier version did not record is not compared.
    """
    adapted, adapters = has_adapters(model), list(checkpoint.rglob("adapter_model.*"))
    if not adapted and adapters:
        raise ValueError(
            f"{checkpoint}: contains an adapter ({adapters[0].name}), but the model is not a PeftModel. Add the "
            "adapter of that run with PEFT's get_peft_model, or choose a different output folder"
        )
    # the Trainer would load nothing of a whole model into a `PeftModel`, and go on from other weights
    if adapted and not adapters and list(checkpoint.glob("model*.safetensors*")):
        raise ValueError(
            f"{checkpoint}: contains a whole model (model.safetensors), but the model is a PeftModel, whose "
            "checkpoints contain an adapter. Resume without the adapter, or start a new run in a different output "
            "folder from the model in this one"
        )
    before = run_of(checkpoint)
    if now.get("features") and not before.get("features"):
        raise ValueError(
            f"{checkpoint}: contains no projection of features, since its run did not match features, or was one of "
            "hf_dvflnet 0.1.0, which kept it in a separate file; resume without feature_weight, or begin anew in "
            "another output folder"
        )
    for name in ("classes", "base_weights", "adapter", "weights", "optimizer", "clips"):
        then, given = before.get(name), now.get(name)
        if then and given and then != given:
            raise ValueError(
                f"{checkpoint}: was written by a run with other {name}: {difference(then, given)}. Give this run the "
                "same, or choose a different output folder"
            )
    counted = args.max_steps <= 0 and not args.auto_find_batch_size  # which reuses the batch size that was found
    if counted and before.get("clips_per_step", now["clips_per_step"]) != now["clips_per_step"]:
        raise ValueError(
            f"{checkpoint}: was written with {before['clips_per_step']} clips per step (processes: "
            f"{before['processes']}), but this run has {now['clips_per_step']} (processes: {now['processes']}), so "
            "the steps of an epoch would change. Set per_device_train_batch_size and gradient_accumulation_steps so "
            f"that there are {before['clips_per_step']} again, or choose a different output folder"
        )


def trained_weights(model: nn.Module) -> dict[str, list[int]]:
    """Shapes of the weights that are trained, by name, also while a compiler wraps layers."""
    return {
        name.replace("_orig_mod.", ""): list(weight.shape)
        for name, weight in model.named_parameters()
        if weight.requires_grad
    }


def difference(before: Any, now: Any) -> str:
    """The first difference of two values, lists or dicts, in words."""
    if isinstance(before, dict):
        name = next(name for name in {**before, **now} if before.get(name) != now.get(name))
        return f"{name} was {before.get(name, 'not there')} and is {now.get(name, 'not there')}"
    if isinstance(before, list):
        gone, new = ([name for name in one if name not in other] for one, other in ((before, now), (now, before)))
        if gone or new:
            return f"only the checkpoint has {listed(gone)}, only this run has {listed(new)}"
        place = next(place for place, name in enumerate(before) if name != now[place])
        return f"class {place} was {before[place]!r} and is {now[place]!r}"
    return f"{before} then, {now} now"


@contextmanager
def naming_full_disk(folder: Path, what: str, advice: str = "") -> Iterator[None]:
    """Turn PyTorch's unspecific errors on a full disk into an `OSError` that states the free space."""
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        existing = next((place for place in (folder, *folder.parents) if place.is_dir()), Path())
        free = f"{shutil.disk_usage(existing).free / 1e6:.1f} MB are free there"
        raise OSError(f"{folder}: the {what} cannot be written ({error}; {free}){advice}") from error


# Adapters


def has_adapters(model: nn.Module) -> bool:
    """Whether a model is a `PeftModel`."""
    if not is_peft_available():
        return False
    from peft import PeftModel

    return isinstance(model, PeftModel)


def adapter_settings(model: nn.Module) -> dict[str, Any] | None:
    """The settings of a `PeftModel`'s adapter that a checkpoint depends on. None for any other model."""
    if not has_adapters(model):
        return None
    peft_model: Any = model
    config = peft_model.peft_config[peft_model.active_adapter].to_dict()
    names = ("peft_type", "r", "lora_alpha", "use_rslora", "use_dora", "target_modules", "modules_to_save")
    return json.loads(json.dumps({name: config.get(name) for name in names}, default=sorted))  # has sets


def base_weights_digest(model: nn.Module) -> str | None:
    """
    The digest of the weights that the adapters of a `PeftModel` do not replace, and its checkpoints do not contain.

    None for any other model.
    """
    if not has_adapters(model):
        return None
    # in a path, an adapter's weights have its name; `original_module` is what `modules_to_save` replaces
    peft_model: Any = model
    not_base = {*peft_model.peft_config, "original_module"}
    weights = {
        name.replace(".base_layer.", "."): weight
        for name, weight in model.state_dict().items()
        if not_base.isdisjoint(name.split("."))
    }
    return weights_digest(weights)
