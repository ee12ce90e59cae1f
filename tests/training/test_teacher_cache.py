import json
import shutil
from pathlib import Path

import datasets
import pytest
import torch
from small_trainings import arguments, labelled, new_model

from hf_dvflnet import (
    ClipAugmentation,
    DistillationConfig,
    DistillationTrainer,
    VideoClipDataset,
    VideoFocalNetVideoProcessor,
    cache_teacher,
    load_video_folder,
)
from hf_dvflnet.training.teacher_cache import TeacherCache


NAMES = ["jump", "wave hands"]


@pytest.fixture
def config(tiny_config):
    return labelled(tiny_config, NAMES)


@pytest.fixture
def teacher(config):
    model = new_model(config, seed=7)
    torch.nn.init.normal_(model.classifier.weight, std=1.0)
    return model.eval()


@pytest.fixture
def clips(video_tree, tiny_processor):
    """Makes the four training clips, with other settings where these are given."""

    def make(processor=tiny_processor, rows=None, **changes):
        settings = {"train": True, "seed": 3, "augmentation": ClipAugmentation(), **changes}
        return VideoClipDataset(
            load_video_folder(video_tree)["train"] if rows is None else rows, processor, **settings
        )

    return make


@pytest.fixture
def folder(tmp_path, teacher, clips) -> Path:
    cache_teacher(teacher, clips(), tmp_path / "cache", views=2, name="the teacher", dtype="float32", batch_size=3)
    return tmp_path / "cache"


def distil(output, config, clips, cache=None, teacher=None, **changes) -> DistillationTrainer:
    options = arguments(output, **{"per_device_train_batch_size": 2, "logging_steps": 1, "max_steps": 4, **changes})
    args = DistillationConfig(**options, teacher_cache=None if cache is None else str(cache), alpha=0.5)
    return DistillationTrainer(new_model(config, seed=0), args, teacher_model=teacher, train_dataset=clips)


def losses(trainer: DistillationTrainer) -> torch.Tensor:
    trainer.train()
    return torch.tensor([[entry["loss"], entry["loss_kl"]] for entry in trainer.state.log_history if "loss" in entry])


def test_the_cache_holds_what_the_teacher_says_to_each_view(folder, teacher, clips):
    cache = TeacherCache(folder)
    assert cache.views == 2 and cache.labels == NAMES
    for index, name in enumerate(clips().dataset["video_id"]):
        for view in (0, 1):
            with torch.no_grad():
                expected = teacher(clips().draw(index, view)["pixel_values"][None]).logits[0]
            torch.testing.assert_close(cache.logits(name, view, name), expected - expected.max(), rtol=1e-5, atol=1e-6)


def test_answers_that_are_not_finite_are_refused_with_the_clip(tmp_path, teacher, clips):
    teacher.classifier.weight.data[1] = float("nan")
    with pytest.raises(ValueError, match=f"the teacher: the logits for clip {clips().dataset['video_id'][0]} are"):
        cache_teacher(teacher, clips(), tmp_path / "cache", views=1)
    teacher.classifier.weight.data[1] = 0.0  # another teacher, for which nothing stands in the way
    assert cache_teacher(teacher, clips(), tmp_path / "cache", views=1)["written"] == 4


# batches of another size sum in another order: some 1e-6 in float32
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float16", 1e-3)])
def test_cached_and_online_losses_are_equal(tmp_path, config, teacher, clips, dtype, tolerance):
    cache_teacher(teacher, clips(), tmp_path / "cache", views=2, dtype=dtype)
    online = losses(distil(tmp_path / "online", config, clips(), teacher=teacher))
    cached = losses(distil(tmp_path / "cached", config, clips(), cache=tmp_path / "cache"))
    assert len(online) == 4  # two epochs of two steps
    torch.testing.assert_close(cached, online, rtol=tolerance, atol=0)


def test_mixing_mixes_the_teachers_probabilities_like_the_labels(tmp_path, folder, config, clips):
    trainer = distil(tmp_path, config, clips(), cache=folder)
    logits = torch.randn(2, 2, generator=torch.Generator().manual_seed(0))
    shares = torch.tensor([[0.7, 0.3], [0.3, 0.7]])
    inputs = {"labels": torch.tensor([0, 1]), "teacher_logits": logits.clone()}
    trainer.mix_targets(inputs, shares, num_labels=2)
    torch.testing.assert_close(inputs["labels"], shares)
    temperature = trainer.args.temperature
    torch.testing.assert_close(
        (inputs["teacher_logits"] / temperature).softmax(-1), shares @ (logits / temperature).softmax(-1)
    )


def test_a_stopped_run_writes_only_what_is_missing(tmp_path, teacher, clips, monkeypatch):
    monkeypatch.setattr("hf_dvflnet.training.teacher_cache.ROWS_PER_FILE", 3)
    options = {"views": 2, "batch_size": 2}
    assert cache_teacher(teacher, clips(), tmp_path / "cache", **options)["written"] == 8
    parts = sorted((tmp_path / "cache").glob("*.parquet"))
    before = [part.read_bytes() for part in parts]
    parts[1].unlink()
    with pytest.raises(FileNotFoundError, match="1 of the 3 files .* are missing, such as logits-00001.parquet"):
        TeacherCache(tmp_path / "cache")
    times = [part.stat().st_mtime_ns for part in (parts[0], parts[2])]
    assert cache_teacher(teacher, clips(), tmp_path / "cache", **options)["written"] == 3
    assert times == [part.stat().st_mtime_ns for part in (parts[0], parts[2])]
    assert [part.read_bytes() for part in parts] == before


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"seed": 4}, "was written with seed 3, but training uses 4"),
        ({"augmentation": None}, "was written with augmentation {.*}, but training uses None"),
        ({"augmentation": ClipAugmentation(flip=0.0)}, "with augmentation.flip 0.5, but training uses 0.0"),
        (
            {
                "processor": VideoFocalNetVideoProcessor(
                    **{"num_frames": 4, "frame_interval": 2, "size": {"shortest_edge": 36}},
                    crop_size={"height": 32, "width": 32},
                )
            },
            "was written with sampling.frame_interval 4, but training uses 2",
        ),
    ],
)
def test_other_settings_are_refused_by_name(tmp_path, folder, config, clips, changes, reason):
    with pytest.raises(ValueError, match=reason):
        distil(tmp_path, config, clips(**changes), cache=folder)


def test_another_teacher_is_refused(tmp_path, folder, config, clips):
    with pytest.raises(ValueError, match=r"different teacher, the teacher: the digest of its weights is \w+, but"):
        distil(tmp_path, config, clips(), cache=folder, teacher=new_model(config, seed=8))


def test_another_clip_list_is_refused(tmp_path, folder, video_tree, config, clips):
    shutil.copy(video_tree / "train" / "jump" / "0.mp4", video_tree / "train" / "jump" / "9.mp4")
    with pytest.raises(ValueError, match="the cached clips differ from the training clips: jump/9.mp4 is not cached"):
        distil(tmp_path, config, clips(), cache=folder)


def test_clips_without_ids_are_found_in_the_cache_by_their_bytes(tmp_path, teacher, clips, config):
    rows = clips().dataset
    listed = []
    for row in rows:
        with open(row["video"]["path"], "rb") as file:
            listed.append({"video": {"bytes": file.read(), "path": "clip.mp4"}, "label": row["label"]})
    features = {name: feature for name, feature in rows.features.items() if name != "video_id"}
    bare = datasets.Dataset.from_list(listed, features=datasets.Features(features))
    cache_teacher(teacher, clips(rows=bare), tmp_path / "cache", views=2, dtype="float32")
    online = losses(distil(tmp_path / "online", config, clips(rows=bare), teacher=teacher))
    cached = losses(distil(tmp_path / "cached", config, clips(rows=bare), cache=tmp_path / "cache"))
    torch.testing.assert_close(cached, online, rtol=1e-4, atol=1e-5)


def test_a_clip_that_has_changed_is_refused(tmp_path, folder, video_tree, config, clips):
    with open(video_tree / "train" / "jump" / "0.mp4", "ab") as file:
        file.write(b"more")
    with pytest.raises(ValueError, match=r"jump/0.mp4 had \d+ bytes when the cache was written, and has \d+ now"):
        distil(tmp_path, config, clips(), cache=folder)


def test_another_number_of_views_does_not_go_into_the_same_folder(folder, teacher, clips):
    with pytest.raises(ValueError, match=r"contains a cache with different settings \(views, dtype\)"):
        cache_teacher(teacher, clips(), folder, views=3)


def test_a_broken_clip_is_replaced_alike_in_cache_and_training(tmp_path, video_tree, config, teacher, clips):
    sound = (video_tree / "train" / "jump" / "0.mp4").read_bytes()
    (video_tree / "train" / "jump" / "0.mp4").write_bytes(b"broken".ljust(len(sound)))
    cache_teacher(teacher, clips(on_error="replace"), tmp_path / "cache", views=1)
    trainer = distil(tmp_path, config, clips(on_error="replace"), cache=tmp_path / "cache")
    assert "jump/0.mp4" in json.loads(trainer.train_dataset[0]["broken"])
    # once it can be read again, the teacher has not seen what it shows
    (video_tree / "train" / "jump" / "0.mp4").write_bytes(sound)
    with pytest.raises(ValueError, match="view 0 of jump/0.mp4 showed wave hands/.* but shows jump/0.mp4 now"):
        trainer.train_dataset[0]


def test_the_command_writes_a_cache_that_training_takes(
    tmp_path, dvflnet, video_tree, teacher, tiny_processor, config
):
    teacher.save_pretrained(tmp_path / "teacher")
    tiny_processor.save_pretrained(tmp_path / "teacher")
    words = [str(tmp_path / "teacher"), str(tmp_path / "cache"), "--dataset", "folder", "--data-dir", str(video_tree)]
    result = dvflnet("cache-teacher", *words, "--views", "2", "--seed", "5", "--num-workers", "0")
    assert result[0] == 0, result[2]
    assert "4 clips x 2 views: 2 logits" in result[2]
    shown = dict(line.split(maxsplit=1) for line in result[1].splitlines())
    assert (shown["rows"], shown["written"]) == ("8", "8")
    again = dvflnet("cache-teacher", *words, "--views", "2", "--seed", "5", "--num-workers", "0", "--json")
    assert json.loads(again[1])["written"] == 0
    rows = load_video_folder(video_tree)["train"]
    shown = VideoClipDataset(
        rows, tiny_processor, train=True, seed=5, augmentation=ClipAugmentation(), on_error="replace"
    )
    teacher_again = type(teacher).from_pretrained(tmp_path / "teacher")
    assert losses(distil(tmp_path, config, shown, cache=tmp_path / "cache", teacher=teacher_again)).isfinite().all()


PART = "logits-00000.parquet"


@pytest.mark.parametrize(
    ("name", "damage", "advice"),
    [
        (PART, lambda content: content[:-50], "delete it and run"),
        (PART, lambda content: content[:30] + bytes([255] * 80) + content[110:], "delete it and run"),
        *(
            ("teacher_cache.json", lambda content, new=new: new, "write the cache again")
            for new in (b"[]", b"{}", b'{"views":', b'{"views": "a", "labels": [], "clips": {"number": 4}}')
        ),
    ],
    ids=["cut", "turned bits", "list", "empty", "cut description", "other types"],
)
def test_a_damaged_cache_is_refused_by_the_name_of_its_file(folder, name, damage, advice):
    (folder / name).write_bytes(damage((folder / name).read_bytes()))
    with pytest.raises(ValueError, match=rf"cache/{name}: is damaged \(.+\); {advice}"):
        TeacherCache(folder)
