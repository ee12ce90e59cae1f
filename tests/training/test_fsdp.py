"""FSDP2 on two processes, and how checkpoints of FSDP and DeepSpeed are recognized."""

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
from torch.distributed import checkpoint as dcp

from hf_dvflnet import VideoFocalNetForVideoClassification, last_whole_checkpoint
from hf_dvflnet.data.motion_videos import MOTIONS
from hf_dvflnet.training.checkpoints import find_flaw
from hf_dvflnet.training.sharding import refuse_unfit_sharding, refuse_unsharded_projection


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
@pytest.mark.parametrize(
    "kind, name",
    [
        *(("FULL_STATE_DICT", name) for name in ("pytorch_model_fsdp.bin", "optimizer.bin", "rng_state_1.pth")),
        *(
            ("SHARDED_STATE_DICT", f"{folder}/{name}")
            for folder in ("pytorch_model_fsdp_0", "optimizer_0")
            for name in (".metadata", "__1_0.distcp")
        ),
    ],
)
def test_a_half_written_checkpoint_of_fsdp_is_passed_over(kind, name, runs, tmp_path):
    folder = shutil.copytree(runs[0] / kind, tmp_path / "run")
    assert last_whole_checkpoint(folder, 2) == str(folder / "checkpoint-4")
    (folder / "checkpoint-4" / name).unlink()
    assert last_whole_checkpoint(folder, 2) == str(folder / "checkpoint-2")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, reason",
    [
        ("not on this device", "does not apply it on the device 'cpu'"),
        ("features", "features cannot be matched with FSDP"),
        ("other kind", "contains no pytorch_model_fsdp.bin, .*Set it to SHARDED_STATE_DICT"),
    ],
)
def test_what_fsdp_cannot_do_is_refused(name, reason, runs):
    with pytest.raises(ValueError, match=reason):
        raise ValueError(runs[1][name]["refused"])


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


def test_fsdp_that_would_silently_be_left_out_is_refused(monkeypatch):
    refuse_unfit_sharding(accelerator_with(None))
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(ValueError, match="FSDP was asked for, but accelerate does not apply it on the device 'cpu'"):
        refuse_unfit_sharding(accelerator_with(None))


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


@pytest.mark.parametrize("plugin, name", [("fsdp_plugin", "FSDP"), ("deepspeed_plugin", "DeepSpeed")])
def test_features_are_not_matched_where_the_student_is_sharded(plugin, name):
    with pytest.raises(ValueError, match=f"features cannot be matched with {name}"):
        refuse_unsharded_projection(SimpleNamespace(state=SimpleNamespace(**{plugin: object()})))


# checkpoints laid out by hand


def finished(folder: Path, processes: int = 2, **about) -> Path:
    """The files that the Trainer writes beside those of FSDP and DeepSpeed."""
    folder.mkdir(parents=True, exist_ok=True)
    for rank in range(processes):
        torch.save({}, folder / f"rng_state_{rank}.pth")
    state = {"stateful_callbacks": {"VideoClassificationTrainer": {"processes": processes, **about}}}
    (folder / "trainer_state.json").write_text(json.dumps(state))
    return folder


@pytest.fixture
def sharded(tmp_path) -> Path:
    """A checkpoint as FSDP leaves it with SHARDED_STATE_DICT, written by one process here."""
    for name in ("pytorch_model_fsdp_0", "optimizer_0"):
        writer = dcp.FileSystemWriter(tmp_path / "checkpoint-2" / name)
        dcp.save({"weights": {"a": torch.ones(100), "b": torch.zeros(3)}}, storage_writer=writer, no_dist=True)
    torch.save({}, tmp_path / "checkpoint-2" / "scheduler.pt")
    return finished(tmp_path / "checkpoint-2")


def cut(path: Path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_a_sharded_checkpoint_is_whole(sharded):
    assert find_flaw(sharded, 2) is None


@pytest.mark.parametrize("folder", ["pytorch_model_fsdp_0", "optimizer_0"])
@pytest.mark.parametrize("name", [".metadata", "__0_0.distcp"])
@pytest.mark.parametrize("spoil, flaw", [(cut, "truncated"), (Path.unlink, "missing")])
def test_a_sharded_checkpoint_without_one_of_its_parts_is_not(folder, name, spoil, flaw, sharded):
    spoil(sharded / folder / name)
    assert find_flaw(sharded, 2) == f"{folder}/{name} is {flaw}"


# DeepSpeed's names of files: https://github.com/deepspeedai/DeepSpeed, `DeepSpeedEngine.save_checkpoint`
ZERO_0 = ["mp_rank_00_model_states.pt"]
ZERO_2 = [*ZERO_0, *(f"bf16_zero_pp_rank_{rank}_mp_rank_00_optim_states.pt" for rank in (0, 1))]
ZERO_3 = [f"zero_pp_rank_{rank}_mp_rank_00_{kind}_states.pt" for kind in ("model", "optim") for rank in (0, 1)]


def by_deepspeed(folder: Path, names: list[str], step: int = 2) -> Path:
    checkpoint = finished(folder / f"checkpoint-{step}")
    states = checkpoint / f"global_step{step}"
    states.mkdir()
    for name in names:
        torch.save({"weights": torch.ones(100)}, states / name)
    (checkpoint / "latest").write_text(states.name)
    (checkpoint / "zero_to_fp32.py").write_text("")
    return checkpoint


@pytest.mark.parametrize("names", [ZERO_0, ZERO_2, ZERO_3], ids=["no ZeRO", "stage 2", "stage 3"])
def test_a_checkpoint_of_deepspeed_is_whole(names, tmp_path):
    assert find_flaw(by_deepspeed(tmp_path, names), 2) is None


@pytest.mark.parametrize("spoil", [cut, Path.unlink])
@pytest.mark.parametrize(
    "names, name", [(names, name) for names in (ZERO_0, ZERO_2, ZERO_3) for name in (names[0], names[-1])]
)
def test_a_half_written_checkpoint_of_deepspeed_is_passed_over(names, name, spoil, tmp_path):
    before = by_deepspeed(tmp_path, names, step=1)
    spoil(by_deepspeed(tmp_path, names) / "global_step2" / name)
    assert last_whole_checkpoint(tmp_path, 2) == str(before)


@pytest.mark.parametrize(
    "name, flaw",
    [
        ("latest", "latest is missing"),
        ("trainer_state.json", "trainer_state.json is missing"),
        ("rng_state_1.pth", "rng_state_1.pth is missing"),
    ],
)
def test_a_checkpoint_of_deepspeed_without_what_is_written_last_is_half_written(name, flaw, tmp_path):
    checkpoint = by_deepspeed(tmp_path, ZERO_2)
    (checkpoint / name).unlink()
    assert find_flaw(checkpoint, 2) == flaw


def test_a_checkpoint_of_deepspeed_names_how_many_states_are_missing(tmp_path):
    checkpoint = by_deepspeed(tmp_path, ZERO_2)
    (checkpoint / "global_step2" / ZERO_2[-1]).unlink()
    assert find_flaw(checkpoint, 2) == "of 2 files global_step2/*zero_pp_rank_*_optim_states.pt, 1 are missing"
