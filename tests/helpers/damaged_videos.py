"""Damaged and crafted video files, made from good ones. They are a function of a seed and a number."""

import json
import random
import re
import struct
from collections.abc import Callable
from pathlib import Path

from videos import KINDS, write_video


MORE_KINDS: dict[str, dict] = {
    "h264.ts": {"options": {"g": "8"}},
    "h264.mov": {"options": {"g": "8"}},
    "h264.flv": {"options": {"g": "8"}},
    "fragmented.mp4": {"options": {"g": "8"}, "container_options": {"movflags": "frag_keyframe+empty_moov"}},
    "faststart.mp4": {"options": {"g": "8"}, "container_options": {"movflags": "faststart"}},
    "mpeg2.mpg": {"codec": "mpeg2video", "options": {"g": "8"}},
    "mjpeg.avi": {"codec": "mjpeg", "pixel_format": "yuvj420p"},
    "vp9.mkv": {"codec": "libvpx-vp9", "options": {"g": "10", "deadline": "realtime", "cpu-used": "8"}},
    "10_bit.mp4": {"pixel_format": "yuv420p10le"},
    "10_bit.mkv": {"codec": "ffv1", "pixel_format": "yuv422p10le"},
    "alpha.mov": {"codec": "qtrle", "pixel_format": "argb"},
    "alpha.mkv": {"codec": "ffv1", "pixel_format": "yuva420p"},
    "grey_16.mkv": {"codec": "ffv1", "pixel_format": "gray16le"},
    "palette.gif": {"codec": "gif", "pixel_format": "rgb8"},
    "rgb.mkv": {"codec": "ffv1", "pixel_format": "bgr0"},
    "rotated.mp4": {"rotation": 90},
    "mirrored.mov": {"rotation": 180, "mirror": True},
    "interlaced.mp4": {"options": {"x264-params": "interlaced=1", "g": "8"}},
    "interlaced.mpg": {"codec": "mpeg2video", "options": {"flags": "+ildct+ilme", "g": "8"}},
    "odd_size.mkv": {"codec": "ffv1", "width": 83, "height": 51},
}


def write_materials(folder: Path) -> dict[str, bytes]:
    """Small good files of every kind, by name, and transport streams of three frame sizes."""
    found = {}
    for name, arguments in {**KINDS, **MORE_KINDS}.items():
        arguments = {"width": 80, "height": 48, **arguments, "num_frames": 20}
        if "timestamps" in arguments:
            arguments["timestamps"] = arguments["timestamps"][:20]
        found[name] = write_video(folder / name, **arguments).read_bytes()
    for number, (width, height) in enumerate(((80, 48), (48, 80), (160, 96))):
        path = write_video(folder / f"size_{number}.ts", num_frames=10, width=width, height=height)
        found[path.name] = path.read_bytes()
    return found


# faults: the content of a good file, random numbers, and all good files -> a bad one


def unchanged(content: bytes, draw: random.Random, good: dict[str, bytes]) -> bytes:
    return content


def flipped_bits(content: bytes, draw: random.Random, good: dict[str, bytes]) -> bytes:
    data = bytearray(content)
    in_header = draw.random() < 0.6  # where most of the structure is: at one end or the other
    for _ in range(draw.choice((1, 2, 4, 16, 64))):
        place = draw.randrange(min(len(data), 1500) if in_header else len(data))
        if in_header and draw.random() < 0.5:
            place = len(data) - 1 - place
        data[place] ^= 1 << draw.randrange(8)
    return bytes(data)


def cut(content: bytes, draw: random.Random, good: dict[str, bytes]) -> bytes:
    start = draw.randrange(len(content)) if draw.random() < 0.25 else 0  # or its beginning is missing
    return content[start : start + draw.randrange(len(content))]


def swapped_parts(content: bytes, draw: random.Random, good: dict[str, bytes]) -> bytes:
    a, b, c, d = sorted(draw.sample(range(len(content)), 4))
    return content[:a] + content[c:d] + content[b:c] + content[a:b] + content[d:]


# boxes of mp4, chunks of AVI, elements of Matroska, headers of JPEG and GIF: what tells sizes, counts and times
STRUCTURE = re.compile(
    rb"moov|trak|mdia|stbl|mvhd|mdhd|tkhd|elst|stts|ctts|stsz|stsc|stco|stsd|avc1|mdat|moof|trun|tfhd|avih|strh|strf|"
    rb"idx1|movi|\x18\x53\x80\x67|\x1f\x43\xb6\x75|\xb0\x81|\xba\x81|\xa3|\xff\xc0|\x2c\x00\x00\x00\x00|GIF89a"
)
EXTREMES = (0, 1, 8, 0xFFFF, 0x4001, 999_999, 80_000_000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 63, (1 << 64) - 1)


def wrong_numbers(content: bytes, draw: random.Random, good: dict[str, bytes]) -> bytes:
    """Sizes, counts, times and dimensions in the structure of the file are huge, 0 or negative."""
    data = bytearray(content)
    marks = [mark.start() for mark in STRUCTURE.finditer(content)] or range(len(content))
    for _ in range(draw.choice((1, 2, 5, 20))):
        place = max(0, draw.choice(marks) + draw.randrange(-4, 40))
        kind = draw.choice("BHIQ")
        new = struct.pack(draw.choice("<>") + kind, draw.choice(EXTREMES) & (1 << 8 * struct.calcsize(kind)) - 1)
        data[place : place + len(new)] = new
    return bytes(data)


def repeated_tracks(content: bytes, draw: random.Random, good: dict[str, bytes]) -> bytes:
    """An mp4 with as many copies of its track as there is room for."""
    content = good["faststart.mp4"]
    header, track = content.index(b"moov") - 4, content.index(b"trak") - 4
    header_size, size = (int.from_bytes(content[place : place + 4], "big") for place in (header, track))
    copies = draw.choice((3, 200))
    grown = struct.pack(">I", header_size + copies * size)
    return content[:header] + grown + content[header + 4 : track] + content[track : track + size] * copies + (
        content[track:]
    )  # fmt: skip


def other_files(content: bytes, draw: random.Random, good: dict[str, bytes]) -> bytes:
    return draw.choice(
        [
            b"",
            bytes(draw.randrange(1, 100_000)),
            draw.randbytes(draw.randrange(1, 100_000)),
            "".join(draw.choices("abc xyz\n", k=5000)).encode(),
            b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
            json.dumps({"error": "no such video", "n": list(range(draw.randrange(500)))}).encode(),
            *(head + draw.randbytes(500) for head in (b"PK\x03\x04", b"%PDF-1.7\n", b"\x89PNG\r\n\x1a\n", b"GIF89a")),
            b"\x00\x00\x00\x18ftypmp42" + draw.randbytes(500),
            b"RIFF\xff\xff\xff\xffAVI LIST" + draw.randbytes(500),
            b"\x1a\x45\xdf\xa3" + draw.randbytes(draw.choice((5, 500))),
            b"\x1a\x45\xdf\xa3\x80\x18\x53\x80\x67",
            b"\x47" * 188 * 20,
            b"YUV4MPEG2 W99999 H99999 F25:1\nFRAME\n" + bytes(100),
        ]
    )


def changing_sizes(content: bytes, draw: random.Random, good: dict[str, bytes]) -> bytes:
    """Transport streams of different frame sizes in one file, each whole or cut."""
    parts = [good[f"size_{number}.ts"] for number in range(3)]
    draw.shuffle(parts)
    ends = [188 * draw.randrange(10, len(part) // 188) if draw.random() < 0.5 else len(part) for part in parts]
    return b"".join(part[:end] for part, end in zip(parts, ends, strict=True))


FAULTS: list[Callable[[bytes, random.Random, dict[str, bytes]], bytes]] = [
    *(unchanged, flipped_bits, cut, swapped_parts, wrong_numbers, wrong_numbers),
    *(repeated_tracks, other_files, changing_sizes),
]


def damaged(good: dict[str, bytes], seed: int, number: int) -> tuple[str, str, bytes]:
    """Kind of fault, file name and content of the file of this number."""
    fault, draw = FAULTS[number % len(FAULTS)], random.Random(f"{seed}/{number}")
    name = draw.choice(list(good))
    return fault.__name__, name, fault(good[name], draw, good)
