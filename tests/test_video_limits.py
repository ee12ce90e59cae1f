import io
import os
import struct
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import av
import numpy as np
import pytest
from videos import read_number, write_video

from hf_dvflnet import (
    VideoDecodeError,
    VideoLimits,
    read_video,
    set_video_limits,
    video_container,
    video_decoding,
    video_limits,
)
from hf_dvflnet.video_decoding import open_frames
from hf_dvflnet.video_limits import refuse_inflated_index
from hf_dvflnet.video_limits import video_limits as limits_in_force


# files


def test_a_frame_that_is_too_large_is_refused(video_files):
    path = video_files["h264_short_gop.mp4"]
    assert read_video(path, [0], limits=VideoLimits(max_pixels=160 * 96))[0].shape == (1, 96, 160, 3)
    with pytest.raises(VideoDecodeError, match="has frames of 160 x 96, more than the limit of 15359 pixels"):
        read_video(path, [0], limits=VideoLimits(max_pixels=160 * 96 - 1))


def test_a_frame_that_is_larger_than_the_header_says_is_not_decoded(tmp_path):
    # the header of an AVI says one size, and each picture in it another
    path = write_video(tmp_path / "small.avi", "mjpeg", 5, 320, 240, pixel_format="yuvj420p")
    data = path.read_bytes()
    assert data.count(struct.pack("<II", 320, 240)) >= 1
    path.write_bytes(data.replace(struct.pack("<II", 320, 240), struct.pack("<II", 64, 48)))
    assert read_video(path, [0])[0].shape == (1, 240, 320, 3)
    with pytest.raises(VideoDecodeError, match="has frames of 320 x 240, more than the limit of 70000 pixels"):
        read_video(path, [0], limits=VideoLimits(max_pixels=70000))
    with pytest.raises(VideoDecodeError, match="none of its 5 frames can be decoded"):  # FFmpeg makes no room for them
        read_video(path, [0], limits=VideoLimits(max_pixels=64 * 48))


def test_a_file_with_too_many_frames_is_refused(video_files):
    for kind in ("h264_short_gop.mp4", "vp9.webm", "xvid.avi"):
        assert len(read_video(video_files[kind], limits=VideoLimits(max_frames=40))[0]) == 40
        with pytest.raises(VideoDecodeError, match="has more frames than the limit of 39"):
            read_video(video_files[kind], [0], limits=VideoLimits(max_frames=39))


def test_a_file_that_takes_too_long_is_refused(video_files):
    with pytest.raises(VideoDecodeError, match="mp4: not decoded within the limit of 1e-06 seconds"):
        read_video(video_files["h264_long_gop.mp4"], limits=VideoLimits(max_seconds=1e-6))


def test_a_frame_that_takes_too_long_is_not_returned(monkeypatch):
    class Slow:
        def decode(self, packet):
            later[0] += 20
            return []

    monotonic, later = time.monotonic, [0]
    monkeypatch.setattr(time, "monotonic", lambda: monotonic() + later[0])
    source = video_container.Source(io.BytesIO(), "slow.avi", VideoLimits(max_seconds=10))
    with pytest.raises(VideoDecodeError, match="slow.avi: not decoded within the limit of 10 seconds"):
        video_decoding._decode(Slow(), av.Packet(), source)


def test_what_is_done_with_frames_is_not_counted_as_decoding(video_files, monkeypatch):
    monotonic, later = time.monotonic, [0]
    monkeypatch.setattr(time, "monotonic", lambda: monotonic() + later[0])
    with open_frames(video_files["h264_long_gop.mp4"], VideoLimits(max_seconds=1000)) as (_, frames):
        later[0] += 2000
        next(frames)
        later[0] += 2000
        assert len(list(frames)) == 59


def test_limits_hold_for_the_process_until_others_are_set(video_files, tiny_processor):
    before = limits_in_force()
    set_video_limits(VideoLimits(max_frames=39))
    try:
        with pytest.raises(VideoDecodeError, match="limit of 39"):
            tiny_processor(video_files["vp9.webm"])
    finally:
        set_video_limits(before)
    tiny_processor(video_files["vp9.webm"])


def in_a_process_with(limits: str, code: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "DVFLNET_VIDEO_LIMITS": limits, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)


@pytest.mark.slow
@pytest.mark.parametrize("size", [(2048, 32), (32, 2048)])
def test_a_thin_frame_is_refused(tmp_path, size):
    path = write_video(tmp_path / "thin.mkv", codec="ffv1", num_frames=2, width=size[0], height=size[1])
    assert read_video(path, [0], limits=VideoLimits(max_aspect_ratio=64))[0].shape == (1, *size[::-1], 3)
    with pytest.raises(
        VideoDecodeError, match=rf"thin.mkv: has frames of {size[0]} x {size[1]}, thinner than the limit of 32 to 1"
    ):
        read_video(path, [0])


def test_other_decoders_than_those_allowed_are_not_used(video_files, monkeypatch):
    limits = VideoLimits(decoders=("vp8", "vp9"))
    assert len(read_video(video_files["vp9.webm"], [0], limits=limits)[0]) == 1
    with pytest.raises(
        VideoDecodeError, match=r"h264.mkv: is in h264, but only vp8, vp9 can be read here \(decoders\)"
    ):
        read_video(video_files["h264.mkv"], [0], limits=limits)


def test_tracks_beyond_the_first_ones_are_not_opened(tmp_path):
    with av.open(str(tmp_path / "many.mkv"), "w") as container:
        streams = [container.add_stream("mpeg4", rate=25) for _ in range(40)]
        for stream in streams:
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for stream in streams:
            picture = np.zeros((48, 64, 3), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode())
    with open_frames(tmp_path / "many.mkv") as (_, frames):
        assert sum(1 for _ in frames) == 1
    source = video_container.Source(open(tmp_path / "many.mkv", "rb"), "many.mkv", VideoLimits())  # noqa: SIM115
    container, _ = video_container.open_container(source)
    assert len(container.streams) == 32


def test_limits_come_from_the_environment():
    code = "from hf_dvflnet.video_limits import video_limits; print(video_limits())"
    text = "max_frames=7 max_seconds=2.5,allow_private_addresses=no decoders=h264+vp9"
    limits = VideoLimits(max_frames=7, max_seconds=2.5, allow_private_addresses=False, decoders=("h264", "vp9"))
    assert in_a_process_with(text, code).stdout.strip() == repr(limits)


@pytest.mark.parametrize(
    "text", ["max_frame=7", "max_frames=many", "max_frames", "allow_private_addresses=1", "decoders="]
)
def test_limits_that_cannot_be_read_are_refused(text):
    with pytest.raises(ValueError, match=f"cannot read '{text}'; expected NAME=NUMBER"):
        video_limits._read_limits(text)


def test_a_limit_below_its_range_is_refused():
    with pytest.raises(ValueError, match="max_pixels must be positive, got 0"):
        VideoLimits(max_pixels=0)


def test_an_hour_of_60_frames_a_second_is_within_the_limits():
    assert VideoLimits().max_frames >= 60 * 3600


# headers that ask for memory


def with_frames_of_one_size(content: bytes, count: int) -> bytes:
    """An mp4 whose header says that it has `count` frames of one byte, in as many bytes as before."""
    data = bytearray(content)
    sizes, chunks = data.index(b"stsz"), data.index(b"stsc")
    data[sizes + 8 : sizes + 16] = struct.pack(">II", 1, count)
    data[chunks + 12 : chunks + 20] = struct.pack(">II", 1, count)
    return bytes(data)


def test_an_index_that_would_fill_the_memory_is_refused_before_it_is_made(video_files, monkeypatch):
    content = with_frames_of_one_size(video_files["h264_short_gop.mp4"].read_bytes(), 3_000_000)
    # without the check FFmpeg makes all of it
    with av.open(io.BytesIO(content)) as container:
        assert len(container.streams.video[0].index_entries) == 3_000_000
    monkeypatch.setattr(video_decoding, "open_container", None)
    with pytest.raises(VideoDecodeError, match="says that it has 3000000 frames, more than the limit of 1000000"):
        read_video(content)


def test_an_index_that_says_it_is_larger_than_its_header_is_refused(video_files):
    # FFmpeg reads such a box up to its parent's end; here it is the last one of that
    content = with_frames_of_one_size(video_files["h264_short_gop.mp4"].read_bytes(), 3_000_000)
    parent, place = (content.index(kind) - 4 for kind in (b"stbl", b"stsz"))
    end, behind = (at + int.from_bytes(content[at : at + 4], "big") for at in (parent, place))
    content = content[:place] + content[behind:end] + b"\x7f\xff\xff\xff" + content[place + 4 : behind] + content[end:]
    with av.open(io.BytesIO(content)) as container:
        assert len(container.streams.video[0].index_entries) == 3_000_000
    with pytest.raises(VideoDecodeError, match="says that it has 3000000 frames, more than the limit of 1000000"):
        read_video(content)


def test_a_box_without_a_name_hides_no_index(video_files):
    content = with_frames_of_one_size(video_files["h264_short_gop.mp4"].read_bytes(), 3_000_000)
    place = content.index(b"moov") - 4
    with pytest.raises(VideoDecodeError, match="says that it has 3000000 frames"):
        read_video(content[:place] + b"\0\0\0\x08\1\2\3\4" + content[place:])


def test_the_frames_of_all_tracks_count_together(video_files):
    content = with_frames_of_one_size(video_files["h264_short_gop.mp4"].read_bytes(), 999_999)
    header, track = content.index(b"moov") - 4, content.index(b"trak") - 4
    header_size, size = (int.from_bytes(content[place : place + 4], "big") for place in (header, track))
    content = (
        content[:header]
        + struct.pack(">I", header_size + 200 * size)
        + content[header + 4 : track]
        + 201 * content[track : track + size]
        + content[track + size :]
    )
    with pytest.raises(VideoDecodeError, match="says that it has 200999799 frames"):
        read_video(content)


def test_a_header_of_many_small_boxes_is_looked_at_in_little_time():
    # half a megabyte took a minute when each of its tables was compared with the whole header
    header = b"\0\0\0\x08stsz" * 65_536
    source = io.BytesIO(struct.pack(">I4s", 8 + len(header), b"moov") + header)
    began = time.process_time()
    refuse_inflated_index(source, "a.mp4", VideoLimits())
    assert time.process_time() - began < 5


@pytest.mark.parametrize("size", [None, 0x7FFFFFFF])
def test_fragments_that_would_fill_the_memory_are_refused(tmp_path, size):
    flags = {"movflags": "frag_keyframe+empty_moov"}
    path = write_video(tmp_path / "a.mp4", num_frames=5, container_options=flags)
    read_video(path)
    data = bytearray(path.read_bytes())
    run = data.index(b"trun")
    data[run + 4 : run + 12] = struct.pack(">II", 0, 50_000_000)  # nothing is told of each
    if size is not None:
        data[run - 4 : run] = struct.pack(">I", size)
    with pytest.raises(VideoDecodeError, match="says that it has 50000000 frames"):
        read_video(bytes(data))


def test_a_title_may_have_the_letters_of_a_box(tmp_path):
    path = tmp_path / "a.mp4"
    write_video(path, num_frames=5)
    with av.open(str(path)) as source, av.open(str(tmp_path / "b.mp4"), "w") as target:
        target.metadata["title"] = "truncated trunks, and what cmov does"
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    assert b"truncated" in (tmp_path / "b.mp4").read_bytes()
    assert len(read_video(tmp_path / "b.mp4")[0]) == 5


def test_a_compressed_header_is_refused(video_files):
    content = video_files["h264_short_gop.mp4"].read_bytes()
    with pytest.raises(VideoDecodeError, match="its header is compressed"):
        read_video(content + struct.pack(">I4sI4sI8s", 28, b"moov", 20, b"cmov", 12, b"dcomzlib"))


def test_sound_that_is_not_compressed_may_have_many_samples(tmp_path):
    path = tmp_path / "sound.mov"
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        audio = container.add_stream("pcm_s16le", rate=48000, layout="mono")
        for number in range(25):
            frame = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")
            frame.pts = number
            container.mux(video.encode(frame))
            sound = av.AudioFrame.from_ndarray(np.zeros((1, 1920), np.int16), format="s16", layout="mono")
            sound.sample_rate, sound.pts = 48000, 1920 * number
            container.mux(audio.encode(sound))
        container.mux(video.encode())
    with path.open("rb") as file:
        refuse_inflated_index(file, "sound.mov", VideoLimits(max_frames=1000))
    assert len(read_video(path, limits=VideoLimits(max_frames=1000))[0]) == 25


# files that name others


def write_secret(folder: Path) -> Path:
    """A video of another user: its frames are numbered from 77."""
    write_video(folder / "secret.mp4", num_frames=3, first_number=77)
    return write_video(folder / "secret.ts", num_frames=3, first_number=77)


CRAFTED = {
    "absolute.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{folder}/secret.ts\n#EXT-X-ENDLIST\n",
    "relative.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nsecret.ts\n#EXT-X-ENDLIST\n",
    "url.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nfile://{folder}/secret.ts\n#EXT-X-ENDLIST\n",
    "concat.mp4": "ffconcat version 1.0\nfile secret.mp4\n",
}
# what FFmpeg refuses by itself, today
ALSO_REFUSED = {
    "named_as_a_video.mp4": "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nsecret.ts\n#EXT-X-ENDLIST\n",
    "concat_absolute.mp4": "ffconcat version 1.0\nfile '{folder}/secret.mp4'\n",
    "subfile.m3u8": "#EXTM3U\n#EXTINF:2,\nsubfile,,start,0,end,9999,,:{folder}/secret.ts\n#EXT-X-ENDLIST\n",
    "concat_protocol.m3u8": "#EXTM3U\n#EXTINF:2,\nconcat:{folder}/secret.ts\n#EXT-X-ENDLIST\n",
    "key.m3u8": '#EXTM3U\n#EXT-X-KEY:METHOD=AES-128,URI="{folder}/secret.ts"\n#EXTINF:2,\na.ts\n#EXT-X-ENDLIST\n',
    "session.sdp": "v=0\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
    "subtitles.idx": "# VobSub index file, v7 (do not modify this line!)\nid: en, index: 0\n",
    "frame-%03d.png": "",
}
GUARDS = {
    "the kinds of files": {"container_options": {"format_whitelist": video_container._FORMATS}},
    "io_open and protocols": {
        "io_open": video_container._refuse_nested,
        "container_options": {"protocol_whitelist": "none"},
    },
}


@pytest.mark.parametrize("name", CRAFTED)
@pytest.mark.parametrize("guard", GUARDS)
def test_a_file_that_names_another_cannot_have_it_read(tmp_path, monkeypatch, name, guard):
    write_secret(tmp_path)
    (tmp_path / name).write_text(CRAFTED[name].format(folder=tmp_path))
    # without guards the other file's frames come out, so that what follows shows what a guard does
    monkeypatch.setattr(video_container, "_GUARDS", {})
    assert [read_number(frame) for frame in read_video(tmp_path / name)[0]] == [77, 78, 79]
    monkeypatch.setattr(video_container, "_GUARDS", GUARDS[guard])
    with pytest.raises(VideoDecodeError, match=name):
        read_video(tmp_path / name)


@pytest.mark.parametrize("name", [*CRAFTED, *ALSO_REFUSED])
def test_a_crafted_file_is_refused(tmp_path, name):
    write_secret(tmp_path)
    (tmp_path / name).write_text({**CRAFTED, **ALSO_REFUSED}[name].format(folder=tmp_path))
    with pytest.raises(VideoDecodeError, match="cannot be opened as a video"):
        read_video(tmp_path / name)


def test_an_mp4_that_keeps_its_frames_in_another_file_is_refused(tmp_path):
    path = write_video(tmp_path / "own.mp4", num_frames=3, first_number=77)
    data = bytearray(path.read_bytes())
    place = data.index(b"url \x00\x00\x00\x01")  # the flag says: in this file
    data[place + 7] = 0
    mdat = data.index(b"mdat")
    size = int.from_bytes(data[mdat - 4 : mdat], "big")
    data[mdat + 4 : mdat - 4 + size] = bytes(size - 8)  # whatever comes out cannot be its own
    (tmp_path / "thief.mp4").write_bytes(data)
    with pytest.raises(VideoDecodeError, match="thief.mp4"):
        read_video(tmp_path / "thief.mp4")


# what damaged videos brought to light, see `damaged_videos.py`


def test_a_sound_that_begins_midway_does_not_end_in_an_index_error(tmp_path):
    first = write_video(tmp_path / "first.flv", num_frames=300, width=80, height=48)
    second = write_video(tmp_path / "second.flv", num_frames=20, width=80, height=48, audio_first=True)
    content = first.read_bytes() + second.read_bytes()[13:]  # less the header
    with av.open(io.BytesIO(content)) as container, suppress(IndexError):  # of PyAV 18
        list(container.demux(container.streams.video[0]))
    assert [read_number(frame) for frame in read_video(content, [0, 250])[0]] == [0, 250]


def test_a_line_of_text_that_asks_for_gigabytes_is_refused():
    with pytest.raises(VideoDecodeError, match="has frames of 9000 x 9000, more than the limit of 40000000 pixels"):
        read_video(b"YUV4MPEG2 W9000 H9000 F25:1\nFRAME\n" + bytes(100))


def test_a_matroska_header_that_ends_before_its_first_size_lacks_nothing():
    assert video_container._missing_bytes(io.BytesIO(b"\x1a\x45\xdf\xa3\x80\x18\x53\x80\x67")) == 0
