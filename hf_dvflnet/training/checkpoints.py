"""Checkpoints for resuming: finds the last complete one and checks that a run can resume from it."""

import json
import os
import re
import shutil
import zipfile
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import TrainingArguments
from transformers.utils import is_peft_available, logging


logger = logging.get_logger(__name__)


def last_whole_checkpoint(folder: str | os.PathLike, processes: int = 1) -> str | None:
    """
    Find the last complete checkpoint of a run, for `train(resume_from_checkpoint=...)`.

    A checkpoint holds a whole model or, if the model is a `PeftModel`, its adapters. A run that is killed while it
    writes a checkpoint leaves an incomplete one. It is skipped with a warning that gives the reason. A checkpoint
    written by a different number of processes or with `save_only_model` is used, also with a warning.

    Args:
        folder: The output folder of the run.
        processes: Number of processes of the new run. Each process has its own random state, so a run resumes exactly
            only with the same number of processes.

    Returns:
        The path of the checkpoint, or None if there is no complete checkpoint.
    """
    found = [path for path in Path(folder).glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name)]
    for checkpoint in sorted(found, key=lambda path: int(path.name.partition("-")[2]), reverse=True):
        flaw = find_flaw(checkpoint, processes)
        if flaw is not None:
            logger.warning(f"{checkpoint}: the checkpoint is incomplete ({flaw}) and is skipped")
            continue
        if _is_only_the_model(checkpoint):
            logger.warning(
                f"{checkpoint}: was written with save_only_model. The step and the weights are those of the "
                "checkpoint, but the optimizer, the learning rate schedule and the random numbers begin anew, so the "
                "final weights will not be those of an uninterrupted run"
            )
        elif (before := about_run(checkpoint).get("processes", processes)) != processes:
            logger.warning(
                f"{checkpoint}: was written by a different number of processes ({before}, now {processes}). The "
                "random numbers will differ, so the final weights will not be those of an uninterrupted run"
            )
        return str(checkpoint)
    return None


RUN = "VideoClassificationTrainer"
# an adapter that is not PEFT's "default" has a folder of its own
ADAPTERS = ("adapter_model.*", "*/adapter_model.*")


def about_run(checkpoint: Path) -> dict[str, int]:
    """`processes` and `clips_per_step` of the run that wrote a checkpoint; empty if a different Trainer wrote it."""
    state = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    return state.get("stateful_callbacks", {}).get(RUN, {})


def find_flaw(checkpoint: Path, processes: int) -> str | None:
    """Why a checkpoint is incomplete: a file that is missing or truncated. None if it is complete."""
    if not _has_any(checkpoint, "model*.safetensors*", "pytorch_model*", *ADAPTERS):
        return "model.safetensors or adapter_model.safetensors is missing"
    try:
        processes = about_run(checkpoint).get("processes", processes)
    except FileNotFoundError:
        return "trainer_state.json is missing"
    except ValueError:
        return "trainer_state.json is truncated"
    random_states = ["rng_state.pth"] if processes == 1 else [f"rng_state_{rank}.pth" for rank in range(processes)]
    for name in () if _is_only_the_model(checkpoint) else ("optimizer*", "scheduler.pt", *random_states):
        if not _has_any(checkpoint, name):
            return f"{name} is missing"
    for path in checkpoint.rglob("*"):
        if path.suffix in (".pt", ".pth", ".bin") and not zipfile.is_zipfile(path):
            return f"{path.name} is truncated"
        try:
            if path.suffix == ".json":
                json.loads(path.read_text(encoding="utf-8"))
            elif path.suffix == ".safetensors":
                safe_open(path, "numpy").__enter__()
        except (ValueError, SafetensorError):
            return f"{path.name} is truncated"
    return None


def _has_any(checkpoint: Path, *names: str) -> bool:
    return any(path for name in names for path in checkpoint.glob(name))


def _is_only_the_model(checkpoint: Path) -> bool:
    """Whether a checkpoint was saved with `save_only_model`. It must have its trainer_state.json, written last."""
    # DeepSpeed's optimizer is in global_step*
    return not _has_any(checkpoint, "optimizer*", "scheduler.pt", "rng_state*", "global_step*")


def refuse_other_run(checkpoint: str | os.PathLike, args: TrainingArguments, here: int, model: nn.Module):
    """
    Raise `ValueError` if a run cannot resume from a checkpoint: if only one of the two has adapters, or if the run of
    the checkpoint had a different number of clips per step than `here`.
    """
    _refuse_other_kind(Path(checkpoint), model)
    _refuse_other_steps(checkpoint, args, here)


def _refuse_other_kind(checkpoint: Path, model: nn.Module):
    # the Trainer would load nothing of a whole model into a `PeftModel`, and go on from other weights
    adapted = _has_adapters(model)
    if not adapted and _has_any(checkpoint, *ADAPTERS):
        raise ValueError(
            f"{checkpoint}: contains an adapter (adapter_model.safetensors), but the model is not a PeftModel. Add "
            "the adapter of that run with PEFT's get_peft_model, or choose a different output folder"
        )
    if adapted and not _has_any(checkpoint, *ADAPTERS) and _has_any(checkpoint, "model*.safetensors*"):
        raise ValueError(
            f"{checkpoint}: contains a whole model (model.safetensors), but the model is a PeftModel, whose "
            "checkpoints contain an adapter. Resume without the adapter, or start a new run in a different output "
            "folder from the model in this one"
        )


def _has_adapters(model: nn.Module) -> bool:
    if not is_peft_available():
        return False
    from peft import PeftModel

    return isinstance(model, PeftModel)


def _refuse_other_steps(checkpoint: str | os.PathLike, args: TrainingArguments, here: int):
    if args.max_steps > 0 or not Path(checkpoint, "trainer_state.json").is_file():
        return
    if args.auto_find_batch_size:  # the Trainer reuses the batch size that was found
        return
    about = about_run(Path(checkpoint))
    before = about.get("clips_per_step", here)
    if before != here:
        raise ValueError(
            f"{checkpoint}: was written with {before} clips per step (processes: {about['processes']}), but this run "
            f"has {here} (processes: {args.world_size}), so the steps of an epoch would change. Set "
            f"per_device_train_batch_size and gradient_accumulation_steps so that there are {before} again, or "
            "choose a different output folder"
        )


def free_space(folder: Path) -> str:
    """Free disk space at a folder, which need not exist yet, as text for the error message of a failed write."""
    there = next((place for place in (folder, *folder.parents) if place.is_dir()), Path())
    # PyTorch's error message does not say that the disk is full
    return f"{shutil.disk_usage(there).free / 1e6:.1f} MB are free there"


__all__ = ["RUN", "about_run", "find_flaw", "free_space", "last_whole_checkpoint", "refuse_other_run"]
