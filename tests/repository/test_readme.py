"""Figures in README and docs are those of the JSON files that the benchmarks wrote."""

import json
import sys

import pytest
from places import ROOT


sys.path.insert(0, str(ROOT / "benchmarks"))

import distillation_ablation
import real_video
import real_video_figures
import write_readme


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


def test_the_summary_of_the_real_videos_is_that_of_their_runs():
    runs = json.loads((ROOT / "benchmarks" / "real_video.json").read_text())
    cards = json.loads((ROOT / "hub_cards" / "results.json").read_text())
    rows = [row for row in runs["test"] if row["settings"] == real_video.depends_on(row["kind"], real_video.SETTINGS)]
    summary = real_video_figures.summarize(rows, runs["clips"]["test"])
    assert {name: cards["real_video"][name] for name in summary} == summary


def test_the_accuracy_of_the_shipped_student_is_that_of_its_files():
    student = json.loads((ROOT / "examples" / "models" / "results.json").read_text())["student"]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"right on {student['top1']:.1%} of {student['clips']} test clips" in readme
