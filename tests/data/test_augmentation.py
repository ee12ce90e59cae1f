import dataclasses
import math

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as tvF

from hf_dvflnet import ClipAugmentation
from hf_dvflnet.data.augmentation import mix_clips, shift_hue


PLAIN = ClipAugmentation(area=(1.0, 1.0), aspect=(1.0, 1.0), flip=0.0, jitter=0.0, grayscale=0.0)


def noise(frames: int = 4, height: int = 40, width: int = 40) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (frames, 3, height, width), dtype=np.uint8))


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_the_defaults_are_the_published_settings():
    assert dataclasses.asdict(ClipAugmentation()) == {
        **{"area": (0.08, 1.0), "aspect": (3 / 4, 4 / 3), "flip": 0.5, "jitter": 0.8, "grayscale": 0.2},
        **{"brightness": 0.4, "contrast": 0.4, "saturation": 0.2, "hue": 0.1},
    }


def test_one_draw_serves_all_frames_of_a_clip():
    still = noise(1).expand(6, -1, -1, -1)
    for seed in range(8):
        clip = ClipAugmentation()(still, 32, generator(seed))
        assert clip.shape == (6, 3, 32, 32) and clip.dtype == torch.uint8
        assert torch.equal(clip, clip[:1].expand_as(clip))


def test_the_whole_frame_is_resized_without_antialiasing():
    expected = tvF.resize(noise(), [20, 20], antialias=False)
    assert torch.equal(PLAIN(noise(), 20, generator()), expected)


def test_a_flip_is_a_mirror_image():
    flipped = dataclasses.replace(PLAIN, flip=1.0)(noise(), 40, generator())
    assert torch.equal(flipped, noise().flip(-1))


@pytest.mark.parametrize("field", ["brightness", "contrast", "saturation", "hue"])
def test_each_part_of_the_jitter_changes_colours(field):
    off = {name: 0.0 for name in ("brightness", "contrast", "saturation", "hue") if name != field}
    changed = dataclasses.replace(PLAIN, jitter=1.0, **off)(noise(), 40, generator())
    unchanged = dataclasses.replace(PLAIN, jitter=1.0, **off, **{field: 0.0})(noise(), 40, generator())
    assert (changed.int() - noise().int()).abs().float().mean() > 1
    assert (unchanged.int() - noise().int()).abs().max() <= 2  # rounding, there and back


@pytest.mark.parametrize("turns", [-0.1, -0.03, 0.0, 0.05, 0.1, 0.5])
def test_the_hue_is_torchvisions_within_1_of_255(turns):
    primaries = torch.tensor([[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0]])
    for frames in (noise(), primaries.to(torch.uint8).T[None, :, :, None]):
        difference = (shift_hue(frames, turns).int() - tvF.adjust_hue(frames, turns).int()).abs()
        assert difference.max() <= 1
        assert difference.float().mean() < 1e-3


@pytest.mark.parametrize(("height", "width"), [(256, 256), (256, 455), (455, 256)])
def test_crops_lie_inside_and_have_the_drawn_area_and_aspect(height, width):
    rng = generator()
    for _ in range(500):
        top, left, crop_height, crop_width = ClipAugmentation().draw_crop(height, width, rng)
        assert 0 <= top <= height - crop_height and 0 <= left <= width - crop_width
        assert 0.07 <= crop_height * crop_width / (height * width) <= 1
        assert 0.73 <= crop_width / crop_height <= 1.37


# mixing


def constant_clips(batch: int = 4) -> torch.Tensor:
    """Clip i is i everywhere."""
    return torch.arange(batch).float().view(-1, 1, 1, 1, 1).expand(-1, 2, 3, 16, 16).clone()


def test_mixup_mixes_pixels_and_labels_with_one_weight():
    clips, shares = mix_clips(constant_clips(), mixup_alpha=0.8)
    assert torch.allclose(shares.sum(-1), torch.ones(4))
    expected = (shares * torch.arange(4)).sum(-1)
    assert torch.allclose(clips, expected.view(-1, 1, 1, 1, 1).expand_as(clips), atol=1e-5)


def test_cutmix_pastes_a_box_of_the_share_that_the_labels_say_into_every_frame():
    clips, shares = mix_clips(constant_clips(), cutmix_alpha=1.0, seed=1)
    assert torch.equal(clips, clips[:, :1, :1].expand_as(clips))
    for number in range(4):
        share = (clips[number, 0, 0] == number).float().mean()
        assert 0 < share < 1
        assert shares[number, number] == pytest.approx(share.item())


def test_each_kind_of_mixing_gets_half_of_the_batches():
    cut = 0
    for seed in range(200):
        clips, _ = mix_clips(constant_clips(), mixup_alpha=0.8, cutmix_alpha=1.0, seed=seed)
        cut += set(clips.unique().tolist()) <= {0.0, 1.0, 2.0, 3.0}
    assert abs(cut - 100) < 3 * math.sqrt(50)


def test_mixing_leaves_the_global_random_state_alone_and_repeats():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one, two = (mix_clips(constant_clips(), mixup_alpha=0.8, seed=7)[0] for _ in range(2))
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(one, two)
