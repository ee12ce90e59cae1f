"""
The benchmarks: where each official release has its lists and videos, and the table of clips that is built from them.

A release is indexed by its annotation files and file names; no video is decoded.
"""

import csv
import io
import json
import math
import os
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from .class_folders import NOT_FINISHED, UNFINISHED
from .label_sets import LABEL_SETS, listed
from .storages import filesystem_of, read_json_lines
from .video_files import ARCHIVE_SUFFIXES, find_files, is_video, warn_of_left_out


class Release:
    """
    The files of an official release below a folder or URL, extracted, or as `dvflnet prepare` wrote them.

    Raises:
        FileNotFoundError: If the folder does not exist.

    Warns:
        UserWarning: If broken links and the like are left out, or hidden or system files with the ending of a video.
    """

    def __init__(self, root: str | os.PathLike):
        self.root = os.fspath(root)
        self.filesystem, path = filesystem_of(self.root)
        if not self.filesystem.isdir(path):
            raise FileNotFoundError(f"{self.root}: the folder does not exist; archives must be extracted first")
        if self.filesystem.exists(f"{path}/{UNFINISHED}"):
            raise ValueError(f"{self.root}: {NOT_FINISHED}")
        files, left_out = find_files(path, None if self.is_local else self.filesystem)
        warn_of_left_out(self.root, left_out)
        # upper folders first: a copy of an annotation file in a subfolder does not hide the release's own file
        self.files = sorted(files, key=lambda file: (file.count("/"), file))
        # path of each video in the release, and where it is
        located = str if self.is_local else self.filesystem.unstrip_protocol
        self.videos = {file.removeprefix(path): located(file) for file in self.files if is_video(file)}

    @property
    def is_local(self) -> bool:
        return "file" in self.filesystem.protocol

    def read(self, *names: str) -> str | None:
        """Text of the first file with one of these names."""
        path = next((file for file in self.files if os.path.basename(file) in names), None)
        if path is None:
            return None
        try:
            return self.filesystem.cat_file(path).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}: is not UTF-8 text (byte {error.start}); save it as UTF-8") from error

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
        for name in map(os.path.basename, self.files):
            if name.lower().endswith(ARCHIVE_SUFFIXES):
                return f" It contains {name}: extract archives first (unrar x, unzip, tar -xf)."
            if re.search(r"-something-v2-\d\d$", name):
                join = "cat 20bn-something-something-v2-?? | tar -xzf -"
                return f" It contains the parts {name}, ...: join and extract them first ({join})."
            if name.endswith(".py"):
                return f" It contains {name}: loading scripts are no longer supported; download the release itself."
        return ""


class Clip(NamedTuple):
    """One line of a benchmark's lists: id of the video in the release, class, and group, if there is one."""

    video_id: str
    label: str
    group: str | None = None


class Benchmark:
    """
    Base class of the benchmarks: the lists of a protocol and fold, and the videos found in a release.

    Arguments and errors are those of [`load_benchmark`].
    """

    key: str
    title: str
    other_label_sets: tuple[str, ...] = ()  # the same classes in another order
    folds: dict[str, int]  # number of folds of each protocol, the default protocol first
    official_counts: dict[tuple[str, int], dict[str, int]]  # clips per split, by protocol and fold
    test_split = "test"  # the split on which results are reported
    lists_from_names: tuple[str, ...] = ()  # protocols whose lists are made from the file names found
    has_groups = False
    in_class_folders = False  # the same file name may occur in several
    warning: dict[str, str] = {}  # by protocol

    def __init__(
        self,
        data_dir: str | os.PathLike,
        protocol: str | None = None,
        fold: int = 1,
        label_set: str | None = None,
        block_list: str | os.PathLike | None = None,
        classes: Sequence[str] | None = None,
    ):
        self.protocol, self.fold = protocol, fold = protocol or next(iter(self.folds)), fold
        if protocol not in self.folds:
            raise ValueError(f"{self.title}: unknown protocol {protocol!r}; choose one of {', '.join(self.folds)}")
        if not 1 <= fold <= self.folds[protocol]:
            raise ValueError(
                f"{self.title}, {protocol}: has no fold {fold}; choose one from 1 to {self.folds[protocol]}"
            )
        if protocol in self.warning:
            warnings.warn(f"{self.title}, {protocol}: {self.warning[protocol]}", stacklevel=3)
        label_set = label_set or self.key
        if label_set not in (known := (self.key, *self.other_label_sets)):
            raise ValueError(f"{self.title}: unknown label set {label_set!r}; choose one of {', '.join(known)}")
        self.names = LABEL_SETS[label_set].names
        self.release = Release(data_dir)
        self.blocked = read_block_list(block_list)
        self.lists = self.index(self.release, protocol, fold)
        trained = {clip.video_id for clip in self.lists.get("train", ())}
        for name, clips in self.lists.items():
            if unknown := {clip.label for clip in clips}.difference(self.names):
                raise ValueError(
                    f"{self.release.root}: {name} has the classes {listed(unknown)}, which are not classes of "
                    f"{self.title}"
                )
            if name != "train" and (both := trained.intersection(clip.video_id for clip in clips)):
                raise ValueError(
                    f"{self.release.root}: the lists have {listed(both)} in both train and {name}; use the official "
                    "lists, or take them out of one of the two"
                )
        # replacements first
        found = sorted(self.release.videos.items(), key=lambda item: "replacement" not in item[0])
        self.places: dict[str, str] = {}  # path or URL of each video, by its id
        for path, place in found:
            self.places.setdefault(self.video_id(path), place)
        # on file systems that ignore capitals, copies of a release spell folders and files in their own way
        self.spellings = {name.casefold(): name for name in self.places} if self.in_class_folders else {}
        if classes is not None:
            self._choose(classes)

    def _choose(self, classes: Sequence[str]):
        """Leave out all other classes. The chosen ones keep their order, whatever the order of `classes`."""
        if classes in ("present", ["present"], ("present",)):
            classes = self._present_classes()
            absent = set(self.names).difference(classes)
            if absent:
                warnings.warn(
                    f"{self.title}: {len(absent)} of {len(self.names)} classes have no videos in {self.release.root} "
                    f"and are left out: {listed(absent)}",
                    stacklevel=4,
                )
        unknown = set(classes).difference(self.names)
        if unknown or isinstance(classes, str) or not classes:
            raise ValueError(
                f"classes must be 'present' or a list of classes of {self.title}, such as {list(self.names[:2])}; got "
                f"{listed(unknown) if unknown and not isinstance(classes, str) else repr(classes)}"
            )
        self.names = tuple(name for name in self.names if name in classes)
        self.lists = {split: [clip for clip in clips if clip.label in classes] for split, clips in self.lists.items()}

    def _present_classes(self) -> list[str]:
        """The listed classes with at least one video in the release."""
        listed_clips = (clip for clips in self.lists.values() for clip in clips)
        present = {clip.label for clip in listed_clips if self._place(clip) is not None}
        if not present:
            raise FileNotFoundError(f"{self.release.root}: contains none of the listed videos.{self.release.hint}")
        return [name for name in self.names if name in present]

    @property
    def part(self) -> str | None:
        """Which part of the benchmark is loaded, such as `16 of 101 classes`; None for the whole."""
        number = len(LABEL_SETS[self.key].names)
        return None if len(self.names) == number else f"{len(self.names)} of {number} classes"

    @classmethod
    def index(cls, release: Release, protocol: str, fold: int) -> dict[str, list[Clip]]:
        """Clips of each split, in the order of the lists."""
        raise NotImplementedError

    @classmethod
    def video_id(cls, path: str) -> str:
        """Id that the lists use for the video at this path."""
        path_ = PurePosixPath(path.replace("\\", "/"))  # lists from Windows
        return f"{path_.parent.name}/{path_.stem}" if cls.in_class_folders else path_.stem

    @staticmethod
    def file_ids(clip: Clip) -> tuple[str, ...]:
        """Ids that the clip's video file may have, the most reliable one first."""
        return (clip.video_id,)

    def _place(self, clip: Clip) -> str | None:
        names = (*self.file_ids(clip), self.spellings.get(clip.video_id.casefold()))
        return next((self.places[name] for name in names if name in self.places), None)

    def rows(self, split: str) -> tuple[list[dict[str, Any]], list[str]]:
        """The rows of a split's clips that are found, without blocked ones, and the ids of those that are missing."""
        rows, missing = [], dict[str, None]()
        for clip in self.lists[split]:
            if clip.video_id in self.blocked:
                continue
            place = self._place(clip)
            if place is None:
                missing[clip.video_id] = None
                continue
            row = {"video": {"path": place, "bytes": None}, "label": clip.label, "video_id": clip.video_id}
            rows.append(row | ({"group": clip.group} if self.has_groups else {}))
        return rows, list(missing)

    @property
    def official(self) -> dict[str, int]:
        """Number of clips in the official list of each split, where it is known: not for some of the classes."""
        return {} if self.part else self.official_counts.get((self.protocol, self.fold), {})

    def warn_of_missing(self, split: str, missing: set[str]):
        clips = self.lists[split]
        whole = {clip.label for clip in clips} - {clip.label for clip in clips if clip.video_id not in missing}
        shown = [f"all of {label}" for label in sorted(whole)]
        shown += [clip.video_id for clip in clips if clip.video_id in missing and clip.label not in whole]
        warnings.warn(
            f"{self.title}, {split}: {len(missing)} of {len(clips)} clips are missing in {self.release.root}: "
            f"{', '.join(shown[:5])}{', ...' if len(shown) > 5 else ''}",
            stacklevel=4,
        )


def read_block_list(path: str | os.PathLike | None) -> set[str]:
    """Ids of the clips that a report of `dvflnet verify` lists as empty, undecodable or leaked."""
    if path is None:
        return set()
    wrong = "is not a line of a complete report; run `dvflnet verify` to write one"
    rows = read_json_lines(path, lambda row: (row["video_id"], row["outcome"]), wrong)
    return {video_id for video_id, outcome in rows if outcome in ("empty", "undecodable", "leaked")}


@contextmanager
def _reading_list(release: Release, name: str, expected: str) -> Iterator[None]:
    """Turn every error of the reader into a `ValueError` that names the list and the expected format."""
    try:
        yield
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{release.root}: {name} cannot be read: expected {expected} ({reason})") from error


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def _eighty_twenty(clips: Iterable[Clip]) -> dict[str, list[Clip]]:
    """
    Split clips by the rule of DVFL-Net's lists.

    In each class, sorted by name, the first ceil(0.8 n) clips are for training, and the rest for testing.
    """
    classes: dict[str, list[Clip]] = {}
    for clip in sorted(clips):
        classes.setdefault(clip.label, []).append(clip)
    lists: dict[str, list[Clip]] = {"train": [], "test": []}
    for _, members in sorted(classes.items()):
        cut = math.ceil(0.8 * len(members))
        lists["train"] += members[:cut]
        lists["test"] += members[cut:]
    return lists


class _InClassFolders(Benchmark):
    """UCF: `<Class>/v_<Class>_g<group>_c<clip>.avi`. The class is the folder: file names may spell it differently."""

    has_groups = True
    in_class_folders = True

    @classmethod
    def clip(cls, path: str) -> Clip:
        folder, stem = cls.video_id(path).split("/")
        label = next((name for name in LABEL_SETS[cls.key].names if name.casefold() == folder.casefold()), folder)
        group = re.search(r"_g(\d+)_c\d+$", stem)
        return Clip(f"{label}/{stem}", label, f"g{group[1]}" if group else None)

    @classmethod
    def clips_found(cls, release: Release) -> list[Clip]:
        clips = sorted(set(map(cls.clip, release.videos)))
        if not clips:
            raise FileNotFoundError(f"{release.root}: contains no videos.{release.hint}")
        total = sum(cls.official_counts["dvflnet_8020", 1].values())
        if len(clips) != total:
            warnings.warn(
                f"{release.root}: contains {len(clips)} of the {total} clips of {cls.title}. This protocol makes its "
                "lists from the file names found, so clips may be in a different split than in the complete release",
                stacklevel=5,
            )
        return clips


class UCF101(_InClassFolders):
    """UCF101 (13,320 clips of 101 classes), with three official folds."""

    key = "ucf101"
    title = "UCF101"
    other_label_sets = ("ucf101-sorted",)
    lists_from_names = ("dvflnet_8020",)
    folds = {"official": 3, "dvflnet_8020": 1}
    official_counts = {
        ("official", 1): {"train": 9537, "test": 3783},
        ("official", 2): {"train": 9586, "test": 3734},
        ("official", 3): {"train": 9624, "test": 3696},
        ("dvflnet_8020", 1): {"train": 10690, "test": 2630},
    }
    warning = {
        "dvflnet_8020": "these are the lists of the DVFL-Net repository, split by file name. In 81 of 101 classes, "
        "clips of the same source are in both the training and the test list, and all of the test clips are in the "
        "official split-1 training list. Use them only for comparison with the results of that repository"
    }

    @classmethod
    def index(cls, release: Release, protocol: str, fold: int) -> dict[str, list[Clip]]:
        if protocol == "dvflnet_8020":
            return _eighty_twenty(cls.clips_found(release))
        lists = {}
        for split in ("train", "test"):
            text = release.need(f"{split}list{fold:02d}.txt", where="UCF101TrainTestSplits-RecognitionTask.zip")
            # lines of the training lists end with the class number
            lists[split] = [cls.clip(line.split()[0]) for line in _lines(text)]
        return lists


class UCF50(_InClassFolders):
    """UCF50 (6,681 clips of 50 classes). It has no official lists."""

    key = "ucf50"
    title = "UCF50"
    lists_from_names = ("groups_20_5", "logo", "dvflnet_8020")
    folds = {"groups_20_5": 1, "logo": 25, "dvflnet_8020": 1}
    official_counts = {
        ("groups_20_5", 1): {"train": 5305, "test": 1376},
        ("dvflnet_8020", 1): {"train": 5360, "test": 1321},
    }
    warning = {
        "dvflnet_8020": "these are the lists of the DVFL-Net repository, split by file name. In 38 of 50 classes, "
        "clips of the same source are in both the training and the test list. Use them only for comparison with the "
        "results of that repository"
    }

    @classmethod
    def index(cls, release: Release, protocol: str, fold: int) -> dict[str, list[Clip]]:
        clips = cls.clips_found(release)
        if protocol == "dvflnet_8020":
            return _eighty_twenty(clips)
        groups = {clip: int(clip.group[1:]) if clip.group else 0 for clip in clips}
        if protocol == "groups_20_5":  # six classes have groups above 25, which are in the test split
            tested = {clip for clip, group in groups.items() if group > 20}
        else:  # leave one of the first 25 groups out; groups above 25 stay in training
            tested = {clip for clip, group in groups.items() if group == fold}
        return {
            "train": [clip for clip in clips if clip not in tested],
            "test": [clip for clip in clips if clip in tested],
        }


class _ListPerClass(Benchmark):
    """HMDB51 and JHMDB: `<class>/<clip>.avi`, and `<class>_test_split<fold>.txt` of lines `<clip>.avi <flag>`."""

    folds = {"official": 3}
    in_class_folders = True
    lists_come_with: str
    splits: dict[str, str | None]  # by flag; None for clips that are in neither list

    @staticmethod
    def group(label: str, stem: str) -> str | None:
        return None

    @classmethod
    def index(cls, release: Release, protocol: str, fold: int) -> dict[str, list[Clip]]:
        lists: dict[str, list[Clip]] = {"train": [], "test": []}
        for label in LABEL_SETS[cls.key].names:
            name = f"{label}_test_split{fold}.txt"
            for line in _lines(release.need(name, where=cls.lists_come_with)):
                *file, flag = line.rsplit(maxsplit=1)
                if not file or flag not in cls.splits:
                    raise ValueError(
                        f"{release.root}: {name}: {line!r} does not end with one of {', '.join(cls.splits)}"
                    )
                split, stem = cls.splits[flag], PurePosixPath(file[0]).stem
                if split is not None:
                    lists[split].append(Clip(f"{label}/{stem}", label, cls.group(label, stem)))
        return lists


class HMDB51(_ListPerClass):
    """HMDB51 (6,766 clips of 51 classes), with three official folds of 70 training and 30 test clips per class."""

    key = "hmdb51"
    title = "HMDB51"
    official_counts = {("official", fold): {"train": 3570, "test": 1530} for fold in (1, 2, 3)}
    lists_come_with = "test_train_splits.rar"
    splits = {"0": None, "1": "train", "2": "test"}


class JHMDB(_ListPerClass):
    """
    JHMDB (928 clips of 21 classes of HMDB51, cut to the action), with three official folds.

    The group of a clip is the title of its source video, which may have clips in several classes. In the lists of fold
    1, no title has clips of the same class on both sides, but 24 titles have clips of different classes.
    """

    key = "jhmdb"
    title = "JHMDB"
    official_counts = {("official", 1): {"train": 660, "test": 268}}
    lists_come_with = "splits.zip"
    splits = {"1": "train", "2": "test"}
    has_groups = True

    @staticmethod
    def group(label: str, stem: str) -> str | None:
        # after the title: class, visible body parts, camera motion, number of people, viewpoint, quality and number
        tail = rf"_{label}_[fhlu]_[cn]m_np\d+_(?:ba|fr|le|ri)_(?:bad|goo|med)_\d+"
        match = re.fullmatch(rf"(.+){tail}", stem)
        return match[1] if match else None


class SomethingSomethingV2(Benchmark):
    """Something-Something-v2 (220,847 clips of 174 classes). `test` needs the file of test answers."""

    key = "ssv2"
    title = "Something-Something-v2"
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
            with _reading_list(release, "test-answers.csv", "lines of ID;CLASS"):
                lists["test"] = [Clip(*line.split(";", 1)) for line in _lines(answers)]
        return lists


class Kinetics400(Benchmark):
    """
    Kinetics-400 (about 306,000 clips of 400 classes).

    A clip in a replacement folder is used instead of the clip with the same name elsewhere.
    """

    key = "kinetics400"
    title = "Kinetics-400"
    test_split = "validation"
    folds = {"official": 1}
    official_counts = {("official", 1): {"train": 246534, "validation": 19906, "test": 38685}}

    @staticmethod
    def file_ids(clip: Clip) -> tuple[str, ...]:
        return (clip.video_id, clip.video_id[:11])  # some copies use only the YouTube id as the file name

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
            with _reading_list(release, f"{split}'s csv", "label,youtube_id,time_start,time_end,split"):
                rows = list(csv.DictReader(io.StringIO(text), restval=""))
                if "label" not in rows[0]:  # some copies of the test list have no labels
                    continue
                lists[split] = [
                    Clip(f"{row['youtube_id']}_{int(row['time_start']):06d}_{int(row['time_end']):06d}", row["label"])
                    for row in rows
                ]
        return lists


BENCHMARKS: dict[str, type[Benchmark]] = {
    benchmark.key: benchmark for benchmark in (UCF50, UCF101, HMDB51, JHMDB, SomethingSomethingV2, Kinetics400)
}
