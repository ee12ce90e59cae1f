"""
Downloads videos from URLs and from the storages of fsspec into temporary files.

`VideoLimits` bounds size, time and redirects, and can keep URLs from reaching this machine and its network.
"""

import asyncio
import ipaddress
import socket
import tempfile
import time
from contextlib import ExitStack
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
