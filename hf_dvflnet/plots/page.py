"""An HTML page that opens without network: headings, text, tables, and pictures that are part of the file."""

import base64
import html
import io
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image


_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 1100px; margin: 2em auto; padding: 0 1em }
table { border-collapse: collapse } th, td { padding: 2px 12px 2px 0; text-align: left; vertical-align: top }
th { border-bottom: 1px solid #999 } .sheet { display: flex; flex-wrap: wrap; gap: 14px }
figure { margin: 0; max-width: 330px } figcaption { font-size: 13px; overflow-wrap: anywhere } img { max-width: 100% }
"""


def text(words: str) -> str:
    """A paragraph."""
    return f"<p>{html.escape(words)}</p>"


def table(rows: Sequence[dict[str, Any]]) -> str:
    """A table with the keys of the rows as columns."""
    if not rows:
        return ""

    def line(cells: Iterable[Any], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(str(cell))}</{tag}>" for cell in cells) + "</tr>"

    return "<table>" + line(rows[0], "th") + "".join(line(row.values(), "td") for row in rows) + "</table>"


def picture(pixels: np.ndarray | bytes) -> str:
    """A picture: the bytes of a PNG file, or uint8 RGB of shape (height, width, 3)."""
    kind = "png"
    if not isinstance(pixels, bytes):
        file, kind = io.BytesIO(), "jpeg"
        PIL.Image.fromarray(pixels).save(file, "JPEG", quality=80)
        pixels = file.getvalue()
    return f'<img src="data:image/{kind};base64,{base64.b64encode(pixels).decode()}" alt="">'


def contact_sheet(clips: Iterable[tuple[Sequence[np.ndarray], str]]) -> str:
    """Clips side by side: for each, frames of one size, uint8 RGB, or none, above its caption."""
    figures = []
    for frames, caption in clips:
        shown = picture(np.concatenate(frames, axis=1)) if len(frames) else ""
        figures.append(f"<figure>{shown}<figcaption>{html.escape(caption)}</figcaption></figure>")
    return f'<div class="sheet">{"".join(figures)}</div>'


def write_page(file: str | os.PathLike, title: str, sections: Sequence[tuple[str, Sequence[str]]]):
    """Write a page of sections: their heading, and their parts, as the functions of this module return them."""
    body = "".join(f"<h2>{html.escape(heading)}</h2>{''.join(parts)}" for heading, parts in sections)
    head = f'<meta charset="utf-8"><title>{html.escape(title)}</title><style>{_STYLE}</style>'
    page = (
        f'<!DOCTYPE html><html lang="en"><head>{head}</head><body><h1>{html.escape(title)}</h1>{body}</body></html>\n'
    )
    Path(file).write_text(page, encoding="utf-8")
