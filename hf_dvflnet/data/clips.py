"""A PyTorch data set of training and evaluation clips, decoded one by one."""

import copy
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any, Literal, Self

import datasets
import numpy as np
import torch
from transformers import default_data_collator
from transformers.utils import logging

from ..clip_sampling import frame_times
from ..video_decoding import VideoDecodeError, read_video
from ..video_processing_videofocalnet import VideoFocalNetVideoProcessor
from .augmentation import ClipAugmentation, ClipDraw, render, training_indices
from .video_column import clip_name, undecoded, video_source


logger = logging.get_logger(__name__)


def collate_clips(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Same as transformers' `default_data_collator`, but keeps strings, such as clip names, as lists."""
    batch = default_data_collator(items)
    names = {key: [item[key] for item in items] for key, value in items[0].items() if isinstance(value, str)}
    return {**batch, **names}


# a training clip that cannot be read is replaced by another one, up to this number of unreadable clips in a row
MAX_REPLACEMENTS = 10


class VideoClipDataset(torch.utils.data.Dataset):
    """
    Clips for a Trainer, from a dataset with the columns `video` (`datasets.Video`, or paths) and, optionally, `label`
    (or `labels`) and `video_id`. A clip without a label (no column, None, or a negative number of a `ClassLabel`) has
    the label -100. With a column `window`, [part, parts], a training clip is drawn from that of equal parts of its
    video, numbered from 0 ([`load_unlabelled`]).

    For training, the frames are drawn by the published training rule ([`training_indices`]), or at the processor's
    `fps` from a random position ([`paced_indices`]), with a seed made of (`seed`, epoch, clip). The draws therefore do
    not depend on the number of workers, on the order or on the other clips. A clip is identified by its `video_id`;
    without one, by its path, or by the bytes of its file if the row contains them. Without `train`, the processor
    samples frames by its evaluation rule and takes a centre crop.

    Args:
        dataset (`datasets.Dataset`): The rows.
        processor ([`VideoFocalNetVideoProcessor`]): Gives number of frames, size, crop, mean and std.
        train (`bool`, *optional*, defaults to `False`): Whether to draw the frames at random.
        seed (`int`, *optional*, defaults to 0): Seed of the draws.
        augmentation ([`ClipAugmentation`], *optional*): Random crops, flips and colours of the training clips.
            Without it, training clips are preprocessed as in evaluation.
        on_error (`str`, *optional*, defaults to `"raise"`): What to do with a training clip that cannot be read:
            `"raise"` an error, or `"replace"` it by another clip, drawn with the same seed. Evaluation clips are never
            replaced.

    For a teacher of another input size, set the attribute `teacher_processor`: crops are then drawn for the frames as
    it resizes them, so that training with and without the teacher shows the same crops. [`DistillationTrainer`] also
    sets `shows_teacher`: each training item then has `"teacher_pixel_values"`, the same frames and draws as the
    teacher's processor prepares them.

    Each item is `{"pixel_values": (frames, channels, height, width), "labels": int}`. Training items also have
    `"clip"`, the id of the clip in the item, and `"broken"`, the clips that could not be read and were replaced, as
    JSON (`{id: reason}`), or an empty string.

    Raises:
        VideoDecodeError: If a clip cannot be read, or, with `"replace"`, if ten clips in a row cannot be read.
    """

    def __init__(
        self,
        dataset: datasets.Dataset,
        processor: VideoFocalNetVideoProcessor,
        train: bool = False,
        seed: int = 0,
        augmentation: ClipAugmentation | None = None,
        on_error: Literal["raise", "replace"] = "raise",
    ):
        if on_error not in ("raise", "replace"):
            raise ValueError(f"on_error must be 'raise' or 'replace', got {on_error!r}")
        if not isinstance(dataset, datasets.Dataset):
            raise ValueError(
                f"VideoClipDataset takes a datasets.Dataset, got {type(dataset).__name__}; of a DatasetDict, choose a "
                "split, such as dataset['train']"
            )
        if "window" in dataset.features and not train:
            raise ValueError("the column `window` is for training clips, but train is False; remove the column")
        self.dataset = undecoded(dataset)
        self.processor = processor
        self.train = train
        self.seed = seed
        self.augmentation = augmentation
        self.on_error = on_error
        self.teacher_cache: Any = None  # a [`TeacherCache`], whose answers are added to the clips
        self.teacher_processor: VideoFocalNetVideoProcessor | None = None
        self.shows_teacher = False
        self.label_ids: Sequence[int] | None = None
        # in shared memory, so that workers that persist between epochs see the new epoch: the epoch, and the number of
        # draws, or -1 once `set_epoch` was called
        self._epoch = torch.zeros(2, dtype=torch.int64).share_memory_()

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if self.train:
            self._warn_of_same_epochs()
            return self.draw(index, self.epoch)
        row = self.dataset[index]
        pixel_values = self.processor(video_source(row["video"]), return_tensors="pt")["pixel_values"][0]
        return {"pixel_values": pixel_values, "labels": self._label(row)}

    def _warn_of_same_epochs(self):
        if self._epoch[1] < 0:
            return
        self._epoch[1] += 1
        if self._epoch[1] > len(self):
            self._epoch[1] = -1
            logger.warning(
                "More training clips were drawn than there are, and `set_epoch` has not been called: each epoch shows "
                "the same frames, crops and flips. Train with VideoClassificationTrainer, or call `set_epoch` of the "
                "VideoClipDataset itself before each epoch; wrappers such as Subset do not pass it on"
            )

    def set_epoch(self, epoch: int):
        """[`VideoClassificationTrainer`] calls this before each epoch, so that each epoch draws different frames."""
        self._epoch[0], self._epoch[1] = epoch, -1

    @property
    def epoch(self) -> int:
        return int(self._epoch[0])

    def with_label_ids(self, ids: Sequence[int]) -> Self:
        """The same clips with different labels: `ids[i]` for class i of the dataset. Both share the epoch."""
        label_ids = None if list(ids) == list(range(len(ids))) else list(ids)
        if label_ids == self.label_ids:
            return self
        clips = copy.copy(self)
        clips.label_ids = label_ids
        return clips

    def _label(self, row: dict[str, Any]) -> Any:
        label = row.get("label")
        named = isinstance(self.dataset.features.get("label"), datasets.ClassLabel)
        if label is None or (named and label < 0):  # both mean in `datasets` that there is none
            return -100
        return label if self.label_ids is None else self.label_ids[label]

    def settings(self) -> dict[str, Any]:
        """What a teacher's clip depends on besides its video: sampling, augmentation and seed, as plain values."""
        # which frames are sampled is up to the student's processor
        frames = {name: getattr(self.processor, name) for name in ("num_frames", "frame_interval")}
        processor = (self.teacher_processor or self.processor).to_dict() | frames
        names = ("num_frames", "frame_interval", "size", "crop_size", "resample", "image_mean", "image_std")
        settings = {
            # caches that are older than `fps` stay valid
            "sampling": {name: processor.get(name) for name in names}
            | ({} if self.processor.fps is None else {"fps": self.processor.fps}),
            "augmentation": None if self.augmentation is None else asdict(self.augmentation),
            "seed": self.seed,
        }
        return json.loads(json.dumps(settings))  # the same types as after reading them from a file

    def draw(self, index: int, epoch: int) -> dict[str, Any]:
        """
        The training clip of a row in an epoch; if it cannot be read and `on_error` is `"replace"`, one of another row.
        """
        row = self.dataset[index]
        name = clip_name(row)
        if self.teacher_cache is not None:
            epoch %= self.teacher_cache.views
        number = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")
        broken: dict[str, str] = {}
        shown = row
        for attempt in range(MAX_REPLACEMENTS):
            generator = np.random.default_rng([self.seed, epoch, number, attempt])
            if attempt:
                shown = self.dataset[int(generator.integers(len(self.dataset)))]
            shown_name = clip_name(shown) if attempt else name
            try:
                item = self._read(shown, generator)
            except (OSError, VideoDecodeError) as error:
                if self.on_error == "raise":
                    raise VideoDecodeError(f"clip {shown_name}: {error}") from error
                broken[shown_name] = str(error)
                continue
            if self.teacher_cache is not None:
                item |= self.teacher_cache.answers(name, epoch, shown_name)
            return {**item, "clip": shown_name, "broken": json.dumps(broken) if broken else ""}
        raise VideoDecodeError(
            f"{MAX_REPLACEMENTS} clips drawn in a row cannot be read: "
            + "; ".join(f"{clip}: {reason}" for clip, reason in broken.items())
        )

    def _read(self, row: dict[str, Any], generator: np.random.Generator) -> dict[str, Any]:
        frames, _ = read_video(
            video_source(row["video"]), lambda video: self._draw_frames(video, generator, row.get("window"))
        )
        drawn = None
        if self.augmentation is not None:  # drawn once, for the frames as the teacher is given them, if there is one
            processor = self.teacher_processor or self.processor
            first = torch.from_numpy(frames[:1]).permute(0, 3, 1, 2)
            height, width = processor.resize(first, processor.size, processor.resample).shape[-2:]
            drawn = self.augmentation.draw(height, width, generator)
        item = {"pixel_values": _prepare(frames, drawn, self.processor), "labels": self._label(row)}
        if self.shows_teacher:
            item["teacher_pixel_values"] = _prepare(frames, drawn, self.teacher_processor or self.processor)
        return item

    def _draw_frames(
        self, metadata: Any, generator: np.random.Generator, window: Sequence[int] | None = None
    ) -> np.ndarray:
        processor = self.processor
        if window is not None:
            part, parts = window
            first, end = (metadata.total_num_frames * each // parts for each in (part, part + 1))
            times = frame_times(metadata)
            shown = None if times is None else times[first:end]
            metadata = replace(metadata, total_num_frames=max(end - first, 1), frame_times=shown)
            return first + self._draw_frames(metadata, generator)
        if processor.fps is not None:
            return processor.sample_at(processor.fps, metadata, processor.num_frames, generator.random())
        return training_indices(
            metadata.total_num_frames,
            num_frames=processor.num_frames,
            frame_interval=processor.frame_interval,
            generator=generator,
        )


def _prepare(frames: np.ndarray, drawn: ClipDraw | None, processor: VideoFocalNetVideoProcessor) -> torch.Tensor:
    """Decoded frames, (frames, height, width, 3), as a processor prepares them, with what was drawn for the clip."""
    if drawn is None:
        return processor(frames, do_sample_frames=False, return_tensors="pt")["pixel_values"][0]
    clip = torch.from_numpy(frames).permute(0, 3, 1, 2)
    clip = processor.resize(clip, processor.size, processor.resample)
    crop_size: Any = processor.crop_size
    clip = render(clip, drawn, crop_size.height)
    shown = processor(clip, do_sample_frames=False, do_resize=False, do_center_crop=False, return_tensors="pt")
    return shown["pixel_values"][0]


def parts_of(dataset: Any) -> list[Any]:
    """
    The [`VideoClipDataset`]s in a dataset: itself, or those in the attributes of wrappers, such as `Subset` and
    `ConcatDataset`.
    """
    parts: list[Any] = []
    waiting, seen = [dataset], set[int]()
    while waiting:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, VideoClipDataset):
            parts.append(one)
        elif isinstance(one, (list, tuple)):
            waiting += one
        elif isinstance(one, dict):
            waiting += one.values()
        # the rows of `datasets` need not be looked through
        elif hasattr(type(one), "__getitem__") and not isinstance(one, (datasets.Dataset, datasets.IterableDataset)):
            waiting += getattr(one, "__dict__", {}).values()
    return parts
