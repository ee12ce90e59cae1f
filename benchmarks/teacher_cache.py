"""
What a step of distillation costs with the teacher's cached answers, against asking the teacher: base teacher, nano
student, clips of 8 x 224 x 224, batch 2, random weights.

    python benchmarks/teacher_cache.py

Takes the steps of one trainer, forward, backward and update, in turns: one with the cached logits, one without. Prints
the ratio of their times, median and quartiles over the pairs, and writes it as JSON.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import torch
from machine import machine
from tqdm.auto import trange

from hf_dvflnet import (
    DistillationConfig,
    DistillationTrainer,
    VideoFocalNetConfig,
    VideoFocalNetForVideoClassification,
)


GOAL = 0.35


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/teacher_cache.json"))
    parser.add_argument("--pairs", type=int, default=8)
    arguments = parser.parse_args()

    torch.manual_seed(0)
    student, teacher = (
        VideoFocalNetForVideoClassification(VideoFocalNetConfig.from_preset(preset)) for preset in ("nano", "base")
    )
    args = DistillationConfig(output_dir="runs/benchmark", optim="sgd", learning_rate=1e-3)
    trainer = DistillationTrainer(student, args, teacher_model=teacher)
    model = trainer.model.to(args.device).train()
    optimizer = trainer.create_optimizer()
    batch = {
        "pixel_values": torch.randn(2, 8, 3, 224, 224, device=args.device),
        "labels": torch.tensor([0, 1], device=args.device),
    }
    logits = trainer.teacher_logits(batch["pixel_values"])
    trainer._teacher_order = torch.arange(logits.shape[-1])

    def step(cached: bool) -> float:
        args.teacher_cache = "logits at hand" if cached else None
        inputs = {**batch, "teacher_logits": logits} if cached else dict(batch)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        began = time.perf_counter()
        trainer.compute_loss(model, inputs).backward()
        optimizer.step()
        optimizer.zero_grad()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter() - began

    for cached in (True, False):  # warm-up
        step(cached)
    pairs = [(step(True), step(False)) for _ in trange(arguments.pairs)]
    ratios = [cached / online for cached, online in pairs]
    low, median, high = statistics.quantiles(ratios, n=4)
    summary = {
        "machine": machine(),
        "cached_seconds": statistics.median(cached for cached, _ in pairs),
        "online_seconds": statistics.median(online for _, online in pairs),
        "ratio": median,
        "quartiles": [low, high],
        "pairs": len(pairs),
        "goal": GOAL,
    }
    arguments.output.write_text(json.dumps(summary, indent=2) + "\n")
    print(json.dumps(summary, indent=2))


if __name__ == "__main__":
    main()
