"""Lists of frames to `pixel_values`. For video files and sampling see `video_processing_videofocalnet.py`."""

import torch
from torchvision.transforms.v2 import functional as tvF
from transformers.image_processing_backends import PilBackend, TorchvisionBackend
from transformers.image_processing_utils import BatchFeature
from transformers.image_utils import (
    IMAGENET_DEFAULT_MEAN,
    IMAGENET_DEFAULT_STD,
    ImageInput,
    PILImageResampling,
    SizeDict,
    make_nested_list_of_images,
)
from transformers.utils import TensorType

from .pixel_conversion import to_byte_range
from .video_limits import refuse_thin, video_limits


class VideoFocalNetImageProcessor(TorchvisionBackend):
    """
    Prepare clips given as lists of frames.

    Takes the frames of one clip (PIL images, or arrays or tensors of shape (height, width, channels) or (channels,
    height, width)) or a list of such lists, all frames as they are: nothing is sampled. By default resizes the short
    side to 256, crops the middle 224 x 224, scales from [0, 255] to [0, 1] and normalises with ImageNet's mean and
    standard deviation. Resizing is bilinear without antialiasing, as the published checkpoints saw it.

    Values of arrays may lie in [0, 255], or in [0, 1] as floats ([`to_byte_range`]). Transparent pixels are laid on
    white.

    Returns `pixel_values`, float32 of shape (batch, frames, channels, height, width).
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
    model_input_names = ["pixel_values"]

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *args, **kwargs):
        if kwargs.get("use_fast") is False or kwargs.get("backend") not in (None, "torchvision"):
            raise ValueError(_NO_PIL)
        kwargs.pop("backend", None)
        return super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)

    def resize(self, image: torch.Tensor, size: SizeDict, resample=None, **kwargs) -> torch.Tensor:
        # a file was refused before, but not frames that come as arrays or pictures
        refuse_thin(image.shape[-1], image.shape[-2], "the clip", video_limits())
        return super().resize(image, size, resample, antialias=False)

    def _prepare_images_structure(self, images: ImageInput, expected_ndims: int = 3) -> list[list[ImageInput]]:
        return make_nested_list_of_images(self.fetch_images(images), expected_ndims=expected_ndims)

    def _preprocess(
        self,
        images: list[list[torch.Tensor]],
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
        return_tensors: str | TensorType | None,
        **kwargs,
    ) -> BatchFeature:
        clips = []
        for number, frames in enumerate(images):
            if len({frame.shape for frame in frames}) != 1:
                shapes = sorted({tuple(frame.shape) for frame in frames})
                raise ValueError(f"clip {number} must have frames, all of one size, but has {len(frames)}: {shapes}")
            clip = torch.stack(frames)
            if do_rescale:
                clip = to_byte_range(clip)
            if do_resize:
                clip = self.resize(clip, size, resample)
            if do_center_crop:
                clip = self.center_crop(clip, crop_size)
            clips.append(
                self.rescale_and_normalize(clip, do_rescale, rescale_factor, do_normalize, image_mean, image_std)
            )
        return BatchFeature(data={"pixel_values": clips}, tensor_type=return_tensors)


_NO_PIL = (
    "there is no PIL version of this processor: PIL antialiases when it shrinks a picture, and published checkpoints "
    "saw frames without antialiasing. Leave out `use_fast` and `backend`"
)


class VideoFocalNetImageProcessorPil(PilBackend):
    """Stands in the Auto classes for `backend="pil"`, which would otherwise be answered by the torchvision version."""

    @classmethod
    def from_pretrained(cls, *args, **kwargs):
        raise ValueError(_NO_PIL)


__all__ = ["VideoFocalNetImageProcessor"]
