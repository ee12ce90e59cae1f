"""Distillation that also matches the pooled features or the modulators of student and teacher."""

import pytest
import torch
from safetensors.torch import load_file
from small_trainings import NAMES, RandomClips, arguments, labelled, logged, new_model
from transformers import TrainerCallback, VideoMAEConfig, VideoMAEForVideoClassification

from hf_dvflnet import (
    ClipAugmentation,
    DistillationConfig,
    DistillationTrainer,
    FrameModelForVideoClassification,
    VideoClipDataset,
    VideoFocalNetVideoProcessor,
    cache_teacher,
    load_video_folder,
)
from hf_dvflnet.hub.loaded_models import head_of
from hf_dvflnet.training.distillation import FeatureProjection
from hf_dvflnet.training.losses import MatchedModulators, feature_distance, modulator_distance
from hf_dvflnet.training.teacher_cache import TeacherCache


FEATURES, MODULATORS = {"feature_weight": 2.0}, {"modulator_weight": 2.0}


@pytest.fixture
def teacher(config):
    """Of another width than the student, and far from uniform."""
    model = new_model(labelled(config, embed_dim=16), seed=7)
    torch.nn.init.normal_(model.classifier.weight, std=1.0)
    return model.eval()


def trainer_of(folder, config, teacher, clips, **changes) -> DistillationTrainer:
    args = DistillationConfig(**arguments(folder, **{"logging_steps": 1, **changes}))
    return DistillationTrainer(new_model(config, seed=0), args, teacher_model=teacher, train_dataset=clips)


def trained(*args, **changes) -> DistillationTrainer:
    trainer = trainer_of(*args, **changes)
    trainer.train()
    return trainer


def weights(trainer: DistillationTrainer) -> dict[str, torch.Tensor]:
    projection = {f"projection.{name}": weight for name, weight in trainer._projection.layer.state_dict().items()}
    return {**trainer.model.state_dict(), **projection}


def added_loss(folder, config, teacher, **matched) -> tuple[torch.Tensor, DistillationTrainer, torch.Tensor]:
    """What matching adds to the loss of four clips, the trainer that matches, and the clips."""
    batch, losses = RandomClips(4).batch(), []
    for changes in ({}, matched):
        trainer = trainer_of(folder, config, teacher, RandomClips(4), **changes)
        if "feature_weight" in changes:
            trainer._projection.attach()
        losses.append(trainer.compute_loss(trainer.model.train(), batch))
    return losses[1] - losses[0], trainer, batch["pixel_values"]


# the distances


def test_the_distance_of_features_is_its_definition():
    ours, theirs = torch.randn(2, 8, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    cosines = (ours * theirs).sum(-1) / (ours.square().sum(-1).sqrt() * theirs.square().sum(-1).sqrt())
    torch.testing.assert_close(feature_distance(ours, theirs), (1 - cosines).mean())


def modulators(*shape: int) -> torch.Tensor:
    """Two, in float64."""
    return torch.randn(2, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_the_distance_of_modulators_is_its_definition():
    ours, theirs = modulators(3, 4, 5, 6, 7)
    expected = []
    for clip in range(3):
        energies = [(each[clip] ** 2).sum(-1).flatten() for each in (ours, theirs)]
        first, second = (energy / (energy**2).sum().sqrt() for energy in energies)
        expected.append(((first - second) ** 2).sum())
    torch.testing.assert_close(modulator_distance(ours, theirs), torch.stack(expected).mean())


def test_modulators_without_a_common_position_are_two_apart():
    ours, theirs = torch.zeros(2, 1, 4, 3, 3, 5)
    ours[:, 0], theirs[:, 1] = 1.0, 7.0
    assert modulator_distance(ours, theirs).item() == pytest.approx(2)


def test_modulators_of_half_precision_are_compared_in_float32():
    ours, theirs = (300 * modulators(2, 4, 3, 3, 5)).half()  # the squares overflow in half precision
    assert modulator_distance(ours, theirs).dtype == torch.float32
    assert modulator_distance(ours, theirs) == modulator_distance(ours.float(), theirs.float())


def test_a_modulator_of_zeros_has_a_finite_gradient():
    ours = torch.zeros(1, 4, 3, 3, 5, requires_grad=True)
    modulator_distance(ours, torch.ones(1, 4, 3, 3, 5)).backward()
    assert ours.grad.isfinite().all()


@pytest.mark.parametrize("finer", ["teacher", "student"])
def test_a_grid_of_other_fineness_is_resized_to_the_students_mean_energies(finer):
    coarse = modulators(2, 2, 3, 3, 5)[0]
    fine = coarse.repeat_interleave(2, 1).repeat_interleave(4, 2).repeat_interleave(4, 3)  # the same picture
    ours, theirs = (coarse, fine) if finer == "teacher" else (fine, coarse)
    assert modulator_distance(ours, theirs).abs() < 1e-12


# which modulators are matched


class Output(dict):
    """Modulators by kind; those of stage n have the value n."""

    def __init__(self):
        stages = tuple(torch.full((1, 1, 1, 1, 1), float(stage)) for stage in (1, 2, 3, 4))
        super().__init__(spatial_modulators=stages, temporal_modulators=tuple(10 * stage for stage in stages))


@pytest.mark.parametrize(
    ("kinds", "stages", "expected"),
    [("spatial", [1, 3], [1, 9]), ("temporal", [4], [1600]), ("both", None, [1, 4, 9, 16, 100, 400, 900, 1600])],
)
def test_kinds_and_stages_are_chosen(config, teacher, kinds, stages, expected):
    found = MatchedModulators(new_model(config, 0), teacher, kinds, stages).energies(Output())
    assert [energy.item() for energy in found] == expected


# the training


def test_the_distance_of_the_pooled_features_is_added_to_the_loss(tmp_path, config, teacher):
    added, trainer, clips = added_loss(tmp_path, config, teacher, **FEATURES)
    with torch.no_grad():
        ours, theirs = trainer.model.base_model(clips).pooler_output, teacher.base_model(clips).pooler_output
        expected = 2.0 * feature_distance(trainer._projection.layer(ours), theirs)
    torch.testing.assert_close(added, expected, rtol=1e-4, atol=1e-5)


def test_the_mean_distance_of_the_modulators_is_added_to_the_loss(tmp_path, config, teacher):
    added, trainer, clips = added_loss(tmp_path, config, teacher, **MODULATORS)
    with torch.no_grad():
        ours, theirs = (model(clips, output_modulators=True) for model in (trainer.model, teacher))
    kinds = ("spatial_modulators", "temporal_modulators")
    pairs = [pair for kind in kinds for pair in zip(ours[kind], theirs[kind], strict=True)]
    expected = 2.0 * torch.stack([modulator_distance(*pair) for pair in pairs]).mean()
    assert len(pairs) == 8 and expected > 1e-3
    torch.testing.assert_close(added, expected, rtol=1e-4, atol=1e-5)


def test_the_first_projection_leaves_the_draws_of_the_training_as_they_were(teacher):
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    first, second = (FeatureProjection(teacher, 3, seed=5).layer for _ in range(2))
    assert torch.rand(1) == expected and torch.equal(first.weight, second.weight)


@pytest.mark.parametrize("changes", [{"gradient_checkpointing": True}, {"bf16": True}, {"torch_compile": True}])
def test_both_are_matched_alike_with(tmp_path, config, teacher, changes):
    if "torch_compile" in changes:
        changes = {**changes, "torch_compile_backend": "aot_eager"}
    settings = {"alpha": 0.0, "modulator_weight": 100.0, "feature_weight": 2.0, "optim": "sgd", "learning_rate": 0.1}
    plain = trained(tmp_path / "plain", config, teacher, RandomClips(8), **settings)
    other = trained(tmp_path / "other", config, teacher, RandomClips(8), **settings, **changes)
    first, *_, last = logged(plain, "loss_modulators")
    assert last < 0.98 * first  # else the gradients could be anything
    for name in ("loss_modulators", "loss_features"):
        assert logged(other, name) == pytest.approx(logged(plain, name), rel=0.01 if "bf16" in changes else 1e-4)


def test_features_are_matched_after_a_compilation_without_them(tmp_path, config, teacher):
    compiled = {"torch_compile": True, "torch_compile_backend": "eager", "max_steps": 1}
    trained(tmp_path, config, teacher, RandomClips(4), **compiled)
    expected = logged(trained(tmp_path, config, teacher, RandomClips(4), max_steps=1, **FEATURES), "loss_features")
    found = logged(trained(tmp_path, config, teacher, RandomClips(4), **FEATURES, **compiled), "loss_features")
    assert found == pytest.approx(expected, rel=1e-4)


def test_clipping_counts_the_gradients_of_the_projection(tmp_path, config, teacher):
    changes = {
        "max_steps": 1,
        "optim": "sgd",
        "learning_rate": 1.0,
        "max_grad_norm": 0.01,
        "weight_decay": 0.0,
        **FEATURES,
    }
    trainer = trained(tmp_path, config, teacher, RandomClips(4), lr_scheduler_type="constant", **changes)
    start = weights(trainer_of(tmp_path, config, teacher, RandomClips(4), **FEATURES))
    moved = torch.cat([(weight - start[name]).flatten() for name, weight in weights(trainer).items()])
    assert moved.norm().item() == pytest.approx(0.01, rel=1e-3)
    assert not torch.equal(trainer._projection.layer.weight, start["projection.weight"])


def test_a_resumed_training_ends_at_the_same_projection(tmp_path, config, teacher):
    changes = {"max_steps": 6, "save_strategy": "steps", "save_steps": 3, **FEATURES}
    whole = weights(trained(tmp_path, config, teacher, RandomClips(24), **changes))
    again = trainer_of(tmp_path / "again", config, teacher, RandomClips(24), **changes)
    torch.nn.init.zeros_(again._projection.layer.weight)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    for name, weight in weights(again).items():
        assert torch.equal(weight, whole[name]), name


class SaveAtStep(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 2:
            self.trainer.save_model(self.folder)


def test_the_saved_student_is_without_the_projection(tmp_path, config, teacher):
    trainer = trainer_of(tmp_path, config, teacher, RandomClips(8), save_strategy="steps", save_steps=3, **FEATURES)
    callback = SaveAtStep()
    callback.trainer, callback.folder = trainer, tmp_path / "during"
    trainer.add_callback(callback)
    trainer.train()
    assert "feature_projection.weight" in load_file(tmp_path / "checkpoint-3" / "model.safetensors")
    trainer.save_model(tmp_path / "after")
    for folder in ("during", "after"):
        assert set(load_file(tmp_path / folder / "model.safetensors")) == set(new_model(config, 0).state_dict())
    assert set(trainer.model.state_dict()) == set(new_model(config, 0).state_dict())


def test_a_projection_that_is_not_finite_is_not_saved(tmp_path, config, teacher):
    saving = {"max_steps": 1, "save_strategy": "steps", "save_steps": 1}
    trainer = trainer_of(tmp_path, config, teacher, RandomClips(8), **saving, **FEATURES)
    trainer._projection.layer.weight.register_hook(lambda gradient: gradient * torch.nan)
    with pytest.raises(RuntimeError, match="weights are not finite after step 1"):
        trainer.train()
    assert not (tmp_path / "checkpoint-1").exists()


# other teachers


@pytest.fixture
def image_teacher(config):
    torch.manual_seed(7)
    body = torch.nn.Sequential(torch.nn.Conv2d(3, 5, 3, stride=4), torch.nn.ReLU())
    names = {"id2label": config.id2label, "label2id": config.label2id}
    return FrameModelForVideoClassification.from_image_model(body, image_size=48, num_frames=4, **names)


def test_an_image_network_that_is_shown_clips_of_its_own_teaches_its_features(
    tmp_path, config, image_teacher, video_tree, tiny_processor
):
    rows = load_video_folder(video_tree)["train"]
    names = rows.features["label"].names
    for model_config in (config, image_teacher.config):
        model_config.id2label = dict(enumerate([*names, *NAMES[2:]]))
        model_config.label2id = {name: index for index, name in model_config.id2label.items()}
    own = VideoFocalNetVideoProcessor(
        num_frames=4, size={"shortest_edge": 54}, crop_size={"height": 48, "width": 48}, image_mean=[0.5] * 3
    )
    clips = VideoClipDataset(rows, tiny_processor, train=True, augmentation=ClipAugmentation())
    args = DistillationConfig(**arguments(tmp_path, feature_weight=1.0, logging_steps=1, mixup_alpha=0.4))
    trainer = DistillationTrainer(
        new_model(config, seed=0),
        args,
        teacher_model=image_teacher,
        teacher_processor=own,
        train_dataset=clips,
        processing_class=tiny_processor,
    )
    assert trainer._projection.layer.out_features == 10  # mean and difference of 5 features
    trainer.train()
    assert all(0 < value < 2 for value in logged(trainer, "loss_features"))


@pytest.fixture
def folder_clips(video_tree, tiny_processor):
    rows = load_video_folder(video_tree)["train"]
    return VideoClipDataset(rows, tiny_processor, train=True, seed=3, augmentation=ClipAugmentation())


@pytest.mark.parametrize("changes", [{}, {"mixup_alpha": 0.4}])
def test_cached_features_teach_like_those_of_the_teacher(tmp_path, tiny_config, folder_clips, changes):
    names = folder_clips.dataset.features["label"].names
    config, teacher = (labelled(tiny_config, names, embed_dim=width) for width in (8, 16))
    teacher = new_model(teacher, seed=7).eval()
    cache_teacher(teacher, folder_clips, tmp_path / "cache", views=2, features=True, dtype="float32")
    name = folder_clips.dataset["video_id"][0]
    assert TeacherCache(tmp_path / "cache").answers(name, 1, name)["teacher_features"].shape == (
        teacher.config.hidden_size,
    )
    online = trained(tmp_path / "a", config, teacher, folder_clips, max_steps=2, **FEATURES)
    cache = {"teacher_cache": str(tmp_path / "cache")}
    cached = trained(tmp_path / "b", config, None, folder_clips, max_steps=2, **FEATURES, **cache)
    assert logged(cached, "loss_features") == pytest.approx(logged(online, "loss_features"), rel=1e-3)


@pytest.fixture
def own_clips(config, video_tree, tiny_processor):
    """What makes the trainer give a teacher clips of its own, larger ones."""
    rows = load_video_folder(video_tree)["train"]
    large = {"size": {"shortest_edge": 72}, "crop_size": {"height": 64, "width": 64}}
    return {
        "teacher_processor": VideoFocalNetVideoProcessor(num_frames=4, **large),
        "train_dataset": VideoClipDataset(rows, tiny_processor, train=True),
        "processing_class": tiny_processor,
    }


def two_classes(config, own_clips, **changes):
    return labelled(config, own_clips["train_dataset"].dataset.features["label"].names, **changes)


def test_a_teacher_of_larger_clips_teaches_its_modulators(tmp_path, config, own_clips):
    args = DistillationConfig(**arguments(tmp_path, modulator_weight=1.0, logging_steps=1))
    large = new_model(two_classes(config, own_clips, image_size=64, embed_dim=16), seed=7)
    student = new_model(two_classes(config, own_clips), seed=0)
    trainer = DistillationTrainer(student, args, teacher_model=large, **own_clips)
    trainer.train()
    found = logged(trainer, "loss_modulators")
    assert len(found) == 3 and all(0 < value < 2 for value in found)


# bad input


def test_a_cache_without_features_is_refused(tmp_path, tiny_config, folder_clips):
    config = labelled(tiny_config, folder_clips.dataset.features["label"].names)
    cache_teacher(new_model(config, seed=7), folder_clips, tmp_path / "cache", views=1)
    with pytest.raises(ValueError, match="contains logits but no features; write the cache with .*--features"):
        trainer_of(tmp_path, config, None, folder_clips, teacher_cache=str(tmp_path / "cache"), **FEATURES)


def test_a_model_without_a_classifier_is_refused():
    with pytest.raises(ValueError, match="Linear has no `classifier`, whose input would be its pooled features"):
        head_of(torch.nn.Linear(2, 2))


def test_a_checkpoint_of_a_run_without_features_is_refused(tmp_path, config, teacher):
    changes = {"save_strategy": "steps", "save_steps": 3}
    trained(tmp_path, config, teacher, RandomClips(8), **changes)
    trainer = trainer_of(tmp_path, config, teacher, RandomClips(8), max_steps=6, **FEATURES)
    with pytest.raises(
        ValueError, match=r"contains no projection of features, .*0\.1\.0, which kept it in a separate"
    ):
        trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))


def test_a_teacher_of_larger_clips_is_refused_where_these_are_mixed(tmp_path, config, own_clips):
    args = DistillationConfig(**arguments(tmp_path, modulator_weight=1.0, cutmix_alpha=1.0))
    large = new_model(two_classes(config, own_clips, image_size=64), seed=7)
    student = new_model(two_classes(config, own_clips), seed=0)
    with pytest.raises(ValueError, match="with mixup or CutMix, a teacher that is given clips of its own does not"):
        DistillationTrainer(student, args, teacher_model=large, **own_clips)


def test_a_teacher_without_modulators_is_refused(tmp_path, config):
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    names = {"id2label": dict(enumerate(NAMES)), "label2id": {name: index for index, name in enumerate(NAMES)}}
    teacher = VideoMAEForVideoClassification(VideoMAEConfig(image_size=32, num_frames=4, **sizes, **names))
    with pytest.raises(ValueError, match="the teacher is a VideoMAEForVideoClassification, which has no modulators"):
        trainer_of(tmp_path, config, teacher, RandomClips(4), **MODULATORS)


THREE = {"depths": [1, 1, 1], "focal_levels": [2, 2, 2], "focal_windows": [3, 3, 3]}


def test_other_numbers_of_stages_are_refused_unless_some_are_chosen(tmp_path, config):
    teacher = new_model(labelled(config, **THREE), seed=7)
    with pytest.raises(ValueError, match="the student has 4 stages and the teacher 3, so they do not pair; choose"):
        trainer_of(tmp_path, config, teacher, RandomClips(4), **MODULATORS)
    with pytest.raises(ValueError, match=r"\[2, 4\] contain stage 4, but the teacher has the stages 1 to 3"):
        trainer_of(tmp_path, config, teacher, RandomClips(4), modulator_stages=[2, 4], **MODULATORS)
    trainer = trained(tmp_path, config, teacher, RandomClips(4), modulator_stages=[1, 3], max_steps=1, **MODULATORS)
    assert len(logged(trainer, "loss_modulators")) == 1


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"modulator_weight": -1.0}, "modulator_weight must be at least 0, got -1.0"),
        ({"modulator_weight": float("nan")}, "modulator_weight must be at least 0, got nan"),
        ({"modulator_kinds": "all"}, "modulator_kinds must be one of spatial, temporal, both, got 'all'"),
        ({"modulator_stages": []}, r"modulator_stages must be different numbers from 1, at least one, got \[\]"),
        ({"modulator_stages": [0, 1]}, r"modulator_stages must be .*, got \[0, 1\]"),
        ({"modulator_stages": [2, 2]}, r"modulator_stages must be .*, got \[2, 2\]"),
        ({"alpha": 0.0}, "relation_weight and modulator_weight are all 0, so the teacher would teach nothing"),
        ({"modulator_weight": 1.0, "teacher_cache": "cache"}, "at each step, and a teacher_cache contains none"),
    ],
)
def test_settings_that_cannot_be_are_refused(tmp_path, wrong, message):
    with pytest.raises(ValueError, match=message):
        DistillationConfig(output_dir=str(tmp_path), **wrong)
