"""
Evaluate a checkpoint on a split of a benchmark by the published test protocol.

Every clip counts once. The predictions are written to a file, from which the metrics can be computed again.
"""

import json
import os
import sys
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
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
from ..hub.loaded_models import DType, choose_device
from ..hub.loading import load_processor
from ..hub.version import code_version
from ..video_processing_videofocalnet import VideoFocalNetVideoProcessor
from .exported_program import is_exported
from .pipeline import VIEWS, best_classes, check_views, decode_clips, is_regression, load_placed, scored


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
        The predictions in the dataset's order, `{"video_id", "label", "top5": [[class name, score], ...]}`, with
        `"warning"` where reading warned; and the clips that could not be decoded, `{"video_id", "reason"}`. All
        processes return the same.

    Raises:
        ValueError: If the classes of model and dataset differ, an argument is out of range, the model is for
            regression, or a clip has no label.
    """
    check_views(views, model.config)
    accelerator = accelerator or Accelerator()
    refuse_unfit_clips(model, dataset)
    classes = dataset.features["label"].names
    spelled = {composed(name): name for name in classes}  # the data's spelling of the model's names
    # each of n processes takes every n-th clip: no clip is padded, dropped or counted twice, even in uneven shares
    rows = range(accelerator.process_index, len(dataset), accelerator.num_processes)
    clips = undecoded(dataset)
    waiting: deque[tuple[int, str, str]] = deque()  # rows that are decoded, their names and classes

    def videos() -> Iterator[Any]:
        for row in rows:
            example = clips[row]
            waiting.append((row, clip_name(example), classes[example["label"]]))
            yield partial(video_source, example["video"])

    found, failed = [], []
    progress = tqdm(total=len(dataset), unit="clip", disable=None if accelerator.is_main_process else True)
    decoded = decode_clips(videos(), processor, views=views, num_workers=num_workers)
    with quiet_videos():
        for clip, scores in scored(model.eval(), decoded, batch_size):
            row, name, label = waiting.popleft()
            if scores is None:
                failed.append((row, {"video_id": name, "reason": str(clip.error)}))
            else:
                top = [[spelled[composed(of)], round(score, 6)] for of, score in best_classes(model, scores, 5)]
                warning = {"warning": "; ".join(clip.info.remarks)} if clip.info and clip.info.remarks else {}
                found.append((row, {"video_id": name, "label": label, "top5": top, **warning}))
            progress.update(min(accelerator.num_processes, len(dataset) - progress.n))
    progress.close()
    predictions, failures = (sorted(gather_object(part), key=itemgetter(0)) for part in (found, failed))
    return [row for _, row in predictions], [row for _, row in failures]


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
    predictions_file: str | os.PathLike, output: str | os.PathLike, *, allow_missing: bool = False
) -> dict[str, Any]:
    """
    Compute the metrics from a predictions file, and write `results.json`, `per_class.csv`, `class_bars.png`,
    `confusion.csv` and `confusion.png`.

    Args:
        predictions_file: The file that [`evaluate_model`] wrote.
        output: The folder for the report.
        allow_missing: Compute metrics even if clips of the split are missing.

    Returns:
        The row for `hub_cards/results.json`: metrics in percent, with protocol, command and commit.

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
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    row = {
        "split": describe_split(header),
        "views": "{} clips x {} crops".format(*VIEWS[header["views"]]) if header["views"] > 1 else "1",
        "clips": figures["clips"],
        "listed": header["listed"],
        **{
            name: round(100 * figures[name], 2) for name in ("top1", "top5", "mean_class") if figures[name] is not None
        },
        "command": header["command"],
        "commit": header["commit"],
    }
    (folder / "results.json").write_text(json.dumps(row, indent=2) + "\n", encoding="utf-8")
    pandas.DataFrame(figures["per_class"]).to_csv(folder / "per_class.csv", index=False)
    classes = header["classes"]
    confusion = pandas.DataFrame(figures["confusion"], index=classes, columns=classes)
    confusion.to_csv(folder / "confusion.csv", index_label="true \\ predicted")
    from ..plots.charts import save_class_bars, save_confusion_matrix  # loads matplotlib

    title = f"{describe_split(header)}: top-1 {figures['top1']:.1%} of {figures['clips']} clips"
    save_class_bars(figures["per_class"], folder / "class_bars.png", title)
    save_confusion_matrix(np.array(figures["confusion"]), classes, folder / "confusion.png", title)
    return row


def describe_split(facts: dict[str, Any]) -> str:
    """Describe a split in one line, such as `ucf101, official fold 1, test`."""
    fold = f" fold {facts['fold']}" if facts.get("folds", 1) > 1 else ""
    part = f" ({facts['part']})" if facts.get("part") else ""
    return f"{facts['benchmark']}{part}, {facts['protocol']}{fold}, {facts['split']}"


def compute_figures(predictions: Sequence[dict[str, Any]], classes: Sequence[str]) -> dict[str, Any]:
    """
    Compute accuracies from the predictions of [`predict_clips`].

    Returns:
        `clips`; `top1`, `top5` (`None` of up to 5 classes) and `mean_class` (the mean top-1 accuracy of the classes
        that have clips), in [0, 1];
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
    seen = clips > 0
    return {
        "clips": int(clips.sum()),
        "top1": float(right.sum() / clips.sum()),
        "top5": float(among_five.sum() / clips.sum()) if len(classes) > 5 else None,
        "mean_class": float((right[seen] / clips[seen]).mean()),
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
