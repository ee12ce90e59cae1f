"""Finds the files of a benchmark's official release, anywhere below a folder or URL, or in archives there."""

import os
import re
from collections.abc import Iterator

import fsspec

from .archives import ARCHIVE_SUFFIXES, Archive
from .video_files import find_files, is_video, warn_of_left_out


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
        self.filesystem, self.path = fsspec.core.url_to_fs(self.root)
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

    def stamp(self, archive: str) -> str:
        """Text that changes when the archive changes."""
        about = self.filesystem.info(archive)
        return repr([about.get(key) for key in ("size", "mtime", "etag", "ETag", "blob_id", "last_commit")])

    def is_replacement(self, file: str) -> bool:
        """Whether a file is in a replacement folder of the release, or is the archive of such a folder."""
        return "replacement" in file.removeprefix(self.path)

    def videos(self) -> list[str]:
        """All video files, loose or in an archive."""
        inside = (name for archive in self.archives.values() for name in archive.members)
        return [*filter(is_video, self.files), *filter(is_video, inside)]

    def _lists(self) -> Iterator[tuple[Archive | None, str]]:
        """Archive, or None for a loose file, and path of each file that may be a list; large tars are left out."""
        yield from ((None, file) for file in self.files)
        for path, archive in self.archives.items():
            if archive.is_zip or self.filesystem.size(path) <= 100e6:
                yield from ((archive, member) for member in archive.members)

    def list_names(self) -> set[str]:
        """Names of the files that `read` finds."""
        return {os.path.basename(path) for _, path in self._lists()}

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

    def need(self, *names: str, where: str) -> str:
        """Same as `read`, but a missing file is an error that says where to get it."""
        text = self.read(*names)
        if text is None:
            raise FileNotFoundError(
                f"{self.root}: has no {' or '.join(names)}, which comes with {where}. Is this the folder of "
                f"the extracted release?{self.hint()}"
            )
        return text

    def hint(self) -> str:
        rars = [os.path.basename(file) for file in self.files if file.lower().endswith(".rar")]
        parts = [os.path.basename(file) for file in self.files if re.search(r"-something-v2-\d\d([.]zip)?$", file)]
        scripts = [os.path.basename(file) for file in self.files if file.endswith(".py")]
        if rars:
            return f" It contains {', '.join(rars[:3])}: extract rar archives first (unrar x, or 7z x)."
        if parts:
            join = "cat 20bn-something-something-v2-?? | tar -xzf -"
            return f" It contains the parts {parts[0]}, ...: join and extract them first ({join})."
        if scripts:
            return f" It contains {scripts[0]}: loading scripts are no longer supported; download the release itself."
        return ""
