"""How transformers' own tests come into `.venv`: `make test-transformers` runs our classes in them."""

import os
import shutil
import subprocess
import sys
import tarfile
from importlib.metadata import version
from pathlib import Path

import pytest
from places import ROOT


PACKAGE = {
    "setup.py": f"from setuptools import setup\nsetup(name='transformers', version='{version('transformers')}')\n",
    "PKG-INFO": f"Metadata-Version: 2.1\nName: transformers\nVersion: {version('transformers')}\n",
    "tests/test_modeling_common.py": "",
}
MISSING = ROOT / "tests" / "transformers_suite" / "missing"


class Clone:
    """A folder with the script, and a place for source distributions instead of the network."""

    def __init__(self, folder: Path):
        self.folder, self.index = folder, folder / "index"
        self.tests = folder / ".venv" / "transformers-tests"
        self.index.mkdir()
        self.tests.parent.mkdir()
        shutil.copytree(MISSING.parent, folder / "tests" / "transformers_suite")

    def publish(self, files: dict[str, str]):
        name = f"transformers-{version('transformers')}"
        for path, text in files.items():
            file = self.folder / name / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        with tarfile.open(self.index / f"{name}.tar.gz", "w:gz") as archive:
            archive.add(self.folder / name, name)

    def fetch(self) -> str:
        """The last line that the script prints."""
        environment = {**os.environ, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(self.index)}
        script = self.folder / "tests" / "transformers_suite" / "fetch_tests.py"
        process = subprocess.run(
            [sys.executable, script], env=environment, capture_output=True, text=True, timeout=120
        )
        assert process.returncode == (1 if process.stderr else 0), process.stderr
        return (process.stderr.splitlines() or [""])[-1]


@pytest.fixture
def clone(tmp_path) -> Clone:
    return Clone(tmp_path)


def test_the_tests_of_transformers_are_downloaded_once_for_a_version(clone):
    clone.publish(PACKAGE)
    assert clone.fetch() == ""
    fetched = {path.relative_to(clone.tests) for path in clone.tests.rglob("*.*")} - {Path("version.txt")}
    missing = {path.relative_to(MISSING) for path in MISSING.rglob("*.*") if "__pycache__" not in path.parts}
    assert fetched == {Path("tests/test_modeling_common.py")} | missing
    shutil.rmtree(clone.index)
    assert clone.fetch() == ""
    (clone.tests / "version.txt").write_text("5.0.0")
    assert "cannot be downloaded" in clone.fetch()


def test_without_network_a_sentence_says_what_to_do(clone):
    said = clone.fetch()
    assert said.startswith(f"The tests of transformers {version('transformers')} cannot be downloaded, see above.")
    assert said.endswith("run make test-transformers again with a network") and not clone.tests.exists()


def test_a_file_that_is_no_longer_missing_is_named(clone):
    clone.publish({**PACKAGE, "tests/generation/test_utils.py": ""})
    assert "missing/tests/generation/test_utils.py is not missing from the source distribution" in clone.fetch()
