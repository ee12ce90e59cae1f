"""
Limits the resources that a video may use and the addresses that a URL may reach, for videos from untrusted sources.

Every limit is on by default. [`set_video_limits`] changes the limits of a process. The environment variable
`DVFLNET_VIDEO_LIMITS` changes them for all processes that inherit it, such as commands and data loader workers.
"""

import ipaddress
import os
import re
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields, replace
from typing import IO, Any

import fsspec
from huggingface_hub.utils import httpx


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


# storages that are read, by the protocol of fsspec, and what pip installs for them; what is not named is not read
STORAGES = {"hf": "huggingface_hub", "s3": "'hf_dvflnet[s3]'", "gs": "gcsfs", "abfs": "adlfs", "memory": "fsspec"}


def storage_of(path: str) -> tuple[Any, str] | None:
    """
    Return the fsspec filesystem of a path such as `s3://BUCKET/a.mp4`, and the path in it; `None` for other paths.

    Raises:
        ImportError: If the package that reads this storage is not installed.
    """
    protocol, separator, _ = path.partition("://")
    if not separator or protocol not in STORAGES:
        return None
    try:
        filesystem: Any = fsspec.filesystem(protocol)
    except ImportError as error:
        raise ImportError(
            f"{path}: reading {protocol}:// needs another package: pip install {STORAGES[protocol]}"
        ) from error
    return filesystem, filesystem._strip_protocol(path)


def fetch_video(url: str, limits: VideoLimits | None = None) -> IO[bytes]:
    """
    Download an http or https URL, or a path on the Hub (`hf://datasets/USER/NAME/a.mp4`) or in another storage
    (`s3://BUCKET/a.mp4`), into a temporary file. A small file is kept in memory; closing the file deletes it.

    Raises:
        VideoDecodeError: If the URL has another scheme, a redirect one other than http and https, if the server does
            not answer with a file, or if a limit is exceeded. `limits` defaults to those of [`set_video_limits`].
    """
    limits = limits or _limits
    if url.partition("://")[0] in STORAGES:
        return _fetch_from_storage(url, limits)
    _refuse_other_schemes(url, url)
    file = tempfile.SpooledTemporaryFile(max_size=64 << 20)  # noqa: SIM115 (handed to the caller)
    download = _Download(url, limits)
    # if a server sends its headers very slowly, no check between two reads is reached: the timer ends such a read
    timer = threading.Timer(limits.max_download_seconds, download.stop)
    timer.daemon = True
    timer.start()
    try:
        download.into(file)
    except (httpx.HTTPError, httpx.InvalidURL, OSError, UnicodeError) as error:  # UnicodeError: the host name
        file.close()
        # the client itself waits no longer than the timer, and may give up first
        if download.stopped or time.monotonic() > download.end:
            raise VideoDecodeError(download.too_slow()) from error
        raise VideoDecodeError(f"{url}: cannot be downloaded: {error}") from error
    except BaseException:
        file.close()
        raise
    finally:
        timer.cancel()
    file.seek(0)
    return file


def _fetch_from_storage(url: str, limits: VideoLimits) -> IO[bytes]:
    if not limits.allow_private_addresses:
        raise VideoDecodeError(
            f"{url}: is read with this machine's credentials, which is not allowed (allow_private_addresses)"
        )
    download = _Download(url, limits)
    file = tempfile.SpooledTemporaryFile(max_size=64 << 20)  # noqa: SIM115 (handed to the caller)
    try:
        filesystem: Any
        filesystem, path = storage_of(url) or (None, "")
        # the Hub: read forward in one request
        with filesystem.open(path, "rb", **({"block_size": 0} if url.startswith("hf://") else {})) as remote:
            while chunk := remote.read(1 << 20):
                file.write(chunk)
                download.check(file.tell())
    except VideoDecodeError:
        file.close()
        raise
    except Exception as error:  # the clients of storages raise their own exceptions
        file.close()
        raise VideoDecodeError(f"{url}: cannot be downloaded: {error}") from error
    file.seek(0)
    return file


class _Download:
    def __init__(self, url: str, limits: VideoLimits):
        self.url, self.limits = url, limits
        self.end = time.monotonic() + limits.max_download_seconds
        self.stopped = False
        self.connection: Any = None  # the latest connection

    def too_slow(self) -> str:
        seconds = self.limits.max_download_seconds
        return f"{self.url}: not downloaded within the limit of {seconds:g} seconds (max_download_seconds)"

    def check(self, size: int):
        """Raise `VideoDecodeError` if so many bytes are too many, or took too long."""
        if size > self.limits.max_download_bytes:
            limit = self.limits.max_download_bytes
            raise VideoDecodeError(f"{self.url}: larger than the limit of {limit} bytes (max_download_bytes)")
        if self.stopped or time.monotonic() > self.end:
            raise VideoDecodeError(self.too_slow())

    def stop(self):
        self.stopped = True
        connection = self.connection.get_extra_info("socket") if self.connection is not None else None
        if connection is not None:
            with suppress(OSError):  # already closed
                connection.shutdown(socket.SHUT_RDWR)  # closing it would not wake a thread that reads from it

    def note(self, event: str, info: dict[str, Any]):
        """Callback for the events of the HTTP client. Stores the connection, encrypted or not, for `stop`."""
        if event in ("connection.connect_tcp.complete", "connection.start_tls.complete"):
            self.connection = info["return_value"]
            if self.stopped:
                self.stop()

    def into(self, file: IO[bytes]):
        address = httpx.URL(self.url)
        with httpx.Client(timeout=min(30.0, self.limits.max_download_seconds)) as client:
            for _ in range(self.limits.max_redirects + 1):
                with self._get(client, address) as response:
                    if response.has_redirect_location:
                        address = address.join(response.headers["location"])
                        _refuse_other_schemes(str(address), self.url)
                        continue
                    response.raise_for_status()
                    # the raw bytes: compressed data may have any size after decompression
                    for chunk in response.iter_raw():
                        file.write(chunk)
                        self.check(file.tell())
                    self.check(file.tell())  # a stop may look like the end of the file
                    return
        raise VideoDecodeError(
            f"{self.url}: redirected more often than the limit of {self.limits.max_redirects} times (max_redirects)"
        )

    @contextmanager
    def _get(self, client: httpx.Client, address: httpx.URL) -> Iterator[httpx.Response]:
        if time.monotonic() > self.end:
            raise VideoDecodeError(self.too_slow())
        headers = {"accept-encoding": "identity"}
        extensions: dict[str, Any] = {"trace": self.note}
        if not self.limits.allow_private_addresses:
            # connect to the address that was checked: the host name may have a different address at the next look-up
            headers["host"] = address.netloc.decode("ascii")
            extensions["sni_hostname"] = address.host
            address = address.copy_with(host=_public_address(address, self.url))
        with client.stream("GET", address, headers=headers, extensions=extensions) as response:
            yield response


def _refuse_other_schemes(address: str, url: str):
    if not address.lower().startswith(("http://", "https://")):
        said = url if address == url else f"{url}: redirects to {address}"
        raise VideoDecodeError(f"{said}: only http and https URLs are fetched")


def _public_address(address: httpx.URL, url: str) -> str:
    port = address.port or {"http": 80, "https": 443}[address.scheme]
    found = [str(info[4][0]) for info in socket.getaddrinfo(address.host, port, type=socket.SOCK_STREAM)]
    for one in found:
        if not is_public(one):
            raise VideoDecodeError(
                f"{url}: {address.host} has the address {one}, which is not public; private addresses are not "
                "allowed (allow_private_addresses)"
            )
    # prefer an IPv4 address: many machines have no route to IPv6 addresses
    return min(found, key=lambda one: ":" in one)


def is_public(address: str) -> bool:
    """Whether an IP address, or the IPv4 address inside an IPv6 address, is a public address on the internet."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        translated = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF) if ip in _NAT64 else None
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None) or translated
        if inner is not None:
            return is_public(str(inner))
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or ip.is_unspecified)


_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


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
    "STORAGES",
    "VideoDecodeError",
    "VideoLimits",
    "fetch_video",
    "set_video_limits",
    "storage_of",
    "video_limits",
]
