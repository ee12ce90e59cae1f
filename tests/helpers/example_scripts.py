"""The two trainings of the command line and of `examples/`, and settings at which they take seconds."""

from places import ROOT

import hf_dvflnet
from dvflnet_cli.scripts import data, distill, lora, train


EXAMPLES = ROOT / "examples"
ARGUMENTS = dict.fromkeys(("teacher", "student"), hf_dvflnet.VideoTrainingArguments)
ARGUMENTS["distillation"] = hf_dvflnet.DistillationConfig
SMALL = {
    "rendered_train_clips": 2,
    "rendered_validation_clips": 1,
    "rendered_test_clips": 1,
    "student_train_clips": 1,
    "train_teacher": True,
    "teacher_epochs": 1,
    "num_train_epochs": 2,
    "teacher_config_overrides": "embed_dim=8,patch_size=8",
    "student_config_overrides": "embed_dim=8,patch_size=8",
    "per_device_train_batch_size": 8,
    "save_total_limit": 9,
}

__all__ = ["ARGUMENTS", "EXAMPLES", "SMALL", "data", "distill", "lora", "train"]
