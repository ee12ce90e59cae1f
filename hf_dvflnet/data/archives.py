"""
Reading zip and tar archives that may come from a stranger.

What unpacks to more than the archive says, or makes a reader fill the memory, is refused.
"""

import errno
import gzip
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import IO, Any, Literal


ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz")
# What an archive may unpack to: so many times its own size (videos hardly shrink, lists by ten), or what all can bear.
MAX_EXPANSION, MIN_UNPACKED = 100, 256 << 20
MAX_TAR_HEADER = 1 << 16  # bytes of a tar's long name or extended header; names end at 4096


class Archive:
    """
    The files in a zip or tar.

    Args:
        filesystem: The `fsspec` filesystem that it lies on.
        path: Its path there.
        hint: Gives a sentence that ends the message of a damaged archive.
    """

    def __init__(self, filesystem: Any, path: str, hint: Callable[[], str] = str):
        self.filesystem, self.path, self.hint = filesystem, path, hint
        with filesystem.open(path, "rb") as file:  # names lie: some official .zip files are tars
            self.is_zip = file.read(2) == b"PK"
        self._members: list[str] | None = None

    def members(self) -> list[str]:
        """Names of the files. A compressed tar has to be read whole for them."""
        if self._members is None:
            with self._reading(), self.filesystem.open(self.path, "rb") as file:
                if self.is_zip:
                    with zipfile.ZipFile(file) as zip_file:
                        unpacked = sum(member.file_size for member in zip_file.infolist())
                        _refuse_bomb(self.filesystem.size(self.path) or 0, unpacked)
                        for member in zip_file.infolist():
                            # zipfile's readers of the others unpack whatever they are given whole
                            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                                raise ValueError(
                                    f"{member.filename} is packed by method {member.compress_type}, where deflate (8) "
                                    "or none (0) is read; extract it first if it is trusted"
                                )
                        self._members = [name for name in zip_file.namelist() if not name.endswith("/")]
                else:
                    self._members = [name for name, _ in self._walk_tar(file, "r:")]
        return self._members

    def read(self, member: str) -> bytes:
        """The content of a file."""
        with self._reading(), self.filesystem.open(self.path, "rb") as file:
            if self.is_zip:
                with zipfile.ZipFile(file) as zip_file:
                    return _read_zipped(zip_file, member)
            # of two of one name it is the last that counts, as where they are extracted
            return [content.read() for name, content in self._walk_tar(file, "r:") if name == member][-1]

    def contents(self, suffixes: tuple[str, ...]) -> Iterator[tuple[str, bytes]]:
        """Names and contents of the files of these suffixes, in the archive's order, reading on and never back."""
        names = self.members() if self.is_zip else []
        with self._reading(), self.filesystem.open(self.path, "rb") as file:
            if self.is_zip:
                with zipfile.ZipFile(file) as zip_file:
                    for name in names:
                        if name.lower().endswith(suffixes):
                            yield name, _read_zipped(zip_file, name)
            else:
                for name, content in self._walk_tar(file, "r|"):
                    if name.lower().endswith(suffixes):
                        yield name, content.read()

    def _walk_tar(self, file: Any, mode: Literal["r:", "r|"]) -> Iterator[tuple[str, IO[bytes]]]:
        """Names and contents, to be read at once, of the files in a tar, which is plain or compressed by gzip."""
        # tarfile's own readers of compressed streams unpack what they are given whole, to a million times its size
        compressed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        with gzip.GzipFile(fileobj=file) if compressed else nullcontext(file) as unpacked:
            try:
                tar_file = tarfile.open(fileobj=unpacked, mode=mode, tarinfo=_TarInfo)  # noqa: SIM115
            except tarfile.ReadError as error:
                raise ValueError(f"{error}; tars are read plain or compressed by gzip, unpack others first") from error
            with tar_file:
                size = self.filesystem.size(self.path) or 0
                while (member := tar_file.next()) is not None:
                    member.pax_headers = {}  # tarfile keeps every member, and each may hold all headers before it
                    if member.size < 0:  # which would lead back to a member that was there before, for ever
                        raise ValueError(f"{member.name} has a size of {member.size} bytes")
                    _refuse_bomb(size, member.offset_data + member.size)
                    if member.isfile() and (content := tar_file.extractfile(member)) is not None:
                        yield member.name, content

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        # whatever a damaged or hostile archive makes of the readers, short of a lack of memory
        except (
            zipfile.BadZipFile,
            tarfile.TarError,
            zlib.error,
            struct.error,
            EOFError,
            RuntimeError,
            ValueError,
            LookupError,
            OverflowError,
            OSError,
        ) as error:
            if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
                raise  # a fault of the disk; those of the content have no number, or are a place before the start
            reason = str(error) or type(error).__name__
            raise ValueError(f"{self.path}: cannot be read as an archive: {reason}.{self.hint()}") from error


def _refuse_bomb(size: int, unpacked: int):
    if unpacked > max(MAX_EXPANSION * size, MIN_UNPACKED):
        raise ValueError(
            f"it has {size} bytes, and {unpacked} or more when it is unpacked; extract it first if it is trusted"
        )


def _read_zipped(zip_file: zipfile.ZipFile, name: str) -> bytes:
    """A file of a zip, of which no more is unpacked than the directory says that there is."""
    with zip_file.open(name) as file:
        return file.read(zip_file.getinfo(name).file_size)


class _TarInfo(tarfile.TarInfo):
    """
    Refuses what makes tarfile fill the memory before it returns a member.

    Raises:
        ValueError: If a long name or extended header is larger than `MAX_TAR_HEADER`, or a file has holes.
    """

    @classmethod
    def frombuf(cls, buf, encoding, errors):
        member = super().frombuf(buf, encoding, errors)
        header = member.type in (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)
        name = member.type in (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
        if (header or name) and not 0 <= member.size <= MAX_TAR_HEADER:
            raise ValueError(
                f"a name or extended header has {member.size} bytes, more than {MAX_TAR_HEADER}; extract it first if "
                "it is trusted"
            )
        if member.type == tarfile.GNUTYPE_SPARSE:
            member._proc_gnusparse_10()
        return member

    def _proc_gnusparse_10(self, *_):  # the map of another form, which is read to its end wherever that is
        raise ValueError("it holds a file with holes (sparse), which is not read; extract it first if it is trusted")


__all__ = ["ARCHIVE_SUFFIXES", "Archive"]
