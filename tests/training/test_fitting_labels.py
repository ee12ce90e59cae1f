"""Labels that do not fit the model are refused with their clip; those that do come as the loss takes them."""

import pytest
import torch
from small_trainings import RandomClips, arguments, new_model

from hf_dvflnet import VideoClassificationTrainer, VideoTrainingArguments
from hf_dvflnet.training.labels import fitting_labels


SINGLE, MULTI = "single_label_classification", "multi_label_classification"


@pytest.mark.parametrize(
    ("kind", "labels", "message"),
    [
        (SINGLE, [0, 6, 1], "clip b has the label 6, but the model has the classes 0 to 5"),
        (SINGLE, [0, 1, -1], "clip c has the label -1, but .*one is -100"),
        (SINGLE, [0.0, 1.0, 2.0], r"class ids, integers of shape .*got torch.float32 of shape \(3,\)"),
        (SINGLE, [[0, 1, 0, 0, 0, 1]] * 3, "got torch.int64 of shape .*multi_label_classification"),
        (SINGLE, [[0.5] * 6] * 3, "clip a has a row that sums to 3.0"),
        (MULTI, [0, 1, 2], r"labels must have the shape \(batch, 6\), got \(3,\).*single_label_classification"),
        (MULTI, [[0, 1, 0, 0, 0, 2]] * 3, r"clip a has the labels \[0, 1, 0, 0, 0, 2\]"),
        ("regression", [0.5, 0.5, 0.5], r"labels must have the shape \(batch, 6\)"),
    ],
)
def test_labels_that_do_not_fit_are_refused(kind, labels, message):
    with pytest.raises(ValueError, match=message):
        fitting_labels(torch.tensor(labels), kind, 6, ["a", "b", "c"])


@pytest.mark.parametrize(
    ("kind", "labels", "num_labels", "dtype"),
    [
        (SINGLE, [0, -100, 5], 6, torch.int64),
        (SINGLE, [[0.5, 0.5]] * 3, 2, torch.float32),
        (MULTI, [[0, 1]] * 3, 2, torch.float32),
        (MULTI, [[True, False]] * 3, 2, torch.float32),
        ("regression", [-1, 2, 3], 1, torch.float32),
        ("regression", [[1.5, 2]] * 3, 2, torch.float32),
    ],
)
def test_labels_that_fit_keep_their_values(kind, labels, num_labels, dtype):
    found = fitting_labels(torch.tensor(labels), kind, num_labels)
    assert found.dtype == dtype and found.tolist() == torch.tensor(labels).to(dtype).tolist()


@pytest.mark.parametrize("changes", [{}, {"label_smoothing_factor": 0.1}, {"mixup_alpha": 0.8}])
def test_a_class_that_the_model_lacks_stops_the_training_with_its_clip(tmp_path, tiny_config, changes):
    clips = RandomClips(4, num_labels=7)
    clips.labels = torch.tensor([0, 1, 2, 6])
    args = VideoTrainingArguments(**arguments(tmp_path, **changes))
    trainer = VideoClassificationTrainer(new_model(tiny_config, 0), args, train_dataset=clips)
    with pytest.raises(ValueError, match="has the label 6, but the model has the classes 0 to 5"):
        trainer.train()
