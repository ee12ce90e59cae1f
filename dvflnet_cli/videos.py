"""Commands for videos: predict, watch, benchmark, visualize, demo."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from .options import AsJson, Device, Model, Videos
from .terminal import one_line, printable, quiet, refuse_unless_positive


def predict(
    model: Annotated[str, typer.Argument(help="A model folder or Hub id, or a folder written by `dvflnet export`.")],
    videos: Videos,
    top_k: Annotated[int, typer.Option(min=1, help="Number of classes to print per video.")] = 5,
    views: Annotated[int, typer.Option(help="1, or 12: 4 clips x 3 crops with averaged softmax, as published.")] = 1,
    windows: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="Classify windows of this length, and print a table of times as CSV."),
    ] = None,
    stride: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="Time between the starts of two windows; by default the window length."),
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Output file for the windows, .csv or .json.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Videos or windows that are classified at once.")] = 1,
    num_workers: Annotated[int, typer.Option(min=0, help="Threads that decode ahead; 0 or 1 for windows.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON per video or window.")] = False,
):
    """
    Classify videos, or long ones window by window.

    If a video cannot be read, the error is printed on stderr, all other videos are classified, and the exit code is 1.
    With --windows, frames after the last window are covered by one more window that ends with the video.
    """
    quiet()
    if views not in (1, 12):
        raise ValueError(f"--views must be 1 or 12, got {views}")
    if windows is None and (stride is not None or output is not None):
        raise ValueError("--stride and --output need --windows SECONDS")
    if windows is not None and views != 1:
        raise ValueError("--windows uses one view of each window; leave --views at 1")
    if output is not None and (output.suffix not in (".csv", ".json") or as_json):
        raise ValueError(f"--output needs a .csv or .json file and cannot be combined with --json; got {output}")
    if output is not None and output.exists():
        raise FileExistsError(f"{output}: already exists; choose another --output")
    refuse_unless_positive(windows=windows, stride=stride)
    from tqdm.auto import tqdm

    from hf_dvflnet.data.video_files import list_videos
    from hf_dvflnet.hub.loading import load_classifier, load_processor
    from hf_dvflnet.inference.exported_program import is_exported, load_exported
    from hf_dvflnet.inference.prediction import predict_videos, score_text

    videos = list_videos(videos)
    network: Any = load_exported(model) if is_exported(model) else load_classifier(model)
    processor: Any = load_processor(model)
    if windows is not None:
        table = (network, processor, videos, windows, stride, top_k, batch_size, num_workers)
        return predict_in_windows(*table, output=output, as_json=as_json)
    several = len(videos) > 1
    failed = 0
    rows = predict_videos(
        *(network, processor, videos),
        views=views,
        top_k=top_k,
        batch_size=batch_size,
        num_workers=num_workers if several else 0,
    )
    with tqdm(total=len(videos), unit="video", disable=None if several else True) as progress:
        for row in rows:
            if "error" in row:
                failed += 1
                tqdm.write(f"dvflnet: {one_line(row['error'])}", file=sys.stderr)
            elif as_json:
                tqdm.write(printable(json.dumps(row, ensure_ascii=False)), file=sys.stdout)
            else:
                lines = [
                    row["video"],
                    *(f"  {score_text(a['score'], network.config):>6}  {a['label']}" for a in row["answers"]),
                ]
                tqdm.write("\n".join(map(printable, lines)), file=sys.stdout)
            progress.update()
    if failed:
        typer.echo(f"dvflnet: {failed} of {len(videos)} videos could not be read", err=True)
        raise typer.Exit(1)


def predict_in_windows(
    network, processor, videos, seconds, stride, top_k, batch_size, num_workers, *, output: Path | None, as_json: bool
):
    """Write the windows of all videos as a table to stdout or a file; report videos that cannot be read, as above."""
    import csv
    from contextlib import ExitStack

    from hf_dvflnet.hub.model_folder import whole_or_nothing
    from hf_dvflnet.inference.windows import predict_windows

    shown = min(top_k, network.config.num_labels)
    numbered = [name for rank in range(2, shown + 1) for name in (f"label_{rank}", f"score_{rank}")]
    failed = 0
    in_json = as_json or (output is not None and output.suffix == ".json")
    with ExitStack() as stack:
        file: Any = sys.stdout
        if output is not None:
            path = stack.enter_context(whole_or_nothing(output))
            # file names that are not valid UTF-8 are written with escapes
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
                try:  # only around reading: a failed write is not an error of the video
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
                    # a file contains a list, stdout one line per window
                    before = ("[\n" if rows == 0 else ",\n") if output else ""
                    text = printable(json.dumps(line, ensure_ascii=False))
                    file.write(before + text + ("" if output else "\n"))
                else:
                    best = [(answer["label"], round(answer["score"], 6)) for answer in row["answers"]]
                    cells = [video, *times, *(value for pair in best for value in pair)]
                    if output is None:  # only for stdout, which may be a terminal; a file keeps names unchanged
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


def watch(
    source: Annotated[
        str,
        typer.Argument(
            help="A video file; an rtsp, rtmp, udp or http(s) URL; or a camera: /dev/video0, avfoundation:0 or "
            "dshow:video=NAME."
        ),
    ],
    model: Model,
    window: Annotated[
        float, typer.Option(metavar="SECONDS", help="Length of a window, by the timestamps of the frames.")
    ] = 2.0,
    stride: Annotated[
        int | None,
        typer.Option(min=1, help="Frames between answers, at the source's frame rate; half a second by default."),
    ] = None,
    smoothing: Annotated[
        float, typer.Option(help="Weight of the previous answers in the average: at least 0, below 1.")
    ] = 0.0,
    threshold: Annotated[float, typer.Option(help="Minimum score for a label, from 0 to 1.")] = 0.0,
    top_k: Annotated[int, typer.Option(min=1, help="Number of classes in a line of JSON.")] = 5,
    fps: Annotated[
        float | None,
        typer.Option(help="Count frames at this frame rate, if the source's timestamps or frame rate are wrong."),
    ] = None,
    realtime: Annotated[bool, typer.Option("--realtime", help="Read a file at its own frame rate.")] = False,
    device: Device = "cpu",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one line of JSON per answer, and one at the end.")
    ] = False,
):
    """
    Continuously classify a camera, a network stream or a file, and print the answers.

    For a live source, answers are never late by more than one stride and one forward pass: if the model is too slow,
    windows are skipped and counted. Ctrl-C stops and prints a summary.
    """
    quiet()
    refuse_unless_positive(window=window, fps=fps)
    from collections import deque

    import numpy as np

    from hf_dvflnet import VideoStreamClassifier
    from hf_dvflnet.hub.loading import load_classifier, load_processor
    from hf_dvflnet.inference.live_sources import open_stream
    from hf_dvflnet.inference.prediction import score_text

    network = on_device(load_classifier(model), device)
    processor = load_processor(model)
    latencies: deque[float] = deque(maxlen=100_000)  # bounded, as a camera may be watched for months
    with open_stream(source) as stream:
        lengths: dict[str, Any]
        if fps:
            lengths = {"window": max(1, round(window * fps)), "stride": stride or max(1, round(fps / 2))}
        elif stride and not stream.fps:
            raise ValueError(f"{source}: states no frame rate, which --stride (in frames) needs; pass --fps")
        else:
            seconds = stride / stream.fps if stride and stream.fps else 0.5
            lengths = {"window_seconds": window, "stride_seconds": seconds}
        classifier = VideoStreamClassifier(
            network,
            processor,
            **lengths,
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
                    f"{answer.time:9.2f} s  {score_text(answer.score, network.config):>6}  "
                    f"{printable(answer.label or '-')}  "
                    f"(latency {1000 * answer.latency:.0f} ms, dropped {answer.dropped}, skipped {answer.skipped})"
                )
        except KeyboardInterrupt:
            pass
        except (OSError, ValueError) as error:  # raised after the summary
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


def benchmark(
    model: Model,
    videos: Videos,
    repeat: Annotated[int, typer.Option(min=1, help="Number of measured passes, after one that is not measured.")] = 5,
    batch_size: Annotated[int, typer.Option(min=1, help="Clips that are classified at once.")] = 1,
    device: Device = "cpu",
    as_json: AsJson = False,
):
    """
    Measure decoding, preprocessing and forward pass separately, with one view per video, without overlap.

    The time of a stage covers all videos of a pass; the table shows its median, minimum and maximum over the passes.
    The real-time factor is seconds of video per second of computation.
    """
    quiet()
    from hf_dvflnet.data.video_files import list_videos
    from hf_dvflnet.hub.loading import load_classifier, load_processor
    from hf_dvflnet.inference.speed import STAGES, time_stages

    network = on_device(load_classifier(model), device)
    processor = load_processor(model)
    found = time_stages(network, processor, list_videos(videos), repeat=repeat, batch_size=batch_size)
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
    """Move the model to the device; raise `ValueError` if the device does not exist."""
    try:
        return network.to(device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device {device}: {one_line(error).split('. ')[0]}") from error


def visualize(
    model: Model,
    video: Annotated[str, typer.Argument(help="A path or http(s) URL.")],
    out: Annotated[Path, typer.Argument(metavar="OUT.{gif,mp4,png}", help="Output file.")],
    stages: Annotated[str, typer.Option(help="Stages to draw, such as 1,2,3,4; all by default.")] = "",
    kind: Annotated[Literal["spatial", "temporal", "both"], typer.Option(help="Modulators to draw.")] = "both",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
):
    """
    Draw the modulation maps of a video: one map per stage, next to the frames that the model saw.

    A map is the L2 norm of a modulator over its channels, coloured from its minimum to its maximum in the clip. GIF
    and MP4 show the frames one after another, PNG shows all at once.
    """
    quiet()
    import torch

    from hf_dvflnet import modulation_maps, pixels_to_frames
    from hf_dvflnet.hub.loading import load_model, load_processor
    from hf_dvflnet.hub.model_folder import refuse_existing
    from hf_dvflnet.inference import map_pictures as plots
    from hf_dvflnet.inference.exported_program import is_exported
    from hf_dvflnet.inference.prediction import best_classes, class_scores, score_text

    # checked before the work rather than after it
    if out.suffix.lower() not in plots.MAP_SUFFIXES:
        raise ValueError(f"{out}: visualize writes {', '.join(plots.MAP_SUFFIXES)}; use one of these suffixes")
    refuse_existing(out, overwrite)
    if is_exported(model):
        raise ValueError(f"{model}: is an exported program, which has no modulators; pass the original model folder")
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
    scores = class_scores(torch.from_numpy(maps.logits), network.config)
    answers = [f"{name} {score_text(score, network.config)}" for name, score in best_classes(network, scores, 3)]
    plots.save_modulation_maps(
        pixels_to_frames(pixel_values, processor),
        maps,
        out,
        f"{Path(video).name}\n{', '.join(answers)}",
        stages=numbers,
        kinds=["spatial", "temporal"] if kind == "both" else [kind],
    )
    typer.echo(printable(f"{out}: {', '.join(answers)}"))


def demo(
    models: Annotated[list[str], typer.Argument(metavar="MODEL...", help="Model folders or Hub ids.")],
    examples: Annotated[Path | None, typer.Option(help="Folder of example videos; the first 12 are shown.")] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 is open to other machines.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 7860,
    max_megabytes: Annotated[float, typer.Option(min=0.001, help="Maximum size of an upload, in MB.")] = 50,
    max_seconds: Annotated[float, typer.Option(min=0.001, help="Maximum duration of a clip, in seconds.")] = 60,
):
    """
    Serve a web page on which users upload, record or pick a clip and see the predicted classes.

    By default only this machine can open the page. It sends no requests to other hosts. Uploads are deleted after
    their answer.
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
