"""Which models can teach which, and what is said of the others."""

import copy

import pytest
import torch
from small_trainings import RandomClips, arguments, labelled, new_model

from hf_dvflnet import DistillationConfig, DistillationTrainer, VideoFocalNetConfig, VideoFocalNetModel


def distillation(folder, student, teacher, **options) -> DistillationTrainer:
    args = DistillationConfig(**arguments(folder, max_steps=1))
    return DistillationTrainer(student, args, teacher_model=teacher, train_dataset=RandomClips(4), **options)


def with_config(config: VideoFocalNetConfig, **changes) -> VideoFocalNetConfig:
    kept = {name: value for name, value in config.to_dict().items() if name not in ("id2label", "label2id")}
    return VideoFocalNetConfig(**{**kept, **changes})


@pytest.mark.parametrize("role", ["student", "teacher"])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_labels": 1, "problem_type": "regression"}, "num_labels=1 and the problem_type 'regression'"),
        ({"problem_type": "multi_label_classification"}, "problem_type 'multi_label_classification'"),
    ],
)
def test_models_of_other_than_one_label_per_clip_are_refused(tmp_path, tiny_config, role, changes, message):
    models = {"student": new_model(tiny_config, 0), "teacher": new_model(tiny_config, 1)}
    models[role] = new_model(with_config(tiny_config, **{"num_labels": 6, **changes}), 0)
    with pytest.raises(ValueError, match=f"distillation needs one label per clip, but the {role} has .*{message}"):
        distillation(tmp_path, **models)


def test_a_teacher_that_is_no_model_of_transformers_is_refused(tmp_path, tiny_config):
    with pytest.raises(ValueError, match="the teacher must be a video classifier of transformers .*, got Linear"):
        distillation(tmp_path, new_model(tiny_config, 0), torch.nn.Linear(2, 2))


def test_a_student_does_not_teach_itself(tmp_path, tiny_config):
    student = new_model(tiny_config, 0)
    with pytest.raises(ValueError, match="teacher and student share .* parameters, such as videofocalnet.*deepcopy"):
        distillation(tmp_path, student, student)
    assert all(weight.requires_grad for weight in student.parameters())
    distillation(tmp_path, student, copy.deepcopy(student))


def test_a_teacher_that_shares_a_dropout_is_refused(tmp_path, tiny_config):
    student, teacher = new_model(tiny_config, 0), new_model(tiny_config, 1)
    student.dropout = teacher.dropout = torch.nn.Dropout(0.5)
    with pytest.raises(ValueError, match="teacher and student share 1 modules, such as dropout"):
        distillation(tmp_path, student, teacher)


@pytest.mark.parametrize("role", ["student", "teacher"])
def test_a_model_without_a_head_is_named(tmp_path, tiny_config, role):
    models = {"student": new_model(tiny_config, 0), "teacher": new_model(tiny_config, 1)}
    models[role] = VideoFocalNetModel(labelled(tiny_config, list(tiny_config.id2label.values())))
    with pytest.raises(ValueError, match=f"the {role} gives no logits .VideoFocalNetModelOutput.; .*with a head"):
        distillation(tmp_path, **models).train()


def test_a_model_whose_logits_are_not_those_of_clips_is_named(tmp_path, tiny_config):
    class OfEachFrame(type(new_model(tiny_config, 0))):
        def forward(self, pixel_values, **kwargs):
            outputs = super().forward(pixel_values, **kwargs)
            outputs.logits = outputs.logits[:, None].expand(-1, 4, -1)
            return outputs

    with pytest.raises(ValueError, match=r"the teacher gives logits of shape \(4, 4, 6\) .*shape \(batch, 6\)"):
        distillation(tmp_path, new_model(tiny_config, 0), OfEachFrame(tiny_config)).train()
