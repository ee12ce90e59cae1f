"""
Decodes videos from untrusted sources in child processes with limits on memory and time.

Each thread has a child process of its own, which is started for its first video and stays for the next ones. A video
that exceeds a limit or crashes its decoder ends the child at most, and becomes an error that names the video. A child
ends with its parent, however that ends.
"""

import builtins
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ..video_decoding import (
    DecodingLimits,
    Indices,
    VideoDecodeError,
    VideoInfo,
    VideoSource,
    VideoWarning,
    opened,
    wanted_frames,
)
from .limits import VideoLimits


T = TypeVar("T")


class DecoderCrash(VideoDecodeError):
    """Raised if a video ended the process that decoded it; twice, unless it is read frame by frame."""


class SandboxError(ImportError):
    """Raised if the child process cannot be started at all."""


class _Ended(Exception):
    """The child process has ended for `reason`. `retry`: whether a second try may succeed. `kind`: the error then."""

    def __init__(self, reason: str, retry: bool, kind: type[VideoDecodeError] = DecoderCrash):
        self.reason, self.retry, self.kind = reason, retry, kind


class Sandbox:
    """A child process that does one job at a time; `sandbox_child.py` is its program."""

    program = Path(__file__).with_name("sandbox_child.py")

    def __init__(self):
        # threads and arenas take address space, which the limit counts
        single = {"OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
        try:
            self.child: Any = subprocess.Popen(  # noqa: S603 (our own program)
                [sys.executable, "-P", str(self.program)],  # -P: modules are not looked for beside the program
                env={**os.environ, **single},
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        except OSError as error:
            raise SandboxError(f"the process that decodes cannot be started: {error}") from error
        self.output: Any = io.BufferedReader(self.child.stdout)
        with suppress(ImportError, AttributeError, OSError):  # a wider pipe, on Linux, as far as the system allows
            import fcntl

            fcntl.fcntl(self.output, fcntl.F_SETPIPE_SZ, 1 << 20)
        self.owner = (os.getpid(), threading.get_ident())
        self.limits = VideoLimits()  # of the job
        self.is_idle = True
        self.is_late = False
        weakref.finalize(self, _end, self.child, os.getpid())
        _sandboxes.add(self)
        if not self.output.readline():
            command = f"{sys.executable} -P {self.program}"
            raise SandboxError(f"the process that decodes cannot be started; run it to see why: {command}")

    def send(self, message: dict[str, Any], content: Any = b""):
        """Raises `_Ended` if the child process has ended."""
        try:
            for part in (json.dumps({**message, "size": len(content)}).encode() + b"\n", memoryview(content)):
                while part:
                    part = part[self.child.stdin.write(part) :]
        except OSError:
            raise self._ended() from None

    def work(
        self, request: dict[str, Any], content: bytes, limits: VideoLimits
    ) -> Generator[tuple[dict[str, Any], np.ndarray], None, None]:
        """
        Send a request, and yield the messages and their bytes, up to the one with `done`.

        Raises:
            _Ended: If the child process ends. It is ended when this process has waited `limits.max_seconds` for it.
            Exception: The error that the child process reports.
        """
        self.limits, left, self.is_idle = limits, limits.max_seconds, False
        try:
            self.send(request, content)
            while not self.is_idle:
                started = time.monotonic()
                message, data = self._receive(left)
                left -= time.monotonic() - started
                if left <= 0:
                    self.is_late = True
                    raise self._ended()
                if message.get("error") == "MemoryError":  # a child that has decoded other files has less memory left
                    gigabytes = f"{limits.max_memory / 2**30:g} GiB"
                    raise _Ended(
                        f"needs more memory than the limit of {gigabytes} (max_memory)", True, VideoDecodeError
                    )
                self.is_idle = "done" in message or "error" in message
                if "error" in message:
                    raise _error(message, request)
                yield message, data
        finally:
            if not self.is_idle:  # what it still sends belongs to no later job
                _end(self.child, self.owner[0])

    def _ended(self) -> "_Ended":
        if not self.is_late:
            with suppress(subprocess.TimeoutExpired):
                self.child.wait(1)  # its own exit code, if it has ended by itself
        self.child.kill()
        code = self.child.wait()
        if self.is_late or (hasattr(signal, "SIGXCPU") and code == -signal.SIGXCPU):
            return _Ended(f"not decoded within the limit of {self.limits.max_seconds:g} seconds (max_seconds)", False)
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return _Ended(f"the process that decoded it ended ({how}): its decoder crashed, or memory ran out", True)

    def _receive(self, seconds: float) -> tuple[dict[str, Any], np.ndarray]:
        def end():
            self.is_late = True
            self.child.kill()

        timer = threading.Timer(seconds, end)
        timer.daemon = True
        timer.start()
        try:
            line = self.output.readline()
            if line.endswith(b"\n"):
                message = json.loads(line)
                data = np.empty(message["size"], np.uint8)
                if self.output.readinto(data) == len(data):
                    return message, data
        finally:
            timer.cancel()
        raise self._ended()


_sandboxes: weakref.WeakSet[Sandbox] = weakref.WeakSet()
_local = threading.local()


def _sandbox() -> Sandbox:
    """The child process of this thread."""
    sandbox = getattr(_local, "sandbox", None)
    mine = (os.getpid(), threading.get_ident())  # of a process that was forked, it is its parent's
    if sandbox is None or sandbox.owner != mine or not sandbox.is_idle or sandbox.child.poll() is not None:
        sandbox = _local.sandbox = Sandbox()
    return sandbox


def _end(child: Any, process: int):
    if os.getpid() == process:
        child.kill()
        child.wait()
        for pipe in (child.stdin, child.stdout):
            pipe.close()


def end_work(threads: set[int | None]):
    """End the child processes of threads whose results are not needed any more."""
    for sandbox in list(_sandboxes):
        if sandbox.owner[0] == os.getpid() and sandbox.owner[1] in threads and not sandbox.is_idle:
            sandbox.is_late = True  # no second try
            sandbox.child.kill()


def _close_in_fork():
    # a forked process that kept these pipes open would keep the child process from seeing that its parent has ended
    for sandbox in list(_sandboxes):
        sandbox.child.stdin.close()
        sandbox.child.stdout.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_fork)


def _named(text: str, request: dict[str, Any]) -> str:
    return text.replace(request["path"], request["name"]) if request["path"] else text


def _error(message: dict[str, Any], request: dict[str, Any]) -> Exception:
    text = _named(message["text"], request)
    kind = getattr(builtins, message["error"], None)
    if not (isinstance(kind, type) and issubclass(kind, (OSError, TypeError))):
        return VideoDecodeError(text)
    error = kind(text)
    if isinstance(error, OSError):
        error.errno = message["errno"]
    return error


@contextmanager
def _request(
    job: str, video: VideoSource, limits: DecodingLimits, **arguments: Any
) -> Iterator[tuple[dict[str, Any], bytes, VideoLimits]]:
    """What a child process needs to know, the content of a video that is no local file, and the limits."""
    limits = limits if isinstance(limits, VideoLimits) else VideoLimits(**vars(limits))
    request: dict[str, Any] = {"max_memory": int(limits.max_memory), "max_seconds": limits.max_seconds}
    request["limits"] = {name: getattr(limits, name) for name in DecodingLimits.__dataclass_fields__} | {
        "sandbox": False
    }
    with opened(video, limits) as source:
        is_local = isinstance(video, (str, os.PathLike)) and "://" not in os.fspath(video)
        path = os.path.abspath(source.name) if is_local else ""  # the child may have another working directory
        request |= {"job": job, "name": source.name, "path": path, **arguments}
        content = b""
        if not is_local:
            position = source.file.tell()
            source.file.seek(0)
            content = source.file.read()
            source.file.seek(position)
        yield request, content, limits


def _try_twice(name: str, attempt: Callable[[], T]) -> T:
    for is_last in (False, True):
        try:
            return attempt()
        except _Ended as ended:
            if not ended.retry:
                raise VideoDecodeError(f"{name}: {ended.reason}") from None
            if is_last:
                raise ended.kind(f"{name}: {ended.reason}") from None
    raise AssertionError


def _info(message: dict[str, Any], times: np.ndarray) -> VideoInfo:
    frame_times = times.view(np.float64) if len(times) else None
    return VideoInfo(**{**message["info"], "frame_times": frame_times, "remarks": []})  # its remarks come at the end


def _finish(info: VideoInfo, done: dict[str, Any], request: dict[str, Any]):
    """Update the facts that are known only after decoding."""
    remarks = [_named(remark, request) for remark in done["remarks"]]
    for remark in remarks:
        warnings.warn(remark, VideoWarning, stacklevel=5)
    vars(info).update({**done, "remarks": remarks + info.remarks})


def read_video(video: VideoSource, indices: Indices, limits: DecodingLimits) -> tuple[np.ndarray, VideoInfo]:
    """Same as [`read_video`] of this package, in the child process of this thread."""
    answers: list[list[int]] = []  # a second try does not draw other frames

    def attempt() -> tuple[np.ndarray, VideoInfo]:
        sandbox, asked = _sandbox(), 0
        info: Any = None
        with closing(sandbox.work(request, content, known)) as messages:
            for message, data in messages:
                if "done" in message:
                    _finish(info, message["done"], request)
                    info.frames_indices = np.array(answers[asked - 1])
                    return data.reshape(message["shape"]), info
                info = _info(message, data)
                if asked == len(answers):
                    answers.append(wanted_frames(indices, info, request["name"]))
                sandbox.send({"indices": answers[asked]})
                asked += 1
        raise AssertionError

    with _request("read", video, limits) as (request, content, known):
        return _try_twice(request["name"], attempt)


@contextmanager
def open_video(video: VideoSource, limits: DecodingLimits) -> Iterator[tuple[VideoInfo, Iterator[np.ndarray]]]:
    """The [`VideoInfo`] and the frames, upright and in RGB, of a video that may be too long for memory."""
    with _request("stream", video, limits) as (request, content, known):
        messages = _sandbox().work(request, content, known)

        def pictures() -> Iterator[np.ndarray]:
            for message, data in messages:
                if "done" in message:
                    _finish(info, message["done"], request)
                else:
                    yield data.reshape(message["shape"])

        with closing(messages):
            try:
                info = _info(*next(messages))
                yield info, pictures()
            except _Ended as ended:
                kind = ended.kind if ended.retry else VideoDecodeError
                raise kind(f"{request['name']}: {ended.reason}") from None


def call(function: str, video: VideoSource, limits: DecodingLimits, **arguments: Any) -> Any:
    """
    Call a function in the child process of this thread.

    Args:
        function: `MODULE:NAME`, of a module that imports PyAV and NumPy only. Its first argument is a binary file.
        arguments: Its other arguments, as JSON has them. So is what it returns.
    """

    def attempt() -> Any:
        with closing(_sandbox().work(request, content, known)) as messages:
            return next(messages)[0]["done"]

    with _request("call", video, limits, function=function, arguments=arguments) as (request, content, known):
        return _try_twice(request["name"], attempt)
