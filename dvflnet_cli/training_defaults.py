"""
Defaults of `dvflnet train` and `dvflnet distill`. Values for few clips are those of `benchmarks/small_data.py`.
"""

from typing import Any

from hf_dvflnet import ClipAugmentation
from hf_dvflnet.hub.model_folder import MOTIONS_STUDENT


# Of every training: points of a curve, and an evaluation of each epoch
TRAINING: dict[str, Any] = {"logging_steps": 0.05, "eval_strategy": "epoch"}  # of all steps

# `--recipe published`, with `--augment`; the interval of 4 frames and the 8 frames of a clip are the defaults
PUBLISHED: dict[str, Any] = TRAINING | {
    "optim": "sgd",
    "optim_args": "momentum=0.9,nesterov=True",
    "weight_decay": 1e-4,  # the trainer applies none to 1-D parameters
    "learning_rate": 0.1,  # of a global batch of 512, scaled to the actual one
    "min_learning_rate": 0.001,
    "reference_batch_size": 512,
    "published_schedule": True,
    "num_train_epochs": 120,
    "warmup_steps": 0.16666666666,  # 20 of 120 epochs, without rounding up to a step more
    "max_grad_norm": 5.0,
    "per_device_train_batch_size": 8,
    "mixup_alpha": 0.8,
    "cutmix_alpha": 1.0,
    "label_smoothing_factor": 0.1,
    # not of the recipe
    "save_strategy": "epoch",
    "save_total_limit": 2,
    "dataloader_num_workers": 8,
}

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
