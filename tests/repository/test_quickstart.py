import ast
import os
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient


PATH = Path(__file__).parents[2] / "examples" / "quickstart.ipynb"


@pytest.fixture
def notebook() -> nbformat.NotebookNode:
    return nbformat.read(PATH, as_version=4)


def code_cells(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


@pytest.mark.slow
def test_the_notebook_runs_from_top_to_bottom(notebook, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(PATH.parents[1]))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")  # of `dvflnet`
    folder = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources=folder).execute()
    results = [
        output for cell in code_cells(notebook) for output in cell.outputs if output.output_type == "execute_result"
    ]
    first, *_, confusion, last = (ast.literal_eval(result.data["text/plain"]) for result in results)
    assert first[0]["label"] == "zoom_in_fast"
    assert confusion["right"] > 0.8 * confusion["of"]
    assert {answer["label"] for answer in last} == {"move", "turn", "zoom"}


def test_the_notebook_is_stored_as_one_run_without_errors(notebook):
    assert [cell.execution_count for cell in code_cells(notebook)] == list(range(1, len(code_cells(notebook)) + 1))
    assert all(output.output_type != "error" for cell in code_cells(notebook) for output in cell.outputs)
