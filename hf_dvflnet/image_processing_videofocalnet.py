"""Image processor: converts lists of frames to `pixel_values`. For videos, see `video_processing_videofocalnet.py`."""

from typing import TYPE_CHECKING, Any

import numpy as np
import PIL.Image
import torch
from transformers.image_processing_backends import TorchvisionBackend
from transformers.image_processing_utils import BatchFeature
from transformers.image_transforms import convert_to_rgb
from transformers.image_utils import (
    IMAGENET_DEFAULT_MEAN,
    IMAGENET_DEFAULT_STD,
    ImageInput,
    PILImageResampling,
    SizeDict,
    make_nested_list_of_images,
)

from .video_decoding import refuse_thin


if TYPE_CHECKING:
    from .configuration_videofocalnet import VideoFocalNetConfig  # noqa: F401  (so that it is saved, with all others)


def to_byte_range(frames: torch.Tensor) -> torch.Tensor:
    """
    Bring the values of all frames of a video to [0, 255], uint8 if they are integers or booleans, otherwise float32.

    The range is inferred: booleans and floats in [0, 1] are multiplied by 255, other numbers in [0, 255] are not
    changed. `ValueError` is raised if a value is outside [0, 255] or NaN.
    """
    if frames.dtype == torch.uint8:
        return frames
    if frames.dtype == torch.bool:
        return frames.to(torch.uint8) * 255
    # PyTorch has no `aminmax` for unsigned integers of more than 8 bits
    values = frames.to(torch.float32 if frames.is_floating_point() else torch.int64)
    least, greatest = (value.item() for value in values.aminmax())
    if not 0 <= least <= greatest <= 255:
        raise ValueError(
            f"the values of frames must be in [0, 255], or floats in [0, 1], but these range from {least:g} to "
            f"{greatest:g}. If they have more than 8 bits, divide them by the greatest possible value; if they are "
            "already scaled and normalised, set do_rescale=False and do_normalize=False"
        )
    if not frames.is_floating_point():
        return values.to(torch.uint8)
    return values * 255 if greatest <= 1 else values


def to_rgb(picture: PIL.Image.Image) -> np.ndarray:
    """
    Convert a picture to an array (height, width, 3), uint8 with transparent pixels on white. Pictures of 16 or 32 bits
    (modes `I`, `I;16` and `F`) keep their values, which PIL would clip; [`to_byte_range`] refuses those above 255.
    """
    if picture.mode[0] in "IF":
        return np.array(picture, np.float32 if picture.mode == "F" else np.int32)[..., None].repeat(3, axis=-1)
    return convert_to_rgb(picture, return_numpy=True)


def drop_alpha(frames: torch.Tensor) -> torch.Tensor:
    """
    Show transparent pixels on white: RGBA (frames, 4, height, width) to RGB (frames, 3, height, width), in the range
    of the input; integers become uint8 ([`to_byte_range`]).
    """
    is_float = frames.is_floating_point()
    frames = frames if is_float else to_byte_range(frames).float()
    colours, alpha, white = frames[:, :3], frames[:, 3:], 1 if is_float and frames.max() <= 1 else 255
    shown = colours * alpha / white + white - alpha
    return shown if is_float else shown.round().to(torch.uint8)


class ClipBackend(TorchvisionBackend):
    """What the image and the video processor share: their defaults, and how the frames of a clip become a tensor."""

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

    def resize(self, image: torch.Tensor, size: SizeDict, resample=None, **kwargs) -> torch.Tensor:
        # files are checked when they are read, but frames given as arrays or images are checked only here
        refuse_thin(image.shape[-1], image.shape[-2], "the clip")
        return super().resize(image, size, resample, antialias=False)

    def crops(self, frames: torch.Tensor, num_crops: int = 1, **options: Any) -> torch.Tensor:
        """Frames of shape (frames, channels, height, width) to crops of shape (num_crops, frames, channels, ...)."""
        crop_size = options["crop_size"]
        if options["do_rescale"]:
            frames = to_byte_range(frames)
        if options["do_resize"]:
            size = SizeDict(shortest_edge=crop_size.height) if num_crops == 3 else options["size"]
            frames = self.resize(frames, size, options["resample"])
        if num_crops == 3:
            crops = _three_crops(frames, crop_size)
        elif num_crops == 1:
            crops = [self.center_crop(frames, crop_size) if options["do_center_crop"] else frames]
        else:
            raise ValueError(f"num_crops must be 1 or 3, got {num_crops}")
        steps = ("do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std")
        return self.rescale_and_normalize(torch.stack(crops), *(options[step] for step in steps))


def _three_crops(frames: torch.Tensor, crop_size: SizeDict) -> list[torch.Tensor]:
    """Crop squares at the two ends and in the middle of the long side. They must have the size of the short side."""
    (height, width), side = frames.shape[-2:], crop_size.height
    if not side == crop_size.width == min(height, width):
        raise ValueError(
            "num_crops=3 requires a square crop_size and do_resize=True to resize the short side to it, but got "
            f"frames of {height} x {width} and a crop of {side} x {crop_size.width}"
        )
    step = (max(height, width) - side) // 2
    return [frames.narrow(-2 if height > width else -1, offset, side) for offset in (0, 2 * step, step)]


class VideoFocalNetImageProcessor(ClipBackend):
    """
    Prepares clips that are given as lists of frames.

    The input is a list of the frames of one clip (PIL images, or arrays or tensors of shape (height, width, channels)
    or (channels, height, width)), all of one size, or a list of such lists. No frames are sampled: all are used,
    and processed as by [`VideoFocalNetVideoProcessor`].

    Returns `pixel_values`, float32 of shape (batch, frames, channels, height, width).
    """

    def _prepare_images_structure(self, images: ImageInput, expected_ndims: int = 3) -> list[list[ImageInput]]:
        return make_nested_list_of_images(self.fetch_images(images), expected_ndims=expected_ndims)

    def process_image(self, image: ImageInput, do_convert_rgb: bool | None = None, *args, **kwargs) -> torch.Tensor:
        if do_convert_rgb and isinstance(image, PIL.Image.Image):
            image = to_rgb(image)
        return super().process_image(image, do_convert_rgb, *args, **kwargs)

    def _preprocess(self, images: list[list[torch.Tensor]], return_tensors=None, **options: Any) -> BatchFeature:
        clips = [self.crops(torch.stack(frames), **options)[0] for frames in images]
        return BatchFeature(data={"pixel_values": clips}, tensor_type=return_tensors)
