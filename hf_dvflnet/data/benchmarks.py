"""
The benchmarks, from their official releases: `load_benchmark("ucf101", DIR, "test")`.

A release is indexed first, as a pure function of its annotation files and file names, and its videos are found by name
wherever they lie below the folder; nothing is decoded. `datasets` patches `open` and the like in this module while it
streams, which is why nothing else lives here.
"""

import csv
import errno
import gzip
import hashlib
import io
import json
import math
import os
import re
import struct
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO, Any, Literal, NamedTuple

import datasets
import fsspec

from .clips import VIDEO_SUFFIXES, load_video_folder, stream_tars, unreadable_videos
from .label_sets import LABEL_SETS


ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz")
# What an archive may unpack to: so many times its own size (videos hardly shrink, lists by ten), or what all can bear.
MAX_EXPANSION, MIN_UNPACKED = 100, 256 << 20
MAX_TAR_HEADER = 1 << 16  # bytes of a tar's long name or extended header; names end at 4096
MAX_SHARDS = 1024  # of a streamed split: enough for any number of workers, few enough to shuffle at once


class Clip(NamedTuple):
    """One line of a benchmark's lists: what names the video in the release, its class, and its group, if any."""

    video_id: str
    label: str
    group: str | None = None


class Release:
    """
    The files of an official release below a folder or URL, and those in its zip and tar archives.

    Raises:
        FileNotFoundError: If there is nothing.
    """

    def __init__(self, root: str | os.PathLike):
        self.root = os.fspath(root)
        self.filesystem, self.path = fsspec.core.url_to_fs(self.root)
        if not self.filesystem.exists(self.path):
            raise FileNotFoundError(f"{self.root}: there is no such folder or file")
        if self.filesystem.isfile(self.path):
            found = [self.path]
        else:
            found = list(_walk(self.path)) if self.is_local else self.filesystem.find(self.path)
        # shallow files first: an annotation file that was copied somewhere below does not hide the release's own
        self.files = sorted(found, key=lambda file: (file.count("/"), file))
        self.archives = [file for file in self.files if file.lower().endswith(ARCHIVE_SUFFIXES)]
        self._members: dict[str, list[str]] = {}
        self._zips: dict[str, bool] = {}

    @property
    def is_local(self) -> bool:
        return "file" in self.filesystem.protocol

    def location(self, file: str) -> str:
        """A path for local files, a URL for others."""
        return file if self.is_local else self.filesystem.unstrip_protocol(file)

    def is_zip(self, archive: str) -> bool:
        if archive not in self._zips:
            with self.filesystem.open(archive, "rb") as file:  # names lie: some official .zip files are tars
                self._zips[archive] = file.read(2) == b"PK"
        return self._zips[archive]

    def stamp(self, archive: str) -> str:
        """What changes when an archive does."""
        about = self.filesystem.info(archive)
        return repr([about.get(key) for key in ("size", "mtime", "etag", "ETag", "blob_id", "last_commit")])

    def is_replacement(self, file: str) -> bool:
        """Whether a file lies in a replacement folder of the release, or is its archive."""
        return "replacement" in file.removeprefix(self.path)

    def members(self, archive: str) -> list[str]:
        """Names of the files in an archive. A compressed tar has to be read whole for them."""
        if archive not in self._members:
            with self._reading(archive), self.filesystem.open(archive, "rb") as file:
                if self.is_zip(archive):
                    with zipfile.ZipFile(file) as zip_file:
                        unpacked = sum(member.file_size for member in zip_file.infolist())
                        self._refuse_bomb(self.filesystem.size(archive) or 0, unpacked)
                        for member in zip_file.infolist():
                            # zipfile's readers of the others unpack whatever they are given whole
                            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                                raise ValueError(
                                    f"{member.filename} is packed by method {member.compress_type}, where deflate (8) "
                                    "or none (0) is read; extract it first if it is trusted"
                                )
                        names = [name for name in zip_file.namelist() if not name.endswith("/")]
                else:
                    names = [name for name, _ in self._walk_tar(archive, file, "r:")]
            self._members[archive] = names
        return self._members[archive]

    def videos(self) -> list[str]:
        """Every video file, loose or in an archive."""
        loose = [file for file in self.files if file.lower().endswith(VIDEO_SUFFIXES)]
        inside = [name for archive in self.archives for name in self.members(archive)]
        return loose + [name for name in inside if name.lower().endswith(VIDEO_SUFFIXES)]

    def read(self, *names: str) -> str | None:
        """The text of the first file of one of these names, loose or in a zip (or a tar of less than 100 MB)."""
        for file in self.files:
            if os.path.basename(file) in names:
                return _decode(file, self.filesystem.cat_file(file))
        for archive in self.archives:
            if not self.is_zip(archive) and self.filesystem.size(archive) > 100e6:
                continue
            for member in self.members(archive):
                if os.path.basename(member) in names:
                    return _decode(f"{archive}::{member}", self._read_member(archive, member))
        return None

    def _read_member(self, archive: str, member: str) -> bytes:
        with self._reading(archive), self.filesystem.open(archive, "rb") as file:
            if self.is_zip(archive):
                with zipfile.ZipFile(file) as zip_file:
                    return _read_zipped(zip_file, member)
            # of two of one name it is the last that counts, as where they are extracted
            return [content.read() for name, content in self._walk_tar(archive, file, "r:") if name == member][-1]

    def contents(self, archive: str, suffixes: tuple[str, ...] = VIDEO_SUFFIXES) -> Iterator[tuple[str, bytes]]:
        """Names and contents of the videos (or others) in an archive, in its order, reading on and never back."""
        names = self.members(archive) if self.is_zip(archive) else []
        with self._reading(archive), self.filesystem.open(archive, "rb") as file:
            if self.is_zip(archive):
                with zipfile.ZipFile(file) as zip_file:
                    for name in names:
                        if name.lower().endswith(suffixes):
                            yield name, _read_zipped(zip_file, name)
            else:
                for name, content in self._walk_tar(archive, file, "r|"):
                    if name.lower().endswith(suffixes):
                        yield name, content.read()

    def _walk_tar(self, archive: str, file: Any, mode: Literal["r:", "r|"]) -> Iterator[tuple[str, IO[bytes]]]:
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
                size = self.filesystem.size(archive) or 0
                while (member := tar_file.next()) is not None:
                    member.pax_headers = {}  # tarfile keeps every member, and each may hold all headers before it
                    if member.size < 0:  # which would lead back to a member that was there before, for ever
                        raise ValueError(f"{member.name} has a size of {member.size} bytes")
                    self._refuse_bomb(size, member.offset_data + member.size)
                    if member.isfile() and (content := tar_file.extractfile(member)) is not None:
                        yield member.name, content

    @staticmethod
    def _refuse_bomb(size: int, unpacked: int):
        if unpacked > max(MAX_EXPANSION * size, MIN_UNPACKED):
            raise ValueError(
                f"it has {size} bytes, and {unpacked} or more when it is unpacked; extract it first if it is trusted"
            )

    @contextmanager
    def _reading(self, archive: str) -> Iterator[None]:
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
            raise ValueError(f"{archive}: cannot be read as an archive: {reason}.{self._hint()}") from error

    def need(self, *names: str, where: str) -> str:
        """As `read`, but a missing file is an error that says where it comes from."""
        text = self.read(*names)
        if text is None:
            raise FileNotFoundError(
                f"{self.root}: has no {' or '.join(names)}, which comes with {where}. Is this the folder that holds "
                f"the extracted release?{self._hint()}"
            )
        return text

    def _hint(self) -> str:
        rars = [os.path.basename(file) for file in self.files if file.lower().endswith(".rar")]
        parts = [os.path.basename(file) for file in self.files if _PART.search(file)]
        scripts = [os.path.basename(file) for file in self.files if file.endswith(".py")]
        if rars:
            return f" It holds {', '.join(rars[:3])}: rar archives have to be extracted first (unrar x, or 7z x)."
        if parts:
            join = "cat 20bn-something-something-v2-?? | tar -xzf -"
            return f" It holds the parts {parts[0]}, ...: join and extract them first ({join})."
        if scripts:
            return f" It holds {scripts[0]}: loading scripts are no longer run; download the release itself."
        return ""


def _decode(name: str, content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{name}: is not text in UTF-8 (byte {error.start}); save it as such") from error


def _read_zipped(zip_file: zipfile.ZipFile, name: str) -> bytes:
    """A file of a zip, of which no more is unpacked than the directory says that there is."""
    with zip_file.open(name) as file:
        return file.read(zip_file.getinfo(name).file_size)


class _TarInfo(tarfile.TarInfo):
    """
    Refuses what makes tarfile fill the memory before it tells of a member.

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


_PART = re.compile(r"20bn-something-something-v2-\d\d([.]zip)?$")


def _walk(folder: str) -> Iterator[str]:
    """
    Files below a folder, also behind links to folders, each of these once.

    Links to nothing are left out, and pipes, sockets and devices, which may have no end.
    """
    seen = set()
    for path, folders, names in os.walk(folder, followlinks=True):
        status = os.stat(path)
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        for name in names:
            file = os.path.join(path, name)
            if os.path.isfile(file):
                yield file


@dataclass
class BenchmarkConfig(datasets.BuilderConfig):
    """What identifies a benchmark as loaded; all of it is part of the cache key."""

    protocol: str = ""
    fold: int = 1
    split: str | None = None
    label_set: str = ""
    block_list: str | None = None
    digest: str = ""  # of the lists and of which clips are there, so that a release that changes is read again


class BenchmarkBuilder(datasets.GeneratorBasedBuilder):
    """
    One benchmark. Columns: `video` (`{"path", "bytes"}`, not decoded), `label` (`ClassLabel`), `video_id`, and `group`
    where clips are cut from a common source.

    Args:
        data_dir: The extracted release, its zip or tar archives, or a URL such as `hf://datasets/ORG/REPO`.
        protocol: Which lists; by default the first of `protocols`.
        fold: Which of the `folds[protocol]` folds, from 1.
        label_set: Another order of the same classes, where there is one.
        block_list: A report of `dvflnet verify`; what it names as empty or undecodable is left out.
        split: The only split that is prepared; all by default.

    Raises:
        FileNotFoundError: If the release or an annotation file is not there.
        ValueError: If there is no such protocol, fold or label set, or a list names an unknown class.
    """

    VERSION = datasets.Version("1.0.0")
    BUILDER_CONFIG_CLASS = BenchmarkConfig
    config: BenchmarkConfig

    key: str
    title: str
    label_sets: tuple[str, ...]
    folds: dict[str, int]  # of each protocol, the default one first
    official_counts: dict[tuple[str, int], dict[str, int]]  # clips per split
    test_split = "test"  # where figures are reported
    lists_from_names: tuple[str, ...] = ()  # protocols whose lists are made of the file names that are there
    has_groups = False
    warning: dict[str, str] = {}  # of a protocol

    def __init__(
        self,
        data_dir: str | os.PathLike,
        protocol: str | None = None,
        fold: int = 1,
        label_set: str | None = None,
        block_list: str | os.PathLike | None = None,
        split: str | None = None,
        **kwargs,
    ):
        protocol = protocol or next(iter(self.folds))
        self.refuse(protocol, fold)
        label_set = label_set or self.label_sets[0]
        if label_set not in self.label_sets:
            raise ValueError(f"{self.title} has the label sets {', '.join(self.label_sets)}, not {label_set!r}")
        self.release = Release(data_dir)
        self.blocked = _read_block_list(block_list)
        self.lists = self.index(self.release, protocol, fold)
        names = set(LABEL_SETS[label_set].names)
        for listed, clips in self.lists.items():
            unknown = sorted({clip.label for clip in clips} - names)
            if unknown:
                classes = ", ".join(unknown[:5])
                raise ValueError(
                    f"{self.release.root}: {listed} has the classes {classes}, which {self.title} has not"
                )
        if split is not None and split not in self.lists:
            raise ValueError(f"{self.title}, {protocol}: has {', '.join(self.lists)}, not {split!r}")
        self._find_videos()
        archives = [(archive, self.release.stamp(archive)) for archive in self.release.archives]
        known = (self.lists, sorted(self.locations.items()), sorted(self.blocked), self.release.path, archives)
        digest = hashlib.sha256(repr(known).encode()).hexdigest()
        super().__init__(
            data_dir=self.release.root,
            dataset_name=type(self).__name__.lower(),
            protocol=protocol,
            fold=fold,
            split=split,
            label_set=label_set,
            block_list=None if block_list is None else os.fspath(block_list),
            digest=digest,
            **kwargs,
        )
        self.info.description = json.dumps(self.facts())

    def refuse(self, protocol: str, fold: int):
        if protocol not in self.folds:
            raise ValueError(f"{self.title} has the protocols {', '.join(self.folds)}, not {protocol!r}")
        if not 1 <= fold <= self.folds[protocol]:
            raise ValueError(f"{self.title}, {protocol}: has folds 1 to {self.folds[protocol]}, not {fold}")
        if protocol in self.warning:
            warnings.warn(f"{self.title}, {protocol}: {self.warning[protocol]}", stacklevel=4)

    @classmethod
    def index(cls, release: Release, protocol: str, fold: int) -> dict[str, list[Clip]]:
        """The clips of each split, in the order of the lists."""
        raise NotImplementedError

    @staticmethod
    def video_id(path: str) -> str:
        """What the lists call the video at this path."""
        return PurePosixPath(path).stem

    @staticmethod
    def names(clip: Clip) -> tuple[str, ...]:
        """What the clip's video may be called, the surest first."""
        return (clip.video_id,)

    def _find_videos(self):
        """Find where each video lies: loose, or in an archive. What is in a tar shows only when it is read."""
        release = self.release
        self.loose: dict[str, str] = {}
        replacements = set()
        for file in release.files:
            if file.lower().endswith(VIDEO_SUFFIXES):
                name = self.video_id(file)
                if name not in self.loose or release.is_replacement(file):
                    self.loose[name] = release.location(file)
                if release.is_replacement(file):
                    replacements.add(name)
        # what a replacement archive holds is taken from no other place
        self.replaced: set[str] = set()
        members: dict[str, str] = {}
        for archive in release.archives:
            if release.is_zip(archive) or release.is_replacement(archive):
                for member in release.members(archive):
                    if member.lower().endswith(VIDEO_SUFFIXES):
                        members.setdefault(self.video_id(member), f"{archive}::{member}")
                        if release.is_replacement(archive):
                            self.replaced.add(self.video_id(member))
        self.replaced -= replacements
        for name in self.replaced & set(self.loose):
            del self.loose[name]
        self.locations = {**members, **self.loose}
        self.complete = all(release.is_zip(archive) for archive in release.archives)

    def is_there(self, clip: Clip) -> bool:
        return any(name in self.locations for name in self.names(clip))

    def loose_file(self, clip: Clip) -> str | None:
        """Path or URL of a clip's video; None if it lies in an archive, or nowhere."""
        return next((self.loose[name] for name in self.names(clip) if name in self.loose), None)

    def facts(self) -> dict[str, Any]:
        """Benchmark, protocol, fold, and of each split how many clips are listed and which are missing or blocked."""
        protocol, fold = self.config.protocol, self.config.fold
        official = self.official_counts.get((protocol, fold), {}) if protocol in self.lists_from_names else {}
        return {
            "benchmark": self.key,
            "protocol": protocol,
            "fold": fold,
            "folds": self.folds[protocol],
            "splits": {
                split: {
                    # where file names make the list, a clip that is not there is not in the list either
                    "listed": official.get(split, len(clips)),
                    "blocked": [clip.video_id for clip in clips if clip.video_id in self.blocked],
                    "missing": [clip.video_id for clip in clips if not self.is_there(clip)] if self.complete else None,
                }
                for split, clips in self.lists.items()
            },
        }

    def _info(self) -> datasets.DatasetInfo:
        features: dict[str, Any] = {
            "video": datasets.Video(decode=False),
            "label": datasets.ClassLabel(names=list(LABEL_SETS[self.config.label_set].names)),
            "video_id": datasets.Value("string"),
        }
        if self.has_groups:
            features["group"] = datasets.Value("string")
        return datasets.DatasetInfo(features=datasets.Features(features))

    def _split_generators(self, dl_manager) -> list[datasets.SplitGenerator]:
        generators = []
        for split, clips in self.lists.items():
            if self.config.split not in (None, split):
                continue
            wanted = [clip for clip in clips if clip.video_id not in self.blocked]
            found = [(path, clip) for clip in wanted if (path := self.loose_file(clip)) is not None]
            if not self.release.is_local:
                paths = dl_manager.download([path for path, _ in found])
                found = [(path, clip) for path, (_, clip) in zip(paths, found, strict=True)]
            size = math.ceil(len(found) / MAX_SHARDS) or 1
            shards: list[Any] = [(None, tuple(found[start : start + size])) for start in range(0, len(found), size)]
            in_archives = {name: clip for clip in wanted if self.loose_file(clip) is None for name in self.names(clip)}
            for archive in self.release.archives if in_archives else ():
                mine = in_archives
                if not self.release.is_replacement(archive):
                    mine = {name: clip for name, clip in in_archives.items() if name not in self.replaced}
                shards.append((archive, mine))
            generators.append(datasets.SplitGenerator(split, gen_kwargs={"shards": shards}))
        return generators

    def _generate_examples(self, shards: list[Any]) -> Iterator[tuple[str, dict[str, Any]]]:
        for archive, rows in shards:
            if archive is None:
                for path, clip in rows:
                    yield clip.video_id, self._example({"path": path, "bytes": None}, clip)
            else:
                for path, content in self.release.contents(archive):
                    clip = rows.get(self.video_id(path))
                    if clip is not None:
                        yield clip.video_id, self._example({"path": path, "bytes": content}, clip)

    def _example(self, video: dict[str, Any], clip: Clip) -> dict[str, Any]:
        example = {"video": video, "label": clip.label, "video_id": clip.video_id}
        return {**example, "group": clip.group} if self.has_groups else example


def _read_block_list(path: str | os.PathLike | None) -> set[str]:
    """Ids of the clips that a report of `dvflnet verify` names as unusable."""
    if path is None:
        return set()
    with open(path, encoding="utf-8") as file:
        lines = file.readlines()
    blocked = set()
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            video_id, outcome = row["video_id"], row["outcome"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path}: line {number} is not one of a whole report of `dvflnet verify`") from error
        if outcome in ("empty", "undecodable"):
            blocked.add(video_id)
    return blocked


@contextmanager
def _reading_list(release: Release, name: str, expected: str) -> Iterator[None]:
    """Names the list that has another shape than the official one: whatever that makes of its reader."""
    try:
        yield
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError, csv.Error) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{release.root}: {name} cannot be read: {expected} is expected ({reason})") from error


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def _eighty_twenty(clips: Iterable[Clip]) -> dict[str, list[Clip]]:
    """In each class, sorted by name, the first ceil(0.8 n) train and the rest test: the rule of DVFL-Net's lists."""
    classes: dict[str, list[Clip]] = {}
    for clip in sorted(clips):
        classes.setdefault(clip.label, []).append(clip)
    lists: dict[str, list[Clip]] = {"train": [], "test": []}
    for _, members in sorted(classes.items()):
        cut = math.ceil(0.8 * len(members))
        lists["train"] += members[:cut]
        lists["test"] += members[cut:]
    return lists


class _InClassFolders(BenchmarkBuilder):
    """UCF: `<Class>/v_<Class>_g<group>_c<clip>.avi`; the folder is the class, as the file may spell it otherwise."""

    has_groups = True

    @staticmethod
    def video_id(path: str) -> str:
        path_ = PurePosixPath(path)
        return f"{path_.parent.name}/{path_.stem}"

    @classmethod
    def clip(cls, path: str) -> Clip:
        video_id = cls.video_id(path)
        group = re.search(r"_g(\d+)_c\d+$", video_id)
        return Clip(video_id, video_id.split("/")[0], f"g{group[1]}" if group else None)

    @classmethod
    def clips_found(cls, release: Release) -> list[Clip]:
        clips = sorted({cls.clip(path) for path in release.videos()})
        if not clips:
            raise FileNotFoundError(f"{release.root}: holds no videos.{release._hint()}")
        total = sum(cls.official_counts["dvflnet_8020", 1].values())
        if len(clips) != total:
            warnings.warn(
                f"{release.root}: holds {len(clips)} of {cls.title}'s {total} clips. The lists of this protocol are "
                "made of the file names that are there: clips may lie on another side than in the whole release",
                stacklevel=5,
            )
        return clips


class UCF101(_InClassFolders):
    """UCF101 (13,320 clips of 101 classes), three official folds."""

    key = "ucf101"
    title = "UCF101"
    label_sets = ("ucf101", "ucf101-sorted")
    lists_from_names = ("dvflnet_8020",)
    folds = {"official": 3, "dvflnet_8020": 1}
    official_counts = {
        ("official", 1): {"train": 9537, "test": 3783},
        ("official", 2): {"train": 9586, "test": 3734},
        ("official", 3): {"train": 9624, "test": 3696},
        ("dvflnet_8020", 1): {"train": 10690, "test": 2630},
    }
    warning = {
        "dvflnet_8020": "the lists that the DVFL-Net repository cut by file name. 81 of 101 classes have clips of one "
        "source on both sides, and all of the test clips lie in the official split-1 training list: for comparison "
        "with its figures only"
    }

    @classmethod
    def index(cls, release: Release, protocol: str, fold: int) -> dict[str, list[Clip]]:
        if protocol == "dvflnet_8020":
            return _eighty_twenty(cls.clips_found(release))
        lists = {}
        for split in ("train", "test"):
            text = release.need(f"{split}list{fold:02d}.txt", where="UCF101TrainTestSplits-RecognitionTask.zip")
            # lines of the training lists end with the class's number
            lists[split] = [cls.clip(line.split()[0]) for line in _lines(text)]
        return lists


class UCF50(_InClassFolders):
    """UCF50 (6,681 clips of 50 classes), which has no official lists."""

    key = "ucf50"
    title = "UCF50"
    label_sets = ("ucf50",)
    lists_from_names = ("groups_20_5", "logo", "dvflnet_8020")
    folds = {"groups_20_5": 1, "logo": 25, "dvflnet_8020": 1}
    official_counts = {
        ("groups_20_5", 1): {"train": 5305, "test": 1376},
        ("dvflnet_8020", 1): {"train": 5360, "test": 1321},
    }
    warning = {
        "dvflnet_8020": "the lists that the DVFL-Net repository cut by file name. 38 of 50 classes have clips of one "
        "source on both sides: for comparison with its figures only"
    }

    @classmethod
    def index(cls, release: Release, protocol: str, fold: int) -> dict[str, list[Clip]]:
        clips = cls.clips_found(release)
        if protocol == "dvflnet_8020":
            return _eighty_twenty(clips)
        groups = {clip: int(clip.group[1:]) if clip.group else 0 for clip in clips}
        if protocol == "groups_20_5":  # six classes have groups beyond 25; they are tested on
            tested = {clip for clip, group in groups.items() if group > 20}
        else:  # leave one of the first 25 groups out; those beyond stay in training
            tested = {clip for clip, group in groups.items() if group == fold}
        return {
            "train": [clip for clip in clips if clip not in tested],
            "test": [clip for clip in clips if clip in tested],
        }


class HMDB51(BenchmarkBuilder):
    """HMDB51 (6,766 clips of 51 classes), three official folds of 70 + 30 clips a class."""

    key = "hmdb51"
    title = "HMDB51"
    label_sets = ("hmdb51",)
    folds = {"official": 3}
    official_counts = {("official", fold): {"train": 3570, "test": 1530} for fold in (1, 2, 3)}

    def refuse(self, protocol: str, fold: int):
        if protocol == "dvflnet_8020":
            raise ValueError(
                "HMDB51, dvflnet_8020: this list was drawn at random and cannot be rebuilt by a rule; take 'official'"
            )
        super().refuse(protocol, fold)

    @staticmethod
    def video_id(path: str) -> str:
        path_ = PurePosixPath(path)
        return f"{path_.parent.name}/{path_.stem}"

    @classmethod
    def index(cls, release: Release, protocol: str, fold: int) -> dict[str, list[Clip]]:
        lists: dict[str, list[Clip]] = {"train": [], "test": []}
        for label in LABEL_SETS["hmdb51"].names:
            text = release.need(f"{label}_test_split{fold}.txt", where="test_train_splits.rar")
            for line in _lines(text):
                *name, flag = line.rsplit(maxsplit=1)
                if not name or flag not in ("0", "1", "2"):
                    raise ValueError(f"{label}_test_split{fold}.txt: {line!r} does not end with 0, 1 or 2")
                if flag != "0":  # 0: in neither list
                    split = "train" if flag == "1" else "test"
                    lists[split].append(Clip(f"{label}/{PurePosixPath(name[0]).stem}", label))
        return lists


class SomethingSomethingV2(BenchmarkBuilder):
    """Something-Something-v2 (220,847 clips of 174 classes); `test` only where the answers are."""

    key = "ssv2"
    title = "Something-Something-v2"
    label_sets = ("ssv2",)
    test_split = "validation"
    folds = {"official": 1}
    official_counts = {("official", 1): {"train": 168913, "validation": 24777, "test": 27157}}

    @classmethod
    def index(cls, release: Release, protocol: str, fold: int) -> dict[str, list[Clip]]:
        where = "20bn-something-something-download-package-labels.zip"
        prefix = "something-something-v2-"
        lists = {}
        for split in ("train", "validation"):
            text = release.need(f"{split}.json", f"{prefix}{split}.json", where=where)
            # the class is the template without its brackets; `label` is what one annotator wrote
            with _reading_list(release, f"{split}.json", 'a list of {"id": "1", "template": "..."}'):
                lists[split] = [
                    Clip(str(entry["id"]), entry["template"].replace("[", "").replace("]", ""))
                    for entry in json.loads(text)
                ]
        answers = release.read("test-answers.csv", f"{prefix}test-answers.csv")
        if answers is not None:
            rows = [line.split(";", 1) for line in _lines(answers)]
            wrong = [row[0] for row in rows if len(row) < 2]
            if wrong:
                raise ValueError(f"{release.root}: test-answers.csv has the line {wrong[0]!r}, not ID;CLASS")
            lists["test"] = [Clip(video_id, label) for video_id, label in rows]
        return lists


class Kinetics400(BenchmarkBuilder):
    """Kinetics-400 (about 306,000 clips of 400 classes). A clip in a replacement folder stands for its namesake."""

    key = "kinetics400"
    title = "Kinetics-400"
    label_sets = ("kinetics400",)
    test_split = "validation"
    folds = {"official": 1}
    official_counts = {("official", 1): {"train": 246534, "validation": 19906, "test": 38685}}

    @staticmethod
    def names(clip: Clip) -> tuple[str, ...]:
        return (clip.video_id, clip.video_id[:11])  # some copies name the file by the id alone

    @classmethod
    def index(cls, release: Release, protocol: str, fold: int) -> dict[str, list[Clip]]:
        lists = {}
        for split, names in (
            ("train", ("train",)),
            ("validation", ("val", "validate", "validation")),
            ("test", ("test",)),
        ):
            files = [f"{prefix}{name}.csv" for name in names for prefix in ("", "kinetics_400_", "kinetics-400_")]
            text = release.read(*files)
            if text is None and split == "validation":
                release.need(*files, where="the annotations of CVDF's kinetics-dataset")
            if text is None:
                continue
            columns = "label,youtube_id,time_start,time_end,split"
            with _reading_list(release, f"{split}'s csv", columns):
                rows = list(csv.DictReader(io.StringIO(text), restval=""))
            if not rows or "youtube_id" not in rows[0] or "time_start" not in rows[0]:
                raise ValueError(f"{release.root}: {split}'s csv has no columns youtube_id and time_start")
            if "label" not in rows[0]:  # some copies of the test list have no answers
                continue
            with _reading_list(release, f"{split}'s csv", columns):
                lists[split] = [
                    Clip(f"{row['youtube_id']}_{int(row['time_start']):06d}_{int(row['time_end']):06d}", row["label"])
                    for row in rows
                ]
        return lists


BENCHMARKS: dict[str, type[BenchmarkBuilder]] = {
    builder.key: builder for builder in (UCF50, UCF101, HMDB51, SomethingSomethingV2, Kinetics400)
}


def load_benchmark(
    name: str,
    data_dir: str | os.PathLike,
    split: str,
    protocol: str | None = None,
    fold: int = 1,
    streaming: bool = False,
    *,
    label_set: str | None = None,
    block_list: str | os.PathLike | None = None,
    cache_dir: str | os.PathLike | None = None,
) -> datasets.Dataset | datasets.IterableDataset:
    """
    A split of a benchmark, or of class folders of one's own.

    Args:
        name: `"ucf50"`, `"ucf101"`, `"hmdb51"`, `"ssv2"`, `"kinetics400"`, or `"folder"` for
            `data_dir/<split>/<class>/<video>`.
        data_dir: The extracted official release; or the folder of its zip or tar archives; or a URL of `fsspec`, such
            as `hf://datasets/ORG/REPO` with loose files, archives or Parquet.
        split: `"train"`, `"validation"` or `"test"`, as the benchmark has them.
        protocol: `"official"` (UCF101, HMDB51, Something-Something-v2, Kinetics-400), `"groups_20_5"` or `"logo"`
            (UCF50), `"dvflnet_8020"` (UCF50, UCF101: the DVFL-Net repository's own lists). The benchmark's first by
            default.
        fold: Which fold, from 1.
        streaming: An `IterableDataset` in shards, read as it goes.
        label_set: `"ucf101-sorted"` for UCF101 in the order of DVFL-Net's checkpoints.
        block_list: A report of `dvflnet verify`, whose unusable clips are left out.
        cache_dir: Where `datasets` keeps its tables; its own place by default.

    Returns:
        A dataset with the columns `video` (`{"path", "bytes"}`), `label`, `video_id`, and for UCF `group`.
        [`split_facts`] tells how many clips the lists name and which are missing.

    Raises:
        FileNotFoundError, ValueError: As [`BenchmarkBuilder`]; or if there is no such benchmark or split.

    Warns:
        UserWarning: If clips are missing, or the protocol leaks.
    """
    if name != "folder" and name not in BENCHMARKS:
        raise ValueError(f"there is no benchmark {name!r}; there are {', '.join(BENCHMARKS)}, and 'folder'")
    if name == "folder" or _is_parquet(data_dir):
        unused = {"protocol": protocol, "fold": None if fold == 1 else fold, "block_list": block_list}
        if name == "folder":
            unused["label_set"] = label_set
        for argument, value in unused.items():
            if value is not None:
                raise ValueError(
                    f"{data_dir}: has no lists but its own folders or files; {argument}={value} does not apply"
                )
    if name == "folder":
        return _load_folder(data_dir, split, streaming)
    if _is_parquet(data_dir):
        return _load_parquet(BENCHMARKS[name], data_dir, split, streaming, label_set, cache_dir)
    cache = None if cache_dir is None else os.fspath(cache_dir)
    builder = BENCHMARKS[name](data_dir, protocol, fold, label_set, block_list, split, cache_dir=cache)
    facts = builder.facts()
    dataset: Any
    if streaming:
        dataset = builder.as_streaming_dataset(split=split)
    else:
        if facts["splits"][split]["missing"] != [clip.video_id for clip in builder.lists[split]]:
            builder.download_and_prepare()
            dataset = builder.as_dataset(split=split)
        if facts["splits"][split]["missing"] is None:  # now that the archives have been read
            there = {*dataset["video_id"], *facts["splits"][split]["blocked"]}
            facts["splits"][split]["missing"] = [
                clip.video_id for clip in builder.lists[split] if clip.video_id not in there
            ]
    missing = facts["splits"][split]["missing"]
    if missing:
        listed = len(builder.lists[split])
        warnings.warn(
            f"{builder.title}, {split}: {len(missing)} of {listed} clips are missing in {data_dir}: "
            f"{', '.join(missing[:5])}{', ...' if len(missing) > 5 else ''}",
            stacklevel=2,
        )
        if len(missing) == listed:
            raise FileNotFoundError(f"{data_dir}: holds none of {split}'s videos.{builder.release._hint()}")
    dataset.info.description = json.dumps({**facts, "split": split})
    return dataset


def split_facts(dataset: datasets.Dataset | datasets.IterableDataset) -> dict[str, Any]:
    """
    Where a dataset of [`load_benchmark`] comes from: `benchmark`, `protocol`, `fold`, `split`, `listed` (clips that
    the lists name), `missing` (ids; None if that shows only when the archives are read) and `blocked` (ids).

    Raises:
        ValueError: If it comes from elsewhere.
    """
    try:
        facts = json.loads(dataset.info.description)
        return {**{key: value for key, value in facts.items() if key != "splits"}, **facts["splits"][facts["split"]]}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError("this dataset was not loaded by load_benchmark") from error


def _described(
    dataset: Any, name: str, protocol: str, split: str, listed: int | None, missing: Sequence[str] = ()
) -> Any:
    facts = {"benchmark": name, "protocol": protocol, "fold": 1, "folds": 1, "split": split}
    dataset.info.description = json.dumps(
        {**facts, "splits": {split: {"listed": listed, "missing": list(missing), "blocked": []}}}
    )
    return dataset


def _load_folder(data_dir: str | os.PathLike, split: str, streaming: bool) -> Any:
    found = load_video_folder(data_dir)
    if split not in found:
        raise ValueError(f"{data_dir}: has {', '.join(found)}, not {split!r}")
    dataset = found[split]
    count = len(dataset)
    missing = unreadable_videos(data_dir, split)
    if streaming:
        dataset = stream_tars(dataset) or dataset.to_iterable_dataset(num_shards=min(count, MAX_SHARDS))
    return _described(dataset, "folder", "class folders", split, count + len(missing), missing)


def _is_parquet(data_dir: str | os.PathLike) -> bool:
    filesystem, path = fsspec.core.url_to_fs(os.fspath(data_dir))
    files = filesystem.find(path) if filesystem.isdir(path) else []
    return any(file.endswith(".parquet") for file in files) and not any(
        file.lower().endswith((*VIDEO_SUFFIXES, *ARCHIVE_SUFFIXES)) for file in files
    )


def _load_parquet(
    builder: type[BenchmarkBuilder],
    data_dir: str | os.PathLike,
    split: str,
    streaming: bool,
    label_set: str | None,
    cache_dir: str | os.PathLike | None,
) -> Any:
    """Parquet with videos inside and the splits of whoever made it; classes are matched by name."""
    filesystem, path = fsspec.core.url_to_fs(os.fspath(data_dir))
    spellings = {"validation": ("validation", "val"), "train": ("train",), "test": ("test",)}.get(split, (split,))
    files = [file for file in filesystem.find(path) if file.endswith(".parquet")]
    chosen = [file for file in files if re.split(r"[-_.]", os.path.basename(file))[0] in spellings]
    if not chosen:
        raise ValueError(
            f"{data_dir}: has no Parquet file of {split!r}, only {', '.join(map(os.path.basename, files))}"
        )
    if len({os.path.dirname(file) for file in chosen}) > 1:
        raise ValueError(f"{data_dir}: has {split!r} in several folders, {', '.join(sorted(chosen)[:3])}; name one")
    dataset: Any = datasets.load_dataset(
        "parquet",
        data_files=[filesystem.unstrip_protocol(file) for file in chosen],
        split="train",
        streaming=streaming,
        cache_dir=None if cache_dir is None else os.fspath(cache_dir),
    )
    columns = dataset.features
    if "video" not in columns or "label" not in columns:
        raise ValueError(f"{data_dir}: its Parquet has the columns {', '.join(columns)}; video and label are needed")
    dataset = dataset.cast_column("video", datasets.Video(decode=False))
    theirs = columns["label"].names if isinstance(columns["label"], datasets.ClassLabel) else None
    if theirs is None and columns["label"].dtype != "string":
        raise ValueError(f"{data_dir}: its labels are numbers without names, whose order nothing tells")
    names = list(LABEL_SETS[label_set or builder.label_sets[0]].names)
    unknown = sorted(set(theirs or ()) - set(names))
    if unknown:
        raise ValueError(f"{data_dir}: has the classes {', '.join(unknown[:5])}, which {builder.title} has not")

    def to_our_columns(row: dict[str, Any], index: int) -> dict[str, Any]:
        label = row["label"]
        if theirs:
            label = theirs[label] if 0 <= label < len(theirs) else None
        if label not in names:
            raise ValueError(f"{data_dir}: row {index} has the class {label!r}, which {builder.title} has not")
        return {"label": names.index(label), "video_id": row.get("video_id") or f"{index}:{row['video']['path']}"}

    features = datasets.Features(
        {
            "video": datasets.Video(decode=False),
            "label": datasets.ClassLabel(names=names),
            "video_id": datasets.Value("string"),
        }
    )
    keep = dataset.select_columns([name for name in ("video", "label", "video_id") if name in columns])
    dataset = keep.map(to_our_columns, with_indices=True, features=features)
    return _described(dataset, builder.key, "repository", split, None if streaming else len(dataset))


__all__ = ["BENCHMARKS", "Clip", "load_benchmark", "split_facts"]
