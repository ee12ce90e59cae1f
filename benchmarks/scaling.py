"""
What classifying a million videos takes, and distilling on Kinetics-400 on 1, 8 and 64 GPUs, reckoned from measured
costs per clip and assumed GPUs: the end of `docs/scaling.md`, after what stands there by hand.
`benchmarks/write_readme.py` writes it.
"""

import json
from pathlib import Path

from hf_dvflnet import VideoFocalNetConfig
from hf_dvflnet.data.benchmarks import Kinetics400
from hf_dvflnet.hub.model_folder import describe_config


FOLDER = Path(__file__).parent
PAGE = FOLDER.parent / "docs" / "scaling.md"
HEADING = "## What a million videos take, on paper"  # what stands before it is written by hand

# assumed, not measured: no GPU was at hand
GPU_FLOPS = 100e12  # what training sustains in bfloat16, in floating-point operations a second
CORES_PER_GPU = 16
CORES_OF_A_NODE_WITHOUT = 16
DISK_BYTES_PER_SECOND = 2e9  # of a node's disk, or its share of a network file system
GPUS_PER_NODE = 8

VIDEOS = 10**6

EPOCHS = 120  # the published recipe
CACHED_VIEWS = 10


def load(name: str) -> dict:
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def about(preset: str) -> dict:
    return describe_config(VideoFocalNetConfig.from_preset(preset, num_labels=400))


def page() -> str:
    return f"{million()}\n\n{kinetics()}"


def million() -> str:
    bulk, videos = load("bulk"), load("file_to_label")["videos"]["like UCF101"]["nano_by_stage"]
    kinetics = load("prepared_videos")["results"]["kinetics_like"]
    threads = load("file_to_label")["machine"]["threads"]
    cores = bulk["machine"]["cores"]
    # core seconds and bytes a video
    reading = {
        "like UCF101": (videos["decode"] + videos["preprocess"], bulk["bytes_per_video"]),
        "like Kinetics": (
            1 / kinetics["decoding"]["source_clips_per_second"] + videos["preprocess"],
            kinetics["source_bytes_per_clip"],
        ),
    }
    whole = {side: cores / bulk["videos_per_second"][side]["median"] for side in bulk["videos_per_second"]}
    model = {"112": whole["Ray"] - reading["like UCF101"][0], "224": threads * videos["forward"]}
    per_gpu = GPU_FLOPS / (2 * about("nano")["multiply_adds"])

    def row(nodes: int, gpus: int, files: str, size: str) -> str:
        decoding, bytes_of_one = reading[files]
        there = nodes * (gpus * CORES_PER_GPU if gpus else CORES_OF_A_NODE_WITHOUT)
        if gpus:
            rates = {"decoding": there / decoding, "GPUs": nodes * gpus * per_gpu}
        else:  # both on the same cores
            rates = {"cores": there / (decoding + model[size])}
        rates["disk"] = nodes * DISK_BYTES_PER_SECOND / bytes_of_one
        first = min(rates, key=rates.__getitem__)
        hours = VIDEOS / rates[first] / 3600
        cells = [str(nodes), str(there), str(nodes * gpus or ""), size, files, f"{rates[first]:,.0f}", first]
        return f"| {' | '.join([*cells, f'{hours:.1f}', f'{hours * nodes:,.1f}'])} |"

    rows = [
        row(nodes, gpus, files, size)
        for nodes, gpus, size in ((1, 0, "112"), (8, 0, "112"), (8, 0, "224"), (1, 1, "224"), (1, 8, "224"))
        for files in reading
    ]
    header = [
        *("nodes", "cores", "GPUs", "pixels", "files", "videos/s", "saturates first", "hours", "node hours"),
    ]
    newline = "\n"
    start = bulk["seconds_to_start"]
    return f"""{HEADING}

Nano, one clip of 8 frames of each video, `dvflnet predict --ray auto`. Measured on {cores} cores ({bulk["machine"]["processor"]}):
{bulk["videos_per_second"]["Ray"]["median"]:.1f} videos a second with Ray at 112 pixels, of which decoding a file like UCF101's takes
{reading["like UCF101"][0]:.3f} core seconds and one like Kinetics' (1280 x 720, 10 s) {reading["like Kinetics"][0]:.2f}. **Nodes, disks and
GPUs are assumed**: {CORES_OF_A_NODE_WITHOUT} cores a node, or {CORES_PER_GPU} for each GPU, as fast as the measured ones;
{DISK_BYTES_PER_SECOND / 1e9:.0f} GB/s a node from where the videos lie; {GPU_FLOPS / 1e12:.0f} TFLOP/s sustained in bfloat16.

| {" | ".join(header)} |
| {" | ".join(["---"] * len(header))} |
{newline.join(rows)}

- With a GPU, decoding saturates first, or the disk: it keeps up with {per_gpu * reading["like UCF101"][0]:,.0f} cores that decode files like UCF101's,
  and {per_gpu * reading["like Kinetics"][0]:,.0f} with Kinetics'. `dvflnet prepare` pays when the same videos are read again, not for one pass.
- Bytes: {VIDEOS * reading["like UCF101"][1] / 1e12:.2f} TB are read of files like UCF101's, {VIDEOS * reading["like Kinetics"][1] / 1e12:.1f} TB of files like Kinetics'.
  A clip goes from a decoder to the model as
  {8 * 3 * 224 * 224 * 4 / 1e6:.1f} MB of float32, within a node where both are.
- A command of Ray starts in {start["Ray"]["median"]:.0f} s, one process in {start["one process"]["median"]:.0f} s; dividing a million videos into tasks of
  16 takes Ray some minutes before the first of them.
- What is lost when all stops: at most the parts of {256:,} rows that were begun; there are {-(-VIDEOS // 256):,} of them."""


def kinetics() -> str:
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
    return f"""## What Kinetics-400 takes, on paper

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
