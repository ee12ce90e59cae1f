"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer


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
Model = Annotated[str, typer.Argument(help="A model folder or Hub id.")]
Videos = Annotated[list[str], typer.Argument(metavar="VIDEO...", help="Paths or http(s) URLs.")]
Device = Annotated[str, typer.Option(help="Where the model runs: cpu, cuda, ...")]
Protocol = Annotated[str | None, typer.Option(help="Which lists.")]
Fold = Annotated[int, typer.Option(min=1, help="Which fold.")]
BlockList = Annotated[Path | None, typer.Option(help="A report of `dvflnet verify`.")]


__all__ = ["AsJson", "BlockList", "Device", "Fold", "Labels", "Model", "Overwrite", "Protocol", "Videos"]
