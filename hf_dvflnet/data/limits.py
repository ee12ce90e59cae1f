"""Limits on one video from an untrusted source: `VideoLimits`. SECURITY.md says what each limit stops."""

import json
import os
import threading
from dataclasses import asdict, dataclass, replace

from ..video_decoding import DecodingLimits, video_limits


@dataclass(frozen=True)
class VideoLimits(DecodingLimits):
    """
    Limits on one video. [`VideoDecodeError`] is raised for a video that exceeds a limit.

    Args:
        max_pixels (`int`, *optional*, defaults to 40,000,000):
            Maximum width times height of a frame. The default is above 8K.
        max_aspect_ratio (`float`, *optional*, defaults to 32):
            Maximum ratio of the long to the short side of a frame.
        max_frames (`int`, *optional*, defaults to 1,000,000):
            Maximum number of frames. The default is more than four hours at 60 frames per second.
        max_threads (`int`, *optional*, defaults to 4):
            Maximum number of threads of a decoder.
        sandbox (`bool`, *optional*, defaults to `False`):
            Whether to decode in a child process, for which the next two limits hold.
        max_memory (`int`, *optional*, defaults to 4 GiB):
            Maximum address space of the child process, in bytes. Effective on Linux.
        max_seconds (`float`, *optional*, defaults to 3600):
            Maximum time for a file in the child process: CPU time (Linux, macOS) and wall time, without the time that
            the caller spends on the frames.
        max_download_bytes (`int`, *optional*, defaults to 1 GiB):
            Maximum size of a download.
        max_download_seconds (`float`, *optional*, defaults to 120):
            Maximum time from the first request to the last byte, including redirects.
        max_redirects (`int`, *optional*, defaults to 5):
            Maximum number of redirects that are followed from a URL.
        allow_private_addresses (`bool`, *optional*, defaults to `True`):
            Whether a URL may lead to this machine or its network. Set it to `False` on a server whose users give URLs:
            then all addresses of a host must be public, also after each redirect, and storages (`hf://`, `s3://`),
            which are read with this machine's credentials, are refused.

    Raises:
        ValueError: If a number is not positive, or `max_redirects` is negative.
    """

    max_memory: int = 4 << 30
    max_seconds: float = 3600.0
    max_download_bytes: int = 1 << 30
    max_download_seconds: float = 120.0
    max_redirects: int = 5
    allow_private_addresses: bool = True

    def __post_init__(self):
        for name, value in asdict(self).items():
            if not name.startswith("max_"):
                continue
            if not (0 if name == "max_redirects" else 1e-9) <= value <= 2**62:
                raise ValueError(f"{name} must be positive and finite, got {value}")
            if name.endswith(("pixels", "frames", "threads", "memory", "bytes", "redirects")) and value != int(value):
                raise ValueError(f"{name} must be a whole number, got {value}")
            if name == "max_seconds" and value > threading.TIMEOUT_MAX:
                raise ValueError(f"max_seconds must be at most {threading.TIMEOUT_MAX:g}, got {value}")


def worker_limits(num_workers: int) -> VideoLimits:
    """The limits in force, for workers that have a sandbox each, unless there are none or the variable forbids it."""
    forbidden = "sandbox=no" in os.environ.get("DVFLNET_VIDEO_LIMITS", "")
    return replace(video_limits(), sandbox=num_workers > 0 and not forbidden, max_threads=1)


def limits_of_environment() -> VideoLimits:
    """The limits of `DVFLNET_VIDEO_LIMITS="max_frames=5000000 sandbox=yes"`. Others keep their defaults."""
    text = os.environ.get("DVFLNET_VIDEO_LIMITS", "")
    words = {"yes": True, "no": False}
    try:
        told = dict(part.split("=") for part in text.replace(",", " ").split())
        return VideoLimits(**{name: words[word] if word in words else json.loads(word) for name, word in told.items()})
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"DVFLNET_VIDEO_LIMITS: cannot read {text!r}: {error}; expected NAME=NUMBER, NAME=yes or NAME=no, with "
            f"the names {', '.join(VideoLimits.__dataclass_fields__)}"
        ) from error
