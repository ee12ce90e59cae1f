"""Damaged and crafted video files, made from good ones. They are a function of a seed and a number."""

import json
import random
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import av
from videos import KINDS, write_video


# good files


@dataclass
class Good:
    """A file as it should be, and where its boxes (start, size) and packets (start) lie."""

    name: str
    content: bytes
    boxes: list[tuple[int, int]]
    packets: list[int]

    @property
    def is_mp4(self) -> bool:
        return self.name.endswith((".mp4", ".mov"))


MORE_KINDS: dict[str, dict] = {
    "h264.ts": {"options": {"g": "8"}},
    "h264.mov": {"options": {"g": "8"}},
    "h264.flv": {"options": {"g": "8"}},
    "fragmented.mp4": {"options": {"g": "8"}, "container_options": {"movflags": "frag_keyframe+empty_moov"}},
    "faststart.mp4": {"options": {"g": "8"}, "container_options": {"movflags": "faststart"}},
    "mpeg2.mpg": {"codec": "mpeg2video", "options": {"g": "8"}},
    "mjpeg.avi": {"codec": "mjpeg", "pixel_format": "yuvj420p"},
    "vp9.mkv": {"codec": "libvpx-vp9", "options": {"g": "10", "deadline": "realtime", "cpu-used": "8"}},
}
UNUSUAL_KINDS: dict[str, dict] = {
    "10_bit.mp4": {"pixel_format": "yuv420p10le"},
    "10_bit.mkv": {"codec": "ffv1", "pixel_format": "yuv422p10le"},
    "alpha.mov": {"codec": "qtrle", "pixel_format": "argb"},
    "alpha.mkv": {"codec": "ffv1", "pixel_format": "yuva420p"},
    "grey.mkv": {"codec": "ffv1", "pixel_format": "gray"},
    "grey_16.mkv": {"codec": "ffv1", "pixel_format": "gray16le"},
    "palette.gif": {"codec": "gif", "pixel_format": "rgb8"},
    "rgb.mkv": {"codec": "ffv1", "pixel_format": "bgr0"},
    "rotated.mp4": {"rotation": 90},
    "mirrored.mov": {"rotation": 180, "mirror": True},
    "interlaced.mp4": {"options": {"x264-params": "interlaced=1", "g": "8"}},
    "interlaced.mpg": {"codec": "mpeg2video", "options": {"flags": "+ildct+ilme", "g": "8"}},
    "odd_size.mkv": {"codec": "ffv1", "width": 83, "height": 51},
}


@dataclass
class Materials:
    """What damaged files are made of: good ones as they are common, unusual ones, and all by name, parts and all."""

    common: list[Good]
    unusual: list[Good]
    named: dict[str, Good]


def write_kinds(folder: Path, kinds: dict[str, dict]) -> list[Good]:
    found = []
    for name, arguments in kinds.items():
        arguments = {"width": 80, "height": 48, **arguments, "num_frames": 20}
        if "timestamps" in arguments:
            arguments["timestamps"] = arguments["timestamps"][:20]
        found.append(read_good(write_video(folder / name, **arguments)))
    return found


def read_good(path: Path) -> Good:
    content = path.read_bytes()
    boxes = list(find_boxes(content, 0, len(content))) if path.suffix in (".mp4", ".mov") else []
    with av.open(str(path)) as container:
        packets = sorted({p.pos for p in container.demux() if p.pos is not None and p.pos > 0})
    return Good(path.name, content, boxes, packets)


PARENTS = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts", b"udta", b"moof", b"traf", b"mvex", b"dinf")


def find_boxes(content: bytes, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Start and size of each box of an mp4, and of those within."""
    while start + 8 <= end:
        size, kind = struct.unpack(">I4s", content[start : start + 8])
        if not 8 <= size <= end - start:
            return
        yield start, size
        if kind in PARENTS:
            yield from find_boxes(content, start + 8, start + size)
        start += size


# faults: a good file (or all of them) and random numbers -> a bad one and what to call it


def some(good: "Materials", draw: random.Random, *, mp4: bool = False) -> Good:
    return draw.choice([one for one in good.common if one.is_mp4 or not mp4])


def patched(content: bytes, place: int, new: bytes) -> bytes:
    return content[:place] + new + content[place + len(new) :]


def places(content: bytes, mark: bytes) -> list[int]:
    found, place = [], content.find(mark)
    while place >= 0:
        found.append(place)
        place = content.find(mark, place + 1)
    return found


def bit_flips(good: "Materials", draw: random.Random) -> tuple[str, bytes]:
    one = some(good, draw)
    data = bytearray(one.content)
    in_header = draw.random() < 0.6  # where most of the structure is: at one end or the other
    for _ in range(draw.choice((1, 2, 4, 16, 64))):
        reach = min(len(data), 1500) if in_header else len(data)
        place = draw.randrange(reach)
        if in_header and draw.random() < 0.5:
            place = len(data) - 1 - place
        data[place] ^= 1 << draw.randrange(8)
    return one.name, bytes(data)


def cut_at_borders(good: "Materials", draw: random.Random) -> tuple[str, bytes]:
    one = some(good, draw)
    borders = [start for start, _ in one.boxes] + [start + size for start, size in one.boxes] + one.packets
    place = draw.choice(borders or [len(one.content) // 2]) + draw.choice((0, 0, 0, -1, 1, 4, 8))
    return one.name, one.content[: max(0, place)]


def cut_anywhere(good: "Materials", draw: random.Random) -> tuple[str, bytes]:
    one = some(good, draw)
    start = draw.randrange(len(one.content)) if draw.random() < 0.25 else 0  # or its beginning is missing
    return one.name, one.content[start : start + draw.randrange(len(one.content))]


def swapped_parts(good: "Materials", draw: random.Random) -> tuple[str, bytes]:
    one = some(good, draw)
    if len(one.boxes) > 1:
        (a, a_size), (b, b_size) = sorted(draw.sample(one.boxes, 2))
        if a + a_size > b:  # one in the other: doubled
            return one.name, one.content[: a + a_size] + one.content[b : b + b_size] + one.content[a + a_size :]
    else:
        borders = one.packets if len(one.packets) > 3 else range(len(one.content))
        edges = sorted(draw.sample(borders, 4))
        a, a_size, b, b_size = edges[0], edges[1] - edges[0], edges[2], edges[3] - edges[2]
    content = one.content
    parts = [content[:a], content[b : b + b_size], content[a + a_size : b], content[a : a + a_size]]
    return one.name, b"".join(parts) + content[b + b_size :]


SIZES = (0, 1, 7, 8, 9, 16, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFFFFF0, 1 << 24, 65536)


def wrong_sizes(good: "Materials", draw: random.Random) -> tuple[str, bytes]:
    one = some(good, draw)
    content = one.content
    for _ in range(draw.choice((1, 1, 2, 5))):
        size = draw.choice((*SIZES, draw.getrandbits(32), len(content)))
        if one.boxes:
            start, own = draw.choice(one.boxes)
            content = patched(
                content, start, struct.pack(">I", draw.choice((size, max(0, own + draw.choice((-1, 1))))))
            )
            if size == 1 and draw.random() < 0.5:
                content = patched(content, start, struct.pack(">I4sQ", 1, content[start + 4 : start + 8], 1 << 63))
        else:
            # in front of a packet, or in the header
            place = draw.choice(one.packets) - 4 if one.packets and draw.random() < 0.3 else draw.randrange(1000)
            width = draw.choice("BHI")
            new = struct.pack(draw.choice("<>") + width, size & (1 << 8 * struct.calcsize(width)) - 1)
            content = patched(content, max(0, min(place, len(content) - 8)), new)
    return one.name, content


def no_videos(good: "Materials", draw: random.Random) -> tuple[str, bytes]:
    name = some(good, draw).name
    kinds: list[Callable[[], bytes]] = [
        lambda: b"",
        lambda: bytes(draw.randrange(1, 100_000)),
        lambda: draw.randbytes(draw.randrange(1, 100_000)),
        lambda: ("".join(draw.choices("abc xyz\n", k=5000))).encode(),
        lambda: b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
        lambda: json.dumps({"error": "no such video", "n": list(range(draw.randrange(500)))}).encode(),
        lambda: b"PK\x03\x04" + draw.randbytes(500),
        lambda: b"%PDF-1.7\n" + draw.randbytes(500),
        lambda: b"\x89PNG\r\n\x1a\n" + draw.randbytes(500),
        lambda: b"\x00\x00\x00\x18ftypmp42" + draw.randbytes(500),
        lambda: b"RIFF\xff\xff\xff\xffAVI LIST" + draw.randbytes(500),
        lambda: b"\x1a\x45\xdf\xa3" + draw.randbytes(draw.choice((5, 500))),
        lambda: b"\x1a\x45\xdf\xa3\x80\x18\x53\x80\x67",
        lambda: b"GIF89a" + draw.randbytes(500),
        lambda: b"\x47" * 188 * 20,
        lambda: b"YUV4MPEG2 W99999 H99999 F25:1\nFRAME\n" + bytes(100),
    ]
    return name, draw.choice(kinds)()


HUGE = (0xFFFF, 0x7FFF, 16385, 20000, 30000, 0x4000, 0x2001)


def huge_dimensions(good: "Materials", draw: random.Random) -> tuple[str, bytes]:
    width, height = draw.choice(HUGE), draw.choice(HUGE)
    way = draw.randrange(5)
    if way == 0:
        one = some(good, draw, mp4=True)
        place = one.content.index(b"avc1", one.content.index(b"stsd"))
        return one.name, patched(one.content, place + 28, struct.pack(">HH", width, height))
    if way == 1:  # the pictures themselves say it: JPEG
        one = good.named["mjpeg.avi"]
        content = one.content
        for place in places(content, b"\xff\xc0"):
            content = patched(content, place + 5, struct.pack(">HH", height, width))
        if draw.random() < 0.5:
            content = content.replace(struct.pack("<II", 80, 48), struct.pack("<II", width, height))
        return one.name, content
    if way == 2:
        one = good.named["palette.gif"]
        content = patched(one.content, 6, struct.pack("<HH", width, height))
        for place in places(content, b"\x2c\x00\x00\x00\x00"):
            content = patched(content, place + 5, struct.pack("<HH", width, height))
        return one.name, content
    if way == 3:  # a whole H.264 sequence header of this size, from an encoder
        return "sequence.mp4", good.named["large_header.mp4"].content
    one = good.named[draw.choice(("vp9.webm", "vp8.webm", "h264.mkv"))]
    content = one.content
    for mark, size in ((b"\xb0\x81\x50", width), (b"\xba\x81\x30", height)):  # pixel width and height in one byte
        for place in places(content, mark):
            content = content[:place] + mark[:1] + b"\x82" + struct.pack(">H", size) + content[place + 3 :]
    return one.name, content


def huge_durations(good: "Materials", draw: random.Random) -> tuple[str, bytes]:
    one = some(good, draw, mp4=True)
    content = one.content
    largest = draw.choice((0xFFFFFFFF, 0x7FFFFFFF, 1 << 30, 80_000_000, 3_000_000, 999_999))
    for kind, offset in draw.choice(
        (
            ((b"mvhd", 20), (b"mdhd", 20), (b"tkhd", 24)),  # duration
            ((b"stts", 12),),  # frames of a duration
            ((b"stts", 16),),  # the duration of one frame
            ((b"stsz", 12),),  # frames
            ((b"ctts", 12),),
            ((b"elst", 12),),
            ((b"stsz", 8), (b"stsz", 12), (b"stsc", 16)),  # all of one size, so that only their number is told
            ((b"trun", 8),),
            ((b"trun", 4), (b"trun", 8)),  # nothing is told of each frame
        )
    ):
        for place in places(content, kind):
            value = {(b"stsz", 8): 1, (b"trun", 4): 0}.get((kind, offset), largest)
            if place + offset + 4 <= len(content):
                content = patched(content, place + offset, struct.pack(">I", value))
    if draw.random() < 0.2:  # as many tracks of it as there is room for
        boxes = find_boxes(content, 0, len(content))
        start, size = next(box for box in boxes if content[box[0] + 4 : box[0] + 8] == b"trak")
        copies = draw.choice((3, 200))
        moov = content.rindex(b"moov", 0, start) - 4
        grown = struct.unpack(">I", content[moov : moov + 4])[0] + copies * size
        content = content[: start + size] + content[start : start + size] * copies + content[start + size :]
        content = patched(content, moov, struct.pack(">I", grown))
    return one.name, content


def odd_timestamps(good: "Materials", draw: random.Random) -> tuple[str, bytes]:
    """The times of the frames repeated, running backwards, or negative."""
    one = some(good, draw)
    content = one.content
    if one.is_mp4:
        for kind in draw.choice(((b"stts",), (b"ctts",), (b"stts", b"ctts"), (b"elst",))):
            for place in places(content, kind):
                count = struct.unpack(">I", content[place + 8 : place + 12])[0]
                for entry in range(min(count, 40)):
                    at = place + 16 + 8 * entry
                    value = draw.choice((0, 0xFFFFFFFF, 0x80000000, draw.getrandbits(31), 1))
                    content = patched(content, at, struct.pack(">I", value)) if at + 4 <= len(content) else content
    elif one.name.endswith((".mkv", ".webm")):
        for place in places(content, b"\xa3"):  # simple blocks: the track, then the time in its cluster
            track = content.find(b"\x81", place, place + 6)
            if track > 0:
                content = patched(content, track + 1, struct.pack(">h", draw.choice((0, -1, -32768, 32767))))
    else:
        for place in one.packets:
            content = patched(content, min(place + draw.randrange(14), len(content) - 5), draw.randbytes(4))
    return one.name, content


def changing_sizes(good: "Materials", draw: random.Random) -> tuple[str, bytes]:
    parts = [good.named[f"size_{number}.ts"].content for number in range(3)]
    draw.shuffle(parts)
    cut = [part[: 188 * draw.randrange(10, len(part) // 188)] if draw.random() < 0.5 else part for part in parts]
    return "sizes.ts", b"".join(cut[: draw.choice((2, 3))])


def unusual_formats(good: "Materials", draw: random.Random) -> tuple[str, bytes]:
    one = draw.choice(good.unusual)
    data = bytearray(one.content)
    for _ in range(draw.choice((0, 1, 4, 32))):
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    return one.name, bytes(data)


FAULTS: dict[str, Callable[["Materials", random.Random], tuple[str, bytes]]] = {
    "flipped bits": bit_flips,
    "cut at a box or packet": cut_at_borders,
    "cut anywhere": cut_anywhere,
    "boxes or packets swapped": swapped_parts,
    "wrong sizes in headers": wrong_sizes,
    "empty, text, other files": no_videos,
    "huge dimensions": huge_dimensions,
    "huge durations and counts": huge_durations,
    "repeated, negative times": odd_timestamps,
    "size changes midway": changing_sizes,
    "10 bit, alpha, grey, turned, interlaced": unusual_formats,
}


def write_materials(folder: Path) -> Materials:
    """Small files of every kind, and those that faults are made of."""
    common, unusual = write_kinds(folder, {**KINDS, **MORE_KINDS}), write_kinds(folder, UNUSUAL_KINDS)
    special = []
    for number, (width, height) in enumerate(((80, 48), (48, 80), (160, 96))):
        path = write_video(folder / f"size_{number}.ts", num_frames=10, width=width, height=height)
        special.append(read_good(path))
    # pictures of 4096 x 4096 in a few bytes, whose container says that they are small
    large = write_video(
        folder / "large_header.mp4", num_frames=2, width=4096, height=4096, options={"preset": "ultrafast"}
    )
    content = large.read_bytes()
    place = content.index(b"avc1", content.index(b"stsd"))
    special.append(Good("large_header.mp4", patched(content, place + 28, struct.pack(">HH", 64, 64)), [], []))
    return Materials(common, unusual, {one.name: one for one in [*common, *unusual, *special]})


def damaged(good: Materials, seed: int, number: int) -> tuple[str, str, bytes]:
    """Kind of fault, file name and content of the file of this number."""
    kind = list(FAULTS)[number % len(FAULTS)]
    name, content = FAULTS[kind](good, random.Random(f"{seed}/{number}"))
    return kind, name, content
