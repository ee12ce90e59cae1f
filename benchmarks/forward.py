"""
How fast the networks run on this machine, against what else could be picked: the transcription of the published code,
and transformers' VideoMAE and TimeSformer, with random weights, on clips of 224 x 224 (8 frames; VideoMAE's 16).

    python benchmarks/forward.py

Each pair takes turns, forward by forward, after a warm-up: median and quartiles of the ratios of their times. The
training step (nano, batch 2) and gradient checkpointing (base) are timed likewise, with the peak memory of each in a
process of its own. A large matrix product in the same type and threads tells the limit. Writes JSON.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from machine import machine
from transcription import Transcription
from transformers import (
    TimesformerConfig,
    TimesformerForVideoClassification,
    VideoMAEConfig,
    VideoMAEForVideoClassification,
)
from transformers.utils import logging

from hf_dvflnet import VideoFocalNetConfig, VideoFocalNetForVideoClassification
from hf_dvflnet.checkpoint_conversion import publish_checkpoint
from hf_dvflnet.model_folder import describe_config


GOALS = {"eager float32": 0.90, "eager bfloat16": 0.40}
VIDEOMAE_SMALL = {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6, "intermediate_size": 1536}


def ours(preset: str, dtype: torch.dtype = torch.float32) -> VideoFocalNetForVideoClassification:
    torch.manual_seed(0)
    return VideoFocalNetForVideoClassification(VideoFocalNetConfig.from_preset(preset)).to(dtype).eval()


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


def clip(batch: int, frames: int = 8, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(batch, frames, 3, 224, 224, generator=torch.Generator().manual_seed(0)).to(dtype)


def seconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def compare(one: Callable, other: Callable, rounds: int) -> dict:
    """Times of `one` and `other`, which take turns, and the ratio of one to other."""
    for call in (one, other):
        call()
    pairs = [(seconds(one), seconds(other)) for _ in range(rounds)]
    ratios = [a / b for a, b in pairs]
    low, median, high = statistics.quantiles(ratios, n=4)
    times = [statistics.median(times) for times in zip(*pairs, strict=True)]
    return {"seconds": times[0], "other_seconds": times[1], "ratio": median, "quartiles": [low, high]}


def forward(model: torch.nn.Module, pixel_values: torch.Tensor) -> Callable[[], object]:
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


# what a process of its own measures the peak memory of
MEMORY = {
    "nano, forward": lambda: forward(ours("nano"), clip(1)),
    "transcription of nano, forward": lambda: forward(transcribed("nano"), clip(1)),
    "nano, training step of 2": lambda: training_step(ours("nano"), clip(2)),
    "transcription of nano, training step of 2": lambda: training_step(transcribed("nano"), clip(2)),
    "base, training step of 1": lambda: training_step(ours("base"), clip(1)),
    "base, training step of 1, checkpointed": lambda: training_step(checkpointed("base"), clip(1)),
}


def checkpointed(preset: str) -> VideoFocalNetForVideoClassification:
    model = ours(preset)
    model.gradient_checkpointing_enable()
    return model


def added_memory(name: str) -> float:
    """Peak memory of a step less what model and clip take, in MB, in this process."""
    call = MEMORY[name]()
    before = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    call()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before) / 1e6


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/forward.json"))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--memory", choices=MEMORY, help="only print the peak memory of this, in MB")
    arguments = parser.parse_args()
    logging.set_verbosity_error()
    if arguments.memory:
        print(added_memory(arguments.memory))
        return
    rounds = arguments.rounds

    reference = transcribed("nano")
    difference = (ours("nano")(clip(1)).logits - reference(clip(1))).abs().max().item()
    if difference > 1e-4:
        raise SystemExit(f"the transcription differs by {difference}")
    against = forward(reference, clip(1))
    found: dict[str, dict] = {
        "eager float32": compare(forward(ours("nano"), clip(1)), against, rounds),
        "eager bfloat16": compare(
            forward(ours("nano", torch.bfloat16), clip(1, dtype=torch.bfloat16)), against, rounds
        ),
        "training step of 2": compare(
            training_step(ours("nano"), clip(2)), training_step(transcribed("nano"), clip(2)), max(2, rounds // 2)
        ),
    }
    nano = forward(ours("nano"), clip(1))
    peers = {
        name: compare(forward(peer(name), clip(1, frames)), nano, max(2, rounds // 2))
        for name, frames in (("VideoMAE small", 16), ("VideoMAE base", 16), ("TimeSformer base", 8))
    }
    rates = {}
    for preset, batch in (("nano", 1), ("nano", 8), ("tiny", 1), ("tiny", 8), ("base", 1)):
        call = forward(ours(preset), clip(batch))
        call()
        times = [seconds(call) for _ in range(max(2, rounds // 2))]
        rates[f"{preset}, batch {batch}"] = {"seconds": statistics.median(times), "clips": batch}
    limit = {}
    for dtype, name in ((torch.float32, "eager float32"), (torch.bfloat16, "eager bfloat16")):
        product = matrix_product(dtype)
        product()
        rate = 2048**3 / statistics.median(seconds(product) for _ in range(rounds))
        macs = describe_config(VideoFocalNetConfig.from_preset("nano"))["multiply_adds"]
        limit[name] = {"multiply_adds_per_second": rate, "share": macs / found[name]["seconds"] / rate}
    memory = {}
    for name in MEMORY:
        words = [sys.executable, __file__, "--memory", name]
        memory[name] = float(subprocess.run(words, check=True, capture_output=True, text=True).stdout)  # noqa: S603
    summary = {
        "machine": machine(),
        "rounds": rounds,
        "goals": GOALS,
        "nano_to_transcription": found,
        "peers_to_nano": peers,
        "rates": rates,
        "matrix_product": limit,
        "added_memory_mb": memory,
    }
    arguments.output.write_text(json.dumps(summary, indent=2) + "\n")
    print(json.dumps(summary, indent=2))


if __name__ == "__main__":
    main()
