"""PyTorch data sets of training and evaluation clips, decoded one by one, from a list or a stream of videos."""

import copy
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, Self

import datasets
import numpy as np
import torch
from datasets.distributed import split_dataset_by_node
from transformers import default_data_collator
from transformers.utils import logging
from transformers.video_utils import VideoMetadata

from ..clip_sampling import check_positive
from ..video_decoding import VideoDecodeError, read_video
from ..video_processing_videofocalnet import VideoFocalNetVideoProcessor
from .augmentation import ClipAugmentation, ClipDraw, render, training_indices
from .class_folders import SETTINGS
from .video_column import IN_TAR, clip_name, undecoded, video_source


logger = logging.get_logger(__name__)


def collate_clips(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Same as transformers' `default_data_collator`, but keeps strings, such as clip names, as lists."""
    batch = default_data_collator(items)
    names = {key: [item[key] for item in items] for key, value in items[0].items() if isinstance(value, str)}
    return {**batch, **names}


# a training clip that cannot be read is replaced by another one, up to this number of unreadable clips in a row
MAX_REPLACEMENTS = 10


class _Clips:
    """Common base of the list and the stream of clips: draws, decodes and preprocesses a clip."""

    dataset: datasets.Dataset | datasets.IterableDataset

    def __init__(
        self,
        processor: VideoFocalNetVideoProcessor,
        seed: int,
        augmentation: ClipAugmentation | None,
        on_error: Literal["raise", "replace"],
    ):
        if on_error not in ("raise", "replace"):
            raise ValueError(f"on_error must be 'raise' or 'replace', got {on_error!r}")
        self.processor = processor
        self.seed = seed
        self.augmentation = augmentation
        self.on_error = on_error
        self.teacher_cache: Any = None  # a [`TeacherCache`], whose answers are added to the clips
        self.teacher_processor: VideoFocalNetVideoProcessor | None = None
        self.shows_teacher = False
        self.label_ids: Sequence[int] | None = None
        # in shared memory, so that workers that persist between epochs see the new epoch
        # epoch, batches to skip, and number of draws, or -1 once `set_epoch` was called
        self._epoch = torch.zeros(3, dtype=torch.int64).share_memory_()

    def set_epoch(self, epoch: int):
        """[`VideoClassificationTrainer`] calls this before each epoch, so that each epoch draws different frames."""
        self._epoch[0], self._epoch[2] = epoch, -1

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
        label = row["label"] if "label" in row else row.get("labels")  # of a stream without features
        named = isinstance((self.dataset.features or {}).get("label"), datasets.ClassLabel)
        if label is None or (named and label < 0):  # both mean in `datasets` that there is none
            return -100
        return label if self.label_ids is None else self.label_ids[label]

    def settings(self) -> dict[str, Any]:
        """
        What a teacher's clip depends on besides its video: sampling, augmentation and seed, as plain values.
        """
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

    def _draw(self, row: dict[str, Any], epoch: int, others: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """The training clip of a row; if it cannot be read and `on_error` is `"replace"`, one of another row."""
        name = clip_name(row)
        if self.teacher_cache is not None:
            epoch %= self.teacher_cache.views
        number = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")
        broken: dict[str, str] = {}
        shown = row
        for attempt in range(MAX_REPLACEMENTS):
            generator = np.random.default_rng([self.seed, epoch, number, attempt])
            if attempt:
                shown = others[int(generator.integers(len(others)))]
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
        frames, _ = read_video(video_source(row["video"]), lambda video: self._draw_frames(video, generator))
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

    def _draw_frames(self, metadata: VideoMetadata, generator: np.random.Generator) -> np.ndarray:
        processor = self.processor
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


_ADVICE = (
    "of a DatasetDict, choose a split, such as dataset['train']; a stream is for VideoClipStream, a list for "
    "VideoClipDataset"
)


class VideoClipDataset(_Clips, torch.utils.data.Dataset):
    """
    Clips for a Trainer, from a dataset with the columns `video` (`datasets.Video`, or paths) and, optionally, `label`
    (or `labels`) and `video_id`. A clip without a label (no column, None, or a negative number of a `ClassLabel`) has
    the label -100.

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
        super().__init__(processor, seed, augmentation, on_error)
        if not isinstance(dataset, datasets.Dataset):
            raise ValueError(f"VideoClipDataset takes a datasets.Dataset, got {type(dataset).__name__}; {_ADVICE}")
        self.dataset = undecoded(dataset)
        self.train = train

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
        if self._epoch[2] < 0:
            return
        self._epoch[2] += 1
        if self._epoch[2] > len(self):
            self._epoch[2] = -1
            logger.warning(
                "More training clips were drawn than there are, and `set_epoch` has not been called: each epoch shows "
                "the same frames, crops and flips. Train with VideoClassificationTrainer, or call `set_epoch` of the "
                "VideoClipDataset itself before each epoch; wrappers such as Subset do not pass it on"
            )

    def draw(self, index: int, epoch: int) -> dict[str, Any]:
        """The training clip of a row in an epoch."""
        return self._draw(self.dataset[index], epoch, self.dataset)


class VideoClipStream(_Clips, torch.utils.data.IterableDataset):
    """
    Training batches of a dataset that can only be read in order, such as tars: `load_benchmark(..., streaming=True)`.

    Clips are drawn as in [`VideoClipDataset`]: for the same clip and epoch, both give the same result. The rows are
    shuffled again in each epoch, then split among the processes ([`share`]). Every process takes
    `num_clips // (batch_size * processes)` full batches per epoch; when its share is used up, the process reads it
    again. With n workers, each worker reads the whole share of its process and decodes every n-th batch. The content
    of a batch therefore does not depend on the number of workers, but rows with bytes are read by each worker.

    Args:
        dataset (`datasets.IterableDataset`): The rows, as for [`VideoClipDataset`].
        processor ([`VideoFocalNetVideoProcessor`]): Gives number of frames, size, crop, mean and std.
        num_clips (`int`): Number of clips in the dataset, which is the length of an epoch.
        seed (`int`, *optional*, defaults to 0): Seed of the draws and of the order.
        augmentation ([`ClipAugmentation`], *optional*): As for [`VideoClipDataset`].
        on_error (`str`, *optional*, defaults to `"raise"`): As for [`VideoClipDataset`]. The replacement is a
            clip of the same batch or of the batch before it.
        shuffle_buffer (`int`, *optional*, defaults to 256): Size of the buffer from which the next clip is drawn,
            after the shards are shuffled. It applies to rows with the videos' bytes, for which each worker needs
            memory, and to prepared tars, which are read in about their order. For paths, the size is 10,000.

    Each item is a batch, `{"pixel_values": (batch, frames, channels, height, width), "labels": (batch,), "clip": list,
    "broken": list}`. Pass it to a DataLoader with `batch_size=None`, as [`VideoClassificationTrainer`] does.
    """

    def __init__(
        self,
        dataset: datasets.IterableDataset,
        processor: VideoFocalNetVideoProcessor,
        num_clips: int,
        seed: int = 0,
        augmentation: ClipAugmentation | None = None,
        on_error: Literal["raise", "replace"] = "raise",
        shuffle_buffer: int = 256,
    ):
        super().__init__(processor, seed, augmentation, on_error)
        check_positive(num_clips=num_clips)
        if not isinstance(dataset, datasets.IterableDataset):
            raise ValueError(
                f"VideoClipStream takes a datasets.IterableDataset, got {type(dataset).__name__}; {_ADVICE}"
            )
        self.dataset = undecoded(dataset)
        self.num_clips = num_clips
        self.shuffle_buffer = shuffle_buffer
        self.share(1)

    def share(self, batch_size: int, process: int = 0, processes: int = 1):
        """Set the share of one of n processes: every n-th shard, or clip, in batches of `batch_size`."""
        if self.num_clips < batch_size * processes:
            raise ValueError(
                f"{self.num_clips} clips do not fill a batch of {batch_size} for each of {processes} processes"
            )
        self.batch_size, self.process, self.processes = batch_size, process, processes

    def set_epoch(self, epoch: int, skip: int = 0):
        """Change the order and the draws. The first `skip` batches are not decoded and come as empty placeholders."""
        self._epoch[0], self._epoch[1] = epoch, skip

    def __len__(self) -> int:
        return self.num_clips // (self.batch_size * self.processes)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        epoch, skip, _ = self._epoch.tolist()
        worker = torch.utils.data.get_worker_info()
        first, step = (0, 1) if worker is None else (worker.id, worker.num_workers)
        rows = self._rows(epoch)
        before: list[dict[str, Any]] = []
        for number in range(len(self)):
            batch = [next(rows) for _ in range(self.batch_size)]
            if number % step == first:
                if number < skip:
                    yield {"pixel_values": torch.empty(0)}
                else:
                    yield collate_clips([self._draw(row, epoch, [*before, *batch]) for row in batch])
            before = batch

    def _rows(self, epoch: int) -> Iterator[dict[str, Any]]:
        peek = next(_all_rows(self.dataset), None)
        if peek is None:
            raise ValueError("the stream contains no clips")
        # clips in tars are shuffled like those with bytes, so that they are read in about their order
        paths = peek["video"]["bytes"] is None and IN_TAR.fullmatch(peek["video"]["path"]) is None
        buffer = 10_000 if paths else self.shuffle_buffer
        seen = 0
        for turn in range(self.num_clips):
            # the order is drawn before the split, so that the shares of the processes do not overlap
            seed = int(np.random.SeedSequence([self.seed, epoch, turn]).generate_state(1)[0])
            shuffled = self.dataset.shuffle(seed=seed, buffer_size=buffer)
            share = split_dataset_by_node(shuffled, self.process, self.processes)
            before = seen
            for row in _all_rows(share):
                seen += 1
                yield row
            if seen == before:
                raise ValueError(
                    f"process {self.process} of {self.processes} gets no clips: the stream has "
                    f"{self.dataset.num_shards} shards; use fewer processes"
                )


def parts_of(dataset: Any) -> list[Any]:
    """
    The [`VideoClipDataset`]s and [`VideoClipStream`]s in a dataset: itself, or those in the attributes of wrappers,
    such as `Subset` and `ConcatDataset`.
    """
    parts: list[Any] = []
    waiting, seen = [dataset], set[int]()
    while waiting:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, _Clips):
            parts.append(one)
        elif isinstance(one, (list, tuple)):
            waiting += one
        elif isinstance(one, dict):
            waiting += one.values()
        # the rows of `datasets` need not be looked through
        elif hasattr(type(one), "__getitem__") and not isinstance(one, (datasets.Dataset, datasets.IterableDataset)):
            waiting += getattr(one, "__dict__", {}).values()
    return parts


def are_prepared(dataset: Any) -> bool:
    """Whether the first clip of a dataset is one that `dvflnet prepare` has written."""
    rows = (row for part in parts_of(dataset) for row in part.dataset)
    path = next((row["video"]["path"] for row in rows), None) or ""
    return IN_TAR.fullmatch(path) is not None or any((folder / SETTINGS).is_file() for folder in Path(path).parents)


def _all_rows(dataset: datasets.IterableDataset) -> Iterator[dict[str, Any]]:
    """All rows, even in a DataLoader worker, where plain iteration would give each worker different shards."""
    for batch in dataset.iter(batch_size=1):
        yield {column: values[0] for column, values in batch.items()}
