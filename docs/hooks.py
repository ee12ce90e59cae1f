"""
What the site needs of MkDocs beyond its settings: files outside of `docs/` that the pages link to.

They become `repository/PATH` of the site. In the Markdown, every link is relative to the file that has it, so that it
works there too.
"""

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File


ROOT = Path(__file__).parents[1]
OUTSIDE = (
    *("README.md", "SECURITY.md", "CHANGELOG.md", "CONTRIBUTING.md", "CITATION.cff", "LICENSE"),
    *("benchmarks/README.md", "examples/quickstart.ipynb"),
)
MIRROR = "repository/"


def on_files(files: Any, config: Any) -> Any:
    for path in OUTSIDE:
        files.append(File.generated(config, MIRROR + path, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Any, **kwargs: Any) -> str:
    here: str = page.file.src_uri
    source = here.removeprefix(MIRROR) if here.startswith(MIRROR) else f"docs/{here}"

    def moved(match: re.Match) -> str:
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), match[1]))
        if not (ROOT / path).exists():
            return match[0]
        target = path.removeprefix("docs/") if path.startswith("docs/") else MIRROR + path
        return f"]({posixpath.relpath(target, posixpath.dirname(here) or '.')}{match[2]})"

    return re.sub(r"\]\(([^)#:\s]+)(#[^)\s]*|)\)", moved, markdown)
