"""
Loads a split of a benchmark, or of your own class folders: `load_benchmark("ucf101", DIR, "test")`; or videos without
labels: `load_unlabelled(DIR)`.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
from tqdm.auto import tqdm

from ..video_decoding import VideoDecodeError, read_video
from .benchmarks import BENCHMARKS, Benchmark
from .class_folders import load_video_folder
from .video_column import clip_features, video_source
from .video_files import list_videos, read_video_list


def load_benchmark(
    name: str,
    data_dir: str | os.PathLike,
    split: str,
    protocol: str | None = None,
    fold: int = 1,
    *,
    label_set: str | None = None,
    block_list: str | os.PathLike | None = None,
    classes: Sequence[str] | None = None,
) -> datasets.Dataset:
    """
    Load a split of a benchmark, or of your own class folders.

    Args:
        name: `"ucf50"`, `"ucf101"`, `"hmdb51"`, `"jhmdb"`, `"ssv2"`, `"kinetics400"`, or `"folder"` for
            `data_dir/<split>/<class>/<video>`.
        data_dir: The extracted official release, also after `dvflnet prepare`, or an `fsspec` URL such as
            `hf://datasets/ORG/REPO`, with such files.
        split: `"train"`, `"validation"` or `"test"`, if the benchmark has it.
        protocol: `"groups_20_5"` or `"logo"` (UCF50), `"official"` (all others), `"dvflnet_8020"` (UCF50, UCF101: the
            DVFL-Net repository's own lists). By default the benchmark's first protocol.
        fold: Number of the fold, from 1.
        label_set: `"ucf101-sorted"` for UCF101 in the class order of DVFL-Net's checkpoints.
        block_list: A report of `dvflnet verify`; clips that it lists as empty, undecodable or leaked are left out.
        classes: For a part of a release: the names of the classes to load, or `"present"` for those that have videos
            in it. They are numbered from 0 in the order of the label set, and the lists are cut to them. By default
            all classes, even if some have no videos.

    Returns:
        A dataset with the columns `video` (`{"path", "bytes"}`), `label`, `video_id`, and `group` for UCF (number)
        and JHMDB (title of the source video, the same in all classes).
        [`split_facts`] gives the number of listed clips and the ids of the missing ones.

    Raises:
        FileNotFoundError: If the release or an annotation file does not exist, or if there are no videos.
        ValueError: If the benchmark, split, protocol, fold, label set or a class does not exist, a list contains an
            unknown class, or a training clip is in the list of another split.

    Warns:
        UserWarning: If clips are missing, if the protocol has data leakage between training and test clips, or if
            files are left out: broken links and the like, and hidden or system files with the ending of a video.
    """
    if name != "folder" and name not in BENCHMARKS:
        raise ValueError(f"unknown benchmark {name!r}; choose one of {', '.join(BENCHMARKS)}, or 'folder'")
    if name == "folder":
        unused: dict[str, Any] = {"protocol": protocol, "fold": None if fold == 1 else fold, "classes": classes}
        unused |= {"label_set": label_set, "block_list": block_list}
        for argument, value in unused.items():
            if value is not None:
                raise ValueError(
                    f"{data_dir}: its splits are defined by its folders, so {argument}={value} does not apply"
                )
        return _load_folder(data_dir, split)
    return _load_release(BENCHMARKS[name](data_dir, protocol, fold, label_set, block_list, classes), split)


def load_unlabelled(source: str | os.PathLike, window: float = 10.0) -> datasets.Dataset:
    """
    List videos without labels, for [`VideoClipDataset`] with `train=True`.

    Args:
        source: A folder with videos at any depth, as in [`list_videos`], or a list of them, `.txt`, `.csv` or
            `.parquet`, as in [`read_video_list`].
        window: Seconds. A longer video is divided into as many equal parts of at least this length as there are, and
            each is a clip. A video of unknown length, or one that cannot be read, is one clip.

    Returns:
        A dataset with the columns `video` (`{"path", "bytes"}`), `window` ([part, parts]) and `video_id` (the path,
        and the part).

    Raises:
        OSError, ValueError: As in those functions, or if `window` is not positive.
    """
    if not window > 0:
        raise ValueError(f"window must be above 0 seconds, got {window}")
    is_list = Path(source).suffix.lower() in (".txt", ".csv", ".parquet")
    rows = []
    for path in tqdm(read_video_list(source) if is_list else list_videos([source]), desc="videos", disable=None):
        try:
            duration = read_video(video_source({"path": path, "bytes": None}), [0])[1].duration
        except (OSError, VideoDecodeError):
            duration = None  # reported where it is drawn
        parts = max(1, int((duration or 0) // window))
        rows += [
            {
                "video": {"path": path, "bytes": None},
                "window": [part, parts],
                "video_id": path if parts == 1 else f"{path} {part + 1}/{parts}",
            }
            for part in range(parts)
        ]
    features = {"video": datasets.Video(decode=False), "window": datasets.List(datasets.Value("int32"))}
    return datasets.Dataset.from_list(rows, datasets.Features(features | {"video_id": datasets.Value("string")}))


def split_facts(dataset: datasets.Dataset) -> dict[str, Any]:
    """
    Get the origin of a dataset of [`load_benchmark`]: `benchmark`, `protocol`, `fold`, `split`, `listed` (number of
    clips in the lists), `missing` (ids of missing clips) and `blocked` (ids of clips left out by the block list), and
    with `classes` the `part`, such as `16 of 101 classes`.

    Raises:
        ValueError: If the dataset was not loaded by [`load_benchmark`].
    """
    try:
        return dict(json.loads(dataset.info.description))
    except (ValueError, TypeError) as error:
        raise ValueError("this dataset was not loaded by load_benchmark") from error


def _with_facts(dataset: Any, **facts: Any) -> Any:
    """Note in a dataset what [`split_facts`] returns."""
    dataset.info.description = json.dumps(facts)
    return dataset


def _load_release(benchmark: Benchmark, split: str) -> Any:
    release = benchmark.release
    if split not in benchmark.lists:
        raise ValueError(
            f"{benchmark.title}, {benchmark.protocol}: has no split {split!r}; choose one of "
            f"{', '.join(benchmark.lists)}"
        )
    clips, (rows, missing) = benchmark.lists[split], benchmark.rows(split)
    if missing:
        benchmark.warn_of_missing(split, set(missing))
    if not rows:
        raise FileNotFoundError(f"{release.root}: contains none of the {split} videos.{release.hint}")
    features = clip_features(benchmark.names)
    if benchmark.has_groups:
        features["group"] = datasets.Value("string")
    if not (release.is_local):
        paths = datasets.DownloadManager().download([row["video"]["path"] for row in rows])
        rows = [{**row, "video": {"path": path, "bytes": None}} for row, path in zip(rows, paths, strict=True)]
    dataset: Any = datasets.Dataset.from_list(rows, features=features)
    # a list made from file names does not contain the missing clips, so use the official count
    from_names = benchmark.protocol in benchmark.lists_from_names
    return _with_facts(
        dataset,
        benchmark=benchmark.key,
        protocol=benchmark.protocol,
        fold=benchmark.fold,
        folds=benchmark.folds[benchmark.protocol],
        split=split,
        **({"part": benchmark.part} if benchmark.part else {}),
        listed=benchmark.official.get(split, len(clips)) if from_names else len(clips),
        missing=missing,
        blocked=[clip.video_id for clip in clips if clip.video_id in benchmark.blocked],
    )


def _load_folder(data_dir: str | os.PathLike, split: str) -> Any:
    found = load_video_folder(data_dir)
    if split not in found:
        raise ValueError(
            f"{data_dir}: has no split {split!r}, only {', '.join(found)}; put videos into {split}/<class>/"
        )
    dataset: Any = found[split]
    facts = {"fold": 1, "folds": 1, "listed": len(dataset), "missing": [], "blocked": []}
    return _with_facts(dataset, benchmark="folder", protocol="class folders", split=split, **facts)
