"""
A web page for trying a model: users upload a clip, record one or pick an example, and see the predicted classes.

An uploaded clip stays on disk only until it is answered. The pictures of the answer are embedded in the page, so they
are never written to files. The page sends no requests to other hosts. It needs gradio (the extra `demo`).
"""

import html
import json
import os
import shutil
import signal
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..data.video_files import VIDEO_SUFFIXES, list_videos
from ..hub.loaded_models import DType
from ..hub.loading import load_model, load_processor
from ..hub.model_card import describe_config
from ..modeling_videofocalnet import VideoFocalNetForVideoClassification
from .demo_answer import MAX_SECONDS, STYLE, WELCOME, classify_clip, render_answer, thumbnail
from .demo_uploads import MAX_WAITING, UPLOADS, UploadGate
from .inference_form import place_for_inference


if TYPE_CHECKING:
    import gradio

MAX_BYTES = 50 << 20  # default limit of an upload
MAX_EXAMPLES = 12


def list_examples(folder: str | os.PathLike) -> list[Path]:
    """
    Return the first 12 videos of a folder, sorted by path.

    Raises:
        ValueError: If `folder` is not a folder, or contains no videos.
    """
    if not Path(folder).is_dir():
        raise ValueError(f"{folder}: is not a folder; pass a folder of example videos")
    return [Path(video) for video in list_videos([folder])[:MAX_EXAMPLES]]


def build_demo(
    models: Sequence[str],
    *,
    examples: str | os.PathLike | None = None,
    max_bytes: int = MAX_BYTES,
    max_seconds: float = MAX_SECONDS,
    device: str = "auto",
    dtype: DType = "auto",
) -> "gradio.Blocks":
    """
    Build the page. [`serve_demo`] serves it, limits the uploads and deletes all files at the end.

    Args:
        models: Model folders or Hub ids. Each is loaded once; users choose one of them on the page.
        examples: A folder of example videos. The page shows the first 12.
        max_bytes: The upload limit that the page displays, in bytes.
        max_seconds: The maximum duration of a clip, in seconds.
        device, dtype: See [`place`].

    Raises:
        ImportError: If gradio is not installed.
        ValueError: If no model is given, a model cannot be read, the device does not exist, or the folder contains no
            examples.
        VideoDecodeError: If an example cannot be read.
    """
    _refuse_without_gradio()
    import gradio as gr

    if not models:
        raise ValueError("the demo page needs at least one model")
    names = [Path(model).resolve().name if Path(model).is_dir() else model for model in models]
    if len(set(names)) < len(names):
        names = list(models)
    loaded = {
        name: (place_for_inference(load_model(model), device, dtype), load_processor(model))
        for name, model in zip(names, models, strict=True)
    }
    clips = [] if examples is None else list_examples(examples)
    thumbnails = [thumbnail(clip) for clip in clips]

    # one clip at a time, in one thread: allocators and OpenMP keep memory for each thread that has used them
    worker = ThreadPoolExecutor(max_workers=1)

    def work(path: str | os.PathLike, name: str) -> str:
        return render_answer(classify_clip(*loaded[name], path, max_seconds=max_seconds))

    def answer(path: str | os.PathLike, name: str) -> str:
        try:
            return worker.submit(work, path, name).result()
        except (OSError, ValueError) as error:
            # gradio renders messages as HTML
            sentence = html.escape(str(error))
            raise gr.Error(sentence, title="No answer", duration=None, print_exception=False) from error
        except Exception as error:
            sentence = "This clip could not be classified; the server log contains the reason."
            raise gr.Error(sentence, title="No answer", duration=None) from error

    def answer_upload(path: str | None, name: str):
        if path is None:
            return gr.skip()
        # not a string: a string that contains "://" would be fetched as a URL, whatever path it resolves to
        clip = Path(path).resolve()
        place = clip.parent
        if place.parent != Path(file.GRADIO_CACHE).resolve() / UPLOADS:  # not an upload that `serve_demo` accepted
            raise gr.Error("This page only accepts uploaded files.", print_exception=False)
        try:
            return answer(clip, name)
        finally:
            shutil.rmtree(place, ignore_errors=True)

    def answer_example(name: str, event: gr.EventData) -> str:
        return answer(clips[int(event.index)], name)

    limits = f"Up to {max_bytes / 2**20:g} MB and {max_seconds:g} seconds. The file is deleted after its answer."
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
                    file = _as_uploaded(gr.File(label="Your clip", file_types=["video", *VIDEO_SUFFIXES], height=220))
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
                answered = gr.HTML(WELCOME, padding=True, min_height=300)
        model.change(lambda name: _about_model(name, loaded[name][0]), model, about, api_visibility="private")
        # the steps after an answer run in the browser, as the chosen file no longer exists on the server
        welcome = json.dumps(WELCOME)
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
    """Make a component pass on its file unchanged; gradio would copy it, call ffmpeg, or fetch a crafted URL."""

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
        f"**{name}** distinguishes {about['num_labels']} classes. It takes {about['num_frames']} frames of "
        f"{about['image_size']} × {about['image_size']} and has {about['parameters'] / 1e6:.1f} M parameters."  # noqa: RUF001
    )


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

    Uploads are stored in a temporary folder, which is deleted at the end. It contains at most 8 uploads at a time;
    further uploads are refused. Each upload is deleted when it is answered, or after 5 minutes.

    Args:
        models, examples, max_seconds, device, dtype: See [`build_demo`].
        host: The address to listen on. With `"0.0.0.0"`, other machines can reach the page.
        port: The port to listen on.
        max_bytes: The maximum size of an upload, in bytes.

    Raises:
        ImportError, ValueError, VideoDecodeError: See [`build_demo`].
        OSError: If the port is in use.
    """
    _refuse_without_gradio()
    with tempfile.TemporaryDirectory(prefix="dvflnet-demo-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder  # gradio reads it when it is imported and when the page is built
        uploads = Path(folder) / UPLOADS
        uploads.mkdir()
        import gradio as gr
        from starlette.middleware import Middleware

        page = build_demo(
            models, examples=examples, max_bytes=max_bytes, max_seconds=max_seconds, device=device, dtype=dtype
        )
        fonts = ["system-ui", "sans-serif"]
        # SIGTERM ends the process like Ctrl-C, so that the cleanup runs
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            page.launch(
                server_name=host,
                server_port=port,
                max_file_size=max_bytes,
                state_session_capacity=4 * MAX_WAITING,  # a session stores its last answer, including the pictures
                app_kwargs={"middleware": [Middleware(UploadGate, folder=uploads, max_bytes=max_bytes)]},
                theme=gr.themes.Soft(font=fonts, font_mono=["monospace"]),
                css=STYLE,
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


def _refuse_without_gradio():
    if find_spec("gradio") is None:
        raise ImportError("the demo page needs gradio: pip install 'hf_dvflnet[demo]'")


__all__ = ["build_demo", "serve_demo"]
