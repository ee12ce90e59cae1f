"""
Class names of the data sets that published checkpoints were trained on, in the order of their ids.

The names are in `class_names/<set>.txt`, one per line; the id is the line number minus 1. The order is part of a
checkpoint: with a different order, all predictions are wrong, and no error shows it.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple


class LabelSet(NamedTuple):
    """Class names in the order of their ids, and the source of that order."""

    names: tuple[str, ...]
    source: str


def read_labels(labels: str | Path) -> LabelSet:
    """
    Get a label set by its name, or from a text file with one class name per line (id = line number - 1).

    Raises:
        ValueError: If `labels` is neither, the file is not UTF-8 text, is JSON or a numbered list, or a name is empty
            or occurs twice.
    """
    if str(labels) in LABEL_SETS:
        return LABEL_SETS[str(labels)]
    path = Path(labels)
    if not path.is_file():
        raise ValueError(f"{labels} is neither a file nor one of the label sets {', '.join(LABEL_SETS)}")
    try:
        text = path.read_text(encoding="utf-8-sig").rstrip()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: is not UTF-8 text; a label file contains one class name per line") from error
    names = [name.strip() for name in text.splitlines()]
    is_json = text.startswith(("{", '["'))
    if is_json or _are_numbered(names):
        found = "is JSON" if is_json else f"has numbered lines, such as {names[0]!r}"
        raise ValueError(
            f"{path}: {found}; a label file contains the class name alone on each line, and the first one has the id 0"
        )
    if not names:
        raise ValueError(f"{path}: contains no class names; expected one per line")
    for number, name in enumerate(names):
        if not name:
            raise ValueError(f"{path}: line {number + 1} is empty; expected one class name per line")
        if name in names[:number]:
            raise ValueError(f"{path}: {name!r} is on line {names.index(name) + 1} and again on line {number + 1}")
    return LabelSet(tuple(names), f"the file {path.name}")


def _are_numbered(names: Sequence[str]) -> bool:
    """Whether each line has a number of 0 to n - 1, or 1 to n, before or after a name that is another on each line."""
    for pattern in (r"(?P<number>\d+)[\s.,:;)=-]+(?P<name>\S.*)", r"(?P<name>.*\S)[\s,:;=]+(?P<number>\d+)"):
        found = [line for name in names if (line := re.fullmatch(pattern, name))]
        numbers = sorted(int(line["number"]) for line in found)
        distinct = len({line["name"] for line in found}) == len(names) > 1
        if distinct and numbers in (list(range(len(names))), list(range(1, len(names) + 1))):
            return True
    return False


def are_named(names: Sequence[str]) -> bool:
    """Whether classes have real names, rather than transformers' default names `LABEL_0`, `LABEL_1`, ..."""
    return list(names) != [f"LABEL_{index}" for index in range(len(names))]


def composed(name: str) -> str:
    """A name in Unicode's composed form (NFC); file systems and archives of macOS may separate accents (NFD)."""
    return unicodedata.normalize("NFC", name)


def match_classes(names: Sequence[str], others: Sequence[str], of: tuple[str, str]) -> list[int]:
    """
    Position of each class name in `others`. Names in composed and decomposed characters (NFC and NFD) are the same.
    `of` says in error messages what the two belong to, such as `("data", "model")`.

    Raises:
        ValueError: If a name is not in `others`, or if the orders differ and a name occurs twice.
    """
    names, others = [composed(name) for name in names], [composed(name) for name in others]
    if names == others[: len(names)]:
        return list(range(len(names)))
    unknown = [name for name in names if name not in set(others)]
    if unknown:
        only_others = [name for name in others if name not in set(names)]
        raise ValueError(
            f"{of[0]} and {of[1]} must have the same classes, but the {of[0]} has {len(names)} and the {of[1]} "
            f"{len(others)}; only the {of[0]} has {listed(unknown)}, only the {of[1]} {listed(only_others)}"
        )
    refuse_repeated(names, of[0])
    refuse_repeated(others, of[1])
    return [others.index(name) for name in names]


def refuse_repeated(names: Sequence[str], owner: str):
    """Raise `ValueError` if a class name occurs twice: all predictions and labels would match the first one."""
    repeated = [name for name, count in Counter(map(composed, names)).items() if count > 1]
    if repeated:
        raise ValueError(
            f"the {owner} has more than one class named {repeated[0]!r}, and classes are matched by name; rename one"
        )


def listed(names: Collection[str]) -> str:
    """The first five of the names, sorted and quoted, and how many more there are."""
    shown = ", ".join(repr(name) for name in sorted(names)[:5])
    return (shown or "none") + (f" and {len(names) - 5} more" if len(names) > 5 else "")


_VIDEO_FOCALNETS = "the label files of TalalWasim/Video-FocalNets, whose checkpoints use this order"
_DVFL_NET = "the label files of hayatkhan8660-maker/DVFL-Net (sorted folder names)"
_SOURCES = {
    "ucf50": f"{_DVFL_NET}, whose checkpoints use this order",
    "ucf101": "the official classInd.txt of UCF101",
    "ucf101-sorted": f"{_DVFL_NET}, whose checkpoints use this order",
    "hmdb51": f"{_DVFL_NET}. Unverified for its checkpoints: the repository's HMDB51 lists carry other ids (2 to 52)",
    "jhmdb": "the class folders of the release of JHMDB, sorted",
    **dict.fromkeys(("ssv2", "kinetics400", "kinetics600", "diving48", "activitynet"), _VIDEO_FOCALNETS),
}


_FOLDER = Path(__file__).with_name("class_names")
LABEL_SETS = {
    name: LabelSet(tuple((_FOLDER / f"{name}.txt").read_text("utf-8").splitlines()), source)
    for name, source in _SOURCES.items()
}
