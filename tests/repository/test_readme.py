"""Figures in README and docs are those of the JSON files that the benchmarks wrote."""

import dataclasses
import json
import re
import sys

import pytest
from places import ROOT

import dvflnet_cli
import hf_dvflnet


sys.path.insert(0, str(ROOT / "benchmarks"))

import distillation_ablation
import write_readme


PAGES = "".join(path.read_text("utf-8") for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))))
PAGES = PAGES.replace("\\\n", " ")  # a command that goes on in the next line


@pytest.mark.parametrize("page", write_readme.PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_tables_of_a_page_are_those_of_the_measurements(page):
    text = page.read_text(encoding="utf-8")
    assert write_readme.filled(text) == text, "run python benchmarks/write_readme.py"


def test_every_table_is_on_a_page():
    shown = {
        match[2] for page in write_readme.PAGES for match in write_readme.MARKED.finditer(page.read_text("utf-8"))
    }
    assert shown == set(write_readme.TABLES)


def test_the_runs_of_the_ablation_are_those_of_its_script():
    rows = json.loads((ROOT / "benchmarks" / "distillation_ablation.json").read_text())
    assert distillation_ablation.of_this_file(rows) == rows


def test_the_accuracy_of_the_shipped_student_is_that_of_its_files():
    student = json.loads((ROOT / "examples" / "models" / "results.json").read_text())["student"]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"right on {student['top1']:.1%} of {student['clips']} test clips" in readme


def test_every_option_that_the_pages_give_a_command_is_there():
    # also in blocks that are not run, and in passing between backticks
    commands = re.findall(r"(?:^(?:.*&& )?|`)dvflnet ([a-z][\w-]*)([^`\n]*)", PAGES, flags=re.MULTILINE)
    commands += re.findall(r"dvflnet_cli (\w[\w-]*) ([^`\n]*)", PAGES)
    assert len(commands) > 50 and {name for name, _ in commands} <= set(dvflnet_cli.COMMANDS)
    for name, arguments in commands:
        kind = dvflnet_cli.COMMANDS[name]
        trainer = getattr(kind, "training_arguments", None)
        kinds = [kind, getattr(hf_dvflnet, trainer)] if trainer else [kind]
        known = {field.name for each in kinds for field in dataclasses.fields(each)}
        wanted = {word.replace("-", "_") for word in re.findall(r"--([a-z]\w*(?:-\w+)*)", arguments.split("#")[0])}
        assert wanted <= {*known, "config", "help"}, (name, wanted - known)
