"""Checkpoints for resuming: finds the last complete one and checks that a run can resume from it."""

import json
import os
import re
import shutil
import zipfile
from pathlib import Path

from safetensors import SafetensorError, safe_open
from transformers import TrainingArguments
from transformers.utils import logging


logger = logging.get_logger(__name__)


def last_whole_checkpoint(folder: str | os.PathLike, processes: int = 1) -> str | None:
    """
    Find the last complete checkpoint of a run, for `train(resume_from_checkpoint=...)`.

    A run that is killed while it writes a checkpoint leaves an incomplete one. It is skipped with a warning that gives
    the reason. A checkpoint written by a different number of processes is used, also with a warning.

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
        before = about_run(checkpoint).get("processes", processes)
        if before != processes:
            logger.warning(
                f"{checkpoint}: was written by a different number of processes ({before}, now {processes}). The "
                "random numbers will differ, so the final weights will not be those of an uninterrupted run"
            )
        return str(checkpoint)
    return None


RUN = "VideoClassificationTrainer"


def about_run(checkpoint: Path) -> dict[str, int]:
    """`processes` and `clips_per_step` of the run that wrote a checkpoint; empty if a different Trainer wrote it."""
    state = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    return state.get("stateful_callbacks", {}).get(RUN, {})


def find_flaw(checkpoint: Path, processes: int) -> str | None:
    """Why a checkpoint is incomplete: a file that is missing or truncated. None if it is complete."""
    if not any(path for name in ("model*.safetensors*", "pytorch_model*") for path in checkpoint.glob(name)):
        return "model.safetensors is missing"
    try:
        processes = about_run(checkpoint).get("processes", processes)
    except FileNotFoundError:
        return "trainer_state.json is missing"
    except ValueError:
        return "trainer_state.json is truncated"
    random_states = ["rng_state.pth"] if processes == 1 else [f"rng_state_{rank}.pth" for rank in range(processes)]
    for name in ("optimizer*", "scheduler.pt", *random_states):
        if not any(checkpoint.glob(name)):
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


def refuse_other_steps(checkpoint: str | os.PathLike, args: TrainingArguments, here: int):
    """Raise `ValueError` if the run of a checkpoint had a different number of clips per step than `here`."""
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


__all__ = ["RUN", "about_run", "find_flaw", "free_space", "last_whole_checkpoint", "refuse_other_steps"]
