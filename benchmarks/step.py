"""
What an answer for each frame costs: a step of causal nano against its last 8 frames computed anew, on this machine.

    OMP_NUM_THREADS=1 python benchmarks/step.py

Both are prepared for inference and take turns. Writes JSON.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import torch
from measuring import machine, ratio, seconds, take_turns

from hf_dvflnet import VideoFocalNetConfig, VideoFocalNetForVideoClassification, prepare_for_inference


FRAMES = 8


def nano(size: int, causal: bool) -> VideoFocalNetForVideoClassification:
    torch.manual_seed(0)
    config = VideoFocalNetConfig.from_preset("nano", causal=causal, image_size=size, num_frames=FRAMES)
    return prepare_for_inference(VideoFocalNetForVideoClassification(config))


def stepping(model: VideoFocalNetForVideoClassification, frame: torch.Tensor) -> Callable[[], object]:
    state: tuple[torch.Tensor, ...] = ()

    @torch.inference_mode()
    def call():
        nonlocal state
        logits, state = model.step(frame, state)
        return logits

    for _ in range(FRAMES):  # until the window slides
        call()
    return call


def whole(model: VideoFocalNetForVideoClassification, clip: torch.Tensor) -> Callable[[], object]:
    return torch.inference_mode()(lambda: model(clip))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    arguments = parser.parse_args()
    found = {"machine": machine()}
    for size in (112, 224):
        clip = torch.randn(1, FRAMES, 3, size, size)
        calls = {"step": stepping(nano(size, True), clip[:, :1]), "window": whole(nano(size, False), clip)}
        times = take_turns(calls, arguments.rounds)
        found[str(size)] = {name: seconds(times, name) for name in calls} | {"ratio": ratio(times, "step", "window")}
        print(size, found[str(size)])
    arguments.out.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
