"""FSDP2 on two processes."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from example_scripts import EXAMPLES
from safetensors.torch import load_file
from small_trainings import labelled, new_model

from hf_dvflnet import VideoFocalNetForVideoClassification
from hf_dvflnet.data.motion_videos import MOTIONS
from hf_dvflnet.training.checkpoints import last_whole_checkpoint, refuse_unfit_sharding


HELPERS = Path(__file__).parents[1] / "helpers"
KINDS = ("FULL_STATE_DICT", "SHARDED_STATE_DICT")


def launch(*words: object, module: str = "torch.distributed.run"):
    python_path = os.pathsep.join([str(HELPERS), os.environ.get("PYTHONPATH", "")])
    process = subprocess.run(
        [sys.executable, "-m", module, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=900,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": python_path},
    )
    assert process.returncode == 0, process.stdout


# two processes


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> tuple[Path, dict]:
    """Folder and results of the trainings of `fsdp_runs.py`."""
    folder = tmp_path_factory.mktemp("fsdp")
    launch("--standalone", "--nproc_per_node", 2, HELPERS / "fsdp_runs.py", folder)
    return folder, json.loads((folder / "results.json").read_text())


@pytest.mark.slow
def test_the_student_is_sharded_and_the_teacher_is_not(runs):
    assert [runs[1][name]["sharded"] for name in ("without", *KINDS)] == [[False, False], [True, False], [True, False]]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_sharded_run_is_the_run_without_sharding(kind, runs):
    # the norm of the gradients, by which they are clipped, is summed in another order
    for name in ("losses", "norms", "evaluated"):
        assert runs[1][kind][name] == pytest.approx(runs[1]["without"][name], rel=1e-6), name
    weights, expected = (torch.load(runs[0] / f"{name}.pt") for name in (kind, "without"))
    for name, weight in expected.items():
        torch.testing.assert_close(weights[name], weight, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("run", [*KINDS, *(f"adapter {kind}" for kind in KINDS)])
def test_a_resumed_sharded_run_ends_at_the_same_weights_and_losses(run, runs):
    weights, resumed = (torch.load(runs[0] / f"{name}.pt") for name in (run, f"{run} resumed"))
    for name, weight in weights.items():
        assert torch.equal(weight, resumed[name]), name
    assert runs[1][f"{run} resumed"]["losses"] == runs[1][run]["losses"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_sharded_adapter_is_saved_whole(kind, runs):
    saved = load_file(runs[0] / f"adapter {kind}" / "adapter_model.safetensors")
    weights = torch.load(runs[0] / f"adapter {kind}.pt")
    trained = [name for name in weights if ".default." in name]
    assert len(saved) == len(trained)
    for name in trained:
        kept = name.replace(".modules_to_save.default.", ".").replace(".default.", ".")
        assert torch.equal(weights[name], saved[kept]), name


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_sharded_model_is_saved_whole_with_its_own_code(kind, runs):
    saved = VideoFocalNetForVideoClassification.from_pretrained(runs[0] / kind).state_dict()
    weights = torch.load(runs[0] / f"{kind}.pt")
    assert all(torch.equal(weight, weights[name]) for name, weight in saved.items())
    folders = [runs[0] / "without", runs[0] / kind]
    assert len({(folder / "config.json").read_text() for folder in folders}) == 1
    names = [{path.name for path in folder.iterdir()} for folder in folders]
    assert names[0] == names[1]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_half_written_checkpoint_of_fsdp_is_passed_over(kind, runs, tmp_path):
    folder = shutil.copytree(runs[0] / kind, tmp_path / "run")
    assert last_whole_checkpoint(folder, 2) == str(folder / "checkpoint-4")
    (folder / "checkpoint-4" / "rng_state_1.pth").unlink()
    assert last_whole_checkpoint(folder, 2) == str(folder / "checkpoint-2")


@pytest.mark.slow
def test_distill_with_the_config_of_fsdp_goes_on_from_its_last_checkpoint(
    tmp_path, motion_tree, tiny_config, tiny_processor
):
    teacher, output = tmp_path / "teacher", tmp_path / "out"
    new_model(labelled(tiny_config, list(MOTIONS)), seed=7).save_pretrained(teacher)
    tiny_processor.save_pretrained(teacher)
    options = {
        **{"output_dir": output, "data_dir": motion_tree, "teacher_model_name_or_path": teacher, "use_cpu": True},
        **{"num_frames": 4, "image_size": 32, "short_side": 36, "frame_interval": 4, "num_train_epochs": 2},
        **{"student_preset": "nano", "student_config_overrides": "embed_dim=8", "logging_steps": 1},
        **{"per_device_train_batch_size": 4, "save_strategy": "epoch", "resume_from_checkpoint": "last"},
    }
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    config = EXAMPLES / "accelerate_configs" / "fsdp2.yaml"
    command = ["--config_file", config, "--num_processes", 2, HELPERS / "fsdp_on_cpu.py", EXAMPLES / "distill.py"]
    launch(*command, *words, module="accelerate.commands.launch")
    whole = load_file(output / "student" / "model.safetensors")
    results = json.loads((output / "results.json").read_text())
    # as if it had been stopped in the second epoch of the student that is distilled
    for name in ("results.json", "student/model.safetensors", "student/training_args.bin"):
        (output / name).unlink()
    shutil.rmtree(max((output / "student").glob("checkpoint-*"), key=lambda path: int(path.name.partition("-")[2])))
    launch(*command, *words, module="accelerate.commands.launch")
    resumed = load_file(output / "student" / "model.safetensors")
    for name, weight in whole.items():
        assert torch.equal(weight, resumed[name]), name
    assert json.loads((output / "results.json").read_text())["results"] == results["results"]


# without FSDP


def accelerator_with(plugin: object) -> SimpleNamespace:
    return SimpleNamespace(state=SimpleNamespace(fsdp_plugin=plugin), device=torch.device("cpu"), num_processes=2)


@pytest.mark.parametrize(
    "settings, reason",
    [
        ({"fsdp_version": 1, "cpu_ram_efficient_loading": False}, "set fsdp_version: 2"),
        ({"fsdp_version": 2, "cpu_ram_efficient_loading": True}, "only the first process would have the weights"),
    ],
)
def test_settings_of_fsdp_that_a_teacher_does_not_fit_are_refused(settings, reason):
    with pytest.raises(ValueError, match=reason):
        refuse_unfit_sharding(accelerator_with(SimpleNamespace(**settings)))
