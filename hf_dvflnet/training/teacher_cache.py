"""
A teacher's answers to the training clips, computed once, so that distillation costs no more than plain training.

A training clip is a pure function of (seed, epoch, clip), so the teacher's logits for the views of K epochs can be
stored, and any later training whose epoch e shows view e mod K can read them instead of asking the teacher.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import datasets
import numpy as np
import pyarrow.compute
import pyarrow.parquet
import torch
from accelerate import Accelerator
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from ..data.clips import VideoClipDataset, collate_clips
from ..data.loader_workers import naming_clips_of_dead_workers
from ..data.video_column import clip_name, video_size
from .class_matching import class_names, label_names, refuse_other_classes


ROWS_PER_SHARD = 1024  # what an interrupted run may have to do again
DESCRIPTION = "teacher_cache.json"


class TeacherCache:
    """
    A folder that [`cache_teacher`] wrote: the teacher's logits for `views` views of each clip.

    Args:
        folder: The folder.

    Attributes:
        views: K. Epoch e shows view e mod K.
        labels: Names of the teacher's classes, in the order of the logits.

    Raises:
        FileNotFoundError: If there is no cache, or it is not finished.
        ValueError: If it is damaged.
    """

    def __init__(self, folder: str | os.PathLike):
        self.folder = Path(folder)
        if not (self.folder / DESCRIPTION).is_file():
            raise FileNotFoundError(f"{folder}: holds no {DESCRIPTION}; write a cache with `dvflnet cache-teacher`")
        try:
            self.about: dict[str, Any] = json.loads((self.folder / DESCRIPTION).read_text(encoding="utf-8"))
            self.views: int = self.about["views"]
            self.labels: list[str] = self.about["labels"]
            self._shards()
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            raise ValueError(f"{folder}/{DESCRIPTION}: is damaged ({error}); write the cache again") from error
        missing = [path for path in self._shards() if not path.is_file()]
        if missing:
            raise FileNotFoundError(
                f"{folder}: {len(missing)} of its {len(self._shards())} parts are missing, such as "
                f"{missing[0].name}: continue with the same `dvflnet cache-teacher` command"
            )
        try:
            self.rows = datasets.load_dataset(
                "parquet", data_files=[str(path) for path in self._shards()], split="train", cache_dir=str(self.folder)
            ).with_format("numpy")
            first_view = self.rows.select(range(self.about["clips"]["number"]))
            self._places = {name: place for place, name in enumerate(first_view["clip"])}
            self._sizes = dict(zip(first_view["clip"], first_view["bytes"], strict=True))
        except (datasets.exceptions.DatasetGenerationError, pyarrow.ArrowException, LookupError) as error:
            raise ValueError(
                f"{folder}/{self._damaged_part()}: is damaged ({error.__cause__ or error}); delete it, and continue "
                "with the same `dvflnet cache-teacher` command"
            ) from error

    def _damaged_part(self) -> str:
        for path in self._shards():
            try:
                pyarrow.parquet.read_table(path)
            except (OSError, pyarrow.ArrowException):
                return path.name
        return DESCRIPTION  # speaks of other parts than there are

    def _shards(self) -> list[Path]:
        return shard_files(self.folder, self.views * self.about["clips"]["number"])

    def logits(self, clip: str, view: int, shown: str) -> torch.Tensor:
        """
        The teacher's logits for a view of a clip less the largest, float32 in its own order of classes: (num_labels,).

        Args:
            clip: The clip's id.
            view: From 0 to `views` - 1.
            shown: The clip that is shown: `clip` itself, or its replacement if that could not be read.

        Raises:
            ValueError: If the teacher saw another clip in its place, or never saw it.
        """
        if clip not in self._places:
            raise ValueError(f"{self.folder}: the clip {clip} is not in the cache")
        row = self.rows[view * len(self._places) + self._places[clip]]
        if str(row["shown"]) != shown:
            raise ValueError(
                f"{self.folder}: view {view} of {clip} showed {row['shown']} when the cache was written, and shows "
                f"{shown} now: has one of them been broken or repaired since? Write the cache again"
            )
        return torch.from_numpy(np.asarray(row["logits"], dtype=np.float32))

    def refuse_other_clips(self, clips: Any):
        """
        Raise `ValueError` if training would show other clips than the teacher saw, naming the difference.

        Training on a subset of the cached clips is allowed. The clips of a stream are looked up as they come.
        """
        for name, value in clips.settings().items():
            cached = self.about.get(name)
            if value != cached:
                if isinstance(value, dict) and isinstance(cached, dict):
                    name, cached, value = next(
                        (f"{name}.{key}", cached.get(key), value[key])
                        for key in value
                        if value[key] != cached.get(key)
                    )
                raise ValueError(f"{self.folder}: was written with {name} {cached}, but training has {value}")
        if isinstance(clips, VideoClipDataset):
            sizes = clip_sizes(clips.dataset)
            if digest_of(sizes) == self.about["clips"]["sha256"]:
                return
            for name, size in sizes.items():
                if name not in self._sizes:
                    raise ValueError(f"{self.folder}: its clip list is another one: {name} is not in it")
                if size != self._sizes[name]:
                    raise ValueError(
                        f"{self.folder}: its clip list is another one: {name} had {self._sizes[name]} bytes when the "
                        f"cache was written, and has {size} now"
                    )

    def refuse_other_teacher(self, teacher: PreTrainedModel):
        """Raise `ValueError` if a teacher has other weights than the one that was cached."""
        found = weights_digest(teacher)
        if found != self.about["teacher"]:
            raise ValueError(
                f"{self.folder}: was written with the teacher {self.about['teacher_name']}, whose weights have the "
                f"digest {self.about['teacher'][:12]}; those of this teacher have {found[:12]}"
            )


def cache_teacher(
    teacher: PreTrainedModel,
    clips: VideoClipDataset,
    folder: str | os.PathLike,
    *,
    views: int,
    name: str = "",
    dtype: Literal["float16", "float32"] = "float16",
    batch_size: int = 8,
    num_workers: int = 0,
    accelerator: Accelerator | None = None,
) -> dict[str, Any]:
    """
    Store a teacher's logits for the views that training shows in its first `views` epochs.

    Writes Parquet of 1,024 rows each (columns `clip`, `shown`, `bytes`, `seed`, `view`, and `logits`, from which the
    largest of each row is taken, so that it is 0), shared out among the processes, and `teacher_cache.json`, with
    digests of the teacher's weights and of the clip list, the classes, the settings of sampling and augmentation, the
    seed and K. Parts that are there are kept, so that a run that was stopped goes on.

    Args:
        teacher: Any video classifier that takes `pixel_values`.
        clips: The training clips, as the training will show them.
        folder: The folder to write.
        views: K.
        name: The teacher's name in error messages.
        dtype: Of the stored logits.
        batch_size: Clips that are classified at once.
        num_workers: Processes that decode.
        accelerator: The accelerator to use; a new one by default.

    Returns:
        `rows` (views of all clips), `written` (those of this run), `bytes` (on disk).

    Raises:
        ValueError: If the folder holds a cache of other settings, or something else; if `clips` are not for training,
            or of other classes than the teacher's; or if the teacher answers with numbers that are not finite.
    """
    accelerator = accelerator or Accelerator()
    folder = Path(folder)
    if views < 1:
        raise ValueError(f"views must be at least 1, got {views}")
    if not clips.train:
        raise ValueError("the clips of a cache are training clips: VideoClipDataset(..., train=True)")
    refuse_other_classes(teacher, class_names(clips))
    sizes = clip_sizes(clips.dataset)
    if len(sizes) < len(clips):
        raise ValueError(
            f"{len(clips)} clips have only {len(sizes)} different ids, so that views cannot be told apart"
        )
    about = _describe(teacher, clips, sizes, views, name, dtype)
    if accelerator.is_main_process:
        _begin(folder, about)
    accelerator.wait_for_everyone()

    shards = shard_files(folder, views * len(clips))
    rows = {shard: range(start, min(start + ROWS_PER_SHARD, views * len(clips))) for start, shard in _starts(shards)}
    todo = [shard for shard in shards if not shard.is_file()]
    mine = todo[accelerator.process_index :: accelerator.num_processes]
    batches = [
        list(rows[shard][start : start + batch_size])
        for shard in mine
        for start in range(0, len(rows[shard]), batch_size)
    ]
    shares = {shard: rows[shard] for shard in mine}
    _ask_and_write(teacher, clips, sizes, shares, batches, name, dtype, num_workers, accelerator)
    accelerator.wait_for_everyone()
    return {
        "rows": views * len(clips),
        "written": sum(len(rows[shard]) for shard in todo),
        "bytes": sum(shard.stat().st_size for shard in shards),
    }


def _describe(
    teacher: PreTrainedModel, clips: VideoClipDataset, sizes: dict[str, int], views: int, name: str, dtype: str
) -> dict[str, Any]:
    """What `teacher_cache.json` says: which teacher, which clips, and how they are shown."""
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
    clips: VideoClipDataset,
    sizes: dict[str, int],
    shares: dict[Path, range],
    batches: list[list[int]],
    name: str,
    dtype: str,
    num_workers: int,
    accelerator: Accelerator,
):
    """Ask the teacher about the views of this process's shards, and write each shard when it is full."""
    loader: torch.utils.data.DataLoader = torch.utils.data.DataLoader(
        _Views(clips), batch_sampler=batches, num_workers=num_workers, collate_fn=collate_clips
    )
    teacher = teacher.to(accelerator.device).eval()
    weights_dtype = next(teacher.parameters()).dtype
    features = datasets.Features(
        {
            "clip": datasets.Value("string"),
            "shown": datasets.Value("string"),
            "bytes": datasets.Value("int64"),
            "seed": datasets.Value("int64"),
            "view": datasets.Value("int32"),
            "logits": datasets.List(datasets.Value(dtype), length=teacher.config.num_labels),
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
                pixel_values = batch["pixel_values"].to(accelerator.device, weights_dtype)
                logits = teacher(pixel_values=pixel_values).logits.float()
            # no softmax sees what is taken off all classes alike, and numbers near 0 are the ones that half precision
            # holds exactly: 17 is stored to 0.008, 0.1 to 0.00003
            logits = (logits - logits.amax(dim=-1, keepdim=True)).cpu().numpy().astype(dtype)
            finite = np.isfinite(logits).all(axis=-1)
            if not finite.all():
                clip = batch["clip"][int(finite.argmin())]
                raise ValueError(
                    f"{name or 'the teacher'}: its answer to the clip {clip} holds numbers that are not finite; "
                    "nothing is cached of it. Are its weights damaged, or does it overflow in half precision?"
                )
            view_and_place = [divmod(number, len(clips)) for number in numbers]
            columns["clip"] += [names[place] for _, place in view_and_place]
            columns["shown"] += batch["clip"]
            columns["bytes"] += [sizes[names[place]] for _, place in view_and_place]
            columns["seed"] += [clips.seed] * len(numbers)
            columns["view"] += [view for view, _ in view_and_place]
            columns["logits"] += list(logits)
            progress.update(len(numbers))
            if shard is not None and len(columns["clip"]) == len(shares[shard]):
                unfinished = shard.with_suffix(".unfinished")
                datasets.Dataset.from_dict(columns, features=features).to_parquet(unfinished)
                os.replace(unfinished, shard)
                columns = {column: [] for column in features}
                shard = next(shards_left, None)
    progress.close()


class _Views(torch.utils.data.Dataset):
    """All views of all clips, view by view."""

    def __init__(self, clips: VideoClipDataset):
        self.clips = clips

    def __getitem__(self, number: int) -> dict[str, Any]:
        view, index = divmod(number, len(self.clips))
        return self.clips.draw(index, view)


def cache_bytes(clips: int, views: int, num_labels: int, dtype: str = "float16") -> int:
    """How large the logits of a cache are, in bytes, before Parquet packs them."""
    return clips * views * num_labels * np.dtype(dtype).itemsize


def _begin(folder: Path, about: dict[str, Any]):
    description = folder / DESCRIPTION
    if description.is_file():
        found = json.loads(description.read_text(encoding="utf-8"))
        differing = [name for name in about if name != "teacher_name" and found.get(name) != about[name]]
        if differing:
            raise ValueError(
                f"{folder}: holds a cache of another {', '.join(differing)}; choose another folder, or delete this one"
            )
        return
    unfinished = description.with_suffix(".unfinished")
    if folder.is_dir() and any(path != unfinished for path in folder.iterdir()):
        raise ValueError(f"{folder}: is not empty, and holds no teacher cache; choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    unfinished.write_text(json.dumps(about, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(unfinished, description)


def shard_files(folder: Path, rows: int) -> list[Path]:
    return [folder / f"logits-{number:05d}.parquet" for number in range(-(-rows // ROWS_PER_SHARD))]


def _starts(shards: list[Path]) -> Iterator[tuple[int, Path]]:
    return ((number * ROWS_PER_SHARD, shard) for number, shard in enumerate(shards))


def clip_sizes(rows: datasets.Dataset) -> dict[str, int]:
    """Each clip's id and the size of its video in bytes; -1 where that lies at a URL."""
    sizes: dict[str, int] = {}
    if "video_id" not in rows.column_names:
        for video in rows.select_columns("video")["video"]:
            data = video["bytes"]
            sizes[clip_name({"video": video})] = video_size(video["path"]) if data is None else len(data)
        return sizes
    for batch in rows.with_format("arrow").iter(batch_size=1000):
        names = batch["video_id"].to_pylist()
        for chunk in batch["video"].chunks:  # as arrow, so that the bytes of videos are measured without being read
            paths = chunk.field("path").to_pylist()
            lengths = pyarrow.compute.binary_length(chunk.field("bytes")).to_pylist()
            for path, length in zip(paths, lengths, strict=True):
                sizes[names.pop(0)] = video_size(path) if length is None else length
    return sizes


def digest_of(sizes: dict[str, int]) -> str:
    return hashlib.sha256(json.dumps(sorted(sizes.items())).encode()).hexdigest()


def weights_digest(model: PreTrainedModel) -> str:
    """SHA-256 over names, types, shapes and values of a model's weights."""
    digest = hashlib.sha256()
    for name, weight in sorted(model.state_dict().items()):
        digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}".encode())
        # as bytes, since numpy has no bfloat16
        digest.update(weight.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


__all__ = ["TeacherCache", "cache_bytes", "cache_teacher"]
