import pytest
import torch
from small_trainings import NAMES, RandomClips, arguments, labelled, new_model
from transformers import VideoMAEConfig, VideoMAEForVideoClassification

from hf_dvflnet import (
    DistillationConfig,
    DistillationTrainer,
    VideoClipDataset,
    VideoFocalNetVideoProcessor,
    load_video_folder,
)
from hf_dvflnet.training.losses import MatchedModulators, modulator_distance


@pytest.fixture
def config(tiny_config):
    return labelled(tiny_config)


@pytest.fixture
def teacher(config):
    """Of another width than the student."""
    return new_model(labelled(config, embed_dim=16), seed=7).eval()


def trainer_of(folder, config, teacher, clips, **changes) -> DistillationTrainer:
    args = DistillationConfig(**arguments(folder, **{"modulator_weight": 2.0, "logging_steps": 1, **changes}))
    return DistillationTrainer(new_model(config, seed=0), args, teacher_model=teacher, train_dataset=clips)


def trained(*args, **changes) -> DistillationTrainer:
    trainer = trainer_of(*args, **changes)
    trainer.train()
    return trainer


def logged(trainer: DistillationTrainer) -> list[float]:
    return [entry["loss_modulators"] for entry in trainer.state.log_history if "loss_modulators" in entry]


def modulators(*shape: int) -> torch.Tensor:
    """Two, in float64."""
    return torch.randn(2, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


# the distance


def test_the_distance_is_its_definition():
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


# which are matched


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


def test_the_mean_distance_of_the_modulators_is_added_to_the_loss(tmp_path, config, teacher):
    batch = {name: torch.stack([item[name] for item in RandomClips(4)]) for name in ("pixel_values", "labels")}
    losses = []
    for weight in (0.0, 2.0):
        trainer = trainer_of(tmp_path, config, teacher, RandomClips(4), modulator_weight=weight)
        losses.append(trainer.compute_loss(trainer.model.train(), batch))
    with torch.no_grad():
        ours, theirs = (model(batch["pixel_values"], output_modulators=True) for model in (trainer.model, teacher))
    pairs = [
        pair
        for kind in ("spatial_modulators", "temporal_modulators")
        for pair in zip(ours[kind], theirs[kind], strict=True)
    ]
    expected = 2.0 * torch.stack([modulator_distance(*pair) for pair in pairs]).mean()
    assert len(pairs) == 8 and expected > 1e-3
    torch.testing.assert_close(losses[1] - losses[0], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("changes", [{"gradient_checkpointing": True}, {"bf16": True}, {"torch_compile": True}])
def test_modulators_are_matched_with(tmp_path, config, teacher, changes):
    if changes.get("torch_compile"):
        changes = {**changes, "torch_compile_backend": "aot_eager"}
    settings = {"alpha": 0.0, "modulator_weight": 100.0, "optim": "sgd", "learning_rate": 0.1}
    plain = logged(trained(tmp_path / "plain", config, teacher, RandomClips(8), **settings))
    found = logged(trained(tmp_path / "other", config, teacher, RandomClips(8), **settings, **changes))
    assert abs(plain[0] - plain[-1]) > 0.02 * plain[0]  # else the gradients could be anything
    assert found == pytest.approx(plain, rel=0.01 if "bf16" in changes else 1e-4)


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
    assert len(logged(trainer)) == 3 and all(0 < value < 2 for value in logged(trainer))


# bad input


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
        trainer_of(tmp_path, config, teacher, RandomClips(4))


THREE = {"depths": [1, 1, 1], "focal_levels": [2, 2, 2], "focal_windows": [3, 3, 3]}


def test_other_numbers_of_stages_are_refused_unless_some_are_chosen(tmp_path, config):
    teacher = new_model(labelled(config, **THREE), seed=7)
    with pytest.raises(ValueError, match="the student has 4 stages and the teacher 3, so they do not pair; choose"):
        trainer_of(tmp_path, config, teacher, RandomClips(4))
    with pytest.raises(ValueError, match=r"\[2, 4\] contain stage 4, but the teacher has the stages 1 to 3"):
        trainer_of(tmp_path, config, teacher, RandomClips(4), modulator_stages=[2, 4])
    trainer = trained(tmp_path, config, teacher, RandomClips(4), modulator_stages=[1, 3], max_steps=1)
    assert len(logged(trainer)) == 1


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"modulator_weight": -1.0}, "modulator_weight must be at least 0, got -1.0"),
        ({"modulator_weight": float("nan")}, "modulator_weight must be at least 0, got nan"),
        ({"modulator_kinds": "all"}, "modulator_kinds must be one of spatial, temporal, both, got 'all'"),
        ({"modulator_stages": []}, r"modulator_stages must be different numbers from 1, at least one, got \[\]"),
        ({"modulator_stages": [0, 1]}, r"modulator_stages must be .*, got \[0, 1\]"),
        ({"modulator_stages": [2, 2]}, r"modulator_stages must be .*, got \[2, 2\]"),
        ({"alpha": 0.0}, "alpha, feature_weight and modulator_weight are all 0, so the teacher would teach nothing"),
        ({"modulator_weight": 1.0, "teacher_cache": "cache"}, "at each step, and a teacher_cache contains none"),
    ],
)
def test_settings_that_cannot_be_are_refused(tmp_path, wrong, message):
    with pytest.raises(ValueError, match=message):
        DistillationConfig(output_dir=str(tmp_path), **wrong)
