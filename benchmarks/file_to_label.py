"""
From a video file to a label: nano, in PyTorch and exported to OpenVINO, against VideoMAE with transformers' own reader
and processor, with random weights, one clip at a time.

    python benchmarks/file_to_label.py

On a clip like UCF101's (320 x 240, MPEG-4, 7 s) and a minute of 1080p with a keyframe every 60 frames. The sides take
turns; medians and quartiles. Beside it the times of ours by stage, as `dvflnet benchmark` gives them. Writes JSON.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from forward import VIDEOMAE_SMALL, openvino_nano, ours
from loading import write_minute
from machine import machine
from timing import ratio, seconds, take_turns
from transformers import VideoMAEConfig, VideoMAEForVideoClassification, VideoMAEImageProcessor
from transformers.utils import logging
from transformers.video_utils import read_video_pyav

from hf_dvflnet import VideoFocalNetVideoProcessor
from hf_dvflnet.inference.speed import STAGES, time_stages


sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "helpers"))

from videos import write_video


@torch.inference_mode()
def label_by_ours(model: Callable, processor: VideoFocalNetVideoProcessor, path: Path) -> int:
    return int(model(processor(str(path), return_tensors="pt")["pixel_values"]).logits.argmax())


@torch.inference_mode()
def label_by_videomae(model: torch.nn.Module, processor: VideoMAEImageProcessor, path: Path, frames: int) -> int:
    video, _ = read_video_pyav(str(path), lambda **_: np.linspace(0, frames - 1, 16).astype(int))
    return int(model(processor(list(video), return_tensors="pt")["pixel_values"]).logits.argmax())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/file_to_label.json"))
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    logging.set_verbosity_error()
    nano, processor = ours("nano"), VideoFocalNetVideoProcessor()
    peers = {
        "VideoMAE small": VideoMAEForVideoClassification(VideoMAEConfig(num_labels=400, **VIDEOMAE_SMALL)).eval(),
        "VideoMAE base": VideoMAEForVideoClassification(VideoMAEConfig(num_labels=400)).eval(),
    }
    found = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        program = openvino_nano(folder)
        mpeg4 = {"codec": "mpeg4", "tag": "XVID", "options": {"g": "12", "b": "1000000"}}
        videos = {
            "like UCF101": (write_video(folder / "ucf.avi", num_frames=175, width=320, height=240, **mpeg4), 175),
            "a minute of 1080p": (write_minute(folder / "minute.mp4", 60), 1500),
        }
        for kind, (path, frames) in videos.items():
            calls: dict[str, Callable[[], object]] = {
                "nano": lambda path=path: label_by_ours(nano, processor, path),
                "nano, OpenVINO": lambda path=path: label_by_ours(program, processor, path),
            }
            for peer, model in peers.items():
                calls[peer] = lambda model=model, path=path, frames=frames: label_by_videomae(
                    model, VideoMAEImageProcessor(), path, frames
                )
            times = take_turns(calls, arguments.rounds)
            stages = time_stages(nano, processor, [path], repeat=arguments.rounds)
            found[kind] = {
                "seconds": {side: seconds(times, side) for side in calls},
                "ratio_to_nano": {side: ratio(times, side, "nano") for side in calls if side != "nano"},
                "nano_by_stage": {stage: stages[stage]["median"] for stage in STAGES},
            }
            print(kind, json.dumps(found[kind]), flush=True)
    summary = {"machine": machine(), "rounds": arguments.rounds, "videos": found}
    arguments.output.write_text(json.dumps(summary, indent=2) + "\n")


if __name__ == "__main__":
    main()
