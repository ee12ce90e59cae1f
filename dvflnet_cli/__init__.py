"""
The command line `dvflnet`: its commands, and the function that runs them.

Each command is a dataclass of options with a method `run`, which imports what it needs: importing the package loads
torch, and `dvflnet --help` should not wait for it.
"""

import io
import os
import re
import sys
import warnings
from typing import Any

from . import build, compare, data, models, training, videos
from .common import flush, format_warning, one_line, quiet, quiet_imports, say


GROUPS: dict[str, tuple[Any, ...]] = {
    "Videos": (
        *(videos.Predict, videos.Segments, videos.Watch),
        *(videos.Demo, videos.Visualize, videos.Benchmark),
    ),
    "Models": (models.Create, models.Convert, models.Info, models.Export, models.Push),
    "Datasets": (data.Render, data.Split, data.Check, data.Prepare, data.Verify),
    "Training and evaluation": (
        build.Build,
        training.Train,
        training.Distill,
        training.CacheTeacher,
        training.Calibrate,
        training.Evaluate,
        compare.Compare,
    ),
}
# CacheTeacher is `dvflnet cache-teacher`
COMMANDS: dict[str, Any] = {
    re.sub("(?<=.)([A-Z])", r"-\1", each.__name__).lower(): each for group in GROUPS.values() for each in group
}


def main():
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # for characters that the terminal's encoding lacks
    warnings.formatwarning = format_warning
    if (
        "RANK" not in os.environ
    ):  # no launcher: a platform has set it for a single process, which would wait for others
        os.environ.pop("WORLD_SIZE", None)
    try:
        try:
            code = run(sys.argv[1:])
        finally:
            flush()
    except BrokenPipeError:  # the reader of the pipe closed it, as `head` does
        code = 1
    except KeyboardInterrupt:
        say("dvflnet: stopped", err=True)
        code = 130
    except (OSError, ValueError, ImportError) as error:
        say(f"dvflnet: {one_line(error)}", err=True)
        code = 1
    sys.exit(code)


def run(words: list[str]) -> int:
    """Run a command line, and return its exit code."""
    name, *words = words or ["--help"]
    if name in ("--help", "-h"):
        print_commands()
        return 0
    if name not in COMMANDS:
        say(f"dvflnet: no such command: {name} (dvflnet --help lists the commands)", err=True)
        return 2
    quiet_imports()
    from .parser import CommandParser

    command = COMMANDS[name]
    if arguments := getattr(command, "training_arguments", None):  # transformers' class, which imports torch
        import hf_dvflnet

        (options, args), given = CommandParser(name, command, getattr(hf_dvflnet, arguments)).parse(words)
        options.run(args, given)
        return 0
    (options,), _ = CommandParser(name, command).parse(words)
    quiet()
    return options.run() or 0


def print_commands():
    print("usage: dvflnet COMMAND [ARGUMENT ...] [--OPTION VALUE ...]\n")
    print("DVFL-Net and Video-FocalNet: create, train, distill, evaluate, run and export video classifiers.")
    for group, commands in GROUPS.items():
        print(f"\n{group}:")
        for name, command in COMMANDS.items():
            if command in commands:
                print(f"  {name:15}{command.__doc__.strip().splitlines()[0]}")
    print("\n`dvflnet COMMAND --help` lists the options of a command.")
