"""Commands for data sets: render, prepare, verify."""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from .options import AsJson, Fold, Protocol
from .terminal import printable, quiet


def render(
    out: Annotated[Path, typer.Argument(help="The folder to write; one with the same settings is continued.")],
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


def prepare(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="A folder of videos or archives; it is only read.")],
    out: Annotated[Path, typer.Argument(help="The folder to write; one with the same settings is continued.")],
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

    A benchmark's release stays one. OUT/manifest.jsonl says for every video whether it is ok, repaired or unreadable;
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


def verify(
    dataset: Annotated[str, typer.Argument(metavar="NAME", help="ucf50, ucf101, hmdb51, ssv2 or kinetics400.")],
    data_dir: Annotated[str, typer.Argument(metavar="DIR", help="The extracted release or its archives.")],
    protocol: Protocol = None,
    fold: Fold = 1,
    report: Annotated[
        Path | None,
        typer.Option(
            help="The file to write, verify-NAME-PROTOCOL-FOLD.jsonl if unset; an existing one is continued."
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
