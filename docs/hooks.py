"""
MkDocs hooks: files outside of `docs/` become `repository/PATH` of the site, and README.md its home page.

In the Markdown, links are relative to the file that has them, so that they work on GitHub too.
"""

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File


ROOT = Path(__file__).parents[1]
OUTSIDE = (
    *("README.md", "SECURITY.md", "CHANGELOG.md", "CONTRIBUTING.md", "CITATION.cff", "LICENSE"),
    *("benchmarks/README.md", "benchmarks/FINDINGS.md", "examples/quickstart.ipynb"),
)


def page_of(path: str) -> str:
    """Where the site has a file of the repository."""
    if path == "README.md":
        return "index.md"
    return path.removeprefix("docs/") if path.startswith("docs/") else f"repository/{path}"


SOURCES = {page_of(path): path for path in OUTSIDE}


def on_files(files: Any, config: Any) -> Any:
    for page, path in SOURCES.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Any, **kwargs: Any) -> str:
    here: str = page.file.src_uri
    source = SOURCES.get(here, f"docs/{here}")

    def moved(match: re.Match) -> str:
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), match[1]))
        if not (ROOT / path).exists():
            return match[0]
        return f"]({posixpath.relpath(page_of(path), posixpath.dirname(here) or '.')}{match[2]})"

    return re.sub(r"\]\(([^)#:\s]+)(#[^)\s]*|)\)", moved, markdown)
