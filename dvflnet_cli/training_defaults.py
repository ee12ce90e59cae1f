"""
Defaults of `dvflnet train` and `dvflnet distill`. The published recipe is in
`examples/recipes`. Values for few clips are those of `benchmarks/small_data.py`.
"""

from typing import Any

from hf_dvflnet import ClipAugmentation
from hf_dvflnet.hub.model_folder import MOTIONS_STUDENT


# Of every training: points of a curve, and an evaluation of each epoch
TRAINING: dict[str, Any] = {"logging_steps": 0.05, "eval_strategy": "epoch"}  # of all steps

# Frames of a network that is trained from random weights, or from weights of this package
IMAGE_SIZE, SHORT_SIDE = 224, 256

# The head of a frozen image network, trained on features that are computed once: seconds, so that neither epochs nor
# checkpoints are worth their lines
FRAME_HEAD: dict[str, Any] = {
    "max_steps": 400,
    "per_device_train_batch_size": 64,
    "learning_rate": 3e-3,
    "weight_decay": 0.01,
    "lr_scheduler_type": "cosine",
    "label_smoothing_factor": 0.1,
    "logging_steps": 0.05,
    "eval_strategy": "steps",
    "eval_steps": 0.1,
    "save_strategy": "no",
}

# A small Video-FocalNet for the few clips of one's own: the start, the size, and the training
STUDENT_OPTIONS: dict[str, Any] = {"model_name_or_path": str(MOTIONS_STUDENT), "image_size": 64, "short_side": 80}
STUDENT: dict[str, Any] = {
    "max_steps": 300,
    "per_device_train_batch_size": 16,
    "learning_rate": 1e-3,
    "weight_decay": 0.05,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 0.1,
    "label_smoothing_factor": 0.1,
    "logging_steps": 0.05,
    "eval_strategy": "steps",
    "eval_steps": 0.1,
}


def mild_augmentation(flip: float) -> ClipAugmentation:
    """Crops and flips, milder than the published ones."""
    return ClipAugmentation(area=(0.5, 1.0), flip=flip, jitter=0.0, grayscale=0.0)
