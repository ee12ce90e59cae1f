"""
The training augmentation of the papers: which frames are drawn, transforms of single clips, and mixup and cutmix of a
batch.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional as tvF

from ..clip_sampling import check_positive


def training_indices(
    total_num_frames: int, *, num_frames: int, frame_interval: int = 4, generator: np.random.Generator
) -> np.ndarray:
    """
    Return the indices of a training clip, (num_frames,): a random frame of each of equal segments of the video.

    With N, T and f as in [`evaluation_indices`] and `b = (N - f + 1) // T`, frame i is `i * b` plus a random integer
    from [0, b). For short videos with b = 0 or less, it is one of T sorted random integers from [0, N - f + 1) if
    N > max(T, f), otherwise `round(i * (N - f + 1) / T)` if b = 0, otherwise 0; all modulo N.

    Raises:
        ValueError: If a number is not positive.
    """
    check_positive(total_num_frames=total_num_frames, num_frames=num_frames, frame_interval=frame_interval)
    usable = total_num_frames - frame_interval + 1
    segment = usable // num_frames
    if segment > 0:
        indices = np.arange(num_frames) * segment + generator.integers(segment, size=num_frames)
    elif total_num_frames > max(num_frames, frame_interval):
        indices = np.sort(generator.integers(usable, size=num_frames))
    else:
        indices = np.round(np.arange(num_frames) * max(0, usable) / num_frames).astype(np.int64)
    return indices % total_num_frames


class ClipDraw(NamedTuple):
    """What is drawn for a clip. It depends on the frame's shape, but not on the size that the clip is rendered at."""

    crop: tuple[float, float, float, float]  # top, left, height and width, as shares of the frame's height and width
    flip: bool  # horizontally
    adjustments: tuple[tuple[Callable[[torch.Tensor, float], torch.Tensor], float], ...]  # of colours, with a factor
    grayscale: bool


@dataclass(frozen=True)
class ClipAugmentation:
    """
    Random resized crop, flip, colour jitter and greyscale. Each is drawn once per clip and applied to all its frames.

    The defaults are the published values. For Something-Something-v2, `flip` is 0, because its classes distinguish
    left from right.

    Args:
        area: Range of the share of the frame that the crop covers, drawn uniformly.
        aspect: Range of the crop's width divided by its height, drawn log-uniformly.
        flip: Probability of a horizontal flip.
        jitter: Probability of colour jitter: brightness, contrast, saturation and hue, in random order.
        brightness, contrast, saturation: Half-width of the range of each factor, around 1.
        hue: Half-width of the range of the hue shift, around 0, in turns of the colour circle.
        grayscale: Probability of converting the clip to greyscale.
    """

    area: tuple[float, float] = (0.08, 1.0)
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5
    jitter: float = 0.8
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.2
    hue: float = 0.1
    grayscale: float = 0.2

    def __call__(self, frames: torch.Tensor, size: int, generator: np.random.Generator) -> torch.Tensor:
        """
        Augment a clip.

        Args:
            frames: (frames, channels, height, width), uint8, with the short side that the crop is taken from.
            size: Height and width of the result, in pixels.
            generator: Random generator of all draws, which are made in a fixed order.

        Returns:
            (frames, channels, size, size), uint8.
        """
        return render(frames, self.draw(frames.shape[-2], frames.shape[-1], generator), size)

    def draw(self, height: int, width: int, generator: np.random.Generator) -> ClipDraw:
        """Draw crop, flip and colours for frames of this height and width, in pixels."""
        top, left, crop_height, crop_width = self.draw_crop(height, width, generator)
        flip = bool(generator.random() < self.flip)
        adjustments: list[tuple[Callable[[torch.Tensor, float], torch.Tensor], float]] = []
        if generator.random() < self.jitter:
            drawn = [
                (tvF.adjust_brightness, generator.uniform(1 - self.brightness, 1 + self.brightness)),
                (tvF.adjust_contrast, generator.uniform(1 - self.contrast, 1 + self.contrast)),
                (tvF.adjust_saturation, generator.uniform(1 - self.saturation, 1 + self.saturation)),
                (shift_hue, generator.uniform(-self.hue, self.hue)),
            ]
            adjustments = [drawn[number] for number in generator.permutation(len(drawn))]
        return ClipDraw(
            (top / height, left / width, crop_height / height, crop_width / width),
            flip,
            tuple(adjustments),
            bool(generator.random() < self.grayscale),
        )

    def draw_crop(self, height: int, width: int, generator: np.random.Generator) -> tuple[int, int, int, int]:
        """Top, left, height and width of a crop, in pixels: the first of ten draws that fits, else a centre crop."""
        for _ in range(10):
            area = height * width * generator.uniform(*self.area)
            aspect = math.exp(generator.uniform(math.log(self.aspect[0]), math.log(self.aspect[1])))
            crop_width, crop_height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if 0 < crop_width <= width and 0 < crop_height <= height:
                top = int(generator.integers(height - crop_height + 1))
                left = int(generator.integers(width - crop_width + 1))
                return top, left, crop_height, crop_width
        crop_width = min(width, round(height * self.aspect[1]))
        crop_height = min(height, round(width / self.aspect[0]))
        return (height - crop_height) // 2, (width - crop_width) // 2, crop_height, crop_width


def render(frames: torch.Tensor, drawn: ClipDraw, size: int) -> torch.Tensor:
    """
    Apply what was drawn to a clip, (frames, channels, height, width), uint8, and resize it to (size, size) pixels.

    The frames may have another size than those that it was drawn for: a teacher and a student that want clips of
    different sizes are given the same crop, up to a pixel.
    """
    height, width = frames.shape[-2:]
    top, left = min(round(drawn.crop[0] * height), height - 1), min(round(drawn.crop[1] * width), width - 1)
    crop_height = min(max(round(drawn.crop[2] * height), 1), height - top)
    crop_width = min(max(round(drawn.crop[3] * width), 1), width - left)
    frames = tvF.resized_crop(
        frames, top, left, crop_height, crop_width, [size, size], InterpolationMode.BILINEAR, antialias=False
    ).contiguous()  # decoded frames are stored channels-last, which makes operations on single channels slow
    if drawn.flip:
        frames = tvF.horizontal_flip(frames)
    for adjust, factor in drawn.adjustments:
        frames = adjust(frames, factor)
    return tvF.rgb_to_grayscale(frames, num_output_channels=3) if drawn.grayscale else frames


def shift_hue(frames: torch.Tensor, turns: float) -> torch.Tensor:
    """
    Shift the hue as torchvision's `adjust_hue` does for RGB frames, with a difference of at most 1 (of 255).

    It takes a fraction of the time of `adjust_hue`, which took half of the time of a training clip.

    Args:
        frames: (..., 3, height, width), uint8.
        turns: Shift in turns of the colour circle, any number.
    """
    red, green, blue = frames.float().unbind(-3)
    most, least = torch.maximum(red, green).maximum(blue), torch.minimum(red, green).minimum(blue)
    chroma = most - least
    # in sixths of the colour circle, starting at red; the hue of a grey pixel is arbitrary
    divisor = chroma.clamp(min=1)
    hue = torch.where(
        most == red,
        (green - blue).div_(divisor),
        torch.where(most == green, (blue - red).div_(divisor).add_(2), (red - green).div_(divisor).add_(4)),
    )
    hue = hue.add_(6 * turns)
    hue = hue.sub_((hue / 6).floor_().mul_(6))  # same result as remainder_(6), in a third of its time
    shares = ((hue - 3).abs_().sub_(1), 2 - (hue - 2).abs_(), 2 - (hue - 4).abs_())
    channels = [share.clamp_(0, 1).mul_(chroma).add_(least) for share in shares]
    # rounded as in torchvision
    return torch.stack(channels, -3).mul_(255.999 / 255).to(torch.uint8)


def mix_clips(
    pixel_values: torch.Tensor,
    *,
    mixup_alpha: float = 0.0,
    cutmix_alpha: float = 0.0,
    seed: int = 0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Mix the clips of a batch with each other, by mixup (arXiv 1710.09412) or cutmix (arXiv 1905.04899).

    If both are enabled, each is used for half of the batches. The mix is drawn once for the whole batch and for all
    frames of a clip.

    Args:
        pixel_values: (batch, frames, channels, height, width).
        mixup_alpha: Parameter of the Beta distribution from which the weight of mixup is drawn; 0 disables mixup.
        cutmix_alpha: Parameter of the Beta distribution from which the area of cutmix is drawn; 0 disables cutmix.
        seed: Seed of the draws. The global random state is neither read nor changed.

    Returns:
        The mixed clips, of the same shape, and a matrix of shares, (batch, batch). Row i gives the share of each
        original clip in the mixed clip i, and sums to 1. To mix labels given as probabilities, or any other
        probabilities, multiply this matrix by them.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        kinds: list[v2.Transform] = []
        if mixup_alpha > 0:
            kinds.append(v2.MixUp(alpha=mixup_alpha, num_classes=len(pixel_values)))
        if cutmix_alpha > 0:
            kinds.append(v2.CutMix(alpha=cutmix_alpha, num_classes=len(pixel_values)))
        mix = kinds[int(torch.randint(len(kinds), ()))]
        # each clip is its own class, so that its mixed label gives the shares of the original clips
        each = torch.arange(len(pixel_values), device=pixel_values.device)
        mixed, shares = mix(tv_tensors.Video(pixel_values), each)
    return mixed.as_subclass(torch.Tensor), shares
