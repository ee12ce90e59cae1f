"""
Cache of a teacher's logits for the training clips, so that distillation costs no more than plain training.

A training clip is a pure function of (seed, epoch, clip). The teacher's logits for the clip views of K epochs can
therefore be computed once and stored. Later trainings, whose epoch e shows view e mod K, read them instead of running
the teacher.

A cache is a folder of two kinds of files:

- `logits-00000.parquet` and so on, each of 1,024 rows, with the columns `clip`, `shown`, `bytes`, `seed`, `view`,
  `logits` and, if wanted, `features`. The rows are ordered by view, then by clip;
- `teacher_cache.json`, the key of the cache: digests of the teacher's weights and of the clip list, the classes, the
  settings of sampling and augmentation, the seed and K. A training with another key is refused.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import datasets
import numpy as np
import pyarrow
import pyarrow.compute
import pyarrow.parquet
import torch
from accelerate import Accelerator
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from ..data.clips import VideoClipDataset, collate_clips
from ..data.video_column import clip_name, video_size
from ..hub.calibration import uncalibrate
from ..hub.loaded_models import DType, HeadInput, feature_width, place, weights_digest
from ..hub.model_folder import whole_or_nothing
from .encoders import Encoder
from .labels import class_names, label_names, logits_of, refuse_other_classes, refuse_other_than_classifier


ROWS_PER_FILE = 1024  # an interrupted run repeats at most this many rows per process
KEY = "teacher_cache.json"


def cache_files(folder: Path, rows: int) -> dict[Path, range]:
    """The files of a cache, and which of its rows each contains."""
    return {
        folder / f"logits-{number:05d}.parquet": range(start, min(start + ROWS_PER_FILE, rows))
        for number, start in enumerate(range(0, rows, ROWS_PER_FILE))
    }


def clip_sizes(rows: datasets.Dataset) -> dict[str, int]:
    """Size of each clip's video in bytes, by clip id; -1 for a video at a URL."""
    sizes: dict[str, int] = {}
    if "video_id" not in rows.column_names:
        for video in rows.select_columns("video")["video"]:
            data = video["bytes"]
            sizes[clip_name({"video": video})] = video_size(video["path"]) if data is None else len(data)
        return sizes
    for batch in rows.with_format("arrow").iter(batch_size=1000):
        names = batch["video_id"].to_pylist()
        for chunk in batch["video"].chunks:  # in Arrow format, the size of a video is known without reading its bytes
            paths = chunk.field("path").to_pylist()
            lengths = pyarrow.compute.binary_length(chunk.field("bytes")).to_pylist()
            for path, length in zip(paths, lengths, strict=True):
                sizes[names.pop(0)] = video_size(path) if length is None else length
    return sizes


def digest_of(sizes: dict[str, int]) -> str:
    return hashlib.sha256(json.dumps(sorted(sizes.items())).encode()).hexdigest()


# Reading


class TeacherCache:
    """
    Reads a cache written by [`cache_teacher`]: the teacher's logits for `views` views of each clip.

    Args:
        folder: Folder of the cache.

    Attributes:
        views: Number of views per clip, K. Epoch e shows view e mod K.
        labels: Names of the teacher's classes, in the order of the logits.

    Raises:
        FileNotFoundError: If the folder contains no cache, or an unfinished one.
        ValueError: If the cache is damaged.
    """

    def __init__(self, folder: str | os.PathLike):
        self.folder = Path(folder)
        if not (self.folder / KEY).is_file():
            raise FileNotFoundError(f"{folder}: contains no {KEY}; write a cache with `dvflnet cache-teacher`")
        try:
            self.key: dict[str, Any] = json.loads((self.folder / KEY).read_text(encoding="utf-8"))
            self.views: int = self.key["views"]
            self.labels: list[str] = self.key["labels"]
            files = cache_files(self.folder, self.views * self.key["clips"]["number"])
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            raise ValueError(f"{folder}/{KEY}: is damaged ({error}); write the cache again") from error
        missing = [path for path in files if not path.is_file()]
        if missing:
            raise FileNotFoundError(
                f"{folder}: {len(missing)} of the {len(files)} files of the cache are missing, such as "
                f"{missing[0].name}; run the same `dvflnet cache-teacher` command again to write them"
            )
        self.rows = mapped_rows(self.folder / "rows.arrow", files)
        first_view = self.rows.select(range(self.key["clips"]["number"]))
        self._places = {name: place for place, name in enumerate(first_view["clip"])}
        self._sizes = dict(zip(first_view["clip"], first_view["bytes"], strict=True))

    @property
    def feature_width(self) -> int:
        """Number of values of the stored features. Raises `ValueError` if the cache was written without features."""
        if "features" not in self.key:
            raise ValueError(
                f"{self.folder}: contains logits but no features; write the cache with `dvflnet cache-teacher "
                "--features`, or set feature_weight to 0"
            )
        return self.key["features"]

    def logits(self, clip: str, view: int, shown: str) -> torch.Tensor:
        """The teacher's logits for one view of a clip, those of [`TeacherCache.answers`]."""
        return self.answers(clip, view, shown)["teacher_logits"]

    def answers(self, clip: str, view: int, shown: str) -> dict[str, torch.Tensor]:
        """
        What the teacher answered to one view of a clip.

        Returns:
            `teacher_logits`, float32 of shape (num_labels,), in the teacher's class order and shifted so that the
            largest is 0, unless only features are stored; and `teacher_features`, float32 of shape (feature_width,) or
            (frames, feature_width), if these are stored.

        Args:
            clip: The clip's id.
            view: Index of the view, from 0 to `views` - 1.
            shown: Id of the clip that training shows: `clip` itself, or its replacement if `clip` cannot be read.

        Raises:
            ValueError: If the clip is not in the cache, or the teacher was shown a different clip in its place.
        """
        if clip not in self._places:
            raise ValueError(f"{self.folder}: clip {clip} is not in the cache")
        row = self.rows[view * len(self._places) + self._places[clip]]
        if str(row["shown"]) != shown:
            raise ValueError(
                f"{self.folder}: view {view} of {clip} showed {row['shown']} when the cache was written, but shows "
                f"{shown} now. One of the two files may have been broken or repaired since; write the cache again"
            )
        columns = {"teacher_logits": "logits", "teacher_features": "features"}
        answers = {
            name: torch.from_numpy(np.asarray(row[column], dtype=np.float32))
            for name, column in columns.items()
            if column in row
        }
        if "frames" in self.key:
            answers["teacher_features"] = answers["teacher_features"].unflatten(0, (self.key["frames"], -1))
        return answers

    def refuse_other_clips(self, clips: Any):
        """
        Raise `ValueError` if training would show clips that the teacher did not see. The message names the difference.

        Training on a subset of the cached clips is allowed.
        """
        for name, value in clips.settings().items():
            cached = self.key.get(name)
            if value != cached:
                if isinstance(value, dict) and isinstance(cached, dict):
                    name, cached, value = next(
                        (f"{name}.{key}", cached.get(key), value[key])
                        for key in value
                        if value[key] != cached.get(key)
                    )
                raise ValueError(f"{self.folder}: was written with {name} {cached}, but training uses {value}")
        sizes = clip_sizes(clips.dataset)
        if digest_of(sizes) == self.key["clips"]["sha256"]:
            return
        for name, size in sizes.items():
            if name not in self._sizes:
                raise ValueError(
                    f"{self.folder}: the cached clips differ from the training clips: {name} is not cached"
                )
            if size != self._sizes[name]:
                raise ValueError(
                    f"{self.folder}: the cached clips differ from the training clips: {name} had "
                    f"{self._sizes[name]} bytes when the cache was written, and has {size} now"
                )

    def refuse_other_teacher(self, teacher: PreTrainedModel):
        """Raise `ValueError` if the weights of a teacher differ from those of the cached teacher."""
        found = weights_digest(teacher.state_dict())
        if found != self.key["teacher"]:
            raise ValueError(
                f"{self.folder}: was written with a different teacher, {self.key['teacher_name']}: the digest of "
                f"its weights is {self.key['teacher'][:12]}, but {found[:12]} for this teacher"
            )


def mapped_rows(arrow: Path, files: dict[Path, range]) -> datasets.Dataset:
    """
    The rows of all files, memory-mapped from one Arrow file, which is written when they are first read. (The Parquet
    reader of `datasets` would take some characters of the paths for patterns.)
    """
    if not arrow.is_file() or arrow.stat().st_mtime_ns <= max(path.stat().st_mtime_ns for path in files):
        tables = (_read_table(path, len(rows)) for path, rows in files.items())
        first = next(tables)
        with (
            whole_or_nothing(arrow, overwrite=True) as unfinished,
            pyarrow.OSFile(str(unfinished), "wb") as file,
            pyarrow.ipc.new_stream(file, first.schema) as writer,
        ):
            writer.write_table(first)
            for table in tables:
                writer.write_table(table.cast(first.schema))
    return datasets.Dataset.from_file(str(arrow)).with_format("numpy")


def _read_table(path: Path, rows: int) -> pyarrow.Table:
    try:
        with open(path, "rb") as file:
            table = pyarrow.parquet.read_table(file)
        if table.num_rows != rows:
            raise ValueError(f"{table.num_rows} rows instead of {rows}")
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        raise ValueError(
            f"{path}: is damaged ({error}); delete it and run the same `dvflnet cache-teacher` command again to "
            "rewrite it"
        ) from error
    return table


# Writing


def cache_teacher(
    teacher: PreTrainedModel | Encoder,
    clips: VideoClipDataset,
    folder: str | os.PathLike,
    *,
    views: int,
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
    Store a teacher's logits for the views that training shows in its first `views` epochs, for [`TeacherCache`].

    The logits of each row are shifted so that the largest is 0. Files that exist are kept, so an interrupted run can
    be continued with the same call. The files are distributed over the processes.

    Args:
        teacher: Any video classifier that takes `pixel_values`, or an `Encoder`, whose features alone are stored.
        clips: The training clips, with the settings that the training will use.
        folder: Output folder.
        views: Number of views per clip, K.
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
            clips, or have classes other than the teacher's; if the teacher's logits or features are not finite; or if
            it has no `classifier` to take features from.
    """
    accelerator = accelerator or Accelerator()
    folder = Path(folder)
    if views < 1:
        raise ValueError(f"views must be at least 1, got {views}")
    if not isinstance(clips, VideoClipDataset) or not clips.train:
        raise ValueError("the clips of a cache must be training clips; use VideoClipDataset(..., train=True)")
    encoder: Encoder | None = None
    if isinstance(teacher, Encoder):
        encoder, teacher = teacher, teacher.model
    else:
        refuse_other_than_classifier(teacher, "teacher")
        uncalibrate(teacher, "it teaches")
        refuse_other_classes(teacher, class_names(clips))
    sizes = clip_sizes(clips.dataset)
    if len(sizes) < len(clips):
        raise ValueError(f"{len(clips)} clips have only {len(sizes)} different ids; each clip needs an id of its own")
    key = {
        "teacher": weights_digest(teacher.state_dict()),
        "teacher_name": name,
        "labels": label_names(teacher) if encoder is None else [],
        "clips": {"number": len(sizes), "sha256": digest_of(sizes)},
        **clips.settings(),
        "views": views,
        "dtype": dtype,
    }
    if encoder is not None:
        key["features"] = encoder.width
        key |= {"frames": clips.processor.num_frames} if encoder.of_frames else {}
    elif features:
        key["features"] = feature_width(teacher)
    if teacher_dtype != "auto":
        key["teacher_dtype"] = teacher_dtype
    if accelerator.is_main_process:
        _write_key(folder, key)
    accelerator.wait_for_everyone()
    # after the digest of its weights, which is that of the teacher as it is saved
    teacher = place(teacher, device or accelerator.device, teacher_dtype).eval()
    pooled = HeadInput(teacher) if features and encoder is None else None

    files = cache_files(folder, views * len(clips))
    todo = [file for file in files if not file.is_file()]
    accelerator.wait_for_everyone()  # all have seen the same files before any of them writes one
    mine = todo[accelerator.process_index :: accelerator.num_processes]
    columns = datasets.Features(
        {
            "clip": datasets.Value("string"),
            "shown": datasets.Value("string"),
            "bytes": datasets.Value("int64"),
            "seed": datasets.Value("int64"),
            "view": datasets.Value("int32"),
        }
    )
    if encoder is None:
        columns["logits"] = datasets.List(datasets.Value(dtype), length=teacher.config.num_labels)
    if "features" in key:
        columns["features"] = datasets.List(datasets.Value("float16"), key["features"] * key.get("frames", 1))
    numbers = [number for file in mine for number in files[file]]
    loader: Any = torch.utils.data.DataLoader(
        torch.utils.data.Subset(_Views(clips), numbers), batch_size, num_workers=num_workers, collate_fn=collate_clips
    )
    quiet = None if accelerator.is_main_process else True
    batches = tqdm(loader, desc="teacher", unit="batch", disable=quiet)
    answers = (answer for batch in batches for answer in _ask(teacher, encoder, pooled, batch, dtype, name))
    names, answered = list(sizes), zip(numbers, answers, strict=True)
    for file in mine:
        written = []
        for number, answer in islice(answered, len(files[file])):
            view, index = divmod(number, len(clips))
            clip = {"clip": names[index], "bytes": sizes[names[index]], "seed": clips.seed, "view": view}
            written.append({**clip, **answer})
        with whole_or_nothing(file) as unfinished, open(unfinished, "wb") as part:
            datasets.Dataset.from_list(written, features=columns).to_parquet(part)
    accelerator.wait_for_everyone()
    return {
        "rows": views * len(clips),
        "written": sum(len(files[file]) for file in todo),
        "bytes": sum(file.stat().st_size for file in files),
    }


def _ask(
    teacher: Any, encoder: Encoder | None, pooled: HeadInput | None, batch: dict[str, Any], dtype: str, name: str
) -> Iterator[dict[str, Any]]:
    """For each clip of a batch, the clip that was shown, its logits, and with `pooled` or an encoder its features."""
    with torch.inference_mode():
        pixel_values = batch["pixel_values"].to(teacher.device, next(teacher.parameters()).dtype)
        if encoder is None:
            output = teacher(pixel_values=pixel_values, return_dict=True)
        else:
            output = teacher(encoder.given(pixel_values), **encoder.options)
            features = encoder.read(output, len(pixel_values)).flatten(1)
    answers = {}
    if encoder is None:
        logits = logits_of(output, "teacher", teacher.config.num_labels).float()
        # A softmax is unchanged if the same number is subtracted from all classes, and half precision is most exact
        # near 0: the error is up to 0.008 for 17, and up to 0.00003 for 0.1.
        answers["logits"] = (logits - logits.amax(dim=-1, keepdim=True)).cpu().numpy().astype(dtype)
    if pooled is not None:
        features = pooled.take()
    if pooled is not None or encoder is not None:
        answers["features"] = features.float().cpu().numpy().astype("float16")
    finite = np.logical_and.reduce([np.isfinite(values).all(axis=-1) for values in answers.values()])
    if not finite.all():
        raise ValueError(
            f"{name or 'the teacher'}: the {' or '.join(answers)} for clip {batch['clip'][int(finite.argmin())]} are "
            "not finite, and are not cached. Check whether the weights are damaged, or whether the model overflows in "
            "half precision"
        )
    for place_in_batch, shown in enumerate(batch["clip"]):
        yield {"shown": shown, **{column: values[place_in_batch] for column, values in answers.items()}}


class _Views(torch.utils.data.Dataset):
    """All views of all clips, ordered by view."""

    def __init__(self, clips: VideoClipDataset):
        self.clips = clips

    def __getitem__(self, number: int) -> dict[str, Any]:
        view, index = divmod(number, len(self.clips))
        return self.clips.draw(index, view)


def _write_key(folder: Path, key: dict[str, Any]):
    """Write `teacher_cache.json`, unless it is there; a folder with other answers or other content is refused."""
    file = folder / KEY
    if file.is_file():
        found = json.loads(file.read_text(encoding="utf-8"))
        differing = [name for name in key if name != "teacher_name" and found.get(name) != key[name]]
        if not differing:
            return
        if any(folder.glob("logits-*.parquet")):
            raise ValueError(
                f"{folder}: contains a cache with different settings ({', '.join(differing)}); choose a different "
                "folder, or delete this one"
            )
    elif folder.is_dir() and any(path.suffix != ".unfinished" for path in folder.iterdir()):
        raise ValueError(f"{folder}: is not empty, and does not contain a teacher cache; choose a different folder")
    with whole_or_nothing(file, overwrite=True) as unfinished:
        unfinished.write_text(json.dumps(key, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
