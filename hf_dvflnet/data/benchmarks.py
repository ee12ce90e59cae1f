"""
The supported benchmarks: how to read the lists of each official release.

While it streams, `datasets` patches `open` and similar functions in this module, so it contains nothing else.
"""

import csv
import io
import json
import math
import re
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath

from .benchmark_builder import BenchmarkBuilder, Clip
from .label_sets import LABEL_SETS, listed
from .releases import Release
from .video_files import is_video


@contextmanager
def _reading_list(release: Release, name: str, expected: str) -> Iterator[None]:
    """Turn every error of the reader into a `ValueError` that names the list and the expected format."""
    try:
        yield
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError, csv.Error) as error:
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


class _InClassFolders(BenchmarkBuilder):
    """UCF: `<Class>/v_<Class>_g<group>_c<clip>.avi`. The class is the folder: file names may spell it differently."""

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
            raise FileNotFoundError(f"{release.root}: contains no videos.{release.hint()}")
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
    label_sets = ("ucf50",)
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


class _ListPerClass(BenchmarkBuilder):
    """HMDB51 and JHMDB: `<class>/<clip>.avi`, and `<class>_test_split<fold>.txt` of lines `<clip>.avi <flag>`."""

    folds = {"official": 3}
    lists_come_with: str
    splits: dict[str, str | None]  # by flag; None for clips that are in neither list

    @staticmethod
    def video_id(path: str) -> str:
        path_ = PurePosixPath(path)
        return f"{path_.parent.name}/{path_.stem}"

    @staticmethod
    def group(label: str, stem: str) -> str | None:
        return None

    @classmethod
    def index(cls, release: Release, protocol: str, fold: int) -> dict[str, list[Clip]]:
        cls._refuse_other_lists(release, fold)
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

    @classmethod
    def _refuse_other_lists(cls, release: Release, fold: int):
        """Raise an error if there are lists, but not of this fold, or not of exactly the classes of the benchmark."""
        found: dict[int, set[str]] = {}
        for name in release.list_names():
            if match := re.fullmatch(r"(.+)_test_split(\d+)\.txt", name):
                found.setdefault(int(match[2]), set()).add(match[1])
        if found and fold not in found:
            raise FileNotFoundError(
                f"{release.root}: has no lists of fold {fold}, only of fold {', '.join(map(str, sorted(found)))}; "
                f"<class>_test_split{fold}.txt comes with {cls.lists_come_with}"
            )
        there, classes = found.get(fold, set()), set(LABEL_SETS[cls.key].names)
        if there and there != classes:
            raise ValueError(
                f"{release.root}: its lists of fold {fold} are not of the classes of {cls.title}; only the lists have "
                f"{listed(there - classes)}, only {cls.title} has {listed(classes - there)}{_owner(there)}"
            )


def _owner(classes: Iterable[str]) -> str:
    """End of an error message that names the benchmark with these classes, if there is one."""
    for builder in BENCHMARKS.values():
        if set(classes) == set(LABEL_SETS[builder.label_sets[0]].names):
            return f"; these are the classes of {builder.title}, {builder.key!r}"
    return ""


class HMDB51(_ListPerClass):
    """HMDB51 (6,766 clips of 51 classes), with three official folds of 70 training and 30 test clips per class."""

    key = "hmdb51"
    title = "HMDB51"
    label_sets = ("hmdb51",)
    official_counts = {("official", fold): {"train": 3570, "test": 1530} for fold in (1, 2, 3)}
    lists_come_with = "test_train_splits.rar"
    splits = {"0": None, "1": "train", "2": "test"}

    def refuse(self, protocol: str, fold: int):
        if protocol == "dvflnet_8020":
            raise ValueError(
                "HMDB51, dvflnet_8020: the lists were drawn at random and cannot be rebuilt by a rule; use 'official'"
            )
        super().refuse(protocol, fold)


class JHMDB(_ListPerClass):
    """
    JHMDB (928 clips of 21 classes of HMDB51, cut to the action), with three official folds.

    The group of a clip is the title of its source video, which may have clips in several classes. In the lists of fold
    1, no title has clips of the same class on both sides, but 24 titles have clips of different classes.
    """

    key = "jhmdb"
    title = "JHMDB"
    label_sets = ("jhmdb",)
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

    @classmethod
    def index(cls, release: Release, protocol: str, fold: int) -> dict[str, list[Clip]]:
        lists = super().index(release, protocol, fold)
        # the clips of HMDB51 have the same names, but are not cut to the action
        classes = set(LABEL_SETS["jhmdb"].names)
        folders = {PurePosixPath(file).parent for file in release.files if is_video(file)}
        beside = {folder.parent for folder in folders if folder.name in classes}
        others = {folder.name for folder in folders if folder.parent in beside} - classes
        if others:
            raise ValueError(
                f"{release.root}: has folders of videos, but no lists, of {listed(others)}, which are not classes of "
                f"JHMDB{_owner(classes | others)}"
            )
        return lists


class SomethingSomethingV2(BenchmarkBuilder):
    """Something-Something-v2 (220,847 clips of 174 classes). `test` needs the file of test answers."""

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
                raise ValueError(f"{release.root}: test-answers.csv contains the line {wrong[0]!r}; expected ID;CLASS")
            lists["test"] = [Clip(video_id, label) for video_id, label in rows]
        return lists


class Kinetics400(BenchmarkBuilder):
    """
    Kinetics-400 (about 306,000 clips of 400 classes).

    A clip in a replacement folder is used instead of the clip with the same name elsewhere.
    """

    key = "kinetics400"
    title = "Kinetics-400"
    label_sets = ("kinetics400",)
    test_split = "validation"
    folds = {"official": 1}
    official_counts = {("official", 1): {"train": 246534, "validation": 19906, "test": 38685}}

    @staticmethod
    def names(clip: Clip) -> tuple[str, ...]:
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
            columns = "label,youtube_id,time_start,time_end,split"
            with _reading_list(release, f"{split}'s csv", columns):
                rows = list(csv.DictReader(io.StringIO(text), restval=""))
            if not rows or "youtube_id" not in rows[0] or "time_start" not in rows[0]:
                raise ValueError(f"{release.root}: {split}'s csv has no columns youtube_id and time_start")
            if "label" not in rows[0]:  # some copies of the test list have no labels
                continue
            with _reading_list(release, f"{split}'s csv", columns):
                lists[split] = [
                    Clip(f"{row['youtube_id']}_{int(row['time_start']):06d}_{int(row['time_end']):06d}", row["label"])
                    for row in rows
                ]
        return lists


BENCHMARKS: dict[str, type[BenchmarkBuilder]] = {
    builder.key: builder for builder in (UCF50, UCF101, HMDB51, JHMDB, SomethingSomethingV2, Kinetics400)
}


__all__ = ["BENCHMARKS", "HMDB51", "JHMDB", "UCF50", "UCF101", "Kinetics400", "SomethingSomethingV2"]
