"""The answer of the demo page: one clip classified within the page's limits, and how that is shown as HTML."""

import base64
import html
import io
import os
import re
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch

from ..modeling_videofocalnet import VideoFocalNetForVideoClassification
from ..video_decoding import VideoDecodeError, open_frames, read_video
from ..video_limits import video_limits
from ..video_processing_videofocalnet import VideoFocalNetVideoProcessor
from .map_pictures import blend_map
from .modulation_maps import ModulationMaps, modulation_maps, pixels_to_frames
from .prediction import best_classes, class_scores


# What one clip may be. Pixels are those of a 4K frame: the frames of a clip are held in memory as they were decoded.
MAX_SECONDS = 60.0
MAX_PIXELS = 4096 * 2304
MAX_FRAMES_PER_SECOND = 120
MAX_READING_SECONDS = 15.0  # of each of the two passes over a clip, for which all others wait
# what cameras, phones and browsers record, and the older files of the benchmarks
DECODERS = ("h264", "hevc", "vp8", "vp9", "libdav1d", "mpeg4", "mpeg2video", "mpeg1video")


@dataclass
class ClipAnswer:
    """
    What a model says about a clip.

    Args:
        name (`str`): The file's name.
        scores (`list[tuple[str, float]]`): The best classes, best first, and their probabilities.
        frames (`np.ndarray`): What the model saw, uint8 RGB of shape `(frames, height, width, 3)`.
        indices (`list[int]`): Which frames of the file these are.
        maps ([`ModulationMaps`]): What its modulators weigh.
        seconds (`dict[str, float]`): The time of each step: `read`, `prepare` and `classify`.
        about (`str`): Duration, frames, size and codec of the file.
        notes (`list[str]`): What was odd about the file.
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
    Classify one file, and keep what is worth showing.

    Args:
        model: The classifier, in evaluation mode.
        processor: Its video processor.
        path: The file.
        max_seconds: The longest clip that is taken. It is measured before anything is decoded.
        top_k: Classes to name.

    Raises:
        VideoDecodeError: If the file is no video, or is longer or larger than allowed. The message is a sentence for
            the person who uploaded it: it names the file, and not where it lay.
    """
    name = Path(path).name
    limits = video_limits()
    limits = replace(
        limits,
        max_pixels=min(limits.max_pixels, MAX_PIXELS),
        max_seconds=min(limits.max_seconds, MAX_READING_SECONDS),
        decoders=limits.decoders or DECODERS,
    )
    steps = [time.perf_counter()]
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            with open_frames(path, limits) as (metadata, _):
                _refuse_large(name, metadata, max_seconds)
            frames, metadata = read_video(path, partial(processor.sample_frames, num_clips=1), limits=limits)
    except FileNotFoundError as error:
        raise VideoDecodeError(f"{name}: is no longer there; choose it again") from error
    except (OSError, ValueError) as error:
        sentence = re.sub(r"\[Errno -?\d+\] ", "", str(error))  # FFmpeg's numbers tell nobody anything
        raise VideoDecodeError(sentence.replace(os.fspath(path), name)) from error
    steps.append(time.perf_counter())
    clip = processor(frames, do_sample_frames=False, num_clips=1, num_crops=1, return_tensors="pt")["pixel_values"]
    steps.append(time.perf_counter())
    maps = modulation_maps(model, clip)
    steps.append(time.perf_counter())
    scores = class_scores(torch.from_numpy(maps.logits), model.config)
    notes = {str(warning.message).replace(os.fspath(path), name) for warning in caught}
    return ClipAnswer(
        name=name,
        scores=best_classes(model, scores, top_k),
        frames=pixels_to_frames(clip, processor),
        indices=[int(index) for index in metadata.frames_indices],
        maps=maps,
        seconds=dict(zip(("read", "prepare", "classify"), np.diff(steps).tolist(), strict=True)),
        about=_about(metadata),
        notes=sorted(notes),
    )


def _refuse_large(name: str, metadata: Any, max_seconds: float):
    if (metadata.duration or 0) > max_seconds:
        raise VideoDecodeError(
            f"{name}: lasts {metadata.duration:.1f} seconds, and this page takes {max_seconds:g} at most; cut it"
        )
    if metadata.total_num_frames > max_seconds * MAX_FRAMES_PER_SECOND:
        raise VideoDecodeError(
            f"{name}: has {metadata.total_num_frames} frames, and this page takes "
            f"{max_seconds * MAX_FRAMES_PER_SECOND:.0f} at most; cut it"
        )


def _about(metadata: Any) -> str:
    parts = [f"{metadata.duration:.1f} s"] if metadata.duration else []
    parts.append(f"{metadata.total_num_frames} frames")
    return ", ".join([*parts, f"{metadata.width} × {metadata.height}", metadata.codec])  # noqa: RUF001


# What stands on the page.

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
<p>Upload a clip, record one with the webcam, or pick an example. Here you then read the five likeliest classes, and
see the frames that the model looked at and where its modulators are strong.</p></div>"""


def render_answer(answer: ClipAnswer) -> str:
    """The answer as HTML: bars, frames, maps and times. All text that comes from the file or the model is escaped."""
    best, share = answer.scores[0]
    bars = "".join(
        f'<div class="score"><span>{html.escape(label)}</span><div class="track"><div class="bar" style="width: '
        f'{score:.1%}"></div></div><span class="share">{score:.1%}</span></div>'
        for label, score in answer.scores
    )
    notes = "".join(f'<p class="dvflnet-note">{html.escape(note)}</p>' for note in answer.notes)
    # the last stage knows most, as long as its cells still tell places apart
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
        f"<p>{_milliseconds(sum(answer.seconds.values()))} in all: {times}.</p>"
        f"<h3>What the model saw</h3><p>{len(answer.frames)} frames of the clip, by their number.</p>"
        + _strip(answer.frames, [str(index) for index in answer.indices])
        + "<h3>Where its modulators are strong</h3><p>From blue, weak, to yellow, strong, within a row. Spatial "
        "modulators gather what surrounds a place, temporal ones what happens at that place over time.</p>"
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
    frames, _ = read_video(path, lambda metadata: np.array([metadata.total_num_frames // 2]))
    picture = PIL.Image.fromarray(frames[0])
    picture.thumbnail((208, 208))
    return data_uri(np.asarray(picture))


__all__ = ["MAX_SECONDS", "STYLE", "WELCOME", "ClipAnswer", "classify_clip", "render_answer", "thumbnail"]
