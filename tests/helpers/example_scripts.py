"""The trainings of the command line and of `examples/`, and options with which they take seconds."""

from places import ROOT

import dvflnet_cli
import hf_dvflnet
from dvflnet_cli.parser import CommandParser


EXAMPLES = ROOT / "examples"
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


def parse_training(command: str, *words: str):
    """The options of a training command, and the arguments of its trainer."""
    kind = dvflnet_cli.COMMANDS[command]
    parser = CommandParser(command, kind, getattr(hf_dvflnet, kind.training_arguments))
    return parser.parse(list(words))[0]


def run_training(command: str, options: dict):
    """Run a training command in this process."""
    words = [word for name, value in options.items() for word in (f"--{name}", *str(value).split())]
    assert dvflnet_cli.run([command, *words]) == 0
