"""Writes real video files for the tests. Each frame carries its number as black and white squares."""

import os
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np


BITS = 10


def numbered_frame(number: int, width: int, height: int) -> np.ndarray:
    """A picture of noise that is the same for the same number, its top half telling the number, highest bit first."""
    frame = np.random.default_rng(number).integers(80, 176, (height // 8, width // 8, 3), dtype=np.uint8)
    frame = frame.repeat(8, axis=0).repeat(8, axis=1)
    square = width // BITS
    for bit in range(BITS):
        frame[: height // 2, bit * square : (bit + 1) * square] = 255 * (number >> (BITS - 1 - bit) & 1)
    return frame


def read_number(frame: np.ndarray) -> int:
    """The number that `numbered_frame` drew."""
    height, width = frame.shape[:2]
    square = width // BITS
    middles = [int(frame[height // 4, bit * square + square // 2].mean() > 127) for bit in range(BITS)]
    return int("".join("01"[bit] for bit in middles), 2)


def write_video(
    path: Path,
    codec: str = "libx264",
    num_frames: int = 40,
    width: int = 160,
    height: int = 96,
    *,
    options: dict[str, str] | None = None,
    timestamps: list[int] | None = None,
    rotation: int = 0,
    mirror: bool = False,
    audio_first: bool = False,
    tag: str | None = None,
    container_options: dict[str, str] | None = None,
    rate: int = 25,
    first_number: int = 0,
    pixel_format: str = "yuv420p",
    pixel_aspect_ratio: Fraction | None = None,
) -> Path:
    """
    Encode frames numbered from `first_number` on.

    `timestamps` (in frames; ascending) replace 0, 1, 2, ...; `rotation` and `mirror` go into the display matrix;
    `audio_first` puts a silent audio stream in front of the video.
    """
    with av.open(str(path), "w", container_options=container_options or {}) as container:
        audio = container.add_stream("aac", rate=8000, layout="mono") if audio_first else None
        stream = container.add_stream(codec, rate=rate, options=options or {})
        stream.width, stream.height, stream.pix_fmt = width, height, pixel_format
        stream.codec_context.time_base = Fraction(1, rate)
        stream.thread_type = "NONE"
        if pixel_aspect_ratio:
            stream.codec_context.sample_aspect_ratio = pixel_aspect_ratio
        if tag:
            stream.codec_context.codec_tag = tag
        if rotation or mirror:
            stream.set_display_rotation(rotation, hflip=mirror)
        if audio is not None:
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), dtype=np.float32), format="fltp", layout="mono")
            silence.sample_rate = 8000
            silence.pts = 0
            container.mux(audio.encode(silence))
            container.mux(audio.encode())
        for number in range(num_frames):
            frame = av.VideoFrame.from_ndarray(numbered_frame(first_number + number, width, height), format="rgb24")
            frame.pts = timestamps[number] if timestamps else number
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def write_among_others(folder: Path, source: Path | None = None):
    """
    Write the videos `a.MP4`, `b.wmv` and `more/c.mp4`, and what systems and people put beside videos.

    They are copies of `source`, or empty.
    """
    content = source.read_bytes() if source else b""
    hidden = ("._a.mp4", ".ipynb_checkpoints/a-checkpoint.mp4", "__MACOSX/._a.mp4", "@eaDir/a.mp4/preview.mp4")
    others = (".DS_Store", "Thumbs.db", "more/desktop.ini", ".git/config", "notes.txt", "poster.jpg")
    for name in ("a.MP4", "b.wmv", "more/c.mp4", *hidden, *others):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    (folder / "gone.mp4").symlink_to("nowhere")
    os.mkfifo(folder / "pipe.mp4")


def remux(source: Path, path: Path, change: Callable[[list[av.Packet]], list[av.Packet | bytes]]) -> Path:
    """Write the packets that `change` makes of a file's; where it adds bytes, the later ones move by a frame."""
    with av.open(str(source)) as container, av.open(str(path), "w") as target:
        template = container.streams.video[0]
        stream = target.add_stream_from_template(template)
        packets = [packet for packet in container.demux(template) if packet.size]
        step, time_base, added = packets[0].duration, packets[0].time_base, 0
        before = -step
        for item in change(packets):
            if isinstance(item, bytes):
                packet = av.Packet(item)
                packet.pts = packet.dts = before + step
                packet.time_base, packet.duration = time_base, step
                added += 1
            else:
                packet = item
                packet.pts += added * step
                if packet.dts is not None:
                    packet.dts += added * step
            before = packet.dts
            packet.stream = stream
            target.mux(packet)
    return path


def write_transparent(path: Path, codec: str, pixel_format: str, num_frames: int = 12) -> Path:
    """32 x 32 frames: a middle of opaque green, 20 n + 30 in frame n, and around it red that is wholly transparent."""
    with av.open(str(path), "w") as container:
        # libvpx reads no transparency where it is allowed frames that are not shown
        options = {"g": "5", "auto-alt-ref": "0"} if "vpx" in codec else {}
        stream = container.add_stream(codec, rate=8, options=options)
        stream.width, stream.height, stream.pix_fmt = 32, 32, pixel_format
        for number in range(num_frames):
            picture = np.zeros((32, 32, 4), np.uint8)
            picture[..., 0] = 255
            picture[8:24, 8:24] = (0, 20 * number + 30, 0, 255)
            frame = av.VideoFrame.from_ndarray(picture, format="rgba").reformat(format=pixel_format)
            frame.pts, frame.time_base = number, Fraction(1, 8)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


# Kinds of real files, as arguments of `write_video`: what cameras, benchmarks and the web hand out.
KINDS: dict[str, dict] = {
    "h264_short_gop.mp4": {"options": {"g": "8"}},
    "h264_long_gop.mp4": {"options": {"g": "250"}, "num_frames": 60},
    "h264_b_frames.mp4": {"options": {"g": "12", "bf": "3", "x264-params": "b-adapt=0"}, "num_frames": 60},
    "h264_open_gop.mp4": {
        "options": {"x264-params": "open-gop=1:keyint=12:min-keyint=12:bframes=3:b-adapt=0"},
        "num_frames": 60,
    },
    "h264_irregular.mp4": {"options": {"g": "8"}, "timestamps": [n + n * n // 9 for n in range(40)]},
    "h264_late_start.mp4": {"options": {"g": "8"}, "timestamps": [n + 50 for n in range(40)]},
    "h264_rotated.mp4": {"options": {"g": "8"}, "rotation": 90},
    "h264_audio_first.mp4": {"options": {"g": "8"}, "audio_first": True},
    "h264.mkv": {"options": {"g": "8"}},
    "xvid.avi": {"codec": "mpeg4", "tag": "XVID", "options": {"g": "12", "b": "2000000"}},
    "xvid_b_frames.avi": {"codec": "mpeg4", "tag": "XVID", "options": {"g": "12", "bf": "2", "b": "2000000"}},
    "vp9.webm": {"codec": "libvpx-vp9", "options": {"g": "10", "deadline": "realtime", "cpu-used": "8"}},
    "vp8.webm": {
        "codec": "libvpx",
        "options": {"g": "10", "auto-alt-ref": "1", "lag-in-frames": "10", "b": "1000000"},
    },
}
