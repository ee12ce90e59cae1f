"""Checkpoints of a run: which is the last whole one, and whether a run can go on from it."""

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
    The last complete checkpoint of a run, for `train(resume_from_checkpoint=...)`.

    A run that is killed while it writes leaves half a checkpoint, which is skipped with a warning that says why. A
    checkpoint of another number of processes is used, also with a warning.

    Args:
        folder: The output folder of the run.
        processes: Number of processes of the new run. Each process has its own random state, so a run resumes exactly
            only with the same number.

    Returns:
        Its path; None if there is none.
    """
    found = [path for path in Path(folder).glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name)]
    for checkpoint in sorted(found, key=lambda path: int(path.name.partition("-")[2]), reverse=True):
        flaw = find_flaw(checkpoint, processes)
        if flaw is not None:
            logger.warning(f"{checkpoint}: is not whole ({flaw}), and passed over")
            continue
        before = about_run(checkpoint).get("processes", processes)
        if before != processes:
            logger.warning(
                f"{checkpoint}: was written by another number of processes ({before}, now {processes}), whose random "
                "numbers were others: the run does not end at the very weights that it would have ended at"
            )
        return str(checkpoint)
    return None


RUN = "VideoClassificationTrainer"


def about_run(checkpoint: Path) -> dict[str, int]:
    """Of the run that wrote a checkpoint, `processes` and `clips_per_step`; nothing if another Trainer wrote it."""
    state = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    return state.get("stateful_callbacks", {}).get(RUN, {})


def find_flaw(checkpoint: Path, processes: int) -> str | None:
    """What is wrong with a checkpoint: a file that is missing or cut short."""
    if not any(path for name in ("model*.safetensors*", "pytorch_model*") for path in checkpoint.glob(name)):
        return "model.safetensors is missing"
    try:
        processes = about_run(checkpoint).get("processes", processes)
    except FileNotFoundError:
        return "trainer_state.json is missing"
    except ValueError:
        return "trainer_state.json is cut short"
    random_states = ["rng_state.pth"] if processes == 1 else [f"rng_state_{rank}.pth" for rank in range(processes)]
    for name in ("optimizer*", "scheduler.pt", *random_states):
        if not any(checkpoint.glob(name)):
            return f"{name} is missing"
    for path in checkpoint.rglob("*"):
        if path.suffix in (".pt", ".pth", ".bin") and not zipfile.is_zipfile(path):
            return f"{path.name} is cut short"
        try:
            if path.suffix == ".json":
                json.loads(path.read_text(encoding="utf-8"))
            elif path.suffix == ".safetensors":
                safe_open(path, "numpy").__enter__()
        except (ValueError, SafetensorError):
            return f"{path.name} is cut short"
    return None


def refuse_other_steps(checkpoint: str | os.PathLike, args: TrainingArguments, here: int):
    """Raise `ValueError` if the run of a checkpoint saw another number of clips a step than there are `here`."""
    if args.max_steps > 0 or not Path(checkpoint, "trainer_state.json").is_file():
        return
    if args.auto_find_batch_size:  # the Trainer goes on with the batch that was found
        return
    about = about_run(Path(checkpoint))
    before = about.get("clips_per_step", here)
    if before != here:
        raise ValueError(
            f"{checkpoint}: was written with {before} clips a step (processes: {about['processes']}), and now "
            f"there are {here} (processes: {args.world_size}), so that an epoch would have other steps. Set "
            f"per_device_train_batch_size and gradient_accumulation_steps so that there are {before} again, or "
            "train into another folder"
        )


def free_space(folder: Path) -> str:
    """How much room there is where a folder lies, or will lie, for the message of a failed write."""
    there = next((place for place in (folder, *folder.parents) if place.is_dir()), Path())
    # PyTorch's own message does not say that a disk is full
    return f"{shutil.disk_usage(there).free / 1e6:.1f} MB are free there"


__all__ = ["RUN", "about_run", "find_flaw", "free_space", "last_whole_checkpoint", "refuse_other_steps"]
