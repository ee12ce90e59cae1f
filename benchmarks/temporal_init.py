"""
How the temporal branch of a video network that comes from an image network should start.

    python benchmarks/temporal_init.py --data_dir runs/demo/motion_videos

Trains an image FocalNet of transformers to tell textures apart, converts it twice, with a temporal modulator of 1
(`identity`) and with random weights (`random`, as published), and trains both on the rendered motions: same clips,
order, steps and learning rate, several seeds. Beside the accuracy it takes how far the branch carries the image
network's features: the share of textures that the converted network recognises on still clips before any training.
Prints both and writes them as JSON.
"""

import argparse
import json
import math
import statistics
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F
from tqdm.auto import trange
from transformers import FocalNetConfig, FocalNetForImageClassification, set_seed

from hf_dvflnet import (
    VideoClassificationTrainer,
    VideoClipDataset,
    VideoFocalNetVideoProcessor,
    VideoTrainingArguments,
    load_video_folder,
)
from hf_dvflnet.data.label_sets import LabelSet
from hf_dvflnet.data.motion_videos import random_plane
from hf_dvflnet.hub.checkpoint_conversion import convert_checkpoint


TEXTURES = 32


def views_of_textures(
    planes: torch.Tensor, rng: np.random.Generator, number: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Textures at random places, angles and sizes: (number, 3, 64, 64), about 0 +- 1, and which they are."""
    labels = torch.from_numpy(rng.integers(len(planes), size=number))
    angles, scales = rng.uniform(0, 2 * math.pi, number), rng.uniform(0.25, 0.5, number)
    shift = rng.uniform(-0.4, 0.4, (number, 2))
    cos, sin = scales * np.cos(angles), scales * np.sin(angles)
    affine = np.stack([np.stack([cos, -sin, shift[:, 0]], -1), np.stack([sin, cos, shift[:, 1]], -1)], 1)
    grid = F.affine_grid(torch.from_numpy(affine).float(), [number, 3, 64, 64], align_corners=False)
    images = F.grid_sample(planes[labels], grid, padding_mode="reflection", align_corners=False)
    return (images - 0.5) / 0.25, labels


def train_image_network(folder: Path, steps: int, seed: int = 0) -> tuple[float, torch.Tensor, torch.Tensor]:
    """Save an image network that knows the textures. Returns its accuracy on fresh views, and these."""
    set_seed(seed)
    rng = np.random.default_rng(seed)
    planes = torch.stack([random_plane(rng, 128) for _ in range(TEXTURES)])
    config = FocalNetConfig(embed_dim=32, depths=[1, 1, 2, 1], patch_size=8, image_size=64, num_labels=TEXTURES)
    network = FocalNetForImageClassification(config)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=steps)
    for _ in trange(steps, desc="image network"):
        images, labels = views_of_textures(planes, rng, 64)
        optimizer.zero_grad()
        F.cross_entropy(network(images).logits, labels).backward()
        optimizer.step()
        schedule.step()
    network.eval().save_pretrained(folder)
    images, labels = views_of_textures(planes, rng, 512)
    with torch.no_grad():
        return (network(images).logits.argmax(-1) == labels).float().mean().item(), images, labels


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", type=Path, required=True)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/temporal_init.json"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--train_clips", type=int, default=90, help="Training clips per class.")
    parser.add_argument("--epochs", type=float, default=5)
    parser.add_argument("--image_steps", type=int, default=1000)
    arguments = parser.parse_args()

    folder = Path("runs/benchmark/image_network")
    image_accuracy, images, textures = train_image_network(folder, arguments.image_steps)
    data = load_video_folder(arguments.data_dir)
    names = data["train"].features["label"].names
    clip_number = [int(Path(video["path"]).stem) for video in data["train"]["video"]]
    shown = data["train"].select([row for row, number in enumerate(clip_number) if number < arguments.train_clips])
    processor = VideoFocalNetVideoProcessor(
        frame_interval=5, size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64}
    )
    results: dict[str, dict] = {}
    for temporal_init in ("identity", "random"):
        set_seed(0)
        untrained = convert_checkpoint(folder, temporal_init=temporal_init).model
        with torch.no_grad():
            still = torch.cat([untrained(clip[:, None].expand(-1, 8, -1, -1, -1)).logits for clip in images.split(64)])
        carried = (still.argmax(-1) == textures).float().mean().item()
        top1 = []
        for seed in range(arguments.seeds):
            set_seed(seed)
            model = convert_checkpoint(
                folder, labels=LabelSet(tuple(names), "the motions"), temporal_init=temporal_init
            ).model
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
                seed=seed,
            )
            train = VideoClipDataset(shown, processor, train=True, seed=seed)
            trainer = VideoClassificationTrainer(model.train(), training, train_dataset=train)
            trainer.train()
            top1.append(trainer.predict(VideoClipDataset(data["test"], processor)).metrics["test_top1_accuracy"])
        results[temporal_init] = {
            "textures_on_still_clips": carried,
            "top1": top1,
            "mean": statistics.mean(top1),
            "standard_error": statistics.stdev(top1) / math.sqrt(len(top1)),
        }
    summary = {
        "image_network_on_textures": image_accuracy,
        "train_clips": len(shown),
        "test_clips": len(data["test"]),
        "steps": trainer.state.global_step,
        **results,
    }
    arguments.output.write_text(json.dumps(summary, indent=2) + "\n")
    print(json.dumps(summary, indent=2))


if __name__ == "__main__":
    main()
