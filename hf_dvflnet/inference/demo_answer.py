"""Classify one clip for the demo page, within the page's limits, and render the answer as HTML."""

import base64
import html
import io
import os
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch

from ..data.jobs import quiet_videos
from ..data.limits import VideoLimits
from ..video_decoding import VideoDecodeError, read_video, video_limits
from ..video_processing_videofocalnet import VideoFocalNetVideoProcessor
from .modulation_maps import ModulationMaps, blend_map, has_modulators, modulation_maps, pixels_to_frames
from .pipeline import best_classes, class_scores, classify, decode_clip


MAX_SECONDS = 60.0  # default limit of the duration of a clip
# Limits of the sandbox, unless those of the process are stricter. The frames of a clip stay in memory at full size (32
# of 4K fit), and other clips wait until it is decoded.
PAGE_LIMITS = {"max_pixels": 4096 * 2304, "max_memory": 2 << 30, "max_seconds": 15.0}


@dataclass
class ClipAnswer:
    """The result of classifying one clip."""

    name: str  # of the file
    about: str  # duration, number of frames, frame size and codec of the file
    notes: list[str]  # warnings about the file
    scores: list[tuple[str, float]]  # the best classes and their probabilities, best first
    frames: np.ndarray  # that the model saw, uint8 RGB of shape (frames, height, width, 3)
    indices: list[int]  # of these frames in the file
    maps: ModulationMaps | None  # of a Video-FocalNet
    seconds: dict[str, float]  # that each step took


def page_limits() -> VideoLimits:
    limits = video_limits()
    stricter: dict[str, Any] = {name: min(limit, getattr(limits, name)) for name, limit in PAGE_LIMITS.items()}
    return replace(limits, sandbox=True, **stricter)


def classify_clip(
    model: Any,
    processor: VideoFocalNetVideoProcessor,
    path: str | os.PathLike,
    *,
    max_seconds: float = MAX_SECONDS,
    top_k: int = 5,
) -> ClipAnswer:
    """
    Classify one file, which is decoded in the sandbox, and collect what the demo page shows.

    Args:
        model: The classifier, in evaluation mode.
        processor: Its video processor.
        path: The file.
        max_seconds: The maximum duration of the clip. It is checked before any frame is decoded.
        top_k: The number of classes to return.

    Raises:
        VideoDecodeError: If the file is not a video, or is longer or larger than allowed. The message is written for
            the person who uploaded the file: it contains the file name, but not the path.
    """
    name = Path(path).name

    steps = [time.perf_counter()]
    with quiet_videos():
        found = decode_clip(path, processor, limits=page_limits(), max_duration=max_seconds)
    if isinstance(found.error, FileNotFoundError):
        raise VideoDecodeError(f"{name}: the file no longer exists; choose it again")
    if isinstance(found.error, (OSError, ValueError)):
        sentence = re.sub(r"\[Errno -?\d+\] ", "", str(found.error))  # FFmpeg's error numbers do not help the user
        raise VideoDecodeError(sentence.replace(os.fspath(path), name))
    if found.pixel_values is None or found.info is None:
        raise RuntimeError(f"{name}: cannot be read") from found.error
    clip, info = found.pixel_values[None], found.info
    steps.append(time.perf_counter())
    maps = modulation_maps(model, clip) if has_modulators(model) else None
    scores = classify(model, clip)[0] if maps is None else class_scores(torch.from_numpy(maps.logits), model.config)
    steps.append(time.perf_counter())
    duration = f"{info.duration:.1f} s, " if info.duration else ""
    return ClipAnswer(
        name=name,
        about=f"{duration}{info.total_num_frames} frames, {info.width} × {info.height}, {info.codec}",  # noqa: RUF001
        notes=sorted({remark.replace(os.fspath(path), name) for remark in info.remarks}),
        scores=best_classes(model, scores, top_k),
        frames=pixels_to_frames(clip, processor),
        indices=np.asarray(info.frames_indices).tolist(),
        maps=maps,
        seconds=dict(zip(("reading the file", "the model"), np.diff(steps).tolist(), strict=True)),
    )


# HTML and CSS of the page.

STYLE = """
.dvflnet-answer h2 { font-size: 1.5rem; margin: 0 0 .2rem; overflow-wrap: anywhere; }
.dvflnet-answer h3 { font-size: 1rem; margin: 1.4rem 0 .2rem; }
.dvflnet-answer p { margin: .1rem 0 .5rem; opacity: .8; font-size: .875rem; overflow-wrap: anywhere; }
.dvflnet-answer .score { display: grid; grid-template-columns: minmax(7rem, 3fr) 5fr 3.6rem; gap: .75rem;
  align-items: center; margin: .35rem 0; }
.dvflnet-answer .score span { overflow-wrap: anywhere; }
.dvflnet-answer .score .track { height: .9rem; border-radius: .25rem; background: var(--border-color-primary); }
.dvflnet-answer .score .bar { height: 100%; border-radius: .25rem; background: var(--color-accent); min-width: 2px; }
.dvflnet-answer .score .share { text-align: right; font-variant-numeric: tabular-nums; }
.dvflnet-answer .strip { display: grid; gap: .3rem; margin: .2rem 0 .6rem;
  grid-template-columns: repeat(auto-fill, minmax(max(3.6rem, (100% - 8 * .3rem) / 8), 1fr)); }
.dvflnet-answer .strip figure { margin: 0; }
.dvflnet-answer .strip img { width: 100%; display: block; border-radius: .2rem; }
.dvflnet-answer .strip figcaption, .dvflnet-answer .kind { font-size: .75rem; opacity: .8; }
.dvflnet-answer .strip figcaption { text-align: center; }
.dvflnet-answer summary { cursor: pointer; }
.dvflnet-note { border-left: .25rem solid var(--color-accent); padding: .4rem .8rem; }
.dvflnet-examples { display: flex; flex-wrap: wrap; gap: .5rem; }
.dvflnet-examples button { width: 7.3rem; padding: .3rem; border: 1px solid var(--border-color-primary);
  border-radius: .4rem; background: var(--block-background-fill); color: inherit; cursor: pointer;
  font-size: .75rem; font-weight: normal; overflow-wrap: anywhere; }
.dvflnet-examples button:hover, .dvflnet-examples button:focus { border-color: var(--color-accent); }
.dvflnet-examples img { width: 100%; aspect-ratio: 4 / 3; object-fit: cover; border-radius: .2rem; }
"""

WELCOME = """<div class="dvflnet-answer"><h2>Which action is it?</h2>
<p>Upload a clip, record one with the webcam, or pick an example. The five most likely classes then appear here,
with the frames that the model saw.</p></div>"""


def render_answer(answer: ClipAnswer) -> str:
    """Render an answer as HTML: score bars, frames, maps and times. All text from the file or the model is escaped."""
    best, share = answer.scores[0]
    bars = "".join(
        f'<div class="score"><span>{html.escape(label)}</span><div class="track"><div class="bar" style="width: '
        f'{score:.1%}"></div></div><span class="share">{score:.1%}</span></div>'
        for label, score in answer.scores
    )
    notes = "".join(f'<p class="dvflnet-note">{html.escape(note)}</p>' for note in answer.notes)
    times = ", ".join(f"{step} {1000 * seconds:.0f} ms" for step, seconds in answer.seconds.items())
    return (
        f'<div class="dvflnet-answer"><h2>{html.escape(best)}, {share:.0%}</h2>'
        f"<p>{html.escape(answer.name)}: {html.escape(answer.about)}</p>{notes}{bars}"
        f"<p>{1000 * sum(answer.seconds.values()):.0f} ms in total: {times}.</p>"
        f"<h3>What the model saw</h3><p>{len(answer.frames)} frames of the clip, with their frame numbers.</p>"
        + _strip(answer.frames, [str(index) for index in answer.indices])
        + ("" if answer.maps is None else _render_maps(answer.frames, answer.maps))
        + "</div>"
    )


def _render_maps(frames: np.ndarray, maps: ModulationMaps) -> str:
    # expand the last stage whose maps have more than 4 rows and columns: coarser maps do not show where something is
    telling = max((n for n, norms in enumerate(maps.spatial, start=1) if min(norms.shape[1:]) > 4), default=1)
    stages = "".join(
        f"<details{' open' if stage == telling else ''}><summary>Stage {stage} of "
        f"{len(maps.spatial)}, {spatial.shape[-1]} × {spatial.shape[-2]} cells</summary>"  # noqa: RUF001
        + "".join(
            f'<div class="kind">{kind}</div>' + _strip(blend_map(frames, norms, stride=stride))
            for kind, norms in (("spatial", spatial), ("temporal", temporal))
        )
        + "</details>"
        for stage, (spatial, temporal, stride) in enumerate(
            zip(maps.spatial, maps.temporal, maps.strides, strict=True), start=1
        )
    )
    return (
        "<h3>Where its modulators are strong</h3><p>Within each row, blue is weak and yellow is strong. Spatial "
        "modulators gather context around a position, temporal modulators at the same position over time.</p>"
        f"{stages}"
    )


def render_refusal(reason: str) -> str:
    return f'<div class="dvflnet-answer"><h2>No answer</h2><p class="dvflnet-note">{html.escape(reason)}</p></div>'


def _strip(pictures: np.ndarray, captions: Sequence[str] = ()) -> str:
    figures = []
    for number, picture in enumerate(pictures):
        caption = f"<figcaption>{captions[number]}</figcaption>" if captions else ""
        figures.append(f'<figure><img alt="frame {number + 1}" src="{_data_uri(picture)}">{caption}</figure>')
    return f'<div class="strip">{"".join(figures)}</div>'


def thumbnail(path: Path) -> str:
    """The middle frame of a video as a data URI. The limits are those of an answer, so that each example has one."""
    frames, _ = read_video(path, lambda info: np.array([info.total_num_frames // 2]), limits=page_limits())
    picture = PIL.Image.fromarray(frames[0])
    picture.thumbnail((208, 208))
    return _data_uri(np.asarray(picture))


def _data_uri(picture: np.ndarray) -> str:
    file = io.BytesIO()
    PIL.Image.fromarray(picture).save(file, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


__all__ = ["classify_clip", "render_answer", "render_refusal", "thumbnail"]
