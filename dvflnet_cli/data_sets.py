"""Commands for data sets: render, prepare, verify."""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from .options import AsJson, Fold, Protocol, Ray
from .terminal import printable, quiet


def render(
    out: Annotated[Path, typer.Argument(help="Output folder. One with the same settings is continued.")],
    train: Annotated[int, typer.Option(min=0, help="Training clips per class.")] = 4,
    validation: Annotated[int, typer.Option(min=0, help="Validation clips per class.")] = 1,
    test: Annotated[int, typer.Option(min=0, help="Test clips per class.")] = 1,
    frames: Annotated[int, typer.Option(min=1, help="Frames per clip, at 8 frames per second.")] = 12,
    size: Annotated[int, typer.Option(min=2, help="Height and width in pixels, an even number.")] = 64,
    seed: Annotated[int, typer.Option(help="Random seed of the pictures.")] = 0,
):
    """Generate small labelled videos without a download: 16 motions, as {train,validation,test}/<class>/<video>."""
    quiet()
    from hf_dvflnet.data.motion_videos import MOTIONS, write_motion_videos

    if size % 2:
        raise ValueError(f"--size must be even, because H.264 halves the colour resolution; got {size}")
    counts = {"train": train, "validation": validation, "test": test}
    write_motion_videos(out, clips_per_class=counts, num_frames=frames, size=size, seed=seed, num_workers=0)
    shown = ", ".join(f"{len(MOTIONS) * count} {split}" for split, count in counts.items())
    typer.echo(f"{out}: {len(MOTIONS)} classes; videos: {shown}")


def prepare(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="Folder of videos or archives. It is not modified.")],
    out: Annotated[Path, typer.Argument(help="Output folder. One with the same settings is continued.")],
    format: Annotated[
        Literal["tar", "folder"],
        typer.Option(help="tar: archives that `datasets` can stream; folder: one file per clip."),
    ] = "tar",
    short_side: Annotated[int, typer.Option(help="Maximum short side of a clip in pixels, an even number.")] = 256,
    keyframe_interval: Annotated[int, typer.Option(help="Number of frames from one keyframe to the next.")] = 4,
    crf: Annotated[int, typer.Option(help="H.264 quality: 0 is lossless, 51 is the worst.")] = 23,
    clips_per_shard: Annotated[int, typer.Option(help="Videos per tar archive.")] = 256,
    num_workers: Annotated[
        int | None, typer.Option(min=0, help="Sandboxes that encode; by default one per CPU.")
    ] = None,
    ray: Ray = None,
    seed: Annotated[int, typer.Option(help="Random seed of the order in the tar archives.")] = 0,
    as_json: AsJson = False,
):
    """
    Convert a dataset's videos to small clips with fast seeking, so that training need not decode large videos again.

    A prepared benchmark release can be used like the original. OUT/manifest.jsonl states for every video whether it is
    ok, repaired or unreadable. If any video is unreadable, the exit code is 1.
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
        ray=ray,
        seed=seed,
    )
    failures = found["failures"]
    for row in failures[:5]:
        typer.echo(printable(f"unreadable: {row['source']}: {row['reason']}"), err=True)
    if len(failures) > 5:
        typer.echo(f"unreadable: {len(failures) - 5} more, listed in {found['manifest']}", err=True)
    if as_json:
        typer.echo(json.dumps(found))
    else:
        typer.echo(
            f"{found['videos']} videos: {found['ok']} ok, {found['repaired']} repaired, {found['unreadable']} "
            f"unreadable; {found['prepared']} prepared now, in {found['seconds']} s"
        )
        before, after = (f"{found[name] / 1e6:.1f} MB" for name in ("source_bytes", "bytes"))
        typer.echo(f"{before} before, {after} after; {found['manifest']} lists the outcome of every video")
    if failures:
        raise typer.Exit(1)


def verify(
    dataset: Annotated[str, typer.Argument(metavar="NAME", help="ucf50, ucf101, hmdb51, jhmdb, ssv2 or kinetics400.")],
    data_dir: Annotated[str, typer.Argument(metavar="DIR", help="Folder of the extracted release or its archives.")],
    protocol: Protocol = None,
    fold: Fold = 1,
    report: Annotated[
        Path | None,
        typer.Option(help="Report file; verify-NAME-PROTOCOL-FOLD.jsonl by default. An existing report is continued."),
    ] = None,
    min_frames: Annotated[int, typer.Option(min=1, help="Clips with fewer frames are reported as short.")] = 8,
    num_workers: Annotated[
        int | None, typer.Option(min=0, help="Sandboxes that decode; by default one per CPU.")
    ] = None,
    ray: Ray = None,
    as_json: AsJson = False,
):
    """
    Check every clip of a benchmark, and count missing, empty, undecodable, short and duplicate clips.

    The report can be passed as --block-list. The exit code is 1 if a clip is missing, empty or undecodable, or if the
    split lists are built from the file names and some of these files are missing.
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
        ray=ray,
    )
    if as_json:
        typer.echo(json.dumps({**found, "report": str(report)}))
    else:
        typer.echo(f"{dataset}, {protocol}, fold {fold}")
        typer.echo("  ".join(f"{name:>11}" for name in ("split", "listed", "official", *OUTCOMES)))
        for split, counts in found["counts"].items():
            typer.echo("  ".join(f"{'-' if value is None else value:>11}" for value in (split, *counts.values())))
        typer.echo(f"{found['checked']} clips decoded in this run; the report is {report}")
    incomplete = protocol in BENCHMARKS[dataset].lists_from_names and any(
        counts["official"] not in (None, counts["listed"]) for counts in found["counts"].values()
    )
    if incomplete or any(
        counts[outcome] for counts in found["counts"].values() for outcome in ("missing", "empty", "undecodable")
    ):
        raise typer.Exit(1)
