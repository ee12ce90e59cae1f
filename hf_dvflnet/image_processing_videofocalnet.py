"""Image processor: converts lists of frames to `pixel_values`. For videos, see `video_processing_videofocalnet.py`."""

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
from .video_decoding import refuse_thin


class VideoFocalNetImageProcessor(TorchvisionBackend):
    """
    Prepares clips that are given as lists of frames.

    The input is a list of the frames of one clip (PIL images, or arrays or tensors of shape (height, width, channels)
    or (channels, height, width)), or a list of such lists. All frames are used: none are sampled. By default, the
    processor resizes the short side to 256 pixels, crops the central 224 x 224 pixels, scales the values from [0, 255]
    to [0, 1] and normalises them with ImageNet's mean and standard deviation. Resizing is bilinear without
    antialiasing, as for the published checkpoints.

    The values of arrays may be in [0, 255], or floats in [0, 1] ([`to_byte_range`]). Transparent pixels are shown on
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
        # files are checked when they are read, but frames given as arrays or images are checked only here
        refuse_thin(image.shape[-1], image.shape[-2], "the clip")
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
                raise ValueError(
                    f"clip {number} must have frames of one shape, but has {len(frames)} frames of the shapes {shapes}"
                )
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
    "there is no PIL version of this processor: PIL always antialiases when it shrinks an image, but the published "
    "checkpoints expect frames without antialiasing. Remove the arguments `use_fast` and `backend`"
)


class VideoFocalNetImageProcessorPil(PilBackend):
    """Raises an error for `backend="pil"` in the Auto classes, which would otherwise load the torchvision version."""

    @classmethod
    def from_pretrained(cls, *args, **kwargs):
        raise ValueError(_NO_PIL)


__all__ = ["VideoFocalNetImageProcessor"]
