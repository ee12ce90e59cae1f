"""
A classifier as a program of another runtime: ONNX, OpenVINO or ExecuTorch, by transformers' exporters.

The folder holds the program, `export.json` (how it was traced), `config.json` (class names), both processors, and
`export_report.json`: how far the program was from PyTorch when it was made.
"""

import json
import os
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm
from transformers.exporters import ExportFormat, ExportQuantizer

from ..data.video_column import VIDEO_SUFFIXES
from ..hub.loading import load_model, load_processor
from ..hub.model_folder import refuse_existing, whole_or_nothing
from ..image_processing_videofocalnet import VideoFocalNetImageProcessor
from ..video_processing_videofocalnet import VideoFocalNetVideoProcessor
from .exported_program import (
    MANIFEST,
    PAIRS,
    ExportedClassifier,
    is_exported,
    load_exported,
    require_packages,
    silenced,
)


# How far a logit may be from PyTorch's, as a share of the largest logit. float32: the order of sums differs, which
# gives some 1e-6; a wrong operation gives 1e-2 and more. bfloat16: 8 bits of mantissa are 4e-3 for each operation.
# int8 moves logits by design: there this only catches a broken program, and the classes are what counts.
TOLERANCES = {"float32": 1e-4, "bfloat16": 5e-2, "int8": 0.5}
# The share of calibration clips on which int8 must name PyTorch's class. Clips between two classes fall to either:
# about 95 % agree where the accuracy is kept (benchmarks/int8_accuracy.json), 70 % where it fell by 12 points.
INT8_AGREEMENT = 0.85

REPORT = "export_report.json"


def export_model(
    model: str | os.PathLike,
    out: str | os.PathLike,
    *,
    format: str,
    dtype: str = "float32",
    calibration_videos: Iterable[str | os.PathLike] = (),
    max_calibration_clips: int = 64,
    batch_size: int | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """
    Write a classifier as a program that runs without PyTorch's modules, and compare the two.

    The program takes `pixel_values`, float32 of shape (batch, frames, channels, height, width), and gives `logits`,
    float32 of shape (batch, num_labels), and nothing else. Frames, height and width are those of the config and of the
    video processor; any batch will do, except with ExecuTorch.

    Args:
        model: A model folder or Hub id.
        out: The folder to write.
        format: `"onnx"`, `"openvino"` or `"executorch"`.
        dtype: `"float32"`; `"int8"` (ONNX, OpenVINO), which needs calibration videos; or `"bfloat16"` (OpenVINO),
            which keeps float32 weights and asks the runtime to compute in bfloat16 where the processor can.
        calibration_videos: Videos, and folders, of which every video below is one. One clip of each is prepared as for
            prediction. Without int8 they replace the noise that the check uses.
        max_calibration_clips: How many of the videos to use, spread evenly over the sorted list.
        batch_size: ExecuTorch: the clips that the program takes at once, by default 1. Others take any number.
        overwrite: Replace an exported model that is there already.

    Returns:
        What `export_report.json` holds: `format`, `dtype`, `batch` (clips at once, None for any), `bytes` (of the
        program), `videos` (found) and `clips` (used for the check, or for calibration and check), `max_difference` of
        a logit to PyTorch and the `largest_logit`, `tolerance` (allowed share of the largest logit),
        `top1_agreement` with PyTorch (in [0, 1]; None if the check used noise), and `computed_in`, what OpenVINO
        computes in on this machine (None for the others).

    Raises:
        ValueError: If format and dtype do not go together, int8 has no videos, a video cannot be read, the model
            cannot be read, or the program's answers are not PyTorch's. Then nothing is left.
        FileNotFoundError: If there is no such video or folder.
        FileExistsError: If `out` exists already and `overwrite` is false.
        ImportError: If a package of the extra `export` is missing.
    """
    out = Path(out)
    _check_request(out, format, dtype, batch_size, max_calibration_clips, overwrite)
    videos = _list_videos(calibration_videos)
    if dtype == "int8" and not videos:
        raise ValueError(
            "int8 needs real videos, to measure the range of activations on: name some, or a folder of them "
            "(--calibration)"
        )
    require_packages(format, dtype)

    network = load_model(str(model)).float()
    network.config.output_hidden_states = False  # a program for prediction: logits, no maps
    processor = load_processor(str(model))
    if not processor.do_center_crop:
        raise ValueError(f"{model}: its video processor crops nothing, but a program takes clips of one size")
    clip_shape = (
        *(network.config.num_frames, network.config.num_channels),
        *(processor.crop_size[side] for side in ("height", "width")),
    )
    clips = _clips_to_compare(videos, processor, clip_shape, max_calibration_clips, batch_size)
    with torch.inference_mode():  # before the exporter has had its hands on the network
        expected = torch.cat([network(clip).logits for clip in clips])

    with whole_or_nothing(out, overwrite) as folder:
        with silenced():
            _write_program(folder, network, clip_shape, clips, format, dtype, batch_size or 1)
        _save_processors(folder, processor)
        program = load_exported(folder)
        size = sum(file.stat().st_size for file in folder.iterdir() if file.suffix in _PROGRAM_SUFFIXES)
        report = {
            "format": format,
            "dtype": dtype,
            "batch": program.batch,
            "bytes": size,
            "videos": len(videos),
            "clips": len(clips),
            **_compare(program, clips, expected, real=bool(videos)),
            "tolerance": TOLERANCES[dtype],
            "computed_in": program.computed_in,
        }
        _refuse_difference(out, report)
        (folder / REPORT).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        del program  # OpenVINO and ONNX Runtime map the files that are about to be moved
    return report


_PROGRAM_SUFFIXES = (".onnx", ".data", ".xml", ".bin", ".pte")


def _check_request(
    out: Path, format: str, dtype: str, batch_size: int | None, max_calibration_clips: int, overwrite: bool
):
    if (format, dtype) not in PAIRS:
        pairs = ", ".join(" ".join(pair) for pair in PAIRS)
        raise ValueError(f"{format} {dtype} cannot be exported; what can is: {pairs}")
    if batch_size is not None and format != "executorch":
        raise ValueError(f"batch_size is for executorch: a program of {format} takes any batch")
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    if max_calibration_clips < 1:
        raise ValueError(f"max_calibration_clips must be at least 1, got {max_calibration_clips}")
    refuse_existing(out, overwrite)
    if out.is_dir() and any(out.iterdir()) and not is_exported(out):
        raise ValueError(f"{out}: holds no exported model ({MANIFEST}), and is not overwritten by one")


def _clips_to_compare(
    videos: Sequence[Path],
    processor: VideoFocalNetVideoProcessor,
    clip_shape: tuple[int, ...],
    max_calibration_clips: int,
    batch_size: int | None,
) -> list[torch.Tensor]:
    """Clips on which program and network are compared, each (1, frames, ...): of the videos, or noise."""
    if videos:
        spread = np.linspace(0, len(videos) - 1, min(len(videos), max_calibration_clips)).round().astype(int)
        return [
            processor(str(videos[index]), num_clips=1, num_crops=1, return_tensors="pt")["pixel_values"]
            for index in tqdm(spread, unit="clip", desc="decoding", disable=None)
        ]
    # normalised pixels have about this distribution; more clips than a static batch holds
    generator = torch.Generator().manual_seed(0)
    return list(torch.randn(4 + (batch_size or 1), 1, *clip_shape, generator=generator))


def _save_processors(folder: Path, processor: VideoFocalNetVideoProcessor):
    processor.save_pretrained(folder)
    shared = (
        *("size", "crop_size", "image_mean", "image_std", "resample", "rescale_factor"),
        *("do_resize", "do_center_crop", "do_rescale", "do_normalize"),
    )
    VideoFocalNetImageProcessor(**{name: getattr(processor, name) for name in shared}).save_pretrained(folder)


def _list_videos(given: Iterable[str | os.PathLike]) -> list[Path]:
    videos = []
    for path in map(Path, given):
        if path.is_dir():
            below = sorted(file for file in path.rglob("*") if file.suffix.lower() in VIDEO_SUFFIXES)
            if not below:
                raise ValueError(f"{path}: holds no videos ({', '.join(VIDEO_SUFFIXES)})")
            videos += below
        elif path.exists():
            videos.append(path)
        else:
            raise FileNotFoundError(f"{path}: there is no such video or folder")
    return videos


def _write_program(
    folder: Path,
    network: torch.nn.Module,
    clip_shape: Sequence[int],
    clips: Sequence[torch.Tensor],
    format: str,
    dtype: str,
    batch_size: int,
):
    from transformers.exporters import (
        ExecutorchConfig,
        ExecutorchExporter,
        OnnxConfig,
        OnnxExporter,
        OpenVINOConfig,
        OpenVINOExporter,
    )

    # traced with a batch of 1, a program would take that alone
    sample = {"pixel_values": torch.zeros(batch_size if format == "executorch" else 2, *clip_shape)}
    any_batch = {"pixel_values": {0: torch.export.Dim("batch", min=1)}}
    calibration = [{"pixel_values": clip} for clip in clips]
    quantizer = ConvolutionQuantizer(calibration) if dtype == "int8" else None
    if format == "onnx":
        exported = OnnxExporter().export(network, sample, OnnxConfig(dynamic_shapes=any_batch, quantizer=quantizer))
    elif format == "openvino":
        config = OpenVINOConfig(dynamic_shapes=any_batch, quantizer=quantizer)
        exported = OpenVINOExporter().export(network, sample, config)
        # left to itself, OpenVINO computes in bfloat16 wherever the processor can
        precision = "bf16" if dtype == "bfloat16" else "f32"
        exported.program.set_rt_info(precision, ["runtime_options", "INFERENCE_PRECISION_HINT"])
    else:
        # no dynamic batch: the program refuses any other than the traced one
        exported = ExecutorchExporter().export(network, sample, ExecutorchConfig())
    exported.save_pretrained(folder)


class ConvolutionQuantizer(ExportQuantizer):
    """
    NNCF's int8 for OpenVINO and ONNX Runtime, by NNCF's scheme for any network.

    transformers' own quantizers move the logits further: that for OpenVINO always asks for the scheme of language
    models, that for ONNX Runtime takes the least and the greatest value as an activation's range. Weights have 7 bits:
    where a processor adds products of 8 bits in 16 (x86 without VNNI) they overflow, which cost 12 points of accuracy.
    Activations have one scale for all channels: NNCF would give the inputs of depthwise convolutions one for each, but
    moves them up through reshapes to where the same dimension is another one, and OpenVINO cannot load such a program.
    """

    required_packages = ("nncf",)
    supported_formats = (ExportFormat.ONNX, ExportFormat.OPENVINO)

    def quantize(self, model: Any, sample_inputs: dict[str, Any], export_format: ExportFormat) -> Any:
        import nncf
        from nncf.quantization.advanced_parameters import QuantizationParameters

        samples = [{name: tensor.numpy() for name, tensor in sample.items()} for sample in self.calibration_dataset]
        settings = nncf.AdvancedQuantizationParameters(
            overflow_fix=nncf.OverflowFix.ENABLE,
            activations_quantization_params=QuantizationParameters(per_channel=False),
        )
        quantize = partial(
            nncf.quantize,
            calibration_dataset=nncf.Dataset(samples),
            subset_size=len(samples),
            advanced_parameters=settings,
        )
        if export_format != ExportFormat.ONNX:
            return quantize(model)
        import onnx_ir

        return onnx_ir.from_proto(quantize(onnx_ir.to_proto(model)))


def _compare(
    program: ExportedClassifier, clips: Sequence[torch.Tensor], expected: torch.Tensor, real: bool
) -> dict[str, Any]:
    # in batches of 3 and the first by itself: a batch that is not really free shows here
    batches = [clips[0], *torch.cat(list(clips[1:])).split(3)] if len(clips) > 1 else [clips[0]]
    logits = torch.cat([program(batch)["logits"] for batch in batches])
    return {
        "max_difference": (logits - expected).abs().max().item(),
        "largest_logit": expected.abs().max().item(),
        "top1_agreement": (logits.argmax(-1) == expected.argmax(-1)).float().mean().item() if real else None,
    }


def _refuse_difference(out: Path, report: dict[str, Any]):
    limit = report["tolerance"] * report["largest_logit"]
    if not report["max_difference"] <= limit:  # also if it is no number
        raise ValueError(
            f"{out}: a logit of the program is {report['max_difference']:.2g} from PyTorch's, where {limit:.2g} is "
            f"allowed ({report['tolerance']:g} of the largest); nothing was written"
        )
    if report["dtype"] == "int8" and report["top1_agreement"] < INT8_AGREEMENT:
        raise ValueError(
            f"{out}: the program names PyTorch's class for {report['top1_agreement']:.1%} of {report['clips']} "
            f"calibration clips, where {INT8_AGREEMENT:.0%} are expected; nothing was written. More clips, of all "
            "classes, may help"
        )


__all__ = ["export_model"]
