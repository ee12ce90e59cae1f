"""
What `dvflnet check` finds of faults that were put into real clips, and what else it reports.

    python benchmarks/data_check.py DIR --work runs/data_check

DIR is UCF101's release, with all of its classes or some. Copies: 50 clips each, encoded again (180 pixels, CRF 32),
cropped (the middle 80 %) and mirrored; the share whose original is found, by the cosine of their features. Beside
them, pairs of different clips that are as similar: of one recording, which UCF101 cuts into several clips, and of two.
Wrong labels: 5 % of the clips get another class, five times.
"""

import argparse
import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pandas
from measuring import machine

from hf_dvflnet.data.own_videos import read_own_videos
from hf_dvflnet.hub.image_networks import EFFICIENTNET_LITE0
from hf_dvflnet.training.data_check import ALIKE, COPY, copies, descriptors, doubted_labels, look_at
from hf_dvflnet.video_decoding import read_video


RESULTS = Path(__file__).with_name("data_check.json")
KINDS = ("encoded again", "cropped", "mirrored")
COSINES = (0.6, 0.7, 0.8, 0.9, 0.95)


def write_copy(source: str, target: Path, kind: str):
    frames, info = read_video(source)
    height, width = frames.shape[1:3]
    if kind == "cropped":
        frames = frames[:, height // 10 : height - height // 10, width // 10 : width - width // 10]
    if kind == "mirrored":
        frames = frames[:, :, ::-1]
    height, width = (side // 2 * 2 for side in frames.shape[1:3])
    target.parent.mkdir(parents=True, exist_ok=True)
    with av.open(target, "w") as container:
        stream: Any = container.add_stream(
            "libx264", rate=Fraction(info.fps or 25).limit_denominator(1001), options={"crf": "32"}
        )
        stream.height, stream.width, stream.pix_fmt = 180, round(180 * width / height / 2) * 2, "yuv420p"
        for frame in frames:
            picture = np.ascontiguousarray(frame[:height, :width])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("--work", type=Path, default=Path("runs/data_check"))
    arguments = parser.parse_args()
    clips, _ = read_own_videos(arguments.folder / "UCF-101")
    looks = look_at(clips, arguments.work / "looks", EFFICIENTNET_LITE0, None)
    generator = np.random.default_rng(0)
    labels = clips["label"].to_numpy()

    chosen = generator.permutation(len(clips))[: 50 * len(KINDS)]
    rows = []
    for place, index in enumerate(chosen):
        row, kind = clips.iloc[index].to_dict(), KINDS[place % len(KINDS)]
        target = arguments.work / "copies" / kind / Path(row["path"]).with_suffix(".mp4").name
        if not target.is_file():
            write_copy(row["path"], target, kind)
        rows.append({**row, "path": str(target), "kind": kind, "original": index})
    copied = pandas.DataFrame(rows)
    of_copies = look_at(copied, arguments.work / "looks", EFFICIENTNET_LITE0, None)

    vectors = descriptors(np.stack([look["features"] for look in (*looks, *of_copies)]).astype("float32"))
    own, of_copy = vectors[: len(looks)], vectors[len(looks) :]
    to_original = (own[chosen] * of_copy).sum(1)
    alike = np.triu(own @ own.T, k=1)
    groups = clips["group"].to_numpy()
    same_group = groups[:, None] == groups[None, :]
    table = [
        {
            "cosine": cosine,
            **{kind: round(float((to_original[copied["kind"] == kind] >= cosine).mean()), 3) for kind in KINDS},
            "pairs of one recording": int(((alike >= cosine) & same_group).sum()),
            "pairs of two": int(((alike >= cosine) & ~same_group).sum()),
        }
        for cosine in COSINES
    ]

    wrong_labels = []
    for seed in range(5):
        generator = np.random.default_rng(seed)
        wrong = generator.permutation(len(clips))[: round(0.05 * len(clips))]
        changed = clips.copy()
        names = np.unique(labels)
        changed.loc[wrong, "label"] = [generator.choice(names[names != labels[index]]) for index in wrong]
        doubted = {one.clip for one in doubted_labels(changed, looks)}
        injected = set(clips["name"].iloc[wrong])
        wrong_labels.append(
            {
                "wrong": len(wrong),
                "doubted": len(doubted),
                "recall": round(len(doubted & injected) / len(injected), 3),
                "precision": round(len(doubted & injected) / max(len(doubted), 1), 3),
            }
        )
    same_bytes = [one for one in copies(clips, looks) if "bytes" in one.reason]
    results = {
        "clips": len(clips),
        "copies": table,
        "chosen cosines": [ALIKE, COPY],
        "wrong labels": wrong_labels,
        "doubted as they are": len(doubted_labels(clips, looks)),
        "clips with the same bytes as another": [Path(one.clip).name for one in same_bytes],
        "machine": machine(),
    }
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    print(pandas.DataFrame(table).to_string(), pandas.DataFrame(wrong_labels).to_string(), sep="\n")
    print(results["doubted as they are"], results["clips with the same bytes as another"])


if __name__ == "__main__":
    main()
