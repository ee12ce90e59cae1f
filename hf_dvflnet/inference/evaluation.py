"""
The published test protocol: a checkpoint on a split of a benchmark, every clip once, and figures that can be computed
again from what is written.
"""

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from tqdm.auto import tqdm

from ..data.benchmarks import BENCHMARKS
from ..data.label_sets import match_classes, refuse_repeated
from ..data.loader_workers import ClipsInHand, naming_clips_of_dead_workers
from ..data.loading import load_benchmark, split_facts
from ..data.video_column import clip_name, undecoded, video_source
from ..hub.loading import load_model, load_processor
from ..modeling_videofocalnet import VideoFocalNetForVideoClassification
from ..video_processing_videofocalnet import VideoFocalNetVideoProcessor
from .figures import (
    compute_figures,
    describe_split,
    prediction_header,
    read_predictions,
    write_predictions,
    write_report,
)
from .prediction import VIEWS, best_classes, classify


class _Clips(torch.utils.data.Dataset):
    """Some rows of a dataset, decoded once and shown in every view; a clip that cannot be decoded is said to be so."""

    def __init__(self, dataset: datasets.Dataset, rows: Sequence[int], processor: Any, views: int):
        self.dataset, self.rows, self.processor = undecoded(dataset), rows, processor
        self.num_clips, self.num_crops = VIEWS[views]
        self.in_hand = ClipsInHand()

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = self.dataset[self.rows[index]]
        clip = {"row": self.rows[index], "video_id": clip_name(row), "label": row["label"]}
        self.in_hand.take(clip["video_id"])
        try:
            shown = self.processor(
                video_source(row["video"]), num_clips=self.num_clips, num_crops=self.num_crops, return_tensors="pt"
            )
        except (OSError, ValueError) as error:
            return {**clip, "error": str(error)}
        finally:
            self.in_hand.drop()
        return {**clip, "pixel_values": shown["pixel_values"][0]}


def predict_clips(
    model: VideoFocalNetForVideoClassification,
    processor: VideoFocalNetVideoProcessor,
    dataset: datasets.Dataset,
    *,
    views: int = 1,
    batch_size: int = 8,
    num_workers: int = 0,
    accelerator: Accelerator | None = None,
) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """
    Classify every clip of a dataset once, on however many processes there are.

    Args:
        model: The classifier.
        processor: Its video processor.
        dataset: Rows of [`load_benchmark`], or others with the columns `video`, `label` and, if they have it,
            `video_id`.
        views: 1, or 12 for 4 clips x 3 crops, whose scores are averaged. A video is decoded once for all of them.
        batch_size: Clips that are classified at once.
        num_workers: Processes that decode.
        accelerator: The accelerator to use; a new one by default.

    Returns:
        Predictions in the dataset's order, `{"video_id", "label", "top5": [[class name, score], ...]}`, and the clips
        that could not be decoded, `{"video_id", "reason"}`. The same on every process.

    Raises:
        ValueError: If the model knows other classes than the dataset has, or `views` is another number.
    """
    if views not in VIEWS:
        raise ValueError(f"views must be 1 or 12, got {views}")
    accelerator = accelerator or Accelerator()
    classes = dataset.features["label"].names
    refuse_other_classes(model, classes)
    if model.config.problem_type == "regression":
        raise ValueError("the model's problem_type is regression: accuracies are figures of classes")
    # every process takes each n-th clip: no clip is padded, dropped or counted twice, however uneven the shares
    rows = range(accelerator.process_index, len(dataset), accelerator.num_processes)
    clips = _Clips(dataset, rows, processor, views)
    loader: torch.utils.data.DataLoader = torch.utils.data.DataLoader(
        clips, batch_size=batch_size, num_workers=num_workers, collate_fn=list
    )
    model = model.to(accelerator.device).eval()
    found, failed = [], []
    progress = tqdm(total=len(dataset), unit="clip", disable=None if accelerator.is_main_process else True)
    with naming_clips_of_dead_workers(clips):
        for batch in loader:
            failed += [
                (clip["row"], {"video_id": clip["video_id"], "reason": clip["error"]})
                for clip in batch
                if "error" in clip
            ]
            batch = [clip for clip in batch if "error" not in clip]
            if batch:
                pixel_values = torch.stack([clip["pixel_values"] for clip in batch])
                scores = classify(model, pixel_values)  # the network averages the views of a clip (`average_views`)
                for clip, values in zip(batch, scores, strict=True):
                    top = [[name, round(score, 6)] for name, score in best_classes(model, values, 5)]
                    row = {"video_id": clip["video_id"], "label": classes[clip["label"]], "top5": top}
                    found.append((clip["row"], row))
            progress.update(min(batch_size * accelerator.num_processes, len(dataset) - progress.n))
    progress.close()
    predictions, failures = gather_object(found), gather_object(failed)
    return [row for _, row in sorted(predictions, key=_first)], [row for _, row in sorted(failures, key=_first)]


def _first(pair: tuple[int, Any]) -> int:
    return pair[0]


def refuse_other_classes(model: VideoFocalNetForVideoClassification, classes: Sequence[str]):
    """Raise `ValueError` unless model and dataset have the same class names, each once, in any order."""
    theirs = [model.config.id2label[index] for index in range(model.config.num_labels)]
    refuse_repeated(classes, "data")
    match_classes(theirs, classes, of=("model", "data"))
    match_classes(classes, theirs, of=("data", "model"))


def warn_of_training_data(model: VideoFocalNetForVideoClassification, facts: dict[str, Any]):
    """Warn if the checkpoint says that it was trained on what it is about to be tested on, or may have been."""
    trained = getattr(model.config, "training_data", None)
    if not trained or trained["benchmark"] != facts["benchmark"]:
        return
    lists = [(of["protocol"], of["fold"]) for of in (trained, facts)]
    if trained["split"] == facts["split"] and lists[0] == lists[1]:
        warnings.warn(f"this checkpoint was trained on this very split, {describe_split(facts)}", stacklevel=2)
    elif lists[0] != lists[1]:
        warnings.warn(
            f"this checkpoint was trained on {describe_split(trained)}, with which {describe_split(facts)} may share "
            "clips",
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
    num_workers: int = 2,
    block_list: str | os.PathLike | None = None,
) -> Path | None:
    """
    Classify every clip of a split of a benchmark, on all processes, and write what was answered.

    Args:
        model: A model folder or Hub id.
        dataset, data_dir, protocol, fold, block_list: As [`load_benchmark`].
        output: The folder to write `predictions.jsonl` into: new or empty.
        split: By default the one that figures are reported on.
        views, batch_size, num_workers: As [`predict_clips`].

    Returns:
        The file of predictions, for [`report_predictions`]; None on every process but the main one.

    Raises:
        FileExistsError: If `output` holds something.
        FileNotFoundError, ValueError: As [`load_model`], [`load_benchmark`] and [`predict_clips`].
    """
    accelerator = Accelerator()
    output = Path(output)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise FileExistsError(f"{output}: is there already; choose another --output")
    network = load_model(model)
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
    Compute the figures of a file of predictions, and write them as [`write_report`] does.

    Args:
        predictions_file: What [`evaluate_model`] wrote.
        output: The folder for the report.
        allow_missing: Give figures although clips of the split are missing.

    Returns:
        The row of [`write_report`].

    Raises:
        ValueError: If the file is something else, or clips are missing and `allow_missing` is false.
    """
    header, predictions = read_predictions(predictions_file)
    absent = max(len(header["unread"]), header["listed"] - len(predictions))
    if absent and not allow_missing:
        raise ValueError(
            f"{absent} of {header['listed']} clips of {describe_split(header)} are missing: no figure over "
            f"the others is given without --allow-missing. The predictions are in {predictions_file}"
        )
    figures = compute_figures(predictions, header["classes"])
    Path(output).mkdir(parents=True, exist_ok=True)
    return write_report(output, header, figures)


__all__ = ["evaluate_model", "predict_clips", "report_predictions", "warn_of_training_data"]
