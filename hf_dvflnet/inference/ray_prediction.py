"""
Classifies as many videos as there are on a Ray cluster, into one file: `predict_with_ray`.

A pipeline of Ray Data streams: tasks on CPUs decode, each in a child process that may crash, actors run the model, and
this process writes. It alone touches the output, in the blocks of [`PredictionFile`], which also the local run writes.

These blocks, rather than Ray Data's checkpoints, are what an interrupted run resumes from. A checkpoint of Ray Data is
a second record of rows, kept by the workers on storage that all of them share, beside Parquet files in the order in
which tasks end. It refuses neither another model nor other settings, and knows no run without Ray.
"""

import logging
import os
import pickle  # between Ray's own processes, which exchange nothing else
import time
import warnings
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing, nullcontext
from functools import partial
from typing import Any, Literal

import pyarrow
from torch import nn
from tqdm.auto import tqdm

from ..data.jobs import RETRIES, WorkerState, connected, quiet_videos
from ..hub.loaded_models import place
from .bulk_prediction import PredictionFile, Row, open_run, process_share
from .pipeline import Clip, ClipClassifier, decode_clip


VIDEOS_PER_TASK = 16  # a few seconds of work
# What a task that decodes and a model without a GPU reserve: a core has one of each, and whichever is ahead waits.
CORE_OF_EACH = 0.5


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
        device: Where copies of the model run: `"cuda"` for one on each GPU of the cluster, `"cpu"` for one on a core,
            and more as needed, up to one on each. `"auto"` takes GPUs if there are any.
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
    options: dict[str, Any] = {"top_k": top_k, "embeddings": embeddings}
    videos, file = open_run(model, processor, sources, output, views=views, batch_size=batch_size, **options)
    found = {"nodes": 0, "gpus": 0}
    with nullcontext() if file.complete else connected(address):
        file.begin()
        blocks = file.missing()
        if blocks:
            from ray.exceptions import ActorUnavailableError

            found = _resources(device)
            here = WorkerState.here()
            clips = partial(_decode, processor=processor, views=views, state=here, size=batch_size)
            for attempt in range(RETRIES + 1):
                missing = file.missing()
                tasks = _tasks(file, missing, videos)
                try:
                    with closing(_pipeline(tasks, clips, model, found["gpus"], compile, options)) as answers:
                        _write(file, missing, answers)
                    break
                except ActorUnavailableError:  # Ray Data called an actor before Ray knew that its node is gone
                    if attempt == RETRIES:
                        raise
    failures = file.finish()
    return {
        "videos": len(videos),
        "written": sum(len(file.blocks[block]) for block in blocks),
        **found,
        "failures": dict(failures.most_common()),
        "seconds": time.perf_counter() - began,
    }


def _resources(device: str) -> dict[str, int]:
    import ray
    import ray.data  # sets up its logging

    logging.getLogger("ray.data").setLevel(logging.WARNING)
    logging.getLogger("ray.data.exceptions").setLevel(logging.CRITICAL)  # traces of errors, which are raised too
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)  # warns that there is one bar, ours
    there = ray.cluster_resources()
    cpus, gpus = int(there.get("CPU", 0)), 0 if device == "cpu" else int(there.get("GPU", 0))
    if device == "cuda" and not gpus:
        raise ValueError("device cuda: the Ray cluster has no GPU")
    if cpus < 1:
        raise ValueError("the Ray cluster has no CPU; it takes one to decode")
    return {"nodes": sum(node["Alive"] for node in ray.nodes()), "gpus": gpus}


def _tasks(file: PredictionFile, blocks: Sequence[int], videos: Sequence[str]) -> Iterator[list[tuple[int, str]]]:
    """Numbers and names of the videos of each task."""
    for block in blocks:
        rows = file.blocks[block]
        for first in range(0, len(rows), VIDEOS_PER_TASK):
            yield [(row, videos[row]) for row in rows[first : first + VIDEOS_PER_TASK]]


def _pipeline(
    tasks: Iterable[Any], decode: Any, model: nn.Module, gpus: int, compile: bool, options: dict[str, Any]
) -> Generator[tuple[int, Row | str], None, None]:
    """Number and row of each video, as they come; instead of a row, the message of an error that ends the run."""
    import ray
    from ray.data import ActorPoolStrategy, DataContext, from_items

    context = DataContext.get_current().copy()
    context.enable_progress_bars = context.print_on_execution_start = False
    actors = gpus or int(ray.cluster_resources()["CPU"])
    shared = [ray.put(model)]  # in a list, Ray leaves it to the actor to fetch it; held here, for actors to come
    with DataContext.current(context):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of arguments that the versions of setup.cfg have
            # one item is a block of Ray Data, and so a task
            items = [{"pickle": pickle.dumps(task)} for task in tasks]
            # functions for what Ray Data would repeat for ever
            rows = (
                from_items(items, override_num_blocks=len(items))
                .map_batches(
                    decode,
                    batch_size=None,
                    batch_format="pyarrow",
                    num_cpus=1 if gpus else CORE_OF_EACH,
                    ray_remote_args_fn=partial(dict, max_retries=RETRIES),
                )
                .map_batches(
                    _Classify,
                    fn_constructor_args=(shared, "cuda" if gpus else "cpu", compile, options),
                    batch_size=None,
                    batch_format="pyarrow",
                    compute=ActorPoolStrategy(min_size=1, max_size=actors),
                    ray_remote_args_fn=partial(dict, max_restarts=RETRIES, max_task_retries=RETRIES),
                    num_cpus=0 if gpus else CORE_OF_EACH,
                    num_gpus=1 if gpus else None,
                )
            )
        for table in rows.iter_batches(batch_size=None, batch_format="pyarrow"):
            for answers in _items(table):
                yield from answers


def _table(item: Any) -> pyarrow.Table:
    """An item as Ray Data carries it: Arrow has no strings that are not UTF-8, as names of files may be."""
    return pyarrow.table({"pickle": pyarrow.array([pickle.dumps(item, protocol=5)], pyarrow.large_binary())})


def _items(table: pyarrow.Table) -> Iterator[Any]:
    for item in table["pickle"]:
        yield pickle.loads(item.as_py())  # noqa: S301


def _decode(
    table: pyarrow.Table, *, processor: Any, views: int, state: WorkerState, size: int
) -> Iterator[pyarrow.Table]:
    """Decode the videos of a task, and give them to the model as batches of `size`, as soon as one is full."""
    decode = partial(decode_clip, processor=processor, views=views, limits=state.take())
    for videos in _items(table):
        for first in range(0, len(videos), size):
            batch = videos[first : first + size]
            with quiet_videos():
                clips = [(row, decode(video)) for row, video in batch]
            yield _table(clips)


class _Classify:
    """The model, in an actor."""

    def __init__(self, model: list[Any], device: str, compile: bool, options: dict[str, Any]):
        import ray

        self.classifier = ClipClassifier(place(ray.get(model[0]), device, compile=compile), **options)

    def __call__(self, table: pyarrow.Table) -> Iterator[pyarrow.Table]:
        batch: list[tuple[int, Clip]]
        for batch in _items(table):
            try:
                rows: list[Any] = self.classifier([clip for _, clip in batch])
            except ValueError as error:  # of a video, by name; raised here, it would come wrapped in traces of Ray
                rows = [str(error)] * len(batch)
            yield _table([(number, row) for (number, _), row in zip(batch, rows, strict=True)])


def _write(file: PredictionFile, blocks: Sequence[int], answers: Iterable[tuple[int, Row | str]]):
    """Write blocks as soon as they are whole."""
    rows_per_block = len(file.blocks[0])  # the last one may have fewer
    waiting: dict[int, dict[int, Row]] = {block: {} for block in blocks}
    total = sum(len(file.blocks[block]) for block in blocks)
    with tqdm(total=total, unit="video", disable=None) as progress:
        for number, row in answers:
            if isinstance(row, str):
                raise ValueError(row)
            block = number // rows_per_block
            rows = waiting[block]
            rows[number] = row
            progress.update()
            if len(rows) == len(file.blocks[block]):
                file.write(block, [rows[number] for number in sorted(rows)])
                del waiting[block]
    if waiting:
        raise OSError(f"{file.output}: Ray ended without all rows of {len(waiting)} parts; run the same again")
