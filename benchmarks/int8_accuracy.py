"""
What int8 costs in accuracy: students exported to ONNX and OpenVINO, in float32 and int8, on every test clip.

    python benchmarks/int8_accuracy.py --models runs/seed0/student --data_dir runs/motion_videos

Calibrated on clips of the training split. Goal: top-1 within 1 point of float32. Prints and writes what it found, and
fails if the goal is missed.
"""

import argparse
import json
import tempfile
from pathlib import Path

import torch
from machine import machine
from tqdm.auto import tqdm

from hf_dvflnet import VideoClipDataset, VideoFocalNetVideoProcessor, export_model, load_exported, load_video_folder
from hf_dvflnet.hub.loading import load_model


GOAL = 1.0  # points
FORMATS = ("onnx", "openvino")
KEPT = ("bytes", "clips", "max_difference", "largest_logit", "top1_agreement", "computed_in")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", required=True, help="folders of students with the data's classes")
    parser.add_argument("--data_dir", type=Path, required=True, help="{train,test}/<class>/<video>")
    parser.add_argument("--calibration_clips", type=int, default=64)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/int8_accuracy.json"))
    arguments = parser.parse_args()

    data = load_video_folder(arguments.data_dir)
    found = []
    for folder in arguments.models:
        model = load_model(folder)
        classes = data["test"].features["label"].names
        assert [model.config.id2label[index] for index in range(model.config.num_labels)] == classes
        clips = VideoClipDataset(data["test"], VideoFocalNetVideoProcessor.from_pretrained(folder))
        with tempfile.TemporaryDirectory() as exports:
            networks, reports = {"pytorch": model}, {}
            for name in (f"{format} {dtype}" for format in FORMATS for dtype in ("float32", "int8")):
                format, dtype = name.split()
                reports[name] = export_model(
                    folder,
                    Path(exports, name),
                    format=format,
                    dtype=dtype,
                    calibration_videos=[arguments.data_dir / "train"],
                    max_calibration_clips=arguments.calibration_clips,
                )
                networks[name] = load_exported(Path(exports, name))
            right = dict.fromkeys(networks, 0)
            # every network sees the same tensors
            for batch in tqdm(torch.utils.data.DataLoader(clips, batch_size=16), unit="batch"):
                with torch.inference_mode():
                    for name, network in networks.items():
                        answers = network(pixel_values=batch["pixel_values"]).logits.argmax(-1)
                        right[name] += int((answers == batch["labels"]).sum())
        top1 = {name: 100 * count / len(clips) for name, count in right.items()}
        points = {format: top1[f"{format} int8"] - top1[f"{format} float32"] for format in FORMATS}
        kept = {name: {key: report[key] for key in KEPT} for name, report in reports.items()}
        found.append({"model": folder, "top1": top1, "int8_less_float32": points, "exports": kept})
        print(json.dumps(found[-1], indent=2))

    results = {
        "test_clips": len(data["test"]),
        "calibration_clips": arguments.calibration_clips,
        "students": found,
        "goal": GOAL,
        "machine": machine(),
    }
    arguments.output.write_text(json.dumps(results, indent=2) + "\n")
    furthest = max((points for row in found for points in row["int8_less_float32"].values()), key=abs)
    assert abs(furthest) <= GOAL, f"int8 is {furthest:+.1f} points from float32"


if __name__ == "__main__":
    main()
