import shutil

import pytest
import torch

from hf_dvflnet import ClipAugmentation, VideoClipDataset, load_video_folder


@pytest.fixture
def video_tree(tmp_path, video_files):
    """Two classes, one of whose names holds a space, in three splits and four kinds of files."""
    files = iter(["vp9.webm", "xvid.avi", "h264.mkv", "h264_short_gop.mp4"] * 3)
    for split in ("train", "val", "test"):
        for name, count in (("wave hands", 3), ("jump", 1)):
            folder = tmp_path / "tree" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                source = video_files[next(files)]
                shutil.copy(source, folder / f"{number}{source.suffix}")
    return tmp_path / "tree"


def test_class_folders_become_splits_with_labels(video_tree):
    data = load_video_folder(video_tree)
    assert list(data) == ["train", "validation", "test"]
    assert data["train"].features["label"].names == ["jump", "wave hands"]
    assert data["train"]["label"] == [0, 1, 1, 1]
    assert data["test"][1]["video_id"].startswith("wave hands/0.")
    assert data["train"][0]["video"] == {"path": str(video_tree / "train" / "jump" / "0.mp4"), "bytes": None}


@pytest.mark.parametrize(
    "spoil, error, message",
    [
        (lambda tree: shutil.rmtree(tree / "train"), FileNotFoundError, "has no folder `train`"),
        (lambda tree: shutil.rmtree(tree), FileNotFoundError, "there is no such folder"),
        (lambda tree: (tree / "test" / "swim").mkdir(), ValueError, "swim: is no class of the training split"),
        (lambda tree: (tree / "train" / "swim").mkdir(), ValueError, "swim: holds no videos"),
        (lambda tree: [shutil.rmtree(p) for p in (tree / "train").iterdir()], ValueError, "has no class folders"),
    ],
)
def test_a_tree_that_does_not_fit_is_refused(video_tree, spoil, error, message):
    spoil(video_tree)
    with pytest.raises(error, match=message):
        load_video_folder(video_tree)


def test_evaluation_clips_are_the_processors(video_tree, tiny_processor):
    rows = load_video_folder(video_tree)["train"]
    item = VideoClipDataset(rows, tiny_processor)[2]
    expected = tiny_processor(rows[2]["video"]["path"], return_tensors="pt")["pixel_values"][0]
    assert item["labels"] == 1 and torch.equal(item["pixel_values"], expected)


def test_training_draws_depend_on_seed_epoch_and_clip_and_on_nothing_else(video_tree, tiny_processor):
    rows = load_video_folder(video_tree)["train"]

    def clip(seed=0, epoch=0, index=0):
        dataset = VideoClipDataset(rows, tiny_processor, train=True, seed=seed)
        dataset.set_epoch(epoch)
        return dataset[index]["pixel_values"]

    assert torch.equal(clip(), clip())
    assert not torch.equal(clip(), clip(seed=1))
    assert not torch.equal(clip(), clip(epoch=1))


def test_augmented_clips_are_normalised_and_of_the_crops_size(video_tree, tiny_processor):
    rows = load_video_folder(video_tree)["train"]
    whole = ClipAugmentation(area=(1.0, 1.0), aspect=(1e-3, 1e3), flip=0.0, jitter=0.0, grayscale=0.0)
    item = VideoClipDataset(rows, tiny_processor, train=True, augmentation=whole)[0]
    plain = VideoClipDataset(rows, tiny_processor, train=True)[0]
    assert item["pixel_values"].shape == plain["pixel_values"].shape == (4, 3, 32, 32)
    assert item["pixel_values"].mean() == pytest.approx(plain["pixel_values"].mean().item(), abs=0.3)


@pytest.mark.parametrize("augmentation", [None, ClipAugmentation()])
def test_workers_give_the_same_clips_as_the_main_process(video_tree, tiny_processor, augmentation):
    rows = load_video_folder(video_tree)["train"]
    dataset = VideoClipDataset(rows, tiny_processor, train=True, seed=3, augmentation=augmentation)
    dataset.set_epoch(2)
    batches = [
        next(iter(torch.utils.data.DataLoader(dataset, batch_size=4, num_workers=workers)))["pixel_values"]
        for workers in (0, 2)
    ]
    assert torch.equal(*batches)


def test_a_broken_clip_is_named(video_tree, tiny_processor):
    dataset = VideoClipDataset(load_video_folder(video_tree)["train"], tiny_processor)
    (video_tree / "train" / "jump" / "0.mp4").write_bytes(b"broken")
    with pytest.raises(ValueError, match="jump/0.mp4: cannot be opened"):
        dataset[0]
