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
from ..modeling_videofocalnet import VideoFocalNetForVideoClassification
from ..video_decoding import VideoDecodeError, VideoInfo, read_video, video_limits
from ..video_processing_videofocalnet import VideoFocalNetVideoProcessor
from .modulation_maps import ModulationMaps, blend_map, modulation_maps, pixels_to_frames
from .pipeline import best_classes, class_scores


# Limits of one clip. MAX_PIXELS is a 4K frame, because the decoded frames of a clip stay in memory at full size.
MAX_SECONDS = 60.0
MAX_PIXELS = 4096 * 2304
MAX_FRAMES_PER_SECOND = 120
MAX_READING_SECONDS = 15.0  # all other clips wait meanwhile


@dataclass
class ClipAnswer:
    """
    The result of classifying one clip.

    Args:
        name (`str`): The file name.
        scores (`list[tuple[str, float]]`): The best classes and their probabilities, best first.
        frames (`np.ndarray`): The frames that the model saw, uint8 RGB of shape `(frames, height, width, 3)`.
        indices (`list[int]`): The indices of these frames in the file.
        maps ([`ModulationMaps`]): The modulation maps of the clip.
        seconds (`dict[str, float]`): The duration of each step: `read`, `prepare` and `classify`.
        about (`str`): Duration, number of frames, frame size and codec of the file.
        notes (`list[str]`): Warnings about the file.
    """

    name: str
    scores: list[tuple[str, float]]
    frames: np.ndarray
    indices: list[int]
    maps: ModulationMaps
    seconds: dict[str, float]
    about: str
    notes: list[str]


def classify_clip(
    model: VideoFocalNetForVideoClassification,
    processor: VideoFocalNetVideoProcessor,
    path: str | os.PathLike,
    *,
    max_seconds: float = MAX_SECONDS,
    top_k: int = 5,
) -> ClipAnswer:
    """
    Classify one file and collect what the demo page shows.

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

    def sample(info: VideoInfo) -> np.ndarray:
        _refuse_large(name, info, max_seconds)
        return processor.sample_frames(info, num_clips=1)

    steps = [time.perf_counter()]
    try:
        with quiet_videos():
            frames, metadata = read_video(path, sample, limits=_page_limits())
    except FileNotFoundError as error:
        raise VideoDecodeError(f"{name}: the file no longer exists; choose it again") from error
    except (OSError, ValueError) as error:
        sentence = re.sub(r"\[Errno -?\d+\] ", "", str(error))  # FFmpeg's error numbers do not help the user
        raise VideoDecodeError(sentence.replace(os.fspath(path), name)) from error
    steps.append(time.perf_counter())
    clip = processor(frames, do_sample_frames=False, num_clips=1, num_crops=1, return_tensors="pt")["pixel_values"]
    steps.append(time.perf_counter())
    maps = modulation_maps(model, clip)
    steps.append(time.perf_counter())
    scores = class_scores(torch.from_numpy(maps.logits), model.config)
    notes = {remark.replace(os.fspath(path), name) for remark in metadata.remarks}
    return ClipAnswer(
        name=name,
        scores=best_classes(model, scores, top_k),
        frames=pixels_to_frames(clip, processor),
        indices=np.asarray(metadata.frames_indices).tolist(),
        maps=maps,
        seconds=dict(zip(("read", "prepare", "classify"), np.diff(steps).tolist(), strict=True)),
        about=_about(metadata),
        notes=sorted(notes),
    )


def _page_limits() -> VideoLimits:
    limits = video_limits()
    return replace(
        limits,
        max_pixels=min(limits.max_pixels, MAX_PIXELS),
        max_seconds=min(limits.max_seconds, MAX_READING_SECONDS),
        sandbox=True,
    )


def _refuse_large(name: str, metadata: Any, max_seconds: float):
    if (metadata.duration or 0) > max_seconds:
        raise VideoDecodeError(
            f"{name}: lasts {metadata.duration:.1f} seconds, but this page accepts at most {max_seconds:g}; shorten it"
        )
    if metadata.total_num_frames > max_seconds * MAX_FRAMES_PER_SECOND:
        raise VideoDecodeError(
            f"{name}: has {metadata.total_num_frames} frames, but this page accepts at most "
            f"{max_seconds * MAX_FRAMES_PER_SECOND:.0f}; shorten it"
        )


def _about(metadata: Any) -> str:
    parts = [f"{metadata.duration:.1f} s"] if metadata.duration else []
    parts.append(f"{metadata.total_num_frames} frames")
    return ", ".join([*parts, f"{metadata.width} × {metadata.height}", metadata.codec])  # noqa: RUF001


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
with the frames that the model saw and the regions where its modulators are strong.</p></div>"""


def render_answer(answer: ClipAnswer) -> str:
    """Render an answer as HTML: score bars, frames, maps and times. All text from the file or the model is escaped."""
    best, share = answer.scores[0]
    bars = "".join(
        f'<div class="score"><span>{html.escape(label)}</span><div class="track"><div class="bar" style="width: '
        f'{score:.1%}"></div></div><span class="share">{score:.1%}</span></div>'
        for label, score in answer.scores
    )
    notes = "".join(f'<p class="dvflnet-note">{html.escape(note)}</p>' for note in answer.notes)
    # expand the last stage whose maps have more than 4 rows and columns: coarser maps do not show where something is
    telling = max((n for n, norms in enumerate(answer.maps.spatial, start=1) if min(norms.shape[1:]) > 4), default=1)
    stages = "".join(
        f"<details{' open' if stage == telling else ''}><summary>Stage {stage} of "
        f"{len(answer.maps.spatial)}, {spatial.shape[-1]} × {spatial.shape[-2]} cells</summary>"  # noqa: RUF001
        + "".join(
            f'<div class="kind">{kind}</div>' + _strip(blend_map(answer.frames, norms, stride=stride))
            for kind, norms in (("spatial", spatial), ("temporal", temporal))
        )
        + "</details>"
        for stage, (spatial, temporal, stride) in enumerate(
            zip(answer.maps.spatial, answer.maps.temporal, answer.maps.strides, strict=True), start=1
        )
    )
    times = ", ".join(
        f"{verb} {_milliseconds(answer.seconds[step])}"
        for step, verb in (("read", "reading the file"), ("prepare", "resizing"), ("classify", "the model"))
    )
    return (
        f'<div class="dvflnet-answer"><h2>{html.escape(best)}, {share:.0%}</h2>'
        f"<p>{html.escape(answer.name)}: {html.escape(answer.about)}</p>{notes}{bars}"
        f"<p>{_milliseconds(sum(answer.seconds.values()))} in total: {times}.</p>"
        f"<h3>What the model saw</h3><p>{len(answer.frames)} frames of the clip, with their frame numbers.</p>"
        + _strip(answer.frames, [str(index) for index in answer.indices])
        + "<h3>Where its modulators are strong</h3><p>Within each row, blue is weak and yellow is strong. Spatial "
        "modulators gather context around a position, temporal modulators at the same position over time.</p>"
        + f"{stages}</div>"
    )


def _milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:.0f} ms"


def _strip(pictures: np.ndarray, captions: Sequence[str] = ()) -> str:
    figures = []
    for number, picture in enumerate(pictures):
        caption = f"<figcaption>{captions[number]}</figcaption>" if captions else ""
        figures.append(f'<figure><img alt="frame {number + 1}" src="{data_uri(picture)}">{caption}</figure>')
    return f'<div class="strip">{"".join(figures)}</div>'


def data_uri(picture: np.ndarray) -> str:
    file = io.BytesIO()
    PIL.Image.fromarray(picture).save(file, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def thumbnail(path: Path) -> str:
    # with the limits of an answer: a video that the page would refuse is no example
    frames, _ = read_video(path, lambda metadata: np.array([metadata.total_num_frames // 2]), limits=_page_limits())
    picture = PIL.Image.fromarray(frames[0])
    picture.thumbnail((208, 208))
    return data_uri(np.asarray(picture))


__all__ = ["MAX_SECONDS", "STYLE", "WELCOME", "ClipAnswer", "classify_clip", "render_answer", "thumbnail"]
