"""Reads the official release of a benchmark: loose files, and files in zip and tar archives, below a folder or URL."""

import errno
import os
import re
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property, partial
from typing import Any

from .storages import filesystem_of
from .video_files import HIDDEN, VIDEO_SUFFIXES, find_files, is_hidden, is_video, warn_of_left_out


ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz")


class Release:
    """
    The files of an official release below a folder or URL, and those in its zip and tar archives, unless hidden.

    Raises:
        FileNotFoundError: If the folder or file does not exist.

    Warns:
        UserWarning: If broken links and the like are left out, or hidden or system files with the ending of a video.
    """

    def __init__(self, root: str | os.PathLike):
        self.root = os.fspath(root)
        self.filesystem, self.path = filesystem_of(self.root)
        if not self.filesystem.exists(self.path):
            raise FileNotFoundError(f"{self.root}: the folder or file does not exist")
        if self.filesystem.isfile(self.path):
            found = [self.path]
        else:
            found, left_out = find_files(self.path, None if self.is_local else self.filesystem)
            warn_of_left_out(self.path, left_out)
        # upper folders first: a copy of an annotation file in a subfolder does not hide the release's own file
        self.files = sorted(found, key=lambda file: (file.count("/"), file))
        archives = [file for file in self.files if file.lower().endswith(ARCHIVE_SUFFIXES)]
        self.archives = {path: Archive(self.filesystem, path, self.hint) for path in archives}

    @property
    def is_local(self) -> bool:
        return "file" in self.filesystem.protocol

    def location(self, file: str) -> str:
        """Path of a local file, or URL of any other file."""
        return file if self.is_local else self.filesystem.unstrip_protocol(file)

    def is_replacement(self, file: str) -> bool:
        """Whether a file is in a replacement folder of the release, or is the archive of such a folder."""
        return "replacement" in file.removeprefix(self.path)

    def videos(self) -> list[str]:
        """All video files, loose or in an archive."""
        inside = (name for archive in self.archives.values() for name in archive.members)
        return [*filter(is_video, self.files), *filter(is_video, inside)]

    def read(self, *names: str) -> str | None:
        """Text of the first file with one of these names, loose, in a zip, or in a tar of at most 100 MB."""
        for archive, path in self._lists():
            if os.path.basename(path) in names:
                if archive is None:
                    content = self.filesystem.cat_file(path)
                else:  # of several files with the same name, the last one counts, as in extraction
                    content = dict(archive.contents((path.lower(),)))[path]
                try:
                    return content.decode("utf-8-sig")
                except UnicodeDecodeError as error:
                    name = path if archive is None else f"{archive.path}::{path}"
                    raise ValueError(f"{name}: is not UTF-8 text (byte {error.start}); save it as UTF-8") from error
        return None

    def _lists(self) -> Iterator[tuple["Archive | None", str]]:
        """Archive, or None for a loose file, and path of each file that may be a list; large tars are left out."""
        yield from ((None, file) for file in self.files)
        for path, archive in self.archives.items():
            if archive.is_zip or self.filesystem.size(path) <= 100e6:
                yield from ((archive, member) for member in archive.members)

    def need(self, *names: str, where: str) -> str:
        """Same as `read`, but a missing file is an error that says where to get it."""
        text = self.read(*names)
        if text is None:
            raise FileNotFoundError(
                f"{self.root}: has no {' or '.join(names)}, which comes with {where}. Is this the folder of "
                f"the extracted release?{self.hint}"
            )
        return text

    @cached_property
    def hint(self) -> str:
        """A sentence to append to an error message about files that cannot be read, or nothing."""
        names = list(map(os.path.basename, self.files))
        for name in names:
            if name.lower().endswith(".rar"):
                return f" It contains {name}: extract rar archives first (unrar x, or 7z x)."
            if re.search(r"-something-v2-\d\d([.]zip)?$", name):
                join = "cat 20bn-something-something-v2-?? | tar -xzf -"
                return f" It contains the parts {name}, ...: join and extract them first ({join})."
            if name.endswith(".py"):
                return f" It contains {name}: loading scripts are no longer supported; download the release itself."
        return ""


class Archive:
    """
    A zip or tar archive and the files in it. Links, devices, and hidden files are left out.

    Args:
        filesystem: The `fsspec` filesystem that contains the archive.
        path: Path of the archive in that filesystem.
        hint: A sentence to append to the error message for a damaged archive.

    Raises:
        ValueError: When the archive is read, if it is damaged, encrypted, or not an archive.
    """

    def __init__(self, filesystem: Any, path: str, hint: str):
        self.filesystem, self.path, self.hint = filesystem, path, hint

    @cached_property
    def is_zip(self) -> bool:
        """Whether it is a zip archive. The name may mislead: some official `.zip` files are tars."""
        with self.filesystem.open(self.path, "rb") as file:
            return file.read(2) == b"PK"

    @cached_property
    def members(self) -> list[str]:
        """Names of the files. To get them, a tar is read to its end."""
        with self._errors_named():
            found = [name for name, _ in self._files()]
        warn_of_left_out(self.path, {HIDDEN: [name for name in found if is_hidden(name) and is_video(name)]})
        return [name for name in found if not is_hidden(name)]

    def stamp(self) -> str:
        """Text that changes when the archive changes."""
        about = self.filesystem.info(self.path)
        keys = ("size", "mtime", "etag", "ETag", "blob_id", "last_commit")
        return repr([self.path, *(about.get(key) for key in keys)])

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
            raise ValueError(f"{self.path}: cannot be read as an archive: {reason}.{self.hint}") from error
