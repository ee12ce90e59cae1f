"""Videos on disk as datasets: a tree of class folders is listed, and clips are decoded from it one by one."""

import os
from pathlib import Path
from typing import Any

import datasets
import fsspec
import numpy as np
import torch

from .augmentation import ClipAugmentation
from .clip_sampling import training_indices
from .video_decoding import read_video
from .video_processing_videofocalnet import VideoFocalNetVideoProcessor


VIDEO_SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm")
SPLITS = {"train": ("train",), "validation": ("validation", "val"), "test": ("test",)}


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

    Returns:
        A dataset per split, with the columns `video` (`{"path": str, "bytes": None}`), `label` (`ClassLabel`) and
        `video_id` (the path below the split's folder), in sorted order.

    Raises:
        FileNotFoundError: If there is no such folder, or no `train` in it.
        ValueError: If a class folder is empty, or a split has a class that `train` has not.
    """
    data_dir = Path(data_dir)
    if not data_dir.is_dir():
        raise FileNotFoundError(f"{data_dir}: there is no such folder")
    found = {split: data_dir / name for split, names in SPLITS.items() for name in names if (data_dir / name).is_dir()}
    if "train" not in found:
        raise FileNotFoundError(f"{data_dir}: has no folder `train`; expected {data_dir}/train/<class>/<video>")

    classes = sorted(folder.name for folder in found["train"].iterdir() if folder.is_dir())
    if not classes:
        raise ValueError(f"{found['train']}: has no class folders; expected {found['train']}/<class>/<video>")
    features = datasets.Features(
        {
            "video": datasets.Video(decode=False),
            "label": datasets.ClassLabel(names=classes),
            "video_id": datasets.Value("string"),
        }
    )
    return datasets.DatasetDict(
        {
            split: datasets.Dataset.from_list(_list_videos(folder, classes), features=features)
            for split, folder in found.items()
        }
    )


def _list_videos(folder: Path, classes: list[str]) -> list[dict[str, Any]]:
    rows = []
    for class_folder in sorted(entry for entry in folder.iterdir() if entry.is_dir()):
        if class_folder.name not in classes:
            raise ValueError(f"{class_folder}: is no class of the training split, whose classes are {classes}")
        videos = sorted(path for path in class_folder.iterdir() if path.suffix.lower() in VIDEO_SUFFIXES)
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


def video_source(video: dict[str, Any]) -> Any:
    """What [`~video_decoding.read_video`] takes, of a cell of a column `datasets.Video(decode=False)`."""
    if video["bytes"] is not None:
        return video["bytes"]
    path = video["path"]
    if "://" in path and not path.startswith(("http://", "https://")):  # hf:// and the like
        return fsspec.open(path, "rb").open()
    return path


class VideoClipDataset(torch.utils.data.Dataset):
    """
    Clips of a dataset with the columns `video` (`datasets.Video(decode=False)`) and `label`, ready for a Trainer.

    For training, the frames are drawn by the published training rule ([`~clip_sampling.training_indices`]) from a seed
    made of (`seed`, epoch, index of the clip), so that neither the number of workers nor the order changes a draw.
    Without `train`, the processor samples by its evaluation rule and crops the middle.

    Args:
        dataset (`datasets.Dataset`): The rows.
        processor ([`VideoFocalNetVideoProcessor`]): Gives number of frames, size, crop, mean and std.
        train (`bool`, *optional*, defaults to `False`): Draw the frames at random.
        seed (`int`, *optional*, defaults to 0): Seed of the draws.
        augmentation ([`ClipAugmentation`], *optional*): Crops, flips and colours of the training clips; without it
            they are shown as in evaluation.

    Items are `{"pixel_values": (frames, channels, height, width), "labels": int}`.
    """

    def __init__(
        self,
        dataset: datasets.Dataset,
        processor: VideoFocalNetVideoProcessor,
        train: bool = False,
        seed: int = 0,
        augmentation: ClipAugmentation | None = None,
    ):
        self.dataset = dataset
        self.processor = processor
        self.train = train
        self.seed = seed
        self.augmentation = augmentation
        self.epoch = 0

    def set_epoch(self, epoch: int):
        """Called by [`VideoClassificationTrainer`] before each epoch, so that each draws other frames."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = self.dataset[index]
        video = video_source(row["video"])
        if self.train:
            generator = np.random.default_rng([self.seed, self.epoch, index])
            frames, _ = read_video(
                video,
                lambda metadata: training_indices(
                    metadata.total_num_frames,
                    num_frames=self.processor.num_frames,
                    frame_interval=self.processor.frame_interval,
                    generator=generator,
                ),
            )
            pixel_values = self._show(frames, generator)
        else:
            pixel_values = self.processor(video, return_tensors="pt")["pixel_values"]
        return {"pixel_values": pixel_values[0], "labels": row["label"]}

    def _show(self, frames: np.ndarray, generator: np.random.Generator) -> torch.Tensor:
        if self.augmentation is None:
            return self.processor(frames, do_sample_frames=False, return_tensors="pt")["pixel_values"]
        clip = torch.from_numpy(frames).permute(0, 3, 1, 2)
        clip = self.processor.resize(clip, self.processor.size, self.processor.resample)
        crop_size: Any = self.processor.crop_size
        clip = self.augmentation(clip, crop_size.height, generator)
        return self.processor(
            clip, do_sample_frames=False, do_resize=False, do_center_crop=False, return_tensors="pt"
        )["pixel_values"]


__all__ = ["VideoClipDataset", "load_video_folder", "video_source"]
