"""Training a video classifier with transformers' Trainer, by the published recipe where that is asked for."""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from transformers import Trainer, TrainerCallback, TrainingArguments

from .augmentation import mix_clips
from .metrics import compute_top_k_metrics


@dataclass
class VideoTrainingArguments(TrainingArguments):
    """
    transformers' [`TrainingArguments`] and what the published recipe needs beside them.

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
        metadata={"help": "The global batch size that learning rates are given for; they are scaled to the real one."},
    )
    mixup_alpha: float = field(default=0.0, metadata={"help": "Of mixup's Beta distribution; 0 turns it off."})
    cutmix_alpha: float = field(
        default=0.0, metadata={"help": "Of cutmix's Beta distribution; with mixup, each gets half the batches."}
    )

    def __post_init__(self):
        super().__post_init__()
        for name in ("min_learning_rate", "mixup_alpha", "cutmix_alpha"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        if self.reference_batch_size is not None and self.reference_batch_size < 1:
            raise ValueError(f"reference_batch_size must be at least 1, got {self.reference_batch_size}")
        if self.min_learning_rate > self.learning_rate:
            raise ValueError(f"min_learning_rate={self.min_learning_rate} is above learning_rate={self.learning_rate}")

    @property
    def learning_rate_scale(self) -> float:
        """Real global batch size by the one that the learning rates are given for; 1 without a reference."""
        if self.reference_batch_size is None:
            return 1.0
        return self.train_batch_size * self.gradient_accumulation_steps * self.world_size / self.reference_batch_size


class VideoClassificationTrainer(Trainer):
    """
    transformers' [`Trainer`] for video classification. What differs:

    - weight decay leaves out every 1-D parameter: biases, norms and layer scales, as in the published recipe;
    - labels are class ids of shape (batch,) or probabilities of shape (batch, num_labels), and
      `args.label_smoothing_factor` smooths both while training;
    - top-1 and top-5 accuracy are computed unless `compute_metrics` is given;
    - a training dataset with a method `set_epoch` is told each epoch;
    - with [`VideoTrainingArguments`], the published schedule, learning rates scaled with the global batch, and mixup
      and cutmix, drawn from the run's seed, the step, the micro-batch and the rank.

    Accepts what [`Trainer`] accepts. Items of the datasets are `{"pixel_values", "labels"}`, as those of
    [`~video_dataset.VideoClipDataset`] are.
    """

    # the loss is a mean over the micro-batch, which the Trainer has to divide by their number
    loss_is_scaled_for_ga = False

    def __init__(self, *args, **kwargs):
        kwargs["compute_metrics"] = kwargs.get("compute_metrics") or compute_top_k_metrics
        super().__init__(*args, **kwargs)
        if hasattr(self.train_dataset, "set_epoch"):
            self.add_callback(_TellEpoch(self.train_dataset))

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        return [name for name, parameter in model.named_parameters() if parameter.ndim > 1]

    def create_optimizer(self, *args, **kwargs) -> torch.optim.Optimizer:
        optimizer = super().create_optimizer(*args, **kwargs)
        for group in optimizer.param_groups:
            group["lr"] *= getattr(self.args, "learning_rate_scale", 1.0)
        return optimizer

    lr_scheduler: Any

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None):
        if not self.lr_scheduler and getattr(self.args, "published_schedule", False):
            floor = self.args.min_learning_rate / self.args.learning_rate
            warmup_steps = self.args.get_warmup_steps(num_training_steps)
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
                optimizer or self.optimizer,
                lambda step: published_schedule(step, num_training_steps, warmup_steps, floor),
            )
        return super().create_scheduler(num_training_steps, optimizer)

    def training_step(self, model, inputs, *args, **kwargs):
        mixup, cutmix = (getattr(self.args, name, 0.0) for name in ("mixup_alpha", "cutmix_alpha"))
        if mixup or cutmix:
            step = (self.args.seed, self.state.global_step, self._micro_batch(), self.args.process_index)
            inputs["pixel_values"], inputs["labels"] = mix_clips(
                inputs["pixel_values"],
                inputs["labels"],
                num_labels=self.accelerator.unwrap_model(model).config.num_labels,
                mixup_alpha=mixup,
                cutmix_alpha=cutmix,
                seed=int(np.random.SeedSequence(step).generate_state(1)[0]),
            )
        return super().training_step(model, inputs, *args, **kwargs)

    def _micro_batch(self) -> int:
        """Which of the batches that make up the current step this one is."""
        if self._counted_step != self.state.global_step:
            self._counted_step, self._micro_batches = self.state.global_step, 0
        self._micro_batches += 1
        return self._micro_batches - 1

    _counted_step = -1
    _micro_batches = 0

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        smoothing = self.args.label_smoothing_factor
        if smoothing and model.training:
            num_labels = self.accelerator.unwrap_model(model).config.num_labels
            inputs = {**inputs, "labels": smooth_labels(inputs["labels"], num_labels, smoothing)}
        outputs = model(**inputs)
        return (outputs.loss, outputs) if return_outputs else outputs.loss


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


def smooth_labels(labels: torch.Tensor, num_labels: int, smoothing: float) -> torch.Tensor:
    """Class ids (batch,) or probabilities (batch, num_labels) -> probabilities with `smoothing` spread over all."""
    if not labels.is_floating_point():
        labels = F.one_hot(labels.long(), num_labels).float()
    return labels * (1 - smoothing) + smoothing / num_labels


class _TellEpoch(TrainerCallback):
    """accelerate tells the epoch to the sampler, and to the dataset only where the sampler does not take it."""

    def __init__(self, dataset: Any):
        self.dataset = dataset

    def on_epoch_begin(self, args, state, control, **kwargs):
        self.dataset.set_epoch(int(state.epoch))


__all__ = ["VideoClassificationTrainer", "VideoTrainingArguments", "published_schedule", "smooth_labels"]
