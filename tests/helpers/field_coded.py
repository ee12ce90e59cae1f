"""Writes H.264 in which a frame is two fields, as camcorders and broadcasters do, of uncompressed macroblocks."""

import io
from fractions import Fraction
from pathlib import Path

import av


class Bits:
    def __init__(self):
        self.text = ""

    def fixed(self, *numbers: tuple[int, int]) -> "Bits":
        """Numbers of so many bits: (bits, number)."""
        self.text += "".join(f"{number:0{bits}b}" for bits, number in numbers)
        return self

    def numbers(self, *numbers: int) -> "Bits":
        """Exp-Golomb codes, ue(v)."""
        self.text += "".join("0" * ((number + 1).bit_length() - 1) + f"{number + 1:b}" for number in numbers)
        return self

    def raw(self, content: bytes) -> "Bits":
        self.text += "0" * (-len(self.text) % 8) + "".join(f"{byte:08b}" for byte in content)
        return self

    def unit(self, head: int) -> bytes:
        """A NAL unit."""
        text = self.text + "1"
        text += "0" * (-len(text) % 8)
        content, zeros = bytearray(), 0
        for byte in int(text, 2).to_bytes(len(text) // 8, "big"):
            if zeros >= 2 and byte <= 3:
                content.append(3)
                zeros = 0
            content.append(byte)
            zeros = 0 if byte else zeros + 1
        return b"\0\0\0\1" + bytes([head]) + bytes(content)


SIDE, RATE, GOP = 32, 25, 5


def parameter_sets() -> bytes:
    sequence = Bits().fixed((8, 77), (8, 0), (8, 30)).numbers(0, 4, 0, 4, 1).fixed((1, 0))
    sequence.numbers(SIDE // 16 - 1, SIDE // 32 - 1)
    sequence.fixed((1, 0), (1, 0), (1, 1), (1, 0), (1, 1))  # of which frame_mbs_only_flag = 0
    sequence.fixed((4, 0), (1, 1), (32, 1), (32, 2 * RATE), (1, 1), (4, 0))  # the rate, in fields
    picture = Bits().numbers(0, 0).fixed((2, 0)).numbers(0, 0, 0).fixed((3, 0)).numbers(0, 0, 0).fixed((3, 4))
    return sequence.unit(0x67) + picture.unit(0x68)


def pictures(first: int, frames: int, fields: bool) -> list[bytes]:
    """Frames from number `first` on, as one access unit a field or frame; frame n is grey of level 16 + 4 n."""
    units = []
    for number in range(first, first + frames):
        since = number % GOP
        for bottom in (0, 1) if fields else (0,):
            is_key = since == 0 and not bottom
            head = Bits().numbers(0, 7, 0).fixed((8, since), (1, int(fields)))
            if fields:
                head.fixed((1, bottom))
            if is_key:
                head.numbers(number // GOP % 2)
            head.fixed((8, 2 * since + bottom), (2, 0) if is_key else (1, 0)).numbers(0, 1)
            for _ in range((SIDE // 16) * (SIDE // (32 if fields else 16))):
                head.numbers(25).raw(bytes([16 + 4 * number]) * 256 + bytes([128]) * 128)
            access = b"\0\0\0\1\x09\xf0" + (parameter_sets() if is_key else b"")
            units.append(access + head.unit(0x65 if is_key else 0x61))
    return units


def write_fields(path: Path, parts: list[tuple[int, bool]], in_pairs: bool = False) -> Path:
    """
    Write parts of so many frames, each coded as a frame or as two fields, at 25 frames a second.

    A field is a packet of its own, or, `in_pairs`, both fields of a frame are one packet.
    """
    packets: list[tuple[bytes, int]] = []  # with durations in fields
    count = 0
    for frames, fields in parts:
        units = pictures(count, frames, fields)
        if fields and in_pairs:
            units = [one + two for one, two in zip(units[::2], units[1::2], strict=True)]
        packets += [(unit, 1 if fields and not in_pairs else 2) for unit in units]
        count += frames
    elementary = io.BytesIO(b"".join(unit for unit, _ in packets))
    with av.open(elementary, format="h264") as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        time = 0
        for unit, duration in packets:
            packet = av.Packet(unit)
            packet.stream, packet.time_base = stream, Fraction(1, 2 * RATE)
            packet.pts = packet.dts = time
            packet.duration, packet.is_keyframe = duration, b"\0\0\1\x67" in unit
            target.mux(packet)
            time += duration
    return path
