"""
A page on which people try a model: they upload a clip, record one or pick an example, and read the answer.

A clip lies on the disk from its upload to its answer, and no longer. Pictures of the answer are written into the page
itself, so that no file is made of them. The page asks nothing of other hosts. It needs gradio, the extra `demo`.
"""

import asyncio
import base64
import html
import io
import json
import os
import re
import shutil
import signal
import tempfile
import time
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import PIL.Image
import torch

from ..hub.model_folder import describe_config, load_model, load_processor
from ..modeling_videofocalnet import VideoFocalNetForVideoClassification
from ..video_decoding import VideoDecodeError, open_frames, read_video
from ..video_limits import video_limits
from ..video_processing_videofocalnet import VideoFocalNetVideoProcessor
from .map_pictures import blend_map
from .modulation_maps import ModulationMaps, modulation_maps, pixels_to_frames
from .streams import best_classes


if TYPE_CHECKING:
    import gradio

# What one clip may be. Pixels are those of a 4K frame: the frames of a clip are held in memory as they were decoded.
MAX_BYTES = 50 << 20
MAX_SECONDS = 60.0
MAX_PIXELS = 4096 * 2304
MAX_FRAMES_PER_SECOND = 120
MAX_READING_SECONDS = 15.0  # of each of the two passes over a clip, for which all others wait
# what cameras, phones and browsers record, and the older files of the benchmarks
DECODERS = ("h264", "hevc", "vp8", "vp9", "libdav1d", "mpeg4", "mpeg2video", "mpeg1video")

# Clips that may lie on the disk at once, and for how many seconds one may wait for its answer.
MAX_WAITING = 8
MAX_WAITING_SECONDS = 300.0
# An upload that sends nothing holds its place for so long; each byte gives it the time that so many a second take.
MAX_SILENT_SECONDS = 10.0
MIN_BYTES_PER_SECOND = 50_000
MAX_EXAMPLES = 12

_UPLOADS = "uploads"  # the folder of them, in gradio's
_VIDEO_SUFFIXES = {".mp4", ".webm", ".avi", ".mkv", ".mov", ".mpeg", ".mpg", ".m4v"}


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
    scores = torch.from_numpy(maps.logits).softmax(-1)
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

_STYLE = """
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

_WELCOME = """<div class="dvflnet-answer"><h2>Which action is it?</h2>
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
        figures.append(f'<figure><img alt="frame {number + 1}" src="{_data_uri(picture)}">{caption}</figure>')
    return f'<div class="strip">{"".join(figures)}</div>'


def _data_uri(picture: np.ndarray) -> str:
    file = io.BytesIO()
    PIL.Image.fromarray(picture).save(file, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def _thumbnail(path: Path) -> str:
    frames, _ = read_video(path, lambda metadata: np.array([metadata.total_num_frames // 2]))
    picture = PIL.Image.fromarray(frames[0])
    picture.thumbnail((208, 208))
    return _data_uri(np.asarray(picture))


def list_examples(folder: str | os.PathLike) -> list[Path]:
    """
    The first 12 videos of a folder, by name.

    Raises:
        ValueError: If it is no folder, or holds no video.
    """
    if not Path(folder).is_dir():
        raise ValueError(f"{folder}: there is no such folder of examples")
    videos = sorted(path for path in Path(folder).iterdir() if path.suffix.lower() in _VIDEO_SUFFIXES)
    if not videos:
        raise ValueError(f"{folder}: holds no example video ({', '.join(sorted(_VIDEO_SUFFIXES))})")
    return videos[:MAX_EXAMPLES]


def build_demo(
    models: Sequence[str],
    *,
    examples: str | os.PathLike | None = None,
    max_bytes: int = MAX_BYTES,
    max_seconds: float = MAX_SECONDS,
) -> "gradio.Blocks":
    """
    The page. [`serve_demo`] shows it, with the limits of uploads and without files that stay.

    Args:
        models: Folders or Hub ids. They are loaded once, and people choose among them.
        examples: A folder of videos to pick from, of which the first 12 are shown.
        max_bytes: What the page says about the size of an upload.
        max_seconds: The longest clip that is answered.

    Raises:
        ImportError: If gradio is missing.
        ValueError: If there is no model, a model cannot be read, or there are no examples in the folder.
        VideoDecodeError: If an example cannot be read.
    """
    _refuse_without_gradio()
    import gradio as gr

    if not models:
        raise ValueError("the demo page needs at least one model")
    names = [Path(model).resolve().name if Path(model).is_dir() else model for model in models]
    if len(set(names)) < len(names):
        names = list(models)
    loaded = {name: (load_model(model), load_processor(model)) for name, model in zip(names, models, strict=True)}
    clips = [] if examples is None else list_examples(examples)
    thumbnails = [_thumbnail(clip) for clip in clips]

    # one clip after the other, and in one thread, as allocators and OpenMP keep memory for each thread they have seen
    worker = ThreadPoolExecutor(max_workers=1)

    def work(path: str | os.PathLike, name: str) -> str:
        return render_answer(classify_clip(*loaded[name], path, max_seconds=max_seconds))

    def answer(path: str | os.PathLike, name: str) -> str:
        try:
            return worker.submit(work, path, name).result()
        except (OSError, ValueError) as error:
            # gradio shows a message as HTML
            sentence = html.escape(str(error))
            raise gr.Error(sentence, title="No answer", duration=None, print_exception=False) from error
        except Exception as error:
            sentence = "This clip cannot be answered; the log of the page says why."
            raise gr.Error(sentence, title="No answer", duration=None) from error

    def answer_upload(path: str | None, name: str):
        if path is None:
            return gr.skip()
        clip = Path(path).resolve()  # no text: one with "://" in it would be fetched, wherever it resolves to
        place = clip.parent
        if place.parent != Path(file.GRADIO_CACHE).resolve() / _UPLOADS:  # not what `serve_demo` took in
            raise gr.Error("This page answers uploads only.", print_exception=False)
        try:
            return answer(clip, name)
        finally:
            shutil.rmtree(place, ignore_errors=True)

    def answer_example(name: str, event: gr.EventData) -> str:
        return answer(clips[int(event.index)], name)

    limits = f"Up to {max_bytes / 2**20:g} MB and {max_seconds:g} seconds. The file is deleted once it is answered."
    queued: dict[str, Any] = {
        "concurrency_id": "model",
        "concurrency_limit": 1,
        "trigger_mode": "once",
        "api_visibility": "private",
    }
    with gr.Blocks(title="Video action recognition", analytics_enabled=False) as page:
        gr.Markdown("# Video action recognition")
        with gr.Row(equal_height=False):
            with gr.Column(scale=2, min_width=320):
                model = gr.Dropdown(
                    names, value=names[0], label="Model", interactive=True, visible=len(names) > 1, filterable=False
                )
                about = gr.Markdown(_about_model(names[0], loaded[names[0]][0]))
                with gr.Tab("Upload"):
                    file = _as_uploaded(
                        gr.File(label="Your clip", file_types=["video", *sorted(_VIDEO_SUFFIXES)], height=220)
                    )
                    gr.Markdown(limits)
                with gr.Tab("Webcam"):
                    webcam = _as_uploaded(
                        gr.Video(
                            sources=["webcam"],
                            include_audio=False,
                            webcam_options=gr.WebcamOptions(constraints={"video": {"width": 640, "height": 480}}),
                            label="Your clip",
                            height=300,
                        )
                    )
                    gr.Markdown(limits)
                if clips:
                    with gr.Tab("Examples"):
                        shown = gr.HTML(
                            _render_examples(clips, thumbnails),
                            js_on_load="element.addEventListener('click', (event) => { const button = "
                            "event.target.closest('button'); if (button) trigger('click', {index: "
                            "Number(button.dataset.index)}); });",
                        )
            with gr.Column(scale=3, min_width=320):
                answered = gr.HTML(_WELCOME, padding=True, min_height=300)
        model.change(lambda name: _about_model(name, loaded[name][0]), model, about, api_visibility="private")
        # what follows an answer runs in the browser: the file that was chosen is no longer there
        welcome = json.dumps(_WELCOME)
        for component, arrived in ((file, file.upload), (webcam, webcam.stop_recording)):
            uploaded = arrived(answer_upload, [component, model], answered, **queued)
            uploaded.success(None, outputs=component, js="() => null")
            uploaded.failure(None, outputs=[answered, component], js=f"() => [{welcome}, null]")
        if clips:
            picked = shown.click(answer_example, model, answered, **queued)
            picked.failure(None, outputs=answered, js=f"() => {welcome}")
    page.queue(max_size=2 * MAX_WAITING, default_concurrency_limit=1, api_open=False)
    return page


def _as_uploaded(component: Any) -> Any:
    """The component, its file handed on as it is: gradio would copy it, call ffmpeg, or fetch a crafted URL."""

    async def keep(path: Any) -> Any:
        return path

    component.async_move_resource_to_block_cache = keep
    component.preprocess = lambda payload: None if payload is None else payload.path
    return component


def _render_examples(clips: Sequence[Path], thumbnails: Sequence[str]) -> str:
    buttons = "".join(
        f'<button type="button" data-index="{index}"><img alt="" src="{thumbnail}">{html.escape(clip.stem)}</button>'
        for index, (clip, thumbnail) in enumerate(zip(clips, thumbnails, strict=True))
    )
    return f'<div class="dvflnet-examples">{buttons}</div>'


def _about_model(name: str, model: VideoFocalNetForVideoClassification) -> str:
    about = describe_config(model.config)
    return (
        f"**{name}** tells {about['num_labels']} classes apart, from {about['num_frames']} frames of "
        f"{about['image_size']} × {about['image_size']}, with {about['parameters'] / 1e6:.1f} M parameters."  # noqa: RUF001
    )


def serve_demo(
    models: Sequence[str],
    *,
    examples: str | os.PathLike | None = None,
    host: str = "127.0.0.1",
    port: int = 7860,
    max_bytes: int = MAX_BYTES,
    max_seconds: float = MAX_SECONDS,
):
    """
    Show the page until the process is interrupted or terminated.

    Uploads lie in a folder of their own, which is gone in the end. At most 8 lie there at once, the next ones are
    refused; each is deleted when it is answered, or after 5 minutes.

    Args:
        models, examples, max_seconds: As [`build_demo`].
        host: The address to listen on: `"0.0.0.0"` lets other machines in.
        port: The port.
        max_bytes: The largest upload that is taken, in bytes.

    Raises:
        ImportError, ValueError, VideoDecodeError: As [`build_demo`].
        OSError: If the port is taken.
    """
    _refuse_without_gradio()
    with tempfile.TemporaryDirectory(prefix="dvflnet-demo-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder  # gradio reads it when it is imported and when the page is built
        uploads = Path(folder) / _UPLOADS
        uploads.mkdir()
        import gradio as gr
        from starlette.middleware import Middleware

        page = build_demo(models, examples=examples, max_bytes=max_bytes, max_seconds=max_seconds)
        fonts = ["system-ui", "sans-serif"]
        # ends as an interrupt does, which cleans up
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            page.launch(
                server_name=host,
                server_port=port,
                max_file_size=max_bytes,
                state_session_capacity=4 * MAX_WAITING,  # a session holds its last answer, pictures and all
                app_kwargs={"middleware": [Middleware(_Gate, folder=uploads, max_bytes=max_bytes)]},
                theme=gr.themes.Soft(font=fonts, font_mono=["monospace"]),
                css=_STYLE,
                share=False,
                ssr_mode=False,
                pwa=False,
                mcp_server=False,
                run_history=False,
                enable_monitoring=False,
                footer_links=[],
            )
        finally:
            page.close()


class _Gate:
    """
    What stands before gradio's server: it takes uploads, one file each, within limits and into a folder of its own,
    and turns away what the page does not use.

    gradio would keep two uploads of equal bytes in one file, take any number of them, and leave those of broken
    connections behind.
    """

    # of what the page sends, all but uploads goes on to gradio
    _POSTS = ("upload", "join", "cancel", "reset")
    # scripts and styles stand in the page itself; everything else comes from this host
    _POLICY = b"default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:"

    def __init__(self, app: Any, folder: Path, max_bytes: int):
        self.app, self.folder, self.max_bytes = app, folder, max_bytes

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        from starlette.responses import PlainTextResponse

        async def send_with_policy(message):
            if message["type"] == "http.response.start":
                message.setdefault("headers", []).append((b"content-security-policy", self._POLICY))
            await send(message)

        task = scope["path"].rstrip("/").rpartition("/")[2]
        if task == "upload_progress":  # gradio knows of none, and would look for it for three seconds
            return await PlainTextResponse('data: {"msg": "done"}\n\n', media_type="text/event-stream")(
                scope, receive, send
            )
        # gradio would fetch URLs for whoever asks, and write sessions with their pictures to the disk
        foreign = task == "deep_link" or re.search(r"/file[=/]+https?:|/proxy=", scope["path"])
        if foreign or (scope["method"] == "POST" and task not in self._POSTS):
            return await PlainTextResponse("This page has no such service.", 404)(scope, receive, send)
        if scope["method"] == "POST" and task == "upload":
            response = await self.take(scope, receive)
            return await response(scope, receive, send)
        return await self.app(scope, receive, send_with_policy)

    async def take(self, scope, receive):
        """Store an upload, and answer with its path as gradio does, or with a sentence."""
        from starlette.exceptions import HTTPException
        from starlette.requests import ClientDisconnect, Request
        from starlette.responses import JSONResponse, PlainTextResponse

        request = Request(scope, receive)

        async def refuse(status: int, sentence: str):
            # a browser shows an answer only when it has sent everything
            received = 0
            async for chunk in request.stream():
                received += len(chunk)
                if received > 2 * self.max_bytes:
                    break
            return PlainTextResponse(sentence, status)

        length = request.headers.get("content-length", "")
        # in pieces, it would be as long as it likes whatever else it tells
        if not length.isdigit() or "transfer-encoding" in request.headers:
            return await refuse(411, "The upload does not tell its length.")
        if int(length) > self.max_bytes + 10_000:  # what multipart adds
            limit = f"{self.max_bytes / 2**20:g} MB"
            return await refuse(
                413, f"The file is larger than the {limit} this page takes; cut it or make it smaller."
            )
        if len(os.listdir(self.folder)) >= MAX_WAITING:
            return await refuse(503, f"{MAX_WAITING} clips are waiting already; try again in a minute.")
        place = Path(tempfile.mkdtemp(dir=self.folder))
        try:
            clock: Any = asyncio.timeout(MAX_SILENT_SECONDS)
            async with clock:
                latest = asyncio.get_running_loop().time() + MAX_WAITING_SECONDS

                async def receive_in_time():
                    message = await receive()
                    seconds = len(message.get("body", b"")) / MIN_BYTES_PER_SECOND
                    clock.reschedule(min(latest, clock.when() + seconds))
                    return message

                async with Request(scope, receive_in_time).form(max_files=1, max_fields=1) as form:
                    file: Any = form.get("files")
                    if not hasattr(file, "filename"):
                        raise HTTPException(400)
                    path = place / _file_name(file.filename)
                    await asyncio.to_thread(_copy, file.file, path)
        except (HTTPException, ClientDisconnect, TimeoutError, OSError):
            shutil.rmtree(place, ignore_errors=True)
            return PlainTextResponse("The upload did not arrive in one piece; try again.", 400)
        except BaseException:
            shutil.rmtree(place, ignore_errors=True)
            raise
        # should nobody ask for its answer
        asyncio.get_running_loop().call_later(MAX_WAITING_SECONDS, partial(shutil.rmtree, place, ignore_errors=True))
        return JSONResponse([str(path)])


def _copy(file: Any, path: Path):
    with open(path, "wb") as copy:
        shutil.copyfileobj(file, copy, 1 << 20)


def _file_name(name: str | None) -> str:
    """A name that is safe as a file's, and still tells people which file it was."""
    kept = "".join(letter for letter in Path((name or "").replace("\\", "/")).name if letter.isprintable())
    kept = kept.strip(". ").replace("/", "")
    stem, suffix = os.path.splitext(kept)
    return f"{stem[:60]}{suffix[:10]}" or "clip"


def _refuse_without_gradio():
    if find_spec("gradio") is None:
        raise ImportError("the demo page needs gradio: pip install 'hf_dvflnet[demo]'")


__all__ = ["ClipAnswer", "build_demo", "classify_clip", "serve_demo"]
