"""
A web page for trying a model: users upload a clip, record one or pick an example, and see the predicted classes.

gradio (the extra `demo`) receives uploads, limits their size and queues the requests. This module deletes the uploads,
and closes what gradio would fetch or store for any client.
"""

import html
import logging
import os
import re
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch

from ..data.jobs import quiet_videos
from ..data.limits import VideoLimits
from ..data.video_files import VIDEO_SUFFIXES, list_videos
from ..hub.calibration import threshold_of
from ..hub.loaded_models import DType
from ..hub.loading import load_processor
from ..hub.model_folder import describe_config
from ..video_decoding import VideoDecodeError, read_video, video_limits
from ..video_processing_videofocalnet import VideoFocalNetVideoProcessor
from .modulation_maps import ModulationMaps, blend_map, has_modulators, modulation_maps, pixels_to_frames
from .pipeline import best_classes, class_scores, classify, decode_clip, load_placed
from .report import data_uri


logger = logging.getLogger(__name__)
MAX_BYTES = 50 << 20  # default limit of an upload
MAX_SECONDS = 60.0  # default limit of the duration of a clip
# Limits of the sandbox, unless those of the process are stricter. The frames of a clip stay in memory at full size (32
# of 4K fit), and other clips wait until it is decoded.
PAGE_LIMITS = {"max_pixels": 4096 * 2304, "max_memory": 2 << 30, "max_seconds": 15.0}
MAX_EXAMPLES = 12
MAX_WAITING = 16  # requests in the queue
KEPT_SECONDS = 300.0  # how long an upload waits for its answer
SWEEP_SECONDS = 5.0  # how often answered and old uploads are deleted
PICK_EXAMPLE = """element.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button) trigger("click", {index: Number(button.dataset.index)});
});"""


def serve_demo(
    models: Sequence[str],
    *,
    examples: str | os.PathLike | None = None,
    host: str = "127.0.0.1",
    port: int = 7860,
    max_bytes: int = MAX_BYTES,
    max_seconds: float = MAX_SECONDS,
    device: str = "auto",
    dtype: DType = "auto",
):
    """
    Serve the page until the process is interrupted or terminated.

    Uploads are stored in a temporary folder, which is deleted at the end. Each is deleted within 5 seconds of its
    answer, and after 5 minutes without one. Clips are decoded in the sandbox and classified one at a time.

    Args:
        models: Model folders, Hub ids, or folders that [`export_model`] wrote, whose answers have no maps. Each is
            loaded once; users choose one of them on the page.
        examples: A folder of example videos. The page shows the first 12, sorted by path.
        host: The address to listen on. With `"0.0.0.0"`, other machines can reach the page.
        port: The port to listen on.
        max_bytes: The maximum size of an upload, in bytes.
        max_seconds: The maximum duration of a clip, in seconds.
        device, dtype: See [`place`].

    Raises:
        ImportError: If gradio is not installed.
        ValueError: If no model is given, a model cannot be read, the device does not exist, or the folder contains no
            examples.
        VideoDecodeError: If an example cannot be read.
        OSError: If the port is in use.
    """
    if not models:
        raise ValueError("the demo page needs at least one model")
    with tempfile.TemporaryDirectory(prefix="dvflnet-demo-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder  # gradio reads it when it is imported and when the page is built
        try:
            import gradio as gr
            from fastapi import Depends, HTTPException, Request
        except ImportError as error:
            raise ImportError("the demo page needs gradio: pip install 'hf_dvflnet[demo]'") from error

        async def refuse_unused(request: Request):
            # gradio would fetch URLs for any client, and write recordings and the answers of sessions to disk
            if re.search(r"/file[=/]https?:|/deep_link|/process_recording", request.scope["path"]):
                raise HTTPException(404, "This page does not support this request.")

        names = [Path(model).resolve().name if Path(model).is_dir() else model for model in models]
        if len(set(names)) < len(names):
            names = list(models)
        loaded = {
            name: (load_placed(model, device, dtype), load_processor(model))
            for name, model in zip(names, models, strict=True)
        }
        clips = [] if examples is None else [Path(clip) for clip in list_videos([examples])[:MAX_EXAMPLES]]
        page = _build_page(loaded, clips, max_bytes, max_seconds)
        ended = threading.Event()
        threading.Thread(target=_sweep, args=(Path(folder), ended), daemon=True).start()
        # SIGTERM ends the process like Ctrl-C, so that the cleanup runs
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        fonts = ["system-ui", "sans-serif"]  # gradio's own are downloaded
        try:
            page.launch(
                server_name=host,
                server_port=port,
                max_file_size=max_bytes,
                state_session_capacity=2 * MAX_WAITING,  # a session stores its last answer, including the pictures
                app_kwargs={"dependencies": [Depends(refuse_unused)]},
                theme=gr.themes.Soft(font=fonts, font_mono=["monospace"]),
                css=STYLE,
                share=False,
                ssr_mode=False,
                run_history=False,
                enable_monitoring=False,
                footer_links=[],
            )
        finally:
            ended.set()
            page.close()


def _build_page(loaded: dict[str, tuple[Any, Any]], clips: Sequence[Path], max_bytes: int, max_seconds: float) -> Any:
    import gradio as gr

    # One thread: one clip at a time, one process that decodes. Allocators and OpenMP keep memory for each thread, too.
    worker = ThreadPoolExecutor(max_workers=1)

    @lru_cache(maxsize=MAX_WAITING)  # gradio keeps equal uploads as one file, which their first answer deletes
    def classify(path: str, name: str) -> str:
        return render_answer(classify_clip(*loaded[name], path, max_seconds=max_seconds))

    def answer(path: str, name: str) -> str:
        try:
            return worker.submit(classify, path, name).result()
        except (OSError, ValueError) as error:
            return render_refusal(str(error))
        except Exception:
            logger.exception("a clip could not be classified")
            return render_refusal("This clip could not be classified; the server log contains the reason.")

    def answer_upload(upload: dict[str, Any] | None, name: str):
        if upload is None:
            return gr.skip()
        if upload["path"] not in page.upload_file_set:
            return render_refusal("This page only accepts uploaded files.")
        try:
            return answer(upload["path"], name)
        finally:
            with suppress(FileNotFoundError):
                os.utime(os.path.dirname(upload["path"]), (0, 0))  # as if it were old, for the next sweep

    def answer_example(name: str, event: gr.EventData) -> str:
        return answer(str(clips[int(event.index)]), name)

    def describe(name: str) -> str:
        about = describe_config(loaded[name][0].config)
        return (
            f"**{name}** distinguishes {about['num_labels']} classes. It takes {about['num_frames']} frames of "
            f"{about['image_size']} × {about['image_size']} and has {about['parameters'] / 1e6:.1f} M parameters."  # noqa: RUF001
        )

    limits = f"Up to {max_bytes / 2**20:g} MB and {max_seconds:g} seconds. The file is deleted after its answer."
    names = list(loaded)
    with gr.Blocks(title="Video action recognition", analytics_enabled=False) as page:
        gr.Markdown("# Video action recognition")
        with gr.Row(equal_height=False):
            with gr.Column(scale=2, min_width=320):
                model = gr.Dropdown(
                    names, value=names[0], label="Model", interactive=True, visible=len(names) > 1, filterable=False
                )
                about = gr.Markdown(describe(names[0]))
                with gr.Tab("Upload"):
                    file = gr.File(label="Your clip", file_types=["video", *VIDEO_SUFFIXES], height=220)
                    gr.Markdown(limits)
                with gr.Tab("Webcam"):
                    options = gr.WebcamOptions(constraints={"video": {"width": 640, "height": 480}})
                    webcam = gr.Video(sources=["webcam"], webcam_options=options, label="Your clip", height=300)
                    gr.Markdown(limits)
                if clips:
                    with gr.Tab("Examples"):
                        thumbnails = list(worker.map(thumbnail, clips))
                        shown = gr.HTML(_render_examples(clips, thumbnails), js_on_load=PICK_EXAMPLE)
            with gr.Column(scale=3, min_width=320):
                answered = gr.HTML(WELCOME, padding=True, min_height=300)
        model.change(describe, model, about, api_visibility="private")
        for component, arrived in ((file, file.upload), (webcam, webcam.stop_recording)):
            # without `preprocess`, which would copy the file and call ffmpeg
            uploaded = arrived(answer_upload, [component, model], answered, preprocess=False, api_visibility="private")
            uploaded.then(None, outputs=component, js="() => null")  # its file no longer exists
        if clips:
            shown.click(answer_example, model, answered, api_visibility="private")
    page.queue(max_size=MAX_WAITING, api_open=False)
    for block in page.blocks.values():  # gradio would fetch a URL that a request names as the value of any component
        block.async_move_resource_to_block_cache = _keep
    return page


async def _keep(path: Any) -> Any:
    return path


def _render_examples(clips: Sequence[Path], thumbnails: Sequence[str]) -> str:
    buttons = "".join(
        f'<button type="button" data-index="{index}"><img alt="" src="{thumbnail}">{html.escape(clip.stem)}</button>'
        for index, (clip, thumbnail) in enumerate(zip(clips, thumbnails, strict=True))
    )
    return f'<div class="dvflnet-examples">{buttons}</div>'


def _sweep(folder: Path, ended: threading.Event):
    while not ended.wait(SWEEP_SECONDS):
        delete_old_uploads(folder)


def delete_old_uploads(folder: Path):
    """Delete uploads that were answered, or never asked about, and parts of those whose connection broke."""
    for entry in list(folder.iterdir()):
        with suppress(OSError):  # gradio may be writing to it again
            if entry.stat().st_mtime < time.time() - KEPT_SECONDS:
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


# The answer to one clip


@dataclass
class ClipAnswer:
    """The result of classifying one clip."""

    name: str  # of the file
    about: str  # duration, number of frames, frame size and codec of the file
    notes: list[str]  # warnings about the file
    scores: list[tuple[str, float]]  # the best classes and their probabilities, best first
    threshold: float  # below which they are no answer
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
        threshold=threshold_of(model.config),
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
    heading = f"{best}, {share:.0%}" if share >= answer.threshold else f"None of these (best guess: {best})"
    bars = "".join(
        f'<div class="score"><span>{html.escape(label)}</span><div class="track"><div class="bar" style="width: '
        f'{score:.1%}"></div></div><span class="share">{score:.1%}</span></div>'
        for label, score in answer.scores
    )
    notes = "".join(f'<p class="dvflnet-note">{html.escape(note)}</p>' for note in answer.notes)
    times = ", ".join(f"{step} {1000 * seconds:.0f} ms" for step, seconds in answer.seconds.items())
    return (
        f'<div class="dvflnet-answer"><h2>{html.escape(heading)}</h2>'
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
        figures.append(f'<figure><img alt="frame {number + 1}" src="{data_uri(picture)}">{caption}</figure>')
    return f'<div class="strip">{"".join(figures)}</div>'


def thumbnail(path: Path) -> str:
    """The middle frame of a video as a data URI. The limits are those of an answer, so that each example has one."""
    frames, _ = read_video(path, lambda info: np.array([info.total_num_frames // 2]), limits=page_limits())
    picture = PIL.Image.fromarray(frames[0])
    picture.thumbnail((208, 208))
    return data_uri(np.asarray(picture))
