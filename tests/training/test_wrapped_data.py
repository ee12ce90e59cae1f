"""Data sets of clips in `Subset`, `ConcatDataset` and other wrappers are trained on as without them."""

import json
import shutil
from pathlib import Path

import datasets
import pytest
import torch
from small_trainings import arguments, labelled, new_model
from torch.utils.data import ConcatDataset, Subset, random_split
from transformers import Trainer, TrainingArguments

from hf_dvflnet import (
    VideoClassificationTrainer,
    VideoClipDataset,
    VideoTrainingArguments,
    load_video_folder,
)
from hf_dvflnet.training.labels import with_labels_of


class Wrapped:
    """A wrapper of one's own, which holds the clips in a list and drops what it does not know."""

    def __init__(self, clips):
        self.parts = {"all": [clips]}

    def __len__(self):
        return len(self.parts["all"][0])

    def __getitem__(self, index):
        return dict(self.parts["all"][0][index])


WRAPPERS = {
    "none": lambda clips: clips,
    "Subset": lambda clips: Subset(clips, range(len(clips))),
    "random_split": lambda clips: random_split(clips, [1.0], torch.Generator().manual_seed(0))[0],
    "ConcatDataset": lambda clips: ConcatDataset([Subset(clips, [0, 1]), Subset(clips, [2, 3])]),
    "of one's own": lambda clips: Wrapped(Subset(clips, range(len(clips)))),
}


def trainer_on(folder: Path, config, train, plain: bool = False, **changes) -> VideoClassificationTrainer:
    kind = TrainingArguments if plain else VideoTrainingArguments
    options = {"max_steps": -1, "num_train_epochs": 3, "logging_steps": 1, **changes}
    args = kind(**arguments(folder, **options))
    return VideoClassificationTrainer(new_model(config, 0), args, train_dataset=train)


@pytest.fixture
def two_classes(tiny_config):
    return labelled(tiny_config, ["jump", "wave hands"])


# with VideoTrainingArguments and with plain TrainingArguments
KINDS = [(wrap, number % 2 == 1) for number, wrap in enumerate(WRAPPERS)]


@pytest.mark.parametrize(("wrap", "plain"), KINDS)
def test_each_epoch_draws_anew(video_tree, tmp_path, two_classes, tiny_processor, wrap, plain):
    epochs = []

    class Noting(VideoClipDataset):
        def draw(self, index, epoch):
            epochs.append(epoch)
            return super().draw(index, epoch)

    clips = Noting(load_video_folder(video_tree)["train"], tiny_processor, train=True)
    trainer_on(tmp_path, two_classes, WRAPPERS[wrap](clips), plain).train()
    assert epochs == [0] * 4 + [1] * 4 + [2] * 4


@pytest.mark.parametrize(("wrap", "plain"), KINDS[1:])
def test_unreadable_clips_are_counted_and_limited(video_tree, tmp_path, two_classes, tiny_processor, wrap, plain):
    rows = load_video_folder(video_tree)["train"]
    (video_tree / "train" / "jump" / "0.mp4").write_bytes(b"broken")
    clips = VideoClipDataset(rows, tiny_processor, train=True, on_error="replace")
    options = {} if plain else {"max_broken_share": 0.5, "remove_unused_columns": True}
    trainer = trainer_on(tmp_path / "run", two_classes, WRAPPERS[wrap](clips), plain, **options)
    if plain:
        with pytest.raises(RuntimeError, match="1 of 4 training clips cannot be read, more than"):
            trainer.train()
    else:
        trainer.train()
        assert [row["broken_clips"] for row in trainer.state.log_history if "loss" in row] == [1, 1, 1]
    listed = (tmp_path / "run" / "broken_clips.jsonl").read_text().splitlines()
    assert [json.loads(line)["clip"] for line in listed] == ["jump/0.mp4"]


def test_a_wrapper_that_hides_the_epoch_from_the_stock_trainer_is_told(
    video_tree, tmp_path, two_classes, tiny_processor, logs
):
    clips = VideoClipDataset(load_video_folder(video_tree)["train"], tiny_processor, train=True)
    args = TrainingArguments(**arguments(tmp_path, max_steps=3, remove_unused_columns=False))
    Trainer(new_model(two_classes, 0), args, train_dataset=clips).train()
    assert "set_epoch" not in logs.text
    clips = VideoClipDataset(load_video_folder(video_tree)["train"], tiny_processor, train=True)
    Trainer(new_model(two_classes, 0), args, train_dataset=Subset(clips, range(4))).train()
    assert logs.text.count("`set_epoch` has not been called: each epoch shows the same frames") == 1


# other lists of classes


@pytest.fixture
def other_rows(video_tree, tmp_path) -> datasets.Dataset:
    """Clips of the classes `swim` and `wave hands`, with the ids 0 and 1."""
    shutil.copytree(video_tree / "train", tmp_path / "other" / "train")
    (tmp_path / "other" / "train" / "jump").rename(tmp_path / "other" / "train" / "swim")
    return load_video_folder(tmp_path / "other")["train"]


def test_the_parts_of_a_sum_are_translated_each_by_its_names(video_tree, tiny_config, tiny_processor, other_rows):
    parts = [VideoClipDataset(rows, tiny_processor) for rows in (load_video_folder(video_tree)["train"], other_rows)]
    names = ["wave hands", "swim", "jump"]
    model = new_model(labelled(tiny_config, names), 0)
    both = ConcatDataset([parts[0], Subset(parts[1], range(4))])
    translated = with_labels_of(model, both)
    assert [names[item["labels"]] for item in translated] == ["jump", *["wave hands"] * 3, "swim", *["wave hands"] * 3]
    assert [item["labels"] for item in both] == [0, 1, 1, 1] * 2  # as another model may need them
    assert with_labels_of(model, translated) is translated


def test_a_sum_of_other_classes_needs_a_model_with_names(video_tree, tiny_config, tiny_processor, other_rows):
    parts = [VideoClipDataset(rows, tiny_processor) for rows in (load_video_folder(video_tree)["train"], other_rows)]
    with pytest.raises(ValueError, match="different classes, 'jump', 'wave hands' and 'swim'"):
        with_labels_of(new_model(tiny_config, 0), ConcatDataset(parts))
    rows = [part.dataset for part in parts]
    model = new_model(labelled(tiny_config, ["jump", "wave hands", "swim"]), 0)
    with pytest.raises(ValueError, match="the data's classes in a different order: 'swim' is class 0 of the data"):
        with_labels_of(model, ConcatDataset(rows))
