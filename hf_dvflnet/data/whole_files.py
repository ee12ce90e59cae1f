"""Writes files completely or not at all, and reads JSON Lines that may have been interrupted."""

import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def whole_file(path: str | os.PathLike, folder: str | os.PathLike | None = None) -> Iterator[Path]:
    """
    Write a file completely or not at all: yield a path to write to, and rename it to `path` at the end of the block.

    `folder` holds the unfinished file, by default next to `path`. Its name is hidden and unique to this thread.
    """
    path = Path(path)
    # the end of the name keeps its suffix, and the whole below the 255 bytes that file systems allow
    thread = f"{socket.gethostname()}-{os.getpid()}-{threading.get_ident()}"
    unfinished = Path(folder or path.parent, f".{thread}-{path.name[-30:]}")
    try:
        yield unfinished
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def write_whole(path: str | os.PathLike, content: str | bytes, folder: str | os.PathLike | None = None):
    """Write a file with this content as in [`whole_file`]."""
    with whole_file(path, folder) as unfinished:
        unfinished.write_bytes(content.encode() if isinstance(content, str) else content)


def read_json_lines(
    path: str | os.PathLike, parse: Callable[[Any], Any], wrong: str, unfinished: bool = False
) -> list:
    """
    Read a JSON Lines file.

    Args:
        path: The file.
        parse: Called with the JSON value of each line; its results are returned.
        wrong: Says in an error message what a line is not, and what to do.
        unfinished: Leave out a truncated last line, as an interrupted run may have written.

    Raises:
        ValueError: If a line is not JSON, or if `parse` raises ValueError, KeyError or TypeError.
    """
    rows = []
    lines = Path(path).read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(parse(json.loads(line)))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            if unfinished and 1 < number == len(lines) and not line.endswith("\n"):
                break
            reason = str(error) or type(error).__name__
            raise ValueError(f"{path}: line {number} {wrong} ({reason})") from error
    return rows
