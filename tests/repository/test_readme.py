import dataclasses
import json
import re
import statistics
import sys
from pathlib import Path

import dvflnet_cli
import hf_dvflnet


ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = README + "".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").glob("*.md")))
PAGES = PAGES.replace("\\\n", " ")  # a command that goes on in the next line
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "hub_cards")]

import allocator  # noqa: E402
import distillation_ablation  # noqa: E402
import distillation_ablation_figures  # noqa: E402
import real_video  # noqa: E402
import real_video_figures  # noqa: E402
import render  # noqa: E402
import write_readme  # noqa: E402


def test_the_figures_of_the_demo_are_those_of_its_runs():
    runs = [run["results"] for run in json.loads((ROOT / "benchmarks" / "demo.json").read_text())["runs"]]
    top1 = {name: [100 * run[name]["top1"] for run in runs] for name in runs[0]}
    gains = sorted(y - x for x, y in zip(top1["student alone"], top1["student distilled"], strict=True))
    teacher, alone, distilled = (
        f"{statistics.median(top1[name]):.1f} %" for name in ("teacher", "student alone", "student distilled")
    )
    shown = (
        f"{teacher} (teacher), {alone} (student alone), {distilled} (distilled) of 480 test clips, medians of "
        f"{len(runs)} runs (3 seeds, with 1 and 2 threads); the distilled one gains {gains[0]:.1f} to {gains[-1]:.1f} "
        "points"
    )
    assert shown in re.sub(r"\s+", " ", README)


def test_the_figures_of_the_ablation_are_those_of_its_runs():
    rows = json.loads((ROOT / "benchmarks" / "distillation_ablation.json").read_text())
    assert distillation_ablation_figures.in_one_sentence(rows) in re.sub(r"\s+", " ", README)
    assert distillation_ablation_figures.second_table(rows) in PAGES
    assert distillation_ablation.of_this_file(rows) == rows
    variants = len(distillation_ablation_figures.of_stage(rows, "first"))
    assert f"All {variants} variants" in PAGES and f"5 seeds; {variants} variants" in README
    clips, passes = distillation_ablation.BUDGET["clips"], distillation_ablation.BUDGET["epochs"]
    assert f"{clips} clips of each motion, {passes} passes" in re.sub(r"\s+", " ", PAGES)


def test_the_c_library_is_told_the_same_wherever_memory_is_kept():
    variables = " ".join(f"{name}={value}" for name, value in allocator.KEEPS.items())
    assert variables in PAGES and variables in (ROOT / "Makefile").read_text(encoding="utf-8")


def test_the_figure_of_the_shipped_student_is_that_of_its_files():
    student = json.loads((ROOT / "examples" / "models" / "results.json").read_text())["student"]
    assert f"right on {student['top1']:.1%} of {student['clips']} test clips" in README


def test_the_published_figures_are_those_of_the_cards():
    assert render.table(json.loads((ROOT / "hub_cards" / "results.json").read_text())) in PAGES


def test_the_figures_on_real_video_are_those_of_the_benchmark():
    runs = json.loads((ROOT / "benchmarks" / "real_video.json").read_text())
    cards = json.loads((ROOT / "hub_cards" / "results.json").read_text())
    rows = [row for row in runs["test"] if row["settings"] == real_video.depends_on(row["kind"], real_video.SETTINGS)]
    clips = runs["clips"]["test"]
    summary = real_video_figures.summarize(rows, clips)
    assert {name: cards["real_video"][name] for name in summary} == summary
    page = (ROOT / "docs" / "real_video.md").read_text()
    assert render.real_video_table(cards) in README and render.real_video_table(cards) in page
    assert real_video_figures.most_confused(rows, clips["labels"]) in page


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


def test_every_file_that_the_pages_name_is_there():
    named = re.findall(r"`((?:benchmarks|examples|hub_cards|tests)/[\w./]*)`", PAGES)
    named += re.findall(r"\b(examples/[\w./-]+\w)", PAGES)
    assert named
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_every_link_of_the_pages_leads_somewhere():
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"), ROOT / "benchmarks" / "README.md"):
        for link in re.findall(r"\]\(([^):]+)\)", page.read_text(encoding="utf-8")):
            target, _, anchor = link.partition("#")
            file = page.parent / target if target else page
            assert file.exists(), f"{page.name}: {link}"
            if anchor:
                headings = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), flags=re.MULTILINE)
                anchors = [re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings]
                assert anchor in anchors, f"{page.name}: {link}"


def test_the_pages_of_figures_are_those_that_the_benchmarks_wrote():
    for path, text in write_readme.pages().items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name}: run python benchmarks/write_readme.py"


def test_the_differences_of_resizing_are_those_that_were_measured():
    clips = json.loads((ROOT / "benchmarks" / "resizing.json").read_text())["clips"]
    differences = {clip["size"].replace("x", " x "): clip["mean"] for clip in clips}
    assert f"differ by {differences['1280 x 720']:.1f} of 255 on average" in PAGES
    assert f"640 x 272 by {differences['640 x 272']:.2f}" in PAGES


def test_the_readme_stays_short():
    assert len(README.splitlines()) <= 150


def test_the_figures_of_the_small_benchmarks_are_those_of_their_files():
    motions, branch = (
        json.loads((ROOT / "benchmarks" / name).read_text()) for name in ("motion_videos.json", "temporal_init.json")
    )
    shuffled = motions["shuffled_frames"]
    figures = [
        f"{motions['one_frame']['accuracy']:.1%}",
        f"{shuffled['within_pairs']:.1%} +- {shuffled['standard_error']:.1%}",
        f"{branch['identity']['textures_on_still_clips']:.1%}, or {branch['random']['textures_on_still_clips']:.1%}",
        *(f"{branch[name]['mean']:.1%} +- {branch[name]['standard_error']:.1%}" for name in ("identity", "random")),
    ]
    shown = re.sub(r"\s+", " ", PAGES)
    for figure in figures:
        # as a number with a space in front of the sign, which a mean and its error share
        assert re.sub(r"%( \+-)", r"\1", figure).replace("%", " %") in shown, figure
