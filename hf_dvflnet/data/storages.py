"""Reads and writes files on this machine and in storages that fsspec knows, such as `s3://BUCKET/list.txt`."""

import os
import posixpath
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from .downloads import storage_of


def open_file(path: str | os.PathLike, mode: str = "rb", **text: Any) -> IO[Any]:
    """Open a file to read it. `text` is the encoding of a text file, as in `open`."""
    there = storage_of(os.fspath(path))
    if there is None:
        return open(path, mode, **text)
    with storage_errors(path):
        return there[0].open(there[1], mode, **text)


@contextmanager
def storage_errors(path: str | os.PathLike) -> Iterator[None]:
    """Make what the client of a storage raises an `OSError` that names the path."""
    try:
        yield
    except (ValueError, ImportError):
        raise
    except OSError as error:
        if os.fspath(path) in str(error):
            raise
        raise type(error)(f"{path}: {error}") from error
    except Exception as error:  # its own exceptions, such as those of missing credentials
        raise OSError(f"{path}: {' '.join(str(error).split())}") from error


class LocalFiles:
    """Files that are written completely or not at all: under another name in a folder, then renamed."""

    def begin(self, folder: str):
        os.makedirs(folder, exist_ok=True)

    def is_begun(self, folder: str) -> bool:
        return os.path.isdir(folder)

    def names(self, folder: str) -> list[str]:
        with suppress(FileNotFoundError):
            return os.listdir(folder)
        return []

    def exists(self, path: str) -> bool:
        return os.path.exists(path)

    def remove(self, folder: str):
        shutil.rmtree(folder, ignore_errors=True)

    @contextmanager
    def whole(self, path: str, folder: str) -> Iterator[Path]:
        """A path in `folder` to write a file to. It is moved once its content is on the disk, not before."""
        # hidden: no reader of the folder takes it for a part
        unfinished = Path(folder, f".{os.path.basename(path)}.{os.getpid()}")
        yield unfinished
        with open(unfinished, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(unfinished, path)
        if os.name == "posix":  # the new name, too
            above = os.open(os.path.dirname(os.path.abspath(path)), os.O_RDONLY)
            try:
                os.fsync(above)
            finally:
                os.close(above)


class StoredFiles:
    """
    The same in a storage: a file is written on this machine, then uploaded, and is there once the upload is complete.

    Args:
        url: A path in the storage.

    Warns:
        UserWarning: If the storage is the memory of this process, which ends with it.
    """

    def __init__(self, url: str):
        there = storage_of(url)
        if there is None:
            raise ValueError(f"{url}: is not a path in a storage")
        self.storage, _ = there
        if url.startswith("memory://"):
            warnings.warn(f"{url}: ends with this process; a run that is stopped cannot be continued", stacklevel=5)

    def begin(self, folder: str):
        """Storages have no folders."""

    def is_begun(self, folder: str) -> bool:
        return True

    def names(self, folder: str) -> list[str]:
        with storage_errors(folder):
            self.storage.invalidate_cache()  # other processes write, too
            try:
                return [posixpath.basename(path) for path in self.storage.ls(folder, detail=False)]
            except FileNotFoundError:
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


__all__ = ["LocalFiles", "StoredFiles", "open_file", "storage_errors"]
