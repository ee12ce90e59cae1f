"""Reads and writes files on this machine and in the storages of fsspec, such as `s3://BUCKET/list.txt`."""

import os
import posixpath
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import IO, Any

import fsspec

from .downloads import storage_of
from .whole_files import whole_file


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
