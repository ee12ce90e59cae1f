"""Training arguments and the learning rate schedule of the published recipe."""

import math
from dataclasses import dataclass, field

from transformers import TrainingArguments


@dataclass
class VideoTrainingArguments(TrainingArguments):
    """
    transformers' [`TrainingArguments`] with additional settings for the published recipe.

    Raises:
        ValueError: If a value is out of range.
    """

    published_schedule: bool = field(
        default=False,
        metadata={
            "help": "Use the published schedule instead of `lr_scheduler_type`: a cosine over all training steps. "
            "During the first `warmup_steps`, a linear warm-up replaces the cosine."
        },
    )
    min_learning_rate: float = field(
        default=0.0, metadata={"help": "Learning rate at which the published schedule starts and ends."}
    )
    reference_batch_size: int | None = field(
        default=None,
        metadata={
            "help": "Global batch size for which the learning rates are given. They are scaled linearly to the actual "
            "global batch size, including one found by `auto_find_batch_size`. Not scaled if unset."
        },
    )
    mixup_alpha: float = field(
        default=0.0, metadata={"help": "Parameter alpha of mixup's Beta distribution; 0 disables mixup."}
    )
    cutmix_alpha: float = field(
        default=0.0,
        metadata={
            "help": "Parameter alpha of CutMix's Beta distribution; 0 disables CutMix. If mixup is enabled too, each "
            "batch uses one of the two at random, with equal probability."
        },
    )
    max_broken_share: float = field(
        default=0.01,
        metadata={"help": "Maximum share of unreadable (replaced) training clips; the run stops if there are more."},
    )
    dataloader_timeout: float = field(
        default=600.0,
        metadata={
            "help": "Seconds to wait for a batch before the decoding worker counts as hung and the run stops; 0 means "
            "no limit."
        },
    )
    # clip names and cached teacher logits are not arguments of the model, but must reach the trainer
    remove_unused_columns: bool = field(default=False, metadata={"help": "As in transformers, but False by default."})
    # the filter would hide a loss that is not finite, which must stop the run, and synchronize every micro-batch
    logging_nan_inf_filter: bool = field(default=False, metadata={"help": "As in transformers, but False by default."})

    def __post_init__(self):
        super().__post_init__()
        for name in ("min_learning_rate", "mixup_alpha", "cutmix_alpha", "max_broken_share", "dataloader_timeout"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        if self.reference_batch_size is not None and self.reference_batch_size < 1:
            raise ValueError(f"reference_batch_size must be at least 1, got {self.reference_batch_size}")
        if self.min_learning_rate > self.learning_rate:
            raise ValueError(f"min_learning_rate={self.min_learning_rate} is above learning_rate={self.learning_rate}")


def published_schedule(step: int, num_training_steps: int, num_warmup_steps: int, floor: float) -> float:
    """
    The learning rate at a step in the recipe of Video-FocalNets and DVFL-Net, as a multiple of the peak rate.

    The cosine spans all steps, and a linear warm-up from `floor` to 1 replaces its beginning. The rate therefore drops
    when the warm-up ends: to 0.93 of the peak if the warm-up takes a sixth of the steps. (In transformers' schedules
    the cosine begins at the end of the warm-up.)

    Args:
        step: Index of the step, starting at 0.
        num_training_steps: Total number of training steps.
        num_warmup_steps: Number of warm-up steps.
        floor: The value at the start of the warm-up and at the end of the cosine, as a multiple of the peak rate.
    """
    if step < num_warmup_steps:
        return floor + (1 - floor) * step / num_warmup_steps
    return floor + (1 - floor) * (1 + math.cos(math.pi * min(step / num_training_steps, 1))) / 2


__all__ = ["VideoTrainingArguments", "published_schedule"]
