"""Format what commands print, and suppress other output on the terminal."""

import json
import logging
import os
import sys
import warnings


def quiet_imports():
    """Suppress two messages that torchao, which executorch installs and transformers imports, logs about itself."""
    logging.getLogger("torch.utils._pytree").setLevel(logging.ERROR)


def quiet():
    """Suppress the messages and progress bars of transformers and datasets in the output of a command."""
    quiet_imports()
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    if "datasets" in sys.modules:
        sys.modules["datasets"].disable_progress_bars()
    else:  # importing it costs half a second, which most commands do not need
        os.environ["HF_DATASETS_DISABLE_PROGRESS_BARS"] = "1"


def use_sandbox():
    """Decode in child processes with limits, also in workers of data loaders, unless the variable says sandbox=no."""
    text = os.environ.get("DVFLNET_VIDEO_LIMITS", "")
    if "sandbox=" not in text:
        os.environ["DVFLNET_VIDEO_LIMITS"] = f"{text} sandbox=yes".strip()

    from hf_dvflnet.data.limits import limits_of_environment
    from hf_dvflnet.video_decoding import set_video_limits

    set_video_limits(limits_of_environment())


def refuse_unless_positive(**options: float | None):
    """Raise `ValueError` if a given option is not above 0 and below 1e9, as numbers of frames and bytes must be."""
    for name, value in options.items():
        if value is not None and not 0 < value < 1e9:
            raise ValueError(f"--{name.replace('_', '-')} must be above 0 and below 1e9, got {value}")


def printable(text: str) -> str:
    """Escape unprintable characters, which could control a terminal, as JSON does; a line of JSON stays the same."""
    return "".join(character if character.isprintable() else json.dumps(character)[1:-1] for character in text)


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


__all__ = [
    "flush",
    "format_warning",
    "one_line",
    "printable",
    "quiet",
    "quiet_imports",
    "refuse_unless_positive",
    "use_sandbox",
]
