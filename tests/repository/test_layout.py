"""The rooms of the package: what lies where, how large it is, and that an installed package has all of it."""

import ast
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from places import ROOT


PACKAGE = ROOT / "hf_dvflnet"
MODULES = sorted(path for folder in (PACKAGE, ROOT / "dvflnet_cli") for path in folder.rglob("*.py"))


def test_the_top_of_the_package_is_what_a_saved_model_carries(tiny_folder):
    """`trust_remote_code=True` copies modules flat: they lie flat here too, and nothing else lies beside them."""
    at_the_top = {path.name for path in PACKAGE.iterdir() if path.is_file()}
    assert at_the_top - {"__init__.py", "py.typed"} == {path.name for path in tiny_folder.glob("*.py")}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_says_what_it_is_for(path):
    assert len(ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "") > 20


EVERYTHING = """
import importlib, json, pkgutil
import dvflnet_cli, hf_dvflnet
from hf_dvflnet.data.label_sets import LABEL_SETS
found = [package.__name__ for package in (hf_dvflnet, dvflnet_cli)]
for package in (hf_dvflnet, dvflnet_cli):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
        found.append(module.name)
labels = {name: len(label_set.names) for name, label_set in LABEL_SETS.items()}
print(json.dumps({"file": hf_dvflnet.__file__, "modules": found, "labels": labels}))
"""


def test_an_installed_wheel_has_every_module_and_label_file(tmp_path):
    source = tmp_path / "source"
    for name in ("hf_dvflnet", "dvflnet_cli"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    run([*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", tmp_path, source], cwd=tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    run([*pip, "install", "--no-deps", "--no-index", "--target", tmp_path / "installed", wheel], cwd=tmp_path)

    # what is not in the wheel cannot be imported from the repository instead: -S leaves out its editable install
    script = tmp_path / "import_everything.py"
    script.write_text(
        f"import sys\nsys.path[:0] = [{str(tmp_path / 'installed')!r}]\n"
        f"sys.path += {[path for path in sys.path if 'site-packages' in path]!r}\n{EVERYTHING}"
    )
    found = json.loads(run([sys.executable, "-S", script], cwd=tmp_path).splitlines()[-1])
    assert Path(found["file"]).is_relative_to(tmp_path / "installed")
    expected = {".".join(path.relative_to(ROOT).with_suffix("").parts) for path in MODULES}
    assert set(found["modules"]) == {name.removesuffix(".__init__") for name in expected}
    for name in ("hf_dvflnet/py.typed", "hf_dvflnet/hub/motions-student/model.safetensors"):
        assert (tmp_path / "installed" / name).is_file()
    label_files = sorted(path.stem for path in (PACKAGE / "data" / "class_names").glob("*.txt"))
    assert sorted(found["labels"]) == label_files and all(found["labels"].values())


def run(command: list, cwd: Path) -> str:
    process = subprocess.run(list(map(str, command)), cwd=cwd, capture_output=True, text=True, timeout=300)
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout
