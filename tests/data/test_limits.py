import struct
from pathlib import Path

import av
import numpy as np
import pytest
from commands import run
from videos import read_number, write_video

from hf_dvflnet import VideoDecodeError, VideoLimits, read_video, set_video_limits, video_decoding
from hf_dvflnet.data.frames import open_frames
from hf_dvflnet.data.limits import limits_of_environment, worker_limits
from hf_dvflnet.video_decoding import video_limits


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


@pytest.mark.parametrize("size", [(2048, 32), (32, 2048)])
def test_a_thin_frame_is_refused(tmp_path, size):
    path = write_video(tmp_path / "thin.mkv", codec="ffv1", num_frames=2, width=size[0], height=size[1])
    assert read_video(path, [0], limits=VideoLimits(max_aspect_ratio=64))[0].shape == (1, *size[::-1], 3)
    with pytest.raises(
        VideoDecodeError, match=rf"thin.mkv: has frames of {size[0]} x {size[1]}, thinner than the limit of 32 to 1"
    ):
        read_video(path, [0])


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
    with (
        video_decoding.opened(tmp_path / "many.mkv", VideoLimits()) as source,
        source.open() as (container, _),
    ):
        assert len(container.streams) == 32


def test_limits_hold_for_the_process_until_others_are_set(video_files, tiny_processor):
    before = video_limits()
    set_video_limits(VideoLimits(max_frames=39))
    try:
        with pytest.raises(VideoDecodeError, match="limit of 39"):
            tiny_processor(video_files["vp9.webm"])
    finally:
        set_video_limits(before)
    tiny_processor(video_files["vp9.webm"])


def test_limits_come_from_the_environment(tmp_path):
    text = "max_frames=7 max_seconds=2.5,allow_private_addresses=no sandbox=yes"
    code = "import hf_dvflnet; print(hf_dvflnet.video_decoding.video_limits())"
    limits = VideoLimits(max_frames=7, max_seconds=2.5, allow_private_addresses=False, sandbox=True)
    assert run(code, tmp_path, DVFLNET_VIDEO_LIMITS=text).strip() == repr(limits)


@pytest.mark.parametrize("text", ["max_frame=7", "max_frames=many", "max_frames", "max_frames=0", "sandbox="])
def test_limits_that_cannot_be_read_are_refused(text, monkeypatch):
    monkeypatch.setenv("DVFLNET_VIDEO_LIMITS", text)
    with pytest.raises(ValueError, match=f"cannot read '{text}'.*expected NAME=NUMBER"):
        limits_of_environment()


@pytest.mark.parametrize(
    "limit", [{"max_pixels": 0}, {"max_memory": 4e9 + 0.5}, {"max_seconds": float("inf")}, {"max_frames": 1.5}]
)
def test_a_limit_that_a_process_cannot_have_is_refused(limit):
    with pytest.raises(ValueError, match=f"{next(iter(limit))} must be"):
        VideoLimits(**limit)


def test_the_variable_keeps_workers_out_of_the_sandbox(monkeypatch):
    assert worker_limits(2).sandbox and not worker_limits(0).sandbox
    monkeypatch.setenv("DVFLNET_VIDEO_LIMITS", "sandbox=no")
    assert not worker_limits(2).sandbox


# files that name others


def write_secret(folder: Path) -> Path:
    """A video of another user: its frames are numbered from 77."""
    write_video(folder / "secret.mp4", num_frames=3, first_number=77)
    return write_video(folder / "secret.ts", num_frames=3, first_number=77)


# read by FFmpeg where it is not told otherwise
CRAFTED = {
    "absolute.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{folder}/secret.ts\n#EXT-X-ENDLIST\n",
    "relative.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nsecret.ts\n#EXT-X-ENDLIST\n",
    "url.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nfile://{folder}/secret.ts\n#EXT-X-ENDLIST\n",
    "concat.mp4": "ffconcat version 1.0\nfile secret.mp4\n",
}
# refused by FFmpeg itself, today
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


@pytest.mark.parametrize("name", CRAFTED)
def test_only_the_list_of_formats_keeps_a_file_from_having_another_read(tmp_path, monkeypatch, name):
    write_secret(tmp_path)
    (tmp_path / name).write_text(CRAFTED[name].format(folder=tmp_path))
    with pytest.raises(VideoDecodeError, match=name):
        read_video(tmp_path / name)
    original = av.open
    monkeypatch.setattr(av, "open", lambda file, *_, **__: original(file.name))
    assert [read_number(frame) for frame in read_video(tmp_path / name)[0]] == [77, 78, 79]


@pytest.mark.parametrize("name", [*CRAFTED, *ALSO_REFUSED])
@pytest.mark.parametrize("sandbox", [False, True])
def test_a_crafted_file_is_refused(tmp_path, name, sandbox):
    write_secret(tmp_path)
    (tmp_path / name).write_text({**CRAFTED, **ALSO_REFUSED}[name].format(folder=tmp_path))
    with pytest.raises(VideoDecodeError, match="cannot be opened as a video"):
        read_video(tmp_path / name, limits=VideoLimits(sandbox=sandbox))


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


def test_a_line_of_text_that_asks_for_gigabytes_is_refused():
    with pytest.raises(VideoDecodeError, match="has frames of 9000 x 9000, more than the limit of 40000000 pixels"):
        read_video(b"YUV4MPEG2 W9000 H9000 F25:1\nFRAME\n" + bytes(100))
