"""
What distilling on Kinetics-400 takes on 1, 8 and 64 GPUs, reckoned from measured costs per clip and assumed GPUs: the
end of `docs/scaling.md`, after what stands there by hand. `benchmarks/write_readme.py` writes it.
"""

import json
from pathlib import Path

from hf_dvflnet import VideoFocalNetConfig
from hf_dvflnet.data.benchmarks import Kinetics400
from hf_dvflnet.hub.model_card import describe_config


FOLDER = Path(__file__).parent
PAGE = FOLDER.parent / "docs" / "scaling.md"
HEADING = "## What Kinetics-400 takes, on paper"  # what stands before it is written by hand

# assumed, not measured: no GPU was at hand
GPU_FLOPS = 100e12  # what training sustains in bfloat16, in floating-point operations a second
CORES_PER_GPU = 16
DISK_BYTES_PER_SECOND = 2e9  # of a node's disk, or its share of a network file system
GPUS_PER_NODE = 8

EPOCHS = 120  # the published recipe
CACHED_VIEWS = 10


def load(name: str) -> dict:
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def about(preset: str) -> dict:
    return describe_config(VideoFocalNetConfig.from_preset(preset, num_labels=400))


def page() -> str:
    clips = Kinetics400.official_counts["official", 1]["train"]
    prepared = load("prepared_videos")["results"]["kinetics_like"]
    loader = prepared["training_loader"]
    cores = {side: 1 / loader[f"{side}_clips_per_second"] for side in ("source", "prepared")}  # core seconds a clip
    # a multiply-add is two operations; backward costs twice forward
    student, teacher = 3 * 2 * about("nano")["multiply_adds"], 2 * about("base")["multiply_adds"]
    gpu = {"online": (student + teacher) / GPU_FLOPS, "cached": student / GPU_FLOPS}  # GPU seconds a clip
    parameters = about("nano")["parameters"]
    caching_hours = CACHED_VIEWS * clips * teacher / GPU_FLOPS / 3600
    cache_bytes = CACHED_VIEWS * clips * 400 * 2

    def row(gpus: int, answers: str, videos: str) -> str:
        nodes = -(-gpus // GPUS_PER_NODE)
        rates = {
            "GPUs": gpus / gpu[answers],
            "decoding cores": gpus * CORES_PER_GPU / cores[videos],
            "disk": nodes * DISK_BYTES_PER_SECOND / prepared[f"{videos}_bytes_per_clip"],
        }
        first = min(rates, key=rates.__getitem__)
        hours = EPOCHS * clips / rates[first] / 3600
        steps = EPOCHS * (clips // (8 * gpus))
        needed = rates["GPUs"] * cores[videos]
        cells = [str(gpus), answers, videos, f"{steps:,}", *(f"{rates[name]:,.0f}" for name in rates)]
        return f"| {' | '.join([*cells, first, f'{hours:,.0f}', f'{needed:,.0f}'])} |"

    rows = [
        row(gpus, answers, videos)
        for gpus in (1, 8, 64)
        for videos, answers in (("source", "online"), ("prepared", "online"), ("prepared", "cached"))
    ]
    header = [
        *("GPUs", "teacher", "videos", "steps (batch 8 each)", "clips/s: GPUs", "clips/s: decoding", "clips/s: disk"),
        *("saturates first", "hours", "cores that the GPUs could use"),
    ]
    newline = "\n"
    return f"""{HEADING}

```bash
python benchmarks/write_readme.py
```

writes this section from `benchmarks/prepared_videos.json` and from what `benchmarks/scaling.py` assumes. **No GPU was at hand:
the costs of decoding are measured, those of the GPUs are reckoned** from multiply-adds ({student / 1e9:.0f} GFLOP to train the
nano student on a clip, {teacher / 1e9:.0f} GFLOP for the base teacher's answer) at an assumed {GPU_FLOPS / 1e12:.0f} TFLOP/s
sustained. Assumed too: {CORES_PER_GPU} cores for each GPU, as fast as the measured one, and
{DISK_BYTES_PER_SECOND / 1e9:.0f} GB/s from the disk of a node of {GPUS_PER_NODE} GPUs.

Distilling a nano student from a base teacher, {clips:,} training clips, {EPOCHS} epochs:

| {" | ".join(header)} |
| {" | ".join(["---"] * len(header))} |
{newline.join(rows)}

- What saturates first stands in its column; the last one says how many cores would keep the GPUs busy. A clip like Kinetics' costs {cores["source"]:.2f} core seconds from the source and
  {cores["prepared"]:.3f} prepared (decoding and augmentation together).
- Bytes: the sources are {clips * prepared["source_bytes_per_clip"] / 1e12:.2f} TB and the prepared clips
  {clips * prepared["prepared_bytes_per_clip"] / 1e12:.2f} TB, at {prepared["source_bytes_per_clip"] / 1e6:.1f} and
  {prepared["prepared_bytes_per_clip"] / 1e6:.1f} MB a clip. Preparing takes
  {clips * prepared["seconds_to_prepare_a_clip"] / 3600:,.0f} core hours, once.
- A cache of {CACHED_VIEWS} views takes {cache_bytes / 1e9:.1f} GB and {caching_hours:.0f} GPU hours, once, where the online
  teacher takes {EPOCHS * clips * teacher / GPU_FLOPS / 3600:.0f} GPU hours in every run.
- Gradients are small beside this: those of {parameters / 1e6:.1f} M parameters in float32 are {4 * parameters / 1e6:.0f} MB a
  step, sent and received about twice by each GPU.
"""
