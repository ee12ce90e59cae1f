"""What `make` says and does where a set-up goes wrong, with a Python that installs nothing and notes what is asked."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest


PYTHON = """#!{executable} -IS
import shutil, sys, time
from pathlib import Path
asked = " ".join(sys.argv[1:])
if sys.argv[1] == "-c":  # a question for the version
    sys.version, sys.version_info = "{version} (main)", tuple(map(int, "{version}".split(".")))
    exec(sys.argv[2])
    sys.exit()
with open("asked", "a") as file:
    print(asked, file=file)
if asked.startswith("-m pip install"):
    if Path("offline").exists():
        sys.exit("ERROR: No matching distribution found for torch")
    time.sleep(60 if Path("slow").exists() else 0)
if asked == "-m venv --clear .venv":
    shutil.rmtree(".venv", ignore_errors=True)
    Path(".venv/bin").mkdir(parents=True)
    shutil.copy2(__file__, ".venv/bin/python")
"""
SET_UP, DEMO = "-m pip install", "examples/distill.py examples/demo.yaml"
NEW_ENVIRONMENT = "-m venv --clear .venv"


class Clone:
    """A folder with the Makefile, and a Python of some version to make `.venv` of."""

    def __init__(self, folder: Path):
        self.folder = folder
        shutil.copy(Path(__file__).parents[2] / "Makefile", folder)
        for name in ("setup.cfg", "pyproject.toml"):
            (folder / name).touch()
        self.python("python", "3.11.7")

    def python(self, place: str, version: str):
        self.script(place, PYTHON.format(executable=sys.executable, version=version))

    def script(self, place: str, text: str):
        file = self.folder / place
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(0o755)

    def start(self) -> subprocess.Popen:
        (self.folder / "asked").unlink(missing_ok=True)
        return subprocess.Popen(
            ["make", "demo", "PYTHON=./python"],
            cwd=self.folder,
            env={name: value for name, value in os.environ.items() if not name.startswith("MAKE")},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            # tests that a script runs in the background inherit that Ctrl-C is ignored
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def demo(self) -> tuple[str, int]:
        """Output and exit code of `make demo`."""
        process = self.start()
        return process.communicate(timeout=60)[0], process.returncode

    def asked(self, *beginnings: str) -> list[str]:
        """With which of these the last call has asked a Python, in order."""
        file = self.folder / "asked"
        lines = file.read_text().splitlines() if file.exists() else []
        return [beginning for line in lines for beginning in beginnings if line.startswith(beginning)]


@pytest.fixture
def clone(tmp_path) -> Clone:
    return Clone(tmp_path)


def test_a_fresh_clone_is_set_up_once(clone):
    assert clone.demo()[1] == 0
    assert clone.asked(NEW_ENVIRONMENT, SET_UP, DEMO) == [NEW_ENVIRONMENT, SET_UP, DEMO]
    assert clone.demo() == ("", 0)
    assert clone.asked("-m", DEMO) == [DEMO]  # and so no network


def test_an_older_python_is_refused_in_a_sentence(clone):
    clone.python("python", "3.10.12")
    printed, code = clone.demo()
    lines = ["Python 3.11 or later is needed, but ./python is 3.10.12; run make PYTHON=python3.11 demo"]
    assert printed.splitlines()[:-1] == lines and code == 2
    assert not (clone.folder / ".venv").exists()


def test_a_set_up_without_network_says_how_it_goes_on_and_does(clone):
    (clone.folder / "offline").touch()
    printed, code = clone.demo()
    assert "The set-up of .venv has failed, see above; make demo continues it" in printed and code == 2
    (clone.folder / "offline").unlink()
    assert clone.demo()[1] == 0
    assert clone.asked(NEW_ENVIRONMENT, SET_UP, DEMO) == [SET_UP, DEMO]  # what is downloaded is kept


def test_a_set_up_that_was_interrupted_goes_on(clone):
    (clone.folder / "slow").touch()
    process = clone.start()
    while not clone.asked(SET_UP):
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(60) != 0 and not (clone.folder / ".venv" / ".core").exists()
    (clone.folder / "slow").unlink()
    assert clone.demo()[1] == 0
    assert clone.asked(NEW_ENVIRONMENT, SET_UP, DEMO) == [SET_UP, DEMO]


@pytest.mark.parametrize("defect", ["nothing in it", "no pip", "older Python"])
def test_an_environment_that_cannot_be_used_is_made_anew_and_this_is_said(defect, clone):
    (clone.folder / ".venv").mkdir()
    if defect == "no pip":
        clone.script(".venv/bin/python", "#!/bin/sh\ntest $1 = -c\n")
    if defect == "older Python":
        clone.python(".venv/bin/python", "3.10.12")
    printed, code = clone.demo()
    assert ".venv is made anew: it has no Python 3.11 or later with a pip that works" in printed and code == 0
    assert clone.asked(NEW_ENVIRONMENT, SET_UP, DEMO) == [NEW_ENVIRONMENT, SET_UP, DEMO]


def test_an_environment_whose_python_was_removed_after_the_set_up_is_made_anew(clone):
    clone.demo()
    (clone.folder / ".venv" / "bin" / "python").unlink()
    (clone.folder / ".venv" / "bin" / "python").symlink_to("/no/longer/there")
    printed, code = clone.demo()
    assert code == 0, printed
    assert clone.asked(NEW_ENVIRONMENT, SET_UP, DEMO) == [NEW_ENVIRONMENT, SET_UP, DEMO]
