"""The command that classifies videos: predict."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from .options import HOW, RAY_HELP, VIDEOS_HELP, Compile, Device, DType
from .terminal import one_line, printable, quiet, refuse_unless_positive, use_sandbox


# groups of options in the help
WHICH, WHAT, WHERE = "Which videos", "What is answered", "Where answers go"
WAITED = {"decoding": "waiting for decoders", "model": "in the model"}


def predict(
    model: Annotated[str, typer.Argument(help="A model folder or Hub id, or a folder written by `dvflnet export`.")],
    videos: Annotated[
        list[str] | None,
        typer.Argument(metavar="VIDEO", help=VIDEOS_HELP),
    ] = None,
    list_file: Annotated[
        str | None,
        typer.Option(
            "--list",
            metavar="FILE",
            help="List of further videos, here or on s3://: text with one per line, or a .csv or .parquet file.",
            rich_help_panel=WHICH,
        ),
    ] = None,
    column: Annotated[
        str | None, typer.Option(help="Column of the list, unless it is the only one.", rich_help_panel=WHICH)
    ] = None,
    top_k: Annotated[
        int, typer.Option(min=0, help="Number of classes per video; 0 with --embeddings.", rich_help_panel=WHAT)
    ] = 5,
    views: Annotated[
        int,
        typer.Option(help="1, or 12: 4 clips x 3 crops with averaged softmax, as published.", rich_help_panel=WHAT),
    ] = 1,
    windows: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            help="Classify windows of this length, and print a table of times as CSV.",
            rich_help_panel=WHAT,
        ),
    ] = None,
    stride: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            help="Time between the starts of two windows; by default the window length.",
            rich_help_panel=WHAT,
        ),
    ] = None,
    embeddings: Annotated[
        bool, typer.Option("--embeddings", help="Write the pooled features, too.", rich_help_panel=WHAT)
    ] = False,
    output: Annotated[
        str | None,
        typer.Option(
            help="Output file: .parquet, .jsonl or .csv with a row per video, here or on s3://; .csv or .json of "
            "--windows.",
            rich_help_panel=WHERE,
        ),
    ] = None,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print one line of JSON per video or window.", rich_help_panel=WHERE),
    ] = False,
    device: Device = "auto",
    dtype: DType = "auto",
    compile: Compile = False,
    batch_size: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Videos or windows that are classified at once; by default 1, and 8 with --output for videos.",
            rich_help_panel=HOW,
        ),
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help=f"With --output, work {RAY_HELP}",
            rich_help_panel=HOW,
        ),
    ] = None,
    num_workers: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Sandboxes that decode ahead, by default 1; with --output for videos one per CPU.",
            rich_help_panel=HOW,
        ),
    ] = None,
):
    """
    Classify videos, or long ones window by window.

    If a video cannot be read, the error is printed on stderr, all other videos are classified, and the exit code is 1.
    With --windows, frames after the last window are covered by one more window that ends with the video.

    With --output FILE.parquet, .jsonl or .csv, each video is a row, with the error of one that cannot be read, and the
    exit code is 0. The same command resumes where it was stopped. Several processes share the videos: `accelerate
    launch -m dvflnet_cli predict ...`, or a cluster does: --ray.
    """
    quiet()
    if views not in (1, 12):
        raise ValueError(f"--views must be 1 or 12, got {views}")
    if not videos and list_file is None:
        raise ValueError("predict needs videos: files, folders, patterns or URLs, or a --list of them")
    if column is not None and list_file is None:
        raise ValueError("--column needs --list FILE")
    if windows is None and stride is not None:
        raise ValueError("--stride needs --windows SECONDS")
    if windows is not None and views != 1:
        raise ValueError("--windows uses one view of each window; leave --views at 1")
    suffixes: tuple[str, ...] = (".parquet", ".jsonl", ".csv")
    kinds = ".parquet, .jsonl or .csv file"
    if windows is not None:
        suffixes, kinds = (".csv", ".json"), ".csv or .json file for --windows"
    if output is not None and (Path(output).suffix not in suffixes or as_json):
        raise ValueError(f"--output needs a {kinds}, and cannot be combined with --json; got {output}")
    if embeddings and (output is None or windows is not None):
        raise ValueError("--embeddings needs --output, without --windows")
    if top_k == 0 and not embeddings:
        raise ValueError("--top-k 0 needs --embeddings")
    if ray is not None and (output is None or windows is not None or num_workers is not None):
        raise ValueError("--ray needs --output, without --windows and --num-workers: Ray has its own workers")
    if output is not None and windows is not None:
        if "://" in output:
            raise ValueError(f"{output}: --windows writes only to this machine; choose another --output")
        if Path(output).exists():
            raise FileExistsError(f"{output}: already exists; choose another --output")
    refuse_unless_positive(windows=windows, stride=stride)
    use_sandbox()

    from hf_dvflnet.data.video_files import list_videos
    from hf_dvflnet.hub.loading import load_processor

    listed = list_videos(videos or ())
    if list_file is not None:
        from hf_dvflnet.data.video_files import read_video_list

        listed += read_video_list(list_file, column)
    network = load_placed(model, device, dtype, compile) if ray is None else load_placed(model, "cpu", dtype, False)
    processor: Any = load_processor(model)
    if output is not None and windows is None:
        options: dict[str, Any] = {"views": views, "top_k": top_k, "embeddings": embeddings}
        options["batch_size"] = batch_size or 8
        if ray is not None:
            options |= {"address": ray, "device": device, "compile": compile}
            return write_predictions_of_cluster(network, processor, listed, output, **options)
        return write_predictions(network, processor, listed, output, num_workers=num_workers, **options)
    batch_size, num_workers = batch_size or 1, 1 if num_workers is None else num_workers
    if windows is not None:
        table = (network, processor, listed, windows, stride, top_k, batch_size, num_workers)
        return predict_in_windows(*table, output=None if output is None else Path(output), as_json=as_json)
    options = {"views": views, "top_k": top_k, "batch_size": batch_size, "num_workers": num_workers}
    print_predictions(network, processor, listed, as_json=as_json, **options)


def print_predictions(network, processor, videos: list[str], *, num_workers: int, as_json: bool, **options):
    from tqdm.auto import tqdm

    from hf_dvflnet.inference.pipeline import predict_videos, score_text

    several = len(videos) > 1
    failed = 0
    rows = predict_videos(network, processor, videos, num_workers=num_workers if several else 0, **options)
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


def write_predictions(network, processor, videos: list[str], output: str, **options):
    from hf_dvflnet.inference.bulk_prediction import predict_to_file

    done = predict_to_file(network, processor, videos, output, **options)
    if done["written"]:
        who = f"process {done['process'] + 1} of {done['processes']}: " if done["processes"] > 1 else ""
        spent = " and ".join(f"{done[f'{name}_seconds']:.1f} s {of}" for name, of in WAITED.items())
        typer.echo(
            f"{who}{done['written']} videos, {done['written'] / done['seconds']:.2f} a second; bound by "
            f"{done['bound_by']} ({spent})"
        )
    if done["process"] == 0:
        tell_of_file(output, done)


def write_predictions_of_cluster(network, processor, videos: list[str], output: str, **options):
    from hf_dvflnet.inference.ray_prediction import predict_with_ray

    done = predict_with_ray(network, processor, videos, output, **options)
    if done["written"]:
        where = f"nodes: {done['nodes']}" + (f", GPUs: {done['gpus']}" if done["gpus"] else "")
        typer.echo(f"{done['written']} videos, {done['written'] / done['seconds']:.2f} a second ({where})")
    tell_of_file(output, done)


def tell_of_file(output: str, done: dict[str, Any]):
    failures = done["failures"]
    if failures is None:
        typer.echo(f"{output}: is complete, {done['videos']} videos")
        return
    kinds = ", ".join(f"{count} {kind}" for kind, count in failures.items())
    not_read = sum(failures.values())
    typer.echo(f"{output}: {done['videos']} videos, {not_read} not read{f' ({kinds})' if kinds else ''}")


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


def load_placed(model: str, device: str, dtype: str, compile: bool) -> Any:
    """Load a classifier or an exported program, which cannot be placed."""
    from hf_dvflnet.hub.loading import load_classifier
    from hf_dvflnet.inference.exported_program import is_exported, load_exported
    from hf_dvflnet.inference.inference_form import place_for_inference

    if not is_exported(model):
        return place_for_inference(load_classifier(model), device, dtype, compile=compile)  # type: ignore[arg-type]
    if device not in ("auto", "cpu") or dtype != "auto" or compile:
        raise ValueError(
            f"{model}: is exported, and runs on the CPU as it is; leave out --device, --dtype and --compile"
        )
    return load_exported(model)
