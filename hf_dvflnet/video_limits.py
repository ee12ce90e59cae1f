"""
Limits the resources that a video may use and the addresses that a URL may reach, for videos from untrusted sources.

Every limit is on by default. [`set_video_limits`] changes the limits of a process. The environment variable
`DVFLNET_VIDEO_LIMITS` changes them for all processes that inherit it, such as commands and data loader workers.
"""

import importlib
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import IO, Any


class VideoDecodeError(ValueError):
    """Raised if a video cannot be read or exceeds a limit. The message names the file and the reason."""


@dataclass(frozen=True)
class VideoLimits:
    """
    Limits on one video. [`VideoDecodeError`] is raised for a video that exceeds a limit.

    Args:
        max_pixels: Maximum width times height of a frame, in pixels. The default is above 8K (7680 x 4320, 8192 x
            4320).
        max_aspect_ratio: Maximum ratio of the long to the short side of a frame. When the short side of a thin frame
            is resized to the input size of a model, the long side becomes many times as long.
        max_frames: Maximum number of frames of a file. The default is more than four hours at 60 frames per second.
        max_seconds: Maximum time for reading and decoding a file, in seconds. The time that the caller spends on the
            frames does not count. The limit is checked when the file is read and between its packets, so that a single
            frame may exceed it.
        max_download_bytes: Maximum size of a download, in bytes.
        max_download_seconds: Maximum time from the first request to the last byte, in seconds, including redirects.
        max_redirects: Maximum number of redirects that are followed from a URL.
        allow_private_addresses: Whether a URL may lead to this machine or its network. Set it to False on a server
            whose users give URLs: then all addresses of a host name must be public, also after each redirect, and
            connections are made only to an address that was checked. Paths on the Hub (`hf://`) and in other storages
            (`s3://`) are refused, as they are read with this machine's credentials.
        decoders: Names of the FFmpeg decoders that may be used, such as `("h264", "libdav1d")`. By default, all
            decoders may be used. Some decoders that few files need can be kept busy for minutes by a single crafted
            frame.

    Raises:
        ValueError: If a number is not positive, or if `max_redirects` is negative.
    """

    max_pixels: int = 40_000_000
    max_aspect_ratio: float = 32.0
    max_frames: int = 1_000_000
    max_seconds: float = 3600.0
    max_download_bytes: int = 1 << 30
    max_download_seconds: float = 120.0
    max_redirects: int = 5
    allow_private_addresses: bool = True
    decoders: tuple[str, ...] | None = None

    def __post_init__(self):
        for field in fields(self):
            value, least = getattr(self, field.name), 0 if field.name == "max_redirects" else 1e-9
            if field.name.startswith("max_") and not value >= least:
                raise ValueError(f"{field.name} must be positive, got {value}")


def set_video_limits(limits: VideoLimits):
    """Set the default limits of this process and of the processes that it forks, for calls without `limits`."""
    global _limits
    _limits = limits


def video_limits() -> VideoLimits:
    """Return the default limits of this process."""
    return _limits


def _read_limits(text: str) -> VideoLimits:
    """Parse `"max_frames=5000000 allow_private_addresses=no decoders=h264+hevc"`. Other limits keep their defaults."""
    found: dict[str, Any] = {}
    for part in text.replace(",", " ").split():
        name, _, value = part.partition("=")
        default = getattr(VideoLimits, name, None) if name in VideoLimits.__dataclass_fields__ else None
        try:
            if isinstance(default, bool):
                found[name] = {"yes": True, "no": False}[value]
            elif name == "decoders" and value:
                found[name] = tuple(value.split("+"))
            elif default is not None:
                found[name] = type(default)(value)
            else:
                raise KeyError(name)
        except (KeyError, ValueError) as error:
            raise ValueError(
                f"DVFLNET_VIDEO_LIMITS: cannot read {part!r}; expected NAME=NUMBER, allow_private_addresses=no, or "
                f"decoders=DECODER+DECODER; the limits are {', '.join(VideoLimits.__dataclass_fields__)}"
            ) from error
    return replace(VideoLimits(), **found)


_limits = _read_limits(os.environ.get("DVFLNET_VIDEO_LIMITS", ""))


class Deadline:
    """Measures the total time that a file takes, over one or more periods from `start` to `stop`."""

    def __init__(self, name: str, limits: VideoLimits):
        self.name, self.limit = name, limits.max_seconds
        self.left = limits.max_seconds
        self.start()

    def start(self):
        self.since = time.monotonic()

    def stop(self):
        self.left -= time.monotonic() - self.since

    def check(self):
        if time.monotonic() - self.since > self.left:
            raise VideoDecodeError(
                f"{self.name}: not decoded within the limit of {self.limit:g} seconds (max_seconds)"
            )


# downloads belong to `hf_dvflnet.data`, which a saved model does not carry


def fetch_video(url: str, limits: VideoLimits | None = None) -> IO[bytes]:
    """See [`hf_dvflnet.data.downloads.fetch_video`]."""
    return importlib.import_module("hf_dvflnet.data.downloads").fetch_video(url, limits)


def storage_of(path: str) -> tuple[Any, str] | None:
    """See [`hf_dvflnet.data.downloads.storage_of`]."""
    return importlib.import_module("hf_dvflnet.data.downloads").storage_of(path)


def refuse_thin(width: int, height: int, name: str, limits: VideoLimits):
    ratio = limits.max_aspect_ratio
    if max(width, height) > ratio * min(width, height) > 0:
        raise VideoDecodeError(
            f"{name}: has frames of {width} x {height}, thinner than the limit of {ratio:g} to 1 (max_aspect_ratio)"
        )


def refuse_inflated_index(source: Any, name: str, limits: VideoLimits):
    """
    Raise `VideoDecodeError` if the header of an mp4 file announces more frames than the limit, in all tracks together.

    FFmpeg allocates memory for all frames when it opens the file. If all frames have the same size, 20 bytes of the
    header give their number, so that a small file could make FFmpeg allocate gigabytes.
    """
    end = source.seek(0, os.SEEK_END)
    position = in_fragments = 0
    fragment_begun = False
    while position + 8 <= end:
        source.seek(position)
        head = source.read(16)
        size, kind = int.from_bytes(head[:4], "big"), head[4:8]
        if size == 1:
            size = int.from_bytes(head[8:16], "big")
        elif size == 0:
            size = end - position
        if size < 8:
            return  # not an mp4 file, or FFmpeg would not read further
        # FFmpeg skips a box without a valid name; any other box except mdat may contain a header
        if kind != b"mdat" and kind.isascii() and kind.decode("ascii").isprintable():
            source.seek(position)
            box = source.read(min(size, _LARGEST_HEADER))
            if b"dcomzlib" in box:
                raise VideoDecodeError(f"{name}: its header is compressed, which is not supported")
            count = sum(_frames_of_one_size(track, end) for track in re.split(b"trak", box))
            # without a tfhd before it, FFmpeg skips a trun; it may be part of a title ("trunk")
            fragment_begun |= b"tfhd" in box
            if fragment_begun:
                in_fragments += sum(int.from_bytes(run[4:8], "big") for run in _find(box, b"trun"))
            # frames in fragments are counted over all tracks together, and there may be several tracks
            if count > limits.max_frames or in_fragments > 4 * limits.max_frames:
                raise VideoDecodeError(
                    f"{name}: says that it has {max(count, in_fragments)} frames, more than the limit of "
                    f"{limits.max_frames} (max_frames)"
                )
        position += size


_LARGEST_HEADER = 64 << 20


def _find(box: bytes, kind: bytes) -> Iterator[bytes]:
    """Yield the first 16 bytes of the content of each box of this kind, at any position and of any stated size."""
    for match in re.finditer(kind, box):
        size = int.from_bytes(box[max(0, match.start() - 4) : match.start()], "big")
        start = match.end() + (8 if size == 1 else 0)
        yield box[start : start + 16]


def _frames_of_one_size(track: bytes, file_size: int) -> int:
    """Return the number of frames of a track if its header does not list them one by one, and 0 for plain sound."""
    tables = [table for table in _find(track, b"stsz") if any(table[4:8])]  # otherwise, they are listed
    if not tables:
        return 0
    lasting = [(entries[4:8], entries[12:16]) for entries in _find(track, b"stts")]
    # sound has many samples of one tick each, but FFmpeg reads them in blocks of thousands
    is_plain_sound = b"soun" in track and b"vide" not in track and lasting == [(b"\0\0\0\1", b"\0\0\0\1")]
    found = 0
    for table in tables:
        size, count = int.from_bytes(table[4:8], "big"), int.from_bytes(table[8:12], "big")
        if not (is_plain_sound and count * size <= file_size):
            found = max(found, count)
    return found


__all__ = [
    "VideoDecodeError",
    "VideoLimits",
    "fetch_video",
    "set_video_limits",
    "storage_of",
    "video_limits",
]
