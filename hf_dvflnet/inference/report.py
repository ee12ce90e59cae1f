"""An evaluation as one page that opens without network: figures, charts, and frames of the clips that went wrong."""

import base64
import html
import io
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from ..data.limits import worker_limits
from ..data.video_column import video_source
from ..video_decoding import read_video


SHOWN = 20  # clips of a contact sheet
FRAMES = 4  # of a clip
SIDE = 160  # of a frame, in pixels
STYLE = """
body { font: 15px system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; } td, th { padding: .2rem .8rem; text-align: left; border-bottom: 1px solid #ddd; }
img.chart { max-width: 100%; } .clip { margin: .8rem 0; overflow-wrap: anywhere; } .clip img { margin-right: 3px; }
"""


def write_report(
    path: Path,
    row: dict[str, Any],
    predictions: Sequence[dict[str, Any]],
    charts: dict[str, Path],
    differences: Sequence[dict[str, Any]] = (),
):
    """
    Write the page.

    Args:
        path: The file.
        row: What `results.json` holds.
        predictions: Rows of [`predict_clips`].
        charts: PNG files by heading.
        differences: Clips that one of two models has right, `{"video_id", "label", "this", "other"}`.
    """
    wrong = [one for one in predictions if one["top5"][0][0] != one["label"]]
    sheets = {
        "Surest of the wrong clips": sorted(wrong, key=lambda one: -one["top5"][0][1]),
        "Clips whose true class has the lowest scores": sorted(wrong, key=lambda one: one.get("true_score", 0.0)),
    }
    parts = [f"<h1>{html.escape(row['split'])}</h1>", _table([[name, _text(value)] for name, value in row.items()])]
    for heading, chart in charts.items():
        source = f"data:image/png;base64,{base64.b64encode(chart.read_bytes()).decode()}"
        parts.append(f'<h2>{heading}</h2><img class="chart" alt="{heading}" src="{source}">')
    if differences:
        names = ("video_id", "label", "this", "other")
        parts.append("<h2>Clips that one of both models has right</h2>")
        parts.append(_table([names, *([one[name] for name in names] for one in differences)]))
    for heading, clips in sheets.items():
        parts.append(f"<h2>{heading}</h2>" + "".join(map(_clip, clips[:SHOWN])))
    page = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(row["split"])}</title>'
    path.write_text(f"{page}<style>{STYLE}</style>{''.join(parts)}</html>\n", encoding="utf-8")


def _text(value: Any) -> str:
    return " to ".join(map(str, value)) if isinstance(value, list) else str(value)


def _table(rows: Sequence[Sequence[Any]]) -> str:
    cells = ("".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) for row in rows)
    return f"<table>{''.join(f'<tr>{row}</tr>' for row in cells)}</table>"


def _clip(row: dict[str, Any]) -> str:
    best, score = row["top5"][0]
    true = f" ({row['true_score']:.1%})" if "true_score" in row else ""
    said = html.escape(f"{row['video_id']}: {row['label']}{true}, predicted {best} ({score:.1%})")
    pictures = "".join(f'<img alt="" src="{data_uri(frame)}">' for frame in _frames(row.get("path")))
    return f'<div class="clip">{pictures}<div>{said}</div></div>'


def _frames(path: str | None) -> list[np.ndarray]:
    """Small frames of a clip, spread over it; none of one that is no longer there or has no file."""
    if path is not None:
        with suppress(OSError, ValueError):
            frames, _ = read_video(
                video_source({"path": path, "bytes": None}),
                lambda info: np.linspace(0, info.total_num_frames - 1, FRAMES).round().astype(int),
                limits=worker_limits(1),
            )
            pictures = list(map(PIL.Image.fromarray, frames))
            for picture in pictures:
                picture.thumbnail((SIDE, SIDE))
            return list(map(np.asarray, pictures))
    return []


def data_uri(picture: np.ndarray) -> str:
    """A picture, uint8 of shape (height, width, 3), as a JPEG in a URI."""
    file = io.BytesIO()
    PIL.Image.fromarray(picture).save(file, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
