"""
Predict a large list of videos on a Ray cluster: `predict_with_ray`.

A task decodes and classifies some videos, and returns their rows. This process alone writes, in the blocks of
[`PredictionFile`], so that a run on a cluster and a local one continue each other.
"""

import os
import time
from collections.abc import Iterable, Sequence
from contextlib import closing, nullcontext
from functools import lru_cache, partial
from itertools import chain
from typing import Any, Literal

from torch import nn

from ..data.jobs import connected, map_on_ray
from ..data.limits import VideoLimits
from ..hub.loaded_models import place
from .bulk_prediction import Row, open_run, process_share, write_blocks
from .pipeline import ClipClassifier, batches, decode_clips


VIDEOS_PER_TASK = 16  # a few seconds of work


def predict_with_ray(
    model: Any,
    processor: Any,
    sources: Iterable[str | os.PathLike],
    output: str | os.PathLike,
    *,
    address: str = "auto",
    device: Literal["auto", "cpu", "cuda"] = "auto",
    compile: bool = False,
    views: int = 1,
    top_k: int = 5,
    embeddings: bool = False,
    batch_size: int = 8,
) -> dict[str, Any]:
    """
    Classify videos on a Ray cluster. Rows, files and what happens after an interruption are as in [`predict_to_file`].

    All nodes must have this package, and see the current folder and the videos at the same paths; only this process
    writes. Either of the two functions continues what the other has begun. A task that loses its worker or node is
    run again, at most 5 times; a video that crashes its decoder is a row with `DecoderCrash`.

    Args:
        model: The classifier, on the CPU, in evaluation mode. It is copied to the workers.
        processor, sources, output: As in [`predict_to_file`].
        address: `"auto"` for the cluster that `RAY_ADDRESS` names or that runs on this machine, `"local"` to start one
            on this machine that ends with the call, or `HOST:PORT`. If Ray is already connected, it stays so.
        device: Where the model runs: `"cuda"` on each GPU of the cluster, beside which the cores of its node decode;
            `"cpu"` on each core. `"auto"` takes GPUs if there are any.
        compile: Whether to compile the model, as in [`place`].
        views, top_k, embeddings, batch_size: As in [`predict_to_file`]. Batches have at most 16 videos.

    Returns:
        `videos`, `written`, `failures` and `seconds` as in [`predict_to_file`], and `nodes` and `gpus`, numbers of
        those that the cluster had at the start, or 0 if nothing was computed.

    Raises:
        ImportError: If Ray is not installed.
        ConnectionError: If no cluster can be reached.
        FileExistsError: As in [`predict_to_file`].
        OSError: If Ray gave up. Finished blocks stay.
        ValueError: As in [`predict_to_file`]; if the cluster lacks what `device` needs; or if the model cannot be
            sent.
    """
    if not isinstance(model, nn.Module) or model.device.type != "cpu":
        raise ValueError("Ray takes a model that lies on the CPU, and no exported program; it moves copies to GPUs")
    if device not in ("auto", "cpu", "cuda"):
        raise ValueError(f"with Ray, device must be auto, cpu or cuda, got {device}; Ray chooses which GPU")
    if process_share()[1] > 1:
        raise ValueError("Ray shares the videos by itself; start one process, without a launcher")
    began = time.perf_counter()
    options: dict[str, Any] = {"views": views, "top_k": top_k, "embeddings": embeddings}
    videos, file = open_run(model, processor, sources, output, batch_size=batch_size, **options)
    found = {"nodes": 0, "gpus": 0}
    with nullcontext() if file.complete else connected(address):
        file.begin()
        blocks = {block: file.blocks[block] for block in file.missing()}
        if blocks:
            import ray

            found, resources = _resources(device)
            tasks = (
                [videos[row] for row in rows[first : first + VIDEOS_PER_TASK]]
                for rows in blocks.values()
                for first in range(0, len(rows), VIDEOS_PER_TASK)
            )
            work = partial(
                _classify,
                # in a tuple, Ray leaves it to the task to fetch the model, which a worker does once
                classifier=(ray.put(model), "cuda" if found["gpus"] else "cpu", compile, top_k, embeddings),
                processor=processor,
                views=views,
                batch_size=batch_size,
                num_workers=resources["num_cpus"] if found["gpus"] else 0,
            )
            with closing(map_on_ray(work, tasks, **resources)) as answers:
                write_blocks(file, blocks, chain.from_iterable(answers))
    failures = file.finish()
    return {
        "videos": len(videos),
        "written": sum(map(len, blocks.values())),
        **found,
        "failures": dict(failures.most_common()),
        "seconds": time.perf_counter() - began,
    }


def _resources(device: str) -> tuple[dict[str, int], dict[str, int]]:
    """Numbers of nodes and GPUs of the cluster, and what a task reserves: a core, or a GPU with its share of cores."""
    import ray

    there = [
        (node["Resources"].get("CPU", 0), node["Resources"].get("GPU", 0)) for node in ray.nodes() if node["Alive"]
    ]
    gpus = 0 if device == "cpu" else int(sum(gpus for _, gpus in there))
    if device == "cuda" and not gpus:
        raise ValueError("device cuda: the Ray cluster has no GPU")
    if sum(cpus for cpus, _ in there) < 1:
        raise ValueError("the Ray cluster has no CPU; it takes one to decode")
    if not gpus:
        return {"nodes": len(there), "gpus": 0}, {"num_cpus": 1}
    share = min(int(cpus / gpus) for cpus, gpus in there if gpus)
    return {"nodes": len(there), "gpus": gpus}, {"num_cpus": max(1, share), "num_gpus": 1}


def _classify(
    videos: Sequence[str],
    limits: VideoLimits,
    *,
    classifier: tuple[Any, ...],
    processor: Any,
    views: int,
    batch_size: int,
    num_workers: int,
) -> list[Row]:
    """The rows of the videos of a task."""
    classify = _classifier(*classifier)
    with closing(decode_clips(videos, processor, views=views, num_workers=num_workers, limits=limits)) as clips:
        return [row for batch in batches(clips, batch_size) for row in classify(batch)]


@lru_cache(maxsize=1)
def _classifier(model: Any, device: str, compile: bool, top_k: int, embeddings: bool) -> ClipClassifier:
    import ray

    return ClipClassifier(place(ray.get(model), device, compile=compile), top_k=top_k, embeddings=embeddings)
