"""The commands of `dvflnet`, in the order of `dvflnet --help`, and the function that runs them."""

import io
import sys
import warnings
from collections.abc import Callable

import typer

from . import data_sets, models, prediction, training, videos
from .terminal import flush, format_warning, one_line


GROUPS: dict[str, tuple[Callable[..., None], ...]] = {
    "Videos": (prediction.predict, videos.watch, videos.demo, videos.visualize, videos.benchmark),
    "Models": (models.create, models.convert, models.info, models.export, models.push),
    "Data sets": (data_sets.render, data_sets.prepare, data_sets.verify),
    "Training and evaluation": (training.train, training.distill, training.cache_teacher, training.evaluate),
}

# what transformers' HfArgumentParser reads, --help included
HAVE_OWN_PARSER = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}

GREETING = """dvflnet recognizes actions in videos. Four commands to start with:

  dvflnet create motions-student MODEL                      copies a small model that knows 16 motions of a camera
  dvflnet render data/motions --train 0 --validation 0      renders videos of these motions
  dvflnet predict MODEL VIDEO...                            classifies videos
  dvflnet demo MODEL                                        serves a web page to try a model on (extra `demo`)

`dvflnet --help` lists all commands."""

app = typer.Typer(
    help="DVFL-Net and Video-FocalNet: create, train, distil, evaluate, run and export video classifiers.",
    pretty_exceptions_enable=False,
    # `--top_k` is `--top-k`, as the trainings' options, which are transformers', have both forms
    context_settings={"token_normalize_func": lambda token: token.replace("_", "-")},
)
for group, commands in GROUPS.items():
    for command in commands:
        settings = HAVE_OWN_PARSER if command in (training.train, training.distill) else None
        app.command(command.__name__.replace("_", "-"), rich_help_panel=group, context_settings=settings)(command)


@app.callback(invoke_without_command=True)
def greet(context: typer.Context):
    if context.invoked_subcommand is None:
        typer.echo(GREETING)


def main():
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # for characters that the terminal's encoding lacks
    warnings.formatwarning = format_warning
    try:
        try:
            app()
        finally:
            flush()
    except BrokenPipeError:  # the reader of the pipe closed it, as `head` does
        sys.exit(1)
    except (OSError, ValueError, ImportError) as error:
        typer.echo(f"dvflnet: {one_line(error)}", err=True)
        sys.exit(1)


__all__ = ["app", "main"]
