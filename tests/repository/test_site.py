"""The site: what is in its navigation and in its API reference, and that it builds without a warning."""

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import yaml
from places import ROOT

import hf_dvflnet


DOCS = ROOT / "docs"


def pages_of(navigation: list) -> list[str]:
    entries = [entry for item in navigation for entry in item.values()]
    return [page for entry in entries for page in (pages_of(entry) if isinstance(entry, list) else [entry])]


NAVIGATION = pages_of(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"])


def test_every_page_is_in_the_navigation_once():
    pages = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))
    assert sorted(page for page in NAVIGATION if not page.startswith("repository/")) == pages
    outside = [page.removeprefix("repository/") for page in NAVIGATION if page.startswith("repository/")]
    assert [path for path in outside if not (ROOT / path).is_file()] == []


def test_every_public_name_has_an_entry_on_one_page_of_the_reference():
    pages = [path.read_text(encoding="utf-8") for path in sorted((DOCS / "api").glob("*.md"))]
    entries = Counter(name for page in pages for name in re.findall(r"^::: (\S+)$", page, flags=re.MULTILINE))
    assert entries == Counter(f"hf_dvflnet.{name}" for name in hf_dvflnet.__all__)


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("site")
    process = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", out],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert process.returncode == 0, process.stdout + process.stderr
    return out


def test_references_in_docstrings_are_links(site):
    reference = {path.parent.name: path.read_text(encoding="utf-8") for path in (site / "api").glob("*/index.html")}
    assert [name for name, page in reference.items() if "[<code>" in page] == []
    for page, target in (
        ("training", "../data/#hf_dvflnet.VideoClipStream"),
        ("prediction", "#hf_dvflnet.VideoStreamClassifier.run"),
    ):
        assert re.search(f'href="{re.escape(target)}"[^>]*><code>', reference[page]), target
    # a list of arguments that are fields of a dataclass, and an example
    assert "Weight of the divergence" in reference["training"]
    assert "<blockquote>" not in "".join(reference.values())


def test_links_that_leave_the_pages_lead_into_the_site(site):
    security = (site / "repository" / "SECURITY" / "index.html").read_text(encoding="utf-8")
    assert 'href="../benchmarks/#damaged-and-crafted-videos"' in security
    assert 'href="../repository/SECURITY/"' in (site / "first_prediction" / "index.html").read_text(encoding="utf-8")
    readme = (site / "repository" / "index.html").read_text(encoding="utf-8")
    for target in ("../install/", "examples/quickstart.ipynb", "LICENSE"):
        assert f'href="{target}"' in readme, target


def test_the_site_fetches_nothing(site):
    for path in site.rglob("*.html"):
        page = path.read_text(encoding="utf-8")
        assert re.findall(r'<(?:script|link|img|iframe)\b[^>]*(?:src|href)="?(?:https?:)?//[^">]+', page) == [], path
