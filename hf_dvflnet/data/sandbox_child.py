"""
The program of the child process of `sandbox.py`. It imports PyAV, NumPy and modules that need no more.

A message is a line of JSON that states the number of bytes after it. Nothing is unpickled on either side.
"""

import importlib
import io
import json
import math
import os
import queue
import signal
import sys
import threading
import types
import warnings
from contextlib import suppress
from dataclasses import asdict
from typing import Any

import numpy as np


# importing `hf_dvflnet` would load torch and transformers: in its place, a package without content of its own
_package = sys.modules["hf_dvflnet"] = types.ModuleType("hf_dvflnet")
_package.__path__ = [os.path.dirname(os.path.dirname(os.path.abspath(__file__)))]

from hf_dvflnet.data.frames import open_frames  # noqa: E402
from hf_dvflnet.video_decoding import DecodingLimits, ToArray, VideoInfo, opened, read_source  # noqa: E402


class Channel:
    def __init__(self):
        self.output = os.fdopen(os.dup(1), "wb", buffering=0)
        os.dup2(2, 1)  # what a library prints must not come between the messages
        self.requests: queue.Queue[tuple[dict[str, Any], bytes]] = queue.Queue()
        # reads while the main thread decodes: when the parent process ends, however it does, so does the input
        threading.Thread(target=self._read, args=(os.fdopen(0, "rb"),), daemon=True).start()

    def _read(self, pipe: Any):
        try:
            while line := pipe.readline():
                message = json.loads(line)
                self.requests.put((message, pipe.read(message["size"])))
        finally:  # also where memory runs out
            os._exit(0)

    def receive(self) -> tuple[dict[str, Any], bytes]:
        return self.requests.get()

    def send(self, message: dict[str, Any], content: Any = b""):
        content = memoryview(content)
        head = json.dumps({**message, "size": content.nbytes}).encode() + b"\n"
        for part in (head, content.cast("B") if content.nbytes else b""):
            while part:
                part = part[self.output.write(part) :]


def _send_info(channel: Channel, info: VideoInfo):
    """Send the info, and its times as float64."""
    times = b"" if info.frame_times is None else info.frame_times
    channel.send({"info": {**asdict(info), "frame_times": None, "frames_indices": None}}, times)


def read(channel: Channel, video: Any, limits: DecodingLimits, request: dict[str, Any]):
    def ask(info: VideoInfo) -> list[int]:
        _send_info(channel, info)
        return channel.receive()[0]["indices"]

    with opened(video, limits) as source:
        frames, info = read_source(source, ask)
    changed = {name: getattr(info, name) for name in ("total_num_frames", "width", "height", "remarks")}
    channel.send({"done": changed, "shape": frames.shape}, frames)


def stream(channel: Channel, video: Any, limits: DecodingLimits, request: dict[str, Any]):
    with open_frames(video, limits) as (info, frames):
        _send_info(channel, info)
        to_array = ToArray()
        for picture in map(to_array, frames):
            channel.send({"shape": picture.shape}, np.ascontiguousarray(picture))
    channel.send({"done": {"total_num_frames": info.total_num_frames, "remarks": info.remarks}})


def call(channel: Channel, video: Any, limits: DecodingLimits, request: dict[str, Any]):
    module, _, name = request["function"].partition(":")
    function = getattr(importlib.import_module(module), name)
    channel.send({"done": function(video, limits=limits, **request["arguments"])})


def limit(max_memory: int, max_seconds: float):
    with suppress(ImportError):  # Windows has neither limit
        import resource

        # the CPU time of a process counts from its start
        seconds = math.ceil(sum(resource.getrusage(resource.RUSAGE_SELF)[:2]) + max_seconds)
        for kind, value in ((resource.RLIMIT_AS, max_memory), (resource.RLIMIT_CPU, seconds)):
            with suppress(ValueError, OSError):  # macOS does not enforce the first
                resource.setrlimit(kind, (value, resource.getrlimit(kind)[1]))


def main():
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends Ctrl-C to all processes; the parent ends this one
    channel = Channel()
    warnings.simplefilter("ignore")  # they are among the remarks on a video
    channel.send({"ready": True})
    while True:
        serve(channel)


def serve(channel: Channel):
    """Do one job. Its variables, and the content of its video, are gone when the next one comes."""
    request, content = channel.receive()
    try:
        limit(request["max_memory"], request["max_seconds"])
        video: Any = request["path"]
        if not video:
            video = io.BytesIO(content)
            video.name = request["name"]
        job = {"read": read, "stream": stream, "call": call}[request["job"]]
        job(channel, video, DecodingLimits(**request["limits"]), request)
    except Exception as error:
        name = "MemoryError" if isinstance(error, MemoryError) else type(error).__name__
        channel.send({"error": name, "text": str(error), "errno": getattr(error, "errno", None)})


if __name__ == "__main__":
    main()
