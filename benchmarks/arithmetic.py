"""
Where nano's arithmetic goes, and what cheaper forms of it would save: 8 frames of 224 x 224, random weights.

    python benchmarks/arithmetic.py

Each form takes turns with nano in PyTorch, ONNX Runtime and OpenVINO; what it costs in accuracy is another question.
Writes JSON; some 10 minutes on 2 cores.
"""

import json
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime
import openvino
import torch
from measuring import machine, ratio, seconds, take_turns
from torch import nn
from transformers.utils import logging

from hf_dvflnet import VideoFocalNetConfig, VideoFocalNetForVideoClassification


RESULTS = Path(__file__).with_name("arithmetic.json")
KINDS = {  # parts of a module's name
    "convolutions along frames": ("temporal_focal_layers",),
    "spatial convolutions": (".focal_layers",),
    "projections of the modulation": ("projection_in", "projection_context", "projection_out"),
    "MLP": ("mlp",),
    "stem, downsampling and head": ("",),
}
CLIP = torch.randn(1, 8, 3, 224, 224, generator=torch.Generator().manual_seed(0))


class Logits(nn.Module):
    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        return self.model(pixel_values).logits


def nano(**fields: Any) -> VideoFocalNetForVideoClassification:
    torch.manual_seed(0)
    return VideoFocalNetForVideoClassification(VideoFocalNetConfig.from_preset("nano", **fields)).eval()


def low_rank() -> Any:
    """Nano with convolutions along frames on an eighth of the channels."""
    model = nano()
    for module in model.modules():
        if hasattr(module, "temporal_focal_layers"):
            module.temporal_focal_layers = nn.ModuleList(map(factored, module.temporal_focal_layers))
    return model


def factored(dense: nn.Conv2d) -> nn.Module:
    channels, rank = dense.in_channels, dense.in_channels // 8
    return nn.Sequential(
        nn.Conv2d(channels, rank, 1, bias=False),
        nn.Conv2d(rank, channels, dense.kernel_size, padding=dense.padding, bias=False),
    )


ONE_LEVEL = {"focal_levels": [1, 1, 1, 1]}
CHEAP = {"depthwise_along_frames": True, "pair_frames": True}
FORMS: dict[str, Callable[[], nn.Module]] = {
    "nano": nano,
    "depthwise along frames": lambda: nano(depthwise_along_frames=True),
    "rank 1/8 along frames": low_rank,
    "one level": lambda: nano(**ONE_LEVEL),
    "half the frames after stage 2": lambda: nano(pair_frames=True),
    "depthwise, one level, half the frames": lambda: nano(**ONE_LEVEL, **CHEAP),
}


@torch.inference_mode()
def multiply_adds(model: nn.Module) -> dict[str, dict[str, float]]:
    """Billions of multiply-adds by kind of layer and stage (0 is the stem, 5 the head)."""
    found: dict[str, Counter[str]] = {kind: Counter() for kind in KINDS}

    def note(name: str) -> Callable:
        def hook(module: Any, given: Any, out: torch.Tensor):
            kind = next(kind for kind, parts in KINDS.items() if any(part in name for part in parts))
            stage = name.partition("stages.")[2][:1]
            place = str(int(stage) + 1) if stage else ("5" if "classifier" in name else "0")
            found[kind][place] += out.numel() * module.weight[0].numel() / 1e9

        return hook

    hooks = [
        module.register_forward_hook(note(name))
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
    ]
    model(CLIP)
    for hook in hooks:
        hook.remove()
    return {
        kind: {place: round(value, 3) for place, value in sorted(places.items())} for kind, places in found.items()
    }


def runtimes(model: nn.Module, file: Path) -> dict[str, Callable[[], object]]:
    torch.onnx.export(Logits(model).eval(), (CLIP,), file, input_names=["pixel_values"], verbose=False)
    session = onnxruntime.InferenceSession(file)
    compiled = openvino.compile_model(openvino.convert_model(file), "CPU")

    @torch.inference_mode()
    def in_pytorch():
        return model(CLIP)

    return {
        "PyTorch": in_pytorch,
        "ONNX Runtime": lambda: session.run(None, {"pixel_values": CLIP.numpy()}),
        "OpenVINO": lambda: compiled([CLIP.numpy()]),
    }


def main():
    logging.set_verbosity_error()
    found: dict[str, Any] = {"machine": machine(), "forms": {}}
    with tempfile.TemporaryDirectory() as folder:
        models = {name: make() for name, make in FORMS.items()}
        calls = {
            name: runtimes(model, Path(folder) / f"{number}.onnx")
            for number, (name, model) in enumerate(models.items())
        }
        for name, model in models.items():
            by_kind = multiply_adds(model)
            found["forms"][name] = {
                "multiply_adds": by_kind,
                "total": round(sum(sum(places.values()) for places in by_kind.values()), 3),
                "parameters": model.num_parameters(),
            }
        for runtime in ("PyTorch", "ONNX Runtime", "OpenVINO"):
            times = take_turns({name: of[runtime] for name, of in calls.items()}, 7)
            for name in FORMS:
                found["forms"][name][runtime] = {"seconds": seconds(times, name), "ratio": ratio(times, name, "nano")}
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    for name, row in found["forms"].items():
        ratios = ", ".join(
            f"{each} {row[each]['ratio']['median']:.2f}" for each in ("PyTorch", "ONNX Runtime", "OpenVINO")
        )
        print(f"{name}: {row['total']:.1f} G multiply-adds, {row['parameters'] / 1e6:.1f} M parameters; {ratios}")
    print({kind: round(sum(places.values()), 2) for kind, places in found["forms"]["nano"]["multiply_adds"].items()})


if __name__ == "__main__":
    main()
