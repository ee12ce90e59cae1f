"""
Finds videos: those below folders, and those of lists in text files and tables.

Hidden files and those that systems put beside videos are never used.
"""

import csv
import glob
import os
import re
import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

from .storages import open_file, storage_errors, storage_of


VIDEO_SUFFIXES = (
    *(".3gp", ".asf", ".avi", ".flv", ".gif", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts"),
    *(".ogv", ".ts", ".vob", ".webm", ".wmv"),
)
ARCHIVE_SUFFIXES = (".rar", ".zip", ".7z", ".tar", ".tar.gz", ".tgz")

# files and folders of macOS, Windows, Linux and network drives; most others, such as `._a.mp4`, begin with a dot
_SYSTEM_NAMES = {"__MACOSX", "Thumbs.db", "desktop.ini", "$RECYCLE.BIN", "System Volume Information", "lost+found"}
_SYSTEM_NAMES |= {"@eaDir", "@Recycle", "#recycle"}

# why files are left out
HIDDEN = "hidden or system files"
UNREADABLE = "broken links, pipes, sockets or devices"
OTHER_SUFFIX = "files with other endings"


def is_video(name: str) -> bool:
    """Whether a file name has the ending of a video, in upper or lower case."""
    return name.lower().endswith(VIDEO_SUFFIXES)


def is_hidden(path: str) -> bool:
    """Whether a path below a folder has a part that is hidden or that a system has written."""
    parts = PurePosixPath(path).parts
    return any((part.startswith(".") and part != "..") or part in _SYSTEM_NAMES for part in parts)


def find_files(root: str | os.PathLike, filesystem: Any = None) -> tuple[list[str], dict[str, list[str]]]:
    """
    Find the files below a folder, local or of a `fsspec` filesystem, at any depth. Links are followed. Returns their
    paths, sorted, and those of files that are left out, by reason.

    Broken links are left out. So are pipes, sockets and devices, since reading them may never end. Of the hidden and
    system files, those with the ending of a video are named as left out. A folder that cannot be read raises
    `OSError`, unless it is a hidden or system one.
    """
    root = os.fspath(root)
    found, unreadable = _walk(root) if filesystem is None else (filesystem.find(root), [])
    files, hidden = [], []
    for file in sorted(found, key=lambda file: PurePath(file).parts):
        if not is_hidden(_below(root, file)):
            files.append(file)
        elif is_video(file):
            hidden.append(file)
    return files, {HIDDEN: hidden, UNREADABLE: sorted(unreadable)}


def _walk(root: str) -> tuple[list[str], list[str]]:
    """Files below a local folder, and what is neither a file nor a folder and not hidden."""

    def refuse(error: OSError):
        if not (isinstance(error, PermissionError) and is_hidden(_below(root, error.filename))):
            raise error  # of system folders, `lost+found` may be read by the administrator only

    files, others = [], []
    for folder, subfolders, names in os.walk(root, onerror=refuse, followlinks=True):
        subfolders[:] = [name for name in subfolders if not _leads_back(os.path.join(folder, name), root)]
        for path in (os.path.join(folder, name) for name in names):
            if os.path.isfile(path):
                files.append(path)
            elif not is_hidden(_below(root, path)):
                others.append(path)
    return files, others


def _leads_back(link: str, root: str) -> bool:
    """Whether a link leads to a folder that it is in, `root` or below."""
    above = link
    while os.path.islink(link) and len(above) > len(root):
        above = os.path.dirname(above)
        if os.path.samefile(link, above):
            return True
    return False


def _below(root: str, path: str) -> str:
    # a folder in a storage is named with its protocol, the files below it are not
    return path.removeprefix(root.rpartition("://")[2]).replace(os.sep, "/").lstrip("/")


def list_videos(given: Iterable[str | os.PathLike]) -> list[str]:
    """
    Replace each folder by the videos below it, at any depth, sorted. Paths of other kinds and URLs are kept.

    Folders may be on the Hub (`hf://datasets/USER/NAME`) or in another storage (`s3://BUCKET/clips`). A pattern such
    as `clips/**/*.mp4` stands for the paths that it matches, sorted, unless there is a file of this name. Folders at
    its start that exist, such as `clips[1]`, are taken as they are named.

    Raises:
        ImportError: If the package that reads a storage is not installed.
        OSError: If a folder cannot be read, or a pattern matches nothing.
        ValueError: If a folder contains no videos.

    Warns:
        UserWarning: If files of a folder are left out: hidden or system files that have the ending of a video, files
            with other endings, broken links, and the like.
    """
    videos: list[str] = []
    for path in (os.fspath(one) for one in given):
        storage, root = storage_of(path) or (None, path)
        with nullcontext() if storage is None else storage_errors(path):
            matches = [root]
            if storage is None:
                is_pattern = glob.has_magic(root) and "://" not in path and not os.path.lexists(path)
            else:
                is_pattern = glob.has_magic(root) and not storage.exists(root)
            is_folder = os.path.isdir if storage is None else storage.isdir
            if is_pattern:
                pattern = _escape_folders(root, is_folder)
                matches = sorted(glob.glob(pattern, recursive=True) if storage is None else storage.glob(pattern))
            folders = {one: find_files(one, storage) for one in matches if is_folder(one)}
        if not matches:
            if storage is None:  # a folder that may not be read matches nothing
                os.listdir(re.split(r"[^/]*[*?[]", root)[0] or ".")
            raise FileNotFoundError(f"{path}: no file or folder matches this pattern")
        for one in matches:
            found = [one]
            if one in folders:
                files, left_out = folders[one]
                found = list(filter(is_video, files))
                others = [file for file in files if not is_video(file)]
                folder = one if storage is None else storage.unstrip_protocol(one)
                warn_of_left_out(folder, {**left_out, OTHER_SUFFIX: others})
                if not found:
                    raise ValueError(f"{folder}: contains no videos ({', '.join(VIDEO_SUFFIXES)})")
            videos += found if storage is None else map(storage.unstrip_protocol, found)
    return videos


def _escape_folders(pattern: str, is_folder: Callable[[str], bool]) -> str:
    folder = os.path.dirname(pattern)
    while glob.has_magic(folder) and not is_folder(folder):
        folder = os.path.dirname(folder)
    return glob.escape(folder) + pattern[len(folder) :]


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


def read_video_list(file: str | os.PathLike, column: str | None = None) -> list[str]:
    """
    Read a list of paths and URLs of videos. None of them is opened or looked up.

    Paths are relative to the working directory. A folder, or a pattern, is not replaced by its videos: an entry is one
    video, or an error once it is read. A million entries take about 3 seconds and 200 MB.

    Args:
        file: A text file with one entry per line (UTF-8), or a table that ends in `.csv` or `.parquet`; it may be on
            the Hub or in another storage (`s3://BUCKET/list.txt`).
        column: The column of a table. It can be left out if the table has only one.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it is not such a file, contains no entries, or has no such column of text.

    Warns:
        UserWarning: If there are empty lines or cells, which are left out.
    """
    suffix = Path(file).suffix.lower()
    if suffix in (".csv", ".parquet"):
        entries = _read_column(file, suffix, column)
    elif column is not None:
        raise ValueError(f"{file}: is read as text, which has no column {column!r}; tables end in .csv or .parquet")
    else:
        # surrogates stand for the bytes of file names that are not UTF-8
        with open_file(file, "r", encoding="utf-8-sig", errors="surrogateescape") as lines:
            entries = []
            for number, line in enumerate(lines, start=1):
                if "\0" in line:
                    raise ValueError(f"{file}: line {number} has a zero byte; is it a list of videos in text?")
                entries.append(line.rstrip("\n"))
    found = [entry for entry in entries if entry is not None and entry.strip()]
    if not found:
        raise ValueError(f"{file}: contains no videos")
    if len(found) < len(entries):
        warnings.warn(f"{file}: left out: {len(entries) - len(found)} empty lines or cells", stacklevel=2)
    return found


def _read_column(file: str | os.PathLike, suffix: str, column: str | None) -> list[str | None]:
    import pyarrow.csv
    import pyarrow.parquet

    try:
        if suffix == ".csv":
            with open_file(file, "r", encoding="utf-8-sig", newline="") as lines:
                columns = next(csv.reader(lines), [])
        else:
            with open_file(file) as content:
                columns = pyarrow.parquet.read_schema(content).names
        if column is None and len(columns) == 1:
            column = columns[0]
        if column is None or column not in columns:
            lacks = "has several columns" if column is None else f"has no column {column!r}"
            raise ValueError(f"{lacks}; choose one of {', '.join(map(repr, columns))} (--column)")
        with open_file(file) as content:
            if suffix == ".parquet":
                values = pyarrow.parquet.read_table(content, columns=[column])[column]
            else:
                convert = pyarrow.csv.ConvertOptions(include_columns=[column], column_types={column: pyarrow.string()})
                values = pyarrow.csv.read_csv(content, convert_options=convert)[column]
        kind = values.type
        if not (pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind)):
            raise ValueError(f"the column {column!r} contains {kind}; text is expected")
        return values.to_pylist()
    except (ValueError, csv.Error) as error:  # pyarrow's are ValueErrors
        raise ValueError(f"{file}: {error}") from error
