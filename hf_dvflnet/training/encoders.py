"""Features of any vision model of transformers, over clips or over frames: what a teacher without labels gives."""

from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel


FEATURES = {"pooled": "the pooled output", "cls": "the CLS token", "mean": "the mean of all tokens"}


class Encoder:
    """
    A vision model of transformers whose features alone are used, with or without a head.

    A model that takes clips, (batch, frames, channels, height, width), gives features of clips, (batch, width); one
    that takes images gives those of each frame, (batch, frames, width). A trial tells which it is. Of a classifier,
    the part below its head is used, and of a model of texts and images its vision tower.

    Args:
        model: The model.
        features: `"pooled"`, its `pooler_output`; `"cls"`, its first token; `"mean"`, the mean of all tokens; or
            `"auto"`, the first of these that it has.
        num_frames, side: Number of frames of a clip, and their height and width.

    Attributes:
        model: What is called.
        rule: Which features are taken.
        of_frames: Whether they are those of frames.
        width: Number of values.

    Raises:
        ValueError: If the model takes neither clips nor frames like these, or does not give such features.
    """

    def __init__(self, model: Any, features: str, num_frames: int, side: int):
        if isinstance(getattr(model, "classifier", None), nn.Module):
            model = model.base_model
        self.model: Any = getattr(model, "vision_model", model).eval()
        self.options: dict[str, Any] = {"return_dict": True} if isinstance(self.model, PreTrainedModel) else {}
        if getattr(getattr(self.model, "config", None), "model_type", None) == "vjepa2":
            self.options["skip_predictor"] = True  # which guesses masked tokens
        weight = next(self.model.parameters())
        clip = weight.new_zeros(1, num_frames, 3, side, side)
        refusals = []
        for self.of_frames in (False, True):
            try:
                with torch.no_grad():
                    outputs = self.model(self.given(clip), **self.options)
                break
            except (RuntimeError, TypeError, ValueError, AttributeError) as error:  # each model has its own
                refusals.append(" ".join(str(error).split()))
        else:
            raise ValueError(
                f"{self.name} takes neither clips of shape {tuple(clip.shape)} ({refusals[0]}) nor their frames "
                f"({refusals[1]}); choose a vision model of transformers, and num_frames and the size of its clips"
            )
        self.rule = self._rule(outputs, features)
        self.width = self.read(outputs, len(clip)).shape[-1]

    @property
    def name(self) -> str:
        return type(self.model).__name__

    def __str__(self) -> str:
        what = f"{FEATURES[self.rule]} of each {'frame' if self.of_frames else 'clip'}"
        return f"The teacher's features are {what}: {self.width} values of its {self.name}"

    def given(self, clips: torch.Tensor) -> torch.Tensor:
        """What the model is called with."""
        return clips.flatten(0, 1) if self.of_frames else clips

    def _rule(self, outputs: Any, features: str) -> str:
        has = {
            "pooled": getattr(outputs, "pooler_output", None) is not None,
            "cls": any(name.endswith(("cls_token", "class_embedding")) for name, _ in self.model.named_parameters()),
            "mean": _tokens(outputs) is not None,
        }
        found = next((name for name in has if has[name] and features in (name, "auto")), None)
        if found is None:
            wanted = " or ".join(FEATURES.values() if features == "auto" else [FEATURES[features]])
            there = (
                ", ".join(name for name in has if has[name]) or f"only {', '.join(getattr(outputs, 'keys', list)())}"
            )
            raise ValueError(
                f"no features of {self.name} are found: expected {wanted} (teacher_features={features}), but it has "
                f"{there}; choose others, or load it with AutoModel, without a head"
            )
        return found

    def read(self, outputs: Any, clips: int) -> torch.Tensor:
        """The features in the model's outputs for a number of clips."""
        if self.rule == "pooled":
            found = outputs.pooler_output.flatten(1)
        else:
            tokens: Any = _tokens(outputs)
            if tokens.ndim > 3:  # a map, (images, channels, height, width)
                tokens = tokens.flatten(2).mT
            found = tokens[:, 0] if self.rule == "cls" else tokens.mean(1) if tokens.ndim == 3 else tokens
        return found.unflatten(0, (clips, -1)) if self.of_frames else found


def _tokens(outputs: Any) -> torch.Tensor | None:
    return outputs if isinstance(outputs, torch.Tensor) else getattr(outputs, "last_hidden_state", None)
