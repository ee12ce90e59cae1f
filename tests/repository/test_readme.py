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
    # in blocks, and in passing between backticks
    commands = re.findall(r"(?:^(?:.*&& )?|`)dvflnet ([a-z][\w-]*)([^`\n]*)", PAGES, flags=re.MULTILINE)
    assert {name for name, _ in commands} <= set(dvflnet_cli.COMMANDS)
    for name, arguments in commands:
        if name in ("train", "distill"):  # the next test
            continue
        wanted = {word.replace("-", "_") for word in re.findall(r"--([a-z_-]+)", arguments.split("#")[0])}
        given = {field.name for field in dataclasses.fields(dvflnet_cli.COMMANDS[name])}
        assert wanted <= {*given, "config", "help"}, (name, wanted)


def test_every_option_that_the_pages_give_a_training_is_there():
    launches = re.findall(r"(?:dvflnet|dvflnet_cli) (?:train|distill) ([^`\n]*)", PAGES)
    launches += re.findall(r"examples/(?:train|distill)\.py ([^`\n]*)", PAGES)
    assert len(launches) >= 8
    kinds = [dvflnet_cli.COMMANDS[name] for name in ("train", "distill")] + [hf_dvflnet.DistillationConfig]
    known = {field.name for kind in kinds for field in dataclasses.fields(kind)}
    for launch in launches:
        assert set(re.findall(r"--(\w+)", launch)) <= {*known, "config", "help"}, launch
