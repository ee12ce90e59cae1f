"""
What builds a table of a benchmark's clips with `datasets`: the base of every benchmark.

A release is indexed first, as a pure function of its annotation files and file names, and its videos are found by name
wherever they lie below the folder; nothing is decoded. `datasets` patches `open` and the like in the modules of
builders while it streams, which is why nothing else lives here.
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
from .video_column import VIDEO_SUFFIXES


MAX_SHARDS = 1024  # of a streamed split: enough for any number of workers, few enough to shuffle at once


class Clip(NamedTuple):
    """One line of a benchmark's lists: what names the video in the release, its class, and its group, if any."""

    video_id: str
    label: str
    group: str | None = None


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
        """Find where each video lies: loose, or in an archive. The content of a tar is known only once it is read."""
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


__all__ = ["MAX_SHARDS", "BenchmarkBuilder", "BenchmarkConfig", "Clip"]
