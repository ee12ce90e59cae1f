"""
`examples/endpoint/handler.py`, called as the Hub documents: `EndpointHandler(path)`, then
`handler({"inputs": ..., "parameters": ...})`, whose answer is JSON. The Hub's own toolkit is not at hand.
"""

import base64
import importlib.util
import json
import threading
from urllib.parse import quote

import pytest
from places import ROOT

from hf_dvflnet import VideoDecodeError, load_model, load_processor, set_video_limits
from hf_dvflnet.data.sandbox import SandboxError
from hf_dvflnet.inference.pipeline import predict_videos
from hf_dvflnet.video_decoding import video_limits


@pytest.fixture
def handler(tiny_folder):
    """Loaded as the toolkit does: from the file, by the name of its class, with the folder of the model."""
    before = video_limits()
    spec = importlib.util.spec_from_file_location("handler", ROOT / "examples" / "endpoint" / "handler.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module.EndpointHandler(str(tiny_folder))
    set_video_limits(before)


@pytest.fixture
def video(video_files):
    return video_files["h264_short_gop.mp4"]


ENCODERS = {
    "bytes": bytes,
    "base64": lambda content: base64.b64encode(content).decode(),
    "with line ends": lambda content: base64.encodebytes(content).decode().replace("\n", "\r\n"),
    "for URLs": lambda content: base64.urlsafe_b64encode(content).decode().rstrip("="),
    "data URI": lambda content: f"data:video/mp4;base64,{base64.b64encode(content).decode()}",
    "quoted data URI": lambda content: f"data:;base64,{quote(base64.b64encode(content))}",
}


@pytest.mark.parametrize("encode", ENCODERS.values(), ids=ENCODERS)
def test_the_bytes_of_a_file_are_answered_as_predict_answers(handler, tiny_folder, video, encode):
    answers = handler({"inputs": encode(video.read_bytes()), "parameters": {"top_k": 2, "views": 12}})
    model, processor = load_model(str(tiny_folder)), load_processor(str(tiny_folder))
    (expected,) = predict_videos(model, processor, [str(video)], views=12, top_k=2)
    assert json.loads(json.dumps(answers)) == expected["answers"]


@pytest.mark.parametrize("inputs", [None, "", 3, ["a"], "/etc/passwd", "file:///etc/passwd", "no base64 !", "data:,a"])
def test_inputs_that_are_no_video_are_refused(handler, inputs):
    with pytest.raises(ValueError, match="inputs: must be the http"):
        handler({"inputs": inputs})


def test_addresses_of_the_network_of_the_endpoint_are_refused(handler):
    with pytest.raises(VideoDecodeError, match="private addresses are not allowed"):
        handler({"inputs": "http://127.0.0.1/a.mp4"})


def test_videos_are_decoded_in_the_sandbox(handler, video, monkeypatch):
    monkeypatch.setattr("hf_dvflnet.data.sandbox.Sandbox.program", "nowhere.py")
    monkeypatch.setattr("hf_dvflnet.data.sandbox._local", threading.local())
    with pytest.raises(SandboxError):
        handler({"inputs": video.read_bytes()})


def test_bytes_that_are_no_video_are_refused(handler):
    with pytest.raises(VideoDecodeError):
        handler({"inputs": base64.b64encode(b"no video").decode()})
