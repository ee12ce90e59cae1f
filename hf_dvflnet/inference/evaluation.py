"""
Evaluate a checkpoint on a split of a benchmark by the published test protocol.

Every clip counts once. The predictions are written to a file, from which the metrics can be computed again.
"""

import os
import warnings
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import datasets
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from tqdm.auto import tqdm

from ..data.benchmarks import BENCHMARKS
from ..data.label_sets import composed, match_classes, refuse_repeated
from ..data.loading import load_benchmark, split_facts
from ..data.video_column import clip_name, undecoded, video_source
from ..data.workers import cpu_count, run_ahead
from ..hub.loaded_models import DType, choose_device
from ..hub.loading import load_classifier, load_processor
from ..modeling_videofocalnet import VideoFocalNetForVideoClassification
from ..video_decoding import video_limits
from ..video_processing_videofocalnet import VideoFocalNetVideoProcessor
from .bulk_prediction import DecodedClip, decode_clip
from .figures import (
    compute_figures,
    describe_split,
    prediction_header,
    read_predictions,
    write_predictions,
    write_report,
)
from .inference_form import place_for_inference
from .prediction import VIEWS, best_classes, classify


def predict_clips(
    model: VideoFocalNetForVideoClassification,
    processor: VideoFocalNetVideoProcessor,
    dataset: datasets.Dataset,
    *,
    views: int = 1,
    batch_size: int = 8,
    num_workers: int | None = None,
    accelerator: Accelerator | None = None,
    device: str | torch.device | None = None,
) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """
    Classify every clip of a dataset once, distributed over all processes.

    Args:
        model: The classifier.
        processor: Its video processor.
        dataset: The result of [`load_benchmark`], or another dataset with the columns `video`, `label` and
            optionally `video_id`.
        views: 1, or 12 for 4 clips x 3 crops, whose scores are averaged. Each video is decoded once for all views.
        batch_size: Number of clips that are classified at once, per process.
        num_workers: Number of sandboxes that decode, per process, by default one per CPU; 0 decodes in this process.
        accelerator: The accelerator to use. By default a new one is created.
        device: Device of the model; by default the accelerator's.

    Returns:
        The predictions in the dataset's order, `{"video_id", "label", "top5": [[class name, score], ...]}`, and the
        clips that could not be decoded, `{"video_id", "reason"}`. All processes return the same.

    Raises:
        ValueError: If the classes of model and dataset differ, `views` is neither 1 nor 12, the model is for
            regression, or a clip has no label.
    """
    if views not in VIEWS:
        raise ValueError(f"views must be 1 or 12, got {views}")
    accelerator = accelerator or Accelerator()
    classes = dataset.features["label"].names
    refuse_other_classes(model, classes)
    spelled = {composed(name): name for name in classes}  # the data's spelling of the model's names
    if model.config.problem_type == "regression":
        raise ValueError("the model's problem_type is regression, but accuracies can only be computed for classes")
    unlabelled = sum(label is None or label < 0 for label in dataset["label"])
    if unlabelled:
        raise ValueError(f"{unlabelled} of {len(dataset)} clips have no label (None or -1); filter them out")
    # each of n processes takes every n-th clip: no clip is padded, dropped or counted twice, even in uneven shares
    rows = range(accelerator.process_index, len(dataset), accelerator.num_processes)
    clips = undecoded(dataset)
    num_workers = cpu_count() if num_workers is None else num_workers
    limits = replace(video_limits(), sandbox=num_workers > 0, max_threads=1)

    def decode(row: int) -> tuple[int, str, int, DecodedClip]:
        example = clips[row]
        name = clip_name(example)
        try:
            source = video_source(example["video"])
        except OSError as error:
            return row, name, example["label"], DecodedClip(name, error=str(error))
        return row, name, example["label"], decode_clip(source, processor, views, limits)

    model = model.to(device or accelerator.device).eval()
    found, failed = [], []
    progress = tqdm(total=len(dataset), unit="clip", disable=None if accelerator.is_main_process else True)
    with closing(run_ahead((partial(decode, row) for row in rows), num_workers)) as waiting:
        while several := [get() for get in islice(waiting, batch_size)]:
            failed += [(row, {"video_id": name, "reason": clip.error}) for row, name, _, clip in several if clip.error]
            batch = [(row, name, label, clip) for row, name, label, clip in several if not clip.error]
            if batch:
                pixel_values = torch.stack([torch.as_tensor(clip.pixel_values) for *_, clip in batch])
                scores = classify(model, pixel_values)  # the network averages the views of a clip (`average_views`)
                for (row, name, label, _), values in zip(batch, scores, strict=True):
                    best = best_classes(model, values, 5)
                    top = [[spelled[composed(of)], round(score, 6)] for of, score in best]
                    found.append((row, {"video_id": name, "label": classes[label], "top5": top}))
            progress.update(min(batch_size * accelerator.num_processes, len(dataset) - progress.n))
    progress.close()
    predictions, failures = gather_object(found), gather_object(failed)
    return [row for _, row in sorted(predictions, key=_first)], [row for _, row in sorted(failures, key=_first)]


def _first(pair: tuple[int, Any]) -> int:
    return pair[0]


def refuse_other_classes(model: VideoFocalNetForVideoClassification, classes: Sequence[str]):
    """Raise `ValueError` unless the model and the dataset have the same class names, each once, in any order."""
    theirs = [model.config.id2label[index] for index in range(model.config.num_labels)]
    refuse_repeated(classes, "data")
    match_classes(theirs, classes, of=("model", "data"))
    match_classes(classes, theirs, of=("data", "model"))


def warn_of_training_data(model: VideoFocalNetForVideoClassification, facts: dict[str, Any]):
    """Warn if the config says that the checkpoint was trained on the tested split, or on one that may share clips."""
    trained = getattr(model.config, "training_data", None)
    if not trained or trained["benchmark"] != facts["benchmark"]:
        return
    lists = [(of["protocol"], of["fold"]) for of in (trained, facts)]
    if trained["split"] == facts["split"] and lists[0] == lists[1]:
        warnings.warn(f"this checkpoint was trained on this same split, {describe_split(facts)}", stacklevel=2)
    elif lists[0] != lists[1]:
        warnings.warn(
            f"this checkpoint was trained on {describe_split(trained)}, which may share clips with "
            f"{describe_split(facts)}",
            stacklevel=2,
        )


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
    device: str = "auto",
    dtype: DType = "auto",
) -> Path | None:
    """
    Classify every clip of a benchmark split, on all processes, and write the predictions.

    Args:
        model: A model folder or Hub id.
        dataset, data_dir, protocol, fold, block_list: See [`load_benchmark`].
        output: The folder for `predictions.jsonl`. It must be new or empty.
        split: The split. By default the one on which results are reported for the benchmark.
        views, batch_size, num_workers: See [`predict_clips`].
        device: Device of the model, as in [`choose_device`]; by default that of the process's accelerator.
        dtype: Data type in which the model computes, as in [`place`].

    Returns:
        The path of the predictions file, for [`report_predictions`]; `None` on all processes except the main one.

    Raises:
        FileExistsError: If `output` exists and is not an empty folder.
        FileNotFoundError, ValueError: See [`load_classifier`], [`load_benchmark`] and [`predict_clips`].
    """
    accelerator = Accelerator(cpu=choose_device(device).type == "cpu")
    output = Path(output)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise FileExistsError(f"{output}: already exists and is not an empty folder; choose another --output")
    network = place_for_inference(load_classifier(model), accelerator.device if device == "auto" else device, dtype)
    split = split or (BENCHMARKS[dataset].test_split if dataset in BENCHMARKS else "test")
    with accelerator.main_process_first():
        clips = load_benchmark(dataset, data_dir, split, protocol, fold, block_list=block_list)
    warn_of_training_data(network, split_facts(clips))
    predictions, failures = predict_clips(
        network,
        load_processor(model),
        clips,
        views=views,
        batch_size=batch_size,
        num_workers=num_workers,
        accelerator=accelerator,
        device=network.device,
    )
    accelerator.end_training()
    if not accelerator.is_main_process:
        return None
    output.mkdir(parents=True, exist_ok=True)
    write_predictions(output / "predictions.jsonl", prediction_header(clips, failures, model, views), predictions)
    return output / "predictions.jsonl"


def report_predictions(
    predictions_file: str | os.PathLike, output: str | os.PathLike, *, allow_missing: bool = False
) -> dict[str, Any]:
    """
    Compute the metrics from a predictions file, and write them with [`write_report`].

    Args:
        predictions_file: The file that [`evaluate_model`] wrote.
        output: The folder for the report.
        allow_missing: Compute metrics even if clips of the split are missing.

    Returns:
        The row that [`write_report`] returns.

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
    Path(output).mkdir(parents=True, exist_ok=True)
    return write_report(output, header, figures)


__all__ = ["evaluate_model", "predict_clips", "report_predictions", "warn_of_training_data"]
