"""
How fast the networks run on this machine, against the transcription of the published code: random weights, 8 frames of
224 x 224.

    python benchmarks/forward.py

Nano in PyTorch and as an exported program takes turns with the transcription, and so does its training step. Some 15
minutes on 2 cores, a third of them for writing the programs. Writes JSON.
"""

import argparse
import json
import platform
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from measuring import machine, ratio, seconds, take_turns
from transcription import Transcription
from transformers.utils import logging

from hf_dvflnet import VideoFocalNetConfig, VideoFocalNetForVideoClassification, prepare_for_inference
from hf_dvflnet.data.motion_videos import write_motion_videos
from hf_dvflnet.hub.model_folder import save_model_folder
from hf_dvflnet.inference.export import export_model
from hf_dvflnet.inference.exported_program import PAIRS, load_exported


# of the transcription's time; the two last ones hold for processors with units for the type
GOALS = {
    "eager float32": 0.90,
    "eager prepared float32": 0.74,
    "exported float32": 0.58,
    "eager bfloat16": 0.40,
    "exported bfloat16 or int8": 0.25,
}


def ours(preset: str, dtype: torch.dtype = torch.float32) -> VideoFocalNetForVideoClassification:
    torch.manual_seed(0)
    return VideoFocalNetForVideoClassification(VideoFocalNetConfig.from_preset(preset)).to(dtype).eval()


def transcribed(preset: str) -> Transcription:
    return Transcription(ours(preset).config).eval()


def clip(batch: int, frames: int = 8, dtype: torch.dtype = torch.float32, size: int = 224) -> torch.Tensor:
    return torch.randn(batch, frames, 3, size, size, generator=torch.Generator().manual_seed(0)).to(dtype)


def forward(model: Callable, pixel_values: torch.Tensor) -> Callable[[], object]:
    @torch.inference_mode()
    def call():
        return model(pixel_values)

    return call


def training_step(model: torch.nn.Module, pixel_values: torch.Tensor) -> Callable[[], object]:
    model.train()

    def call():
        out = model(pixel_values)
        logits = out if isinstance(out, torch.Tensor) else out.logits
        torch.nn.functional.cross_entropy(logits, torch.arange(len(logits))).backward()
        model.zero_grad()

    return call


def units() -> dict[str, bool]:
    """Whether the processor multiplies short types in units of their own, as far as Linux tells."""
    words = set(Path("/proc/cpuinfo").read_text().split())
    if platform.machine() == "aarch64":
        return {"bfloat16": "bf16" in words, "int8": "i8mm" in words or "asimddp" in words}
    return {
        "bfloat16": bool(words & {"avx512_bf16", "amx_bf16"}),
        "int8": bool(words & {"avx512_vnni", "avx_vnni", "amx_int8"}),
    }


def programs(folder: Path) -> dict[str, Callable]:
    """Nano, exported in every way that this processor can compute in."""
    save_model_folder(folder / "nano", ours("nano"), title="Nano", introduction="Random weights.")
    write_motion_videos(folder / "videos", clips_per_class={"train": 1})
    found = {}
    for format, dtype in PAIRS:
        if dtype == "bfloat16" and not units()["bfloat16"]:
            continue
        videos = [folder / "videos"] if dtype == "int8" else []
        out = folder / f"{format}-{dtype}"
        export_model(folder / "nano", out, format=format, dtype=dtype, calibration_videos=videos)
        found[f"{format} {dtype}"] = load_exported(out)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/forward.json"))
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    logging.set_verbosity_error()
    rounds, few = arguments.rounds, max(3, arguments.rounds // 3)

    reference, nano = transcribed("nano"), ours("nano")
    difference = (nano(clip(1)).logits - reference(clip(1))).abs().max().item()
    if difference > 1e-4:
        raise SystemExit(f"the transcription's logits are {difference} from ours: they must be the same network")
    with tempfile.TemporaryDirectory() as folder:
        calls = {
            "transcription": forward(reference, clip(1)),
            "eager float32": forward(nano, clip(1)),
            "eager prepared float32": forward(prepare_for_inference(ours("nano")), clip(1)),
            **{name: forward(program, clip(1)) for name, program in programs(Path(folder)).items()},
        }
        times = take_turns(calls, rounds)
    short = {
        "eager float32": calls["eager float32"],
        "eager bfloat16": forward(ours("nano", torch.bfloat16), clip(1, dtype=torch.bfloat16)),
        "transcription": calls["transcription"],
    }
    short_times = take_turns(short, few)
    step_times = {}
    for size in (224, 112, 64):
        steps = {
            "ours": training_step(ours("nano"), clip(2, size=size)),
            "transcription": training_step(transcribed("nano"), clip(2, size=size)),
        }
        step_times[size] = take_turns(steps, rounds)
    rates = {}
    for preset, batch in (("nano", 1), ("nano", 8), ("tiny", 1), ("tiny", 8), ("base", 1)):
        name = f"{preset}, batch {batch}"
        call = {name: forward(ours(preset), clip(batch))}
        rates[name] = {"clips": batch, "seconds": seconds(take_turns(call, few), name)}

    to_transcription = {
        name: {"seconds": seconds(times, name), "ratio": ratio(times, name, "transcription")} for name in calls
    }
    to_transcription["eager bfloat16"] = {
        "seconds": seconds(short_times, "eager bfloat16"),
        "ratio": ratio(short_times, "eager bfloat16", "transcription"),
    }
    summary = {
        "machine": machine(),
        "units": units(),
        "rounds": rounds,
        "goals": GOALS,
        "to_transcription": to_transcription,
        "training_step": {
            size: {
                "seconds": {name: seconds(times, name) for name in times[0]},
                "ratio": ratio(times, "ours", "transcription"),
            }
            for size, times in step_times.items()
        },
        "rates": rates,
    }
    arguments.output.write_text(json.dumps(summary, indent=2) + "\n")
    print(json.dumps(summary, indent=2))


if __name__ == "__main__":
    main()
