"""
Modulators as a third thing to learn from a teacher: where in a clip a Video-FocalNet gathers strong context.

The channels of two networks do not correspond, but their positions do. As in attention transfer (arXiv 1612.03928),
the energy of all channels is therefore compared as a map over positions, which needs no projection between widths.
"""

from collections.abc import Sequence

import torch
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

from ..configuration_videofocalnet import VideoFocalNetConfig


KINDS = {"spatial": ("spatial",), "temporal": ("temporal",), "both": ("spatial", "temporal")}


def channel_energy(modulator: torch.Tensor) -> torch.Tensor:
    """
    The mean square of a modulator over its channels: (batch, frames, height, width, channels) without the last.

    Computed in float32, or in float64 if the modulator is float64.
    """
    return modulator.to(torch.promote_types(modulator.dtype, torch.float32)).square().mean(-1)


def energy_distance(student_energy: torch.Tensor, teacher_energy: torch.Tensor) -> torch.Tensor:
    """
    [`modulator_distance`] of two maps of energy, (batch, frames, height, width), as [`channel_energy`] returns them.
    """
    if student_energy.shape != teacher_energy.shape:
        frames, height, width = student_energy.shape[1:]
        teacher_energy = F.adaptive_avg_pool3d(teacher_energy, (frames, height, width))
    student, teacher = (F.normalize(energy.flatten(1), dim=-1) for energy in (student_energy, teacher_energy))
    return (student - teacher).square().sum(-1).mean()


def modulator_distance(student_modulator: torch.Tensor, teacher_modulator: torch.Tensor) -> torch.Tensor:
    """
    Distance between the maps of where two modulators are strong, averaged over the batch: 0 if they are strong at the
    same positions in the same proportions, 2 if at no common position.

    A map is the mean square over the channels, divided by its L2 norm over all positions of all frames, since the
    strength of a modulator depends on the weights around it. The distance is the squared L2 norm of the difference.
    This is the activation-based loss of attention transfer (arXiv 1612.03928, with p = 2), squared as in its published
    code, but summed over the positions, so that it does not depend on their number. A map of zeros stays zero.

    Args:
        student_modulator: (batch, frames, height, width, channels), of any dtype; computed in float32, or in float64
            if it is float64.
        teacher_modulator: The same, with any number of channels, frames, height and width. If its grid is another one,
            its map is resized to the student's: each cell of the student's grid takes the mean of the teacher's cells
            that it overlaps (`F.adaptive_avg_pool3d`), whether the teacher's grid is finer or coarser.
    """
    return energy_distance(channel_energy(student_modulator), channel_energy(teacher_modulator))


def mean_distance(student_energies: Sequence[torch.Tensor], teacher_energies: Sequence[torch.Tensor]) -> torch.Tensor:
    """The mean distance over pairs of maps of energy, so that it does not depend on how many are matched."""
    pairs = zip(student_energies, teacher_energies, strict=True)
    return torch.stack([energy_distance(student, teacher) for student, teacher in pairs]).mean()


class MatchedModulators:
    """
    Reads the modulators that are matched, those of the last block of each chosen stage, off a model's output.

    Args:
        student, teacher: The models. Only their configs are read.
        kinds: `"spatial"`, `"temporal"` or `"both"`.
        stages: The stages, numbered from 1; all if None.

    Raises:
        ValueError: If a model is no Video-FocalNet, or if the stages do not pair: one is missing in a model, or all
            are to be matched and the models have different numbers of them.
    """

    def __init__(
        self, student: PreTrainedModel, teacher: PreTrainedModel, kinds: str, stages: Sequence[int] | None = None
    ):
        depths = {}
        for role, model in (("student", student), ("teacher", teacher)):
            if model.config.model_type != VideoFocalNetConfig.model_type:
                raise ValueError(
                    f"the {role} is a {type(model).__name__}, which has no modulators to match; use a "
                    f"{VideoFocalNetConfig.model_type} model or a modulator_weight of 0"
                )
            depths[role] = len(model.config.depths)
        if stages is None and depths["student"] != depths["teacher"]:
            raise ValueError(
                f"the student has {depths['student']} stages and the teacher {depths['teacher']}, so they do not "
                f"pair; choose some from 1 to {min(depths.values())} with modulator_stages"
            )
        self.kinds = KINDS[kinds]
        self.stages = list(range(1, depths["student"] + 1)) if stages is None else list(stages)
        missing = [(stage, role) for stage in self.stages for role in depths if not 1 <= stage <= depths[role]]
        if missing:
            stage, role = missing[0]
            raise ValueError(
                f"modulator_stages {self.stages} contain stage {stage}, but the {role} has the stages 1 to "
                f"{depths[role]}; choose some that both models have"
            )

    def __call__(self, output: ModelOutput) -> list[torch.Tensor]:
        """The energy of each modulator, from the output of a forward pass with `output_modulators=True`."""
        return [
            channel_energy(output[f"{kind}_modulators"][stage - 1]) for kind in self.kinds for stage in self.stages
        ]


__all__ = ["KINDS", "MatchedModulators", "channel_energy", "energy_distance", "mean_distance", "modulator_distance"]
