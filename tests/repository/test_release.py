"""What goes to an index: sdist and wheel, their checks, and a first answer in an environment that has nothing else."""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml
from places import ROOT

import hf_dvflnet


def run(*command: object, cwd: Path, **environment: str) -> str:
    process = subprocess.run(
        list(map(str, command)),
        **{"cwd": cwd, "env": {**os.environ, **environment}, "capture_output": True, "text": True, "timeout": 900},
    )
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout


def no_part_of_a_clone(folder: str, names: list[str]) -> set[str]:
    ignored = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info")(folder, names)
    return ignored | {"build", "data", "dist", "runs", "shared", "site"} if Path(folder) == ROOT else ignored


@pytest.fixture(scope="module")
def clone(tmp_path_factory) -> Path:
    """A copy of the repository with `dist/`, as `make dist` builds it: the wheel from the sdist."""
    folder = shutil.copytree(ROOT, tmp_path_factory.mktemp("release") / "clone", ignore=no_part_of_a_clone)
    run(sys.executable, "-m", "build", "--no-isolation", cwd=folder)
    return folder


@pytest.fixture
def wheel(clone) -> Path:
    return next((clone / "dist").glob("*.whl"))


@pytest.mark.slow
def test_what_is_built_passes_the_checks_of_an_index(clone, wheel):
    run(sys.executable, "-m", "twine", "check", "--strict", *(clone / "dist").iterdir(), cwd=clone)
    # also compares it with the folders, file by file
    run(sys.executable, "-m", "check_wheel_contents", wheel, cwd=clone)


@pytest.mark.slow
def test_a_wheel_has_the_data_that_commands_need_and_no_tests(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.split("/")[0] for name in names} == {
        *("hf_dvflnet", "dvflnet_cli", f"hf_dvflnet-{hf_dvflnet.__version__}.dist-info")
    }
    assert "hf_dvflnet/py.typed" in names
    assert len([name for name in names if re.match(r"hf_dvflnet/data/class_names/\w[\w-]*\.txt$", name)]) == 10
    assert len([name for name in names if name.startswith("hf_dvflnet/hub/motions-student/")]) == 5
    assert wheel.stat().st_size < 2e6


@pytest.mark.slow
def test_an_sdist_has_what_the_wheel_is_built_from_and_what_tells_of_it(clone):
    with tarfile.open(next((clone / "dist").glob("*.tar.gz"))) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    at_the_top = {name.split("/")[0] for name in names} - {""}
    assert {"CHANGELOG.md", "CITATION.cff", "LICENSE", "README.md", "pyproject.toml", "setup.cfg"} <= at_the_top
    assert not {"benchmarks", "docs", "examples", "tests"} & at_the_top


@pytest.mark.slow
def test_an_installed_wheel_answers_rightly_and_distils_without_a_clone(wheel, tmp_path):
    environment, place = tmp_path / "environment", tmp_path / "place"
    place.mkdir()
    run(sys.executable, "-m", "venv", "--without-pip", environment, cwd=place)
    python = environment / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check", "install", "--quiet"]
    run(*pip, "--no-deps", "--no-index", wheel, cwd=place)
    # the dependencies, without an editable install of the package among them: a path in a .pth has no .pth read
    (packages,) = environment.glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text("\n".join(path for path in sys.path if "site-packages" in path))

    def dvflnet(*arguments: object) -> str:
        return run(environment / "bin" / "dvflnet", *arguments, cwd=place, PYTHONPATH="")

    imported = run(python, "-c", "import dvflnet_cli; print(dvflnet_cli.__file__)", cwd=place, PYTHONPATH="")
    assert Path(imported.strip()).is_relative_to(packages)
    dvflnet("create", "motions-student", "student")
    dvflnet("render", "videos", "--train", 0, "--validation", 0)
    answer = json.loads(dvflnet("predict", "student", "videos/test/zoom_in_fast/0000.mp4", "--json"))
    assert answer["answers"][0]["label"] == "zoom_in_fast"
    options = {
        **{"output_dir": "run", "teacher_model_name_or_path": "student", "compare_alone": False, "use_cpu": True},
        **{"rendered_train_clips": 1, "rendered_validation_clips": 1, "rendered_test_clips": 1, "max_steps": 1},
        **{"image_size": 64, "short_side": 64, "student_config_overrides": "embed_dim=8,patch_size=8"},
    }
    printed = dvflnet("distill", *(word for name, value in options.items() for word in (f"--{name}", value)))
    assert "| student distilled | " in printed
    assert "distilled with `dvflnet distill`" in (place / "run" / "student" / "README.md").read_text()


def test_changelog_and_citation_tell_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    heading = re.search(r"^## (\S+) - (\S+)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert heading.groups() == (citation["version"], str(citation["date-released"]))
    assert citation["version"] == hf_dvflnet.__version__
    assert [paper["identifiers"][0]["value"] for paper in citation["references"]] == [
        *("arXiv:2507.12426", "arXiv:2307.06947")
    ]
