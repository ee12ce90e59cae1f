"""
Export a classifier to ONNX, OpenVINO or ExecuTorch with transformers' exporters.

The output folder contains the program, `export.json` (how it was traced), `config.json` (with the class names), both
processors, and `export_report.json`, which compares the logits of the program with those of PyTorch.
"""

import json
import math
import os
from collections.abc import Iterable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm
from transformers.exporters import ExportFormat, ExportQuantizer

from ..clip_sampling import check_positive
from ..data.video_files import list_videos
from ..hub.loading import load_model, load_processor
from ..hub.model_folder import image_processor_like, refuse_existing, whole_or_nothing
from ..video_processing_videofocalnet import VideoFocalNetVideoProcessor
from .exported_program import (
    MANIFEST,
    PAIRS,
    ExportedClassifier,
    first_state,
    is_exported,
    load_exported,
    require_packages,
    silenced,
)
from .inference_form import prepare_for_inference
from .pipeline import decode_clips


# Allowed difference between a logit and PyTorch's, relative to the largest logit. float32: another order of summation
# gives about 1e-6, a wrong operation 1e-2 or more. bfloat16: 8 bits of mantissa give 4e-3 per operation. int8 changes
# logits by design: there this limit only detects a broken program, and the predicted classes matter.
TOLERANCES = {"float32": 1e-4, "bfloat16": 5e-2, "int8": 0.5}
# Minimum share of clips, other than those of the calibration, for which int8 must predict PyTorch's class. Ambiguous
# clips can change class: about 95 % agree if the accuracy is preserved (benchmarks/FINDINGS.md), 70 % if it fell by 12
# points. Of few clips, a smaller share may be chance, and is allowed.
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
    Export a classifier as a program that runs without PyTorch's modules, and compare its logits with PyTorch's.

    The program takes `pixel_values`, float32 of shape (batch, frames, channels, height, width), and returns only
    `logits`, float32 of shape (batch, num_labels). The config sets the number of frames, the video processor sets
    height and width. The program accepts any batch size, except with ExecuTorch.

    The program of a causal model is its [`VideoFocalNetForVideoClassification.step`]: it takes a frame (with tubelets:
    a tubelet) of each stream and the `state`, which is zero at the start, and returns the next state, too.

    Args:
        model: A model folder or Hub id.
        out: The output folder.
        format: `"onnx"`, `"openvino"` or `"executorch"`.
        dtype: `"float32"`; `"int8"` (ONNX, OpenVINO), which needs calibration videos; or `"bfloat16"` (OpenVINO),
            which keeps float32 weights and asks the runtime to compute in bfloat16 if the processor supports it.
        calibration_videos: Video files, or folders that are searched recursively for videos. One clip of each video is
            prepared as for prediction. For int8, every second clip is for the calibration and the others are for the
            comparison. Without int8 all clips replace the noise that is used for the comparison.
        max_calibration_clips: Maximum number of videos for the calibration, and of those for the comparison, spread
            evenly over the sorted list.
        batch_size: ExecuTorch only: number of clips that the program takes at once, 1 by default. Programs in the
            other formats take any number.
        overwrite: Whether to replace an existing exported model.

    Returns:
        The contents of `export_report.json`: `format`, `dtype`, `batch` (clips at once, None for any number), `bytes`
        (size of the program), `videos` (number found), `calibration_clips`, `clips` (number used for the comparison;
        none of them is in the calibration), `max_difference` (largest difference between a logit and PyTorch's),
        `largest_logit`, `tolerance` (allowed difference relative to the largest logit), `top1_agreement` with PyTorch
        (in [0, 1]; None if the comparison used noise), and `computed_in`, the precision in which OpenVINO computes on
        this machine (None for the other formats).

    Raises:
        ValueError: If the format does not support the dtype, int8 has no videos, a video or the model cannot be read,
            or the program's answers differ too much from PyTorch's. Then no files are left behind.
        FileNotFoundError: If a video or folder does not exist.
        FileExistsError: If `out` exists already and `overwrite` is false.
        ImportError: If a package of the extra `export` is missing.
    """
    out = Path(out)
    _check_request(out, format, dtype, batch_size, max_calibration_clips, overwrite)
    videos = list_videos(calibration_videos)
    for path in videos:
        if not os.path.exists(path):
            raise FileNotFoundError(f"{path}: does not exist; pass a video or a folder of videos")
    if dtype == "int8" and len(videos) < 2:
        raise ValueError(
            "int8 needs real videos to measure the range of activations, and others to compare with, but got "
            f"{len(videos)}; pass videos, or a folder of them (--calibration)"
        )
    require_packages(format, dtype)

    network = load_model(str(model)).float()
    network.config.output_hidden_states = False  # the program only returns logits
    network.config.return_dict = True  # by name
    processor = load_processor(str(model))
    if not processor.do_center_crop:
        raise ValueError(
            f"{model}: its video processor does not crop, but an exported program needs clips of one size"
        )
    clip_shape = (
        *(network.config.num_frames, getattr(network.config, "num_channels", 3)),
        *(processor.crop_size[side] for side in ("height", "width")),
    )
    most = max_calibration_clips * (2 if dtype == "int8" else 1)
    clips = _read_clips(videos, processor, clip_shape, most, batch_size)
    if dtype == "int8" and getattr(network.config, "causal", False):
        raise ValueError(f"{model}: is causal, and the state of a causal model cannot be calibrated; export float32")
    calibration: list[torch.Tensor] = []
    if dtype == "int8":
        calibration, clips = clips[::2], clips[1::2]
    with torch.inference_mode():  # before the exporter can change the network
        expected = torch.cat([network(clip).logits for clip in clips])
    if dtype == "float32" and format != "executorch":
        # for int8, products that cover a wider range than the frames would cost accuracy
        prepare_for_inference(network)

    with whole_or_nothing(out, overwrite) as folder:
        with silenced():
            _write_program(folder, network, clip_shape, calibration, format, dtype, batch_size or 1)
        processor.save_pretrained(folder)
        image_processor_like(processor).save_pretrained(folder)
        program = load_exported(folder)
        size = sum(file.stat().st_size for file in folder.iterdir() if file.suffix in _PROGRAM_SUFFIXES)
        report = {
            "format": format,
            "dtype": dtype,
            "batch": program.batch,
            "bytes": size,
            "videos": len(videos),
            "calibration_clips": len(calibration),
            "clips": len(clips),
            **_compare(program, clips, expected, real=bool(videos)),
            "tolerance": TOLERANCES[dtype],
            "computed_in": program.computed_in,
        }
        _refuse_difference(out, report)
        (folder / REPORT).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        del program  # OpenVINO and ONNX Runtime map the files into memory, and these are moved next
    return report


_PROGRAM_SUFFIXES = (".onnx", ".data", ".xml", ".bin", ".pte")


def _check_request(
    out: Path, format: str, dtype: str, batch_size: int | None, max_calibration_clips: int, overwrite: bool
):
    if (format, dtype) not in PAIRS:
        pairs = ", ".join(" ".join(pair) for pair in PAIRS)
        raise ValueError(f"cannot export to {format} {dtype}; choose one of: {pairs}")
    if batch_size is not None and format != "executorch":
        raise ValueError(f"batch_size is only for executorch; an {format} program takes any batch size")
    check_positive(batch_size=1 if batch_size is None else batch_size, max_calibration_clips=max_calibration_clips)
    refuse_existing(out, overwrite)
    if out.is_dir() and any(out.iterdir()) and not is_exported(out):
        raise ValueError(f"{out}: is not overwritten, because it is not an exported model ({MANIFEST} is missing)")


def _read_clips(
    videos: Sequence[str],
    processor: VideoFocalNetVideoProcessor,
    clip_shape: tuple[int, ...],
    most: int,
    batch_size: int | None,
) -> list[torch.Tensor]:
    """Return at most `most` clips, each (1, frames, ...), of the videos; without videos, noise to compare with."""
    if videos:
        spread = np.linspace(0, len(videos) - 1, min(len(videos), most)).round().astype(int)
        clips = []
        with closing(decode_clips([videos[index] for index in spread], processor)) as decoded:
            for clip in tqdm(decoded, total=len(spread), unit="clip", desc="decoding", disable=None):
                if clip.error is not None:
                    raise clip.error
                clips.append(clip.pixel_values[None])
        return clips
    # normalised pixels have about this distribution; the number of clips exceeds a static batch
    generator = torch.Generator().manual_seed(0)
    return list(torch.randn(4 + (batch_size or 1), 1, *clip_shape, generator=generator))


def _write_program(
    folder: Path,
    network: Any,
    clip_shape: Sequence[int],
    calibration: Sequence[torch.Tensor],
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

    # a program traced with a batch of 1 would only accept a batch of 1
    sample: dict[str, Any] = {"pixel_values": torch.zeros(batch_size if format == "executorch" else 2, *clip_shape)}
    free = {0: torch.export.Dim("batch", min=1)}
    any_batch: dict[str, Any] = {"pixel_values": free}
    if getattr(network.config, "causal", False):
        frames = sample["pixel_values"][:, : network.config.tubelet_size].contiguous()
        sample = {"pixel_values": frames, "state": first_state(network, frames)}
        any_batch["state"] = (free,) * len(sample["state"])
    quantizer = ConvolutionQuantizer([{"pixel_values": clip} for clip in calibration]) if dtype == "int8" else None
    if format == "onnx":
        exported = OnnxExporter().export(network, sample, OnnxConfig(dynamic_shapes=any_batch, quantizer=quantizer))
    elif format == "openvino":
        config = OpenVINOConfig(dynamic_shapes=any_batch, quantizer=quantizer, stateful=False)
        exported = OpenVINOExporter().export(network, sample, config)
        # by default, OpenVINO computes in bfloat16 if the processor supports it
        precision = "bf16" if dtype == "bfloat16" else "f32"
        exported.program.set_rt_info(precision, ["runtime_options", "INFERENCE_PRECISION_HINT"])
    else:
        # no dynamic batch: the program only accepts the traced batch size
        exported = ExecutorchExporter().export(network, sample, ExecutorchConfig())
    exported.save_pretrained(folder)


class ConvolutionQuantizer(ExportQuantizer):
    """
    int8 quantization by NNCF for OpenVINO and ONNX Runtime, with NNCF's scheme for general networks.

    transformers' own quantizers change the logits more: the one for OpenVINO always requests the scheme for language
    models, and the one for ONNX Runtime uses the minimum and maximum as the range of an activation. Weights are
    limited to 7 bits: 8-bit weights overflow on processors that add 8-bit products in 16 bits (x86 without VNNI),
    which cost 12 points of accuracy. Activations have one scale for all channels. NNCF would use one scale per channel
    for the inputs of depthwise convolutions, but it moves these scales up through reshapes to tensors where that
    dimension is no longer the channels, and OpenVINO cannot load such a program.
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
    # the first clip alone and the others in batches of 3: this detects a batch size that is not really free
    batches = [clips[0], *torch.cat(list(clips[1:])).split(3)] if len(clips) > 1 else [clips[0]]
    logits = torch.cat([program(batch)["logits"] for batch in batches])
    return {
        "max_difference": (logits - expected).abs().max().item(),
        "largest_logit": expected.abs().max().item(),
        "top1_agreement": (logits.argmax(-1) == expected.argmax(-1)).float().mean().item() if real else None,
    }


def _refuse_difference(out: Path, report: dict[str, Any]):
    limit = report["tolerance"] * report["largest_logit"]
    if not report["max_difference"] <= limit:  # written so that NaN is refused, too
        raise ValueError(
            f"{out}: a logit of the program differs from PyTorch's by {report['max_difference']:.2g}, but at most "
            f"{limit:.2g} is allowed ({report['tolerance']:g} of the largest logit); nothing was written"
        )
    if report["dtype"] != "int8":
        return
    chance = 1.645 * math.sqrt(INT8_AGREEMENT * (1 - INT8_AGREEMENT) / report["clips"])  # of 95 % of such samples
    if report["top1_agreement"] < INT8_AGREEMENT - chance:
        raise ValueError(
            f"{out}: the program predicts PyTorch's class for {report['top1_agreement']:.1%} of {report['clips']} "
            f"clips that were not calibrated on, but {INT8_AGREEMENT:.0%} are required; nothing was written. More "
            "clips, from all classes, may help"
        )
