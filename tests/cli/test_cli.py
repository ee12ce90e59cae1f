import csv
import dataclasses
import io
import json
import os
import re
import shutil
import sys
import warnings
from pathlib import Path

import pytest
import torch
from commands import DVFLNET, finished, misused, refused, run, start
from local_hub import LocalHub
from places import GOLDEN
from safetensors.torch import load_file
from transformers import FocalNetConfig

from dvflnet_cli import COMMANDS, GROUPS
from dvflnet_cli.parser import CommandParser
from hf_dvflnet import VideoFocalNetConfig, VideoFocalNetForVideoClassification, VideoFocalNetModel
from hf_dvflnet.data.label_sets import LABEL_SETS
from hf_dvflnet.hub.loading import load_model
from hf_dvflnet.hub.model_folder import push_model_folder


def test_help_waits_for_no_heavy_import():
    code = "import sys, dvflnet_cli; print([name for name in ('torch', 'transformers') if name in sys.modules])"
    assert run(code, cwd=GOLDEN).strip() == "[]"


def test_the_console_script_lists_each_command_in_a_line():
    lines = finished(start(Path(sys.executable).with_name("dvflnet"), "--help")).splitlines()
    assert [line.split()[0] for line in lines if line.startswith("  ")] == list(COMMANDS)
    assert [line.rstrip(":") for line in lines if line.endswith(":") and not line.startswith(" ")] == list(GROUPS)


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_each_command_lists_its_options_with_defaults(command, dvflnet):
    code, out, _ = dvflnet(command, "--help")
    assert code == 0 and out.startswith(f"usage: dvflnet {command} ")
    assert "--config FILE.yaml" in out and "(default: None)" not in out
    fields = {field.name: field for field in dataclasses.fields(COMMANDS[command])}
    shown = [name for name, field in fields.items() if "positional" not in field.metadata]
    assert [name for name in shown if not re.search(rf"^  --{name}( |$)", out, flags=re.MULTILINE)] == []


def test_the_help_names_every_label_set(dvflnet):
    _, out, _ = dvflnet("create", "--help")
    words = out.replace(",", " ").split()
    assert [name for name in LABEL_SETS if name not in words] == []


# options


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("pred",), "dvflnet: no such command: pred"),
        (("predict",), "the following arguments are required: MODEL"),
        (("predict", "m", "v", "--topk", 1), "no such option: --topk"),
        (("predict", "m", "v", "--top", 1), "no such option: --top"),
        (("predict", "m", "v", "--top_k", "x"), "invalid int value: 'x'"),
        (("predict", "m", "v", "--top_k", -1), "--top_k must be from 0 to 1e+09, got -1"),
        (("predict", "m", "v", "--views", 3), "--views: invalid choice"),
        (("segments", "m", "v", "--window", "inf"), "--window must be from 0.001 to 1e+09, got inf"),
        (("segments", "m", "v", "--stride", "nan"), "--stride must be from 0.001 to 1e+09, got nan"),
        (("demo", "m", "--max_seconds", "nan"), "--max_seconds must be from 0.001 to 1e+09, got nan"),
        (("demo", "m", "--port", 65536), "--port must be from 1 to 65535, got 65536"),
        (("info", "a", "b"), "unexpected argument: b"),
        (("export", "m", "out"), "the following arguments are required: --format"),
        (("distill", "--alpha", 2), "alpha"),
        (("info", "m", "--\x1b[2J"), r"no such option: --\u001b[2J"),
    ],
)
def test_a_wrong_command_line_is_a_sentence(dvflnet, words, reason):
    misused(dvflnet(*words), reason)


def parsed(command: str, *words: str):
    (options,), given = CommandParser(command, COMMANDS[command]).parse(list(words))
    return options, given


def test_options_are_spelled_with_underscores_or_hyphens_and_stand_anywhere():
    expected = parsed("predict", "model", "a.mp4", "b.mp4", "--top_k", "2", "--json", "--batch_size", "3")
    assert parsed("predict", "--json", "model", "--top-k", "2", "a.mp4", "--batch-size=3", "b.mp4") == expected
    assert expected[0].videos == ["a.mp4", "b.mp4"] and expected[0].json is True
    assert expected[1] == {"top_k": 2, "json": True, "batch_size": 3}


def test_options_of_files_are_overridden_by_later_ones(tmp_path):
    (tmp_path / "a.yaml").write_text("top_k: 2\nviews: 12\njson: true\n")
    (tmp_path / "b.yaml").write_text("top_k: 3\n")
    files = ("--config", str(tmp_path / "a.yaml"), "--config", str(tmp_path / "b.yaml"))
    options, _ = parsed("predict", "--views", "1", *files, "model", "a.mp4", "--json", "false")
    assert (options.top_k, options.views, options.json) == (3, 1, False)


def test_a_list_in_a_file_is_an_option_with_several_values(tmp_path):
    (tmp_path / "a.yaml").write_text("calibration: [a.mp4, b.mp4]\nformat: onnx\n")
    options, _ = parsed("export", "m", "o", "--config", str(tmp_path / "a.yaml"), "--calibration", "c", "d")
    assert options.calibration == ["a.mp4", "b.mp4", "c", "d"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("topk: 2", "a.yaml: topk: no such option"),
        ("model: m", "a.yaml: model: no such option"),
        ("top_k:", "a.yaml: top_k: no value"),
        ("- top_k", "a.yaml: must consist of lines such as `option: value`"),
        ("top_k: two", "invalid int value: 'two'"),
        ("top_k: [", "a.yaml: is not YAML"),
    ],
)
def test_a_file_with_a_wrong_option_is_refused(dvflnet, tmp_path, text, reason):
    (tmp_path / "a.yaml").write_text(text)
    misused(dvflnet("predict", "m", "v", "--config", tmp_path / "a.yaml"), reason)


def test_a_file_that_is_missing_is_refused(dvflnet, tmp_path):
    refused(dvflnet("predict", "m", "v", "--config", tmp_path / "none.yaml"), "none.yaml")


def test_control_c_ends_a_command_in_a_line(dvflnet, monkeypatch):
    def interrupted(command):
        raise KeyboardInterrupt

    monkeypatch.setattr(COMMANDS["info"], "run", interrupted)
    assert dvflnet("info", "m") == (130, "", "dvflnet: stopped\n")


# create


def test_create_gives_a_folder_with_a_card_that_says_it_is_untrained(dvflnet, tmp_path):
    code, out, _ = dvflnet("create", "nano", tmp_path / "dvflnet-nano", "--labels", "ucf101")
    assert code == 0
    assert "22.21 M parameters, 101 classes" in out
    assert load_model(str(tmp_path / "dvflnet-nano")).config.id2label[0] == "ApplyEyeMakeup"
    card = (tmp_path / "dvflnet-nano" / "README.md").read_text()
    assert "**Untrained: the weights are random**" in card
    assert LABEL_SETS["ucf101"].source in card


def test_create_refuses_what_it_cannot_make(dvflnet, tmp_path):
    refused(dvflnet("create", "huge", tmp_path / "a"), "unknown preset 'huge'", "nano, tiny, small, base")
    refused(dvflnet("create", "nano", tmp_path / "a", "--labels", "ucf50", "--num-labels", 3), "cannot be combined")
    (tmp_path / "labels.txt").write_text("a\na\n")
    refused(dvflnet("create", "nano", tmp_path / "a", "--labels", tmp_path / "labels.txt"), "labels.txt", "'a'")
    refused(dvflnet("create", "motions-student", tmp_path / "a", "--num-labels", 3), "is trained already")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["labels.txt"]


def test_create_copies_the_student_that_comes_with_the_package(dvflnet, tmp_path):
    folder = tmp_path / "student"
    code, out, _ = dvflnet("create", "motions-student", folder)
    assert code == 0 and out == f"{folder}: motions-student, trained on the 16 motions of `dvflnet render`\n"
    assert load_model(str(folder)).config.num_labels == 16
    refused(dvflnet("create", "motions-student", folder), "exists already")


# convert


def convert_default(dvflnet, out, *arguments):
    return dvflnet("convert", GOLDEN / "default.pth", out, *arguments)


def test_convert_gives_a_folder_that_answers_as_its_source(dvflnet, tmp_path):
    flags = ("--use-postln", "--normalize-modulator", "--json")
    code, out, _ = dvflnet("convert", GOLDEN / "options.pth", tmp_path / "out", *flags)
    report = json.loads(out)
    assert code == 0 and report["copied"] > 100 and (report["new"], report["left"]) == ([], [])
    expected = load_file(GOLDEN / "options.expected.safetensors")
    with torch.no_grad():
        logits = load_model(str(tmp_path / "out"))(expected["pixel_values"]).logits
    torch.testing.assert_close(logits, expected["logits"], rtol=0, atol=1e-5)


def test_the_card_says_that_the_order_of_hmdb51_is_unverified(dvflnet, tmp_path):
    assert dvflnet("convert", GOLDEN / "imagenet_2d.pth", tmp_path / "out", "--labels", "hmdb51")[0] == 0
    card = (tmp_path / "out" / "README.md").read_text()
    assert "Unverified for its checkpoints" in card
    assert "**Not trained on videos**" in card


def test_what_cannot_be_converted_is_one_line_and_no_folder(dvflnet, tmp_path):
    (tmp_path / "text.pth").write_text("hello")
    out = tmp_path / "out"
    refused(dvflnet("convert", tmp_path / "text.pth", out), "text.pth", "cannot be read as a published checkpoint")
    refused(dvflnet("convert", tmp_path / "none.pth", out), "none.pth", "no such file")
    refused(dvflnet("convert", GOLDEN / "default.pth", out, "--labels", "ucf50"), "has 11 classes")
    refused(dvflnet("convert", GOLDEN / "imagenet_2d.pth", out, "--depths", "1,x"), "depths must be numbers")
    assert [path.name for path in tmp_path.iterdir()] == ["text.pth"]


# predict


def test_predict_names_a_broken_video_and_answers_the_others(dvflnet, tiny_folder, video_files, tmp_path):
    (tmp_path / "broken.mp4").write_text("no video")
    code, out, err = dvflnet("predict", tiny_folder, tmp_path / "broken.mp4", video_files["vp9.webm"])
    assert code == 1
    assert "vp9.webm" in out
    assert "broken.mp4" in err
    assert "1 of 2 videos could not be read" in err


def test_predict_refuses_a_folder_without_a_head_or_of_another_model(dvflnet, tmp_path, tiny_config, video_files):
    video = video_files["vp9.webm"]
    VideoFocalNetModel(tiny_config).save_pretrained(tmp_path / "headless")
    refused(dvflnet("predict", tmp_path / "headless", video), "headless", "classifier.weight")
    FocalNetConfig().save_pretrained(tmp_path / "focalnet")
    refused(dvflnet("predict", tmp_path / "focalnet", video), "'focalnet', not 'videofocalnet'")


def predict_csv(output) -> list[dict[str, str]]:
    with open(output, newline="") as file:
        return list(csv.DictReader(file))


def test_predict_writes_a_row_per_video_of_a_list_and_of_what_is_named(dvflnet, tiny_folder, video_files, tmp_path):
    videos = [str(video_files[name]) for name in ("vp9.webm", "xvid.avi", "h264.mkv")]
    (tmp_path / "list.txt").write_text("\n".join([videos[1], str(tmp_path / "none.mp4"), videos[2]]))
    arguments = ("predict", tiny_folder, videos[0], "--list", tmp_path / "list.txt", "--num-workers", 0)
    code, out, err = dvflnet(*arguments, "--output", tmp_path / "scores.csv", "--top-k", 2)
    assert code == 0, err
    shown = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert (shown["videos"], shown["written"], shown["failures"]) == ("4", "4", "{'FileNotFoundError': 1}")
    rows = predict_csv(tmp_path / "scores.csv")
    assert [row["source"] for row in rows] == [videos[0], videos[1], str(tmp_path / "none.mp4"), videos[2]]
    printed = [json.loads(line) for line in dvflnet("predict", tiny_folder, *videos, "--json")[1].splitlines()]
    answered = [row for row in rows if not row["error"]]
    assert [row["label_1"] for row in answered] == [line["answers"][0]["label"] for line in printed]
    code, out, err = dvflnet(*arguments, "--output", tmp_path / "scores.csv", "--top-k", 2)
    assert code == 0 and re.search(r"^written +0$", out, flags=re.MULTILINE)
    assert "dvflnet: 1 of 4 rows have an error" in err


def test_predict_writes_embeddings_instead_of_labels(dvflnet, tiny_folder, video_files, tmp_path):
    arguments = ("--embeddings", "--top-k", 0, "--num-workers", 0, "--output", tmp_path / "features.jsonl")
    assert dvflnet("predict", tiny_folder, video_files["vp9.webm"], *arguments)[0] == 0
    (line,) = (tmp_path / "features.jsonl").read_text().splitlines()
    row = json.loads(line)
    assert len(row["embedding"]) == 64 and "labels" not in row


def test_predict_refuses_options_that_do_not_fit(dvflnet, tiny_folder, video_files, tmp_path):
    video = video_files["vp9.webm"]
    for arguments, reason in (
        ((), "predict needs videos"),
        ((video, "--column", "path"), "--column needs --list FILE"),
        ((video, "--output", tmp_path / "a.jsonl", "--json"), "--output cannot be combined with --json"),
        ((video, "--embeddings"), "--embeddings needs --output"),
        ((video, "--top-k", 0), "--top_k 0 needs --embeddings"),
        ((video, "--ray", "auto"), "--ray needs --output"),
        ((video, "--ray", "auto", "--output", "a.csv", "--num_workers", 2), "--ray has workers of its own"),
        ((video, "--retry_failed"), "--retry_failed needs --output"),
        ((video, "--list", tmp_path / "none.txt"), "none.txt"),
        ((tmp_path / "*.mp4",), "no file or folder matches this pattern"),
    ):
        refused(dvflnet("predict", tiny_folder, *arguments), reason)


# what would steer a terminal

HOSTILE = "\x1b[2J\x1b]0;PWNED\x07\x9b\x7f\u202e"
ESCAPED = r"\u001b[2J\u001b]0;PWNED\u0007\u009b\u007f\u202e"


@pytest.fixture
def hostile_folder(tiny_folder) -> Path:
    """A model whose classes are named by somebody who knows terminals."""
    config = json.loads((tiny_folder / "config.json").read_text())
    config["id2label"] = {index: f"{HOSTILE}{index}" for index in config["id2label"]}
    config["label2id"] = {label: int(index) for index, label in config["id2label"].items()}
    (tiny_folder / "config.json").write_text(json.dumps(config))
    return tiny_folder


@pytest.mark.parametrize("arguments", [(), ("--json",)])
def test_labels_and_names_of_videos_do_not_steer_the_terminal(
    dvflnet, hostile_folder, video_files, tmp_path, arguments
):
    video = shutil.copy(video_files["vp9.webm"], tmp_path / f"a{HOSTILE}.webm")
    broken = tmp_path / f"b{HOSTILE}.webm"
    broken.write_text("no video")
    code, out, err = dvflnet("predict", hostile_folder, video, broken, *arguments)
    assert code == 1
    assert out.replace("\n", "").isprintable()
    assert err.replace("\n", "").isprintable()
    assert f"a{ESCAPED}.webm" in out
    assert f"b{ESCAPED}.webm" in err
    assert f"{ESCAPED}0" in out
    if "--json" in arguments:
        assert json.loads(out.splitlines()[0])["video"] == str(video)


def test_info_and_watch_do_not_let_labels_steer_the_terminal(dvflnet, hostile_folder, video_files):
    for command in (
        ("info", hostile_folder),
        ("info", hostile_folder, "--json"),
        ("watch", hostile_folder, video_files["vp9.webm"], "--window", 0.5),
        ("watch", hostile_folder, video_files["vp9.webm"], "--window", 0.5, "--json"),
    ):
        code, out, _ = dvflnet(*command)
        assert code == 0
        assert ESCAPED in out
        assert out.replace("\n", "").isprintable()


def test_names_of_videos_and_warnings_do_not_steer_the_terminal(dvflnet, tmp_path):
    video = tmp_path / "source" / "train" / HOSTILE / "a.mp4"
    video.parent.mkdir(parents=True)
    video.write_bytes(b"no video")
    code, _, err = dvflnet("prepare", tmp_path / "source", tmp_path / "out", "--num-workers", 0)
    assert code == 1
    assert f"unreadable: train/{ESCAPED}/a.mp4: " in err
    assert HOSTILE[0] not in err
    assert HOSTILE not in warnings.formatwarning(UserWarning(HOSTILE), UserWarning, "a.py", 1)


@pytest.mark.parametrize("command", [("predict",), ("predict", "--json")])
def test_a_name_that_is_not_utf8_stops_no_command(dvflnet, tiny_folder, video_files, tmp_path, command):
    names = [os.fsdecode(name) for name in (b"a.webm", b"\xff\xfe.webm", b"c.webm")]
    videos = [shutil.copy(video_files["vp9.webm"], tmp_path / name) for name in names]
    code, out, _ = dvflnet(*command, tiny_folder, *videos)
    assert code == 0
    assert all(name in out for name in ("a.webm", r"\udcff\udcfe.webm", "c.webm"))


def test_an_encoding_that_lacks_a_label_stops_no_command(dvflnet, tiny_folder, monkeypatch, video_files, tmp_path):
    video = shutil.copy(video_files["vp9.webm"], tmp_path / "käse.webm")
    ascii_stdout = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr("sys.stdout", ascii_stdout)
    assert dvflnet("predict", tiny_folder, video)[0] == 0
    assert rb"k\xe4se.webm" in ascii_stdout.buffer.getvalue()


# info


def test_info_counts_parameters_and_multiply_adds_of_the_published_size(dvflnet, tmp_path):
    VideoFocalNetConfig.from_preset("nano", num_labels=400).save_pretrained(tmp_path / "nano")
    code, out, _ = dvflnet("info", tmp_path / "nano", "--json")
    about = json.loads(out)
    assert code == 0
    assert (about["preset"], about["num_labels"], about["labels"], about["num_frames"]) == ("nano", 400, None, 8)
    assert about["parameters"] / 1e6 == pytest.approx(22.44, abs=0.01)
    assert about["multiply_adds"] / 1e9 == pytest.approx(27.1, abs=0.05)
    assert json.loads(dvflnet("info", tmp_path / "nano", "--json", "--frames", 16)[1])["input"] == "16x224x224"
    assert "22.44 M" in dvflnet("info", tmp_path / "nano")[1]


def test_info_refuses_what_is_no_model(dvflnet, tmp_path):
    refused(dvflnet("info", tmp_path / "none"), "none: is neither a model folder")


# push


def test_push_uploads_what_a_model_needs_and_nothing_else(tiny_folder, tmp_path):
    (tiny_folder / "README.md").write_text("---\nlibrary_name: transformers\n---\n# tiny\n")
    for private in ("training_args.bin", "checkpoint-7/config.json", "src/private.py"):
        (tiny_folder / private).parent.mkdir(exist_ok=True)
        (tiny_folder / private).touch()
    with LocalHub() as hub:
        environment = {"HF_ENDPOINT": hub.endpoint, "HF_HUB_OFFLINE": "0", "HF_TOKEN": "hf_test"}
        environment |= {"HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1"}
        said = finished(start(*DVFLNET, "push", tiny_folder, "me/tiny", **environment))
        assert said.strip() == f"{hub.endpoint}/me/tiny/commit/{LocalHub.COMMIT}"
        uploaded = set(hub.repositories["me/tiny"])
    assert {"config.json", "model.safetensors", "README.md", "modeling_videofocalnet.py"} <= uploaded
    assert not {"training_args.bin", "checkpoint-7/config.json", "src/private.py"} & uploaded


def test_an_incomplete_folder_is_not_pushed(tiny_folder):
    with pytest.raises(FileNotFoundError, match=r"tiny: has no README\.md"):
        push_model_folder(tiny_folder, "me/tiny")
    (tiny_folder / "README.md").touch()
    (tiny_folder / "modeling_videofocalnet.py").unlink()
    with pytest.raises(FileNotFoundError, match="contains no code for AutoModelForVideoClassification;"):
        push_model_folder(tiny_folder, "me/tiny")


def test_a_re_saved_folder_keeps_its_code_and_names_every_class(tiny_folder, tmp_path):
    VideoFocalNetForVideoClassification.from_pretrained(tiny_folder).save_pretrained(tmp_path / "again")
    assert (tmp_path / "again" / "modeling_videofocalnet.py").is_file()
    auto_map = json.loads((tmp_path / "again" / "config.json").read_text())["auto_map"]
    assert {"AutoConfig", "AutoModel", "AutoModelForVideoClassification"} <= set(auto_map)


def test_the_videos_between_two_classes_are_suggested_for_labelling(dvflnet, tiny_folder, video_files):
    videos = [video_files[name] for name in ("vp9.webm", "xvid.avi", "h264.mkv", "h264_short_gop.mp4")]
    rows = [json.loads(line) for line in dvflnet("predict", tiny_folder, *videos, "--json")[1].splitlines()]
    by_margin = sorted(rows, key=lambda row: row["answers"][0]["score"] - row["answers"][1]["score"])
    _, out, _ = dvflnet("predict", tiny_folder, *videos, "--json", "--suggest", 4)
    assert [json.loads(line) for line in out.splitlines()] == by_margin
    _, out, _ = dvflnet("predict", tiny_folder, *videos, "--json", "--suggest", 1)
    assert [json.loads(line) for line in out.splitlines()] == by_margin[:1]
    code, _, err = dvflnet("predict", tiny_folder, *videos, "--suggest", 2, "--output", "rows.csv")
    assert code == 1
    assert "--suggest prints, and takes no --output" in err
