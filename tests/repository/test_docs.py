"""
Runs the code blocks of README and the other pages as they stand: the blocks of a page in order, in one copy of the
repository. Blocks whose first line is `# needs ...` are not run. `clips` in the copy has real clips as class folders.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from places import ROOT
from real_clips import write_class_folders


CARDS = [
    *sorted(ROOT.glob("examples/models/*/README.md")),
    ROOT / "hf_dvflnet" / "hub" / "motions-student" / "README.md",
]
PAGES = [path for folder in (ROOT, ROOT / "docs") for path in sorted(folder.glob("*.md"))] + CARDS
FENCED = re.compile(r"^( *)``` *(\w*)[^\n`]*\n(.*?)^\1``` *$", flags=re.MULTILINE | re.DOTALL)


def left_out(folder: str, names: list[str]) -> set[str]:
    """What a copy of the repository does without."""
    ignored = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info")(folder, names)
    # at the top only: the package has a folder `data` too
    return ignored | {"build", "data", "runs", "shared", "site", "tests"} if Path(folder) == ROOT else ignored


def blocks_of(text: str) -> list[tuple[int, list[str]]]:
    """Line number and command of each fenced block that can be run."""
    found = []
    for match in FENCED.finditer(text):
        code = re.sub(f"^{match[1]}", "", match[3], flags=re.MULTILINE)
        runner = {"bash": ["bash", "-eo", "pipefail", "-c"], "python": [sys.executable, "-c"]}.get(match[2])
        if runner and not code.startswith("# needs "):
            found.append((text.count("\n", 0, match.start()) + 1, [*runner, code]))
    return found


BLOCKS = {str(page.relative_to(ROOT)): blocks_of(page.read_text("utf-8")) for page in PAGES}


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page, blocks in BLOCKS.items() if blocks])
def test_the_code_blocks_of_a_page_run(page, tmp_path):
    clone = shutil.copytree(ROOT, tmp_path / "clone", ignore=left_out)
    if any("clips" in command[-1] for _, command in BLOCKS[page]):
        write_class_folders(clone / "clips")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(clone)}
    for line, command in BLOCKS[page]:
        process = subprocess.run(command, cwd=clone, env=environment, capture_output=True, text=True, timeout=900)
        if process.returncode:
            printed = process.stdout[-1000:] + process.stderr[-3000:]
            pytest.fail(f"{page}:{line}: exit code {process.returncode}\n{command[-1]}\n{printed}", pytrace=False)


def test_indented_blocks_are_found_and_blocks_with_needs_are_not():
    text = "# Title\n\n- item\n\n  ```bash\n  first\n  ```\n\n```python\n# needs a GPU\n```\n\n```text\nthird\n```\n"
    assert [(line, command[-1]) for line, command in blocks_of(text)] == [(5, "first\n")]
