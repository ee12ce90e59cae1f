"""What every model of this package can do, whatever it is made of: a Video-FocalNet, or an image network."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from commands import refused, run
from example_scripts import run_training
from small_trainings import labelled
from transformers import AutoModel, AutoModelForVideoClassification, ConvNextConfig, pipeline

from hf_dvflnet import (
    FrameModelForVideoClassification,
    VideoFocalNetForVideoClassification,
    load_model,
    load_processor,
)
from hf_dvflnet.data.motion_videos import MOTIONS
from hf_dvflnet.hub.model_folder import image_processor_like, push_model_folder
from hf_dvflnet.inference.demo_page import classify_clip


NAMES = sorted(MOTIONS)
SMALL = {"num_frames": 4, "image_size": 32, "short_side": 36, "max_steps": 2, "use_cpu": True, "report_to": "none"}
DATA = "--dataset folder --data_dir {clips}"
# each is run in a folder of its own, on both kinds of models
COMMANDS = {
    "info": "info {model}",
    "predict": "predict {model} {clip}",
    "predict into a file": "predict {model} {clips}/test --output {out}/rows.parquet --embeddings --num_workers 0",
    "watch": "watch {model} {clip} --window 1",
    "benchmark": "benchmark {model} {clip} --repeat 1",
    "evaluate": f"evaluate {{model}} {DATA} --output {{out}}/report --num_workers 0",
    "cache-teacher": f"cache-teacher {{model}} {{out}}/cache {DATA} --views 1 --num_workers 0",
}


@pytest.fixture(scope="module", params=["Video-FocalNet", "image network"])
def model(request, tmp_path_factory) -> Path:
    """A saved model of random weights, with its processors, as `dvflnet train` leaves one."""
    from hf_dvflnet import VideoFocalNetConfig, VideoFocalNetVideoProcessor

    folder = tmp_path_factory.mktemp("models") / request.param.replace(" ", "_")
    config = labelled(VideoFocalNetConfig(embed_dim=8, image_size=32, num_frames=4, drop_path_rate=0.0), NAMES)
    torch.manual_seed(0)
    if request.param == "image network":
        body = AutoModel.from_config(ConvNextConfig(hidden_sizes=[8, 16, 16, 16], depths=[1, 1, 1, 1]))
        fields = {name: getattr(config, name) for name in ("image_size", "num_frames", "id2label", "label2id")}
        network = FrameModelForVideoClassification.from_image_model(body, **fields)
    else:
        network = VideoFocalNetForVideoClassification(config)
    torch.nn.init.normal_(network.classifier.weight, std=1.0)  # no near ties, which int8 would break
    network.save_pretrained(folder)
    sides = {"size": {"shortest_edge": 36}, "crop_size": {"height": 32, "width": 32}}
    processor = VideoFocalNetVideoProcessor(num_frames=4, image_mean=[0.5] * 3, image_std=[0.25] * 3, **sides)
    processor.save_pretrained(folder)
    image_processor_like(processor).save_pretrained(folder)
    return folder


@pytest.fixture
def clip(motion_tree) -> str:
    return str(min((motion_tree / "test").glob("*/*.mp4")))


@pytest.fixture
def answer(model, clip) -> tuple[str, float]:
    """The best class of the clip, and its score."""
    pixel_values = load_processor(str(model))(clip, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        score, label = load_model(str(model))(pixel_values).logits.softmax(-1)[0].max(0)
    return NAMES[label], score.item()


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_runs(name, model, clip, motion_tree, tmp_path, dvflnet):
    words = [word.format(model=model, clip=clip, clips=motion_tree, out=tmp_path) for word in COMMANDS[name].split()]
    code, out, err = dvflnet(*words)
    assert code == 0 and (out or err), err


def test_the_pipeline_gives_the_answer_of_the_model(model, clip, answer):
    best = pipeline("video-classification", model=str(model), device="cpu")(clip)[0]
    assert best["label"] == answer[0] and best["score"] == pytest.approx(answer[1], abs=1e-4)


@pytest.mark.parametrize("model", ["image network"], indirect=True)  # the other: tests/test_auto_classes.py
def test_its_folder_answers_without_the_package(model, clip, answer, tmp_path):
    code = f"""
        import sys
        sys.modules["hf_dvflnet"] = None  # importing it raises
        from transformers import pipeline
        classifier = pipeline("video-classification", {str(model)!r}, trust_remote_code=True, device="cpu")
        best = classifier({clip!r})[0]
        print(best["label"], best["score"])
    """
    label, score = run(code, cwd=tmp_path, HF_MODULES_CACHE=str(tmp_path / "modules")).split()[-2:]
    assert label == answer[0] and float(score) == pytest.approx(answer[1], abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("format, dtype", [("onnx", "float32"), ("openvino", "float32"), ("openvino", "int8")])
def test_an_exported_program_gives_the_answer_of_the_model(format, dtype, model, clip, answer, motion_tree, tmp_path):
    # in processes of their own, as users run them: the runtimes do not bear all that a test run has loaded
    def command(*words: object) -> str:
        return run(f"import dvflnet_cli; dvflnet_cli.run({list(map(str, words))})", tmp_path)

    words = ["--format", format, "--dtype", dtype, "--calibration", motion_tree / "train", "--calibration_clips", 16]
    command("export", model, "program", *words)
    best = json.loads(command("predict", "program", clip, "--json"))["answers"][0]
    close = pytest.approx(answer[1], abs=0.2 if dtype == "int8" else 1e-3)
    assert (best["label"], best["score"]) == (answer[0], close)


def test_the_demo_page_shows_its_answer(model, clip, answer):
    found = classify_clip(load_model(str(model)), load_processor(str(model)), clip)
    assert found.scores[0][0] == answer[0]
    assert ("modulators" in found.pictures[-1][1]) == ("Focal" in model.name)


@pytest.mark.parametrize("changes", [{}, {"lora_rank": 2}], ids=["all weights", "LoRA"])
def test_training_starts_from_it(changes, model, motion_tree, tmp_path):
    run_training(
        "train",
        {**SMALL, "data_dir": motion_tree, "output_dir": tmp_path / "out", "model_name_or_path": model, **changes},
    )
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["validation"]["clips"] == len(MOTIONS)
    found = AutoModelForVideoClassification.from_pretrained(tmp_path / "out")
    assert type(found) is type(load_model(str(model)))
    before = load_model(str(model)).state_dict()
    changed = {name for name, weight in found.state_dict().items() if not torch.equal(weight, before[name])}
    assert "classifier.weight" in changed
    head_only = "image" in model.name and not changes
    assert (changed <= {"classifier.weight", "classifier.bias"}) == head_only


def test_it_teaches_a_student(model, motion_tree, tmp_path):
    student = {"student_config_overrides": "embed_dim=8,patch_size=8", "compare_alone": False}
    options = {**SMALL, "data_dir": motion_tree, "output_dir": tmp_path / "out", **student}
    run_training("distill", {**options, "teacher_model_name_or_path": model})
    assert (tmp_path / "out" / "student" / "model.safetensors").is_file()


@pytest.fixture
def uploaded(monkeypatch) -> dict[str, bytes]:
    """The files that were pushed to the Hub, by their names."""
    found = {}
    monkeypatch.setattr(
        "hf_dvflnet.hub.model_folder.HfApi.create_repo", lambda *a, **k: type("R", (), {"repo_id": "a/b"})
    )

    def upload(api, repo_id, folder_path, commit_message):
        found.update((path.name, path.read_bytes()) for path in Path(folder_path).iterdir())
        return type("Commit", (), {"commit_url": "url"})

    monkeypatch.setattr("hf_dvflnet.hub.model_folder.HfApi.upload_folder", upload)
    return found


@pytest.mark.parametrize("has_code", [True, False])
def test_it_is_pushed_with_its_code(model, tmp_path, uploaded, has_code):
    folder = shutil.copytree(model, tmp_path / "model")
    code = {path.name: path.read_bytes() for path in folder.glob("*.py")}
    for name in () if has_code else code:
        (folder / name).unlink()
    (folder / "README.md").write_text("# A card\n")
    assert push_model_folder(folder, "a/b") == "url"
    assert {"config.json", "model.safetensors", "modeling_videofocalnet.py"} <= set(uploaded)
    assert {name: content for name, content in uploaded.items() if name.endswith(".py")} == code
    assert ("modeling_frame_model.py" in uploaded) == ("image" in model.name)


def test_what_a_training_leaves_is_pushed_with_its_card(model, motion_tree, tmp_path, uploaded):
    run_training(
        "train", {**SMALL, "data_dir": motion_tree, "output_dir": tmp_path / "out", "model_name_or_path": model}
    )
    assert push_model_folder(tmp_path / "out", "a/b") == "url"
    assert "training_args.bin" not in uploaded
    results = json.loads((tmp_path / "out" / "results.json").read_text())["validation"]
    card = uploaded["README.md"].decode()
    assert f"| {results['top1']:.1%} |" in card and "| validation split | folder" in card


def test_maps_are_for_a_video_focalnet_alone(model, clip, tmp_path, dvflnet):
    command = ("visualize", model, clip, tmp_path / "maps.png")
    if "Focal" in model.name:
        assert dvflnet(*command)[0] == 0
    else:
        refused(dvflnet(*command), "only a Video-FocalNet has")
