"""
Runs the commands of README and of the other pages as they stand: a page's blocks in order, in one copy of the
repository.

    python tests/repository/test_docs.py

lists every block: run, or left out because its first line says `# needs ...`.
"""

import ast
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest


ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "docs"))

import architecture  # noqa: E402


CARDS = [
    *sorted(ROOT.glob("examples/models/*/README.md")),
    ROOT / "hf_dvflnet" / "hub" / "motions-student" / "README.md",
    ROOT / "dvflnet_cli" / "distilled_student.md",
]
PAGES = [path for folder in (ROOT, ROOT / "docs", ROOT / "hub_cards") for path in sorted(folder.glob("*.md"))] + CARDS
LANGUAGES = ("bash", "sh", "python")


def left_out(folder: str, names: list[str]) -> set[str]:
    """What a copy of the repository does without."""
    ignored = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info")(folder, names)
    # at the top alone: the package has a folder `data` too
    return ignored | {"build", "data", "runs", "site", "tests", "dvflnet-nano"} if Path(folder) == ROOT else ignored


class Block(NamedTuple):
    page: str
    line: int
    language: str
    code: str
    needs: str | None  # why it is not run


PLACEHOLDER = re.compile(r"\{\{ \w+ \}\}")
FENCED = re.compile(r"^( *)``` *(\w*)[^\n`]*\n(.*?)^\1``` *$", flags=re.MULTILINE | re.DOTALL)


def blocks_of(page: str, text: str) -> list[Block]:
    """The fenced blocks of a page, also inside of tabs, admonitions and lists; not those yet to be filled in."""
    found = []
    for match in FENCED.finditer(text):
        if PLACEHOLDER.search(match[3]):  # of a card's template: the cards made of it are pages themselves
            continue
        code = re.sub(f"^{match[1]}", "", match[3], flags=re.MULTILINE)
        needs = re.match(r"# needs (.+)", code)
        line = text.count("\n", 0, match.start()) + 1
        found.append(Block(page, line, match[2], code, needs and needs[1]))
    return found


BLOCKS = {
    str(page.relative_to(ROOT)): blocks_of(str(page.relative_to(ROOT)), page.read_text("utf-8")) for page in PAGES
}


def commands(blocks: list[Block]) -> list[Block]:
    return [block for block in blocks if block.language in LANGUAGES]


def described(block: Block, outcome: str) -> str:
    first = next(line for line in block.code.splitlines() if not line.startswith("# needs"))
    return f"{block.page}:{block.line}: {outcome}: {first}"


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [page for page, found in BLOCKS.items() if any(b.needs is None for b in commands(found))]
)
def test_the_commands_of_a_page_run_as_they_stand(page, tmp_path, capsys):
    clone = shutil.copytree(ROOT, tmp_path / "clone", ignore=left_out)
    search = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": search, "PYTHONPATH": str(clone)}
    for block in commands(BLOCKS[page]):
        outcome = f"not run, needs {block.needs}"
        if block.needs is None:
            shell = [sys.executable, "-c"] if block.language == "python" else ["bash", "-eo", "pipefail", "-c"]
            began = time.perf_counter()
            process = subprocess.run(
                [*shell, block.code], cwd=clone, env=environment, capture_output=True, text=True, timeout=900
            )
            outcome = f"run, {time.perf_counter() - began:.0f} s"
            if process.returncode:
                printed = process.stdout[-1000:] + process.stderr[-3000:]
                pytest.fail(
                    f"{page}:{block.line}: exit code {process.returncode}\n{block.code}\n{printed}", pytrace=False
                )
        with capsys.disabled():
            print(f"\n{described(block, outcome)}", end="", flush=True)


def test_a_block_inside_of_tabs_and_admonitions_is_found():
    text = """# Title

```bash
first
```

=== "Linux"

    ```bash
    # needs a camera
    second
    ```

=== "Python"

    !!! note

        ``` python title="third.py"
        if third:

            fourth
        ```

- a list

  ```
  output
  ```
"""
    assert blocks_of("page", text) == [
        Block("page", 3, "bash", "first\n", None),
        Block("page", 9, "bash", "# needs a camera\nsecond\n", "a camera"),
        Block("page", 18, "python", "if third:\n\n    fourth\n", None),
        Block("page", 26, "", "output\n", None),
    ]


@pytest.mark.parametrize("page", [page for page in BLOCKS if page.startswith("docs/") and BLOCKS[page]])
def test_a_page_with_commands_opens_with_one(page):
    title, opening = (ROOT / page).read_text(encoding="utf-8").split("\n\n", 1)
    assert title.startswith("# ") and opening.startswith("```bash\n")


def test_no_command_hides_where_no_test_looks():
    hidden = re.compile(r"^\s*(dvflnet|accelerate|pip|python3?|make) ", flags=re.MULTILINE)
    others = [block for found in BLOCKS.values() for block in found if block.language not in LANGUAGES]
    assert [f"{block.page}:{block.line}" for block in others if hidden.search(block.code)] == []


# troubleshooting


def messages_of_the_source() -> list[str]:
    """Every string of the source, what an f-string fills in standing as an ellipsis."""
    found = []
    for path in (
        path for folder in ("hf_dvflnet", "dvflnet_cli", "examples") for path in (ROOT / folder).rglob("*.py")
    ):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                found.append("".join(part.value if isinstance(part, ast.Constant) else "..." for part in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return found


MESSAGES = re.findall(
    r"^- `` (.+?) ``:", (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8"), flags=re.MULTILINE
)


@pytest.fixture(scope="module")
def source_messages() -> list[str]:
    return messages_of_the_source()


@pytest.mark.parametrize("message", MESSAGES)
def test_an_error_message_that_is_explained_is_still_given(message, source_messages):
    assert any(message in text for text in source_messages)


def test_troubleshooting_explains_messages():
    assert len(MESSAGES) >= 20


# the picture of the modules


def test_the_picture_is_that_of_the_folders():
    assert architecture.PICTURE.read_text(encoding="utf-8") == architecture.svg(), "run python docs/architecture.py"


def test_the_picture_has_every_folder_of_the_package():
    folders = {path.parent.name for path in (ROOT / "hf_dvflnet").glob("*/__init__.py")}
    assert {name for floor in architecture.FLOORS for name in floor} == {*folders, "hf_dvflnet", "dvflnet_cli"}


def main():
    for found in BLOCKS.values():
        for block in commands(found):
            print(described(block, "run" if block.needs is None else f"not run, needs {block.needs}"))


if __name__ == "__main__":
    main()
