import json
import shutil
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from commands import refused
from transformers import AutoConfig, AutoImageProcessor, AutoModelForVideoClassification, AutoVideoProcessor

from hf_dvflnet import (
    VideoFocalNetConfig,
    VideoFocalNetForVideoClassification,
    VideoFocalNetVideoProcessor,
    load_exported,
)
from hf_dvflnet.hub.loading import load_model, load_processor
from hf_dvflnet.hub.model_folder import save_model_folder
from hf_dvflnet.inference import export as exporting
from hf_dvflnet.inference.demo_page import classify_clip


COLOURS = {
    "red": (230, 30, 30),
    "green": (30, 200, 30),
    "blue": (30, 30, 230),
    "yellow": (220, 220, 20),
    "black": (10, 10, 10),
    "white": (245, 245, 245),
}


@pytest.fixture(scope="module")
def colours(tmp_path_factory) -> dict[str, Path]:
    """A folder for each colour, with a clip in it."""
    folder = tmp_path_factory.mktemp("colours")
    for name, colour in COLOURS.items():
        (folder / name).mkdir()
        with av.open(str(folder / name / "0.mp4"), "w") as container:
            stream = container.add_stream("libx264", rate=25)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            picture = np.full((48, 64, 3), colour, dtype=np.uint8)
            for _ in range(20):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode())
    return {name: folder / name / "0.mp4" for name in COLOURS}


@pytest.fixture(scope="module")
def colour_model(tmp_path_factory, colours) -> Path:
    """
    A network that tells the colours: random, with a head fitted to their clips. Of its 36 pixels a side the stages do
    not halve what is left evenly.
    """
    torch.manual_seed(0)
    classes = {"id2label": dict(enumerate(COLOURS)), "label2id": {name: index for index, name in enumerate(COLOURS)}}
    config = VideoFocalNetConfig(embed_dim=8, image_size=36, num_frames=4, drop_path_rate=0.0, **classes)
    folder = tmp_path_factory.mktemp("models") / "colours"
    model = VideoFocalNetForVideoClassification(config).eval()
    save_model_folder(folder, model, title="Colours", introduction="For tests.")
    with torch.no_grad():
        features = model.videofocalnet(clips_of(folder, colours.values())).pooler_output
        # the nearest colour wins, by a distance that int8 does not bridge
        centred = features - features.mean(0)
        scale = 20 / centred.pow(2).sum(1).mean()
        model.classifier.weight.copy_(scale * centred)
        model.classifier.bias.copy_(-scale * (centred @ features.mean(0) + centred.pow(2).sum(1) / 2))
    save_model_folder(folder, model, title="Colours", introduction="For tests.", overwrite=True)
    return folder


def clips_of(folder, videos) -> torch.Tensor:
    processor = VideoFocalNetVideoProcessor.from_pretrained(folder)
    return processor([str(video) for video in videos], return_tensors="pt")["pixel_values"]


@pytest.fixture
def causal_folder(tmp_path) -> Path:
    """A causal network whose answers depend visibly on each frame, at 5 frames a second."""
    torch.manual_seed(0)
    config = VideoFocalNetConfig(embed_dim=8, image_size=32, num_frames=4, num_labels=6, causal=True)
    model = VideoFocalNetForVideoClassification(config)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.1)
    save_model_folder(tmp_path / "causal", model, title="", introduction="")
    VideoFocalNetVideoProcessor.from_pretrained(tmp_path / "causal", fps=5.0).save_pretrained(tmp_path / "causal")
    return tmp_path / "causal"


# what is refused


@pytest.mark.parametrize("pair", [("onnx", "bfloat16"), ("executorch", "int8"), ("tensorrt", "float32")])
def test_other_pairs_are_refused_in_one_sentence(dvflnet, tiny_folder, tmp_path, pair):
    result = dvflnet("export", tiny_folder, tmp_path / "out", "--format", pair[0], "--dtype", pair[1])
    refused(result, " ".join(pair), "openvino bfloat16")
    assert not (tmp_path / "out").exists()


def test_a_missing_package_is_named_with_the_extra_that_has_it(dvflnet, tiny_folder, tmp_path, monkeypatch):
    monkeypatch.setitem(exporting.PAIRS, ("onnx", "float32"), ("onnx", "no_such_runtime"))
    result = dvflnet("export", tiny_folder, tmp_path / "out", "--format", "onnx")
    refused(result, "needs no_such_runtime", "pip install 'hf_dvflnet[export]'")


@pytest.mark.parametrize("format", ["onnx", "openvino"])
def test_int8_without_videos_is_refused(dvflnet, tiny_folder, tmp_path, format):
    refused(dvflnet("export", tiny_folder, tmp_path / "out", "--format", format, "--dtype", "int8"), "--calibration")


def test_videos_that_are_not_there_are_refused(dvflnet, tiny_folder, tmp_path):
    (tmp_path / "empty").mkdir()
    arguments = ("export", tiny_folder, tmp_path / "out", "--format", "onnx", "--dtype", "int8", "--calibration")
    refused(dvflnet(*arguments, tmp_path / "none.mp4"), "none.mp4: does not exist")
    refused(dvflnet(*arguments, tmp_path / "empty"), "empty: contains no videos")


def test_a_batch_size_is_refused_where_any_batch_will_do(dvflnet, tiny_folder, tmp_path):
    result = dvflnet("export", tiny_folder, tmp_path / "out", "--format", "onnx", "--batch-size", 2)
    refused(result, "takes any batch size")


def test_a_model_is_not_overwritten_by_its_export(dvflnet, tiny_folder):
    before = sorted(path.name for path in tiny_folder.iterdir())
    refused(dvflnet("export", tiny_folder, tiny_folder, "--format", "onnx", "--overwrite"), "is not an exported model")
    refused(dvflnet("export", tiny_folder, tiny_folder, "--format", "onnx"), "exists already")
    assert sorted(path.name for path in tiny_folder.iterdir()) == before


def test_a_broken_exported_folder_is_refused(dvflnet, tiny_folder, video_files):
    (tiny_folder / "export.json").write_text("{")
    refused(dvflnet("predict", tiny_folder, video_files["vp9.webm"]), "tiny: the program cannot be loaded")


class Program:
    """Stands for a program: PyTorch's answers, changed."""

    batch, computed_in = None, None

    def __init__(self, folder, change):
        self.model, self.change = load_model(str(folder)), change

    def __call__(self, pixel_values):
        with torch.no_grad():
            return {"logits": self.change(self.model(pixel_values).logits)}


@pytest.mark.parametrize(
    ("dtype", "change", "reason"),
    [
        ("float32", lambda logits: logits * 1.001, "from PyTorch's"),
        ("float32", lambda logits: logits * float("nan"), "from PyTorch's by nan"),
        ("int8", lambda logits: logits * 2, "from PyTorch's"),
        ("int8", lambda logits: logits - logits, "predicts PyTorch's class for"),
    ],
)
def test_a_program_out_of_tolerance_fails_and_leaves_nothing(
    dvflnet, colour_model, colours, tmp_path, monkeypatch, dtype, change, reason
):
    if reason.startswith("predicts"):
        monkeypatch.setitem(exporting.TOLERANCES, "int8", 2.0)
    monkeypatch.setattr(exporting, "_write_program", lambda folder, *_: folder.mkdir())
    monkeypatch.setattr(exporting, "load_exported", lambda _: Program(colour_model, change))
    calibration = colours["red"].parents[1]
    arguments = ("--format", "onnx", "--dtype", dtype, "--calibration", calibration)
    refused(dvflnet("export", colour_model, tmp_path / "out", *arguments), reason, "nothing was written")
    assert list(tmp_path.iterdir()) == []


def test_the_clips_are_spread_over_the_videos_and_said_how_many(dvflnet, colour_model, colours, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        exporting,
        "_write_program",
        lambda folder, _network, _shape, clips, *_: (folder.mkdir(), seen.extend(clips)),
    )
    monkeypatch.setattr(exporting, "load_exported", lambda _: Program(colour_model, lambda logits: logits))
    folder = colours["red"].parents[1]
    arguments = ("--format", "onnx", "--dtype", "int8", "--calibration", folder, "--calibration-clips", 3)
    code, out, _ = dvflnet("export", colour_model, tmp_path / "out", *arguments)
    assert code == 0
    shown = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert (shown["calibration_clips"], shown["clips"], shown["videos"]) == ("3", "3", "6")
    by_name = sorted(colours)
    expected = clips_of(colour_model, [colours[by_name[index]] for index in (0, 2, 4)])  # not those that are compared
    assert torch.equal(torch.cat(seen), expected)


# programs


@pytest.mark.slow
@pytest.mark.parametrize("format", ["onnx", "openvino"])
def test_the_cheaper_forms_are_exported(tmp_path, format):
    torch.manual_seed(0)
    config = VideoFocalNetConfig.from_preset("femto", embed_dim=8, image_size=32, num_frames=4, num_labels=6)
    model = VideoFocalNetForVideoClassification(config)
    save_model_folder(tmp_path / "model", model, title="", introduction="")
    report = exporting.export_model(tmp_path / "model", tmp_path / "out", format=format)
    assert report["max_difference"] <= report["tolerance"] * report["largest_logit"]
    assert load_exported(tmp_path / "out")(torch.randn(3, 4, 3, 32, 32)).logits.shape == (3, 6)


@pytest.fixture(scope="module", params=exporting.PAIRS, ids=" ".join)
def exported(request, colour_model, colours, tmp_path_factory) -> tuple[Path, dict]:
    """The model of colours, exported, and what was reported."""
    format, dtype = request.param
    out = tmp_path_factory.mktemp("exported") / f"{format}-{dtype}"
    videos = [colours["red"].parents[1]] if dtype == "int8" else []
    return out, exporting.export_model(colour_model, out, format=format, dtype=dtype, calibration_videos=videos)


@pytest.mark.slow
def test_a_program_answers_as_pytorch_in_any_batch(exported, colour_model, colours):
    folder, report = exported
    program, model = load_exported(folder), load_model(str(colour_model))
    assert program.batch == (1 if report["format"] == "executorch" else None)
    clips = clips_of(colour_model, colours.values())
    for batch in (clips[:1], clips[:3], clips):
        with torch.no_grad():
            expected = model(batch).logits
        difference = (program(batch).logits - expected).abs().max().item()
        print(f"{folder.name}, batch {len(batch)}: {difference:.1e} of {expected.abs().max():.1f}")
        assert difference <= exporting.TOLERANCES[report["dtype"]] * expected.abs().max()


@pytest.mark.slow
def test_labels_processors_and_report_lie_beside_a_program(exported, colour_model):
    folder, report = exported
    assert AutoConfig.from_pretrained(folder).id2label == dict(enumerate(COLOURS))
    processor = AutoVideoProcessor.from_pretrained(folder)
    assert processor.to_dict() == AutoVideoProcessor.from_pretrained(colour_model).to_dict()
    frames = list(np.random.default_rng(0).integers(0, 256, (4, 48, 64, 3), dtype=np.uint8))
    expected = processor(np.stack(frames), do_sample_frames=False, return_tensors="pt")["pixel_values"]
    shown = AutoImageProcessor.from_pretrained(folder)(frames, return_tensors="pt")["pixel_values"]
    assert torch.equal(shown, expected)
    assert json.loads((folder / "export_report.json").read_text()) == report


@pytest.mark.slow
@pytest.mark.parametrize("views", [1, 12])
def test_predict_names_the_class_that_the_model_names(exported, dvflnet, colour_model, colours, views):
    folder, report = exported
    videos = list(colours.values())
    answers = {}
    for name in (folder, colour_model):
        code, out, err = dvflnet("predict", name, *videos, "--views", views, "--json")
        assert (code, err) == (0, "")
        answers[name] = [json.loads(line)["answers"][0] for line in out.splitlines()]
    assert [top["label"] for top in answers[folder]] == [top["label"] for top in answers[colour_model]]
    if report["dtype"] == "float32":
        expected = [top["score"] for top in answers[colour_model]]
        assert [top["score"] for top in answers[folder]] == pytest.approx(expected, abs=1e-5)


@pytest.mark.slow
def test_a_program_runs_in_its_runtime_alone(exported, colour_model, colours):
    folder, report = exported
    clips = clips_of(colour_model, colours.values())
    if report["format"] == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(folder / "model.onnx")
        assert [output.name for output in session.get_outputs()] == ["logits"]
        logits = session.run(None, {"pixel_values": clips.numpy()})[0]
    elif report["format"] == "openvino":
        import openvino

        compiled = openvino.Core().compile_model(folder / "openvino_model.xml", "CPU")
        logits = compiled({"pixel_values": clips.numpy()})["logits"]
    else:
        from executorch.runtime import Runtime

        forward = Runtime.get().load_program(folder / "model.pte").load_method("forward")
        logits = torch.cat([forward.execute([clip[None]])[0] for clip in clips]).numpy()
    assert logits.argmax(-1).tolist() == list(range(6))


@pytest.mark.slow
def test_a_static_batch_is_filled_up(colour_model, colours, tmp_path):
    report = exporting.export_model(colour_model, tmp_path / "out", format="executorch", batch_size=2)
    assert report["batch"] == 2
    clips = clips_of(colour_model, colours.values())[:3]
    with torch.no_grad():
        expected = AutoModelForVideoClassification.from_pretrained(colour_model)(clips).logits
    assert (load_exported(tmp_path / "out")(clips).logits - expected).abs().max() <= 1e-4 * expected.abs().max()


@pytest.mark.slow
@pytest.mark.parametrize("format", ["onnx", "openvino", "executorch"])
def test_nothing_but_the_result_is_printed_and_an_export_is_overwritten(colour_model, tmp_path, format):
    out = tmp_path / "out"
    out.mkdir()
    (out / "config.json").write_text('{"model_type": "videofocalnet"}')
    (out / "export.json").write_text("{}")
    command = [sys.executable, "-m", "dvflnet_cli", "export", str(colour_model), str(out), "--format", format]
    process = subprocess.run([*command, "--overwrite"], capture_output=True, text=True, check=True)
    assert process.stderr == ""
    shown = dict(line.split(maxsplit=1) for line in process.stdout.splitlines())
    assert (shown["folder"], shown["format"], shown["clips"]) == (str(out), format, "5")


@pytest.mark.slow
def test_int8_for_openvino_loads_where_a_map_has_other_rows_than_the_clip_has_frames(colours, tmp_path):
    """NNCF's ranges for each channel of a depthwise convolution landed on the frames there."""
    torch.manual_seed(0)
    stages = {"depths": [1, 1], "focal_levels": [2, 2], "focal_windows": [3, 3]}
    config = VideoFocalNetConfig(embed_dim=8, image_size=96, num_frames=8, num_labels=6, **stages)
    save_model_folder(tmp_path / "model", VideoFocalNetForVideoClassification(config), title="", introduction="")
    report = exporting.export_model(
        *(tmp_path / "model", tmp_path / "out"),
        **{"format": "openvino", "dtype": "int8", "calibration_videos": [colours["red"].parents[1]]},
    )
    assert report["max_difference"] <= 0.2 * report["largest_logit"]  # calibrated on three clips of one colour each


@pytest.mark.slow
def test_each_command_that_runs_a_model_runs_a_program(exported, dvflnet, colours, tmp_path):
    folder, video = exported[0], colours["red"]
    for split in ("train", "test"):
        shutil.copytree(video.parents[1], tmp_path / "data" / split)
    data = ("--dataset", "folder", "--data_dir", tmp_path / "data")
    for command in (
        ("predict", folder, video),
        ("watch", folder, video, "--window", 0.4),
        ("benchmark", folder, video, "--repeat", 1),
        ("evaluate", folder, *data, "--output", tmp_path / "evaluation"),
    ):
        code, out, err = dvflnet(*command)
        assert code == 0, f"{command[0]}: {err}"
        assert out


@pytest.mark.slow
def test_a_command_that_needs_weights_says_that_a_program_has_none(exported, dvflnet, tmp_path):
    refused(dvflnet("export", exported[0], tmp_path / "again", "--format", "onnx"), "this is an exported program")


@pytest.mark.slow
def test_the_demo_page_shows_the_answer_of_a_program_without_maps(exported, colours):
    folder, video = exported[0], colours["red"]
    found = classify_clip(load_exported(folder), load_processor(str(folder)), video)
    assert found.scores[0][0] == "red" and "modulators" not in found.pictures[-1][1]


CAUSAL = """
import sys, torch
from dvflnet_cli import main
from hf_dvflnet import VideoStreamClassifier, load_exported
from hf_dvflnet.hub.loading import load_model, load_processor

model, out, format, dtype, video = sys.argv[1:]
sys.argv = ["dvflnet", "export", model, out, "--format", format, "--dtype", dtype]
try:
    main()
except SystemExit as end:
    assert not end.code
network, program = load_model(model), load_exported(out)
frames = torch.randn(1, 200, 3, 32, 32, generator=torch.Generator().manual_seed(1))
with torch.no_grad():
    expected = network(frames).frame_logits
logits, state = program.step(frames[:, :7])
for frame in frames[:, 7:].split(1, dim=1):
    answer, state = program.step(frame, state)
    logits = torch.cat([logits, answer], 1)
print(float((logits - expected).abs().max() / expected.abs().max()))
for classifier in (network, program):
    print(*(answer.score for answer in VideoStreamClassifier(classifier, load_processor(model)).run(video)))
for wrong in ((frames[..., 1:], ()), (frames[:, :1], state[1:]), (frames[:, :1], tuple(t[..., :1] for t in state))):
    try:
        program.step(*wrong)
    except ValueError as error:
        print(error)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "format, dtype", [pair for pair in exporting.PAIRS if pair[1] != "int8"], ids=lambda value: value
)
def test_a_causal_program_steps_as_pytorch_over_200_frames(
    dvflnet, causal_folder, video_files, tmp_path, format, dtype
):
    # in a process of its own: several runtimes in one process have crashed it
    words = [str(causal_folder), str(tmp_path / "out"), format, dtype, str(video_files["h264.mkv"])]
    process = subprocess.run([sys.executable, "-c", CAUSAL, *words], capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    difference, *streams, _, _, _ = process.stdout.splitlines()[-6:]
    refusals = process.stdout.splitlines()[-3:]
    assert float(difference) <= (1e-5 if dtype == "float32" else 0.05)
    assert "do not fit the program" in refusals[0]
    assert all("the state is of another model" in line for line in refusals[1:])
    scores = [list(map(float, line.split())) for line in streams]
    assert len(scores[0]) == 8  # of 1.6 s at 5 frames a second
    assert scores[1] == pytest.approx(scores[0], abs=1e-4 if dtype == "float32" else 0.05)


def test_a_causal_model_is_not_exported_in_int8(dvflnet, causal_folder, colours, tmp_path):
    arguments = ("--format", "onnx", "--dtype", "int8", "--calibration", colours["red"].parents[1])
    refused(dvflnet("export", causal_folder, tmp_path / "out", *arguments), "cannot be calibrated; export float32")
