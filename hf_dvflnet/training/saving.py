"""Finds before a training what would keep its model from being saved, which else the first checkpoint would show."""

import json
import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from ..configuration_videofocalnet import refuse_other_num_frames
from ..data.clips import VideoClipDataset, VideoClipStream


def refuse_what_cannot_be_saved(
    model: PreTrainedModel | nn.Module, processor: Any, datasets: dict[str, Any], folder: str | os.PathLike
):
    """
    Raise the error now that saving a model and its processor would raise after the training.

    Args:
        model: The model.
        processor: The processor that is saved beside it, or None.
        datasets: The data by name. The processor of a [`VideoClipDataset`] or [`VideoClipStream`] is compared too,
            since it is the one that a user would save.
        folder: The output folder of the run.

    Raises:
        ValueError: If model, processor and clips differ in `num_frames`; if the output folder or a checkpoint in it
            has a model or processor of another `num_frames`; or if `save_pretrained` refuses the model, its config or
            the processor, for example because a value is no JSON.
    """
    processors = {"processing_class": processor} | {
        f"the processor of {name}": clips.processor
        for name, clips in datasets.items()
        if isinstance(clips, (VideoClipDataset, VideoClipStream))
    }
    frames = getattr(getattr(model, "config", None), "num_frames", None)
    for name, one in processors.items():
        theirs = getattr(one, "num_frames", None)
        if None not in (frames, theirs) and frames != theirs:
            raise ValueError(
                f"the model has num_frames={frames}, but {name} has num_frames={theirs}. A model and its processor "
                f"are saved together and must agree: create the model with num_frames={theirs}, or the processor with "
                f"num_frames={frames}"
            )
    for place in (Path(folder), *sorted(Path(folder).glob("checkpoint-*"))):
        if frames is not None:
            refuse_other_num_frames(place, frames, "video_preprocessor_config.json")
            refuse_other_num_frames(place, frames, "config.json")
    with TemporaryDirectory() as trial:
        if hasattr(model, "config"):
            _try(model.config, trial)
        if isinstance(model, PreTrainedModel):
            _try(model, trial, is_main_process=False)  # checks the weights and writes nothing
        if processor is not None:
            _try(processor, trial)


def _try(part: Any, folder: str, **options: Any):
    try:
        part.save_pretrained(folder, **options)
    except Exception as error:  # as many kinds as there are processors
        values: dict[str, Any] = getattr(part, "to_dict", dict)()
        unfit = [name for name, value in values.items() if not _is_json(value)]
        raise ValueError(
            f"{type(part).__name__}: cannot be saved, so that no checkpoint could be written: {error}"
            + (f" (in {', '.join(unfit)}; use Python's own numbers, strings, lists and dicts)" if unfit else "")
        ) from error


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return True


__all__ = ["refuse_what_cannot_be_saved"]
