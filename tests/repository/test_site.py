"""The site builds without a warning, links into itself, and has the public names."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from places import ROOT

import hf_dvflnet


def test_the_api_page_has_the_public_names_and_each_once():
    entries = re.findall(r"^::: hf_dvflnet\.(\S+)$", (ROOT / "docs" / "api.md").read_text("utf-8"), flags=re.MULTILINE)
    assert sorted([*entries, "__version__"]) == sorted(hf_dvflnet.__all__)


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
    reference = (site / "api" / "index.html").read_text(encoding="utf-8")
    assert "[<code>" not in reference
    assert re.search(r'href="#hf_dvflnet.VideoStreamClassifier.run"[^>]*><code>', reference)
    # arguments that are fields of a dataclass
    assert "Weight of the divergence" in reference


def test_links_to_files_outside_of_docs_lead_into_the_site(site):
    assert 'href="../repository/benchmarks/FINDINGS/"' in (site / "scaling" / "index.html").read_text("utf-8")
    home = (site / "index.html").read_text(encoding="utf-8")
    for target in ("install/", "repository/examples/quickstart.ipynb", "repository/LICENSE"):
        assert f'href="{target}"' in home, target


def test_the_site_fetches_nothing(site):
    for path in site.rglob("*.html"):
        page = path.read_text(encoding="utf-8")
        assert re.findall(r'<(?:script|link|img|iframe)\b[^>]*(?:src|href)="?(?:https?:)?//[^">]+', page) == [], path
