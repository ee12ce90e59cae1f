"""
Features as a second thing to learn from a teacher: the student's pooled features, through a learned projection, are
brought into the direction of the teacher's.

A feature says more about a clip than the scores of a few classes, and a teacher without video training has it too: an
image network with a new head ([`FrameModelForVideoClassification`]). The projection makes up for other widths, as in
FitNets (arXiv 1412.6550). It belongs to the training, not to the student.
"""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F


PROJECTION = "feature_projection.safetensors"


def feature_distance(student_features: torch.Tensor, teacher_features: torch.Tensor) -> torch.Tensor:
    """
    One minus the cosine of the angle between features of shape (batch, width), averaged over the batch: in [0, 2].

    Computed in float32, or in float64 if the student's features are float64. Only directions count, since the scale of
    a teacher's features depends on its last layer and says nothing about the clip.
    """
    dtype = torch.float64 if student_features.dtype == torch.float64 else torch.float32
    return 1 - F.cosine_similarity(student_features.to(dtype), teacher_features.to(dtype), dim=-1).mean()


def new_projection(student_width: int, teacher_width: int, seed: int) -> nn.Linear:
    """A projection whose first weights depend on the seed alone, so that they are the same in all processes."""
    with torch.random.fork_rng(devices=[]):  # the training's own draws stay those of a training without features
        torch.manual_seed(seed)
        return nn.Linear(student_width, teacher_width)


def save_projection(projection: nn.Linear, checkpoint: str):
    state = {name: weight.detach().cpu().contiguous() for name, weight in projection.state_dict().items()}
    save_file(state, Path(checkpoint) / PROJECTION)


def load_projection(projection: nn.Linear, checkpoint: str):
    """
    Continue with the projection of a checkpoint.

    Raises:
        ValueError: If the checkpoint has none, because its run had no `feature_weight`, or had `save_only_model`.
    """
    path = Path(checkpoint) / PROJECTION
    if not path.is_file():
        raise ValueError(
            f"{checkpoint}: contains no {PROJECTION}, so its run did not match features, or saved only the model "
            "(save_only_model); resume without feature_weight, or begin anew in another output folder"
        )
    projection.load_state_dict(load_file(path))


__all__ = [
    "feature_distance",
    "load_projection",
    "new_projection",
    "save_projection",
]
