"""The commands of `dvflnet`, in the order of `dvflnet --help`, and the function that runs them."""

import io
import sys
import warnings

import typer

from . import data_sets, models, training, videos
from .terminal import flush, format_warning, one_line


app = typer.Typer(
    help="DVFL-Net and Video-FocalNet: create, convert, inspect, run and publish models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (
    *(models.create, models.convert),
    *(videos.predict, videos.watch, videos.benchmark),
    *(training.evaluate, training.cache_teacher),
    *(data_sets.verify, data_sets.prepare),
    *(videos.visualize, data_sets.render),
    *(models.export, models.info, videos.demo, models.push),
):
    app.command(command.__name__.replace("_", "-"))(command)


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
