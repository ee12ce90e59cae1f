import pytest
import torch
from safetensors.torch import load_file
from small_trainings import NAMES, RandomClips, arguments, labelled, new_model
from transformers import TrainerCallback

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
from hf_dvflnet.training.losses import feature_distance
from hf_dvflnet.training.teacher_cache import TeacherCache


@pytest.fixture
def config(tiny_config):
    return labelled(tiny_config)


@pytest.fixture
def teacher(config):
    """Of another width than the student, and far from uniform."""
    model = new_model(labelled(config, embed_dim=16), seed=7)
    torch.nn.init.normal_(model.classifier.weight, std=1.0)
    return model.eval()


def trainer_of(folder, config, teacher, clips, **changes) -> DistillationTrainer:
    args = DistillationConfig(**arguments(folder, **{"feature_weight": 2.0, "logging_steps": 1, **changes}))
    return DistillationTrainer(new_model(config, seed=0), args, teacher_model=teacher, train_dataset=clips)


def trained(*args, **changes) -> DistillationTrainer:
    trainer = trainer_of(*args, **changes)
    trainer.train()
    return trainer


def weights(trainer: DistillationTrainer) -> dict[str, torch.Tensor]:
    return {
        **trainer.model.state_dict(),
        **{f"projection.{n}": w for n, w in trainer._projection.layer.state_dict().items()},
    }


def logged(trainer: DistillationTrainer, name: str) -> list[float]:
    return [entry[name] for entry in trainer.state.log_history if name in entry]


# the distance


def test_the_distance_is_its_definition():
    ours, theirs = torch.randn(2, 8, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    cosines = (ours * theirs).sum(-1) / (ours.square().sum(-1).sqrt() * theirs.square().sum(-1).sqrt())
    torch.testing.assert_close(feature_distance(ours, theirs), (1 - cosines).mean())


# the training


def test_the_distance_of_the_pooled_features_is_added_to_the_loss(tmp_path, config, teacher):
    batch = {name: torch.stack([item[name] for item in RandomClips(4)]) for name in ("pixel_values", "labels")}
    losses = []
    for weight in (0.0, 2.0):
        trainer = trainer_of(tmp_path, config, teacher, RandomClips(4), feature_weight=weight)
        if weight:
            trainer._projection.attach()
        losses.append(trainer.compute_loss(trainer.model.train(), batch))
    with torch.no_grad():
        ours = trainer.model.base_model(batch["pixel_values"]).pooler_output
        theirs = teacher.base_model(batch["pixel_values"]).pooler_output
        expected = 2.0 * feature_distance(trainer._projection.layer(ours), theirs)
    torch.testing.assert_close(losses[1] - losses[0], expected, rtol=1e-4, atol=1e-5)


def test_the_first_projection_leaves_the_draws_of_the_training_as_they_were(teacher):
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    first, second = (FeatureProjection(teacher, 3, seed=5).layer for _ in range(2))
    assert torch.rand(1) == expected and torch.equal(first.weight, second.weight)


@pytest.mark.parametrize(
    "changes",
    [{"gradient_checkpointing": True}, {"bf16": True}, pytest.param({"torch_compile": True}, marks=pytest.mark.slow)],
)
def test_features_are_matched_alike_with(tmp_path, config, teacher, changes):
    plain = logged(trained(tmp_path / "plain", config, teacher, RandomClips(8)), "loss_features")
    found = logged(trained(tmp_path / "other", config, teacher, RandomClips(8), **changes), "loss_features")
    assert found == pytest.approx(plain, rel=0.02 if "bf16" in changes else 1e-4)


def test_features_are_matched_after_a_compilation_without_them(tmp_path, config, teacher):
    compiled = {"torch_compile": True, "torch_compile_backend": "eager", "max_steps": 1}
    trained(tmp_path, config, teacher, RandomClips(4), feature_weight=0.0, **compiled)
    expected = logged(trained(tmp_path, config, teacher, RandomClips(4), max_steps=1), "loss_features")
    found = logged(trained(tmp_path, config, teacher, RandomClips(4), **compiled), "loss_features")
    assert found == pytest.approx(expected, rel=1e-4)


def test_clipping_counts_the_gradients_of_the_projection(tmp_path, config, teacher):
    changes = {"max_steps": 1, "optim": "sgd", "learning_rate": 1.0, "max_grad_norm": 0.01, "weight_decay": 0.0}
    trainer = trained(tmp_path, config, teacher, RandomClips(4), lr_scheduler_type="constant", **changes)
    start = weights(trainer_of(tmp_path, config, teacher, RandomClips(4)))
    moved = torch.cat([(weight - start[name]).flatten() for name, weight in weights(trainer).items()])
    assert moved.norm().item() == pytest.approx(0.01, rel=1e-3)
    assert not torch.equal(trainer._projection.layer.weight, start["projection.weight"])


def test_a_resumed_training_ends_at_the_same_projection(tmp_path, config, teacher):
    changes = {"max_steps": 6, "save_strategy": "steps", "save_steps": 3}
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
    trainer = trainer_of(tmp_path, config, teacher, RandomClips(8), save_strategy="steps", save_steps=3)
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
    trainer = trainer_of(tmp_path, config, teacher, RandomClips(8), max_steps=1, save_strategy="steps", save_steps=1)
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
    online = trained(tmp_path / "a", config, teacher, folder_clips, max_steps=2)
    cached = trained(tmp_path / "b", config, None, folder_clips, max_steps=2, teacher_cache=str(tmp_path / "cache"))
    assert logged(cached, "loss_features") == pytest.approx(logged(online, "loss_features"), rel=1e-3)


# bad input


def test_a_cache_without_features_is_refused(tmp_path, tiny_config, folder_clips):
    config = labelled(tiny_config, folder_clips.dataset.features["label"].names)
    cache_teacher(new_model(config, seed=7), folder_clips, tmp_path / "cache", views=1)
    with pytest.raises(ValueError, match="contains logits but no features; write the cache with .*--features"):
        trainer_of(tmp_path, config, None, folder_clips, teacher_cache=str(tmp_path / "cache"))


def test_a_model_without_a_classifier_is_refused():
    with pytest.raises(ValueError, match="Linear has no `classifier`, whose input would be its pooled features"):
        head_of(torch.nn.Linear(2, 2))


def test_a_checkpoint_of_a_run_without_features_is_refused(tmp_path, config, teacher):
    changes = {"save_strategy": "steps", "save_steps": 3}
    trained(tmp_path, config, teacher, RandomClips(8), feature_weight=0.0, **changes)
    trainer = trainer_of(tmp_path, config, teacher, RandomClips(8), max_steps=6)
    with pytest.raises(
        ValueError, match=r"contains no projection of features, .*0\.1\.0, which kept it in a separate"
    ):
        trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
