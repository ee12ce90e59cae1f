"""Several processes, and two launchers that stand for two hosts, train as one process does."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from example_scripts import EXAMPLES
from small_trainings import labelled, new_model
from transformers import AutoModel, ConvNextConfig

from hf_dvflnet import FrameModelForVideoClassification
from hf_dvflnet.data.motion_videos import MOTIONS
from hf_dvflnet.training.teacher_cache import TeacherCache


CONFIGS = EXAMPLES / "accelerate_configs"


@pytest.mark.parametrize("name", [path.name for path in sorted(CONFIGS.glob("*.yaml"))])
def test_accelerate_reads_each_configuration(name):
    config = load_config_from_file(str(CONFIGS / name))
    assert config.num_processes == yaml.safe_load((CONFIGS / name).read_text())["num_processes"]


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.fixture
def data_and_teacher(tmp_path, motion_tree, tiny_config, tiny_processor) -> tuple[Path, Path]:
    """Motions of which one training clip is broken, and a teacher of 36 pixels a side."""
    data, teacher = tmp_path / "data", tmp_path / "teacher"
    shutil.copytree(motion_tree, data)
    (data / "train" / "move_000" / "0001.mp4").write_bytes(b"broken")
    new_model(labelled(tiny_config, list(MOTIONS)), seed=7).save_pretrained(teacher)
    tiny_processor.save_pretrained(teacher)
    return data, teacher


def start(output: Path, data_and_teacher, *launcher: str, **changes) -> subprocess.Popen:
    data, teacher = data_and_teacher
    options = {
        **{"output_dir": output, "data_dir": data, "teacher_model_name_or_path": teacher, "compare_alone": False},
        **{"num_frames": 4, "image_size": 32, "short_side": 36, "frame_interval": 4, "num_train_epochs": 2},
        **{"student_preset": "nano", "student_config_overrides": "embed_dim=8,drop_path_rate=0.0"},
        **{
            "learning_rate": 0.01,
            "optim": "sgd",
            "feature_weight": 0.5,
            "logging_steps": 1,
            "use_cpu": True,
            "max_broken_share": 0.5,
        },
        **changes,
    }
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    return subprocess.Popen(
        [sys.executable, "-m", "accelerate.commands.launch", *launcher, str(EXAMPLES / "distill.py"), *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def finished(*processes: subprocess.Popen):
    outputs = [process.communicate(timeout=400)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), "\n".join(outputs)


def config(name: str) -> tuple[str, str]:
    return "--config_file", str(CONFIGS / f"{name}.yaml")


def log_history(output: Path) -> list[dict]:
    state = max((output / "student").glob("checkpoint-*/trainer_state.json"), key=os.path.getmtime)
    return json.loads(state.read_text())["log_history"]


def losses(output: Path) -> list[float]:
    return [entry["loss"] for entry in log_history(output) if "loss" in entry]


SHARED_FOLDER = """
import sys, time
from pathlib import Path
from transformers import TrainingArguments
from dvflnet_cli import runs, training

lock_folder = runs.lock_folder

def lock_folder_late(folder):  # the other host is at the same place by then
    time.sleep(2)
    lock_folder(folder)

runs.lock_folder = lock_folder_late
for seed in ("1", "1", "2"):
    args = TrainingArguments(sys.argv[1], use_cpu=True)
    try:
        runs.begin(training.Train(), args, {"seed": seed})
        Path(sys.argv[1], "checkpoint-1").mkdir(exist_ok=True)
        print(f"from: {args.resume_from_checkpoint}")
    except ValueError as error:
        print(f"refused: {error}")
"""


@pytest.mark.slow
def test_hosts_that_share_a_folder_agree_on_whether_a_run_is_new(tmp_path):
    group = {"WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    hosts = [
        subprocess.Popen(
            [sys.executable, "-c", SHARED_FOLDER, str(tmp_path / "shared")],
            **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True},
            env={**os.environ, **group, "RANK": str(rank), "OMP_NUM_THREADS": "1"},
        )
        for rank in (0, 1)
    ]
    for output, error in [host.communicate(timeout=300) for host in hosts]:
        assert re.findall(r"^from: (\w+)$", output, flags=re.MULTILINE) == ["None", "last"], error
        assert "contains an unfinished run with other options (seed was 1 and is 2)" in output


@pytest.mark.slow
def test_one_process_two_processes_and_two_hosts_have_the_same_loss_curve(tmp_path, data_and_teacher):
    finished(start(tmp_path / "one", data_and_teacher, *config("cpu"), per_device_train_batch_size=8))
    finished(start(tmp_path / "two", data_and_teacher, *config("cpu_2_processes"), per_device_train_batch_size=4))
    hosts = ["--num_processes", "2", "--main_process_ip", "127.0.0.1", "--main_process_port", str(free_port())]
    finished(
        *(
            start(
                *(tmp_path / "hosts", data_and_teacher, *config("several_nodes"), *hosts, "--machine_rank", str(rank)),
                per_device_train_batch_size=4,
            )
            for rank in (0, 1)
        )
    )
    curves = {name: losses(tmp_path / name) for name in ("one", "two", "hosts")}
    results = {name: json.loads((tmp_path / name / "results.json").read_text()) for name in curves}
    assert [result["processes"] for result in results.values()] == [1, 2, 2]
    assert len(curves["one"]) == 8
    # the same sums in another order; the broken clip is replaced alike
    assert curves["two"] == pytest.approx(curves["one"], rel=1e-4)
    assert curves["hosts"] == curves["two"]
    for name in curves:
        broken = (tmp_path / name / "student" / "broken_clips.jsonl").read_text().splitlines()
        assert [json.loads(line)["clip"] for line in broken] == ["move_000/0001.mp4"]


SHARED_FEATURES = """
import sys
import torch
from accelerate import Accelerator
from hf_dvflnet import VideoClipDataset, load_model, load_processor, load_video_folder
from hf_dvflnet.training.frame_heads import FeatureClips

accelerator = Accelerator(cpu=True)
model, computed = load_model(sys.argv[1]), []
pooled = model.pooled_features
model.pooled_features = lambda clips: computed.append(len(clips)) or pooled(clips)
rows = load_video_folder(sys.argv[2])["train"].select(range(9))
items = list(FeatureClips(model, VideoClipDataset(rows, load_processor(sys.argv[1]))))
torch.save((sum(computed), items), f"{sys.argv[3]}/{accelerator.process_index}.pt")
"""


@pytest.mark.slow
def test_two_processes_share_the_features_of_a_frozen_network(tmp_path, motion_tree, tiny_processor):
    body = AutoModel.from_config(ConvNextConfig(hidden_sizes=[8, 16, 16, 16], depths=[1, 1, 1, 1]))
    model = FrameModelForVideoClassification.from_image_model(body, image_size=32, num_frames=4, num_labels=16)
    model.save_pretrained(tmp_path / "model")
    tiny_processor.save_pretrained(tmp_path / "model")
    (tmp_path / "script.py").write_text(SHARED_FEATURES)
    found = {}
    for name in ("cpu", "cpu_2_processes"):
        (tmp_path / name).mkdir()
        words = [*config(name), tmp_path / "script.py", tmp_path / "model", motion_tree, tmp_path / name]
        subprocess.run([sys.executable, "-m", "accelerate.commands.launch", *map(str, words)], check=True, timeout=400)
        found[name] = [torch.load(file) for file in sorted((tmp_path / name).glob("*.pt"))]
    assert [computed for computed, _ in found["cpu_2_processes"]] == [5, 4]
    for _, items in found["cpu_2_processes"]:
        for item, expected in zip(items, found["cpu"][0][1], strict=True):
            assert item["labels"] == expected["labels"]
            torch.testing.assert_close(item["features"], expected["features"], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_two_processes_fill_the_same_cache_as_one(tmp_path, data_and_teacher):
    data, teacher = data_and_teacher
    rows = {}
    for processes in (1, 2):
        out = tmp_path / f"cache{processes}"
        words = [str(teacher), str(out), "--dataset", "folder", "--data-dir", str(data), "--views", "33"]
        process = subprocess.run(
            [
                *(
                    sys.executable,
                    "-m",
                    "accelerate.commands.launch",
                    *config(f"cpu{'_2_processes' * (processes - 1)}"),
                ),
                *("-m", "dvflnet_cli", "cache-teacher", *words, "--num-workers", "0", "--batch-size", "32"),
            ],
            capture_output=True,
            text=True,
            timeout=400,
            env={**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"},
        )
        assert process.returncode == 0, process.stderr
        assert re.search(r"^written +1056$", process.stdout, re.M), process.stdout
        rows[processes] = TeacherCache(out).rows
    assert len(list(tmp_path.glob("cache2/*.parquet"))) == 2  # one of each process
    assert rows[1]["clip"] == rows[2]["clip"] and rows[1]["shown"] == rows[2]["shown"]
    assert np.allclose(*(np.stack(rows[processes]["logits"]) for processes in (1, 2)), rtol=1e-2, atol=1e-3)
