"""Calibrate a model on validation clips: `calibrate_model`, which writes the calibrated model to another folder."""

import os
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from tqdm.auto import tqdm
from transformers.utils import cached_file

from ..data.jobs import quiet_videos
from ..data.label_sets import composed
from ..data.loading import load_benchmark, split_facts
from ..data.video_column import clip_name, undecoded, video_source
from ..hub.calibration import (
    MIN_CLIPS,
    calibration_error,
    divide_logits,
    fit_temperature,
    threshold_of_coverage,
    threshold_of_false_alarms,
    uncalibrate,
)
from ..hub.loaded_models import place
from ..hub.loading import load_model, load_processor
from ..hub.model_folder import image_processor_like, refuse_existing, whole_or_nothing, with_fact
from ..modeling_videofocalnet import average_views
from .evaluation import describe_split, refuse_unfit_clips, warn_of_training_data
from .exported_program import is_exported
from .pipeline import check_views, class_scores, decode_clips


def calibrate_model(
    model: str,
    dataset: str,
    data_dir: str,
    output: str | os.PathLike,
    *,
    split: str = "validation",
    protocol: str | None = None,
    fold: int = 1,
    block_list: str | os.PathLike | None = None,
    classes: list[str] | None = None,
    views: int = 1,
    coverage: float | None = None,
    max_false_alarms: float | None = None,
    num_workers: int | None = None,
    device: str = "auto",
    overwrite: bool = False,
) -> dict[str, Any]:
    """
    Fit a temperature on clips that the model was not trained on, and write the model with it to another folder.

    The weights and biases of the classifier are divided by the temperature, so that whatever loads the folder gets
    calibrated scores. `config.calibration` says so, and what was measured; `config.threshold` is the score below which
    no answer is given, if one was asked for. Earlier calibration is taken out first.

    Args:
        model: A model folder or Hub id.
        dataset, data_dir, protocol, fold, block_list, classes: See [`load_benchmark`].
        output: The folder to write, in float32.
        split: The split to fit to, of at least 20 clips.
        views: 1, 4 or 12, as in use: averaged scores are less sure, and have a lower temperature.
        coverage: Choose a threshold: the highest with which at least this share of the clips are answered.
        max_false_alarms: Choose a threshold: the lowest with which at most this share of the answers are wrong.
        num_workers, device: See [`evaluate_model`].
        overwrite: Whether to replace an existing model folder.

    Returns:
        `temperature` (a list of them for several labels), `threshold` if there is one, and facts: `split`, `clips`,
        `views`, and on these clips `ece_before`, `ece_after`, `top1_before`, `top1_after`, and with a threshold
        `coverage` and `false_alarms`. Shares in [0, 1].

    Raises:
        FileExistsError: If `output` exists and `overwrite` is false.
        ValueError: If the model is an exported program or for regression, there are too few clips, a clip cannot be
            read, or no threshold fits; see also [`load_benchmark`].
    """
    if is_exported(model):
        raise ValueError(f"{model}: is exported, and its weights are fixed; calibrate the model, and export it again")
    if coverage is not None and max_false_alarms is not None:
        raise ValueError("coverage and max_false_alarms both choose the threshold; pass one of them")
    refuse_existing(Path(output), overwrite)
    network, processor = place(load_model(model), device, "float32"), load_processor(model)
    uncalibrate(network, "it is calibrated anew")
    clips = load_benchmark(dataset, data_dir, split, protocol, fold, block_list=block_list, classes=classes)
    warn_of_training_data(network, split_facts(clips))
    if len(clips) < MIN_CLIPS:
        raise ValueError(f"{data_dir}: {len(clips)} {split} clips are too few to calibrate on, {MIN_CLIPS} are needed")
    logits, labels = view_logits(network, processor, clips, views=views, num_workers=num_workers)

    config = network.config
    targets = torch.nn.functional.one_hot(labels, config.num_labels) if _has_several(config) else labels
    temperature = fit_temperature(logits, targets, config.problem_type)
    before, after = (_answers(each, labels, config) for each in (logits, logits / torch.tensor(temperature)))
    facts: dict[str, Any] = {
        "temperature": temperature,
        "split": describe_split(split_facts(clips)),
        "clips": len(clips),
        "views": views,
        **{f"ece_{when}": round(calibration_error(*of), 4) for when, of in (("before", before), ("after", after))},
        **{f"top1_{when}": float(right.mean()) for when, (_, right) in (("before", before), ("after", after))},
    }
    if coverage is not None:
        config.threshold = threshold_of_coverage(after[0], coverage)
    if max_false_alarms is not None:
        config.threshold = threshold_of_false_alarms(*after, max_false_alarms)
    if hasattr(config, "threshold"):
        answered = after[0] >= config.threshold
        facts |= {"coverage": float(answered.mean()), "false_alarms": float((~after[1])[answered].mean())}
    divide_logits(network, temperature)
    config.calibration = facts
    card = cached_file(model, "README.md", _raise_exceptions_for_missing_entries=False)
    with whole_or_nothing(output, overwrite) as folder:
        network.save_pretrained(folder)
        for part in (processor, image_processor_like(processor)):
            part.save_pretrained(folder)
        if card is not None:
            text = Path(card).read_text(encoding="utf-8")
            (folder / "README.md").write_text(with_fact(text, "calibration", describe_calibration(config)), "utf-8")
    return facts | ({"threshold": config.threshold} if hasattr(config, "threshold") else {})


def view_logits(
    model: Any, processor: Any, dataset: datasets.Dataset, *, views: int = 1, num_workers: int | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Logits of each view of each clip, (clips, views, num_labels), and class ids in the model's order, (clips,).

    Raises:
        ValueError: As [`predict_clips`], or if a clip cannot be read.
    """
    check_views(views, model.config)
    refuse_unfit_clips(model, dataset)
    names = dataset.features["label"].names
    of_name = {composed(name): index for index, name in model.config.id2label.items()}
    clips = undecoded(dataset)
    videos = (partial(video_source, example["video"]) for example in clips)
    found = []
    decoded = decode_clips(videos, processor, views=views, num_workers=num_workers)
    with closing(decoded), quiet_videos(), torch.inference_mode():
        for number, clip in enumerate(tqdm(decoded, total=len(clips), unit="clip", disable=None)):
            if clip.pixel_values is None:
                raise ValueError(
                    f"{clip_name(clips[number])}: cannot be read ({clip.error}); leave it out with the report of "
                    "`dvflnet verify` as block list"
                )
            shown = clip.pixel_values if views > 1 else clip.pixel_values[None]
            found.append(model(pixel_values=shown.to(model.device, model.dtype))[0].float().cpu())
    labels = [of_name[composed(names[label])] for label in dataset["label"]]
    return torch.stack(found).clone(), torch.tensor(labels)


def _has_several(config: Any) -> bool:
    return config.problem_type == "multi_label_classification"


def _answers(logits: torch.Tensor, labels: torch.Tensor, config: Any) -> tuple[np.ndarray, np.ndarray]:
    """Highest score of each clip, (clips,), and whether it is that of the true class."""
    best = class_scores(average_views(logits, config.problem_type), config).max(-1)
    return best.values.double().numpy(), (best.indices == labels).numpy()


def describe_calibration(config: Any) -> str:
    """Calibration and threshold of a config, in one line of a card."""
    facts = config.calibration
    temperature = "a temperature per label" if _has_several(config) else f"temperature {facts['temperature']:.3g}"
    views = "1 view" if facts["views"] == 1 else f"{facts['views']} views"
    text = f"{temperature}, fitted to {facts['clips']} clips ({facts['split']}; {views})"
    if hasattr(config, "threshold"):
        text += (
            f"; no answer below a score of {config.threshold:.3g}, as for {1 - facts['coverage']:.1%} of these clips. "
            "`pipeline` and remote code always answer"
        )
    return text
