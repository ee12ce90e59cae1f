"""An evaluation as one page that opens without network: figures, charts, and frames of the clips that went wrong."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from ..data.limits import worker_limits
from ..data.video_column import video_source
from ..plots import page
from ..video_decoding import read_video


SHOWN = 20  # clips of a contact sheet
FRAMES = 3  # of a clip
SIDE = 110  # of a frame, in pixels


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
    figures = [{"": name, "value": _text(value)} for name, value in row.items()]
    sections: list[tuple[str, Sequence[str]]] = [("Figures", [page.table(figures)])]
    sections += [(heading, [page.picture(chart.read_bytes())]) for heading, chart in charts.items()]
    if differences:
        sections.append(("Clips that one of both models has right", [page.table(differences)]))
    sections += [(heading, [page.contact_sheet(map(_shown, clips[:SHOWN]))]) for heading, clips in sheets.items()]
    page.write_page(path, row["split"], sections)


def _text(value: Any) -> str:
    return " to ".join(map(str, value)) if isinstance(value, list) else str(value)


def _shown(row: dict[str, Any]) -> tuple[list[np.ndarray], str]:
    """Small frames of a clip, none if it is no longer there or has no file; and what was said of it."""
    best, score = row["top5"][0]
    true = f" ({row['true_score']:.1%})" if "true_score" in row else ""
    pictures = []
    if row.get("path") is not None:
        with suppress(OSError, ValueError):
            frames, _ = read_video(
                video_source({"path": row["path"], "bytes": None}),
                lambda info: np.linspace(0, info.total_num_frames - 1, FRAMES).round().astype(int),
                limits=worker_limits(1),
            )
            pictures = list(map(PIL.Image.fromarray, frames))
            for picture in pictures:
                picture.thumbnail((SIDE, SIDE))
    return list(map(np.asarray, pictures)), f"{row['video_id']}: {row['label']}{true}, predicted {best} ({score:.1%})"
