"""
Reads and writes files on this machine, completely or not at all, and in the storages of fsspec, such as
`s3://BUCKET/list.txt`.
"""

import json
import os
import posixpath
import shutil
import socket
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import IO, Any

import fsspec

from .downloads import storage_of


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


def folder_of(path: str | os.PathLike) -> tuple[Any, str]:
    """The fsspec filesystem of a folder or file on this machine or in a storage, and its path there."""
    return storage_of(os.fspath(path)) or (fsspec.filesystem("file"), os.path.abspath(path))


def open_file(path: str | os.PathLike, mode: str = "rb", **text: Any) -> IO[Any]:
    """Open a file to read it. `text` is the encoding of a text file, as in `open`."""
    there = storage_of(os.fspath(path))
    if there is None:
        return open(path, mode, **text)
    with storage_errors(path):
        return there[0].open(there[1], mode, **text)


@contextmanager
def storage_errors(path: str | os.PathLike) -> Iterator[None]:
    """Turn exceptions of a storage's client into an `OSError` that names the path."""
    try:
        yield
    except (ValueError, ImportError):
        raise
    except Exception as error:
        kind = type(error) if isinstance(error, OSError) else OSError  # others: missing credentials and the like
        raise kind(f"{path}: {' '.join(str(error).split())}") from error


class LocalFiles:
    """Files on this machine, each of which is written completely or not at all."""

    begin = staticmethod(partial(os.makedirs, exist_ok=True))
    is_begun = staticmethod(os.path.isdir)
    exists = staticmethod(os.path.exists)
    remove = staticmethod(partial(shutil.rmtree, ignore_errors=True))

    def names(self, folder: str) -> list[str]:
        with suppress(FileNotFoundError):  # another process may have removed it
            return os.listdir(folder)
        return []

    @contextmanager
    def whole(self, path: str, folder: str) -> Iterator[Path]:
        """As [`whole_file`], and the content is on the disk before the file is renamed."""
        with whole_file(path, folder) as unfinished:
            yield unfinished
            with open(unfinished, "rb+") as file:
                os.fsync(file.fileno())


class StoredFiles:
    """The same in the storage of `url`: a file is written on this machine, then uploaded. Warns if it is memory."""

    def __init__(self, url: str):
        self.storage, _ = fsspec.url_to_fs(url)
        if url.startswith("memory://"):
            warnings.warn(f"{url}: ends with this process; a run that is stopped cannot be continued", stacklevel=5)

    def begin(self, folder: str):
        """Storages have no folders to create."""

    def is_begun(self, folder: str) -> bool:
        return True

    def names(self, folder: str) -> list[str]:
        with storage_errors(folder), suppress(FileNotFoundError):
            self.storage.invalidate_cache()  # other processes write, too
            return [posixpath.basename(path) for path in self.storage.ls(folder, detail=False)]
        return []

    def exists(self, path: str) -> bool:
        with storage_errors(path):
            self.storage.invalidate_cache()
            return self.storage.exists(path)

    def remove(self, folder: str):
        with storage_errors(folder), suppress(FileNotFoundError):
            self.storage.rm(folder, recursive=True)

    @contextmanager
    def whole(self, path: str, folder: str) -> Iterator[Path]:
        with tempfile.TemporaryDirectory() as here:
            unfinished = Path(here, "unfinished")
            yield unfinished
            with storage_errors(path):
                self.storage.put_file(str(unfinished), path)
