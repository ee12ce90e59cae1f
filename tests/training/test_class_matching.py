import copy

import datasets
import numpy as np
import pytest
import torch
from small_trainings import arguments, labelled, new_model

from hf_dvflnet import (
    DistillationConfig,
    DistillationTrainer,
    VideoClassificationTrainer,
    VideoClipDataset,
    VideoFocalNetForVideoClassification,
    VideoTrainingArguments,
    cache_teacher,
    load_video_folder,
)
from hf_dvflnet.data.label_sets import match_classes
from hf_dvflnet.inference.evaluation import compute_figures, predict_clips
from hf_dvflnet.training.labels import with_labels_of


@pytest.fixture
def rows(motion_tree):
    return load_video_folder(motion_tree)["train"]


def motion_model(config, names, **changes) -> VideoFocalNetForVideoClassification:
    return new_model(labelled(config, list(names), **changes), seed=0)


def train(folder, model, clips, **changes):
    args = VideoTrainingArguments(**arguments(folder, **{"max_steps": 1, **changes}))
    trainer = VideoClassificationTrainer(model, args, train_dataset=clips, eval_dataset=clips)
    trainer.train()
    return trainer


# names


@pytest.mark.parametrize(
    ("names", "others", "message"),
    [
        (["a", "b"], ["a", "c"], "only the data has 'b', only the model 'c'"),
        (["a", "b"], ["a"], "the data has 2 and the model 1; only the data has 'b', only the model none"),
        (["a", "b"], ["b", "a", "b"], "the model has more than one class named 'b'"),
        (["a", "a"], ["b", "a"], "the data has more than one class named 'a'"),
    ],
)
def test_names_that_cannot_be_matched_are_refused(names, others, message):
    with pytest.raises(ValueError, match=message):
        match_classes(names, others, of=("data", "model"))


# training


def test_a_model_of_another_order_trains_on_its_own_ids(tmp_path, tiny_config, tiny_processor, rows):
    clips = VideoClipDataset(rows, tiny_processor, train=True)
    names = rows.features["label"].names
    seen = []

    class Noting(VideoFocalNetForVideoClassification):
        def forward(self, pixel_values, labels=None, **kwargs):
            seen.extend(labels.tolist())
            return super().forward(pixel_values, labels, **kwargs)

    model = Noting(labelled(tiny_config, names[::-1]))
    train(tmp_path, model, clips, num_train_epochs=1, max_steps=-1)
    assert sorted(seen) == sorted(names[::-1].index(names[label]) for label in rows["label"]) and len(set(seen)) == 16


def test_trainer_evaluation_and_figures_agree_whatever_the_order(tmp_path, tiny_config, tiny_processor, rows):
    names = rows.features["label"].names
    order = np.random.default_rng(0).permutation(16)
    clips = VideoClipDataset(rows, tiny_processor)
    for listed in (names, [names[index] for index in order]):
        model = motion_model(tiny_config, listed)
        torch.nn.init.normal_(model.classifier.weight, std=1.0)
        seen = []

        def count(prediction, seen=seen):
            seen.append(prediction.label_ids.tolist())
            return {"right": float((prediction.predictions.argmax(-1) == prediction.label_ids).mean())}

        args = VideoTrainingArguments(**arguments(tmp_path))
        trainer = VideoClassificationTrainer(model, args, eval_dataset=clips, compute_metrics=count)
        figures = compute_figures(predict_clips(model, tiny_processor, rows)[0], names)
        assert trainer.evaluate()["eval_right"] == pytest.approx(figures["top1"])
        assert trainer.evaluate(clips)["eval_right"] == pytest.approx(figures["top1"])
        assert trainer.predict(clips).metrics["test_right"] == pytest.approx(figures["top1"])
        assert seen[0] == seen[1] == seen[2] == [listed.index(names[label]) for label in rows["label"]]


def test_one_set_of_clips_serves_models_of_several_orders(tmp_path, tiny_config, tiny_processor, rows):
    clips = VideoClipDataset(rows, tiny_processor)
    names = rows.features["label"].names
    turned = with_labels_of(motion_model(tiny_config, names[::-1]), clips)
    assert with_labels_of(motion_model(tiny_config, names), clips) is clips
    assert (clips[0]["labels"], turned[0]["labels"]) == (0, 15)
    assert with_labels_of(motion_model(tiny_config, names), turned)[0]["labels"] == 0


@pytest.mark.parametrize("trainer", [VideoClassificationTrainer, DistillationTrainer])
def test_other_names_are_refused_before_training(tmp_path, tiny_config, tiny_processor, rows, trainer):
    clips = VideoClipDataset(rows, tiny_processor, train=True)
    names = ["cat", *rows.features["label"].names[1:]]
    model = motion_model(tiny_config, names)
    extra = {"teacher_model": model} if trainer is DistillationTrainer else {}
    with pytest.raises(ValueError, match="only the data has 'move_000', only the model 'cat'"):
        trainer(model, DistillationConfig(**arguments(tmp_path)), train_dataset=clips, **extra)


def test_fewer_outputs_than_classes_are_refused(tmp_path, tiny_config, tiny_processor, rows):
    with pytest.raises(ValueError, match="the model has 6 outputs, but the data has 16 classes; .* num_labels=16"):
        train(tmp_path, new_model(tiny_config, 0), VideoClipDataset(rows, tiny_processor))


def test_a_data_set_whose_labels_cannot_be_translated_is_refused(tiny_config):
    features = datasets.Features({"labels": datasets.ClassLabel(names=list("abcdef"))})
    table = datasets.Dataset.from_dict({"labels": [0, 1]}, features=features)
    with pytest.raises(ValueError, match="'a' is class 0 of the data, but class 5 of the model"):
        with_labels_of(motion_model(tiny_config, "fedcba"), table)
    transformed = table.with_transform(lambda batch: batch)  # which may translate them
    assert with_labels_of(motion_model(tiny_config, "fedcba"), transformed) is transformed


# distillation


def test_teacher_and_labels_are_both_in_the_students_order(tmp_path, tiny_config, tiny_processor, rows):
    names = rows.features["label"].names
    teacher, student = motion_model(tiny_config, names), motion_model(tiny_config, names[::-1])
    torch.nn.init.normal_(teacher.classifier.weight, std=1.0)
    student.load_state_dict(teacher.state_dict())
    with torch.no_grad():  # the same network, its outputs in the other order
        student.classifier.weight.copy_(teacher.classifier.weight.flip(0))
    args = DistillationConfig(**arguments(tmp_path, logging_steps=1, max_steps=1, learning_rate=0.0))
    clips = VideoClipDataset(rows, tiny_processor, train=True)
    logged = {}
    for name, model in (("teacher's order", teacher), ("another", student)):
        trainer = DistillationTrainer(copy.deepcopy(model), args, teacher_model=teacher, train_dataset=clips)
        trainer.train()
        logged[name] = next(entry for entry in trainer.state.log_history if "loss" in entry)
        assert logged[name]["agreement"] == 1 and logged[name]["loss_kl"] == pytest.approx(0, abs=1e-5)
    assert logged["another"]["loss_ce"] == pytest.approx(logged["teacher's order"]["loss_ce"], rel=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda names: ["cat", *names[1:]], "only the data has 'move_000', only the teacher 'cat'. Choose a teacher"),
        (lambda names: [f"LABEL_{index}" for index in range(16)], "the teacher's classes have no names .'LABEL_0'"),
    ],
)
def test_a_cache_of_a_teacher_of_other_classes_is_refused(
    tmp_path, tiny_config, tiny_processor, rows, change, message
):
    clips = VideoClipDataset(rows, tiny_processor, train=True)
    teacher = motion_model(tiny_config, change(rows.features["label"].names))
    with pytest.raises(ValueError, match=message):
        cache_teacher(teacher, clips, tmp_path / "cache", views=1)
    assert not (tmp_path / "cache").exists()
