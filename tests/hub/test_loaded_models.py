import pytest
import torch
from commands import refused

from hf_dvflnet.hub.loaded_models import choose_device, place
from hf_dvflnet.hub.loading import damage_named, load_model


def with_accelerators(monkeypatch, count: int):
    """Let the machine seem to have some GPUs."""
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: torch.device("cuda"))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: count)


def without_accelerator(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: None)


@pytest.mark.parametrize(("rank", "expected"), [(None, "cuda:0"), ("1", "cuda:1"), ("3", "cuda:1")])
def test_each_process_of_a_launcher_gets_an_accelerator_of_its_own(monkeypatch, rank, expected):
    with_accelerators(monkeypatch, 2)
    if rank is not None:
        monkeypatch.setenv("LOCAL_RANK", rank)
    assert choose_device("auto") == choose_device("cuda") == torch.device(expected)


def test_a_device_that_is_not_there_is_refused_with_those_that_are(monkeypatch):
    with_accelerators(monkeypatch, 2)
    with pytest.raises(ValueError, match=r"^device cuda:2: is not available; this machine has cpu, cuda:0, cuda:1$"):
        choose_device("cuda:2")
    without_accelerator(monkeypatch)
    with pytest.raises(ValueError, match="^device mps: is not available; this machine has cpu$"):
        choose_device("mps")
    with pytest.raises(ValueError, match="^device gpu: is not the name of a device; this machine has cpu$"):
        choose_device("gpu")


def test_the_data_type_is_that_of_the_weights_unless_another_is_asked_for(tiny_folder):
    model = load_model(str(tiny_folder))
    assert place(model, "cpu").dtype == torch.float32
    assert place(model, "cpu", "bfloat16").dtype == torch.bfloat16
    with pytest.raises(ValueError, match="dtype must be auto, float32, bfloat16 or float16, got 'int8'"):
        place(model, "cpu", "int8")


def commands_that_run_a_model(folder, video, tree, out):
    yield "predict", folder, video
    yield "benchmark", folder, video, "--repeat", 1
    yield "watch", folder, video, "--window", 0.5
    yield "visualize", folder, video, out / "maps.png"
    yield "evaluate", folder, "--dataset", "folder", "--data-dir", tree, "--output", out / "evaluation"
    yield "cache-teacher", folder, out / "cache", "--dataset", "folder", "--data-dir", tree, "--views", 1
    yield "demo", folder


def test_every_command_that_runs_a_model_refuses_a_device_that_is_not_there(
    dvflnet, tiny_folder, video_files, video_tree, tmp_path, monkeypatch
):
    without_accelerator(monkeypatch)
    for command in commands_that_run_a_model(tiny_folder, video_files["vp9.webm"], video_tree, tmp_path):
        refused(dvflnet(*command, "--device", "cuda"), "device cuda: is not available; this machine has cpu")


def test_weights_that_may_not_be_read_are_not_called_missing(tmp_path):
    path = tmp_path / "model.safetensors"
    path.touch()
    with (
        pytest.raises(ValueError, match=f"^the model: no permission to read {path}$"),
        damage_named("the model"),
    ):
        raise FileNotFoundError(f"No such file or directory: {path}")  # as safetensors says it
