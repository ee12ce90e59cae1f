"""
A web page for trying a model: users upload a clip, record one or pick an example, and see the predicted classes.

gradio (the extra `demo`) receives uploads, limits their size, queues the requests and deletes old files. Clips are
decoded in the sandbox.
"""

import html
import os
import re
import signal
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..data.jobs import quiet_videos
from ..data.limits import VideoLimits
from ..data.video_files import list_videos
from ..hub.calibration import threshold_of
from ..hub.loaded_models import DType
from ..hub.loading import load_processor
from ..hub.model_folder import describe_config
from ..video_decoding import VideoDecodeError, video_limits
from ..video_processing_videofocalnet import VideoFocalNetVideoProcessor
from .modulation_maps import blend_map, has_modulators, modulation_maps, pixels_to_frames
from .pipeline import best_classes, class_scores, classify, decode_clip, load_placed


MAX_BYTES = 50 << 20  # default limit of an upload
MAX_SECONDS = 60.0  # default limit of the duration of a clip
# Limits of the sandbox, unless those of the process are stricter. The frames of a clip stay in memory at full size (32
# of 4K fit), and other clips wait until it is decoded.
PAGE_LIMITS = {"max_pixels": 4096 * 2304, "max_memory": 2 << 30, "max_seconds": 15.0}
MAX_EXAMPLES = 12
MAX_WAITING = 16  # requests in the queue
DELETE_CACHE = (60, 300)  # seconds: how often, and how old, files are deleted


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

    Uploads are stored in a temporary folder, which is deleted at the end; each is deleted after 5 minutes. Clips are
    decoded in the sandbox and classified one at a time.

    Args:
        models: Model folders, Hub ids, or folders that [`export_model`] wrote, whose answers have no maps. Each is
            loaded once; users choose one of them on the page.
        examples: A folder of example videos. The page offers the first 12, sorted by path.
        host: The address to listen on. With `"0.0.0.0"`, other machines can reach the page.
        port: The port to listen on.
        max_bytes: The maximum size of an upload, in bytes.
        max_seconds: The maximum duration of a clip, in seconds.
        device, dtype: See [`place`].

    Raises:
        ImportError: If gradio is not installed.
        ValueError: If no model is given, a model cannot be read, the device does not exist, or the folder contains no
            examples.
        OSError: If the port is in use.
    """
    if not models:
        raise ValueError("the demo page needs at least one model")
    with tempfile.TemporaryDirectory(prefix="dvflnet-demo-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder  # gradio reads it when it is imported and when the page is built
        try:
            import gradio as gr
        except ImportError as error:
            raise ImportError("the demo page needs gradio: pip install 'hf_dvflnet[demo]'") from error

        loaded = {model: (load_placed(model, device, dtype), load_processor(model)) for model in models}
        clips = [] if examples is None else [Path(clip) for clip in list_videos([examples])[:MAX_EXAMPLES]]
        page = build_page(loaded, clips, max_seconds)
        # SIGTERM ends the process like Ctrl-C, so that the folder is deleted
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        fonts = ["system-ui", "sans-serif"]  # gradio's own are downloaded
        try:
            page.launch(
                server_name=host,
                server_port=port,
                max_file_size=max_bytes,
                theme=gr.themes.Soft(font=fonts, font_mono=["monospace"]),
                share=False,
                ssr_mode=False,
                enable_monitoring=False,
                footer_links=[],
            )
        finally:
            page.close()


def build_page(loaded: dict[str, tuple[Any, Any]], clips: Sequence[Path], max_seconds: float) -> Any:
    """The page as `gradio.Blocks`, for models with their processors and for example videos."""
    import gradio as gr

    # one thread: one clip at a time, and one process that decodes
    worker = ThreadPoolExecutor(max_workers=1)

    def answer(path: str | None, name: str) -> Any:
        if path is None:
            return gr.skip()
        try:
            if "://" in path:
                raise ValueError("This page only accepts uploaded files.")
            found = worker.submit(classify_clip, *loaded[name], path, max_seconds=max_seconds).result()
        except (OSError, ValueError) as error:
            raise gr.Error(html.escape(str(error)), duration=None, print_exception=False) from error
        scores = found.scores
        if scores[0][1] < found.threshold:
            scores = [(f"{label}?", score) for label, score in scores]
            found.notes.insert(0, f"None of these: all scores are below the model's threshold, {found.threshold:.0%}.")
        return dict(scores), "\n\n".join(map(html.escape, (found.about, *found.notes))), found.pictures

    def answer_example(example: int, name: str) -> Any:
        return answer(str(clips[example]), name)

    def describe(name: str) -> str:
        about = describe_config(loaded[name][0].config)
        return (
            f"It distinguishes {about['num_labels']} classes, takes {about['num_frames']} frames of "
            f"{about['image_size']} x {about['image_size']} and has {about['parameters'] / 1e6:.1f} M parameters."
        )

    names = list(loaded)
    with gr.Blocks(title="Video action recognition", analytics_enabled=False, delete_cache=DELETE_CACHE) as page:
        gr.Markdown("# Video action recognition")
        with gr.Row(equal_height=False):
            with gr.Column():
                model = gr.Dropdown(names, value=names[0], label="Model", info=describe(names[0]))
                video = gr.Video(sources=["upload", "webcam"], label="Your clip")
                gr.Markdown(f"Up to {max_seconds:g} seconds. The file is deleted after 5 minutes.")
                example = gr.Radio(
                    [(clip.stem, number) for number, clip in enumerate(clips)], label="Examples", visible=bool(clips)
                )
            with gr.Column():
                answers = (
                    gr.Label(num_top_classes=5, label="Answer"),
                    gr.Markdown(),
                    gr.Gallery(label="What the model saw", columns=8, object_fit="contain", interactive=False),
                )
        model.change(lambda name: gr.Dropdown(info=describe(name)), model, model, api_visibility="private")
        for arrived in (video.upload, video.stop_recording):
            arrived(answer, [video, model], answers, api_visibility="private")
        example.input(answer_example, [example, model], answers, api_visibility="private")
    page.queue(max_size=MAX_WAITING, api_open=False)
    for block in page.blocks.values():  # gradio would fetch a URL that a request names as the value of any component
        block.async_move_resource_to_block_cache = _keep
    return page


async def _keep(path: Any) -> Any:
    return path


# The answer to one clip


@dataclass
class ClipAnswer:
    """The result of classifying one clip."""

    about: str  # name, duration, number of frames, frame size and codec of the file
    notes: list[str]  # warnings about the file
    scores: list[tuple[str, float]]  # the best classes and their probabilities, best first
    threshold: float  # below which they are no answer
    pictures: list[tuple[np.ndarray, str]]  # what the model saw, then the maps of a Video-FocalNet, with captions


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

    Raises:
        VideoDecodeError: If the file is not a video, or is longer or larger than allowed. The message is written for
            the person who uploaded the file: it contains the file name, but not the path.
    """
    name = Path(path).name
    with quiet_videos():
        found = decode_clip(path, processor, limits=page_limits(), max_duration=max_seconds)
    if isinstance(found.error, (OSError, ValueError)):
        sentence = re.sub(r"\[Errno -?\d+\] ", "", str(found.error))  # FFmpeg's error numbers do not help the user
        raise VideoDecodeError(sentence.replace(os.fspath(path), name))
    if found.pixel_values is None or found.info is None:
        raise RuntimeError(f"{name}: cannot be read") from found.error
    clip, info = found.pixel_values[None], found.info
    frames = pixels_to_frames(clip, processor)
    pictures = [
        (frame, f"frame {index}") for frame, index in zip(frames, np.asarray(info.frames_indices), strict=True)
    ]
    if has_modulators(model):
        maps = modulation_maps(model, clip)
        scores = class_scores(torch.from_numpy(maps.logits), model.config)
        # the last stage whose maps have more than 4 rows and columns: coarser ones do not show where something is
        stage = max((n for n, norms in enumerate(maps.spatial) if min(norms.shape[1:]) > 4), default=0)
        for kind, norms in (("spatial", maps.spatial[stage]), ("temporal", maps.temporal[stage])):
            drawn = blend_map(frames, norms, maps.strides[stage])
            pictures += [(picture, f"{kind} modulators, stage {stage + 1}") for picture in drawn]
    else:
        scores = classify(model, clip)[0]
    duration = f"{info.duration:.1f} s, " if info.duration else ""
    return ClipAnswer(
        about=f"{name}: {duration}{info.total_num_frames} frames, {info.width} x {info.height}, {info.codec}",
        notes=sorted({remark.replace(os.fspath(path), name) for remark in info.remarks}),
        scores=best_classes(model, scores, top_k),
        threshold=threshold_of(model.config),
        pictures=pictures,
    )
