"""Video processor: converts videos to `pixel_values` (decode, sample frames, resize, crop, normalise)."""

import os
from collections.abc import Callable
from copy import copy
from typing import Any

import numpy as np
import PIL.Image
import torch
from transformers.image_processing_utils import BatchFeature
from transformers.image_utils import ChannelDimension, infer_channel_dimension_format
from transformers.processing_utils import VideosKwargs
from transformers.video_processing_utils import BaseVideoProcessor
from transformers.video_utils import VideoMetadata, make_batched_metadata

from .clip_sampling import evaluation_indices, frame_times, multi_clip_indices, paced_indices
from .configuration_videofocalnet import VideoFocalNetConfig, refuse_other_num_frames
from .image_processing_videofocalnet import ClipBackend, drop_alpha, to_rgb
from .video_decoding import VideoInfo, read_video


Sampler = Callable[[Any], np.ndarray]


class VideoFocalNetVideoProcessorKwargs(VideosKwargs, total=False):  # type: ignore[call-arg]
    """Those of [`VideoFocalNetVideoProcessor`]; by default, its own."""

    frame_interval: int
    num_clips: int
    num_crops: int


class VideoFocalNetVideoProcessor(ClipBackend, BaseVideoProcessor):
    """
    Prepares videos for a Video-FocalNet.

    A video can be a path, an http or https URL, the bytes of a file, a binary file object, a cell of a
    `datasets.Video` column, an array or tensor of shape (frames, height, width, channels) or (frames, channels,
    height, width), or a list of frames (PIL images, arrays or tensors). A batch is a list of videos, of any sizes and
    lengths, or an array or tensor with one more dimension.

    By default, the processor samples `num_frames` frames by the published evaluation rule ([`evaluation_indices`]),
    resizes the short side to 256 pixels, crops the central 224 x 224 pixels, scales the values from [0, 255] to [0, 1]
    and normalises them with ImageNet's mean and standard deviation. Resizing is bilinear without antialiasing, as for
    the published checkpoints. Values of arrays may also be floats in [0, 1]. Transparent pixels are shown on white.

    An array, tensor or list of exactly `num_frames` frames is used as it is, because it is assumed to be sampled
    already. With `do_sample_frames=False`, all frames are used (those of `num_clips` clips, one clip after the other).
    Files are sampled even if they have `num_frames` frames: of 8 frames, the rule takes 0 0 1 2 2 3 4 4, and the
    published accuracies were measured this way.

    The published 4 x 3 test uses several views of a video: `num_clips=4` samples four interleaved clips
    ([`multi_clip_indices`]), and `num_crops=3` resizes the short side to the crop size and crops both ends and the
    middle of the long side, in the order first, last, middle.

    Args:
        num_frames: Number of frames of a clip, 8 by default. A processor whose `num_frames` differs from the model's
            cannot be saved in its folder. In a pipeline, the pipeline's `num_frames` rules, by default the model's.
        frame_interval: Interval f of the evaluation rule in frames, 4 by default. Not used if `num_clips` is greater
            than 1, or with `fps`.
        fps: For videos of very different lengths: sample `num_frames` frames at this number of frames per second from
            the middle of the video instead of spreading them over it ([`paced_indices`]). In training, the clip lies
            anywhere in the video; several clips are spread over it. Arrays need `video_metadata` with their `fps`.
        num_clips: Number of clips per video, 1 by default.
        num_crops: Number of crops per clip: 1, the default, or 3.

    Returns `pixel_values`, float32 of shape (batch, num_frames, channels, height, width); with several views, (batch,
    num_clips * num_crops, num_frames, channels, height, width), ordered by clip, then by crop.

    Raises:
        FileNotFoundError, VideoDecodeError: As in [`read_video`].
        ValueError, TypeError: If an input is not a video, or if the options contradict each other.
    """

    do_sample_frames = True
    num_frames = 8
    frame_interval = 4
    fps: float | None = None
    num_clips = 1
    num_crops = 1
    valid_kwargs = VideoFocalNetVideoProcessorKwargs

    @classmethod
    def get_video_processor_dict(cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs):
        settings, unused = super().get_video_processor_dict(pretrained_model_name_or_path, **kwargs)
        if "num_frames" not in settings:  # an image processor's, saved beside a model by a training with one
            config, _ = VideoFocalNetConfig.get_config_dict(pretrained_model_name_or_path, **kwargs)
            settings["num_frames"] = config.get("num_frames", cls.num_frames)
        return settings, unused

    def save_pretrained(self, save_directory: str | os.PathLike, push_to_hub: bool = False, **kwargs):
        refuse_other_num_frames(save_directory, self.num_frames, "config.json")
        return super().save_pretrained(save_directory, push_to_hub=push_to_hub, **kwargs)

    def sample_frames(self, metadata, num_frames=None, frame_interval=None, num_clips=None, **kwargs):
        """
        Return the indices of the frames to use, int64 of shape (num_clips * num_frames,), ordered by clip. A file with
        fewer than `num_frames` frames gets a remark.
        """
        total = metadata.total_num_frames
        num_frames, num_clips = num_frames or self.num_frames, num_clips or self.num_clips
        is_file = hasattr(metadata, "frame_times")  # a `VideoInfo`, of this module or of the package
        if num_clips == 1 and total == num_frames and not is_file:
            return np.arange(num_frames)
        if is_file and total < num_frames:
            metadata.remarks.append(f"has {total} frames, fewer than the {num_frames} of a clip; frames are repeated")
        fps = kwargs.get("fps", self.fps)  # `None` spreads the clip over the video
        if fps is not None:
            positions = (2 * np.arange(num_clips) + 1) / (2 * num_clips)
            return np.concatenate([self.sample_at(fps, metadata, num_frames, position) for position in positions])
        if num_clips > 1:
            return multi_clip_indices(total, num_frames=num_frames, num_clips=num_clips).flatten()
        return evaluation_indices(total, num_frames=num_frames, frame_interval=frame_interval or self.frame_interval)

    @staticmethod
    def sample_at(fps: float, metadata: VideoInfo | VideoMetadata, num_frames: int, position: float) -> np.ndarray:
        """Return the indices of a clip at `fps` frames per second ([`paced_indices`]), of shape (num_frames,)."""
        times = frame_times(metadata)
        if times is None:
            raise ValueError(
                f"fps={fps} needs the time of each frame, but the video states no frame rate. For arrays, pass it as "
                "`video_metadata`, such as {'fps': 25, 'total_num_frames': 250}; or set fps=None"
            )
        return paced_indices(times, num_frames=num_frames, fps=fps, position=position)

    def _decode_and_sample_videos(
        self, videos: Any, video_metadata: Any = None, do_sample_frames=None, sample_indices_fn: Sampler | None = None
    ) -> tuple[list[np.ndarray | torch.Tensor], list[VideoMetadata]]:
        listed = _as_list_of_videos(videos)
        given = [None] * len(listed) if video_metadata is None else make_batched_metadata(listed, video_metadata)
        pairs = [_frames(video, told, sample_indices_fn) for video, told in zip(listed, given, strict=True)]
        return [frames for frames, _ in pairs], [metadata for _, metadata in pairs]

    def _prepare_input_videos(
        self, videos: list[np.ndarray | torch.Tensor], do_convert_rgb=None, input_data_format=None, device=None
    ) -> list[torch.Tensor]:
        # Channels are moved as a view. The base class copies, which takes eight times as long as resizing at 1080p.
        channels_first = []
        for video in videos:
            # four channels are detected only in last place: in (frames, channels, ...), they could be four frames
            has_alpha = video.shape[-1] == 4 and video.shape[1] not in (1, 3)
            layout = input_data_format or (
                ChannelDimension.LAST if has_alpha else infer_channel_dimension_format(video)
            )
            frames = torch.from_numpy(np.ascontiguousarray(video)) if isinstance(video, np.ndarray) else video
            frames = frames.permute(0, 3, 1, 2) if layout == ChannelDimension.LAST else frames
            channels_first.append(drop_alpha(frames) if do_convert_rgb and frames.shape[1] == 4 else frames)
        return super()._prepare_input_videos(channels_first, do_convert_rgb, ChannelDimension.FIRST, device)

    def _preprocess(
        self, videos: list[torch.Tensor], num_clips: int, num_crops: int, return_tensors=None, **options: Any
    ) -> BatchFeature:
        prepared = []
        for video in videos:  # (num_clips * num_frames, channels, height, width)
            crops = self.crops(video, num_crops, **options)
            # (num_crops, num_clips * num_frames, ...) -> (num_clips * num_crops, num_frames, ...)
            views = crops.unflatten(1, (num_clips, -1)).transpose(0, 1).flatten(0, 1)
            # runtimes such as ExecuTorch accept only contiguous tensors
            prepared.append((views if num_clips * num_crops > 1 else views[0]).contiguous())
        return BatchFeature(data={"pixel_values": prepared}, tensor_type=return_tensors)


def _frames(video: Any, told: VideoMetadata | None, sampler: Sampler | None) -> tuple[Any, VideoMetadata]:
    """The sampled frames of a file or array, and its metadata with their indices."""
    if not isinstance(video, (np.ndarray, torch.Tensor)):
        if told is not None:
            raise ValueError("video_metadata is only for frames that are given as arrays; a file has its own metadata")
        frames, info = read_video(video, sampler)
        names = ("total_num_frames", "fps", "width", "height", "duration", "frames_indices")
        return frames, VideoMetadata(**{name: getattr(info, name) for name in names}, video_backend="pyav")
    if len(video) == 0:
        raise ValueError(f"a video of shape {tuple(video.shape)} has no frames")
    metadata = VideoMetadata(total_num_frames=len(video)) if told is None else copy(told)
    # the indices of these frames in the original video
    numbers = range(metadata.total_num_frames) if metadata.frames_indices is None else metadata.frames_indices
    if len(numbers) != len(video):
        raise ValueError(f"video_metadata describes {len(numbers)} frames, but the video has {len(video)}")
    if sampler is not None:
        chosen = sampler(VideoMetadata(total_num_frames=len(video), fps=metadata.fps, frames_indices=numbers))
        metadata.frames_indices = np.asarray(numbers)[chosen]
        video = video[chosen]
    return video, metadata


def _as_list_of_videos(videos: Any) -> list[Any]:
    """Convert a video or a batch to a list of videos, each a 4-dimensional array or tensor, or a source to decode."""
    if isinstance(videos, (np.ndarray, torch.Tensor)) and videos.ndim == 5:
        return list(videos)
    if not isinstance(videos, (list, tuple)):
        return [_as_video(videos)]
    if len(videos) == 0:
        raise ValueError("the list of videos is empty")
    return [_as_video(videos)] if all(map(_is_frame, videos)) else [_as_video(video) for video in videos]


def _is_frame(item: Any) -> bool:
    return isinstance(item, PIL.Image.Image) or (isinstance(item, (np.ndarray, torch.Tensor)) and item.ndim in (2, 3))


def _as_video(video: Any) -> Any:
    video = getattr(video, "_hf_encoded", video)  # the source of a decoded cell of `datasets.Video`
    if isinstance(video, dict) and {"path", "bytes"} <= set(video):
        return video["bytes"] if video["bytes"] is not None else video["path"]
    if isinstance(video, (list, tuple)):
        if not video or not all(map(_is_frame, video)):
            raise TypeError("a video given as a list must be a list of frames: PIL images, arrays or tensors")
        frames: list[Any] = [to_rgb(one) if isinstance(one, PIL.Image.Image) else one for one in video]
        # numpy stacks tensors too, but only those on the CPU
        video = torch.stack(frames) if isinstance(frames[0], torch.Tensor) else np.stack(frames)
    if isinstance(video, (np.ndarray, torch.Tensor)) and video.ndim != 4:
        raise ValueError(
            "a video array must have shape (frames, height, width, channels) or (frames, channels, height, width), "
            f"with one more dimension for a batch, but this one has shape {tuple(video.shape)}"
        )
    return video
