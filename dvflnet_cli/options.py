"""Options that several commands share."""

from pathlib import Path
from typing import Annotated, Literal

import typer


Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an existing model.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Labels = Annotated[
    str | None,
    typer.Option(
        "--labels",
        metavar="SET_OR_FILE",
        help="Class names: ucf50, ucf101, ucf101-sorted, hmdb51, jhmdb, ssv2, kinetics400, kinetics600, diving48, "
        "activitynet, or a text file with one name per line.",
    ),
]
Model = Annotated[str, typer.Argument(help="A model folder or Hub id.")]
VIDEOS_HELP = "Files, folders, patterns such as '*.mp4', http(s) URLs, hf:// or s3:// paths."
Videos = Annotated[list[str], typer.Argument(metavar="VIDEO...", help=VIDEOS_HELP)]
HOW = "How the model runs"  # group of options in the help
Device = Annotated[
    str,
    typer.Option(
        metavar="DEVICE",
        rich_help_panel=HOW,
        help="Where the model runs: cpu, cuda, cuda:1, mps or xpu; auto: an accelerator if there is one.",
    ),
]
DType = Annotated[
    Literal["auto", "float32", "bfloat16", "float16"],
    typer.Option(help="Data type in which the model computes; auto is that of its weights.", rich_help_panel=HOW),
]
Compile = Annotated[
    bool,
    typer.Option(
        "--compile", help="Compile the model, which takes minutes and pays for many videos.", rich_help_panel=HOW
    ),
]
RAY_HELP = "on a Ray cluster: auto (the one that runs on this machine), local (a new one), or HOST:PORT."
Ray = Annotated[str | None, typer.Option(metavar="ADDRESS", help=f"Work {RAY_HELP}")]
Protocol = Annotated[str | None, typer.Option(help="Protocol that defines the splits.")]
Fold = Annotated[int, typer.Option(min=1, help="Fold of the protocol.")]
BlockList = Annotated[Path | None, typer.Option(help="Report of `dvflnet verify`; its unusable clips are left out.")]


__all__ = [
    "HOW",
    "RAY_HELP",
    "VIDEOS_HELP",
    "AsJson",
    "BlockList",
    "Compile",
    "DType",
    "Device",
    "Fold",
    "Labels",
    "Model",
    "Overwrite",
    "Protocol",
    "Ray",
    "Videos",
]
