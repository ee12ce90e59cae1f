"""
From a video file to a label: nano, in PyTorch and exported, against VideoMAE and TimeSformer with transformers' own
reader and processor, with random weights, one clip at a time.

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
from forward import PEERS, ours, peer
from loading import write_minute
from machine import machine
from timing import ratio, seconds, take_turns
from transformers import VideoMAEImageProcessor
from transformers.utils import logging
from transformers.video_utils import read_video_pyav

from hf_dvflnet import VideoFocalNetVideoProcessor, prepare_for_inference
from hf_dvflnet.hub.model_folder import save_model_folder
from hf_dvflnet.inference.export import export_model
from hf_dvflnet.inference.exported_program import load_exported
from hf_dvflnet.inference.speed import STAGES, time_stages


sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "helpers"))

from videos import write_video


FORMATS = {"ONNX Runtime": "onnx", "OpenVINO": "openvino", "ExecuTorch": "executorch"}


@torch.inference_mode()
def label_by_ours(model: Callable, processor: VideoFocalNetVideoProcessor, path: Path) -> int:
    return int(model(processor(str(path), return_tensors="pt")["pixel_values"]).logits.argmax())


@torch.inference_mode()
def label_by_peer(
    model: torch.nn.Module, processor: VideoMAEImageProcessor, path: Path, frames: int, shown: int
) -> int:
    video, _ = read_video_pyav(str(path), lambda **_: np.linspace(0, frames - 1, shown).astype(int))
    return int(model(processor(list(video), return_tensors="pt")["pixel_values"]).logits.argmax())


def exported_nano(folder: Path) -> dict[str, Callable]:
    """Nano as a program in every format."""
    save_model_folder(folder / "nano", ours("nano"), title="Nano", introduction="Random weights.")
    for format in FORMATS.values():
        export_model(folder / "nano", folder / format, format=format)
    return {f"nano, {name}": load_exported(folder / format) for name, format in FORMATS.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/file_to_label.json"))
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    logging.set_verbosity_error()
    nano, processor = ours("nano"), VideoFocalNetVideoProcessor()
    peers = {name: peer(name) for name in PEERS}
    found = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        forms = {"nano": nano, "nano, prepared": prepare_for_inference(ours("nano")), **exported_nano(folder)}
        mpeg4 = {"codec": "mpeg4", "tag": "XVID", "options": {"g": "12", "b": "1000000"}}
        videos = {
            "like UCF101": (write_video(folder / "ucf.avi", num_frames=175, width=320, height=240, **mpeg4), 175),
            "a minute of 1080p": (write_minute(folder / "minute.mp4", 60), 1500),
        }
        for kind, (path, frames) in videos.items():
            calls: dict[str, Callable[[], object]] = {
                name: lambda form=form, path=path: label_by_ours(form, processor, path) for name, form in forms.items()
            }
            for name, model in peers.items():
                calls[name] = lambda model=model, path=path, frames=frames, shown=PEERS[name]: label_by_peer(
                    model, VideoMAEImageProcessor(), path, frames, shown
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
