"""Load an exported program and call it like the model that was exported: `load_exported`."""

import contextlib
import importlib.util
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from transformers.exporters import ExportedModel, ExportFormat

from ..hub.loading import load_config
from ..modeling_videofocalnet import (
    VideoFocalNetClassifierOutput,
    VideoFocalNetForVideoClassification,
    average_views,
)


# (format, dtype) -> the packages that export and run it, all in the extra `export`
PAIRS = {
    ("onnx", "float32"): ("onnx", "onnxscript", "onnxruntime"),
    ("onnx", "int8"): ("onnx", "onnxscript", "onnxruntime", "nncf"),
    ("openvino", "float32"): ("openvino",),
    ("openvino", "bfloat16"): ("openvino",),
    ("openvino", "int8"): ("openvino", "nncf"),
    ("executorch", "float32"): ("executorch",),
}

MANIFEST = "export.json"  # written by transformers


class ExportedClassifier:
    """
    An exported program that is called like the model that was exported.

    Attributes:
        config: The model's config, with the class names.
        folder: The folder of the program.
        clip_shape: The shape (frames, channels, height, width) of a clip.
        batch: The number of clips that the program takes at once, or None for any number. For other numbers of clips
            the program runs several times, and the last batch is filled with copies of the last clip. OpenVINO's
            programs take any number, and are run here clip by clip.
        computed_in: The precision in which OpenVINO computes on this machine, such as `"f32"`; None for the other
            formats.
    """

    def __init__(self, exported: ExportedModel, config: Any, folder: Path):
        self.config, self.folder = config, folder
        self._exported = exported
        metadata = exported.components["model"].metadata
        traced = tuple(metadata.kwargs["pixel_values"]["shape"])
        self.clip_shape = traced[1:]
        self._first: tuple[torch.Tensor, ...] | None = None  # of a causal program: the state of one new stream
        if getattr(config, "causal", False):
            self.clip_shape = (config.num_frames, *traced[2:])
            with torch.device("meta"):  # for its shapes
                network = VideoFocalNetForVideoClassification(config)
                state = first_state(network, torch.empty(1, *traced[1:]))
            self._first = tuple(torch.zeros(tensor.shape, dtype=tensor.dtype) for tensor in state)
        self.batch = None if metadata.export_config["dynamic_shapes"] else traced[0]
        self.computed_in, self._at_once = None, self.batch
        if exported.export_format == ExportFormat.OPENVINO:
            compiled = exported.runners["model"].compiled_model
            self.computed_in = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
            self._at_once = 1  # what `load_exported` has made of it

    # attributes of a model that callers use, so that an exported program can classify streams, too

    device = torch.device("cpu")
    dtype = torch.float32

    def eval(self) -> "ExportedClassifier":
        return self

    def __call__(self, pixel_values: torch.Tensor) -> VideoFocalNetClassifierOutput:
        """
        Args:
            pixel_values: Clips of shape (batch, frames, channels, height, width). Or several views of each clip, whose
                scores are averaged: (batch, views, frames, channels, height, width).

        Returns:
            An output that only contains `logits`, of shape (batch, num_labels).

        Raises:
            ValueError: If the clips do not have the shape that the program takes.
        """
        views = pixel_values.shape[1] if pixel_values.ndim == 6 else None
        clips = pixel_values if views is None else pixel_values.flatten(0, 1)
        if clips.ndim != 5 or clips.shape[1:] != self.clip_shape:
            raise ValueError(
                f"pixel_values of shape {tuple(pixel_values.shape)} do not fit the program, which takes (batch, "
                f"{', '.join(map(str, self.clip_shape))}): frames, channels, height, width"
            )
        clips = clips.float()
        if self._at_once is None:
            logits = self._run(clips)
        else:
            count = len(clips)
            clips = torch.cat([clips, clips[-1:].expand(-count % self._at_once, *self.clip_shape)])
            logits = torch.cat([self._run(piece) for piece in clips.split(self._at_once)])[:count]
        if views is not None:
            logits = average_views(logits.unflatten(0, (-1, views)), self.config.problem_type)
        return VideoFocalNetClassifierOutput(logits=logits)

    def _run(self, clips: torch.Tensor) -> torch.Tensor:
        if self._first is not None:
            return self.step(clips)[0][:, -1]
        return self._exported(pixel_values=clips).logits.clone()  # a runtime may reuse the memory of its output

    def step(
        self, frames: torch.Tensor, state: tuple[torch.Tensor, ...] = ()
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        """
        As [`VideoFocalNetForVideoClassification.step`], for as many streams as the program takes clips.

        Raises:
            ValueError: If the exported model is not causal, or `frames` or `state` have other shapes.
        """
        if self._first is None:
            raise ValueError(f"{self.folder}: only a causal network has a state: config.causal is False")
        first = tuple(tensor.expand(len(frames), *tensor.shape[1:]) for tensor in self._first)
        state = state or first
        if frames.shape[2:] != self.clip_shape[1:] or self._at_once not in (None, len(frames)):
            raise ValueError(
                f"frames of shape {tuple(frames.shape)} do not fit the program, which takes (streams, frames, "
                f"{', '.join(map(str, self.clip_shape[1:]))}), and {self._at_once or 'any number of'} streams at once"
            )
        if [tensor.shape for tensor in state] != [tensor.shape for tensor in first]:
            raise ValueError(f"{self.folder}: the state is of another model, number of streams or size of frames")
        answers = []
        for pictures in frames.float().split(self.config.tubelet_size, dim=1):
            outputs = self._exported(pixel_values=pictures.contiguous(), state=state)
            state = tuple(tensor.clone() for tensor in outputs.state)
            answers.append(outputs.frame_logits.clone())
        return torch.cat(answers, 1), state


def first_state(network: VideoFocalNetForVideoClassification, frames: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """The state before the first frame of streams of such frames, (streams, frames, channels, height, width)."""
    return tuple(map(torch.zeros_like, network.step(frames)[1]))


def is_exported(folder: str | os.PathLike) -> bool:
    """Whether a folder was written by [`export_model`]."""
    return Path(folder, MANIFEST).is_file()


def load_exported(folder: str | os.PathLike) -> ExportedClassifier:
    """
    Load a program that [`export_model`] wrote, on the CPU.

    Raises:
        ValueError: If the folder is not an exported model, or the program cannot be loaded.
        ImportError: If a package of the extra `export` is missing.
    """
    folder = Path(folder)
    if not is_exported(folder):
        raise ValueError(f"{folder}: is not an exported model, because {MANIFEST} is missing")
    config = load_config(str(folder))
    try:
        format = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["export_format"]
        if (format, "float32") not in PAIRS:
            raise ValueError(f"unknown format {format!r}; choose one of {sorted({pair[0] for pair in PAIRS})}")
        require_packages(format, "float32")
        with silenced():
            options = {"config": _openvino_precision(folder)} if format == "openvino" else {}
            exported = ExportedModel.from_pretrained(folder, device="cpu", **options)
            if format == "openvino":  # faster where it knows every size, and what it stores fits the cache
                inputs = exported.program.inputs
                exported.program.reshape({port: [1, *list(port.partial_shape)[1:]] for port in inputs})
                exported.to("cpu", **options)
            return ExportedClassifier(exported, config, folder)
    except ImportError:
        raise
    except Exception as error:  # each runtime raises its own exceptions
        raise ValueError(f"{folder}: the program cannot be loaded: {error}") from error


def _openvino_precision(folder: Path) -> dict[str, str]:
    """Return the precision that a program requests; by default, OpenVINO uses bfloat16 if the processor can."""
    import openvino

    program = openvino.Core().read_model(str(folder / "openvino_model.xml"))
    place = ["runtime_options", "INFERENCE_PRECISION_HINT"]
    asked = program.get_rt_info(place).astype(str) if program.has_rt_info(place) else "f32"
    return {"INFERENCE_PRECISION_HINT": asked}


def require_packages(format: str, dtype: str):
    missing = [name for name in PAIRS[format, dtype] if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(f"{format} {dtype} needs {', '.join(missing)}: pip install 'hf_dvflnet[export]'")


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """
    Suppress the output of exporters and runtimes: dozens of lines that the user need not act on. Some of it comes from
    C++, so the file descriptors are redirected as well. Errors are still raised.
    """
    with open(os.devnull, "w") as nowhere:
        sys.stdout.flush()
        sys.stderr.flush()
        kept = os.dup(1), os.dup(2)
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
        try:
            with contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
                yield
        finally:
            for descriptor, stream in zip(kept, (1, 2), strict=True):
                os.dup2(descriptor, stream)
                os.close(descriptor)
