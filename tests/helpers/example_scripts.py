"""The scripts of `examples/`, importable, and settings at which they take seconds."""

import sys
from pathlib import Path

import hf_dvflnet


EXAMPLES = Path(__file__).parents[2] / "examples"
sys.path.insert(0, str(EXAMPLES))

import data  # noqa: E402
import distill  # noqa: E402
import train  # noqa: E402


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

__all__ = ["ARGUMENTS", "EXAMPLES", "SMALL", "data", "distill", "train"]
