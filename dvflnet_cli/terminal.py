"""What commands print, and what they keep off the terminal."""

import json
import logging
import os
import sys
import warnings


def quiet():
    """Keep the remarks and bars of transformers and datasets out of what a command prints."""
    # torchao, which executorch brings and transformers imports, has two there about itself
    logging.getLogger("torch.utils._pytree").setLevel(logging.ERROR)
    import datasets
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    datasets.disable_progress_bars()


def refuse_unless_positive(**options: float | None):
    """`ValueError` if an option that is given is not above 0, or no number of frames or bytes can be made of it."""
    for name, value in options.items():
        if value is not None and not 0 < value < 1e9:
            raise ValueError(f"--{name.replace('_', '-')} must be above 0 and below 1e9, got {value}")


def printable(text: str) -> str:
    """A line without what would steer a terminal: it is escaped as in JSON, so that a line of JSON stays the same."""
    return "".join(character if character.isprintable() else json.dumps(character)[1:-1] for character in text)


def one_line(error: BaseException | str) -> str:
    return printable(" ".join(str(error).split())) or type(error).__name__


_format_warning = warnings.formatwarning


def format_warning(message, *about, **more) -> str:
    return _format_warning(one_line(message), *about, **more)


def flush():
    """Write what stdout still holds: Python itself would do so when it can no longer say in a line that it fails."""
    try:
        sys.stdout.flush()
    except OSError:
        # what cannot be written goes nowhere, or Python would try it again at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise


__all__ = ["flush", "format_warning", "one_line", "printable", "quiet", "refuse_unless_positive"]
