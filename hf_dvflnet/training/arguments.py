"""Arguments of a training, and the published learning rate schedule."""

import math
from dataclasses import dataclass, field

from transformers import TrainingArguments


@dataclass
class VideoTrainingArguments(TrainingArguments):
    """
    transformers' [`TrainingArguments`] with the additional settings of the published recipe.

    Raises:
        ValueError: If a value is out of range.
    """

    published_schedule: bool = field(
        default=False,
        metadata={
            "help": "The published schedule instead of `lr_scheduler_type`: a cosine over all steps, whose beginning "
            "a linear warm-up (`warmup_steps`) replaces."
        },
    )
    min_learning_rate: float = field(
        default=0.0, metadata={"help": "Where the published schedule's warm-up begins and its cosine ends."}
    )
    reference_batch_size: int | None = field(
        default=None,
        metadata={
            "help": "The global batch size that learning rates are given for; they are scaled to the real one, also "
            "where `auto_find_batch_size` finds it."
        },
    )
    mixup_alpha: float = field(default=0.0, metadata={"help": "Of mixup's Beta distribution; 0 turns it off."})
    cutmix_alpha: float = field(
        default=0.0, metadata={"help": "Of cutmix's Beta distribution; with mixup, each gets half the batches."}
    )
    max_broken_share: float = field(
        default=0.01,
        metadata={"help": "Share of the training clips that may be unreadable, and replaced, before the run stops."},
    )
    dataloader_timeout: float = field(
        default=600.0,
        metadata={"help": "Seconds without a batch after which a worker that decodes is taken to hang; 0 waits on."},
    )
    # what clips carry beside pixels and labels (their names, a teacher's logits) is no argument of a model
    remove_unused_columns: bool = field(default=False, metadata={"help": "As in transformers; false by default."})
    # it would hide a loss that is no number, which stops the run, and ask the device about every micro-batch
    logging_nan_inf_filter: bool = field(default=False, metadata={"help": "As in transformers; false by default."})

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
    The published learning rate at a step, as a multiple of its peak (Video-FocalNets' and DVFL-Net's recipe).

    The cosine runs over all steps, and the warm-up, linear from `floor` to 1, replaces its beginning: the rate steps
    down where it ends, with a sixth of the steps to 0.93 of the peak. (transformers' own begin the cosine there.)

    Args:
        step: The step, from 0.
        num_training_steps: All steps.
        num_warmup_steps: Those of the warm-up.
        floor: Where warm-up begins and cosine ends, as a multiple of the peak.
    """
    if step < num_warmup_steps:
        return floor + (1 - floor) * step / num_warmup_steps
    return floor + (1 - floor) * (1 + math.cos(math.pi * min(step / num_training_steps, 1))) / 2


__all__ = ["VideoTrainingArguments", "published_schedule"]
