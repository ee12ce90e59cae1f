"""
Videos as datasets: a tree of class folders is listed, as it is or as `dvflnet prepare` wrote it, and clips are decoded
one by one, from a list or a stream.
"""

import hashlib
import json
import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from types import NoneType
from typing import TYPE_CHECKING, Any, Literal

import datasets
import fsspec
import numpy as np
import torch
from datasets.distributed import split_dataset_by_node
from transformers import default_data_collator

from ..clip_sampling import training_indices
from ..video_decoding import VideoDecodeError, read_video
from ..video_processing_videofocalnet import VideoFocalNetVideoProcessor
from .augmentation import ClipAugmentation


if TYPE_CHECKING:
    from ..training.teacher_cache import TeacherCache


VIDEO_SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm")
SPLITS = {"train": ("train",), "validation": ("validation", "val"), "test": ("test",)}

# what `dvflnet prepare` writes beside the clips
MANIFEST, SETTINGS, UNFINISHED = "manifest.jsonl", "prepare.json", ".unfinished"


def load_video_folder(data_dir: str | os.PathLike) -> datasets.DatasetDict:
    """
    List the videos of a tree of class folders; nothing is decoded.

    ```
    data_dir/
        train/
            juggling/a.mp4 b.webm ...
            jumping/...
        validation/  (or val/)
            juggling/...
        test/
            juggling/...
    ```

    `train` must be there; its folders, sorted, are the classes, and the other splits may have no further ones.

    What `dvflnet prepare` made of such a tree, tars or folders, has the classes and the ids of the tree, less the
    videos that were unreadable. A clip in a tar has the path `TAR#bytes=FIRST-LAST`, which [`video_source`] reads.

    Returns:
        A dataset per split, with the columns `video` (`{"path": str, "bytes": None}`), `label` (`ClassLabel`) and
        `video_id` (the path below the split's folder), in sorted order.

    Raises:
        FileNotFoundError: If there is no such folder, or no `train` in it.
        ValueError: If a class folder is empty, a split has a class that `train` has not, a name is not in
            UTF-8, preparing has not ended, or its manifest has another shape.
    """
    data_dir = Path(data_dir)
    if not data_dir.is_dir():
        raise FileNotFoundError(f"{data_dir}: there is no such folder")
    if (data_dir / SETTINGS).is_file():
        return _load_prepared(data_dir)
    found = {split: data_dir / name for split, names in SPLITS.items() for name in names if (data_dir / name).is_dir()}
    if "train" not in found:
        raise FileNotFoundError(f"{data_dir}: has no folder `train`; expected {data_dir}/train/<class>/<video>")

    classes = sorted(folder.name for folder in found["train"].iterdir() if folder.is_dir())
    if not classes:
        raise ValueError(f"{found['train']}: has no class folders; expected {found['train']}/<class>/<video>")
    return _as_datasets({split: _list_videos(folder, classes) for split, folder in found.items()}, classes)


def _as_datasets(rows: dict[str, list[dict[str, Any]]], classes: list[str]) -> datasets.DatasetDict:
    features = datasets.Features(
        {
            "video": datasets.Video(decode=False),
            "label": datasets.ClassLabel(names=classes),
            "video_id": datasets.Value("string"),
        }
    )
    return datasets.DatasetDict(
        {split: datasets.Dataset.from_list(listed, features=features) for split, listed in rows.items()}
    )


def _list_videos(folder: Path, classes: list[str]) -> list[dict[str, Any]]:
    rows = []
    for class_folder in sorted(entry for entry in folder.iterdir() if entry.is_dir()):
        if class_folder.name not in classes:
            raise ValueError(f"{class_folder}: is no class of the training split, whose classes are {classes}")
        videos = sorted(path for path in class_folder.iterdir() if path.suffix.lower() in VIDEO_SUFFIXES)
        for path in videos:
            try:
                str(path).encode()
            except UnicodeEncodeError as error:  # which a dataset's table cannot hold
                raise ValueError(f"{path}: its name is not in UTF-8; rename it") from error
        if not videos:
            raise ValueError(f"{class_folder}: holds no videos ({', '.join(VIDEO_SUFFIXES)})")
        rows += [
            {
                "video": {"path": str(path), "bytes": None},
                "label": classes.index(class_folder.name),
                "video_id": f"{class_folder.name}/{path.name}",
            }
            for path in videos
        ]
    return rows


def original_id(row: dict[str, Any]) -> tuple[str, str | None]:
    """
    What a video of a manifest was called before it was prepared, and its class.

    Of class folders the path below the split's folder, as [`load_video_folder`] has it; else the whole path, and None.
    """
    path = PurePosixPath(row["path"]).with_suffix(PurePosixPath(row["source"]).suffix)
    if len(path.parts) == 3 and any(path.parts[0] in names for names in SPLITS.values()):
        return "/".join(path.parts[1:]), path.parts[1]
    return str(path), None


def read_manifest_line(line: str) -> dict[str, Any]:
    """
    A video of a manifest.

    Raises:
        ValueError: If the line is not as `dvflnet prepare` writes it.
    """
    try:
        row = json.loads(line)
    except RecursionError as error:
        raise ValueError("its JSON is too deep") from error
    text, number = (str, NoneType), (int, NoneType)
    kinds: dict[str, Any] = {"path": str, "source": str, "stamp": list, "source_bytes": int, "outcome": str}
    kinds |= {"sha256": text, "bytes": number, "tar": text, "offset": number}
    if not isinstance(row, dict) or not all(isinstance(row.get(name, ...), kind) for name, kind in kinds.items()):
        raise ValueError(f"{', '.join(kinds)} are expected")
    if row["tar"] is not None and None in (row["offset"], row["bytes"]):
        raise ValueError("it has a tar, but no place in it")
    return row


def _read_prepared(data_dir: Path) -> dict[str, list[tuple[str, str, dict[str, Any]]]]:
    """Video id, class and line of the manifest, sorted, of all videos of each split."""
    if (data_dir / UNFINISHED).exists() or not (data_dir / MANIFEST).is_file():
        raise ValueError(f"{data_dir}: is not prepared to the end; run `dvflnet prepare` again, which goes on")
    with open(data_dir / MANIFEST, encoding="utf-8") as file:
        text = file.readlines()
    lines = []
    for number, line in enumerate(text, start=1):
        try:
            lines.append(read_manifest_line(line))
        except ValueError as error:
            raise ValueError(
                f"{data_dir / MANIFEST}: line {number} is no line of a manifest ({error}); prepare the videos again"
            ) from error
    for row in lines:
        for name in (row["path"], row["tar"] or "a"):
            if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
                raise ValueError(f"{data_dir / MANIFEST}: names {name}, which is outside of the folder")
    splits: dict[str, list[tuple[str, str, dict[str, Any]]]] = {}
    for split, names in SPLITS.items():
        for name in names:
            of_split = [(*original_id(row), row) for row in lines if row["path"].startswith(f"{name}/")]
            found = [(video_id, label, row) for video_id, label, row in of_split if label is not None]
            if found:
                splits[split] = sorted(found, key=lambda one: one[0].split("/"))
    if "train" not in splits:
        raise FileNotFoundError(f"{data_dir}: was not prepared from class folders, `train/<class>/<video>`")
    return splits


def _load_prepared(data_dir: Path) -> datasets.DatasetDict:
    splits = _read_prepared(data_dir)
    classes = sorted({label for _, label, _ in splits["train"]})
    rows: dict[str, list[dict[str, Any]]] = {split: [] for split in splits}
    for split, found in splits.items():
        for video_id, label, row in found:
            if label not in classes:
                raise ValueError(f"{data_dir}: {label} in {split} is no class of the training split, {classes}")
            if row["outcome"] == "unreadable":
                continue
            path = str(data_dir / row["path"])
            if row["tar"] is not None:
                path = f"{data_dir / row['tar']}#bytes={row['offset']}-{row['offset'] + row['bytes'] - 1}"
            video = {"path": path, "bytes": None}
            rows[split].append({"video": video, "label": classes.index(label), "video_id": video_id})
    return _as_datasets(rows, classes)


def unreadable_videos(data_dir: str | os.PathLike, split: str) -> list[str]:
    """Ids of the videos of a split that `dvflnet prepare` could not read; none of what it has not written."""
    if not (Path(data_dir) / SETTINGS).is_file():
        return []
    return [video_id for video_id, _, row in _read_prepared(Path(data_dir))[split] if row["outcome"] == "unreadable"]


def stream_tars(dataset: datasets.Dataset) -> datasets.IterableDataset | None:
    """A split of prepared class folders with the videos' bytes, a shard a tar, read in order; None if not in tars."""
    tars: dict[str, list[tuple[int, dict[str, Any]]]] = {}
    for row in dataset:
        part = _IN_TAR.fullmatch(row["video"]["path"])
        if part is None:
            return None
        tars.setdefault(part[1], []).append((int(part[2]), row))
    shards = [tuple(row for _, row in sorted(rows, key=lambda one: one[0])) for _, rows in sorted(tars.items())]
    return datasets.IterableDataset.from_generator(
        _read_rows, features=dataset.features, gen_kwargs={"shards": shards}
    )


def _read_rows(shards: list[tuple[dict[str, Any], ...]]) -> Iterator[dict[str, Any]]:
    for rows in shards:
        for row in rows:
            try:
                data = video_source(row["video"])
            except OSError:
                data = None  # a clip that cannot be read when it is drawn either, and counts as broken
            yield {**row, "video": {"path": row["video"]["path"], "bytes": data}}


_IN_TAR = re.compile(r"(.+[.]tar)#bytes=(\d+)-(\d+)")


def video_source(video: dict[str, Any]) -> Any:
    """
    What [`~video_decoding.read_video`] takes, of a cell of a column `datasets.Video(decode=False)`.

    Raises:
        OSError: If a shard cannot be read, or ends within the video, with the shard's name.
    """
    if video["bytes"] is not None:
        return video["bytes"]
    path = video["path"]
    if (part := _IN_TAR.fullmatch(path)) is not None:
        size = video_size(path)
        try:
            with open(part[1], "rb") as tar:
                tar.seek(int(part[2]))
                data = tar.read(size)
        except OSError as error:
            raise OSError(f"{part[1]}: the shard cannot be read: {error.strerror}") from error
        if len(data) < size:
            raise OSError(f"{part[1]}: the shard is cut short; it has {len(data)} of the {size} bytes of this video")
        return data
    if "://" in path and not path.startswith(("http://", "https://")):  # hf:// and the like
        return fsspec.open(path, "rb").open()
    return path


def video_size(path: str) -> int:
    """How many bytes a video has, at a path or in a tar; -1 where only a download would tell."""
    if (part := _IN_TAR.fullmatch(path)) is not None:
        return int(part[3]) - int(part[2]) + 1
    return os.path.getsize(path) if os.path.isfile(path) else -1


def clip_name(row: dict[str, Any]) -> str:
    """What a clip is called in errors and reports, and what its draws are made of: its `video_id`, or its path."""
    return row.get("video_id") or row["video"]["path"]


def collate_clips(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """As transformers' `default_data_collator`, but strings (which clip this is) are kept, as lists."""
    batch = default_data_collator(items)
    names = {key: [item[key] for item in items] for key, value in items[0].items() if isinstance(value, str)}
    return {**batch, **names}


class ClipsInHand:
    """
    Which clip each worker of a DataLoader is at, in memory that the main process sees: what remains to be read when a
    worker dies or hangs.
    """

    def __init__(self, workers: int = 256, length: int = 256):
        self.names = torch.zeros(workers, length, dtype=torch.uint8).share_memory_()
        self.pids = torch.zeros(workers, dtype=torch.int64).share_memory_()
        self.since = torch.zeros(workers, dtype=torch.float64).share_memory_()  # 0: at none

    def take(self, name: str):
        worker = torch.utils.data.get_worker_info()
        if worker is not None:
            slot = worker.id % len(self.since)
            text = name.encode()[: self.names.shape[1]].ljust(self.names.shape[1], b"\0")
            self.names[slot] = torch.frombuffer(bytearray(text), dtype=torch.uint8)
            self.pids[slot] = os.getpid()
            self.since[slot] = time.monotonic()

    def drop(self):
        worker = torch.utils.data.get_worker_info()
        if worker is not None:
            self.since[worker.id % len(self.since)] = 0

    def list(self) -> list[tuple[int, str, float]]:
        """Process id, clip and seconds since it was taken, the longest first."""
        now = time.monotonic()
        taken = [
            (
                int(self.pids[slot]),
                bytes(self.names[slot].tolist()).rstrip(b"\0").decode(errors="replace"),
                now - since,
            )
            for slot, since in enumerate(self.since.tolist())
            if since
        ]
        return sorted(taken, key=lambda clip: -clip[2])


@contextmanager
def naming_clips_of_dead_workers(*clips: Any) -> Iterator[None]:
    """
    Adds to the error that a loader raises, when a worker died or hung, which clip that was at.

    Args:
        clips: Data sets; those that have no `in_hand` tell nothing.
    """
    try:
        yield
    except RuntimeError as error:  # raised wherever the main process just is
        message = str(error)
        dead = [int(pid) for pid in re.findall(r"\d+", message.partition("pid")[2])]
        found = [clip for some in clips if hasattr(some, "in_hand") for clip in some.in_hand.list()]
        named = [f"{name} (for {seconds:.0f} s)" for pid, name, seconds in found if not dead or pid in dead]
        if "DataLoader" not in message or not named:
            raise
        raise RuntimeError(f"{message} It was at the clip {', or '.join(named)}.") from error


# a training clip that cannot be read is replaced by another, and that by another, but not for ever
MAX_REPLACEMENTS = 10


class _Clips:
    """What a list and a stream of clips have in common: how one is drawn, decoded and shown."""

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
        self.teacher_cache: TeacherCache | None = None
        self.in_hand = ClipsInHand()
        # in shared memory, since workers that outlive an epoch would not hear of the next one
        self._epoch = torch.zeros(2, dtype=torch.int64).share_memory_()

    @property
    def epoch(self) -> int:
        return int(self._epoch[0])

    def settings(self) -> dict[str, Any]:
        """What a training clip depends on beside its video: sampling, augmentation and seed, as plain values."""
        processor = self.processor.to_dict()
        names = ("num_frames", "frame_interval", "size", "crop_size", "resample", "image_mean", "image_std")
        settings = {
            "sampling": {name: processor.get(name) for name in names},
            "augmentation": None if self.augmentation is None else asdict(self.augmentation),
            "seed": self.seed,
        }
        return json.loads(json.dumps(settings))  # as they come back from a file

    def _draw(self, row: dict[str, Any], epoch: int, others: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """A training clip of a row; if that cannot be read and `on_error` says so, one of another row."""
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
            try:
                item = self._read(shown, generator)
            except (OSError, VideoDecodeError) as error:
                if self.on_error == "raise":
                    raise VideoDecodeError(f"clip {clip_name(shown)}: {error}") from error
                broken[clip_name(shown)] = str(error)
                continue
            if self.teacher_cache is not None:
                item["teacher_logits"] = self.teacher_cache.logits(name, epoch, clip_name(shown))
            return {**item, "clip": clip_name(shown), "broken": json.dumps(broken) if broken else ""}
        raise VideoDecodeError(
            f"{MAX_REPLACEMENTS} clips drawn in a row cannot be read: "
            + "; ".join(f"{clip}: {reason}" for clip, reason in broken.items())
        )

    def _read(self, row: dict[str, Any], generator: np.random.Generator) -> dict[str, Any]:
        self.in_hand.take(clip_name(row))
        try:
            frames, _ = read_video(
                video_source(row["video"]),
                lambda metadata: training_indices(
                    metadata.total_num_frames,
                    num_frames=self.processor.num_frames,
                    frame_interval=self.processor.frame_interval,
                    generator=generator,
                ),
            )
            return {"pixel_values": self._show(frames, generator), "labels": row["label"]}
        finally:
            self.in_hand.drop()

    def _show(self, frames: np.ndarray, generator: np.random.Generator) -> torch.Tensor:
        if self.augmentation is None:
            return self.processor(frames, do_sample_frames=False, return_tensors="pt")["pixel_values"][0]
        clip = torch.from_numpy(frames).permute(0, 3, 1, 2)
        clip = self.processor.resize(clip, self.processor.size, self.processor.resample)
        crop_size: Any = self.processor.crop_size
        clip = self.augmentation(clip, crop_size.height, generator)
        shown = self.processor(
            clip, do_sample_frames=False, do_resize=False, do_center_crop=False, return_tensors="pt"
        )
        return shown["pixel_values"][0]


class VideoClipDataset(_Clips, torch.utils.data.Dataset):
    """
    Clips of a dataset with the columns `video` (`datasets.Video(decode=False)`), `label` and `video_id`, for a
    Trainer.

    For training, the frames are drawn by the published training rule ([`~clip_sampling.training_indices`]) from a seed
    made of (`seed`, epoch, `video_id`), so that neither the number of workers, nor the order, nor which other clips
    there are changes a draw. Without `train`, the processor samples by its evaluation rule and crops the middle.

    Args:
        dataset (`datasets.Dataset`): The rows.
        processor ([`VideoFocalNetVideoProcessor`]): Gives number of frames, size, crop, mean and std.
        train (`bool`, *optional*, defaults to `False`): Draw the frames at random.
        seed (`int`, *optional*, defaults to 0): Seed of the draws.
        augmentation ([`ClipAugmentation`], *optional*): Crops, flips and colours of the training clips; without it
            they are shown as in evaluation.
        on_error (`str`, *optional*, defaults to `"raise"`): What becomes of a training clip that cannot be read:
            `"raise"`, or `"replace"` it by another, drawn from the same seed. In evaluation nothing is replaced.

    Items are `{"pixel_values": (frames, channels, height, width), "labels": int}`, and for training `"clip"`, the id
    of the clip that is shown, and `"broken"`, JSON of those that could not be (`{id: reason}`), or empty.

    Raises:
        VideoDecodeError: If a clip cannot be read, or, with `"replace"`, ten in a row.
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
        self.dataset = dataset
        self.train = train

    def set_epoch(self, epoch: int):
        """Called by [`VideoClassificationTrainer`] before each epoch, so that each draws other frames."""
        self._epoch[0] = epoch

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if self.train:
            return self.draw(index, self.epoch)
        row = self.dataset[index]
        self.in_hand.take(clip_name(row))
        try:
            pixel_values = self.processor(video_source(row["video"]), return_tensors="pt")["pixel_values"][0]
        finally:
            self.in_hand.drop()
        return {"pixel_values": pixel_values, "labels": row["label"]}

    def draw(self, index: int, epoch: int) -> dict[str, Any]:
        """The training clip that a row shows in an epoch."""
        return self._draw(self.dataset[index], epoch, self.dataset)


class VideoClipStream(_Clips, torch.utils.data.IterableDataset):
    """
    Training batches of a dataset that can only be read on and on, such as tars: `load_benchmark(..., streaming=True)`.

    Clips are drawn as [`VideoClipDataset`] draws them: the same clip in the same epoch is shown alike by both. The
    rows are shuffled anew each epoch, then split among the processes ([`share`]). Every process takes `num_clips //
    (batch_size * processes)` whole batches an epoch; one whose share is used up begins it again. Each worker reads all
    of its process's share, and decodes each n-th batch: what a batch holds does not depend on the number of workers.
    Over a network that costs bandwidth.

    Args:
        dataset (`datasets.IterableDataset`): The rows, as for [`VideoClipDataset`].
        processor ([`VideoFocalNetVideoProcessor`]): Gives number of frames, size, crop, mean and std.
        num_clips (`int`): How many there are, which makes an epoch.
        seed (`int`, *optional*, defaults to 0): Seed of draws and order.
        augmentation ([`ClipAugmentation`], *optional*): As for [`VideoClipDataset`].
        on_error (`str`, *optional*, defaults to `"raise"`): Likewise. The other clip is one of the same batch or of
            the batch before it.
        shuffle_buffer (`int`, *optional*, defaults to 256): Clips among which the next one is drawn, after the shards
            are shuffled, where the stream carries the videos' bytes (so much memory does each worker need); 10,000
            where it carries paths.

    Items are batches, `{"pixel_values": (batch, frames, channels, height, width), "labels": (batch,), "clip": list,
    "broken": list}`. Give it to a DataLoader with `batch_size=None`; [`VideoClassificationTrainer`] does.
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
        if num_clips < 1:
            raise ValueError(f"num_clips must be at least 1, got {num_clips}")
        self.dataset = dataset
        self.num_clips = num_clips
        self.shuffle_buffer = shuffle_buffer
        self.share(1)

    def share(self, batch_size: int, process: int = 0, processes: int = 1):
        """Give this process its part: batches of `batch_size`, and every n-th shard, or clip, of the stream."""
        if self.num_clips < batch_size * processes:
            raise ValueError(
                f"{self.num_clips} clips do not fill a batch of {batch_size} for each of {processes} processes"
            )
        self.batch_size, self.process, self.processes = batch_size, process, processes

    def set_epoch(self, epoch: int, skip: int = 0):
        """Another order and other draws; of its first `skip` batches only the places are kept, undecoded and empty."""
        self._epoch[0], self._epoch[1] = epoch, skip

    def __len__(self) -> int:
        return self.num_clips // (self.batch_size * self.processes)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        epoch, skip = self._epoch.tolist()
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
            raise ValueError("the stream holds no clips")
        # also where the first row's shard cannot be read, the others' bytes fill the memory
        paths = peek["video"]["bytes"] is None and _IN_TAR.fullmatch(peek["video"]["path"]) is None
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
                    f"process {self.process} of {self.processes} has no share of the stream: it has "
                    f"{self.dataset.num_shards} shards"
                )


def _all_rows(dataset: datasets.IterableDataset) -> Iterator[dict[str, Any]]:
    """Each row, also in a worker of a DataLoader, where plain iteration would give each worker other shards."""
    for batch in dataset.iter(batch_size=1):
        yield {column: values[0] for column, values in batch.items()}


__all__ = ["VideoClipDataset", "VideoClipStream", "collate_clips", "load_video_folder", "video_source"]
