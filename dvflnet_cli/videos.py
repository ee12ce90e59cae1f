"""
The command line, `dvflnet`.

It lies outside the package and imports it inside the commands: importing the package loads torch and transformers, and
`dvflnet --help` should not wait for these.
"""

import io
import json
import logging
import os
import re
import sys
import warnings
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Literal

import typer


app = typer.Typer(
    help="DVFL-Net and Video-FocalNet: make, convert, describe, run and publish models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace a model that is there already.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Labels = Annotated[
    str | None,
    typer.Option(
        "--labels",
        metavar="SET_OR_FILE",
        help="Class names: ucf50, ucf101, ucf101-sorted, hmdb51, ssv2, kinetics400, kinetics600, diving48, "
        "activitynet, or a text file of one name a line.",
    ),
]


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="nano (also dvflnet-nano), tiny, small or base.")],
    out: Annotated[Path, typer.Argument(help="The folder to write.")],
    num_labels: Annotated[int | None, typer.Option(min=1, help="Number of classes; 400 if unset.")] = None,
    labels: Labels = None,
    seed: Annotated[int, typer.Option(help="Seed of the random weights.")] = 0,
    overwrite: Overwrite = False,
):
    """Write a model of a published size with random weights."""
    quiet()
    from transformers import set_seed

    from hf_dvflnet import VideoFocalNetConfig, VideoFocalNetForVideoClassification
    from hf_dvflnet.data.label_sets import read_labels
    from hf_dvflnet.hub.model_folder import save_model_folder

    if labels is not None and num_labels is not None:
        raise ValueError("--labels and --num-labels exclude each other: the names tell how many they are")
    preset = name.removeprefix("dvflnet-") if name == "dvflnet-nano" else name
    classes: dict[str, Any] = {"num_labels": num_labels or 400}
    order = ""
    if labels is not None:
        label_set = read_labels(labels)
        classes = {"id2label": dict(enumerate(label_set.names))}
        classes["label2id"] = {label: index for index, label in classes["id2label"].items()}
        order = f" Class names and their order: {label_set.source}."
    config = VideoFocalNetConfig.from_preset(preset, **classes)
    set_seed(seed)
    model = VideoFocalNetForVideoClassification(config)
    save_model_folder(
        out,
        model,
        title=f"{'DVFL-Net nano' if preset == 'nano' else f'Video-FocalNet {preset}'}, untrained",
        introduction=f"**Untrained: the weights are random** (seed {seed}), and so are its answers. A start for "
        f"training, with `dvflnet create {name}`.{order}",
        overwrite=overwrite,
    )
    typer.echo(
        f"{out}: {preset}, {model.num_parameters() / 1e6:.2f} M parameters, {config.num_labels} classes, random"
    )


@app.command()
def convert(
    source: Annotated[
        str,
        typer.Argument(
            help="A published .pth or .safetensors file, or a folder or Hub id of transformers' FocalNet; with "
            "--to-published a folder of this package."
        ),
    ],
    out: Annotated[Path, typer.Argument(help="The folder to write; with --to-published the .pth file.")],
    labels: Labels = None,
    num_frames: Annotated[
        int | None, typer.Option(min=1, help="Frames of a clip, if the checkpoint says none.")
    ] = None,
    use_postln: Annotated[
        bool, typer.Option("--use-postln", help="The checkpoint was trained with use_postln; its weights do not tell.")
    ] = False,
    normalize_modulator: Annotated[
        bool, typer.Option("--normalize-modulator", help="Likewise, with normalize_modulator.")
    ] = False,
    depths: Annotated[
        str | None,
        typer.Option(help="Image networks: blocks of each stage to keep, such as nano or 1,1,2,1; all if unset."),
    ] = None,
    temporal_init: Annotated[
        Literal["identity", "random"], typer.Option(help="Image networks: how the temporal branch starts.")
    ] = "identity",
    seed: Annotated[int, typer.Option(help="Seed of the weights that an image network lacks.")] = 0,
    to_published: Annotated[
        bool, typer.Option("--to-published", help="The other way: write weights under the published names.")
    ] = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
):
    """Make a model folder of a published checkpoint. No code from the checkpoint is run."""
    quiet()
    if to_published:
        if labels or num_frames or use_postln or normalize_modulator or depths:
            raise ValueError("--to-published takes the model as it is: it goes with --overwrite and --json only")
        return publish(source, out, overwrite, as_json)
    from transformers import set_seed

    from hf_dvflnet.data.label_sets import read_labels
    from hf_dvflnet.hub.checkpoint_conversion import convert_checkpoint, read_depths
    from hf_dvflnet.hub.model_folder import refuse_existing, save_model_folder

    refuse_existing(out, overwrite)  # before the work rather than after it
    label_set = None if labels is None else read_labels(labels)
    set_seed(seed)
    converted = convert_checkpoint(
        source,
        labels=label_set,
        num_frames=num_frames,
        use_post_layernorm=use_postln,
        normalize_modulator=normalize_modulator,
        depths=None if depths is None else read_depths(depths),
        temporal_init=temporal_init,
    )
    what = [f"Converted from `{Path(source).name}` by `dvflnet convert`: {len(converted.copied)} weights were copied."]
    if converted.new:
        branch = "a temporal modulator of 1" if temporal_init == "identity" else "random weights"
        head = ", its head from random weights" if "classifier.weight" in converted.new else ""
        what.append(
            f"**Not trained on videos**: the source lacks {len(converted.new)} weights. Its temporal branch starts "
            f"from {branch}{head} (seed {seed})."
        )
    if label_set is not None:
        what.append(f"Class names and their order: {label_set.source}.")
    what += [f"Note: {note}." for note in converted.notes]
    save_model_folder(
        out,
        converted.model,
        title=out.name,
        introduction="\n\n".join(what),
        frame_interval=converted.frame_interval,
        overwrite=overwrite,
    )
    for note in converted.notes:
        typer.echo(printable(f"note: {note}"), err=True)
    if as_json:
        keys = {"copied": len(converted.copied), "new": converted.new, "left": converted.left}
        typer.echo(json.dumps({"source": source, "folder": str(out), **keys, "notes": converted.notes}))
        return
    typer.echo(
        f"{out}: {len(converted.copied)} weights copied, {len(converted.new)} new, {len(converted.left)} left out"
    )
    for title, names in (("new", converted.new), ("left out", converted.left)):
        if names:
            typer.echo(printable(f"{title}: {grouped(names)}"))


def grouped(names: list[str]) -> str:
    """Weight names by their block, or else by their layer, with how many there are: `layers.0.blocks.1 (14)`."""
    blocks = Counter(re.sub(r"^(.*?(?:blocks|layers)\.\d+)\.\D.*|^(.*)\..*", r"\1\2", name) for name in names)
    return ", ".join(f"{block} ({number})" for block, number in blocks.items())


def publish(source: str, out: Path, overwrite: bool, as_json: bool):
    import torch

    from hf_dvflnet.hub.checkpoint_conversion import publish_checkpoint
    from hf_dvflnet.hub.model_folder import load_model, load_processor, whole_or_nothing

    if out.suffix != ".pth":
        raise ValueError(f"{out}: --to-published writes a .pth file; name it so")
    with whole_or_nothing(out, overwrite) as path:
        interval = load_processor(source).frame_interval
        checkpoint = publish_checkpoint(load_model(source), interval)
        try:
            torch.save(checkpoint, path)
        except RuntimeError as error:  # so PyTorch calls a full disk
            raise OSError(f"{out}: cannot be written ({error}); is the disk full?") from error
    if as_json:
        typer.echo(json.dumps({"source": source, "file": str(out), "weights": len(checkpoint["model"])}))
        return
    typer.echo(
        f"{out}: {len(checkpoint['model'])} weights under their published names; class names have no place there"
    )


@app.command()
def predict(
    model: Annotated[str, typer.Argument(help="A model folder or Hub id, or a folder of `dvflnet export`.")],
    videos: Annotated[list[str], typer.Argument(metavar="VIDEO...", help="Paths or http(s) URLs.")],
    top_k: Annotated[int, typer.Option(min=1, help="Classes to print per video.")] = 5,
    views: Annotated[int, typer.Option(help="1, or 12: 4 clips x 3 crops, softmax averaged, as published.")] = 1,
    windows: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="Classify windows of this length: a table of times, as CSV."),
    ] = None,
    stride: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="From window to window; their length if unset.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="The .csv or .json file to write the windows to.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Videos or windows that are classified at once.")] = 1,
    num_workers: Annotated[int, typer.Option(min=0, help="Threads that decode ahead; for windows 1 or none.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print a line of JSON per video or window.")] = False,
):
    """
    Classify videos, or long ones window by window.

    A video that cannot be read is named on stderr, the others are answered, and the exit code is 1. With --windows,
    frames behind the last window are covered by one more that ends with the video.
    """
    quiet()
    if views not in (1, 12):
        raise ValueError(f"--views must be 1 or 12, got {views}")
    if windows is None and (stride is not None or output is not None):
        raise ValueError("--stride and --output go with --windows SECONDS")
    if windows is not None and views != 1:
        raise ValueError("--windows shows one view of each window: leave --views at 1")
    if output is not None and (output.suffix not in (".csv", ".json") or as_json):
        raise ValueError(f"--output writes a .csv or .json file, and goes without --json; got {output}")
    if output is not None and output.exists():
        raise FileExistsError(f"{output}: is there already; choose another --output")
    refuse_unless_positive(windows=windows, stride=stride)
    from functools import partial

    import torch
    from tqdm.auto import tqdm

    from hf_dvflnet.hub.model_folder import load_model, load_processor
    from hf_dvflnet.inference.export import is_exported, load_exported
    from hf_dvflnet.inference.streams import best_classes, run_ahead

    network: Any = load_exported(model) if is_exported(model) else load_model(model)
    processor: Any = load_processor(model)
    if windows is not None:
        table = (network, processor, videos, windows, stride, top_k, batch_size, num_workers)
        return predict_in_windows(*table, output=output, as_json=as_json)
    clips, crops = (4, 3) if views == 12 else (1, 1)
    calls = [partial(processor, video, num_clips=clips, num_crops=crops, return_tensors="pt") for video in videos]
    failed = 0
    batch: list[tuple[str, torch.Tensor]] = []

    def answer():
        with torch.inference_mode():
            scores = network(torch.cat([clip for _, clip in batch])).logits.float().softmax(-1)
        for (video, _), values in zip(batch, scores, strict=True):
            answers = [{"label": name, "score": score} for name, score in best_classes(network, values, top_k)]
            if as_json:
                lines = [json.dumps({"video": video, "views": views, "answers": answers}, ensure_ascii=False)]
            else:
                lines = [video, *(f"  {answer['score']:6.1%}  {answer['label']}" for answer in answers)]
            tqdm.write("\n".join(map(printable, lines)), file=sys.stdout)
        batch.clear()

    with tqdm(total=len(videos), unit="video", disable=None if len(videos) > 1 else True) as progress:
        for video, get in zip(videos, run_ahead(calls, num_workers if len(videos) > 1 else 0), strict=True):
            try:
                clip = get()["pixel_values"]
            except (OSError, ValueError) as error:
                failed += 1
                tqdm.write(f"dvflnet: {one_line(error)}", file=sys.stderr)
            else:
                if batch and batch[0][1].shape != clip.shape:  # a processor that does not crop
                    answer()
                batch.append((video, clip))
                if len(batch) == batch_size:
                    answer()
            progress.update()
        if batch:
            answer()
    if failed:
        typer.echo(f"dvflnet: {failed} of {len(videos)} videos could not be read", err=True)
        raise typer.Exit(1)


def predict_in_windows(
    network, processor, videos, seconds, stride, top_k, batch_size, num_workers, *, output: Path | None, as_json: bool
):
    """The windows of all videos as a table, to stdout or a file; a video that cannot be read is named, as above."""
    import csv
    from contextlib import ExitStack

    from hf_dvflnet.hub.model_folder import whole_or_nothing
    from hf_dvflnet.inference.streams import predict_windows

    shown = min(top_k, network.config.num_labels)
    numbered = [name for rank in range(2, shown + 1) for name in (f"label_{rank}", f"score_{rank}")]
    failed = 0
    in_json = as_json or (output is not None and output.suffix == ".json")
    with ExitStack() as stack:
        file: Any = sys.stdout
        if output is not None:
            path = stack.enter_context(whole_or_nothing(output))
            # a name that is not in UTF-8 is written as its escapes
            file = stack.enter_context(open(path, "w", newline="", encoding="utf-8", errors="backslashreplace"))
        table = csv.writer(file, lineterminator="\n")
        if not in_json:
            table.writerow(["video", "start", "end", "label", "score", *numbered])
        rows = 0
        for video in videos:
            found = predict_windows(
                network,
                processor,
                video,
                seconds=seconds,
                stride_seconds=stride,
                top_k=top_k,
                batch_size=batch_size,
                num_workers=num_workers,
            )
            while True:
                try:  # only to read: what cannot be written is no fault of the video
                    row = next(found, None)
                except (OSError, ValueError) as error:
                    failed += 1
                    typer.echo(f"dvflnet: {one_line(error)}", err=True)
                    break
                if row is None:
                    break
                times = [round(row[name], 3) for name in ("start", "end")]
                if in_json:
                    line = {"video": video, **row, "start": times[0], "end": times[1]}
                    # a file is a list, stdout a line per window
                    before = ("[\n" if rows == 0 else ",\n") if output else ""
                    text = printable(json.dumps(line, ensure_ascii=False))
                    file.write(before + text + ("" if output else "\n"))
                else:
                    best = [(answer["label"], round(answer["score"], 6)) for answer in row["answers"]]
                    cells = [video, *times, *(value for pair in best for value in pair)]
                    if output is None:  # a file has names as they are, a terminal may show this
                        cells = [printable(cell) if isinstance(cell, str) else cell for cell in cells]
                    table.writerow(cells)
                rows += 1
        if in_json and output:
            file.write("\n]\n" if rows else "[]\n")
    if output:
        typer.echo(f"{output}: {rows} windows of {len(videos) - failed} videos")
    if failed:
        typer.echo(f"dvflnet: {failed} of {len(videos)} videos could not be read", err=True)
        raise typer.Exit(1)


@app.command()
def watch(
    source: Annotated[
        str,
        typer.Argument(
            help="A video file; an rtsp, rtmp, udp or http(s) URL; or a camera: /dev/video0, avfoundation:0 or "
            "dshow:video=NAME."
        ),
    ],
    model: Annotated[str, typer.Argument(help="A model folder or Hub id.")],
    window: Annotated[float, typer.Option(metavar="SECONDS", help="What an answer spans.")] = 2.0,
    stride: Annotated[
        int | None, typer.Option(min=1, help="Frames from answer to answer; half a second's if unset.")
    ] = None,
    smoothing: Annotated[
        float, typer.Option(help="Weight of the previous answers in the average, from 0 to below 1.")
    ] = 0.0,
    threshold: Annotated[float, typer.Option(help="Score below which no label is given, from 0 to 1.")] = 0.0,
    top_k: Annotated[int, typer.Option(min=1, help="Classes in a line of JSON.")] = 5,
    fps: Annotated[
        float | None, typer.Option(help="Frames per second of the source, where it tells none or a wrong number.")
    ] = None,
    realtime: Annotated[bool, typer.Option("--realtime", help="Show a file at its own pace.")] = False,
    device: Annotated[str, typer.Option(help="Where the model runs: cpu, cuda, ...")] = "cpu",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a line of JSON per answer, and one at the end.")
    ] = False,
):
    """
    Print what a camera, a network stream or a file shows, as it goes on.

    A live source is never behind by more than a stride and a forward pass: windows that the model is too slow for
    are left out and counted. Ctrl-C ends with a summary.
    """
    quiet()
    refuse_unless_positive(window=window, fps=fps)
    from collections import deque

    import numpy as np

    from hf_dvflnet import VideoStreamClassifier
    from hf_dvflnet.hub.model_folder import load_model, load_processor
    from hf_dvflnet.inference.streams import open_stream

    network = on_device(load_model(model), device)
    processor = load_processor(model)
    latencies: deque[float] = deque(maxlen=100_000)  # a camera may be watched for months
    with open_stream(source) as stream:
        rate = fps or stream.fps
        if not rate:
            raise ValueError(f"{source}: tells no frame rate: give --fps")
        classifier = VideoStreamClassifier(
            network,
            processor,
            window=max(1, round(window * rate)),
            stride=stride or max(1, round(rate / 2)),
            smoothing=smoothing,
            threshold=threshold,
            top_k=top_k,
        )
        failure = None
        try:
            for answer in classifier.run(stream, realtime=realtime):
                latencies.append(answer.latency)
                if as_json:
                    top = [{"label": label, "score": score} for label, score in answer.top]
                    typer.echo(printable(json.dumps({**vars(answer), "top": top}, ensure_ascii=False)))
                    continue
                typer.echo(
                    f"{answer.time:9.2f} s  {answer.score:6.1%}  {printable(answer.label or '-')}  "
                    f"(latency {1000 * answer.latency:.0f} ms, dropped {answer.dropped}, skipped {answer.skipped})"
                )
        except KeyboardInterrupt:
            pass
        except (OSError, ValueError) as error:  # after the summary of what there was
            failure = error
    summary = {name: getattr(classifier, name) for name in ("frames", "answers", "dropped", "skipped")}
    median, slow = np.percentile(latencies or [np.nan], [50, 95]).tolist()
    if as_json:
        figures = {"latency_median": median, "latency_p95": slow} if latencies else {}
        typer.echo(json.dumps({**summary, **figures}))
    else:
        text = f"{summary['frames']} frames, {summary['answers']} answers; dropped {summary['dropped']} frames, "
        text += f"skipped {summary['skipped']} answers"
        if latencies:
            text += f"; latency {1000 * median:.0f} ms (median), {1000 * slow:.0f} ms (95th percentile)"
        typer.echo(text)
    if failure is not None:
        raise failure


@app.command()
def benchmark(
    model: Annotated[str, typer.Argument(help="A model folder or Hub id.")],
    videos: Annotated[list[str], typer.Argument(metavar="VIDEO...", help="Paths or http(s) URLs.")],
    repeat: Annotated[int, typer.Option(min=1, help="Passes that are timed, after one that is not.")] = 5,
    batch_size: Annotated[int, typer.Option(min=1, help="Clips that are classified at once.")] = 1,
    device: Annotated[str, typer.Option(help="Where the model runs: cpu, cuda, ...")] = "cpu",
    as_json: AsJson = False,
):
    """
    Time decoding, preprocessing and forward pass apart, one view per video, one after the other.

    A stage's time is that of all videos in one pass: median, least and greatest of the passes. The real-time factor is
    seconds of video per second of work.
    """
    quiet()
    from hf_dvflnet.hub.model_folder import load_model, load_processor
    from hf_dvflnet.inference.speed import STAGES, time_stages

    network = on_device(load_model(model), device)
    processor = load_processor(model)
    found = time_stages(network, processor, videos, repeat=repeat, batch_size=batch_size)
    if as_json:
        typer.echo(json.dumps(found))
        return
    seconds, factor = (found[name] for name in ("video_seconds", "realtime_factor"))
    typer.echo(
        f"{found['clips']} clips of {found['frames']} frames, {seconds or float('nan'):.1f} s of video; batches of "
        f"{batch_size}; {found['device']}, {found['dtype']}, {found['threads']} threads; {repeat} passes"
    )
    typer.echo(f"{'':12}{'median':>10}{'least':>10}{'greatest':>10}{'clips/s':>10}{'share':>8}")
    for name in (*STAGES, "overall"):
        row = found[name]
        times = "".join(f"{row[key]:8.3f} s" for key in ("median", "least", "greatest"))
        typer.echo(f"{name:12}{times}{row['clips_per_second']:10.2f}{row['share']:8.0%}")
    typer.echo(f"real-time factor {factor or float('nan'):.2f}; bound by {found['bound_by']}")


def on_device(network, device: str):
    """The model on the device; `ValueError` if there is no such device."""
    try:
        return network.to(device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device {device}: {one_line(error).split('. ')[0]}") from error


@app.command()
def evaluate(
    model: Annotated[str | None, typer.Argument(help="A model folder or Hub id; not with --from-predictions.")] = None,
    dataset: Annotated[
        str | None, typer.Option(help="ucf50, ucf101, hmdb51, ssv2, kinetics400, or folder for class folders.")
    ] = None,
    data_dir: Annotated[
        str | None, typer.Option(help="The extracted release, its archives, or hf://datasets/...")
    ] = None,
    split: Annotated[str | None, typer.Option(help="By default the one that figures are reported on.")] = None,
    protocol: Annotated[
        str | None, typer.Option(help="official, groups_20_5, logo or dvflnet_8020, as the benchmark has them.")
    ] = None,
    fold: Annotated[int, typer.Option(min=1, help="Which fold.")] = 1,
    views: Annotated[int, typer.Option(help="1, or 12: 4 clips x 3 crops, softmax averaged, as published.")] = 1,
    output: Annotated[
        Path | None,
        typer.Option(
            help="A new folder for figures, tables and predictions: `evaluation`, or that of the predictions."
        ),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Clips that are classified at once, per process.")] = 8,
    num_workers: Annotated[int, typer.Option(min=0, help="Processes that decode.")] = 2,
    block_list: Annotated[Path | None, typer.Option(help="A report of `dvflnet verify`.")] = None,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Give figures although clips of the split are missing.")
    ] = False,
    from_predictions: Annotated[
        Path | None, typer.Option(help="Compute the figures again from a predictions.jsonl.")
    ] = None,
    as_json: AsJson = False,
):
    """
    Measure a model on a split of a benchmark, by the published protocol.

    Every clip counts once, also under `accelerate launch examples/evaluate_checkpoint.py`. Writes predictions.jsonl,
    results.json, per_class.csv, class_bars.png, confusion.csv and confusion.png.
    """
    quiet()
    from hf_dvflnet.inference import evaluation

    if from_predictions is not None:
        predictions_file = from_predictions
        output = output or from_predictions.parent
    else:
        output = output or Path("evaluation")
        if model is None or dataset is None or data_dir is None:
            raise ValueError("evaluate needs MODEL, --dataset and --data-dir, or --from-predictions")
        from accelerate import Accelerator

        from hf_dvflnet.data.benchmarks import BENCHMARKS, load_benchmark, split_facts
        from hf_dvflnet.hub.model_folder import load_model, load_processor

        accelerator = Accelerator()
        if output.exists() and (not output.is_dir() or any(output.iterdir())):
            raise FileExistsError(f"{output}: is there already; choose another --output")
        network = load_model(model)
        split = split or (BENCHMARKS[dataset].test_split if dataset in BENCHMARKS else "test")
        with accelerator.main_process_first():
            clips = load_benchmark(dataset, data_dir, split, protocol, fold, block_list=block_list)
        evaluation.warn_of_training_data(network, split_facts(clips))
        predictions, failures = evaluation.predict_clips(
            network,
            load_processor(model),
            clips,
            views=views,
            batch_size=batch_size,
            num_workers=num_workers,
            accelerator=accelerator,
        )
        accelerator.end_training()
        if not accelerator.is_main_process:
            return
        output.mkdir(parents=True, exist_ok=True)
        predictions_file = output / "predictions.jsonl"
        header = evaluation.prediction_header(clips, failures, model, views)
        evaluation.write_predictions(predictions_file, header, predictions)

    header, predictions = evaluation.read_predictions(predictions_file)
    unread = header["unread"]
    for clip in unread:
        typer.echo(printable(f"not read: {clip['video_id']}: {clip['reason']}"), err=True)
    absent = max(len(unread), header["listed"] - len(predictions))
    if absent and not allow_missing:
        raise ValueError(
            f"{absent} of {header['listed']} clips of {evaluation.describe(header)} are missing: no figure over "
            f"the others is given without --allow-missing. The predictions are in {predictions_file}"
        )
    figures = evaluation.compute_figures(predictions, header["classes"])
    output.mkdir(parents=True, exist_ok=True)
    row = evaluation.write_report(output, header, figures)
    if as_json:
        typer.echo(json.dumps(row))
        return
    typer.echo(f"{row['split']}, views: {row['views']}, {row['clips']} of {row['listed']} clips")
    typer.echo(f"top-1 {row['top1']:.2f} %   top-5 {row['top5']:.2f} %   mean class {row['mean_class']:.2f} %")
    typer.echo(
        f"{output}: results.json, per_class.csv, class_bars.png, confusion.csv, confusion.png; from {predictions_file}"
    )


@app.command("cache-teacher")
def cache_teacher(
    teacher: Annotated[str, typer.Argument(help="Folder or Hub id of a video classifier.")],
    out: Annotated[Path, typer.Argument(help="The folder to write, or to go on with.")],
    dataset: Annotated[str, typer.Option(help="ucf50, ucf101, hmdb51, ssv2, kinetics400, or folder.")],
    data_dir: Annotated[str, typer.Option(help="The extracted release, or {train,...}/<class>/<video>.")],
    views: Annotated[int, typer.Option(min=1, help="Views per clip, K: epoch e of a training shows view e mod K.")],
    protocol: Annotated[str | None, typer.Option(help="Which lists.")] = None,
    fold: Annotated[int, typer.Option(min=1, help="Which fold.")] = 1,
    block_list: Annotated[Path | None, typer.Option(help="A report of `dvflnet verify`.")] = None,
    seed: Annotated[int, typer.Option(help="The seed of the training.")] = 0,
    augment: Annotated[
        bool, typer.Option(help="The published crops, flips and colours, as the training has it.")
    ] = True,
    flip: Annotated[float, typer.Option(help="Their probability of a mirror image.")] = 0.5,
    processor: Annotated[
        str | None, typer.Option(help="Folder whose video processor prepares the clips; that of TEACHER if unset.")
    ] = None,
    dtype: Annotated[Literal["float16", "float32"], typer.Option(help="Of the stored logits.")] = "float16",
    batch_size: Annotated[int, typer.Option(min=1, help="Clips that are classified at once, per process.")] = 8,
    num_workers: Annotated[int, typer.Option(min=0, help="Processes that decode, per process.")] = 2,
    on_error: Annotated[
        Literal["replace", "raise"],
        typer.Option(help="What becomes of clips that cannot be read, as in the training."),
    ] = "replace",
    as_json: AsJson = False,
):
    """
    Store a teacher's answers, for training with --teacher_cache at the price of plain training.

    On several processes: `accelerate launch -m dvflnet_cli cache-teacher ...`.
    """
    quiet()
    from accelerate import Accelerator

    from hf_dvflnet import ClipAugmentation, VideoClipDataset, load_benchmark
    from hf_dvflnet.hub.model_folder import load_processor, load_teacher
    from hf_dvflnet.training import teacher_cache as cache

    accelerator = Accelerator()
    network = load_teacher(teacher)
    with accelerator.main_process_first():
        rows = load_benchmark(dataset, data_dir, "train", protocol, fold, block_list=block_list)
    clips = VideoClipDataset(
        rows,
        load_processor(processor or teacher),
        train=True,
        seed=seed,
        augmentation=ClipAugmentation(flip=flip) if augment else None,
        on_error=on_error,
    )
    labels = network.config.num_labels
    size = cache.cache_bytes(len(clips), views, labels, dtype)
    if accelerator.is_main_process:
        typer.echo(
            f"{len(clips)} clips x {views} views x {labels} logits in {dtype}: {size / 1e6:.1f} MB before packing",
            err=True,
        )
    done = cache.cache_teacher(
        network,
        clips,
        out,
        views=views,
        name=teacher,
        dtype=dtype,
        batch_size=batch_size,
        num_workers=num_workers,
        accelerator=accelerator,
    )
    accelerator.end_training()
    if not accelerator.is_main_process:
        return
    if as_json:
        typer.echo(json.dumps({"folder": str(out), **done}))
        return
    typer.echo(f"{out}: {done['rows']} views, {done['written']} of them now, {done['bytes'] / 1e6:.1f} MB")


@app.command()
def verify(
    dataset: Annotated[str, typer.Argument(metavar="NAME", help="ucf50, ucf101, hmdb51, ssv2 or kinetics400.")],
    data_dir: Annotated[str, typer.Argument(metavar="DIR", help="The extracted release or its archives.")],
    protocol: Annotated[str | None, typer.Option(help="Which lists.")] = None,
    fold: Annotated[int, typer.Option(min=1, help="Which fold.")] = 1,
    report: Annotated[
        Path | None,
        typer.Option(
            help="The file to write, verify-NAME-PROTOCOL-FOLD.jsonl if unset; one of the same is gone on with."
        ),
    ] = None,
    min_frames: Annotated[int, typer.Option(min=1, help="Clips of fewer frames are called short.")] = 8,
    num_workers: Annotated[int | None, typer.Option(min=0, help="Processes that decode; all cores if unset.")] = None,
    as_json: AsJson = False,
):
    """
    Check every clip of a benchmark: counts, missing, empty, undecodable, short and duplicate clips.

    The report serves as --block-list. The exit code is 1 if a clip is missing, empty or undecodable, or if the lists
    are made of the file names and these are not all there.
    """
    quiet()
    from hf_dvflnet.data.benchmarks import BENCHMARKS
    from hf_dvflnet.data.verification import OUTCOMES, verify_benchmark

    benchmark = BENCHMARKS.get(dataset)
    if benchmark is not None:
        protocol = protocol or next(iter(benchmark.folds))
    report = report or Path(f"verify-{dataset}-{protocol}-{fold}.jsonl")

    found = verify_benchmark(
        dataset,
        data_dir,
        report,
        protocol=protocol,
        fold=fold,
        min_frames=min_frames,
        num_workers=num_workers,
    )
    if as_json:
        typer.echo(json.dumps({**found, "report": str(report)}))
    else:
        typer.echo(f"{dataset}, {protocol}, fold {fold}")
        typer.echo("  ".join(f"{name:>11}" for name in ("split", "listed", "official", *OUTCOMES)))
        for split, counts in found["counts"].items():
            typer.echo("  ".join(f"{'-' if value is None else value:>11}" for value in (split, *counts.values())))
        typer.echo(f"{found['checked']} clips decoded now; the report is {report}")
    incomplete = protocol in BENCHMARKS[dataset].lists_from_names and any(
        counts["official"] not in (None, counts["listed"]) for counts in found["counts"].values()
    )
    if incomplete or any(
        counts[outcome] for counts in found["counts"].values() for outcome in ("missing", "empty", "undecodable")
    ):
        raise typer.Exit(1)


@app.command()
def prepare(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="A folder of videos or archives; it is only read.")],
    out: Annotated[Path, typer.Argument(help="The folder to write; one of the same settings is gone on with.")],
    format: Annotated[
        Literal["tar", "folder"], typer.Option(help="Tars that `datasets` streams, or a file a clip.")
    ] = "tar",
    short_side: Annotated[int, typer.Option(help="Short side of a clip at most, in pixels, even.")] = 256,
    keyframe_interval: Annotated[int, typer.Option(help="Frames from keyframe to keyframe.")] = 4,
    crf: Annotated[int, typer.Option(help="H.264's quality: 0 is lossless, 51 the worst.")] = 23,
    clips_per_shard: Annotated[int, typer.Option(help="Videos of a tar.")] = 256,
    num_workers: Annotated[int | None, typer.Option(min=0, help="Processes that encode; all cores if unset.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the order in the tars.")] = 0,
    as_json: AsJson = False,
):
    """
    Make small, quickly seekable clips of a dataset's videos, so that training need not decode large ones again.

    A benchmark's release stays one. OUT/manifest.jsonl tells of every video whether it is ok, repaired or unreadable;
    if any is unreadable, the exit code is 1.
    """
    quiet()
    from hf_dvflnet import prepare_videos

    found = prepare_videos(
        source,
        out,
        layout=format,
        short_side=short_side,
        keyframe_interval=keyframe_interval,
        crf=crf,
        clips_per_shard=clips_per_shard,
        num_workers=num_workers,
        seed=seed,
    )
    failures = found["failures"]
    for row in failures[:5]:
        typer.echo(printable(f"unreadable: {row['source']}: {row['reason']}"), err=True)
    if len(failures) > 5:
        typer.echo(f"unreadable: {len(failures) - 5} more, which {found['manifest']} names", err=True)
    if as_json:
        typer.echo(json.dumps(found))
    else:
        typer.echo(
            f"{found['videos']} videos: {found['ok']} ok, {found['repaired']} repaired, {found['unreadable']} "
            f"unreadable; {found['prepared']} prepared now, in {found['seconds']} s"
        )
        before, after = (f"{found[name] / 1e6:.1f} MB" for name in ("source_bytes", "bytes"))
        typer.echo(f"{before} became {after}; {found['manifest']} has every video's outcome")
    if failures:
        raise typer.Exit(1)


@app.command()
def visualize(
    model: Annotated[str, typer.Argument(help="A model folder or Hub id.")],
    video: Annotated[str, typer.Argument(help="A path or http(s) URL.")],
    out: Annotated[Path, typer.Argument(metavar="OUT.{gif,mp4,png}", help="What to write.")],
    stages: Annotated[str, typer.Option(help="Which stages, such as 1,2,3,4; all if unset.")] = "",
    kind: Annotated[Literal["spatial", "temporal", "both"], typer.Option(help="Which modulators.")] = "both",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there already.")] = False,
):
    """
    Draw what a model's modulators weigh in a video: a map per stage, beside the frames that the model saw.

    A map is the L2 norm of a modulator over its channels, coloured from the least to the greatest of the clip. GIF and
    MP4 show the frames one after the other, PNG all at once.
    """
    quiet()
    import torch

    from hf_dvflnet import modulation_maps, pixels_to_frames
    from hf_dvflnet.hub.model_folder import load_model, load_processor, refuse_existing
    from hf_dvflnet.inference.export import is_exported
    from hf_dvflnet.inference.streams import best_classes
    from hf_dvflnet.plots import charts as plots

    # before the work rather than after it
    if out.suffix.lower() not in plots.MAP_SUFFIXES:
        raise ValueError(f"{out}: visualize writes {', '.join(plots.MAP_SUFFIXES)}; name it so")
    refuse_existing(out, overwrite)
    if is_exported(model):
        raise ValueError(f"{model}: is an exported program, which gives no modulators: take the folder it was made of")
    network = load_model(model)
    count = len(network.config.depths)
    try:
        numbers = [int(stage) for stage in stages.split(",")] if stages else list(range(1, count + 1))
    except ValueError:
        numbers = []
    if not numbers or not all(1 <= number <= count for number in numbers):
        raise ValueError(f"--stages takes numbers from 1 to {count}, such as 1,2; got {stages!r}")
    processor = load_processor(model)
    pixel_values = processor(video, num_clips=1, num_crops=1, return_tensors="pt")["pixel_values"]
    maps = modulation_maps(network, pixel_values)
    scores = torch.from_numpy(maps.logits).softmax(-1)
    answers = [f"{name} {score:.1%}" for name, score in best_classes(network, scores, 3)]
    plots.save_modulation_maps(
        pixels_to_frames(pixel_values, processor),
        maps,
        out,
        f"{Path(video).name}\n{', '.join(answers)}",
        stages=numbers,
        kinds=["spatial", "temporal"] if kind == "both" else [kind],
    )
    typer.echo(printable(f"{out}: {', '.join(answers)}"))


@app.command()
def render(
    out: Annotated[Path, typer.Argument(help="The folder to write; one of the same settings is gone on with.")],
    train: Annotated[int, typer.Option(min=0, help="Training clips of each class.")] = 4,
    validation: Annotated[int, typer.Option(min=0, help="Validation clips of each class.")] = 1,
    test: Annotated[int, typer.Option(min=0, help="Test clips of each class.")] = 1,
    frames: Annotated[int, typer.Option(min=1, help="Frames of a clip, 8 a second.")] = 12,
    size: Annotated[int, typer.Option(min=2, help="Height and width in pixels, even.")] = 64,
    seed: Annotated[int, typer.Option(help="Seed of the pictures.")] = 0,
):
    """Write small labelled videos that need no download: 16 motions, as {train,validation,test}/<class>/<video>."""
    quiet()
    from hf_dvflnet.data.motion_videos import MOTIONS, write_motion_videos

    if size % 2:
        raise ValueError(f"--size must be even, as H.264 halves its colours, got {size}")
    counts = {"train": train, "validation": validation, "test": test}
    write_motion_videos(out, clips_per_class=counts, num_frames=frames, size=size, seed=seed, num_workers=0)
    shown = ", ".join(f"{len(MOTIONS) * count} {split}" for split, count in counts.items())
    typer.echo(f"{out}: {len(MOTIONS)} classes; videos: {shown}")


@app.command()
def export(
    model: Annotated[str, typer.Argument(help="A model folder or Hub id.")],
    out: Annotated[Path, typer.Argument(help="The folder to write.")],
    format: Annotated[str, typer.Option(help="onnx, openvino or executorch.")],
    dtype: Annotated[
        str, typer.Option(help="float32; bfloat16 (openvino); int8 (onnx, openvino; needs --calibration).")
    ] = "float32",
    calibration: Annotated[
        list[str] | None,
        typer.Option(
            metavar="VIDEO_OR_FOLDER",
            help="Real videos, such as the training's: a file or a folder of them. May be given several times.",
        ),
    ] = None,
    calibration_clips: Annotated[int, typer.Option(min=1, help="How many of the videos are used at most.")] = 64,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="executorch: clips that the program takes at once, 1 if unset.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an exported model that is there.")] = False,
    as_json: AsJson = False,
):
    """
    Write a model as a program for ONNX Runtime, OpenVINO or ExecuTorch, and compare its answers with PyTorch's.

    Fails, and writes nothing, if they differ by more than the dtype explains. Needs pip install 'hf_dvflnet[export]'.
    """
    quiet()
    from hf_dvflnet.inference.export import export_model

    report = export_model(
        model,
        out,
        format=format,
        dtype=dtype,
        calibration_videos=calibration or (),
        max_calibration_clips=calibration_clips,
        batch_size=batch_size,
        overwrite=overwrite,
    )
    if as_json:
        typer.echo(json.dumps({"model": model, "folder": str(out), **report}))
        return
    batch = "any batch" if report["batch"] is None else f"a batch of {report['batch']}"
    typer.echo(f"{out}: {format} {dtype}, {report['bytes'] / 1e6:.1f} MB, {batch}")
    clips = f"{report['clips']} clips of noise"
    if report["videos"]:
        clips = f"{report['clips']} of {report['videos']} videos"
    agreement = "" if report["top1_agreement"] is None else f", the same top class for {report['top1_agreement']:.1%}"
    typer.echo(
        f"against PyTorch, on {clips}: logits at most {report['max_difference']:.1e} apart (the largest is "
        f"{report['largest_logit']:.2g}){agreement}"
    )
    if dtype == "bfloat16" and report["computed_in"] != "bf16":
        typer.echo(f"note: this processor has no bfloat16, and computed in {report['computed_in']}", err=True)


@app.command()
def info(
    model: Annotated[str, typer.Argument(help="A model folder or Hub id.")],
    frames: Annotated[int | None, typer.Option(min=1, help="Frames of the clip that is counted.")] = None,
    size: Annotated[int | None, typer.Option(min=1, help="Its height and width.")] = None,
    as_json: AsJson = False,
):
    """Print parameters, multiply-adds, classes, frames and options of a model."""
    quiet()
    from hf_dvflnet.hub.model_folder import describe_config, load_config

    about = describe_config(load_config(model), num_frames=frames, image_size=size)
    if as_json:
        typer.echo(printable(json.dumps(about, ensure_ascii=False)))
        return
    labels = about.pop("labels")
    about["parameters"] = f"{about['parameters']:,} ({about['parameters'] / 1e6:.2f} M)"
    about["multiply_adds"] = f"{about['multiply_adds'] / 1e9:.2f} G for one clip of {about.pop('input')}"
    for key, value in about.items():
        typer.echo(printable(f"{key:34}{value}"))
    typer.echo(printable(f"{'labels':34}{', '.join(labels) if labels else 'without names'}"))


@app.command()
def demo(
    models: Annotated[list[str], typer.Argument(metavar="MODEL...", help="Model folders or Hub ids.")],
    examples: Annotated[Path | None, typer.Option(help="A folder of videos to pick from; 12 are shown.")] = None,
    host: Annotated[str, typer.Option(help="The address to listen on; 0.0.0.0 lets other machines in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port to listen on.")] = 7860,
    max_megabytes: Annotated[float, typer.Option(min=0.001, help="The largest upload that is taken.")] = 50,
    max_seconds: Annotated[float, typer.Option(min=0.001, help="The longest clip that is answered.")] = 60,
):
    """
    Show a page on which people upload, record or pick a clip and read what the models say.

    It is there on this machine only, and asks nothing of others. Uploads are deleted once they are answered.
    """
    quiet()
    refuse_unless_positive(max_megabytes=max_megabytes, max_seconds=max_seconds)
    from hf_dvflnet.inference.demo_page import serve_demo

    serve_demo(
        models,
        examples=examples,
        host=host,
        port=port,
        max_bytes=int(max_megabytes * 2**20),
        max_seconds=max_seconds,
    )


@app.command()
def push(
    folder: Annotated[Path, typer.Argument(help="A model folder.")],
    repo_id: Annotated[str, typer.Argument(help="OWNER/NAME on the Hub.")],
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
):
    """Upload a model folder with its card and code to the Hub (after `hf auth login`)."""
    quiet()
    from hf_dvflnet.hub.model_folder import push_model_folder

    typer.echo(push_model_folder(folder, repo_id, private=private))


def quiet():
    """Keep the remarks and bars of transformers and datasets out of what a command prints."""
    # torchao, which executorch brings and transformers imports, has two there about itself
    logging.getLogger("torch.utils._pytree").setLevel(logging.ERROR)
    import datasets
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    datasets.disable_progress_bars()


def refuse_unless_positive(**options: float | None):
    """`ValueError` if an option that is given is not above 0, or no number of frames or bytes can be made of it."""
    for name, value in options.items():
        if value is not None and not 0 < value < 1e9:
            raise ValueError(f"--{name.replace('_', '-')} must be above 0 and below 1e9, got {value}")


def printable(text: str) -> str:
    """A line without what would steer a terminal: it is escaped as in JSON, so that a line of JSON stays the same."""
    return "".join(character if character.isprintable() else json.dumps(character)[1:-1] for character in text)


def one_line(error: BaseException | str) -> str:
    return printable(" ".join(str(error).split())) or type(error).__name__


_format_warning = warnings.formatwarning


def format_warning(message, *about, **more) -> str:
    return _format_warning(one_line(message), *about, **more)


def main():
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a name may hold what the terminal's encoding has not
    warnings.formatwarning = format_warning
    try:
        try:
            app()
        finally:
            flush()
    except BrokenPipeError:  # who reads has enough, as `head` does
        sys.exit(1)
    except (OSError, ValueError, ImportError) as error:
        typer.echo(f"dvflnet: {one_line(error)}", err=True)
        sys.exit(1)


def flush():
    """Write what stdout still holds: Python itself would do so when it can no longer say in a line that it fails."""
    try:
        sys.stdout.flush()
    except OSError:
        # what cannot be written goes nowhere, or Python would try it again at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise


if __name__ == "__main__":
    main()
