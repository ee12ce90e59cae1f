"""
Files on this machine, which are written completely or not at all; files in the storages of fsspec, such as
`s3://BUCKET/list.txt`; and videos at URLs, which are downloaded within limits of size, time and addresses.
"""

import asyncio
import glob
import ipaddress
import json
import os
import posixpath
import shutil
import socket
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import IO, Any

import fsspec
import fsspec.asyn
from huggingface_hub.utils import httpx

from ..video_decoding import VideoDecodeError, video_limits
from .limits import VideoLimits


# protocols of fsspec that are read, and what pip installs for them
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


def filesystem_of(path: str) -> tuple[Any, str]:
    """
    Return the fsspec filesystem of a path on this machine or in a storage, and the path in it. Unlike in
    `fsspec.url_to_fs`, `::` in a name is no chain of filesystems.
    """
    if "://" in path:
        return storage_of(path) or fsspec.url_to_fs(path)
    filesystem: Any = fsspec.filesystem("file")
    return filesystem, filesystem._strip_protocol(path)


@contextmanager
def whole_file(path: str | os.PathLike, folder: str | os.PathLike | None = None) -> Iterator[Path]:
    """
    Write a file completely or not at all: yield a path to write to, and rename it to `path` at the end of the block.

    `folder` holds the unfinished file, by default next to `path`. Its name is hidden and unique to this thread.
    """
    path = Path(path)
    # the end of the name keeps its suffix, and the whole below the 255 bytes that file systems allow
    thread = f"{socket.gethostname()}-{os.getpid()}-{threading.get_ident()}"
    unfinished = Path(folder or path.parent, f".{thread}-{path.name[-30:]}")
    try:
        yield unfinished
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def write_whole(path: str | os.PathLike, content: str | bytes, folder: str | os.PathLike | None = None):
    """Write a file with this content as in [`whole_file`]."""
    with whole_file(path, folder) as unfinished:
        unfinished.write_bytes(content.encode() if isinstance(content, str) else content)


def refuse_other_settings(file: Path, settings: dict[str, Any], unfinished: str = ""):
    """
    Raise `ValueError` unless the folder of a settings file is new, or of an earlier run with the same settings.

    A folder without the file may only contain one of the name `unfinished`.
    """
    folder = file.parent
    if file.is_file():
        try:
            found = dict(json.loads(file.read_text("utf-8")))
        except (ValueError, TypeError, RecursionError) as error:
            raise ValueError(f"{file}: is not a settings file of an earlier run; choose another folder") from error
        other = [name for name in {**found, **settings} if found.get(name) != settings.get(name)]
        if other:
            raise ValueError(
                f"{folder}: was written with {', '.join(f'{name} {found.get(name)}' for name in other)}, not "
                f"{', '.join(str(settings.get(name)) for name in other)}; choose another folder"
            )
    elif folder.exists() and (not folder.is_dir() or any(entry.name != unfinished for entry in folder.iterdir())):
        raise ValueError(f"{folder}: is neither empty nor a folder of an earlier run; choose another folder")


def read_json_lines(
    path: str | os.PathLike, parse: Callable[[Any], Any], wrong: str, unfinished: bool = False
) -> list:
    """
    Read a JSON Lines file, and return what `parse` makes of each value. With `unfinished`, a truncated last line, as
    an interrupted run may have written, is left out.

    Raises:
        ValueError: If a line is not JSON, or if `parse` raises ValueError, KeyError or TypeError. The message goes on
            with `wrong`, which says what the line is not, and what to do.
    """
    rows = []
    with open_file(path, "r", encoding="utf-8", errors="replace") as file:
        lines = file.read().splitlines(keepends=True)
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(parse(json.loads(line)))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            if unfinished and 1 < number == len(lines) and not line.endswith("\n"):
                break
            reason = str(error) or type(error).__name__
            raise ValueError(f"{path}: line {number} {wrong} ({reason})") from error
    return rows


def open_file(path: str | os.PathLike, mode: str = "rb", **text: Any) -> IO[Any]:
    """Open a file to read it. `text` is the encoding of a text file, as in `open`."""
    there = storage_of(os.fspath(path))
    if there is None:
        return open(path, mode, **text)
    with storage_errors(path):
        return there[0].open(there[1], mode, **text)


@contextmanager
def storage_errors(path: str | os.PathLike) -> Iterator[None]:
    """Turn exceptions of a storage's client into an `OSError` that names the path."""
    try:
        yield
    except (ValueError, ImportError):
        raise
    except Exception as error:
        kind = type(error) if isinstance(error, OSError) else OSError  # others: missing credentials and the like
        raise kind(f"{path}: {' '.join(str(error).split())}") from error


class LocalFiles:
    """Files on this machine, each of which is written completely or not at all."""

    begin = staticmethod(partial(os.makedirs, exist_ok=True))
    exists = staticmethod(os.path.exists)
    remove = staticmethod(partial(shutil.rmtree, ignore_errors=True))

    def names(self, folder: str) -> list[str]:
        with suppress(FileNotFoundError):  # another process may have removed it
            return os.listdir(folder)
        return []

    @contextmanager
    def whole(self, path: str, folder: str) -> Iterator[Path]:
        """Same as [`whole_file`], but sync the content to the disk before the file is renamed."""
        with whole_file(path, folder) as unfinished:
            yield unfinished
            with open(unfinished, "rb+") as file:
                os.fsync(file.fileno())


class StoredFiles:
    """The same in the storage of `url`: a file is written on this machine, then uploaded. Warns if it is memory."""

    def __init__(self, url: str):
        self.storage, _ = filesystem_of(url)
        if url.startswith("memory://"):
            warnings.warn(f"{url}: ends with this process; a run that is stopped cannot be continued", stacklevel=5)

    def begin(self, folder: str):
        """Storages have no folders to create."""

    def names(self, folder: str) -> list[str]:
        with storage_errors(folder), suppress(FileNotFoundError):
            self.storage.invalidate_cache()  # other processes write, too
            return [posixpath.basename(path) for path in self.storage.ls(folder, detail=False)]
        return []

    def exists(self, path: str) -> bool:
        with storage_errors(path):
            self.storage.invalidate_cache()
            return self.storage.exists(path)

    def remove(self, folder: str):
        with storage_errors(folder), suppress(FileNotFoundError):
            self.storage.rm(glob.escape(folder), recursive=True)

    @contextmanager
    def whole(self, path: str, folder: str) -> Iterator[Path]:
        with tempfile.TemporaryDirectory() as here:
            unfinished = Path(here, "unfinished")
            yield unfinished
            with storage_errors(path):
                self.storage.put_file(str(unfinished), path)


# Download


def fetch_video(url: str, limits: VideoLimits | None = None) -> IO[bytes]:
    """
    Download an http or https URL, or a file in a storage (`hf://datasets/USER/NAME/a.mp4`, `s3://BUCKET/a.mp4`).

    Args:
        url: The URL, or the path in a storage.
        limits: Defaults to those of [`set_video_limits`].

    Returns:
        A seekable temporary file, at its start. Closing it deletes it.

    Raises:
        VideoDecodeError: If the URL or a redirect has another scheme, if the server or storage does not answer with a
            file, or if a limit is exceeded.
    """
    limits = limits or video_limits()
    with ExitStack() as on_error:
        file = on_error.enter_context(tempfile.SpooledTemporaryFile(max_size=64 << 20))
        try:
            there = storage_of(url)
            if there is not None:
                _copy_from_storage(*there, file, limits)
            else:  # in fsspec's thread, since an event loop may be running in this one
                fsspec.asyn.sync(fsspec.asyn.get_loop(), _download, url, file, limits)
        except VideoDecodeError as error:
            raise VideoDecodeError(f"{url}: {error}") from None
        except TimeoutError as error:
            seconds = limits.max_download_seconds
            raise VideoDecodeError(
                f"{url}: not downloaded within the limit of {seconds:g} seconds (max_download_seconds)"
            ) from error
        except Exception as error:  # clients of storages raise exceptions of their own
            raise VideoDecodeError(f"{url}: cannot be downloaded: {str(error) or type(error).__name__}") from error
        on_error.pop_all()
    file.seek(0)
    return file


def _copy_from_storage(filesystem: Any, path: str, file: IO[bytes], limits: VideoLimits):
    if not limits.allow_private_addresses:
        raise VideoDecodeError(
            "is read with this machine's credentials, which is not allowed (allow_private_addresses)"
        )
    end = time.monotonic() + limits.max_download_seconds
    # a block size of 0 reads a file of the Hub forward in one request
    with filesystem.open(path, "rb", **({"block_size": 0} if filesystem.protocol == "hf" else {})) as remote:
        while chunk := remote.read(1 << 20):
            _write(chunk, file, limits)
            if time.monotonic() > end:
                raise TimeoutError


async def _download(url: str, file: IO[bytes], limits: VideoLimits):
    location = url
    async with asyncio.timeout(limits.max_download_seconds), httpx.AsyncClient(timeout=30) as client:
        for _ in range(limits.max_redirects + 1):
            if not location.lower().startswith(("http://", "https://")):
                redirected = "" if location == url else f"redirects to {location}: "
                raise VideoDecodeError(f"{redirected}only http and https URLs are fetched")
            address = target = httpx.URL(location)
            # raw bytes: compressed data may have any size after decompression
            headers, extensions = {"accept-encoding": "identity"}, {}
            if not limits.allow_private_addresses:
                # connect to the address that was checked: the name may have another one at the next look-up
                target = address.copy_with(host=await _public_address(address.host))
                headers["host"], extensions["sni_hostname"] = address.netloc.decode("ascii"), address.host
            async with client.stream("GET", target, headers=headers, extensions=extensions) as response:
                if not response.has_redirect_location:
                    response.raise_for_status()
                    async for chunk in response.aiter_raw():
                        _write(chunk, file, limits)
                    return
                location = str(address.join(response.headers["location"]))
    raise VideoDecodeError(f"redirected more often than the limit of {limits.max_redirects} times (max_redirects)")


def _write(chunk: bytes, file: IO[bytes], limits: VideoLimits):
    file.write(chunk)
    if file.tell() > limits.max_download_bytes:
        raise VideoDecodeError(f"larger than the limit of {limits.max_download_bytes} bytes (max_download_bytes)")


async def _public_address(host: str) -> str:
    """Look up a host name once. Raises `VideoDecodeError` unless all of its addresses are public."""
    found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    addresses = [str(address[0]) for *_, address in found]
    for one in addresses:
        if not is_public(one):
            raise VideoDecodeError(
                f"{host} has the address {one}, which is not public; private addresses are not allowed "
                "(allow_private_addresses)"
            )
    return min(addresses, key=lambda one: ":" in one)  # IPv4 first: many machines have no route to IPv6 addresses


_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def is_public(address: str) -> bool:
    """Whether an IP address, or the IPv4 address inside an IPv6 address, is a public address on the internet."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        translated = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF) if ip in _NAT64 else None
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None) or translated
        if inner is not None:
            return is_public(str(inner))
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or ip.is_unspecified)
