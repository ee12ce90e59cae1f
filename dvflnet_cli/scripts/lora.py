"""What both trainings share of LoRA: its options, and the model that PEFT makes of them."""

from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import TrainingArguments

from hf_dvflnet import VideoFocalNetForVideoClassification


@dataclass
class LoraArguments:
    """Training a few weights that PEFT adds to frozen ones (LoRA), instead of all weights."""

    lora_rank: int | None = field(
        default=None,
        metadata={"help": "Rank of the LoRA matrices to train, with the head in full; if unset, all weights train."},
    )
    lora_target_modules: list[str] | None = field(
        default=None,
        metadata={"help": "Names of the layers that get LoRA matrices, such as `fc1 fc2`; all linear ones if unset."},
    )


def with_lora(
    model: VideoFocalNetForVideoClassification, lora: LoraArguments, args: TrainingArguments
) -> torch.nn.Module:
    """
    Freeze a model and add LoRA matrices to it, of PEFT's default alpha and dropout. The head is trained in full.

    Without `--lora_rank`, the model is returned as it is.
    """
    if lora.lora_rank is None:
        if lora.lora_target_modules:
            raise SystemExit("--lora_target_modules needs --lora_rank")
        return model
    if not model.name_or_path:
        raise SystemExit(
            "--lora_rank needs trained weights, which it keeps, but the model starts from random ones; give "
            "--model_name_or_path (distill: --student_model_name_or_path)"
        )
    if args.push_to_hub:
        raise SystemExit(
            "--push_to_hub would mix adapter and merged model in one folder; remove it, and push the finished folder "
            "with `dvflnet push`"
        )
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise SystemExit("--lora_rank needs peft: pip install 'hf_dvflnet[peft]'") from error
    names = lora.lora_target_modules or ["all-linear"]
    layers = [name for name, _ in model.named_modules() if name != "classifier"]
    # PEFT would leave out a name that fits no layer, as long as another one does
    unknown = [name for name in names if not any(f".{layer}".endswith(f".{name}") for layer in layers)]
    if unknown and names != ["all-linear"]:
        raise SystemExit(
            f"--lora_target_modules {' '.join(unknown)}: no such layer apart from the head, which is trained in full; "
            f"the layers are {', '.join(sorted({layer.rpartition('.')[2] for layer in layers} - {''}))}"
        )
    config: dict[str, Any] = {
        "target_modules": "all-linear" if names == ["all-linear"] else names,
        "modules_to_save": ["classifier"],
    }
    try:
        return get_peft_model(model, LoraConfig(r=lora.lora_rank, **config))
    except ValueError as error:
        raise SystemExit(f"--lora_rank {lora.lora_rank} --lora_target_modules {' '.join(names)}: {error}") from error
