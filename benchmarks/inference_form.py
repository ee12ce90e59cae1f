"""
What the form for inference (`prepare_for_inference`) gains: nano in each form, plain and prepared, against the
transcription of the published code; batches; each shape of convolution along frames; and what the passes over a
stage's activations cost. Also whether the shipped student gives the classes that it gives in the plain form.

    python benchmarks/inference_form.py

Sides of a group take turns. Every round is kept in the JSON: whoever stops it goes on where it was. Some 10 minutes on
2 cores, a third of them for writing the programs.
"""

import argparse
import json
from collections.abc import Callable
from contextlib import nullcontext
from itertools import islice, pairwise
from pathlib import Path
from unittest.mock import patch

import torch
from forward import clip, forward, matrix_product, ours, transcribed
from machine import continued
from timing import ratio, seconds, turns
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode
from transformers.utils import logging

from hf_dvflnet import VideoFocalNetVideoProcessor, prepare_for_inference
from hf_dvflnet.data.motion_videos import write_motion_videos
from hf_dvflnet.hub import loading
from hf_dvflnet.hub.model_folder import save_model_folder
from hf_dvflnet.inference import export
from hf_dvflnet.inference.exported_program import load_exported
from hf_dvflnet.inference.inference_form import POSITIONS, ROWS, ShortConvolution, in_pieces, rows_of


# of the transcription's time
GOALS = {
    "eager, prepared": {"goal": 0.74, "stretch": 0.70},
    "onnx, prepared": {"goal": 0.58, "stretch": 0.55},
    "openvino, prepared": {"goal": 0.58, "stretch": 0.55},
}
STAGES = {96: 56, 192: 28, 384: 14, 768: 7}  # channels and positions a side, for 224 pixels
SMALL = {(384, 7), (384, 4), (768, 4), (768, 3), (768, 2)}  # for 112 and 64 pixels
STUDENT = Path(loading.__file__).with_name("motions-student")


def forms(folder: Path) -> dict[str, Callable]:
    calls = {
        "transcription": forward(transcribed("nano"), clip(1)),
        "eager": forward(ours("nano"), clip(1)),
        "eager, prepared": forward(prepare_for_inference(ours("nano")), clip(1)),
    }
    if not (folder / "nano").exists():
        save_model_folder(folder / "nano", ours("nano"), title="Nano", introduction="Random weights.")
    for format in ("onnx", "openvino"):
        for name in (format, f"{format}, prepared"):
            as_it_is = patch.object(export, "prepare_for_inference", lambda model: model)
            if not (folder / name).exists():
                with nullcontext() if name.endswith("prepared") else as_it_is:
                    export.export_model(folder / "nano", folder / name, format=format)
            calls[name] = forward(load_exported(folder / name), clip(1))
    return {**calls, "matrix product": matrix_product(torch.float32)}


def batches(folder: Path) -> dict[str, Callable]:
    plain, prepared = ours("nano"), prepare_for_inference(ours("nano"))
    return {
        f"{name}, batch {batch}": forward(model, clip(batch))
        for name, model in (("plain", plain), ("prepared", prepared))
        for batch in (1, 8)
    }


def without_gradients(function: Callable, *arguments) -> Callable[[], object]:
    return torch.inference_mode()(lambda: function(*arguments))


def layers(folder: Path) -> dict[str, Callable]:
    """Each convolution along frames, plain and as the prepared network computes it, but for the linear layer."""
    torch.manual_seed(0)
    calls = {}
    for channels, side in sorted({*STAGES.items(), *SMALL}):
        frames = torch.randn(1, channels, 8, side**2).contiguous(memory_format=torch.channels_last)
        for size in (3, 5):
            plain = nn.Conv2d(channels, channels, (size, 1), padding=(size // 2, 0), bias=False)
            short = ShortConvolution(plain)
            name = f"{channels} channels, {side} x {side}, kernel {size}"
            calls[f"{name}, plain"] = without_gradients(plain, frames)
            calls[f"{name}, short"] = without_gradients(in_pieces, short, frames[0].permute(1, 2, 0), POSITIONS, 1)
    return calls


def passes(folder: Path) -> dict[str, Callable]:
    """What a block of each stage spends outside of its products, and what the prepared form makes of it."""
    torch.manual_seed(0)
    calls = {}
    for stage, (channels, side) in enumerate(STAGES.items()):
        x, y, z = torch.randn(3, 8, side, side, channels)
        gate, hidden = torch.randn(8, side, side, 1), torch.randn(8, side, side, 4 * channels)
        block = ours("nano").videofocalnet.stages[stage].layers[0]
        linear, mlp, rows = block.modulation.projection_in, block.mlp, max(1, ROWS // side**2)

        def apart(linear: nn.Linear = linear, channels: int = channels, x: torch.Tensor = x):
            return [rows_of(linear, start, stop, x) for start, stop in pairwise((0, channels, 2 * channels, None))]

        for name, function, arguments in (
            ("block, as it stands", block, (x[None],)),
            ("gate and sum, 6 times", lambda *all: [torch.addcmul(*all) for _ in range(6)], (x, y, gate)),
            ("GELU of 4 contexts", lambda x: [F.gelu(x) for _ in range(4)], (x,)),
            ("GELU of the MLP", F.gelu, (hidden,)),
            ("product of query and modulators", lambda x, y, z: x * y * z, (x, y, z)),
            ("projection_in in one", linear, (x,)),
            ("projection_in in three", apart, ()),
            ("MLP in one", mlp, (x,)),
            ("MLP in pieces", in_pieces, (mlp, x, rows, 0)),
        ):
            calls[f"{channels} channels, {name}"] = without_gradients(function, *arguments)
    return calls


GROUPS: dict[str, Callable[[Path], dict[str, Callable]]] = {
    "forms": forms,
    "batches": batches,
    "layers": layers,
    "passes": passes,
}


def multiply_adds() -> dict[str, int]:
    """Of all products of a clip, the transforms of frames included."""
    found = {}
    for name, model in (("plain", ours("nano")), ("prepared", prepare_for_inference(ours("nano")))):
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model(clip(1))
        found[name] = counter.get_total_flops() // 2
    return found


def agreement(folder: Path) -> dict:
    """The shipped student on the 480 clips that it is tested on, in both forms."""
    if not (folder / "videos").exists():
        write_motion_videos(folder / "videos", clips_per_class={"test": 30})
    processor = VideoFocalNetVideoProcessor.from_pretrained(STUDENT)
    plain, prepared = (loading.load_model(str(STUDENT)) for _ in range(2))
    prepare_for_inference(prepared)
    same, difference, videos = 0, 0.0, sorted((folder / "videos").rglob("*.mp4"))
    for video in videos:
        pixel_values = processor(str(video), return_tensors="pt")["pixel_values"]
        expected, found = (forward(model, pixel_values)().logits for model in (plain, prepared))
        same += int(expected.argmax() == found.argmax())
        difference = max(difference, (expected - found).abs().max().item())
    return {"clips": len(videos), "same_class": same, "largest_difference": difference}


def measured(times: list[dict[str, float]], reference: Callable[[str], str]) -> dict:
    return {name: {"seconds": seconds(times, name), "ratio": ratio(times, name, reference(name))} for name in times[0]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/inference_form.json"))
    parser.add_argument("--folder", type=Path, default=Path("runs/inference_form"), help="of programs and videos")
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    logging.set_verbosity_error()
    arguments.folder.mkdir(parents=True, exist_ok=True)

    found = continued(arguments.output)
    times = found.setdefault("times", {})
    for group, calls_of in GROUPS.items():
        kept = times.setdefault(group, [])
        if len(kept) < arguments.rounds:
            for row in islice(turns(calls_of(arguments.folder)), arguments.rounds - len(kept)):
                kept.append(row)
                arguments.output.write_text(json.dumps(found, indent=2) + "\n")
    found |= {
        "rounds": arguments.rounds,
        "goals": GOALS,
        "forms": measured(times["forms"], lambda name: "transcription"),
        "batches": measured(times["batches"], lambda name: name.replace("batch 8", "batch 1")),
        "layers": measured(times["layers"], lambda name: name.replace("short", "plain")),
        "passes": measured(times["passes"], lambda name: f"{name.partition(',')[0]}, block, as it stands"),
    }
    if "agreement" not in found:
        found |= {"agreement": agreement(arguments.folder), "multiply_adds": multiply_adds()}
    arguments.output.write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps({name: value for name, value in found.items() if name != "times"}, indent=2))


if __name__ == "__main__":
    main()
