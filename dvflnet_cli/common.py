"""How commands declare their options, and how they print."""

import json
import logging
import os
import sys
import warnings
from dataclasses import MISSING, field
from typing import Any, Literal


DType = Literal["auto", "float32", "bfloat16", "float16"]
DATASETS = "ucf50, ucf101, hmdb51, jhmdb, ssv2, kinetics400"
REQUIRED = MISSING  # as the default of an option


def argument(help: str, metavar: str | None = None, **default: Any) -> Any:
    """Declare a positional argument of a command; the parser reads it from the metadata of the field."""
    return field(metadata={"help": help, "metavar": metavar, "positional": True}, **default)


def option(default: Any, help: str, *, minimum: float | None = None, maximum: float = 1e9, **more: Any) -> Any:
    """Declare an option; `more` is passed to argparse. With a `minimum`, inf and nan are refused, too."""
    limits = {} if minimum is None else {"limits": (minimum, maximum)}
    return field(default=default, metadata={"help": help, **limits, **more})


_SHARED: dict[str, tuple[Any, str, dict[str, Any]]] = {
    "device": ("auto", "cpu, cuda, cuda:1, mps or xpu; auto: an accelerator if there is one.", {}),
    "dtype": ("auto", "Data type in which the model computes; auto is that of its weights.", {}),
    "compile": (False, "Compile the model, which takes minutes and pays for many videos.", {}),
    "json": (False, "Print the result as JSON.", {}),
    "overwrite": (False, "Replace what is there.", {}),
    "views": (1, "1; 4: 4 clips x 1 crop; or 12: 4 clips x 3 crops, as published, for training with --augment.", {}),
    "start_score": (0.4, "Score with which an event starts.", {"minimum": 0.001, "maximum": 1}),
    "end_score": (0.1, "Score below which an event ends.", {"minimum": 0.001, "maximum": 1}),
    "shortest": (0.25, "Seconds; shorter events are dropped.", {"minimum": 0}),
    "longest_gap": (0.75, "Seconds of lower scores that do not end an event; at least a stride.", {"minimum": 0}),
    "labels": (
        None,
        "Class names: ucf50, ucf101, ucf101-sorted, hmdb51, jhmdb, ssv2, kinetics400, kinetics600, diving48, "
        "activitynet, or a text file with one name per line.",
        {"metavar": "SET_OR_FILE"},
    ),
    "ray": (
        None,
        "Work on a Ray cluster: auto (the one that runs on this machine), local (a new one), or HOST:PORT.",
        {"metavar": "ADDRESS"},
    ),
    "protocol": (None, "Protocol that defines the splits; the benchmark's first one by default.", {}),
    "fold": (1, "Fold of the protocol.", {"minimum": 1}),
    "block_list": (None, "Report of `dvflnet verify`; its unusable and leaked clips are left out.", {}),
    "classes": (None, "Names of classes of the benchmark, or present for those with videos; all if unset.", {}),
}


def shared(name: str) -> Any:
    """Declare an option that several commands have."""
    default, help, more = _SHARED[name]
    return option(default, help, **more)


def pick(command: Any, names: str) -> dict[str, Any]:
    """Return some options of a command, by name, to pass on."""
    return {name: getattr(command, name) for name in names.split()}


def quiet():
    """Suppress the messages and progress bars of transformers and datasets in the output of a command."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    if "datasets" in sys.modules:
        sys.modules["datasets"].disable_progress_bars()
    else:  # importing it costs half a second, which most commands do not need
        os.environ["HF_DATASETS_DISABLE_PROGRESS_BARS"] = "1"


def quiet_imports():
    """Suppress two messages that torchao, which executorch installs and transformers imports, logs about itself."""
    logging.getLogger("torch.utils._pytree").setLevel(logging.ERROR)


def use_sandbox():
    """Decode in child processes with limits, also in workers of data loaders, unless the variable says sandbox=no."""
    text = os.environ.get("DVFLNET_VIDEO_LIMITS", "")
    if "sandbox=" not in text:
        os.environ["DVFLNET_VIDEO_LIMITS"] = f"{text} sandbox=yes".strip()

    from hf_dvflnet.data.limits import limits_of_environment
    from hf_dvflnet.video_decoding import set_video_limits

    set_video_limits(limits_of_environment())


def printable(text: str) -> str:
    """Escape unprintable characters, which could control a terminal, as JSON does; a line of JSON stays the same."""
    return "".join(character if character.isprintable() else json.dumps(character)[1:-1] for character in text)


def say(line: str, err: bool = False):
    """Print one line, with unprintable characters escaped."""
    print(printable(line), file=sys.stderr if err else sys.stdout)


def show(found: dict[str, Any], as_json: bool):
    """Print a result, as one line of JSON or with a line for each value that there is."""
    if as_json:
        return say(json.dumps(found, ensure_ascii=False))
    found = {name: value for name, value in found.items() if value is not None}
    width = max(map(len, found)) + 2
    for name, value in found.items():
        say(f"{name:{width}}{value:.6g}" if isinstance(value, float) else f"{name:{width}}{value}")


def one_line(error: BaseException | str) -> str:
    return printable(" ".join(str(error).split())) or type(error).__name__


_format_warning = warnings.formatwarning


def format_warning(message, *about, **more) -> str:
    return _format_warning(one_line(message), *about, **more)


def flush():
    """Flush stdout now: at exit, Python could no longer report a failure in a single line."""
    try:
        sys.stdout.flush()
    except OSError:
        # discard what cannot be written, or Python would try to write it again at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise
