"""
What it costs on Linux to return memory to the system after each use, and what it saves to keep it.

    python benchmarks/allocator.py

glibc returns large blocks when they are freed, and the system fills each new one with zeros, page by page.
`MALLOC_MMAP_THRESHOLD_` and `MALLOC_TRIM_THRESHOLD_` in the environment make it keep them. Forward passes of nano,
plain and prepared, one clip of 8 x 224 x 224; training steps of nano, two such clips, and of the student of `make
demo`, 16 of its clips. Each is measured with and without the variables, in processes that take turns. Writes JSON.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from forward import clip, forward, ours, training_step
from machine import machine
from timing import ratio, seconds, take_turns

from hf_dvflnet import VideoFocalNetForVideoClassification, prepare_for_inference


# the first is the upper limit that mallopt(3) documents
KEEPS = {"MALLOC_MMAP_THRESHOLD_": "33554432", "MALLOC_TRIM_THRESHOLD_": "4000000000"}
STUDENT = Path(__file__).parents[1] / "hf_dvflnet" / "hub" / "motions-student"
CALLS: dict[str, Callable[[], Callable[[], object]]] = {
    "nano, forward": lambda: forward(ours("nano"), clip(1)),
    "nano, prepared, forward": lambda: forward(prepare_for_inference(ours("nano")), clip(1)),
    "nano, training step of 2": lambda: training_step(ours("nano"), clip(2)),
    "student of the demo, training step of 16": lambda: training_step(
        VideoFocalNetForVideoClassification.from_pretrained(STUDENT), torch.randn(16, 8, 3, 64, 64)
    ),
}


def measured(name: str, variables: dict[str, str]) -> float:
    words = [sys.executable, __file__, "--call", name]
    others = {key: value for key, value in os.environ.items() if key not in KEEPS}
    run = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True, env=others | variables)  # noqa: S603
    return float(run.stdout.split()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/allocator.json"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--call", choices=CALLS, help="only print how many seconds this takes")
    arguments = parser.parse_args()
    if arguments.call:
        call = {arguments.call: CALLS[arguments.call]()}
        print(statistics.median(row[arguments.call] for row in take_turns(call, 3)))
        return

    found = {"machine": machine(), "rounds": arguments.rounds, "variables": KEEPS, "calls": {}}
    for name in CALLS:
        times = [
            {side: measured(name, variables) for side, variables in (("returned", {}), ("kept", KEEPS))}
            for _ in range(arguments.rounds)
        ]
        found["calls"][name] = {
            "seconds": {side: seconds(times, side) for side in times[0]},
            "ratio": ratio(times, "kept", "returned"),
        }
        print(name, found["calls"][name]["ratio"], flush=True)
    arguments.output.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
