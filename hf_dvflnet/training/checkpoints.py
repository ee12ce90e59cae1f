"""Checkpoints for resuming: finds the last complete one and checks that a run can resume from it."""

import json
import os
import pickle
import re
import shutil
import zipfile
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import nn
from torch.distributed.checkpoint import FileSystemReader
from transformers import TrainingArguments
from transformers.utils import logging

from .digests import has_adapters


logger = logging.get_logger(__name__)


def last_whole_checkpoint(folder: str | os.PathLike, processes: int = 1) -> str | None:
    """
    Find the last complete checkpoint of a run, for `train(resume_from_checkpoint=...)`.

    A checkpoint holds a whole model or, if the model is a `PeftModel`, its adapters; or the weights as FSDP or
    DeepSpeed wrote them. A run that is killed while it writes a checkpoint leaves an incomplete one. It is skipped
    with a warning that gives the reason. A checkpoint written by a different number of processes or with
    `save_only_model` is used, also with a warning.

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
# accelerate's names of the weights of FSDP, by state_dict_type: a file, or a folder of torch.distributed.checkpoint
FSDP_WEIGHTS = {"FULL_STATE_DICT": "pytorch_model_fsdp.bin", "SHARDED_STATE_DICT": "pytorch_model_fsdp_0"}


def about_run(checkpoint: Path) -> dict[str, Any]:
    """
    `processes`, `clips_per_step` and, for adapters, `base_weights` (a digest) of the run that wrote a checkpoint.

    Empty if a different Trainer wrote it.
    """
    state = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    return state.get("stateful_callbacks", {}).get(RUN, {})


def find_flaw(checkpoint: Path, processes: int) -> str | None:
    """Why a checkpoint is incomplete: a file that is missing or truncated. None if it is complete."""
    by_deepspeed = _has_any(checkpoint, "global_step*")
    if not by_deepspeed and not _has_any(checkpoint, "model*.safetensors*", "pytorch_model*", *ADAPTERS):
        return "model.safetensors or adapter_model.safetensors is missing"
    try:
        processes = about_run(checkpoint).get("processes", processes)
    except FileNotFoundError:
        return "trainer_state.json is missing"
    except ValueError:
        return "trainer_state.json is truncated"
    if not _is_only_the_model(checkpoint):
        needed = ["rng_state.pth"] if processes == 1 else [f"rng_state_{rank}.pth" for rank in range(processes)]
        if not by_deepspeed:
            needed += ["optimizer*", "scheduler.pt"]
        if _has_any(checkpoint, "optimizer.bin"):  # of FSDP, which does not read model.safetensors
            needed.append(FSDP_WEIGHTS["FULL_STATE_DICT"])
        for name in needed:
            if not _has_any(checkpoint, name):
                return f"{name} is missing"
    if by_deepspeed and (flaw := _flaw_of_deepspeed(checkpoint, processes)):
        return flaw
    for folder in (*checkpoint.glob("pytorch_model_fsdp_*/"), *checkpoint.glob("optimizer_*/")):
        if flaw := _flaw_of_shards(folder):
            return flaw
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


def _flaw_of_shards(folder: Path) -> str | None:
    """Of a folder of torch.distributed.checkpoint. Its `.metadata`, written last, says where in which file data is."""
    try:
        places = FileSystemReader(folder).read_metadata().storage_data.values()
    except FileNotFoundError:
        return f"{folder.name}/.metadata is missing"
    except (EOFError, pickle.UnpicklingError):
        return f"{folder.name}/.metadata is truncated"
    for place in places:
        shard = folder / place.relative_path
        if not shard.is_file():
            return f"{folder.name}/{shard.name} is missing"
        if shard.stat().st_size < place.offset + place.length:
            return f"{folder.name}/{shard.name} is truncated"
    return None


def _flaw_of_deepspeed(checkpoint: Path, processes: int) -> str | None:
    """
    Of DeepSpeed's `save_checkpoint`. Its file `latest`, written last by the first process, names the folder.

    The first process writes `mp_rank_00_model_states.pt`. With ZeRO, each process writes a file
    `*zero_pp_rank_*_optim_states.pt`, and in stage 3 another one `zero_pp_rank_*_model_states.pt` instead.
    """
    if not (checkpoint / "latest").is_file():
        return "latest is missing"
    folder = checkpoint / (checkpoint / "latest").read_text(encoding="utf-8").strip()
    if not _has_any(folder, "*_model_states.pt"):
        return f"{folder.name}/*_model_states.pt is missing"
    for kind in ("model", "optim"):
        name = f"*zero_pp_rank_*_{kind}_states.pt"
        if 0 < (found := len(list(folder.glob(name)))) < processes:
            return f"of {processes} files {folder.name}/{name}, {processes - found} are missing"
    return None


def _has_any(checkpoint: Path, *names: str) -> bool:
    return any(path for name in names for path in checkpoint.glob(name))


def _is_only_the_model(checkpoint: Path) -> bool:
    """Whether a checkpoint was saved with `save_only_model`. It must have its trainer_state.json, written last."""
    # DeepSpeed's optimizer is in global_step*, and its scheduler sometimes
    return not _has_any(checkpoint, "optimizer*", "scheduler.pt", "rng_state*", "global_step*")


def refuse_other_run(
    checkpoint: str | os.PathLike,
    args: TrainingArguments,
    here: dict[str, Any],
    model: nn.Module,
    sharding: str | None = None,
):
    """
    Raise `ValueError` if a run cannot resume from a checkpoint.

    Args:
        checkpoint: The checkpoint.
        args: The arguments of the new run.
        here: What [`about_run`] will say of the new run. The checkpoint's run must have had as many clips per step
            and, for adapters, the same base weights.
        model: The model. Either it and the checkpoint have adapters, or neither of them.
        sharding: The `state_dict_type` of FSDP, which must be that of the checkpoint; None without FSDP.
    """
    _refuse_other_sharding(Path(checkpoint), sharding)
    _refuse_other_kind(Path(checkpoint), model)
    if Path(checkpoint, "trainer_state.json").is_file():
        _refuse_other_base(checkpoint, here)
        _refuse_other_steps(checkpoint, args, here)


def _refuse_other_sharding(checkpoint: Path, sharding: str | None):
    if sharding is None or (checkpoint / FSDP_WEIGHTS[sharding]).exists():
        return
    found = [kind for kind, name in FSDP_WEIGHTS.items() if (checkpoint / name).exists()]
    raise ValueError(
        f"{checkpoint}: contains no {FSDP_WEIGHTS[sharding]}, which FSDP reads with state_dict_type {sharding}. "
        + (f"Set it to {found[0]}" if found else "Resume without FSDP, or choose a different output folder")
    )


def _refuse_other_kind(checkpoint: Path, model: nn.Module):
    # the Trainer would load nothing of a whole model into a `PeftModel`, and go on from other weights
    adapted = has_adapters(model)
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


def _refuse_other_base(checkpoint: str | os.PathLike, here: dict[str, Any]):
    before, now = (about.get("base_weights") for about in (about_run(Path(checkpoint)), here))
    if None not in (before, now) and before != now:
        raise ValueError(
            f"{checkpoint}: contains an adapter of a model with other weights than the one given here; give the model "
            "that the run started from, or choose a different output folder"
        )


def _refuse_other_steps(checkpoint: str | os.PathLike, args: TrainingArguments, here: dict[str, Any]):
    if args.max_steps > 0 or args.auto_find_batch_size:  # with the latter, the batch size that was found is reused
        return
    about = about_run(Path(checkpoint))
    now = here["clips_per_step"]
    before = about.get("clips_per_step", now)
    if before != now:
        raise ValueError(
            f"{checkpoint}: was written with {before} clips per step (processes: {about['processes']}), but this run "
            f"has {now} (processes: {args.world_size}), so the steps of an epoch would change. Set "
            f"per_device_train_batch_size and gradient_accumulation_steps so that there are {before} again, or "
            "choose a different output folder"
        )


def free_space(folder: Path) -> str:
    """Free disk space at a folder, which need not exist yet, as text for the error message of a failed write."""
    there = next((place for place in (folder, *folder.parents) if place.is_dir()), Path())
    # PyTorch's error message does not say that the disk is full
    return f"{shutil.disk_usage(there).free / 1e6:.1f} MB are free there"


__all__ = ["RUN", "about_run", "find_flaw", "free_space", "last_whole_checkpoint", "refuse_other_run"]
