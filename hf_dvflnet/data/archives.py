"""
Reads zip and tar archives from untrusted sources.

Archives that unpack to more data than they state, or than the limits below allow, are refused. So are archives that
make a reader fill the memory.
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

from .video_files import HIDDEN, is_hidden, is_video, warn_of_left_out


ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz")
# An archive may unpack to MAX_EXPANSION times its own size (videos hardly compress; lists compress by a factor of
# ten) or to MIN_UNPACKED bytes (which every machine can handle), whichever is larger.
MAX_EXPANSION, MIN_UNPACKED = 100, 256 << 20
MAX_TAR_HEADER = 1 << 16  # limit in bytes of a tar's long name or extended header; paths have at most 4096


class Archive:
    """
    A zip or tar archive and the files in it.

    Args:
        filesystem: The `fsspec` filesystem that contains the archive.
        path: Path of the archive in that filesystem.
        hint: Returns a sentence to append to the error message for a damaged archive.
    """

    def __init__(self, filesystem: Any, path: str, hint: Callable[[], str] = str):
        self.filesystem, self.path, self.hint = filesystem, path, hint
        with filesystem.open(path, "rb") as file:  # the name can mislead: some official .zip files are tars
            self.is_zip = file.read(2) == b"PK"
        self._members: list[str] | None = None

    def members(self) -> list[str]:
        """Names of the files that are not hidden. For a compressed tar, the whole archive is read."""
        if self._members is None:
            with self._reading(), self.filesystem.open(self.path, "rb") as file:
                if self.is_zip:
                    with zipfile.ZipFile(file) as zip_file:
                        unpacked = sum(member.file_size for member in zip_file.infolist())
                        _refuse_bomb(self.filesystem.size(self.path) or 0, unpacked)
                        for member in zip_file.infolist():
                            # for other methods, zipfile unpacks all the data that it is given at once
                            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                                raise ValueError(
                                    f"{member.filename} uses compression method {member.compress_type}, but only "
                                    "deflate (8) and none (0) are supported; extract the archive first if you trust it"
                                )
                        found = [name for name in zip_file.namelist() if not name.endswith("/")]
                else:
                    found = [name for name, _ in self._walk_tar(file, "r:")]
            self._members = [name for name in found if not is_hidden(name)]
            warn_of_left_out(self.path, {HIDDEN: [name for name in found if is_hidden(name) and is_video(name)]})
        return self._members

    def read(self, member: str) -> bytes:
        """Content of one file."""
        with self._reading(), self.filesystem.open(self.path, "rb") as file:
            if self.is_zip:
                with zipfile.ZipFile(file) as zip_file:
                    return _read_zipped(zip_file, member)
            # if two members have the same name, the last one counts, as when the archive is extracted
            return [content.read() for name, content in self._walk_tar(file, "r:") if name == member][-1]

    def contents(self, suffixes: tuple[str, ...]) -> Iterator[tuple[str, bytes]]:
        """Names and contents of the files with these suffixes, as in `members`, in order, read forward only."""
        names = self.members() if self.is_zip else []
        with self._reading(), self.filesystem.open(self.path, "rb") as file:
            if self.is_zip:
                with zipfile.ZipFile(file) as zip_file:
                    for name in names:
                        if name.lower().endswith(suffixes):
                            yield name, _read_zipped(zip_file, name)
            else:
                for name, content in self._walk_tar(file, "r|"):
                    if name.lower().endswith(suffixes) and not is_hidden(name):
                        yield name, content.read()

    def _walk_tar(self, file: Any, mode: Literal["r:", "r|"]) -> Iterator[tuple[str, IO[bytes]]]:
        """Names of the files in a plain or gzip-compressed tar, and contents, to be read before the next item."""
        # tarfile's own decompression unpacks all the data that it is given at once, to up to a million times its size
        compressed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        with gzip.GzipFile(fileobj=file) if compressed else nullcontext(file) as unpacked:
            try:
                tar_file = tarfile.open(fileobj=unpacked, mode=mode, tarinfo=_TarInfo)  # noqa: SIM115
            except tarfile.ReadError as error:
                raise ValueError(
                    f"{error}; only plain and gzip-compressed tars are supported, decompress others first"
                ) from error
            with tar_file:
                size = self.filesystem.size(self.path) or 0
                while (member := tar_file.next()) is not None:
                    # tarfile keeps every member, and each member may hold the headers of all members before it
                    member.pax_headers = {}
                    if member.size < 0:  # it would lead back to an earlier member, in an endless loop
                        raise ValueError(f"{member.name} has a size of {member.size} bytes")
                    _refuse_bomb(size, member.offset_data + member.size)
                    if member.isfile() and (content := tar_file.extractfile(member)) is not None:
                        yield member.name, content

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        # all errors that a damaged or hostile archive causes in the readers, except a lack of memory
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
                raise  # a disk error; errors of the content have no errno, or EINVAL for a seek before the start
            reason = str(error) or type(error).__name__
            raise ValueError(f"{self.path}: cannot be read as an archive: {reason}.{self.hint()}") from error


def _refuse_bomb(size: int, unpacked: int):
    if unpacked > max(MAX_EXPANSION * size, MIN_UNPACKED):
        raise ValueError(
            f"the archive has {size} bytes, but unpacks to {unpacked} bytes or more; extract it first if you trust it"
        )


def _read_zipped(zip_file: zipfile.ZipFile, name: str) -> bytes:
    """Content of a file in a zip. No more bytes are unpacked than the zip's directory states."""
    with zip_file.open(name) as file:
        return file.read(zip_file.getinfo(name).file_size)


class _TarInfo(tarfile.TarInfo):
    """
    Tar member that refuses headers which would make tarfile fill the memory before it returns the member.

    Raises:
        ValueError: If a long name or extended header is larger than `MAX_TAR_HEADER`, or a file is sparse.
    """

    @classmethod
    def frombuf(cls, buf, encoding, errors):
        member = super().frombuf(buf, encoding, errors)
        header = member.type in (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)
        name = member.type in (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
        if (header or name) and not 0 <= member.size <= MAX_TAR_HEADER:
            raise ValueError(
                f"a name or extended header has {member.size} bytes, but at most {MAX_TAR_HEADER} are allowed; "
                "extract the archive first if you trust it"
            )
        if member.type == tarfile.GNUTYPE_SPARSE:
            member._proc_gnusparse_10()
        return member

    def _proc_gnusparse_10(self, *_):  # tarfile would read this form of the sparse map without a size limit
        raise ValueError(
            "it contains a sparse file, which is not supported; extract the archive first if you trust it"
        )


__all__ = ["ARCHIVE_SUFFIXES", "Archive"]
