"""Training a video classifier with transformers' Trainer."""

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers import Trainer, TrainerCallback

from .metrics import compute_top_k_metrics


class VideoClassificationTrainer(Trainer):
    """
    transformers' [`Trainer`] for video classification. What differs:

    - weight decay leaves out every 1-D parameter: biases, norms and layer scales, as in the published recipe;
    - labels are class ids of shape (batch,) or probabilities of shape (batch, num_labels), and
      `args.label_smoothing_factor` smooths both while training;
    - top-1 and top-5 accuracy are computed unless `compute_metrics` is given;
    - a training dataset with a method `set_epoch` is told each epoch.

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

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        smoothing = self.args.label_smoothing_factor
        if smoothing and model.training:
            num_labels = self.accelerator.unwrap_model(model).config.num_labels
            inputs = {**inputs, "labels": smooth_labels(inputs["labels"], num_labels, smoothing)}
        outputs = model(**inputs)
        return (outputs.loss, outputs) if return_outputs else outputs.loss


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


__all__ = ["VideoClassificationTrainer", "smooth_labels"]
