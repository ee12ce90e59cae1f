"""Reads the files of a zip or tar archive in place, with `zipfile` and `tarfile`."""

import errno
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property, partial
from typing import Any

from .video_files import HIDDEN, VIDEO_SUFFIXES, is_hidden, is_video, warn_of_left_out


ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz")


class Archive:
    """
    A zip or tar archive and the files in it. Links, devices, and hidden files are left out.

    Args:
        filesystem: The `fsspec` filesystem that contains the archive.
        path: Path of the archive in that filesystem.
        hint: Returns a sentence to append to the error message for a damaged archive.

    Raises:
        ValueError: When the archive is read, if it is damaged, encrypted, or not an archive.

    Attributes:
        is_zip: Whether it is a zip archive. The name may mislead: some official `.zip` files are tars.
        members: Names of the files. To get them, a tar is read to its end.
    """

    def __init__(self, filesystem: Any, path: str, hint: Callable[[], str] = str):
        self.filesystem, self.path, self.hint = filesystem, path, hint

    @cached_property
    def is_zip(self) -> bool:
        with self.filesystem.open(self.path, "rb") as file:
            return file.read(2) == b"PK"

    @cached_property
    def members(self) -> list[str]:
        with self._errors_named():
            found = [name for name, _ in self._files()]
        warn_of_left_out(self.path, {HIDDEN: [name for name in found if is_hidden(name) and is_video(name)]})
        return [name for name in found if not is_hidden(name)]

    def contents(self, suffixes: tuple[str, ...] = VIDEO_SUFFIXES) -> Iterator[tuple[str, bytes]]:
        """Names and contents of the files whose names end with one of `suffixes` (in lower case), in order."""
        with self._errors_named():
            for name, read in self._files():
                if name.lower().endswith(suffixes) and not is_hidden(name):
                    yield name, read()

    def _files(self) -> Iterator[tuple[str, Callable[[], bytes]]]:
        """Name of each file, and a function that reads it, to be called before the next name is asked for."""
        with self.filesystem.open(self.path, "rb") as file:
            if self.is_zip:
                with zipfile.ZipFile(file) as zip_file:
                    for name in zip_file.namelist():
                        if not name.endswith("/"):
                            yield name, partial(zip_file.read, name)
            else:
                with tarfile.open(fileobj=file) as tar:
                    for member in tar:
                        if member.size < 0:  # leads back to an earlier member
                            raise ValueError(f"{member.name} has a size of {member.size} bytes")
                        if member.isfile() and (content := tar.extractfile(member)) is not None:
                            yield member.name, content.read

    @contextmanager
    def _errors_named(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # damaged archives cause exceptions of any type
            if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
                raise  # an error of the disk or network
            reason = str(error) or type(error).__name__
            raise ValueError(f"{self.path}: cannot be read as an archive: {reason}.{self.hint()}") from error
