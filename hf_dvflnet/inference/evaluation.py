"""
Evaluate a checkpoint on a split of a benchmark by the published test protocol.

Every clip counts once. The predictions are written to a file, from which the metrics can be computed again.
"""

import json
import os
import sys
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas
from accelerate import Accelerator
from accelerate.utils import gather_object
from tqdm.auto import tqdm

from ..data.benchmarks import BENCHMARKS
from ..data.jobs import quiet_videos
from ..data.label_sets import composed, match_classes, refuse_repeated
from ..data.loading import load_benchmark, split_facts
from ..data.video_column import clip_name, undecoded, video_source
from ..hub.calibration import calibration_error, error_interval
from ..hub.loaded_models import DType, choose_device
from ..hub.loading import load_processor
from ..hub.version import code_version
from ..video_processing_videofocalnet import VideoFocalNetVideoProcessor
from .exported_program import is_exported
from .pipeline import VIEWS, best_classes, check_views, decode_clips, is_regression, load_placed, scored
from .report import write_report


def predict_clips(
    model: Any,
    processor: VideoFocalNetVideoProcessor,
    dataset: datasets.Dataset,
    *,
    views: int = 1,
    batch_size: int = 8,
    num_workers: int | None = None,
    accelerator: Accelerator | None = None,
) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """
    Classify every clip of a dataset once, distributed over all processes.

    Args:
        model: The classifier, on any device; or an exported program ([`load_exported`]).
        processor: Its video processor.
        dataset: The result of [`load_benchmark`], or another dataset with the columns `video`, `label` and
            optionally `video_id`.
        views: 1, 4 for 4 clips x 1 crop, or 12 for 4 clips x 3 crops, whose scores are averaged.
        batch_size: Number of clips that are classified at once, per process.
        num_workers: Number of sandboxes that decode, per process, by default one per CPU; 0 decodes in this process.
        accelerator: The accelerator to use. By default a new one is created.

    Returns:
        The predictions in the dataset's order, `{"video_id", "label", "top5": [[class name, score], ...],
        "true_score"}`, with `"path"` of a clip in a file, `"group"` where the dataset has them, and `"warning"` where
        reading warned; and the clips that could not be decoded, `{"video_id", "reason"}`. All processes return the
        same.

    Raises:
        ValueError: If the classes of model and dataset differ, an argument is out of range, the model is for
            regression, or a clip has no label.
    """
    check_views(views, model.config)
    accelerator = accelerator or Accelerator()
    refuse_unfit_clips(model, dataset)
    classes = dataset.features["label"].names
    spelled = {composed(name): name for name in classes}  # the data's spelling of the model's names
    of_name = {composed(name): index for index, name in model.config.id2label.items()}
    # each of n processes takes every n-th clip: no clip is padded, dropped or counted twice, even in uneven shares
    rows = range(accelerator.process_index, len(dataset), accelerator.num_processes)
    clips = undecoded(dataset)
    # rows that are decoded, their names and classes, and where they are from
    waiting: deque[tuple[int, str, str, dict[str, str]]] = deque()

    def videos() -> Iterator[Any]:
        for row in rows:
            example = clips[row]
            waiting.append((row, clip_name(example), classes[example["label"]], _place(example)))
            yield partial(video_source, example["video"])

    found, failed = [], []
    progress = tqdm(total=len(dataset), unit="clip", disable=None if accelerator.is_main_process else True)
    decoded = decode_clips(videos(), processor, views=views, num_workers=num_workers)
    with quiet_videos():
        for clip, scores in scored(model.eval(), decoded, batch_size):
            row, name, label, place = waiting.popleft()
            if scores is None:
                failed.append((row, {"video_id": name, "reason": str(clip.error)}))
            else:
                top = [[spelled[composed(of)], round(score, 6)] for of, score in best_classes(model, scores, 5)]
                warning = {"warning": "; ".join(clip.info.remarks)} if clip.info and clip.info.remarks else {}
                true = {"true_score": round(scores[of_name[composed(label)]].item(), 6)}
                found.append((row, {"video_id": name, "label": label, "top5": top, **true, **place, **warning}))
            progress.update(min(accelerator.num_processes, len(dataset) - progress.n))
    progress.close()
    predictions, failures = (sorted(gather_object(part), key=itemgetter(0)) for part in (found, failed))
    return [row for _, row in predictions], [row for _, row in failures]


def _place(example: dict[str, Any]) -> dict[str, str]:
    """Path and group of a clip, where it has them."""
    found = {"path": example["video"]["path"]} if example["video"]["bytes"] is None else {}
    return {**found, "group": example["group"]} if "group" in example else found


def refuse_unfit_clips(model: Any, dataset: datasets.Dataset):
    """
    Raise `ValueError` unless the model and the dataset have the same class names, each once, in any order, the model
    is for classes, and each clip has a label.
    """
    classes = dataset.features["label"].names
    theirs = [model.config.id2label[index] for index in range(model.config.num_labels)]
    refuse_repeated(classes, "data")
    match_classes(theirs, classes, of=("model", "data"))
    match_classes(classes, theirs, of=("data", "model"))
    if is_regression(model.config):
        raise ValueError("the model's problem_type is regression, but accuracies can only be computed for classes")
    unlabelled = sum(label is None or label < 0 for label in dataset["label"])
    if unlabelled:
        raise ValueError(f"{unlabelled} of {len(dataset)} clips have no label (None or -1); filter them out")


def warn_of_training_data(model: Any, facts: dict[str, Any]):
    """Warn if the config says that the checkpoint was trained on the tested split, or on one that may share clips."""
    trained = getattr(model.config, "training_data", None)
    if not trained or trained["benchmark"] != facts["benchmark"]:
        return
    same_lists = (trained["protocol"], trained["fold"]) == (facts["protocol"], facts["fold"])
    if not same_lists:
        warnings.warn(
            f"this checkpoint was trained on {describe_split(trained)}, which may share clips with "
            f"{describe_split(facts)}",
            stacklevel=2,
        )
    elif trained["split"] == facts["split"]:
        warnings.warn(f"this checkpoint was trained on this same split, {describe_split(facts)}", stacklevel=2)


def evaluate_model(
    model: str,
    dataset: str,
    data_dir: str,
    output: str | os.PathLike,
    *,
    split: str | None = None,
    protocol: str | None = None,
    fold: int = 1,
    views: int = 1,
    batch_size: int = 8,
    num_workers: int | None = None,
    block_list: str | os.PathLike | None = None,
    classes: Sequence[str] | None = None,
    device: str = "auto",
    dtype: DType = "auto",
) -> Path | None:
    """
    Classify every clip of a benchmark split, on all processes, and write the predictions.

    Args:
        model: A model folder or Hub id, or a folder written by [`export_model`].
        dataset, data_dir, protocol, fold, block_list, classes: See [`load_benchmark`].
        output: The folder for `predictions.jsonl`. It must be new or empty.
        split: The split. By default the one on which results are reported for the benchmark.
        views, batch_size, num_workers: See [`predict_clips`].
        device: Device of the model, as in [`choose_device`]; by default that of the process's accelerator.
        dtype: Data type in which the model computes, as in [`place`].

    Returns:
        The path of the predictions file, for [`report_predictions`]; `None` on all processes except the main one.

    Raises:
        FileExistsError: If `output` exists and is not an empty folder.
        FileNotFoundError, ValueError: See [`load_placed`], [`load_benchmark`] and [`predict_clips`].
    """
    accelerator = Accelerator(cpu=choose_device(device).type == "cpu")
    output = Path(output)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise FileExistsError(f"{output}: already exists and is not an empty folder; choose another --output")
    network = load_placed(model, accelerator.device if device == "auto" and not is_exported(model) else device, dtype)
    split = split or (BENCHMARKS[dataset].test_split if dataset in BENCHMARKS else "test")
    with accelerator.main_process_first():
        clips = load_benchmark(dataset, data_dir, split, protocol, fold, block_list=block_list, classes=classes)
    warn_of_training_data(network, split_facts(clips))
    predictions, failures = predict_clips(
        network,
        load_processor(model),
        clips,
        views=views,
        batch_size=batch_size,
        num_workers=num_workers,
        accelerator=accelerator,
    )
    accelerator.end_training()
    if not accelerator.is_main_process:
        return None
    output.mkdir(parents=True, exist_ok=True)
    with open(output / "predictions.jsonl", "w", encoding="utf-8") as file:
        for row in (_prediction_header(clips, failures, model, views), *predictions):
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    return output / "predictions.jsonl"


def report_predictions(
    predictions_file: str | os.PathLike,
    output: str | os.PathLike,
    *,
    allow_missing: bool = False,
    compare: str | os.PathLike | None = None,
) -> dict[str, Any]:
    """
    Compute the metrics from a predictions file, and write `results.json`, `per_class.csv`, `class_bars.png`,
    `confusion.csv`, `confusion.png` and `reliability.png`, and all of it with frames of wrong clips as `report.html`.

    Args:
        predictions_file: The file that [`evaluate_model`] wrote.
        output: The folder for the report.
        allow_missing: Compute metrics even if clips of the split are missing.
        compare: The predictions file of another model for the same clips. Those that only one model has right are
            also written to `differences.csv`.

    Returns:
        The row for `hub_cards/results.json`: metrics in percent, each with its 95 % interval of a bootstrap over
        `intervals_over` (groups of clips where the dataset has them, or clips), the calibration error `ece` in [0, 1],
        protocol, command and commit. With `compare`, `difference`, the points of top-1 by which this model is better,
        and the number of clips that only this one and only the other has right.

    Raises:
        ValueError: If the file is not a predictions file, or clips are missing and `allow_missing` is false.
    """
    header, predictions = read_predictions(predictions_file)
    absent = max(len(header["unread"]), header["listed"] - len(predictions))
    if absent and not allow_missing:
        raise ValueError(
            f"{absent} of {header['listed']} clips of {describe_split(header)} are missing; pass "
            f"--allow-missing to compute metrics over the other clips. The predictions are in {predictions_file}"
        )
    figures = compute_figures(predictions, header["classes"])
    groups, over = _groups(header, predictions)
    intervals = bootstrap(_figures_by_weight(predictions, header["classes"]), groups)
    differing: list[dict[str, Any]] = []
    compared: dict[str, Any] = {}
    if compare is not None:
        compared, differing = _compared(header, predictions, groups, compare)
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    row = {
        "split": describe_split(header),
        "views": "{} clips x {} crops".format(*VIEWS[header["views"]]) if header["views"] > 1 else "1",
        "clips": figures["clips"],
        "listed": header["listed"],
        **{
            key: value
            for name in ("top1", "top5", "mean_class", "macro_f1")
            if figures[name] is not None
            for key, value in ((name, _percent(figures[name])), (f"{name}_interval", _percent(intervals[name])))
        },
        "ece": round(figures["ece"], 4),
        "ece_interval": [round(side, 4) for side in error_interval(figures["ece"], intervals["ece"])],
        "intervals_over": over,
        **compared,
        "command": header["command"],
        "commit": header["commit"],
    }
    (folder / "results.json").write_text(json.dumps(row, indent=2) + "\n", encoding="utf-8")
    pandas.DataFrame(figures["per_class"]).to_csv(folder / "per_class.csv", index=False)
    classes = header["classes"]
    confusion = pandas.DataFrame(figures["confusion"], index=classes, columns=classes)
    confusion.to_csv(folder / "confusion.csv", index_label="true \\ predicted")
    from ..plots.charts import save_class_bars, save_confusion_matrix, save_reliability  # loads matplotlib

    title = f"{describe_split(header)}: top-1 {figures['top1']:.1%} of {figures['clips']} clips"
    save_class_bars(figures["per_class"], folder / "class_bars.png", title)
    save_confusion_matrix(np.array(figures["confusion"]), classes, folder / "confusion.png", title)
    confidence = np.array([one["top5"][0][1] for one in predictions])
    save_reliability(confidence, _right(predictions), folder / "reliability.png", f"{title}, ECE {figures['ece']:.3f}")
    charts = {"Calibration": "reliability.png", "Classes": "class_bars.png", "Confusions": "confusion.png"}
    if differing:
        pandas.DataFrame(differing).to_csv(folder / "differences.csv", index=False)
    there = {name: folder / file for name, file in charts.items() if (folder / file).is_file()}
    write_report(folder / "report.html", row, predictions, there, differing)
    return row


def _percent(share: Any) -> Any:
    return np.round(100 * np.asarray(share), 2).tolist()


def _right(predictions: Sequence[dict[str, Any]]) -> np.ndarray:
    return np.array([row["top5"][0][0] == row["label"] for row in predictions])


def _groups(header: dict[str, Any], predictions: Sequence[dict[str, Any]]) -> tuple[list[str], str]:
    """The group of each clip, whose clips are alike, and what it is called; without groups, each clip is one."""
    if not all("group" in row for row in predictions):
        return [row["video_id"] for row in predictions], "clips"
    in_class = header["benchmark"].startswith("ucf")  # where each class numbers its groups
    return [f"{row['label'] if in_class else ''} {row['group']}" for row in predictions], "groups"


def bootstrap(
    measure: Callable[[np.ndarray], dict[str, float]], groups: Sequence, draws: int = 1000
) -> dict[str, tuple[float, float]]:
    """
    95 % intervals of figures, by a bootstrap in which groups of clips are drawn together.

    Args:
        measure: Figures by name, of how often each clip counts, (clips,).
        groups: The group of each clip.
        draws: Number of bootstrap samples.
    """
    names, number = np.unique(groups, return_inverse=True)
    rng = np.random.default_rng(0)
    samples = (np.bincount(rng.integers(len(names), size=len(names)), minlength=len(names)) for _ in range(draws))
    drawn = [measure(counts[number]) for counts in samples]
    low, high = np.nanquantile([list(row.values()) for row in drawn], [0.025, 0.975], axis=0).tolist()
    return dict(zip(drawn[0], zip(low, high, strict=True), strict=True))


def _compared(
    header: dict[str, Any], predictions: Sequence[dict[str, Any]], groups: Sequence[str], other: str | os.PathLike
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The difference in top-1 to another model, and the clips that only one of both has right."""
    theirs, rows = read_predictions(other)
    by_name = {row["video_id"]: row for row in rows}
    labels = {row["video_id"]: row["label"] for row in predictions}
    if labels != {name: row["label"] for name, row in by_name.items()}:
        raise ValueError(
            f"{other}: is of {len(by_name)} clips of {describe_split(theirs)}, which are not the {len(labels)} clips "
            f"of {describe_split(header)}; compare models on the same clips"
        )
    others = [by_name[row["video_id"]] for row in predictions]
    this, that = _right(predictions), _right(others)
    difference = this.astype(float) - that
    interval = bootstrap(lambda weights: {"of": float(np.average(difference, weights=weights))}, groups)["of"]
    differing = [
        {"video_id": row["video_id"], "label": row["label"], "this": row["top5"][0][0], "other": its["top5"][0][0]}
        for row, its, unequal in zip(predictions, others, this != that, strict=True)
        if unequal
    ]
    return {
        "compared_with": theirs.get("model", os.fspath(other)),
        "difference": _percent(difference.mean()),
        "difference_interval": _percent(interval),
        "only_this_right": int((this & ~that).sum()),
        "only_other_right": int((that & ~this).sum()),
    }, differing


def describe_split(facts: dict[str, Any]) -> str:
    """Describe a split in one line, such as `ucf101, official fold 1, test`."""
    fold = f" fold {facts['fold']}" if facts.get("folds", 1) > 1 else ""
    part = f" ({facts['part']})" if facts.get("part") else ""
    return f"{facts['benchmark']}{part}, {facts['protocol']}{fold}, {facts['split']}"


def compute_figures(predictions: Sequence[dict[str, Any]], classes: Sequence[str]) -> dict[str, Any]:
    """
    Compute accuracies from the predictions of [`predict_clips`].

    Returns:
        `clips`; `top1`, `top5` (`None` of up to 5 classes), `mean_class` (the mean top-1 accuracy of the classes
        that have clips), `macro_f1` (the mean of their F1) and `ece` ([`calibration_error`]), in [0, 1];
        `per_class`, rows of `class`, `clips`, `top1`, `top5`; and `confusion`, counts with a row per true class and a
        column per predicted class.

    Raises:
        ValueError: If there are no predictions, or one contains a class that is not in `classes`.
    """
    if not predictions:
        raise ValueError("there are no predictions to compute metrics from")
    number = {name: index for index, name in enumerate(classes)}
    confusion = np.zeros((len(classes), len(classes)), dtype=int)
    among_five = np.zeros(len(classes), dtype=int)
    for row in predictions:
        names = [name for name, _ in row["top5"]]
        unknown = {row["label"], *names} - set(number)
        if unknown:
            raise ValueError(f"{row['video_id']}: names the class {unknown.pop()!r}, which is not in the data")
        confusion[number[row["label"]], number[names[0]]] += 1
        among_five[number[row["label"]]] += row["label"] in names
    clips = confusion.sum(axis=1)
    right = confusion.diagonal()
    figures = _figures_by_weight(predictions, classes)(np.ones(len(predictions)))
    return {
        "clips": int(clips.sum()),
        **figures,
        "top5": figures["top5"] if len(classes) > 5 else None,
        "per_class": [
            {
                "class": name,
                "clips": int(clips[index]),
                "top1": float(right[index] / clips[index]) if clips[index] else None,
                "top5": float(among_five[index] / clips[index]) if clips[index] and len(classes) > 5 else None,
            }
            for index, name in enumerate(classes)
        ],
        "confusion": confusion.tolist(),
    }


def _figures_by_weight(
    predictions: Sequence[dict[str, Any]], classes: Sequence[str]
) -> Callable[[np.ndarray], dict[str, float]]:
    """A function that computes the figures of clips of which each counts several times, or not at all."""
    number = {name: index for index, name in enumerate(classes)}
    true = np.array([number[row["label"]] for row in predictions])
    best = np.array([number[row["top5"][0][0]] for row in predictions])
    five = np.array([row["label"] in dict(row["top5"]) for row in predictions])
    confidence = np.array([row["top5"][0][1] for row in predictions])
    return partial(_weighted_figures, true, best, five, confidence, len(classes))


def _weighted_figures(
    true: np.ndarray, best: np.ndarray, five: np.ndarray, confidence: np.ndarray, classes: int, weights: np.ndarray
) -> dict[str, float]:
    confusion = np.bincount(true * classes + best, weights, classes**2).reshape(classes, classes)
    clips, right = confusion.sum(1), confusion.diagonal()
    seen = clips > 0
    return {
        "top1": float(right.sum() / clips.sum()),
        "top5": float(np.average(five, weights=weights)),
        "mean_class": float((right[seen] / clips[seen]).mean()),
        "macro_f1": float((2 * right[seen] / (clips + confusion.sum(0))[seen]).mean()),
        "ece": calibration_error(confidence, true == best, weights),
    }


def read_predictions(path: str | os.PathLike) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """
    Read the header and the rows of a file that [`evaluate_model`] wrote.

    Raises:
        ValueError: If the file is not a predictions file, or contains a clip twice.
    """
    try:
        with open(path, encoding="utf-8") as file:
            header, *predictions = [json.loads(line) for line in file]
        ids = [row["video_id"] for row in predictions]
        complete = {"benchmark", "protocol", "fold", "split", "listed", "views", "classes", "unread"} <= set(header)
        for row in predictions:
            if not row["top5"] or not isinstance(row["label"], str):
                raise ValueError(f"clip {row['video_id']} has no prediction")
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: is not a predictions file: {error}") from error
    if not complete:
        raise ValueError(f"{path}: is not a predictions file: its first line lacks some keys")
    if len(set(ids)) < len(ids):
        raise ValueError(f"{path}: contains a clip twice")
    return header, predictions


def _prediction_header(
    dataset: datasets.Dataset, failures: list[dict[str, str]], model: str, views: int
) -> dict[str, Any]:
    """Return the first line of a predictions file: protocol, classes, and the clips without a prediction."""
    facts = split_facts(dataset)
    unread = {row["video_id"]: row for row in failures}
    for reason in ("missing", "blocked"):
        unread.update({video_id: {"video_id": video_id, "reason": reason} for video_id in facts[reason] or ()})
    return {
        **{name: facts[name] for name in ("benchmark", "part", "protocol", "fold", "folds", "split") if name in facts},
        "listed": facts["listed"] or len(dataset),
        "views": views,
        "model": model,
        "classes": dataset.features["label"].names,
        "unread": list(unread.values()),
        "command": " ".join(["dvflnet", *sys.argv[1:]]),
        "commit": code_version(),
    }
