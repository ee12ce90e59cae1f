"""
Base class of all benchmarks: builds a table of a benchmark's clips with `datasets`.

The builder first indexes the release, using only its annotation files and file names. It then finds the videos by
name, in any subfolder of the release; no video is decoded. While it streams, `datasets` patches `open` and similar
functions in the modules of builders, so this module contains nothing else.
"""

import hashlib
import json
import math
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import datasets

from .label_sets import LABEL_SETS
from .releases import Release
from .video_files import is_video
from .whole_files import read_json_lines


MAX_SHARDS = 1024  # shards of a streamed split: enough for any number of workers, few enough to shuffle at once


class Clip(NamedTuple):
    """One line of a benchmark's lists: id of the video in the release, class, and group, if there is one."""

    video_id: str
    label: str
    group: str | None = None


@dataclass
class BenchmarkConfig(datasets.BuilderConfig):
    """Settings that identify a loaded benchmark; all of them are part of the cache key."""

    protocol: str = ""
    fold: int = 1
    split: str | None = None
    label_set: str = ""
    block_list: str | None = None
    digest: str = ""  # of the lists and the available clips, so that a release is read again if it changes


class BenchmarkBuilder(datasets.GeneratorBasedBuilder):
    """
    Base class of the benchmarks.

    The columns are `video` (`{"path", "bytes"}`, not decoded), `label` (`ClassLabel`), `video_id`, and `group` for
    benchmarks in which several clips are cut from the same source video.

    Args:
        data_dir: The extracted release, its zip or tar archives, or a URL such as `hf://datasets/ORG/REPO`.
        protocol: Protocol whose lists are used; by default the first one in `folds`.
        fold: Number of the fold, from 1 to `folds[protocol]`.
        label_set: Label set with a different order of the same classes, for benchmarks that have one.
        block_list: A report of `dvflnet verify`; clips that it lists as empty or undecodable are left out.
        split: Prepare only this split; by default all splits are prepared.

    Raises:
        FileNotFoundError: If the release or an annotation file does not exist.
        ValueError: If the protocol, fold, label set or split does not exist, or a list contains an unknown class.
    """

    VERSION = datasets.Version("1.0.0")
    BUILDER_CONFIG_CLASS = BenchmarkConfig
    config: BenchmarkConfig

    key: str
    title: str
    label_sets: tuple[str, ...]
    folds: dict[str, int]  # number of folds of each protocol, the default protocol first
    official_counts: dict[tuple[str, int], dict[str, int]]  # clips per split, by protocol and fold
    test_split = "test"  # the split on which results are reported
    lists_from_names: tuple[str, ...] = ()  # protocols whose lists are made from the file names found
    has_groups = False
    warning: dict[str, str] = {}  # by protocol

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
            raise ValueError(
                f"{self.title}: unknown label set {label_set!r}; choose one of {', '.join(self.label_sets)}"
            )
        self.release = Release(data_dir)
        self.blocked = _read_block_list(block_list)
        self.lists = self.index(self.release, protocol, fold)
        names = set(LABEL_SETS[label_set].names)
        for listed, clips in self.lists.items():
            unknown = sorted({clip.label for clip in clips} - names)
            if unknown:
                classes = ", ".join(unknown[:5])
                raise ValueError(
                    f"{self.release.root}: {listed} has the classes {classes}, which are not classes of {self.title}"
                )
        if split is not None and split not in self.lists:
            raise ValueError(
                f"{self.title}, {protocol}: has no split {split!r}; choose one of {', '.join(self.lists)}"
            )
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
            raise ValueError(f"{self.title}: unknown protocol {protocol!r}; choose one of {', '.join(self.folds)}")
        if not 1 <= fold <= self.folds[protocol]:
            raise ValueError(
                f"{self.title}, {protocol}: has no fold {fold}; choose one from 1 to {self.folds[protocol]}"
            )
        if protocol in self.warning:
            warnings.warn(f"{self.title}, {protocol}: {self.warning[protocol]}", stacklevel=4)

    @classmethod
    def index(cls, release: Release, protocol: str, fold: int) -> dict[str, list[Clip]]:
        """Clips of each split, in the order of the lists."""
        raise NotImplementedError

    @staticmethod
    def video_id(path: str) -> str:
        """Id that the lists use for the video at this path."""
        return PurePosixPath(path).stem

    @staticmethod
    def names(clip: Clip) -> tuple[str, ...]:
        """Names that the clip's video file may have, the most reliable one first."""
        return (clip.video_id,)

    def _find_videos(self):
        """Find each video: a loose file, or in an archive. The content of a tar is known only after reading it."""
        release = self.release
        self.loose: dict[str, str] = {}
        replacements = set()
        for file in release.files:
            if is_video(file):
                name = self.video_id(file)
                if name not in self.loose or release.is_replacement(file):
                    self.loose[name] = release.location(file)
                if release.is_replacement(file):
                    replacements.add(name)
        # a video in a replacement archive is not taken from any other archive or file
        self.replaced: set[str] = set()
        members: dict[str, str] = {}
        for path, archive in release.archives.items():
            if archive.is_zip or release.is_replacement(path):
                for member in filter(is_video, archive.members):
                    members.setdefault(self.video_id(member), f"{path}::{member}")
                    if release.is_replacement(path):
                        self.replaced.add(self.video_id(member))
        self.replaced -= replacements
        for name in self.replaced & set(self.loose):
            del self.loose[name]
        self.locations = {**members, **self.loose}
        self.complete = all(archive.is_zip for archive in release.archives.values())

    def is_there(self, clip: Clip) -> bool:
        return any(name in self.locations for name in self.names(clip))

    def loose_file(self, clip: Clip) -> str | None:
        """Path or URL of a clip's video file; None if the video is in an archive or missing."""
        return next((self.loose[name] for name in self.names(clip) if name in self.loose), None)

    def facts(self) -> dict[str, Any]:
        """Benchmark, protocol and fold; for each split, number of listed clips, missing and blocked clips."""
        protocol, fold = self.config.protocol, self.config.fold
        official = self.official_counts.get((protocol, fold), {}) if protocol in self.lists_from_names else {}
        return {
            "benchmark": self.key,
            "protocol": protocol,
            "fold": fold,
            "folds": self.folds[protocol],
            "splits": {
                split: {
                    # a list made from file names does not contain the missing clips, so use the official count
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
                for path, content in self.release.archives[archive].contents():
                    clip = rows.get(self.video_id(path))
                    if clip is not None:
                        yield clip.video_id, self._example({"path": path, "bytes": content}, clip)

    def _example(self, video: dict[str, Any], clip: Clip) -> dict[str, Any]:
        example = {"video": video, "label": clip.label, "video_id": clip.video_id}
        return {**example, "group": clip.group} if self.has_groups else example


def _read_block_list(path: str | os.PathLike | None) -> set[str]:
    """Ids of the clips that a report of `dvflnet verify` lists as empty or undecodable."""
    if path is None:
        return set()
    wrong = "is not a line of a complete report; run `dvflnet verify` to write one"
    rows = read_json_lines(path, lambda row: (row["video_id"], row["outcome"]), wrong)
    return {video_id for video_id, outcome in rows if outcome in ("empty", "undecodable")}


__all__ = ["MAX_SHARDS", "BenchmarkBuilder", "BenchmarkConfig", "Clip"]
