import numpy as np
import PIL.Image
import pytest
import torch
from torch.nn import functional as F
from videos import read_number, write_video

from hf_dvflnet import (
    VideoFocalNetForVideoClassification,
    VideoFocalNetImageProcessor,
    VideoFocalNetVideoProcessor,
    VideoLimits,
    read_video,
)
from hf_dvflnet.clip_sampling import evaluation_indices, multi_clip_indices


MEAN = np.array([0.485, 0.456, 0.406])
STD = np.array([0.229, 0.224, 0.225])
NOISE = np.random.default_rng(0).integers(0, 256, (9, 40, 50, 3), dtype=np.uint8)


def pixels(processor, video, **options) -> torch.Tensor:
    return processor(video, return_tensors="pt", **options)["pixel_values"]


def expected_clip(frames: np.ndarray, short_side: int, crop: int) -> np.ndarray:
    """The documented view of uint8 frames (frames, height, width, 3), written without the package."""
    clip = torch.from_numpy(frames).permute(0, 3, 1, 2).float()
    height, width = clip.shape[-2:]
    size = (short_side, short_side * width // height) if height < width else (short_side * height // width, short_side)
    clip = F.interpolate(clip, size=size, mode="bilinear", align_corners=False, antialias=False).round()
    top, left = (size[0] - crop) // 2, (size[1] - crop) // 2
    clip = clip[..., top : top + crop, left : left + crop].numpy() / 255
    return ((clip.transpose(0, 2, 3, 1) - MEAN) / STD).transpose(0, 3, 1, 2)


def test_default_view_is_the_documented_one(video_files):
    path = video_files["h264_long_gop.mp4"]
    frames, _ = read_video(path, evaluation_indices(60, num_frames=8, frame_interval=4))
    found = VideoFocalNetVideoProcessor()(str(path), return_tensors="pt")["pixel_values"]
    assert found.shape == (1, 8, 3, 224, 224) and found.dtype == torch.float32
    # one step of 255 where the two round a pixel differently
    assert np.abs(found[0].numpy() - expected_clip(frames, 256, 224)).max() <= 1.01 / 255 / STD.min()


def test_every_kind_of_source_gives_the_same_tensor(video_files, tiny_processor):
    path = video_files["h264_short_gop.mp4"]
    frames, _ = read_video(path)
    sources = {
        "path as text": str(path),
        "bytes": path.read_bytes(),
        "array": frames,
        "channels first": frames.transpose(0, 3, 1, 2),
        "tensor": torch.from_numpy(frames),
        "tensor, channels first": torch.from_numpy(frames).permute(0, 3, 1, 2),
        "images": [PIL.Image.fromarray(frame) for frame in frames],
        "list of frames": list(frames),
        "batch of one": [path],
        "array with a batch dimension": frames[None],
    }
    expected = tiny_processor(path, return_tensors="pt")["pixel_values"]
    with path.open("rb") as file:
        assert torch.equal(tiny_processor(file, return_tensors="pt")["pixel_values"], expected)
    for name, source in sources.items():
        assert torch.equal(tiny_processor(source, return_tensors="pt")["pixel_values"], expected), name


def test_a_batch_of_videos_of_other_sizes_and_lengths_is_one_tensor(video_files, tiny_processor):
    frames = np.random.default_rng(0).integers(0, 256, (3, 50, 70, 3), dtype=np.uint8)
    videos = [video_files["h264_rotated.mp4"], frames, video_files["vp9.webm"]]
    batch = tiny_processor(videos, return_tensors="pt")["pixel_values"]
    assert batch.shape == (3, 4, 3, 32, 32)
    for video, clip in zip(videos, batch, strict=True):
        assert torch.equal(tiny_processor(video, return_tensors="pt")["pixel_values"][0], clip)


def test_both_processors_agree_on_the_same_frames(tiny_processor):
    videos = [
        list(np.random.default_rng(seed).integers(0, 256, (4, 40 + seed, 60, 3), dtype=np.uint8)) for seed in (0, 1)
    ]
    images = VideoFocalNetImageProcessor(size=tiny_processor.size, crop_size=tiny_processor.crop_size)
    for frames in (videos, [[PIL.Image.fromarray(frame) for frame in video] for video in videos]):
        from_frames = images(frames, return_tensors="pt")["pixel_values"]
        from_videos = tiny_processor(frames, do_sample_frames=False, return_tensors="pt")["pixel_values"]
        assert from_frames.shape == (2, 4, 3, 32, 32)
        torch.testing.assert_close(from_frames, from_videos, rtol=0, atol=1e-6)


def test_twelve_views_are_four_clips_of_three_crops_clips_outermost(tmp_path):
    # 320 x 240 -> short side 224: 298 x 224, hence s = (298 - 224) // 2 = 37 and offsets 0, 74, 37
    path = write_video(tmp_path / "wide.mp4", num_frames=40, width=320, height=240)
    processor = VideoFocalNetVideoProcessor(do_normalize=False, do_rescale=False)
    views = processor(path, num_clips=4, num_crops=3, return_tensors="pt")["pixel_values"][0]
    assert views.shape == (12, 8, 3, 224, 224)
    for clip, indices in enumerate(multi_clip_indices(40, num_frames=8, num_clips=4)):
        frames = torch.from_numpy(read_video(path, indices)[0]).permute(0, 3, 1, 2).float()
        resized = F.interpolate(frames, size=(224, 298), mode="bilinear", align_corners=False).round()
        for crop, offset in enumerate((0, 74, 37)):
            difference = views[3 * clip + crop] - resized[..., offset : offset + 224]
            assert difference.abs().max() <= 1, (clip, crop)


def test_a_batch_of_views_runs_through_the_model(tiny_config, tiny_processor, video_files):
    videos = [video_files["vp9.webm"], video_files["xvid.avi"]]
    views = tiny_processor(videos, num_clips=2, num_crops=3, return_tensors="pt")["pixel_values"]
    assert views.shape == (2, 6, 4, 3, 32, 32)
    with torch.no_grad():
        logits = VideoFocalNetForVideoClassification(tiny_config).eval()(views).logits
    torch.testing.assert_close(logits.softmax(-1).sum(-1), torch.ones(2))


def test_resizing_does_not_antialias():
    # noise shrunk to a quarter keeps its contrast where single pixels are picked, and loses it where they are averaged
    video = np.random.default_rng(0).integers(0, 256, (4, 256, 256, 3), dtype=np.uint8)
    processor = VideoFocalNetVideoProcessor(
        num_frames=4, size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64}, do_normalize=False
    )
    ours = processor(video, do_sample_frames=False, return_tensors="pt")["pixel_values"]
    averaged = F.interpolate(
        torch.from_numpy(video).permute(0, 3, 1, 2).float() / 255, size=64, mode="bilinear", antialias=True
    )
    assert ours.std() > 2 * averaged.std()


@pytest.mark.parametrize("processor", [VideoFocalNetImageProcessor, VideoFocalNetVideoProcessor])
def test_thin_frames_given_as_pictures_are_refused(processor):
    # resized, eight of 1 x 20,000 would take 31 GB
    with pytest.raises(ValueError, match=r"the clip: has frames of 1 x 20000, thinner than the limit of 32 to 1"):
        processor()([PIL.Image.new("RGB", (1, 20_000))] * 8, return_tensors="pt")


GREY = np.zeros((4, 8, 8, 3), np.uint8)
TOLD = {"fps": 8.0, "total_num_frames": 4}


@pytest.mark.parametrize(
    "videos, options, error, message",
    [
        (np.zeros((3, 4), np.uint8), {}, ValueError, r"shape \(3, 4\)"),
        (GREY[:0], {}, ValueError, "no frames"),
        ([], {}, ValueError, "the list of videos is empty"),
        ([["a.mp4"]], {}, TypeError, "list of frames"),
        ([np.zeros((8, 8, 3)), np.zeros((9, 8, 3))], {}, ValueError, "the same shape"),
        (GREY, {"num_crops": 2}, ValueError, "1 or 3, got 2"),
        (GREY, {"num_crops": 3, "do_resize": False}, ValueError, "do_resize"),
        (np.zeros((9, 8, 8, 3), np.uint8), {"fps": 2}, ValueError, r"fps=2 needs the time .* `video_metadata`"),
        (GREY, {"fps": 0, "num_frames": 2, "video_metadata": TOLD}, ValueError, "fps must be greater than 0"),
        ("none.mp4", {}, FileNotFoundError, "none.mp4"),
        (3, {}, TypeError, "but got int"),
    ],
)
def test_what_does_not_fit_is_refused(tiny_processor, videos, options, error, message):
    with pytest.raises(error, match=message):
        tiny_processor(videos, **options)


def test_model_and_processor_of_other_num_frames_cannot_be_saved_together(tmp_path, tiny_config, tiny_processor):
    model = VideoFocalNetForVideoClassification(tiny_config)
    other = VideoFocalNetVideoProcessor(num_frames=16)
    model.save_pretrained(tmp_path / "model_first")
    with pytest.raises(ValueError, match="num_frames=4, but num_frames=16"):
        other.save_pretrained(tmp_path / "model_first")
    other.save_pretrained(tmp_path / "processor_first")
    with pytest.raises(ValueError, match="num_frames=16, but num_frames=4"):
        model.save_pretrained(tmp_path / "processor_first")


def test_the_sampled_frames_are_those_of_the_rule(video_files):
    steps = ("do_resize", "do_center_crop", "do_rescale", "do_normalize")
    processor = VideoFocalNetVideoProcessor(**dict.fromkeys(steps, False))
    clip = processor(video_files["h264_b_frames.mp4"], return_tensors="pt")["pixel_values"][0]
    numbers = [read_number(frame.permute(1, 2, 0).numpy()) for frame in clip]
    assert numbers == evaluation_indices(60, num_frames=8, frame_interval=4).tolist()


# which frames of an array are taken


@pytest.mark.parametrize("do_sample_frames", [None, True, False])
@pytest.mark.parametrize("kind", ["array", "tensor", "list", "batch"])
def test_a_clip_of_num_frames_frames_is_taken_as_it_is(tiny_processor, kind, do_sample_frames):
    frames = NOISE[:4]
    videos = {"array": frames, "tensor": torch.from_numpy(frames), "list": list(frames), "batch": frames[None]}
    options = {} if do_sample_frames is None else {"do_sample_frames": do_sample_frames}
    images = VideoFocalNetImageProcessor(size=tiny_processor.size, crop_size=tiny_processor.crop_size)
    found = tiny_processor(videos[kind], return_tensors="pt", **options)["pixel_values"]
    torch.testing.assert_close(found, images(list(frames), return_tensors="pt")["pixel_values"])


def test_a_file_of_num_frames_frames_is_sampled_by_the_published_rule(tmp_path):
    path = write_video(tmp_path / "eight.mp4", num_frames=8)
    metadata = VideoFocalNetVideoProcessor()(path, return_metadata=True)["video_metadata"][0]
    assert metadata.frames_indices.tolist() == [0, 0, 1, 2, 2, 3, 4, 4]


# what the numbers of an array stand for


@pytest.mark.parametrize(
    "convert",
    [
        lambda bytes: bytes.astype(np.float32) / 255,
        lambda bytes: bytes / 255,
        lambda bytes: bytes.astype(np.float32),
        lambda bytes: bytes.astype(np.int64),
        lambda bytes: bytes.astype(np.uint16),
        lambda bytes: torch.from_numpy(bytes) / 255,
    ],
    ids=["float32 to 1", "float64 to 1", "float32 to 255", "int64", "uint16", "tensor to 1"],
)
def test_values_of_any_dtype_are_read_by_their_range(tiny_processor, convert):
    images = VideoFocalNetImageProcessor(size=tiny_processor.size, crop_size=tiny_processor.crop_size)
    for processor, bytes, converted in (
        (tiny_processor, NOISE, convert(NOISE)),
        (images, list(NOISE), list(convert(NOISE))),
    ):
        # floats are not rounded to whole numbers when they are resized
        difference = (pixels(processor, bytes) - pixels(processor, converted)).abs().max()
        assert difference <= 1.01 / 255 / STD.min()


@pytest.mark.parametrize(
    "frames, values",
    [
        (NOISE.astype(np.uint16) * 4, "0 to 1020"),
        (NOISE.astype(np.float32) * 257, "0 to 65535"),
        ((NOISE - MEAN * 255) / (STD * 255), "-2.1179 to 2.64"),
        (np.full_like(NOISE, np.nan, np.float32), "nan to nan"),
    ],
    ids=["10 bits", "16 bits", "normalised", "not a number"],
)
def test_values_out_of_range_are_refused(tiny_processor, frames, values):
    images = VideoFocalNetImageProcessor(size=tiny_processor.size, crop_size=tiny_processor.crop_size)
    for processor, videos in ((tiny_processor, frames), (images, list(frames))):
        with pytest.raises(ValueError, match=rf"must be in \[0, 255\].* but these range from {values}"):
            processor(videos)


@pytest.mark.parametrize("mode, dtype", [("I;16", np.uint16), ("I", np.int32), ("F", np.float32)])
def test_pictures_of_more_than_8_bits_are_not_clipped(tiny_processor, mode, dtype):
    images = VideoFocalNetImageProcessor(size=tiny_processor.size, crop_size=tiny_processor.crop_size)
    grey = NOISE[:4, ..., 0]
    for processor in (tiny_processor, images):
        same, deep = ([PIL.Image.fromarray(frame.astype(dtype) * factor) for frame in grey] for factor in (1, 257))
        assert {picture.mode for picture in deep} == {mode}
        difference = pixels(processor, same) - pixels(processor, list(grey[..., None].repeat(3, -1)))
        assert difference.abs().max() <= 1.01 / 255 / STD.min()
        with pytest.raises(ValueError, match=r"must be in \[0, 255\].* 0 to 65535"):
            processor(deep)


@pytest.mark.parametrize("sandbox", [False, True])
def test_a_video_shorter_than_a_clip_is_said_to_be(tmp_path, tiny_processor, sandbox):
    path = write_video(tmp_path / "short.mp4", num_frames=3)
    with pytest.warns(UserWarning, match="short.mp4: has 3 frames, fewer than the 4 of a clip; frames are repeated"):
        _, info = read_video(path, tiny_processor.sample_frames, limits=VideoLimits(sandbox=sandbox))
    assert info.remarks == [f"{path}: has 3 frames, fewer than the 4 of a clip; frames are repeated"]


# transparency


def transparent_frames() -> tuple[np.ndarray, np.ndarray]:
    """RGBA frames of each degree of transparency, and what PIL makes of them on white."""
    rgba = np.concatenate([NOISE, np.random.default_rng(1).integers(0, 256, (9, 40, 50, 1), dtype=np.uint8)], -1)
    rgba[:, :10, :, 3], rgba[:, 10:20, :, 3] = 0, 255
    pictures = [PIL.Image.fromarray(frame, "RGBA") for frame in rgba]
    white = [PIL.Image.alpha_composite(PIL.Image.new("RGBA", one.size, (255,) * 4), one) for one in pictures]
    return rgba, np.stack([np.array(one.convert("RGB")) for one in white])


@pytest.mark.parametrize(
    "convert",
    [
        lambda rgba: rgba,
        lambda rgba: torch.from_numpy(rgba),
        lambda rgba: rgba / 255,
        lambda rgba: [PIL.Image.fromarray(frame, "RGBA") for frame in rgba],
    ],
    ids=["array", "tensor", "floats", "pictures"],
)
def test_transparent_pixels_are_laid_on_white(tiny_processor, convert):
    rgba, rgb = transparent_frames()
    images = VideoFocalNetImageProcessor(size=tiny_processor.size, crop_size=tiny_processor.crop_size)
    for processor, videos, expected in (
        (tiny_processor, convert(rgba), rgb),
        (images, list(convert(rgba)), list(rgb)),
    ):
        # a step of 255 where they round differently, on top of what resizing rounds
        assert (pixels(processor, videos) - pixels(processor, expected)).abs().max() <= 1.51 / 255 / STD.min()


def test_a_palette_with_a_transparent_colour_is_laid_on_white(tiny_processor):
    picture = PIL.Image.new("P", (50, 40), 1)
    picture.putpalette([255, 0, 0, 0, 255, 0])
    picture.info["transparency"] = 1
    assert torch.equal(pixels(tiny_processor, [picture] * 4), pixels(tiny_processor, np.full_like(NOISE[:4], 255)))


# what is told of an array


def test_metadata_of_an_array_comes_back_with_the_frames_that_were_taken(tiny_processor):
    told = {"fps": 8.0, "total_num_frames": 9, "duration": 1.125}
    for video_metadata in (told, [told], [[told]]):
        found = tiny_processor(NOISE, video_metadata=video_metadata, return_metadata=True)["video_metadata"][0]
        assert (found.fps, found.duration) == (8.0, 1.125)
        assert found.frames_indices.tolist() == evaluation_indices(9, num_frames=4).tolist()


def test_clips_at_a_frame_rate_are_the_middle_of_a_video_or_spread_over_it(tmp_path):
    VideoFocalNetVideoProcessor(num_frames=3, fps=4, do_resize=False, do_center_crop=False).save_pretrained(tmp_path)
    processor = VideoFocalNetVideoProcessor.from_pretrained(tmp_path)

    def shown(**options) -> list[int]:
        told = {"fps": 8.0, "total_num_frames": 9}
        found = processor(NOISE, video_metadata=told, return_metadata=True, **options)["video_metadata"][0]
        return found.frames_indices.tolist()

    assert shown() == [2, 4, 6]
    assert shown(fps=8) == [3, 4, 5]
    assert shown(num_clips=2) == [1, 3, 5, 3, 5, 7]
    assert shown(fps=None) == evaluation_indices(9, num_frames=3).tolist()


def test_frames_taken_from_a_longer_video_keep_their_numbers_and_its_rate(tiny_processor):
    told = {"fps": 8.0, "total_num_frames": 90, "frames_indices": range(0, 90, 10)}
    for options, expected in (
        ({}, [10 * index for index in evaluation_indices(9, num_frames=4)]),
        ({"fps": 0.4}, [10, 30, 50, 70]),  # 2.5 s apart
        ({"num_frames": 2}, [10 * index for index in evaluation_indices(9, num_frames=2)]),
    ):
        found = tiny_processor(NOISE, video_metadata=told, return_metadata=True, **options)["video_metadata"][0]
        assert found.frames_indices.tolist() == expected


@pytest.mark.parametrize(
    "videos, told, message",
    [
        (NOISE, {"total_num_frames": 8}, "describes 8 frames, but the video has 9"),
        (NOISE, [{"total_num_frames": 9}] * 2, "1 videos but 2 `video_metadata` entries"),
        ("a.mp4", {"total_num_frames": 9}, "a file has its own metadata"),
    ],
)
def test_metadata_that_does_not_fit_is_refused(tiny_processor, videos, told, message):
    with pytest.raises(ValueError, match=message):
        tiny_processor(videos, video_metadata=told)
