"""
How fast the networks run on this machine, against what else could be picked: the transcription of the published code
and transformers' VideoMAE and TimeSformer, with random weights, on clips of 224 x 224 (8 frames; VideoMAE's 16).

    python benchmarks/forward.py

Nano in PyTorch and as an exported program takes turns with the transcription, so do its training step and the peers.
The peak memory of a step is that of a process of its own, as it comes and with an allocator that keeps nothing back. A
large matrix product in the same type and threads tells what the processor could do. Some 20 minutes on 2 cores, a
quarter of them for writing the programs. Writes JSON.
"""

import argparse
import json
import platform
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from machine import machine
from memory import added_memory, measured_memory
from timing import ratio, seconds, take_turns
from transcription import Transcription
from transformers import (
    TimesformerConfig,
    TimesformerForVideoClassification,
    VideoMAEConfig,
    VideoMAEForVideoClassification,
)
from transformers.utils import logging

from hf_dvflnet import VideoFocalNetConfig, VideoFocalNetForVideoClassification, prepare_for_inference
from hf_dvflnet.data.motion_videos import write_motion_videos
from hf_dvflnet.hub.checkpoint_conversion import publish_checkpoint
from hf_dvflnet.hub.model_folder import describe_config, save_model_folder
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
VIDEOMAE_SMALL = {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6, "intermediate_size": 1536}


def ours(preset: str, dtype: torch.dtype = torch.float32) -> VideoFocalNetForVideoClassification:
    torch.manual_seed(0)
    return VideoFocalNetForVideoClassification(VideoFocalNetConfig.from_preset(preset)).to(dtype).eval()


def checkpointed(preset: str) -> VideoFocalNetForVideoClassification:
    model = ours(preset)
    model.gradient_checkpointing_enable()
    return model


def transcribed(preset: str) -> Transcription:
    model = ours(preset)
    copy = Transcription(model.config).eval()
    copy.load_state_dict(publish_checkpoint(model, 4)["model"])
    return copy


def peer(name: str) -> torch.nn.Module:
    torch.manual_seed(0)
    if name == "TimeSformer base":
        return TimesformerForVideoClassification(TimesformerConfig(num_labels=400)).eval()
    sizes = VIDEOMAE_SMALL if name == "VideoMAE small" else {}
    return VideoMAEForVideoClassification(VideoMAEConfig(num_labels=400, **sizes)).eval()


PEERS = {"VideoMAE small": 16, "VideoMAE base": 16, "TimeSformer base": 8}


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


def matrix_product(dtype: torch.dtype, size: int = 2048) -> Callable[[], object]:
    a, b = (torch.randn(size, size).to(dtype) for _ in range(2))
    return lambda: a @ b


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


def openvino_nano(folder: Path) -> Callable:
    save_model_folder(folder / "nano", ours("nano"), title="Nano", introduction="Random weights.")
    export_model(folder / "nano", folder / "program", format="openvino")
    return load_exported(folder / "program")


# whose peak memory a process of its own measures
MEMORY = {
    "nano, forward": lambda: forward(ours("nano"), clip(1)),
    "transcription, forward": lambda: forward(transcribed("nano"), clip(1)),
    "nano, training step of 2": lambda: training_step(ours("nano"), clip(2)),
    "transcription, training step of 2": lambda: training_step(transcribed("nano"), clip(2)),
    "base, training step of 1": lambda: training_step(ours("base"), clip(1)),
    "base, training step of 1, checkpointed": lambda: training_step(checkpointed("base"), clip(1)),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/forward.json"))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--memory", choices=MEMORY, help="only print the peak memory of this, in MB")
    arguments = parser.parse_args()
    logging.set_verbosity_error()
    if arguments.memory:
        print(added_memory(MEMORY[arguments.memory]()))
        return
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
            "matrix product": matrix_product(torch.float32),
        }
        times = take_turns(calls, rounds)
    short = {
        "eager float32": calls["eager float32"],
        "eager bfloat16": forward(ours("nano", torch.bfloat16), clip(1, dtype=torch.bfloat16)),
        "transcription": calls["transcription"],
        "matrix product, bfloat16": matrix_product(torch.bfloat16),
    }
    short_times = take_turns(short, few)
    step_times = {}
    for size in (224, 112, 64):
        steps = {
            "ours": training_step(ours("nano"), clip(2, size=size)),
            "transcription": training_step(transcribed("nano"), clip(2, size=size)),
        }
        step_times[size] = take_turns(steps, rounds)
    peers = {"nano": calls["eager float32"]}
    peers |= {name: forward(peer(name), clip(1, frames)) for name, frames in PEERS.items()}
    peer_times = take_turns(peers, few)
    rates = {}
    for preset, batch in (("nano", 1), ("nano", 8), ("tiny", 1), ("tiny", 8), ("base", 1)):
        name = f"{preset}, batch {batch}"
        call = {name: forward(ours(preset), clip(batch))}
        rates[name] = {"clips": batch, "seconds": seconds(take_turns(call, few), name)}
    memory = {name: measured_memory(__file__, name) for name in MEMORY}

    work = describe_config(VideoFocalNetConfig.from_preset("nano"))["multiply_adds"]
    to_transcription = {
        name: {"seconds": seconds(times, name), "ratio": ratio(times, name, "transcription")} for name in calls
    }
    to_transcription["eager bfloat16"] = {
        "seconds": seconds(short_times, "eager bfloat16"),
        "ratio": ratio(short_times, "eager bfloat16", "transcription"),
    }
    product = to_transcription.pop("matrix product")["seconds"]["median"]
    product_bfloat16 = seconds(short_times, "matrix product, bfloat16")["median"]
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
        "peers": {
            name: {"seconds": seconds(peer_times, name), "ratio": ratio(peer_times, name, "nano")} for name in PEERS
        },
        "rates": rates,
        "matrix_product": {
            "multiply_adds_per_second": {"float32": 2048**3 / product, "bfloat16": 2048**3 / product_bfloat16},
            "nano_multiply_adds": work,
            "share_of_nano": {
                name: work / found["seconds"]["median"] / (2048**3 / product)
                for name, found in to_transcription.items()
                if name.endswith(("float32", "transcription"))
            },
        },
        "added_memory_mb": memory,
    }
    arguments.output.write_text(json.dumps(summary, indent=2) + "\n")
    print(json.dumps(summary, indent=2))


if __name__ == "__main__":
    main()
