"""Video processor: converts videos to `pixel_values` (decode, sample frames, resize, crop, normalise)."""

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import PIL.Image
import torch
from torchvision.transforms.v2 import functional as tvF
from transformers.image_processing_utils import BatchFeature
from transformers.image_transforms import convert_to_rgb
from transformers.image_utils import (
    IMAGENET_DEFAULT_MEAN,
    IMAGENET_DEFAULT_STD,
    ChannelDimension,
    PILImageResampling,
    SizeDict,
    infer_channel_dimension_format,
)
from transformers.processing_utils import Unpack, VideosKwargs
from transformers.utils import TensorType
from transformers.video_processing_utils import BaseVideoProcessor
from transformers.video_utils import VideoMetadata

from .clip_sampling import evaluation_indices, frame_times, multi_clip_indices, paced_indices
from .configuration_videofocalnet import VideoFocalNetConfig, refuse_other_num_frames
from .pixel_conversion import drop_alpha, to_byte_range
from .video_decoding import VideoInfo, read_video, refuse_thin


class VideoFocalNetVideoProcessorKwargs(VideosKwargs, total=False):  # type: ignore[call-arg]
    """
    frame_interval (`int`, *optional*, defaults to `self.frame_interval`):
        Interval f of the evaluation rule, in frames.
    num_clips (`int`, *optional*, defaults to `self.num_clips`):
        Number of clips per video.
    num_crops (`int`, *optional*, defaults to `self.num_crops`):
        Number of crops per clip: 1 or 3.
    """

    frame_interval: int
    num_clips: int
    num_crops: int


class VideoFocalNetVideoProcessor(BaseVideoProcessor):
    """
    Prepares videos for a Video-FocalNet.

    A video can be a path, an http or https URL, the bytes of a file, a binary file object, a cell of a
    `datasets.Video` column, an array or tensor of shape (frames, height, width, channels) or (frames, channels,
    height, width), or a list of frames (PIL images, arrays or tensors). A batch is a list of videos, of any sizes and
    lengths, or an array or tensor with one more dimension.

    By default, the processor samples `num_frames` frames by the published evaluation rule ([`evaluation_indices`]),
    resizes the short side to 256 pixels, crops the central 224 x 224 pixels, scales the values from [0, 255] to [0, 1]
    and normalises them with ImageNet's mean and standard deviation. Resizing is bilinear without antialiasing, as for
    the published checkpoints.

    An array, tensor or list of exactly `num_frames` frames is used as it is, because it is assumed to be sampled
    already. Longer and shorter ones are sampled like files. With `do_sample_frames=False`, all frames of an array are
    used. A file of exactly `num_frames` frames is sampled too, because the published rule leaves out the last
    `frame_interval - 1` frames of every file. Of 8 frames, it takes the frames 0 0 1 2 2 3 4 4, and the published
    accuracies were measured this way.

    The values of arrays may be in [0, 255], or floats in [0, 1] ([`to_byte_range`]). Transparent pixels are shown on
    white.

    The published 4 x 3 test uses several views of a video: `num_clips=4` samples four interleaved clips
    ([`multi_clip_indices`]), and `num_crops=3` resizes the short side to the crop size and crops both ends and the
    middle of the long side, in the order first, last, middle.

    Args:
        num_frames (`int`, *optional*, defaults to 8):
            Number of frames of a clip. Must equal the model's `config.num_frames`: an error is raised if the processor
            is saved in the same folder as a model with a different number. In a pipeline, the pipeline's `num_frames`
            rules, by default that of the model. (Its `frame_sampling_rate` reaches no video processor: set `fps`.)
        frame_interval (`int`, *optional*, defaults to 4):
            Interval f of the evaluation rule, in frames. Not used if `num_clips` is greater than 1, or with `fps`.
        fps (`float`, *optional*):
            For videos of very different lengths: sample `num_frames` frames at this number of frames per second from
            the middle of the video instead of spreading them over it ([`paced_indices`]). In training, the clip lies
            anywhere in the video; several clips are spread over it. Arrays need `video_metadata` with their frame
            rate. Unlike in other processors of transformers, `fps` does not replace `num_frames`.
        num_clips (`int`, *optional*, defaults to 1):
            Number of clips per video.
        num_crops (`int`, *optional*, defaults to 1):
            Number of crops per clip: 1 or 3.

    Returns `pixel_values`, float32 of shape (batch, num_frames, channels, height, width); with several views, (batch,
    num_clips * num_crops, num_frames, channels, height, width), ordered by clip, then by crop.

    Raises:
        FileNotFoundError, VideoDecodeError: As in [`read_video`].
        ValueError, TypeError: If an input is not a video, or if the options contradict each other.
    """

    resample = PILImageResampling.BILINEAR
    image_mean = IMAGENET_DEFAULT_MEAN
    image_std = IMAGENET_DEFAULT_STD
    size = {"shortest_edge": 256}
    default_to_square = False
    crop_size = {"height": 224, "width": 224}
    do_resize = True
    do_center_crop = True
    do_rescale = True
    do_normalize = True
    do_convert_rgb = True
    do_sample_frames = True
    num_frames = 8
    frame_interval = 4
    fps: float | None = None
    num_clips = 1
    num_crops = 1
    valid_kwargs = VideoFocalNetVideoProcessorKwargs
    model_input_names = ["pixel_values"]

    @classmethod
    def get_video_processor_dict(cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs):
        settings, unused = super().get_video_processor_dict(pretrained_model_name_or_path, **kwargs)
        if "num_frames" not in settings:
            # of an image processor, which is all that a training with one saves beside the model
            hub = {name: value for name, value in kwargs.items() if name in _HUB}
            config, _ = VideoFocalNetConfig.get_config_dict(pretrained_model_name_or_path, **hub)
            settings["num_frames"] = config.get("num_frames", cls.num_frames)
        return settings, unused

    def preprocess(self, videos: Any, **kwargs: Unpack[VideoFocalNetVideoProcessorKwargs]) -> BatchFeature:
        num_crops = kwargs.get("num_crops", self.num_crops)
        if num_crops not in (1, 3):
            raise ValueError(f"num_crops must be 1 or 3, got {num_crops}")
        if not kwargs.get("do_sample_frames", self.do_sample_frames) and kwargs.get("num_clips", self.num_clips) > 1:
            raise ValueError("num_clips > 1 requires do_sample_frames=True: the clips are sampled from the video")
        return super().preprocess(videos, **kwargs)

    def save_pretrained(self, save_directory: str | os.PathLike, push_to_hub: bool = False, **kwargs):
        refuse_other_num_frames(save_directory, self.num_frames, "config.json")
        return super().save_pretrained(save_directory, push_to_hub=push_to_hub, **kwargs)

    def sample_frames(
        self,
        metadata: VideoMetadata,
        num_frames: int | None = None,
        frame_interval: int | None = None,
        num_clips: int | None = None,
        fps: float | None = None,
        **kwargs,
    ) -> np.ndarray:
        """
        Return the indices of the frames to use, of shape (num_clips * num_frames,), ordered by clip.

        For a file, `metadata` is a `VideoInfo`. For any other input of exactly `num_frames` frames, all
        frames are used, because they are assumed to be sampled already.
        """
        total = metadata.total_num_frames
        num_frames, num_clips = num_frames or self.num_frames, num_clips or self.num_clips
        if num_clips == 1 and total == num_frames and not isinstance(metadata, VideoInfo):
            return np.arange(num_frames)
        fps = self.fps if fps is None else fps
        if fps is not None:
            positions = (2 * np.arange(num_clips) + 1) / (2 * num_clips)
            return np.concatenate([self.sample_at(fps, metadata, num_frames, position) for position in positions])
        if num_clips > 1:
            return multi_clip_indices(total, num_frames=num_frames, num_clips=num_clips).flatten()
        interval = frame_interval or self.frame_interval
        return evaluation_indices(total, num_frames=num_frames, frame_interval=interval)

    @staticmethod
    def sample_at(fps: float, metadata: VideoMetadata, num_frames: int, position: float) -> np.ndarray:
        """Return the indices of a clip at `fps` frames per second ([`paced_indices`]), of shape (num_frames,)."""
        times = frame_times(metadata)
        if times is None:
            raise ValueError(
                f"fps={fps} needs the time of each frame, but the video states no frame rate. For arrays, pass it as "
                "`video_metadata`, such as {'fps': 25, 'total_num_frames': 250}; or set fps=None"
            )
        return paced_indices(times, num_frames=num_frames, fps=fps, position=position)

    def _decode_and_sample_videos(
        self,
        videos: Any,
        video_metadata: Any = None,
        do_sample_frames: bool | None = None,
        sample_indices_fn: Callable[..., np.ndarray] | None = None,
    ) -> tuple[list[np.ndarray | torch.Tensor], list[VideoMetadata]]:
        listed = _as_list_of_videos(videos)
        given = _as_list_of_metadata(video_metadata, len(listed))
        decoded = [self._decode(video, told, sample_indices_fn) for video, told in zip(listed, given, strict=True)]
        frames, metadata = zip(*decoded, strict=True)
        return list(frames), list(metadata)

    @staticmethod
    def _decode(
        video: Any, told: VideoMetadata | None, sample_indices_fn: Callable[..., np.ndarray] | None
    ) -> tuple[np.ndarray | torch.Tensor, VideoMetadata]:
        if not isinstance(video, (np.ndarray, torch.Tensor)):
            if told is not None:
                raise ValueError(
                    "video_metadata is only for frames that are given as arrays; a file has its own metadata"
                )
            frames, info = read_video(video, sample_indices_fn)
            names = ("total_num_frames", "fps", "width", "height", "duration", "frames_indices")
            metadata = VideoMetadata(**{name: getattr(info, name) for name in names}, video_backend="pyav")
            return frames, metadata
        if len(video) == 0:
            raise ValueError(f"a video of shape {tuple(video.shape)} has no frames")
        metadata = told or VideoMetadata(total_num_frames=len(video))
        # the indices of these frames in the original video
        numbers = range(metadata.total_num_frames) if metadata.frames_indices is None else metadata.frames_indices
        if len(numbers) != len(video):
            raise ValueError(f"video_metadata describes {len(numbers)} frames, but the video has {len(video)}")
        if sample_indices_fn is not None:
            frames = VideoMetadata(total_num_frames=len(video), fps=metadata.fps, frames_indices=numbers)
            chosen = sample_indices_fn(frames)
            metadata.frames_indices = np.asarray(numbers)[chosen]
            video = video[chosen]
        return video, metadata

    def _prepare_input_videos(
        self,
        videos: list[np.ndarray | torch.Tensor],
        do_convert_rgb: bool | None = None,
        input_data_format: str | ChannelDimension | None = None,
        device: str | None = None,
    ) -> list[torch.Tensor]:
        # Moves the channels first as a view. The base class copies, which takes eight times as long as resizing at
        # 1080p.
        channels_first = []
        for video in videos:
            # four channels are detected only in last place: in (frames, channels, height, width), they could be four
            # frames of a video with channels first
            has_alpha = video.shape[-1] == 4 and video.shape[1] not in (1, 3)
            layout = input_data_format or (
                ChannelDimension.LAST if has_alpha else infer_channel_dimension_format(video)
            )
            frames = torch.from_numpy(np.ascontiguousarray(video)) if isinstance(video, np.ndarray) else video
            frames = frames.permute(0, 3, 1, 2) if layout == ChannelDimension.LAST else frames
            if do_convert_rgb and frames.shape[1] == 4:
                frames = drop_alpha(frames)
            channels_first.append(frames)
        return super()._prepare_input_videos(channels_first, do_convert_rgb, ChannelDimension.FIRST, device)

    def resize(self, image: torch.Tensor, size: SizeDict, resample=None, **kwargs) -> torch.Tensor:
        # files are checked when they are read, but frames given as arrays or images are checked only here
        refuse_thin(image.shape[-1], image.shape[-2], "the clip")
        return super().resize(image, size, resample, antialias=False)

    def _preprocess(
        self,
        videos: list[torch.Tensor],
        do_resize: bool,
        size: SizeDict,
        resample: PILImageResampling | tvF.InterpolationMode | int | None,
        do_center_crop: bool,
        crop_size: SizeDict,
        do_rescale: bool,
        rescale_factor: float,
        do_normalize: bool,
        image_mean: float | list[float] | None,
        image_std: float | list[float] | None,
        num_clips: int,
        num_crops: int,
        return_tensors: str | TensorType | None = None,
        **kwargs,
    ) -> BatchFeature:
        if num_crops == 3:
            size = SizeDict(shortest_edge=crop_size.height)
        prepared = []
        for video in videos:  # (num_clips * num_frames, channels, height, width)
            if do_rescale:
                video = to_byte_range(video)
            if do_resize:
                video = self.resize(video, size, resample)
            if num_crops == 3:
                crops = _three_crops(video, crop_size)
            else:
                crops = [self.center_crop(video, crop_size) if do_center_crop else video]
            clips = torch.stack(crops)
            clips = self.rescale_and_normalize(clips, do_rescale, rescale_factor, do_normalize, image_mean, image_std)
            # (num_crops, num_clips * num_frames, ...) -> (num_clips * num_crops, num_frames, ...)
            views = clips.unflatten(1, (num_clips, -1)).transpose(0, 1).flatten(0, 1)
            # runtimes such as ExecuTorch accept only contiguous tensors
            prepared.append((views if num_clips * num_crops > 1 else views[0]).contiguous())
        return BatchFeature(data={"pixel_values": prepared}, tensor_type=return_tensors)


_HUB = ("cache_dir", "force_download", "local_files_only", "proxies", "revision", "subfolder", "token")


def _three_crops(video: torch.Tensor, crop_size: SizeDict) -> list[torch.Tensor]:
    """
    Crop squares at the two ends and in the middle of the long side. The short side must have the size of the square.
    """
    height, width = video.shape[-2:]
    side = crop_size.height
    if crop_size.width != side or min(height, width) != side:
        raise ValueError(
            f"num_crops=3 requires a square crop_size and do_resize=True to resize the short side to it, but got "
            f"frames of {height} x {width} and a crop of {side} x {crop_size.width}"
        )
    step = (max(height, width) - side) // 2
    offsets = (0, 2 * step, step)
    if height > width:
        return [video[..., offset : offset + side, :] for offset in offsets]
    return [video[..., offset : offset + side] for offset in offsets]


def _as_list_of_videos(videos: Any) -> list[Any]:
    """Convert a video or a batch to a list of videos, each a 4-dimensional array or tensor, or a source to decode."""
    if isinstance(videos, (np.ndarray, torch.Tensor)) and videos.ndim == 5:
        return list(videos)
    if not isinstance(videos, (list, tuple)):
        return [_as_video(videos)]
    if len(videos) == 0:
        raise ValueError("the list of videos is empty")
    if all(_is_frame(item) for item in videos):
        return [_as_video(videos)]
    return [_as_video(video) for video in videos]


def _as_list_of_metadata(video_metadata: Any, count: int) -> list[VideoMetadata | None]:
    """Return the metadata of each video, given for one video, as a list, or as a list of lists."""
    if video_metadata is None:
        return [None] * count
    if not isinstance(video_metadata, (list, tuple)):
        video_metadata = [video_metadata]
    elif any(isinstance(told, (list, tuple)) for told in video_metadata):
        video_metadata = [told for several in video_metadata for told in several]
    if len(video_metadata) != count:
        raise ValueError(
            f"video_metadata has {len(video_metadata)} entries for {count} videos; give one entry for each video"
        )
    # a copy: the sampled indices are written into it
    return [None if told is None else VideoMetadata(**dict(told)) for told in video_metadata]


def _is_frame(item: Any) -> bool:
    return isinstance(item, PIL.Image.Image) or (isinstance(item, (np.ndarray, torch.Tensor)) and item.ndim in (2, 3))


def _as_video(video: Any) -> Any:
    video = getattr(video, "_hf_encoded", video)  # the source of a decoded cell of `datasets.Video`
    if isinstance(video, dict) and {"path", "bytes"} <= set(video):
        return video["bytes"] if video["bytes"] is not None else video["path"]
    if isinstance(video, (list, tuple)):
        if not video or not all(_is_frame(frame) for frame in video):
            raise TypeError("a video given as a list must be a list of frames: PIL images, arrays or tensors")
        frames = [
            convert_to_rgb(frame, return_numpy=True) if isinstance(frame, PIL.Image.Image) else frame
            for frame in video
        ]
        shapes = sorted({tuple(frame.shape) for frame in frames})
        if len(shapes) > 1:
            raise ValueError(f"the frames of a video must have the same shape, but have the shapes {shapes}")
        # numpy stacks tensors too, but only those on the CPU
        video = torch.stack(frames) if isinstance(frames[0], torch.Tensor) else np.stack(frames)
    if isinstance(video, (np.ndarray, torch.Tensor)) and video.ndim != 4:
        raise ValueError(
            "a video array must have shape (frames, height, width, channels) or (frames, channels, height, width), "
            f"with one more dimension for a batch, but this one has shape {tuple(video.shape)}"
        )
    return video


__all__ = ["VideoFocalNetVideoProcessor"]
