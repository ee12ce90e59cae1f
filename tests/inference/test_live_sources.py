"""Live sources on the loopback: cameras over UDP and RTSP, HTTP servers that stream in bursts, stall or break off."""

import functools
import http.server
import json
import shutil
import socket
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import contextmanager, suppress
from itertools import islice

import av
import numpy as np
import pytest
import torch
from places import HELPERS
from videos import numbered_frame, read_number, write_video

from hf_dvflnet import VideoDecodeError, VideoFocalNetForVideoClassification, VideoStreamClassifier
from hf_dvflnet.inference import live_sources
from hf_dvflnet.inference.live_sources import open_stream, worth_answering
from hf_dvflnet.inference.sliding_window import SlidingWindow


@pytest.fixture
def tiny_model(tiny_config) -> VideoFocalNetForVideoClassification:
    torch.manual_seed(0)
    return VideoFocalNetForVideoClassification(tiny_config).eval()


def free_port(kind: int) -> int:
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def camera():
    """A stream of numbered frames, 50 a second: its address and the number that is sent now."""
    url = f"udp://127.0.0.1:{free_port(socket.SOCK_DGRAM)}"
    stop, sent = threading.Event(), [0]

    def send():
        with av.open(url + "?pkt_size=1316", "w", format="mpegts") as container:
            stream = container.add_stream("mpeg4", rate=50, options={"g": "5", "b": "1000000"})
            stream.width, stream.height, stream.pix_fmt = 80, 48, "yuv420p"
            start = time.perf_counter()
            while not stop.wait(max(0, start + sent[0] / 50 - time.perf_counter())):
                frame = av.VideoFrame.from_ndarray(numbered_frame(sent[0] % 1024, 80, 48), "rgb24")
                container.mux(stream.encode(frame))
                sent[0] += 1

    sender = threading.Thread(target=send)
    sender.start()
    yield url, sent
    stop.set()
    sender.join()


def test_a_network_stream_is_answered_while_it_comes(tiny_model, tiny_processor, camera):
    with open_stream(camera[0]) as stream:
        assert (stream.live, stream.fps) == (True, 50.0)
        classifier = VideoStreamClassifier(tiny_model, tiny_processor, window=10, stride=5)
        answers = list(islice(classifier.run(stream), 4))
    times = [answer.time for answer in answers]
    assert times == sorted(times)
    assert all(answer.latency < 3 for answer in answers)


def test_decoding_that_is_too_slow_leaves_frames_out_and_catches_up(camera, monkeypatch):
    monkeypatch.setattr("hf_dvflnet.inference.live_sources.SECONDS_BEHIND", 0.3)
    url, sent = camera
    behind = []
    with open_stream(url) as stream:
        for picture, _ in islice(stream.frames, 60):
            behind.append(sent[0] - read_number(picture()))
            time.sleep(1 / 20)
    print(behind, stream.lost)
    # 3 s at 20 of 50 frames a second, which would else be 90 frames behind
    assert max(behind[20:]) < 50
    assert stream.lost > 45


@pytest.fixture
def camera_with_sound():
    """A stream of pictures, 25 a second, and sound: its address and whether it films, for the sound goes on."""
    url = f"udp://127.0.0.1:{free_port(socket.SOCK_DGRAM)}"
    stop, films = threading.Event(), threading.Event()
    films.set()

    def send():
        sent_at_once = {"max_interleave_delta": "1"}  # no sound is held back until pictures come
        with av.open(url + "?pkt_size=1316", "w", format="mpegts", container_options=sent_at_once) as container:
            video = container.add_stream("mpeg4", rate=25, options={"g": "5"})
            video.width, video.height, video.pix_fmt = 80, 48, "yuv420p"
            audio = container.add_stream("mp2", rate=48000, layout="mono")
            start, number = time.perf_counter(), 0
            while not stop.wait(max(0, start + number / 25 - time.perf_counter())):
                if films.is_set():
                    frame = av.VideoFrame.from_ndarray(numbered_frame(number % 1024, 80, 48), "rgb24")
                    frame.pts = number
                    container.mux(video.encode(frame))
                noise = np.random.default_rng(number).integers(-3000, 3000, (1, 1920), dtype=np.int16)
                sound = av.AudioFrame.from_ndarray(noise, "s16", "mono")
                sound.sample_rate, sound.pts = 48000, 1920 * number
                container.mux(audio.encode(sound))
                number += 1

    sender = threading.Thread(target=send)
    sender.start()
    yield url, films
    stop.set()
    sender.join()


def test_a_source_that_goes_on_without_video_is_an_error(tiny_model, tiny_processor, camera_with_sound, monkeypatch):
    monkeypatch.setattr("hf_dvflnet.inference.live_sources.SECONDS_TO_READ", 3.0)
    url, films = camera_with_sound
    classifier = VideoStreamClassifier(tiny_model, tiny_processor, window=4, stride=4)
    with open_stream(url) as stream:
        answers = classifier.run(stream)
        next(answers)
        films.clear()
        start = time.perf_counter()
        with pytest.raises(VideoDecodeError, match=r"failed after .* s: no video received for 3 s"):
            list(answers)
        assert time.perf_counter() - start < 15
        assert not stream.reader.is_alive()


def test_an_rtsp_camera_is_answered_until_it_ends(tiny_model, tiny_processor, tmp_path, monkeypatch):
    url = f"rtsp://127.0.0.1:{free_port(socket.SOCK_STREAM)}/live"
    # the camera connects to us here, as FFmpeg can play no server; in a process of its own, as it waits with the GIL
    camera = """
        import sys, time, av
        from videos import numbered_frame
        for attempt in range(100):
            try:
                container = av.open(sys.argv[1], "w", format="rtsp", container_options={"rtsp_transport": "tcp"})
                stream = container.add_stream("libx264", rate=25, options={"g": "25", "tune": "zerolatency"})
                stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
                container.start_encoding()
                break
            except OSError:
                time.sleep(0.1)
        for number in range(30):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(numbered_frame(number, 64, 48), "rgb24")))
            time.sleep(1 / 25)
        container.mux(stream.encode())
        container.close()
    """
    command = [sys.executable, "-c", textwrap.dedent(camera), url]
    process = subprocess.Popen(command, cwd=HELPERS)
    monkeypatch.setattr("hf_dvflnet.inference.live_sources.SECONDS_TO_READ", 3.0)
    try:
        with open_stream(url, {"rtsp_flags": "listen", "listen_timeout": "20"}) as stream:
            assert (stream.live, stream.fps) == (True, 25.0)
            classifier = VideoStreamClassifier(tiny_model, tiny_processor, window=10, stride=10)
            answers = list(classifier.run(stream))
    finally:
        process.kill()
        process.wait()
    assert classifier.frames == 30
    assert classifier.answers + classifier.skipped == 3
    assert all(answer.latency < 3 for answer in answers)


def test_a_source_that_falls_silent_is_an_error_after_a_while(monkeypatch):
    monkeypatch.setattr("hf_dvflnet.inference.live_sources.SECONDS_TO_OPEN", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/camera"
        start = time.perf_counter()
        with pytest.raises(VideoDecodeError, match=r"camera: .*: nothing received for 0\.3 s"), open_stream(url):
            pass
    assert time.perf_counter() - start < 5


@pytest.fixture
def server(tmp_path):
    """An http server of a folder: its address and the folder."""
    (tmp_path / "www").mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    handler = functools.partial(Handler, directory=str(tmp_path / "www"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}", tmp_path / "www"
        running.shutdown()
        thread.join()


def test_a_recording_on_a_server_is_answered_like_the_file(tiny_model, tiny_processor, server, video_files):
    address, folder = server
    shutil.copy(video_files["h264.mkv"], folder / "cam.mkv")
    classifier = VideoStreamClassifier(tiny_model, tiny_processor, window_seconds=0.5, stride_seconds=0.25)
    expected = [(answer.time, answer.label, answer.score) for answer in classifier.run(video_files["h264.mkv"])]
    with open_stream(f"{address}/cam.mkv") as stream:
        assert not stream.live
        answers = [(answer.time, answer.label, answer.score) for answer in classifier.run(stream)]
    assert len(expected) > 2
    assert answers == [(pytest.approx(time), label, pytest.approx(score)) for time, label, score in expected]


@contextmanager
def answering(answer):
    """An http server whose requests `answer(number, send)` answers: the number of the request, and to send bytes."""
    requests = []

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *arguments):
            pass

        def do_GET(self):
            requests.append(self)
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            with suppress(BrokenPipeError, ConnectionResetError):
                answer(len(requests) - 1, lambda data: self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data)))
            self.close_connection = True  # without an end: broken off

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.daemon_threads = True
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}/live.ts"
        running.shutdown()
        thread.join()


@pytest.fixture
def bursts(tmp_path):
    """A live stream over http that sends a second of its 50 frames a second at once: its address."""
    file = write_video(tmp_path / "stream.ts", num_frames=300, rate=50, width=80, height=48, options={"g": "50"})
    content = file.read_bytes()
    size = len(content) // 6 + 1

    def answer(number, send):
        for first in range(0, len(content), size):
            send(content[first : first + size])
            time.sleep(1)
        send(b"")

    with answering(answer) as url:
        yield url


def test_a_live_stream_that_comes_in_bursts_loses_no_frame(bursts, monkeypatch):
    monkeypatch.setattr("hf_dvflnet.inference.live_sources.SECONDS_BEHIND", 0.9)  # less than a burst lasts
    with open_stream(bursts) as stream:
        assert stream.live
        times = []
        for _, seconds in stream.frames:
            times.append(seconds)
            time.sleep(0.01)  # slower than a burst comes, faster than the source on the whole
        assert stream.lost == 0
    np.testing.assert_allclose(times, np.arange(300) / 50, atol=1e-3)


def test_a_network_stream_opens_no_local_file(server, video_files):
    address, folder = server
    secret = video_files["h264_short_gop.mp4"]
    playlists = {
        "hls.m3u8": f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:1.6,\nfile://{secret}\n#EXT-X-ENDLIST\n",
        "concat.ffconcat": f"ffconcat version 1.0\nfile '{secret}'\n",
    }
    for name, text in playlists.items():
        (folder / name).write_text(text)
        with pytest.raises(VideoDecodeError, match=name), open_stream(f"{address}/{name}") as stream:
            next(stream.frames)


@pytest.mark.parametrize(
    "source, reason",
    [
        ("file:///etc/passwd", "file:///etc/passwd: only rtsp, .* URLs, cameras and files"),
        ("concat://a", "only rtsp"),
        ("http://127.0.0.1:9/none", "none: cannot be opened as a live video"),
        ("/dev/video99", "/dev/video99: cannot be opened as a live video: .*No such file"),
        ("dshow:video=none", "dshow:video=none: cannot be opened as a live video"),
    ],
)
def test_a_source_that_cannot_be_opened_is_named(source, reason):
    with pytest.raises(VideoDecodeError, match=reason), open_stream(source):
        pass


# sources that come back


@pytest.fixture
def flaky(tmp_path, monkeypatch):
    """A server that breaks off, sends nothing once, stalls, comes back with another size and rate, and is gone."""
    monkeypatch.setattr(live_sources, "FIRST_PAUSE", 0.1)
    monkeypatch.setattr(live_sources, "SECONDS_TO_READ", 1.0)
    monkeypatch.setattr(live_sources, "SECONDS_STEADY", 0.0)  # what it sends comes at once
    options = {"g": "10"}
    small = write_video(tmp_path / "small.ts", num_frames=50, rate=50, width=80, height=48, options=options)
    large = write_video(tmp_path / "large.ts", num_frames=25, rate=25, width=128, height=96, options=options)

    def answer(number, send):
        if number in (0, 2, 3):
            send((large if number == 3 else small).read_bytes())
        if number == 2:
            time.sleep(2.5)

    with answering(answer) as url:
        yield url


def test_a_source_that_breaks_off_and_stalls_is_opened_again_until_it_stays_away(flaky):
    said, found = [], []
    with (
        open_stream(flaky, reconnect=4) as stream,
        pytest.raises(VideoDecodeError, match="did not return for good within 4 s"),
    ):
        stream.say = said.append
        for picture, seconds in stream.frames:
            found.append((stream.returns, picture().shape[:2], seconds))
        pytest.fail("a source that is gone ends with an error")
    sizes = {(returns, size) for returns, size, _ in found}
    assert sizes == {(0, (48, 80)), (1, (48, 80)), (2, (96, 128))}
    assert stream.fps == 25
    times = [seconds for *_, seconds in found]
    assert times == sorted(times)
    lost, back, stalled, again, gone = said
    assert "tried again for 4 s" in lost and "nothing received for 1 s" in stalled and "tried again" in gone
    assert "is back, " in back and "is back, " in again


def test_no_window_has_frames_from_before_and_after_a_gap(tiny_model, tiny_processor, flaky, monkeypatch):
    windows, gaps = [], []
    window_of, begin_anew = SlidingWindow.window_of, SlidingWindow.begin_anew
    monkeypatch.setattr(SlidingWindow, "window_of", lambda *args: windows.append(window_of(*args)) or windows[-1])
    monkeypatch.setattr(SlidingWindow, "begin_anew", lambda self: gaps.append(self.count) or begin_anew(self))
    classifier = VideoStreamClassifier(tiny_model, tiny_processor, window=20, stride=10)
    with open_stream(flaky, reconnect=4) as stream, pytest.raises(VideoDecodeError, match="did not return"):
        stream.say = lambda _: None
        list(classifier.run(stream))
    spans = [(due.first, due.stop) for due in windows]
    assert len(gaps) == 2 and len(spans) > 6
    for gap in gaps:
        assert (gap, gap + 20) in spans and not any(first < gap < stop for first, stop in spans)


def test_a_causal_model_begins_anew_after_a_gap_that_is_shorter_than_a_clip(tiny_config, tiny_processor, flaky):
    tiny_config.causal, tiny_processor.fps = True, 5.0
    model = VideoFocalNetForVideoClassification(tiny_config)
    states, step = [], model.step
    model.step = lambda frames, state: states.append(state) or step(frames, state)
    with open_stream(flaky, reconnect=4) as stream, pytest.raises(VideoDecodeError, match="did not return"):
        stream.say = lambda _: None
        list(VideoStreamClassifier(model, tiny_processor).run(stream))
    assert [state for state in states if not state] == [()] * 3


def test_watch_goes_on_after_a_gap_and_says_so(dvflnet, tiny_folder, flaky):
    code, out, err = dvflnet("watch", tiny_folder, flaky, "--window", 0.4, "--reconnect", 4, "--json")
    assert code == 1 and err.count("is back") == 2 and "did not return for good within 4 s" in err
    assert json.loads(out.splitlines()[-1])["frames"] > 110  # of 125, less what broke off


@pytest.mark.parametrize("kind", ["black", "frozen"])
def test_a_camera_that_shows_nothing_is_reported_and_not_classified(video_files, kind):
    moving = [numbered_frame(number, 64, 48) for number in range(100)]
    still = np.zeros((48, 64, 3), np.uint8) if kind == "black" else moving[30]
    pictures = [still if 30 <= number < 90 else moving[number] for number in range(100)]  # 6 s of 10
    said = []
    with open_stream(video_files["h264.mkv"]) as stream:
        stream.live, stream.say = True, said.append
        frames = [(lambda picture=picture: picture, number / 10) for number, picture in enumerate(pictures)]
        found = [(seconds, anew) for _, seconds, anew in worth_answering(frames, stream)]
    assert [seconds for seconds, anew in found if anew] == [9.0]
    assert len(found) == 90 == 100 - stream.lost
    assert len(said) == 1 and ("black" if kind == "black" else "has not changed") in said[0]
