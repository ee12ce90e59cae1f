"""
What a network can tell of the rendered motion videos without their motion: nothing.

    python benchmarks/motion_videos.py --data_dir runs/demo/motion_videos

Trains the demo's teacher on (a) one frame of each clip, drawn at random, and (b) all frames in random order, and tests
it likewise on the test split. Expected: (a) chance, 1 / classes; (b) within each pair of opposite motions, at most a
half. Prints both with their standard errors, writes them as JSON, and fails if either does not hold.
"""

import argparse
import json
import math
from pathlib import Path

import numpy as np
import torch
from transformers import set_seed

from hf_dvflnet import (
    VideoClassificationTrainer,
    VideoClipDataset,
    VideoFocalNetConfig,
    VideoFocalNetForVideoClassification,
    VideoFocalNetVideoProcessor,
    VideoTrainingArguments,
    load_video_folder,
)
from hf_dvflnet.data.motion_videos import opposite


class WithoutMotion(torch.utils.data.Dataset):
    """The clips of a dataset, each as one frame drawn at random, or as all its frames in random order."""

    def __init__(self, clips: VideoClipDataset, frames: int, seed: int):
        self.clips, self.frames, self.seed, self.epoch = clips, frames, seed, 0

    def set_epoch(self, epoch: int):
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> dict:
        item = self.clips[index]
        order = np.random.default_rng([self.seed, self.epoch, index]).permutation(len(item["pixel_values"]))
        return {**item, "pixel_values": item["pixel_values"][order[: self.frames]]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", type=Path, required=True)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/motion_videos.json"))
    parser.add_argument("--epochs", type=float, default=3)
    arguments = parser.parse_args()

    data = load_video_folder(arguments.data_dir)
    names = data["train"].features["label"].names
    processor = VideoFocalNetVideoProcessor(
        frame_interval=5, size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64}
    )
    found = {}
    for name, frames in (("one frame", 1), ("shuffled frames", 8)):
        set_seed(0)
        model = VideoFocalNetForVideoClassification(
            VideoFocalNetConfig(embed_dim=32, patch_size=8, drop_path_rate=0.0, num_labels=len(names))
        )
        training = VideoTrainingArguments(
            output_dir="runs/benchmark",
            num_train_epochs=arguments.epochs,
            per_device_train_batch_size=32,
            per_device_eval_batch_size=64,
            learning_rate=1e-3,
            lr_scheduler_type="cosine",
            warmup_steps=0.1,
            max_grad_norm=5.0,
            save_strategy="no",
            use_cpu=True,
        )
        train = WithoutMotion(VideoClipDataset(data["train"], processor, train=True), frames, seed=0)
        test = WithoutMotion(VideoClipDataset(data["test"], processor), frames, seed=1)
        trainer = VideoClassificationTrainer(model, training, train_dataset=train)
        trainer.train()
        prediction = trainer.predict(test)
        logits, labels = prediction.predictions, prediction.label_ids
        found[name] = (logits, labels)

    logits, labels = found["one frame"]
    chance = 1 / len(names)
    accuracy = float((logits.argmax(-1) == labels).mean())
    error = math.sqrt(chance * (1 - chance) / len(labels))

    logits, labels = found["shuffled frames"]
    opposites = np.array([names.index(opposite(name)) for name in names])[labels]
    rows = np.arange(len(labels))
    within_pairs = float((logits[rows, labels] > logits[rows, opposites]).mean())
    pair_error = math.sqrt(0.25 / len(labels))

    results = {
        "test_clips": len(labels),
        "one_frame": {"accuracy": accuracy, "chance": chance, "standard_error": error},
        "shuffled_frames": {
            "accuracy": float((logits.argmax(-1) == labels).mean()),
            "within_pairs": within_pairs,
            "standard_error": pair_error,
        },
    }
    arguments.output.write_text(json.dumps(results, indent=2) + "\n")
    print(json.dumps(results, indent=2))
    assert abs(accuracy - chance) <= 2 * error, "one frame tells something"
    assert within_pairs <= 0.5 + 2 * pair_error, "shuffled frames tell a motion from its opposite"


if __name__ == "__main__":
    main()
