"""
Finds the videos below a folder, for everything that reads folders, and warns of those that it leaves out.

Hidden files and those that systems put beside videos are never used, neither loose nor in archives.
"""

import glob
import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import PurePath, PurePosixPath
from typing import Any, NamedTuple

from .downloads import storage_of
from .storages import storage_errors


VIDEO_SUFFIXES = (
    *(".3gp", ".asf", ".avi", ".flv", ".gif", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts"),
    *(".ogv", ".ts", ".vob", ".webm", ".wmv"),
)
MAX_VISITS = 1000  # of one folder: a few dozen folders that link to each other have more paths than can be listed

# files and folders of macOS, Windows, Linux and network drives; most others, such as `._a.mp4`, begin with a dot
_SYSTEM_NAMES = {"__MACOSX", "Thumbs.db", "desktop.ini", "$RECYCLE.BIN", "System Volume Information", "lost+found"}
_SYSTEM_NAMES |= {"@eaDir", "@Recycle", "#recycle"}

# why files are left out
HIDDEN = "hidden or system files"
UNREADABLE = "broken links, pipes, sockets or devices"
OTHER_SUFFIX = "files with other endings"


class Files(NamedTuple):
    """Paths of the files below a folder, sorted, and of the files that are left out, by reason."""

    files: list[str]
    left_out: dict[str, list[str]]


def is_video(name: str) -> bool:
    """Whether a file name has the ending of a video, in upper or lower case."""
    return name.lower().endswith(VIDEO_SUFFIXES)


def is_hidden(path: str) -> bool:
    """Whether a path below a folder, or in an archive, has a part that is hidden or that a system has written."""
    parts = PurePosixPath(path).parts
    return any((part.startswith(".") and part != "..") or part in _SYSTEM_NAMES for part in parts)


def find_files(root: str | os.PathLike, filesystem: Any = None) -> Files:
    """
    Find the files below a folder, at any depth. Links are followed.

    Broken links are left out. So are pipes, sockets and devices, since reading them may never end. Of the hidden and
    system files, those with the ending of a video are named as left out.

    Args:
        root: The folder.
        filesystem: The `fsspec` filesystem that contains the folder; by default the local one.

    Raises:
        OSError: If a folder cannot be read, unless it is a hidden or system one.
        ValueError: If links lead to one folder in more than `MAX_VISITS` ways.
    """
    root = os.fspath(root)
    found, unreadable = _walk(root) if filesystem is None else (filesystem.find(root), [])
    files, hidden = [], []
    for file in sorted(found, key=lambda file: PurePath(file).parts):
        if not is_hidden(_below(root, file)):
            files.append(file)
        elif is_video(file):
            hidden.append(file)
    return Files(files, {HIDDEN: hidden, UNREADABLE: sorted(unreadable)})


def _walk(root: str) -> tuple[list[str], list[str]]:
    """Files below a local folder, and what is neither a file nor a folder and not hidden."""
    files, others = [], []
    visits: Counter[tuple[int, int]] = Counter()
    waiting: list[tuple[str, frozenset[tuple[int, int]]]] = [(root, frozenset())]
    while waiting:
        folder, above = waiting.pop()
        status = os.stat(folder)
        this = (status.st_dev, status.st_ino)
        if this in above:  # a link to a folder that it is in
            continue
        visits[this] += 1
        if visits[this] > MAX_VISITS:
            raise ValueError(f"{folder}: links lead to this folder in more than {MAX_VISITS} ways; remove some")
        try:
            with os.scandir(folder) as entries:
                listed = list(entries)
        except PermissionError:
            if is_hidden(_below(root, folder)):  # `lost+found` may be read by the administrator only
                continue
            raise
        for entry in listed:
            # os.path, because a link to itself is an error for entries
            isdir = os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()
            isfile = os.path.isfile(entry.path) if entry.is_symlink() else entry.is_file()
            if isdir:
                waiting.append((entry.path, above | {this}))
            elif isfile:
                files.append(entry.path)
            elif not is_hidden(_below(root, entry.path)):
                others.append(entry.path)
    return files, others


def _below(root: str, path: str) -> str:
    # a folder in a storage is named with its protocol, the files below it are not
    return path.removeprefix(root.rpartition("://")[2]).replace(os.sep, "/").lstrip("/")


def list_videos(given: Iterable[str | os.PathLike]) -> list[str]:
    """
    Replace each folder by the videos below it, at any depth, sorted. Paths of other kinds and URLs are kept.

    Folders may be on the Hub (`hf://datasets/USER/NAME`) or in another storage (`s3://BUCKET/clips`). A pattern such
    as `clips/**/*.mp4` stands for the paths that it matches, sorted, unless there is a file of this name.

    Raises:
        ImportError: If the package that reads a storage is not installed.
        OSError: If a folder cannot be read, or a pattern matches nothing.
        ValueError: If a folder contains no videos.

    Warns:
        UserWarning: If files of a folder are left out: hidden or system files that have the ending of a video, files
            with other endings, broken links, and the like.
    """
    videos = []
    for path, filesystem, files in _look_up(os.fspath(path) for path in given):
        if files is None:
            videos.append(path)
            continue
        inside = [file for file in files.files if is_video(file)]
        others = [file for file in files.files if not is_video(file)]
        warn_of_left_out(path, {**files.left_out, OTHER_SUFFIX: others})
        if not inside:
            raise ValueError(f"{path}: contains no videos ({', '.join(VIDEO_SUFFIXES)})")
        videos += inside if filesystem is None else map(filesystem.unstrip_protocol, inside)
    return videos


def _look_up(given: Iterable[str]) -> Iterator[tuple[str, Any, Files | None]]:
    """Paths, those that a pattern matches in its place, their filesystem unless local, and the files of a folder."""
    for path in given:
        there = storage_of(path)
        if there is not None:
            filesystem, root = there
            with storage_errors(path):
                for one in _matches(path, root, filesystem.glob):
                    files = find_files(one, filesystem) if filesystem.isdir(one) else None
                    yield filesystem.unstrip_protocol(one), filesystem, files
            continue
        is_pattern = "://" not in path and not os.path.lexists(path)
        for one in _matches(path, path, partial(glob.glob, recursive=True)) if is_pattern else [path]:
            yield one, None, find_files(one) if os.path.isdir(one) else None


def _matches(path: str, root: str, find: Callable[[str], list[str]]) -> list[str]:
    found = sorted(find(root)) if glob.has_magic(root) else [root]
    if not found:
        raise FileNotFoundError(f"{path}: no file or folder matches this pattern")
    return found


def warn_of_left_out(root: str | os.PathLike, left_out: Mapping[str, list[str]]):
    """Warn of files that are left out, by reason, unless there are none. One file of each ending is an example."""
    root = os.fspath(root)
    said = []
    for reason, files in left_out.items():
        examples = list({os.path.splitext(file)[1]: _below(root, file) for file in reversed(files)}.values())[::-1]
        if files:
            shown = ", ".join(examples[:3]) + (", ..." if len(files) > len(examples[:3]) else "")
            said.append(f"{len(files)} {reason} ({shown})")
    if said:
        warnings.warn(f"{root}: left out: {'; '.join(said)}", stacklevel=3)


__all__ = [
    "HIDDEN",
    "OTHER_SUFFIX",
    "UNREADABLE",
    "VIDEO_SUFFIXES",
    "Files",
    "find_files",
    "is_hidden",
    "is_video",
    "list_videos",
    "warn_of_left_out",
]
