"""
Draws `docs/images/architecture.svg`: the folders of the package as floors, with the modules in each.

    python docs/architecture.py

Everything is read off the folders; `FLOORS` says which of them stand side by side. A floor imports only from the
floors below it, which `make quality` checks (the contracts are in `pyproject.toml`).
"""

import ast
from pathlib import Path


ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "docs" / "images" / "architecture.svg"

# from top to bottom; folders on one floor do not import from each other
FLOORS = [["dvflnet_cli"], ["training", "inference"], ["hub", "plots"], ["data", "frame_model"], ["hf_dvflnet"]]

WIDTH, MARGIN, GAP, LINE, CHARACTER = 1000, 24, 24, 30, 7.3


def folder_of(name: str) -> Path:
    """The folder `name` of the package; the package itself and the command line go by their own names."""
    return ROOT / name if name in ("hf_dvflnet", "dvflnet_cli") else ROOT / "hf_dvflnet" / name


def modules_of(name: str) -> list[str]:
    folder = folder_of(name)
    # the floors name the folders of the package, and not those of the command line
    paths = folder.rglob("*.py") if name == "dvflnet_cli" else folder.glob("*.py")
    modules = (path.relative_to(folder).with_suffix("").as_posix() for path in paths)
    return sorted(module for module in modules if not module.rpartition("/")[2].startswith("__"))


def purpose_of(name: str) -> str:
    """The first sentence of the folder's docstring."""
    if name == "hf_dvflnet":
        return "The network and what brings videos to it: what a saved model carries as its own code."
    source = (folder_of(name) / "__init__.py").read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(source)) or "").split("\n\n")[0].replace("\n", " ")


def lines_of(modules: list[str], width: float) -> list[list[tuple[str, float]]]:
    """The modules in lines that fit a width, each with the width of its box."""
    lines: list[list[tuple[str, float]]] = [[]]
    for module in modules:
        box_width = CHARACTER * len(module) + 18
        if lines[-1] and sum(taken + 8 for _, taken in lines[-1]) + box_width > width:
            lines.append([])
        lines[-1].append((module, box_width))
    return lines


def words_in_lines(words: str, width: float) -> list[str]:
    lines = [""]
    for word in words.split():
        if len(lines[-1]) + len(word) > width / 6.2:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


def box(x: float, y: float, width: float, height: float, kind: str) -> str:
    return f'<rect class="{kind}" x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="6"/>'


def text(x: float, y: float, kind: str, words: str) -> str:
    return f'<text class="{kind}" x="{x:g}" y="{y:g}">{words}</text>'


def svg() -> str:
    parts = []
    top = float(MARGIN)
    for number, folders in enumerate(FLOORS):
        # side by side, the folder with more modules gets more of the width
        shares = [max(len(modules_of(name)), 4) for name in folders]
        room = WIDTH - 2 * MARGIN - GAP * (len(folders) - 1)
        widths = [room * share / sum(shares) for share in shares]
        texts = [words_in_lines(purpose_of(name), width - 28) for name, width in zip(folders, widths, strict=True)]
        lines = [lines_of(modules_of(name), width - 28) for name, width in zip(folders, widths, strict=True)]
        head = 28 + 17 * max(map(len, texts))
        height = head + 10 + LINE * max(map(len, lines))
        left = float(MARGIN)
        for name, width, words, rows in zip(folders, widths, texts, lines, strict=True):
            parts.append(box(left, top, width, height, "outside" if name == "dvflnet_cli" else "folder"))
            title = name if name in ("hf_dvflnet", "dvflnet_cli") else f"hf_dvflnet/{name}"
            parts.append(text(left + 14, top + 22, "title", f"{title}/"))
            parts += [text(left + 14, top + 40 + 17 * row, "purpose", line) for row, line in enumerate(words)]
            for row, line in enumerate(rows):
                x = left + 14
                for module, box_width in line:
                    parts.append(box(x, top + head + 6 + LINE * row, box_width, 24, "part"))
                    parts.append(text(x + 9, top + head + 22 + LINE * row, "module", module))
                    x += box_width + 8
            left += width + GAP
        top += height
        if number < len(FLOORS) - 1:
            parts.append(f'<path class="arrow" d="M{WIDTH / 2:g} {top + 2:g}V{top + GAP - 9:g}"/>')
        top += GAP
    height = top - GAP + MARGIN
    body = "\n".join(parts)
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}" role="img">
<title>The folders of hf_dvflnet: each floor imports only from the floors below it</title>
<style>
.page {{ fill: #ffffff }}
.folder {{ fill: #eaf2f8; stroke: #0072b2; stroke-width: 1.5 }}
.outside {{ fill: #fdf3e1; stroke: #b36b00; stroke-width: 1.5 }}
.part {{ fill: #ffffff; stroke: #7f8c9a }}
.title {{ font: bold 14px monospace; fill: #1b1f24 }}
.purpose {{ font: 12.5px sans-serif; fill: #45525f }}
.module {{ font: 12px monospace; fill: #1b1f24 }}
.arrow {{ fill: none; stroke: #45525f; stroke-width: 2; marker-end: url(#tip) }}
</style>
<marker id="tip" viewBox="0 0 8 8" refX="1" refY="4" markerWidth="4" markerHeight="4" orient="auto">
<path d="M0 0L8 4L0 8z" fill="#45525f"/>
</marker>
<rect class="page" width="{WIDTH}" height="{height:g}" rx="10"/>
{body}
</svg>
"""


def main():
    PICTURE.parent.mkdir(exist_ok=True)
    PICTURE.write_text(svg(), encoding="utf-8")
    print(f"{PICTURE.relative_to(ROOT)} is written")


if __name__ == "__main__":
    main()
