"""
Cache of a teacher's logits for the training clips, so that distillation costs no more than plain training.

A training clip is a pure function of (seed, epoch, clip). The teacher's logits for the clip views of K epochs can
therefore be computed once and stored. Later trainings, whose epoch e shows view e mod K, read them instead of running
the teacher.
"""

import json
import os
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow
import pyarrow.parquet
import torch
from transformers import PreTrainedModel

from ..data.clips import VideoClipDataset
from ..hub.loaded_models import weights_digest
from .digests import clip_sizes, digest_of


ROWS_PER_SHARD = 1024  # an interrupted run repeats at most this many rows per process
DESCRIPTION = "teacher_cache.json"


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
        if not (self.folder / DESCRIPTION).is_file():
            raise FileNotFoundError(f"{folder}: contains no {DESCRIPTION}; write a cache with `dvflnet cache-teacher`")
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
                f"{folder}: {len(missing)} of the {len(self._shards())} files of the cache are missing, such as "
                f"{missing[0].name}; run the same `dvflnet cache-teacher` command again to write them"
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
                f"{folder}/{self._damaged_part()}: is damaged ({error.__cause__ or error}); delete it and "
                "run the same `dvflnet cache-teacher` command again to rewrite it"
            ) from error

    def _damaged_part(self) -> str:
        for path in self._shards():
            try:
                pyarrow.parquet.read_table(path)
            except (OSError, pyarrow.ArrowException):
                return path.name
        return DESCRIPTION  # does not match the files that exist

    def _shards(self) -> list[Path]:
        return shard_files(self.folder, self.views * self.about["clips"]["number"])

    @property
    def feature_width(self) -> int:
        """Number of values of the stored features. Raises `ValueError` if the cache was written without features."""
        if "features" not in self.about:
            raise ValueError(
                f"{self.folder}: contains logits but no features; write the cache with `dvflnet cache-teacher "
                "--features`, or set feature_weight to 0"
            )
        return self.about["features"]

    def logits(self, clip: str, view: int, shown: str) -> torch.Tensor:
        """The teacher's logits for one view of a clip, those of [`TeacherCache.answers`]."""
        return self.answers(clip, view, shown)["teacher_logits"]

    def answers(self, clip: str, view: int, shown: str) -> dict[str, torch.Tensor]:
        """
        What the teacher answered to one view of a clip.

        Returns:
            `teacher_logits`, float32 of shape (num_labels,), in the teacher's class order and shifted so that the
            largest is 0; and `teacher_features`, float32 of shape (feature_width,), if the cache contains them.

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
        return {
            name: torch.from_numpy(np.asarray(row[column], dtype=np.float32))
            for name, column in columns.items()
            if column in row
        }

    def refuse_other_clips(self, clips: Any):
        """
        Raise `ValueError` if training would show clips that the teacher did not see. The message names the difference.

        Training on a subset of the cached clips is allowed. The clips of a stream are not checked here, but when each
        of them is read.
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
                raise ValueError(f"{self.folder}: was written with {name} {cached}, but training uses {value}")
        if isinstance(clips, VideoClipDataset):
            sizes = clip_sizes(clips.dataset)
            if digest_of(sizes) == self.about["clips"]["sha256"]:
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
        found = weights_digest(teacher)
        if found != self.about["teacher"]:
            raise ValueError(
                f"{self.folder}: was written with a different teacher, {self.about['teacher_name']}: the digest of "
                f"its weights is {self.about['teacher'][:12]}, but {found[:12]} for this teacher"
            )


def shard_files(folder: Path, rows: int) -> list[Path]:
    return [folder / f"logits-{number:05d}.parquet" for number in range(-(-rows // ROWS_PER_SHARD))]


__all__ = ["DESCRIPTION", "TeacherCache", "shard_files"]
