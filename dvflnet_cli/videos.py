"""Commands for videos: watch, benchmark, visualize, demo."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from .options import AsJson, Compile, Device, DType, Model, Videos
from .terminal import printable, quiet, refuse_unless_positive


def watch(
    model: Model,
    source: Annotated[
        str,
        typer.Argument(
            help="A video file; an rtsp, rtmp, udp or http(s) URL; or a camera: /dev/video0, avfoundation:0 or "
            "dshow:video=NAME."
        ),
    ],
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
    device: Device = "auto",
    dtype: DType = "auto",
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
    from hf_dvflnet.inference.inference_form import place_for_inference
    from hf_dvflnet.inference.live_sources import open_stream
    from hf_dvflnet.inference.pipeline import score_text

    network = place_for_inference(load_classifier(model), device, dtype)
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
    device: Device = "auto",
    dtype: DType = "auto",
    compile: Compile = False,
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
    from hf_dvflnet.inference.inference_form import place_for_inference
    from hf_dvflnet.inference.speed import STAGES, time_stages

    network = place_for_inference(load_classifier(model), device, dtype, compile=compile)
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


def visualize(
    model: Model,
    video: Annotated[str, typer.Argument(help="A path or http(s) URL.")],
    out: Annotated[Path, typer.Argument(metavar="OUT.{gif,mp4,png}", help="Output file.")],
    stages: Annotated[str, typer.Option(help="Stages to draw, such as 1,2,3,4; all by default.")] = "",
    kind: Annotated[Literal["spatial", "temporal", "both"], typer.Option(help="Modulators to draw.")] = "both",
    device: Device = "auto",
    dtype: DType = "auto",
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
    from hf_dvflnet.inference import modulation_maps as plots
    from hf_dvflnet.inference.exported_program import is_exported
    from hf_dvflnet.inference.inference_form import place_for_inference
    from hf_dvflnet.inference.pipeline import best_classes, class_scores, score_text

    # checked before the work rather than after it
    if out.suffix.lower() not in plots.MAP_SUFFIXES:
        raise ValueError(f"{out}: visualize writes {', '.join(plots.MAP_SUFFIXES)}; use one of these suffixes")
    refuse_existing(out, overwrite)
    if is_exported(model):
        raise ValueError(f"{model}: is an exported program, which has no modulators; pass the original model folder")
    network = place_for_inference(load_model(model), device, dtype)
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
    device: Device = "auto",
    dtype: DType = "auto",
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
        device=device,
        dtype=dtype,
    )
