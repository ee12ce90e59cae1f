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
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..data.video_files import VIDEO_SUFFIXES, list_videos
from ..hub.loaded_models import DType
from ..hub.loading import load_processor
from ..hub.model_folder import describe_config
from .demo_answer import MAX_SECONDS, STYLE, WELCOME, classify_clip, render_answer, render_refusal, thumbnail
from .pipeline import load_placed


logger = logging.getLogger(__name__)
MAX_BYTES = 50 << 20  # default limit of an upload
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


__all__ = ["delete_old_uploads", "serve_demo"]
