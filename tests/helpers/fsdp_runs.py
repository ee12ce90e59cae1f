"""
Trainings with and without FSDP, to be started on two processes: `torchrun --nproc_per_node 2 fsdp_runs.py FOLDER`.

Each run leaves its folder. What it found is in `results.json`, by the name of the run.
"""

import json
import sys
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from small_trainings import RandomClips, arguments, labelled, new_model
from torch.distributed.tensor import DTensor
from transformers import Trainer

from hf_dvflnet import DistillationConfig, DistillationTrainer, VideoFocalNetConfig


FOLDER = Path(sys.argv[1])
CONFIG = labelled(VideoFocalNetConfig(embed_dim=8, image_size=32, num_frames=4, num_labels=6, drop_path_rate=0.3))
KINDS = ("FULL_STATE_DICT", "SHARDED_STATE_DICT")
results: dict[str, dict] = {}


def student_of(name: str, seed: int) -> torch.nn.Module:
    if not name.startswith("adapter"):
        return new_model(CONFIG, seed)
    model = new_model(CONFIG, 0)
    torch.manual_seed(seed)
    return get_peft_model(model, LoraConfig(r=2, target_modules="all-linear", modules_to_save=["classifier"]))


def trainer_of(name: str, kind: str | None, seed: int = 0, **changes) -> DistillationTrainer:
    sharded = {"fsdp": True, "fsdp_config": {"state_dict_type": kind}} if kind else {}
    options = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2, "logging_steps": 1, "weight_decay": 0.1}
    options |= {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 2, "modulator_weight": 0.01}
    options |= {"feature_weight": 0.5}
    args = DistillationConfig(**arguments(FOLDER / name, **options, **sharded, **changes))
    return DistillationTrainer(
        student_of(name, seed),
        args,
        teacher_model=new_model(CONFIG, 7),
        train_dataset=RandomClips(32),
        eval_dataset=RandomClips(10),
    )


def whole_state(trainer: Trainer) -> dict[str, torch.Tensor]:
    weights = trainer.model.state_dict().items()
    return {name: weight.full_tensor() if isinstance(weight, DTensor) else weight for name, weight in weights}


def run(name: str, kind: str | None, seed: int = 0, resume: Path | None = None):
    trainer = trainer_of(name, kind, seed)
    before = trainer.evaluate()["eval_loss"]
    trainer.train(resume_from_checkpoint=None if resume is None else str(resume))
    logs = [entry for entry in trainer.state.log_history if "loss" in entry]
    trainer.save_model()
    weights = whole_state(trainer)
    if trainer.is_world_process_zero():
        torch.save(weights, FOLDER / f"{name}.pt")
    results[name] = {
        "losses": [entry["loss"] for entry in logs],
        "norms": [entry["grad_norm"] for entry in logs],
        "evaluated": [before, trainer.evaluate()["eval_loss"]],
        "sharded": [isinstance(next(model.parameters()), DTensor) for model in (trainer.model, trainer.teacher_model)],
    }


run("without", None)  # first, since accelerate leaves a variable behind that turns FSDP on
import fsdp_on_cpu  # noqa: E402, F401


for name, kind in [*zip(KINDS, KINDS, strict=True), *((f"adapter {kind}", kind) for kind in KINDS)]:
    run(name, kind)
    run(f"{name} resumed", kind, seed=5, resume=FOLDER / name / "checkpoint-2")
if trainer_of("last", KINDS[0]).is_world_process_zero():
    (FOLDER / "results.json").write_text(json.dumps(results))
torch.distributed.barrier()
