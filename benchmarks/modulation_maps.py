"""
Whether modulation maps lie on what moves: a round object that moves in front of a plane at rest, strewn alike.

    python benchmarks/modulation_maps.py --models runs/seed0/student runs/seed0/teacher

For each stage and kind: the share of a map's mass inside the object, less the share of the frame that the object
covers. A map that knows nothing of the object has a difference of 0, a map on nothing else 1 less that share. Once for
the map as it is, the L2 norms, and once as pictures show it, scaled from the least to the greatest value of the clip.
The control is a network of the first one's config with random weights. Mean and standard error over the clips.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from machine import machine
from tqdm.auto import tqdm

from hf_dvflnet import VideoFocalNetForVideoClassification, VideoFocalNetVideoProcessor, modulation_maps
from hf_dvflnet.data.motion_videos import MOTIONS, render_moving_object
from hf_dvflnet.hub.loading import load_model
from hf_dvflnet.inference.modulation_maps import upsample_maps


def excess_shares(norms: np.ndarray, masks: np.ndarray, stride: int) -> tuple[float, float]:
    """Share of the mass inside the masks less their share of the area: of the norms, and of the norms as drawn."""
    maps = upsample_maps(norms, *masks.shape, stride).astype(float)
    drawn = maps - maps.min()
    return tuple(float(mass[masks].sum() / max(mass.sum(), 1e-12) - masks.mean()) for mass in (maps, drawn))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", required=True, help="folders of networks of the rendered motions")
    parser.add_argument("--clips_per_class", type=int, default=8)
    parser.add_argument("--size", type=int, default=128, help="height and width of a clip")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/modulation_maps.json"))
    arguments = parser.parse_args()

    networks: dict[str, VideoFocalNetForVideoClassification] = {}
    for folder in arguments.models:
        networks[folder] = load_model(folder)
    torch.manual_seed(0)
    config = networks[arguments.models[0]].config
    networks["random weights"] = VideoFocalNetForVideoClassification(config).eval()
    processor = VideoFocalNetVideoProcessor.from_pretrained(arguments.models[0], do_resize=False, do_center_crop=False)
    shares: dict = {name: {"spatial": [], "temporal": []} for name in networks}
    right = dict.fromkeys(networks, 0)
    areas = []
    for number in tqdm(range(arguments.clips_per_class * len(MOTIONS)), unit="clip"):
        label = number % len(MOTIONS)
        name = list(MOTIONS)[label]
        rng = np.random.default_rng([1, number])
        frames, masks = render_moving_object(MOTIONS[name], rng, processor.num_frames, arguments.size)
        areas.append(float(masks.mean()))
        pixel_values = processor(frames, do_sample_frames=False, return_tensors="pt")["pixel_values"]
        for key, network in networks.items():
            maps = modulation_maps(network, pixel_values)
            right[key] += network.config.id2label[int(maps.logits.argmax())] == name
            for kind, found in shares[key].items():
                found.append(
                    [
                        excess_shares(norms, masks, stride)
                        for norms, stride in zip(getattr(maps, kind), maps.strides, strict=True)
                    ]
                )
    rows = []
    for key, kinds in shares.items():
        for kind, found in kinds.items():
            values = np.array(found)  # (clips, stages, 2)
            errors = values.std(axis=0, ddof=1) / np.sqrt(len(values))
            for stage, (mean, error) in enumerate(zip(values.mean(axis=0), errors, strict=True), start=1):
                rows.append(
                    {
                        "model": key,
                        "kind": kind,
                        "stage": stage,
                        "norm": mean[0],
                        "norm_standard_error": error[0],
                        "drawn": mean[1],
                        "drawn_standard_error": error[1],
                    }
                )
    results = {
        "clips": len(areas),
        "size": arguments.size,
        "area_share": float(np.mean(areas)),
        "top1": {name: 100 * count / len(areas) for name, count in right.items()},
        "maps": rows,
        "machine": machine(),
    }
    arguments.output.write_text(json.dumps(results, indent=2) + "\n")
    for row in rows:
        print(
            f"{row['model']:40} {row['kind']:9}{row['stage']}  {100 * row['norm']:+6.2f} +- "
            f"{100 * row['norm_standard_error']:.2f}  drawn {100 * row['drawn']:+6.2f} +- "
            f"{100 * row['drawn_standard_error']:.2f}"
        )
    print(f"area {results['area_share']:.3f}, top-1 {results['top1']}")


if __name__ == "__main__":
    main()
