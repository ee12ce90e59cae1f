"""
What `dvflnet train` and `dvflnet distill` do where no option says otherwise. The published recipe is in
`examples/recipes`.
"""

from typing import Any

from hf_dvflnet import ClipAugmentation


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
VIEWS = 6  # draws of each training clip, of which each takes a forward pass
MOST_VIEWS = 6000  # of all clips


def head_augmentation(flip: float) -> ClipAugmentation:
    """That of the views of a frozen image network: crops and flips, milder than the published one."""
    return ClipAugmentation(area=(0.5, 1.0), flip=flip, jitter=0.0, grayscale=0.0)


def views_of(clips: int) -> int:
    """How many draws of each clip are computed."""
    return max(1, min(VIEWS, MOST_VIEWS // max(clips, 1)))
