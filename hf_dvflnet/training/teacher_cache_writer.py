"""Stores a teacher's answers to the training clips, in files of 1,024 rows, so that each is computed once."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import datasets
import numpy as np
import torch
from accelerate import Accelerator
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from ..data.clips import VideoClipDataset, collate_clips
from ..data.loader_workers import naming_clips_of_dead_workers
from ..hub.loaded_models import DType, HeadInput, feature_width, place, weights_digest
from . import teacher_cache
from .class_matching import class_names, label_names, refuse_other_classes, with_labels_of
from .digests import clip_sizes, digest_of
from .frame_heads import OutOfFoldAnswers
from .teacher_cache import DESCRIPTION, shard_files
from .teachers import logits_of, refuse_other_than_classifier


def cache_teacher(
    teacher: PreTrainedModel,
    clips: VideoClipDataset,
    folder: str | os.PathLike,
    *,
    views: int,
    folds: int | None = None,
    features: bool = False,
    name: str = "",
    dtype: Literal["float16", "float32"] = "float16",
    device: str | torch.device | None = None,
    teacher_dtype: DType = "auto",
    batch_size: int = 8,
    num_workers: int = 0,
    accelerator: Accelerator | None = None,
) -> dict[str, Any]:
    """
    Store a teacher's logits for the views that training shows in its first `views` epochs.

    Two kinds of files are written:

    - Parquet files of 1,024 rows each, distributed over the processes, with the columns `clip`, `shown`, `bytes`,
      `seed`, `view`, `logits` and, if wanted, `features`. The logits of each row are shifted so that the largest is 0.
    - `teacher_cache.json`, with digests of the teacher's weights and of the clip list, the classes, the settings of
      sampling and augmentation, the seed and K.

    Parquet files that exist are kept, so an interrupted run can be continued with the same call.

    Args:
        teacher: Any video classifier that takes `pixel_values`.
        clips: The training clips, with the settings that the training will use.
        folder: Output folder.
        views: Number of views per clip, K.
        folds: Store answers out of fold: those to a clip come from a head that is trained here on the clips of the
            other folds ([`OutOfFoldAnswers`]), for a teacher that knows its training clips by heart.
        features: Store the teacher's pooled features, what its `classifier` is given, in float16 beside the logits,
            for `feature_weight`.
        name: The teacher's name, for error messages.
        dtype: Data type of the stored logits.
        device: Device of the teacher, as in [`choose_device`]; by default the accelerator's.
        teacher_dtype: Data type in which the teacher computes; by default that of its weights.
        batch_size: Number of clips per forward pass.
        num_workers: Number of decoding processes.
        accelerator: The accelerator to use; a new one by default.

    Returns:
        `rows` (number of views of all clips), `written` (rows written by this run) and `bytes` (size on disk).

    Raises:
        ValueError: If the folder contains a cache with different settings, or other files; if `clips` are not training
            clips, or have classes other than the teacher's; if the teacher's logits or features are not finite; if
            it has no `classifier` to take features from; or, with `folds`, as in [`OutOfFoldAnswers`].
    """
    accelerator = accelerator or Accelerator()
    folder = Path(folder)
    if views < 1:
        raise ValueError(f"views must be at least 1, got {views}")
    if not clips.train:
        raise ValueError("the clips of a cache must be training clips; use VideoClipDataset(..., train=True)")
    refuse_other_than_classifier(teacher, "teacher")
    refuse_other_classes(teacher, class_names(clips))
    sizes = clip_sizes(clips.dataset)
    if len(sizes) < len(clips):
        raise ValueError(f"{len(clips)} clips have only {len(sizes)} different ids; each clip needs an id of its own")
    about = _describe(teacher, clips, sizes, views, name, dtype)
    if folds is not None:
        about["folds"] = folds
    if features:
        about["features"] = feature_width(teacher)
    if teacher_dtype != "auto":
        about["teacher_dtype"] = teacher_dtype
    if accelerator.is_main_process:
        _begin(folder, about)
    accelerator.wait_for_everyone()
    # after the digest of its weights, which is that of the teacher as it is saved
    teacher = place(teacher, device or accelerator.device, teacher_dtype).eval()
    loading = {"batch_size": batch_size, "num_workers": num_workers, "device": teacher.device}
    answers = None
    if folds is not None:
        with accelerator.main_process_first():  # the others read what it writes
            answers = OutOfFoldAnswers(teacher, with_labels_of(teacher, clips), folds, folder, **loading)
        if accelerator.is_main_process:
            _write_description(folder, {**about, "heads": answers.digest})

    shards = shard_files(folder, views * len(clips))
    rows = {
        shard: range(start, min(start + teacher_cache.ROWS_PER_SHARD, views * len(clips)))
        for start, shard in _starts(shards)
    }
    todo = [shard for shard in shards if not shard.is_file()]
    accelerator.wait_for_everyone()  # all have seen the same shards before any of them writes one
    mine = todo[accelerator.process_index :: accelerator.num_processes]
    batches = [
        list(rows[shard][start : start + batch_size])
        for shard in mine
        for start in range(0, len(rows[shard]), batch_size)
    ]
    shares = {shard: rows[shard] for shard in mine}
    _ask_and_write(teacher, answers, features, clips, sizes, shares, batches, name, dtype, num_workers, accelerator)
    accelerator.wait_for_everyone()
    return {
        "rows": views * len(clips),
        "written": sum(len(rows[shard]) for shard in todo),
        "bytes": sum(shard.stat().st_size for shard in shards),
    }


def _describe(
    teacher: PreTrainedModel, clips: VideoClipDataset, sizes: dict[str, int], views: int, name: str, dtype: str
) -> dict[str, Any]:
    """The content of `teacher_cache.json`: the teacher, the clips, and how the clips are sampled."""
    return {
        "teacher": weights_digest(teacher),
        "teacher_name": name,
        "labels": label_names(teacher),
        "clips": {"number": len(sizes), "sha256": digest_of(sizes)},
        **clips.settings(),
        "views": views,
        "dtype": dtype,
    }


def _ask_and_write(
    teacher: PreTrainedModel,
    answers: OutOfFoldAnswers | None,
    with_features: bool,
    clips: VideoClipDataset,
    sizes: dict[str, int],
    shares: dict[Path, range],
    batches: list[list[int]],
    name: str,
    dtype: str,
    num_workers: int,
    accelerator: Accelerator,
):
    """Run the teacher on the views of this process's shards, and write each shard when it is full."""
    loader: torch.utils.data.DataLoader = torch.utils.data.DataLoader(
        _Views(clips), batch_sampler=batches, num_workers=num_workers, collate_fn=collate_clips
    )
    weights_dtype = next(teacher.parameters()).dtype
    pooled = HeadInput(teacher) if with_features else None
    features = datasets.Features(
        {
            "clip": datasets.Value("string"),
            "shown": datasets.Value("string"),
            "bytes": datasets.Value("int64"),
            "seed": datasets.Value("int64"),
            "view": datasets.Value("int32"),
            "logits": datasets.List(datasets.Value(dtype), length=teacher.config.num_labels),
            **({} if answers is None else {"fold": datasets.Value("int32")}),
            **({"features": datasets.List(datasets.Value("float16"), feature_width(teacher))} if pooled else {}),
        }
    )
    names, shards_left = list(sizes), iter(shares)
    columns: dict[str, list[Any]] = {column: [] for column in features}
    progress = tqdm(
        total=sum(map(len, shares.values())),
        unit="view",
        desc="caching the teacher",
        disable=None if accelerator.is_main_process else True,
    )
    shard = next(shards_left, None)
    with naming_clips_of_dead_workers(clips):
        for numbers, batch in zip(batches, loader, strict=True):
            with torch.inference_mode():
                pixel_values = batch["pixel_values"].to(teacher.device, weights_dtype)
                output = teacher(pixel_values=pixel_values, return_dict=True)
                logits = (
                    logits_of(output, "teacher", teacher.config.num_labels)
                    if answers is None
                    else answers(output.pooler_output, batch["clip"])
                )
            # A softmax is unchanged if the same number is subtracted from all classes, and half precision is most
            # exact near 0: the error is up to 0.008 for 17, and up to 0.00003 for 0.1.
            logits = logits.float()
            shifted = (logits - logits.amax(dim=-1, keepdim=True)).cpu().numpy().astype(dtype)
            finite = np.isfinite(shifted).all(axis=-1)
            if pooled is not None:
                row_features = pooled.take().cpu().numpy().astype("float16")
                finite &= np.isfinite(row_features).all(axis=-1)
                columns["features"] += list(row_features)
            if not finite.all():
                clip = batch["clip"][int(finite.argmin())]
                raise ValueError(
                    f"{name or 'the teacher'}: the {'logits' if pooled is None else 'logits or features'} for clip "
                    f"{clip} are not finite, and are not cached. "
                    "Check whether the weights are damaged, or whether the model overflows in half precision"
                )
            view_and_place = [divmod(number, len(clips)) for number in numbers]
            columns["clip"] += [names[place] for _, place in view_and_place]
            columns["shown"] += batch["clip"]
            columns["bytes"] += [sizes[names[place]] for _, place in view_and_place]
            columns["seed"] += [clips.seed] * len(numbers)
            columns["view"] += [view for view, _ in view_and_place]
            columns["logits"] += list(shifted)
            if answers is not None:
                columns["fold"] += [answers.folds[clip] for clip in batch["clip"]]
            progress.update(len(numbers))
            if shard is not None and len(columns["clip"]) == len(shares[shard]):
                unfinished = shard.with_suffix(".unfinished")
                datasets.Dataset.from_dict(columns, features=features).to_parquet(unfinished)
                os.replace(unfinished, shard)
                columns = {column: [] for column in features}
                shard = next(shards_left, None)
    progress.close()


class _Views(torch.utils.data.Dataset):
    """All views of all clips, ordered by view."""

    def __init__(self, clips: VideoClipDataset):
        self.clips = clips

    def __getitem__(self, number: int) -> dict[str, Any]:
        view, index = divmod(number, len(self.clips))
        return self.clips.draw(index, view)


def cache_bytes(clips: int, views: int, num_labels: int, dtype: str = "float16", features: int = 0) -> int:
    """Size of a cache's logits, and of its features of a width, in bytes, before Parquet's compression."""
    return clips * views * (num_labels * np.dtype(dtype).itemsize + features * np.dtype("float16").itemsize)


def _begin(folder: Path, about: dict[str, Any]):
    description = folder / DESCRIPTION
    if description.is_file():
        found = json.loads(description.read_text(encoding="utf-8"))
        differing = [name for name in about if name != "teacher_name" and found.get(name) != about[name]]
        if differing:
            raise ValueError(
                f"{folder}: contains a cache with different settings ({', '.join(differing)}); choose a different "
                "folder, or delete this one"
            )
        return
    unfinished = description.with_suffix(".unfinished")
    if folder.is_dir() and any(path != unfinished for path in folder.iterdir()):
        raise ValueError(f"{folder}: is not empty, and does not contain a teacher cache; choose a different folder")
    _write_description(folder, about)


def _write_description(folder: Path, about: dict[str, Any]):
    unfinished = (folder / DESCRIPTION).with_suffix(".unfinished")
    folder.mkdir(parents=True, exist_ok=True)
    unfinished.write_text(json.dumps(about, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(unfinished, folder / DESCRIPTION)


def _starts(shards: list[Path]) -> Iterator[tuple[int, Path]]:
    return ((number * teacher_cache.ROWS_PER_SHARD, shard) for number, shard in enumerate(shards))


__all__ = ["cache_bytes", "cache_teacher"]
