"""Downloads from a server on this machine, within limits of size, time, redirects and addresses."""

import asyncio
import gzip
import http.server
import socket
import threading
import time

import numpy as np
import pytest

from hf_dvflnet import VideoDecodeError, VideoLimits, read_video
from hf_dvflnet.data import storages
from hf_dvflnet.data.storages import fetch_video, is_public


PUBLIC_ONLY = VideoLimits(allow_private_addresses=False)


@pytest.fixture
def server(video_files):
    """An HTTP server on this machine over the video files, with addresses that misbehave."""
    asked, hosts = [], []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=next(iter(video_files.values())).parent)

        def do_GET(self):
            asked.append(self.path)
            hosts.append(self.headers["Host"])
            if self.path == "/slow":
                self.send_response(200)
                self.end_headers()
                for _ in range(100):
                    self.wfile.write(bytes(1000))
                    time.sleep(0.05)
            elif self.path == "/trickle":  # a byte of the headers at a time
                for letter in b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100:
                    self.wfile.write(bytes([letter]))
                    time.sleep(0.05)
            elif self.path == "/silent":
                time.sleep(4)
            elif self.path == "/bomb":  # a million zeros in a kilobyte
                content = gzip.compress(bytes(1_000_000))
                self.send_response(200)
                self.send_header("Content-Encoding", "gzip")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)
            elif self.path.startswith("/again/"):  # to /again/N-1 ..., and at last to the video
                left = int(self.path.rpartition("/")[2])
                self.redirect(f"/again/{left - 1}" if left > 1 else "/vp9.webm")
            elif self.path.startswith("/to/"):
                self.redirect(self.path.removeprefix("/to/"))
            elif self.path == "/to_nowhere":
                self.redirect(None)
            else:
                super().do_GET()

        def redirect(self, location):
            self.send_response(302)
            if location is not None:
                self.send_header("Location", location)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args):
            pass

    class Server(http.server.ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request, client_address):
            pass  # the client has hung up, as it should

    with Server(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        server.asked, server.hosts = asked, hosts
        server.url = f"http://127.0.0.1:{server.server_port}"
        yield server
        server.shutdown()


def test_a_url_is_read_like_the_file(server, video_files):
    expected, _ = read_video(video_files["vp9.webm"], [7, 21])
    assert np.array_equal(read_video(f"{server.url}/vp9.webm", [7, 21])[0], expected)


def test_a_download_stops_at_its_size(server):
    with pytest.raises(VideoDecodeError, match="larger than the limit of 1000 bytes"):
        fetch_video(f"{server.url}/vp9.webm", VideoLimits(max_download_bytes=1000))


@pytest.mark.parametrize("path", ["slow", "trickle", "silent"])
def test_a_download_stops_in_time(server, path):
    start = time.monotonic()
    with pytest.raises(VideoDecodeError, match=f"{path}: not downloaded within the limit of 0.5 seconds"):
        fetch_video(f"{server.url}/{path}", VideoLimits(max_download_seconds=0.5))
    assert time.monotonic() - start < 2  # the whole would take 4 seconds and more


def test_what_a_server_compresses_is_not_unpacked(server):
    with fetch_video(f"{server.url}/bomb") as file:
        assert len(file.read()) < 2000


def test_redirects_are_followed_up_to_their_limit(server):
    with fetch_video(f"{server.url}/again/5") as file:
        assert file.read(4) == b"\x1a\x45\xdf\xa3"
    with pytest.raises(VideoDecodeError, match="redirected more often than the limit of 5 times"):
        fetch_video(f"{server.url}/again/6")
    with pytest.raises(VideoDecodeError, match="more often than the limit of 0 times"):
        fetch_video(f"{server.url}/again/1", VideoLimits(max_redirects=0))


@pytest.mark.parametrize("url", ["ftp://host/a.mp4", "file:///etc/passwd", "concat://a.mp4", "subfile,,start,0,:://a"])
def test_other_schemes_are_refused(url):
    with pytest.raises(VideoDecodeError, match="only http and https"):
        read_video(url)


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("nothing.mp4", "nothing.mp4: cannot be downloaded: .*404"),
        ("to_nowhere", "to_nowhere: cannot be downloaded"),
        *((f"to/{url}", f"redirects to {url}: only http and https") for url in ("file:/etc/a", "ftp://127.0.0.1/a")),
    ],
)
def test_an_answer_that_is_no_file_is_named(server, path, reason):
    with pytest.raises(VideoDecodeError, match=reason):
        read_video(f"{server.url}/{path}")


@pytest.mark.parametrize(
    "url", ["http://", "http://[::1/a.mp4", "http://127.0.0.1:1/a.mp4", "https://127.0.0.1:1/", "http://a..b/a.mp4"]
)
def test_a_url_that_leads_nowhere_is_named(url):
    with pytest.raises(VideoDecodeError, match="cannot be downloaded"):
        read_video(url)


def test_a_private_address_is_refused_and_never_asked(server):
    for host in ("127.0.0.1", "localhost", "0.0.0.0", "2130706433", "[::ffff:127.0.0.1]"):
        with pytest.raises(VideoDecodeError, match="which is not public|cannot be downloaded"):
            fetch_video(server.url.replace("127.0.0.1", host) + "/vp9.webm", PUBLIC_ONLY)
    assert server.asked == []


def test_a_name_is_asked_at_the_address_that_was_checked(server, monkeypatch):
    looked_up = []
    original = socket.getaddrinfo

    def resolve(host, port, *more, **other):
        if host != "video.example":
            return original(host, port, *more, **other)
        looked_up.append(host)  # at a second look-up the name might have another address
        return original("127.0.0.1", port, *more, **other)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(storages, "is_public", lambda address: True)
    with fetch_video(f"http://video.example:{server.server_port}/vp9.webm", PUBLIC_ONLY) as file:
        assert file.read(4) == b"\x1a\x45\xdf\xa3"
    assert looked_up == ["video.example"]
    assert server.hosts == [f"video.example:{server.server_port}"]


def test_a_redirect_to_a_private_address_is_refused(server, monkeypatch):
    answers = iter([True])  # the first address passes for a public one
    monkeypatch.setattr(storages, "is_public", lambda address: next(answers, False))
    with pytest.raises(VideoDecodeError, match="127.0.0.1, which is not public"):
        fetch_video(f"{server.url}/to/{server.url}/vp9.webm", PUBLIC_ONLY)
    assert server.asked == [f"/to/{server.url}/vp9.webm"]


def test_a_name_with_one_private_address_among_public_ones_is_refused(monkeypatch):
    def resolve(host, port, *more, **other):
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port)) for one in ("1.1.1.1", "10.0.0.1")]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with pytest.raises(VideoDecodeError, match="video.example has the address 10.0.0.1, which is not public"):
        fetch_video("http://video.example/a.mp4", PUBLIC_ONLY)


@pytest.mark.parametrize("private", [True, False])
def test_a_slow_look_up_of_a_name_stops_in_time(monkeypatch, private):
    monkeypatch.setattr(socket, "getaddrinfo", lambda *host, **other: time.sleep(2) or [])
    start = time.monotonic()
    with pytest.raises(VideoDecodeError, match="not downloaded within the limit of 0.2 seconds"):
        fetch_video("http://video.example/", VideoLimits(max_download_seconds=0.2, allow_private_addresses=private))
    assert time.monotonic() - start < 1.5


def test_a_url_is_fetched_while_an_event_loop_runs(server):
    async def fetch():
        with fetch_video(f"{server.url}/vp9.webm") as file:
            return file.read(4)

    assert asyncio.run(fetch()) == b"\x1a\x45\xdf\xa3"


PRIVATE = (
    *("127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0"),
    *("224.0.0.1", "240.0.0.1", "255.255.255.255", "192.0.2.1"),
    *("::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "ff02::1", "2001:db8::1"),
    *("::ffff:10.0.0.1", "64:ff9b::10.0.0.1", "2002:0a00:0001::1", "2002:7f00:0001::"),
)
PUBLIC = ("1.1.1.1", "8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8")


@pytest.mark.parametrize("address", [*PRIVATE, *PUBLIC])
def test_only_addresses_of_the_internet_are_public(address):
    assert is_public(address) == (address in PUBLIC)
