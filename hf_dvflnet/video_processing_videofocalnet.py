"""Videos to `pixel_values`: decode, sample frames, resize, crop, normalise."""

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

from .clip_sampling import evaluation_indices, multi_clip_indices
from .configuration_videofocalnet import refuse_other_num_frames
from .pixel_conversion import drop_alpha, to_byte_range
from .video_container import DecodedVideoMetadata
from .video_decoding import read_video
from .video_limits import refuse_thin, video_limits


class VideoFocalNetVideoProcessorKwargs(VideosKwargs, total=False):  # type: ignore[call-arg]
    """
    frame_interval (`int`, *optional*, defaults to `self.frame_interval`):
        The interval f of the evaluation rule, in frames.
    num_clips (`int`, *optional*, defaults to `self.num_clips`):
        Clips per video.
    num_crops (`int`, *optional*, defaults to `self.num_crops`):
        Crops per clip: 1 or 3.
    """

    frame_interval: int
    num_clips: int
    num_crops: int


class VideoFocalNetVideoProcessor(BaseVideoProcessor):
    """
    Prepare videos for a Video-FocalNet.

    A video is a path, an http or https URL, the bytes of a file, a binary file object, a cell of a column
    `datasets.Video`, an array or tensor of shape (frames, height, width, channels) or (frames, channels, height,
    width), or a list of PIL images or of single frames; a batch is a list of videos, of any sizes and lengths, or an
    array with one dimension more.

    By default samples `num_frames` frames by the published evaluation rule ([`evaluation_indices`]), resizes the short
    side to 256, crops the middle 224 x 224, scales from [0, 255] to [0, 1] and normalises with ImageNet's mean and
    standard deviation. Resizing is bilinear without antialiasing, as the published checkpoints saw it.

    Frames are sampled where there is a choice. An array, tensor or list of exactly `num_frames` frames is taken as it
    is: it was sampled already. Longer and shorter ones are sampled as files are; `do_sample_frames=False` takes all
    frames of an array as they are. A file of exactly `num_frames` frames is sampled too, since the published rule
    leaves out the last `frame_interval - 1` frames of every file: of 8 frames it takes 0 0 1 2 2 3 4 4, and that is
    what the published accuracies were measured with.

    Values of arrays may lie in [0, 255], or in [0, 1] as floats ([`to_byte_range`]). Transparent pixels are laid on
    white.

    Several views of a video, for the published 4 x 3 test: `num_clips=4` samples four clips that interleave
    ([`multi_clip_indices`]); `num_crops=3` resizes the short side to the crop's and crops both ends and
    the middle of the long side, in the order first, last, middle.

    Args:
        num_frames (`int`, *optional*, defaults to 8):
            Frames of a clip. Must agree with the model's `config.num_frames`: a processor that is saved beside, or
            piped into, a model of another number is refused.
        frame_interval (`int`, *optional*, defaults to 4):
            The interval f of the evaluation rule; not used with several clips.
        num_clips (`int`, *optional*, defaults to 1):
            Clips per video.
        num_crops (`int`, *optional*, defaults to 1):
            Crops per clip: 1 or 3.

    Returns `pixel_values`, float32 of shape (batch, num_frames, channels, height, width); with several views (batch,
    num_clips * num_crops, num_frames, channels, height, width), clips outermost.

    Raises:
        FileNotFoundError, VideoDecodeError: As [`read_video`].
        ValueError, TypeError: If an input is no video, or the options do not fit each other.
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
    num_clips = 1
    num_crops = 1
    valid_kwargs = VideoFocalNetVideoProcessorKwargs
    model_input_names = ["pixel_values"]

    def preprocess(self, videos: Any, **kwargs: Unpack[VideoFocalNetVideoProcessorKwargs]) -> BatchFeature:
        # This is how the pipeline calls, with the model's number of frames.
        if kwargs.get("do_sample_frames") and kwargs.get("num_frames") not in (None, self.num_frames):
            raise ValueError(
                f"the model takes {kwargs['num_frames']} frames, but its processor samples {self.num_frames}. Give "
                "both the same number: `model.config.num_frames` and `processor.num_frames`."
            )
        num_crops = kwargs.get("num_crops", self.num_crops)
        if num_crops not in (1, 3):
            raise ValueError(f"num_crops must be 1 or 3, got {num_crops}")
        if not kwargs.get("do_sample_frames", self.do_sample_frames) and kwargs.get("num_clips", self.num_clips) > 1:
            raise ValueError("several clips (num_clips > 1) are sampled from a video: do_sample_frames must be True")
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
        **kwargs,
    ) -> np.ndarray:
        """
        Indices of the frames to take, of shape (num_clips * num_frames,), clips outermost.

        `metadata` of a file is a `DecodedVideoMetadata`. Frames that come otherwise, exactly `num_frames` of them,
        were sampled already and are all taken.
        """
        if kwargs.get("fps") is not None:
            raise ValueError("sampling is by number of frames: `fps` is not supported, set `num_frames`")
        total = metadata.total_num_frames
        num_frames, num_clips = num_frames or self.num_frames, num_clips or self.num_clips
        if num_clips > 1:
            return multi_clip_indices(total, num_frames=num_frames, num_clips=num_clips).flatten()
        if total == num_frames and not isinstance(metadata, DecodedVideoMetadata):
            return np.arange(num_frames)
        interval = frame_interval or self.frame_interval
        return evaluation_indices(total, num_frames=num_frames, frame_interval=interval)

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
                raise ValueError("video_metadata describes frames that are given as arrays; a file has its own")
            return read_video(video, sample_indices_fn)
        if len(video) == 0:
            raise ValueError(f"a video of shape {tuple(video.shape)} has no frames")
        metadata = told or VideoMetadata(total_num_frames=len(video))
        # which frames of a longer video these are
        numbers = range(metadata.total_num_frames) if metadata.frames_indices is None else metadata.frames_indices
        if len(numbers) != len(video):
            raise ValueError(f"video_metadata describes {len(numbers)} frames, but the video has {len(video)}")
        if sample_indices_fn is not None:
            chosen = sample_indices_fn(VideoMetadata(total_num_frames=len(video)))
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
        # Channels come first as a view: the base class copies, which takes eight times as long as resizing at 1080p.
        channels_first = []
        for video in videos:
            # four channels only where they come last: (channels, frames, height, width) of four frames looks alike
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
        # a file was refused before, but not frames that come as arrays or pictures
        refuse_thin(image.shape[-1], image.shape[-2], "the clip", video_limits())
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
            # runtimes such as ExecuTorch take no other layout
            prepared.append((views if num_clips * num_crops > 1 else views[0]).contiguous())
        return BatchFeature(data={"pixel_values": prepared}, tensor_type=return_tensors)


def _three_crops(video: torch.Tensor, crop_size: SizeDict) -> list[torch.Tensor]:
    """Squares at the two ends and in the middle of the long side, of a video whose short side is the square's."""
    height, width = video.shape[-2:]
    side = crop_size.height
    if crop_size.width != side or min(height, width) != side:
        raise ValueError(
            f"three crops need a square crop_size, and do_resize to bring the short side to it: got frames of "
            f"{height} x {width} and a crop of {side} x {crop_size.width}"
        )
    step = (max(height, width) - side) // 2
    offsets = (0, 2 * step, step)
    if height > width:
        return [video[..., offset : offset + side, :] for offset in offsets]
    return [video[..., offset : offset + side] for offset in offsets]


def _as_list_of_videos(videos: Any) -> list[Any]:
    """One video or a batch -> a list of videos, each an array or tensor of four dimensions or something to decode."""
    if isinstance(videos, (np.ndarray, torch.Tensor)) and videos.ndim == 5:
        return list(videos)
    if not isinstance(videos, (list, tuple)):
        return [_as_video(videos)]
    if len(videos) == 0:
        raise ValueError("an empty list holds no videos")
    if all(_is_frame(item) for item in videos):
        return [_as_video(videos)]
    return [_as_video(video) for video in videos]


def _as_list_of_metadata(video_metadata: Any, count: int) -> list[VideoMetadata | None]:
    """What is told of each video, given for one video, as a list, or as a list of lists."""
    if video_metadata is None:
        return [None] * count
    if not isinstance(video_metadata, (list, tuple)):
        video_metadata = [video_metadata]
    elif any(isinstance(told, (list, tuple)) for told in video_metadata):
        video_metadata = [told for several in video_metadata for told in several]
    if len(video_metadata) != count:
        raise ValueError(f"video_metadata has {len(video_metadata)} entries for {count} videos; give one for each")
    # a copy: what is sampled is written into it
    return [None if told is None else VideoMetadata(**dict(told)) for told in video_metadata]


def _is_frame(item: Any) -> bool:
    return isinstance(item, PIL.Image.Image) or (isinstance(item, (np.ndarray, torch.Tensor)) and item.ndim in (2, 3))


def _as_video(video: Any) -> Any:
    video = getattr(video, "_hf_encoded", video)  # what a decoded cell of `datasets.Video` was made of
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
            raise ValueError(f"the frames of a video must have one shape, but have {shapes}")
        # numpy stacks tensors as well, but only those that live on the CPU
        video = torch.stack(frames) if isinstance(frames[0], torch.Tensor) else np.stack(frames)
    if isinstance(video, (np.ndarray, torch.Tensor)) and video.ndim != 4:
        raise ValueError(
            "an array is a video of shape (frames, height, width, channels) or (frames, channels, height, width), or "
            f"a batch of them with one dimension more, but this one has shape {tuple(video.shape)}"
        )
    return video


__all__ = ["VideoFocalNetVideoProcessor"]
