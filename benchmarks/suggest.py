"""
Which clips to label next, `dvflnet predict --suggest`: those between two classes, or any?

    python benchmarks/suggest.py DIR --work runs/data_check

DIR is UCF101's release, with all of its classes or some; `--work` is that of `data_check.py`, which keeps the image
network's features there. A head is trained on two labelled clips of each class and tested on groups 1 to 7. Then 32
clips of the other groups get their labels, five times: at random; those with the smallest margin between the two best
classes; or those with the smallest margin in each of 32 clusters of the 160 with the smallest. Five seeds, which the
ways share.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from measuring import machine

from hf_dvflnet.data.own_videos import read_own_videos
from hf_dvflnet.hub.image_networks import EFFICIENTNET_LITE0
from hf_dvflnet.inference.suggestions import between_classes
from hf_dvflnet.training.data_check import look_at
from hf_dvflnet.training.frame_heads import fit_head


RESULTS = Path(__file__).with_name("suggest.json")
WAYS = ("random", "margin", "margin in clusters")
START, STEP, ROUNDS = 2, 32, 5


def chosen(way: str, features: torch.Tensor, head: torch.nn.Linear, generator: np.random.Generator) -> np.ndarray:
    """Places of the clips, among those without a label, that are labelled next."""
    if way == "random":
        return generator.permutation(len(features))[:STEP]
    scores = head(features).softmax(-1).topk(2).values
    order = (scores[:, 0] - scores[:, 1]).argsort().numpy()
    if way == "margin":
        return order[:STEP]
    return np.array(between_classes(scores.tolist(), list(features.numpy()), STEP))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("--work", type=Path, default=Path("runs/data_check"))
    arguments = parser.parse_args()
    clips, _ = read_own_videos(arguments.folder / "UCF-101")
    looks = look_at(clips, arguments.work / "looks", EFFICIENTNET_LITE0, None)
    frames = np.stack([look["features"] for look in looks]).astype("float32")
    pooled = torch.from_numpy(np.concatenate([frames.mean(1), np.abs(np.diff(frames, axis=1)).mean(1)], axis=1))
    pooled = (pooled - pooled.mean(0)) / (pooled.std(0) + 1e-3)
    names, labels = np.unique(clips["label"], return_inverse=True)
    tested = np.array([int(group[-2:]) <= 7 for group in clips["group"]])
    test, pool = np.flatnonzero(tested), np.flatnonzero(~tested)
    truth = torch.from_numpy(labels)

    results: dict[str, list[list[float]]] = {way: [] for way in WAYS}
    for way in WAYS:
        for seed in range(5):
            generator = np.random.default_rng(seed)
            known = np.concatenate(
                [generator.permutation(pool[labels[pool] == label])[:START] for label in range(len(names))]
            )
            curve = []
            for number in range(ROUNDS + 1):
                head = fit_head(pooled[known], truth[known], len(names), seed=seed, steps=100)
                curve.append(round(float((head(pooled[test]).argmax(-1) == truth[test]).float().mean()), 4))
                if number < ROUNDS:
                    rest = np.setdiff1d(pool, known)
                    known = np.concatenate([known, rest[chosen(way, pooled[rest], head, generator)]])
            results[way].append(curve)
            print(way, seed, curve, flush=True)
    labelled = [START * len(names) + STEP * number for number in range(ROUNDS + 1)]
    found = {"labelled": labelled, "top1": results, "test clips": len(test), "machine": machine()}
    RESULTS.write_text(json.dumps(found) + "\n")
    for way, curves in results.items():
        print(way, [f"{100 * value:.1f}" for value in np.mean(curves, axis=0)])


if __name__ == "__main__":
    main()
