"""
Request handler of an Inference Endpoint of the Hub. docs/export.md lists the files that it needs beside it.

A request is JSON: `inputs` is the http(s) URL of a video, or the bytes of a file in base64, also as a data: URI;
`parameters` may hold `top_k` (5) and `views` (1, 4 or 12). Videos are decoded in the sandbox. URLs of the endpoint's
own network are refused.
"""

import base64
from contextlib import suppress
from dataclasses import replace
from typing import Any
from urllib.parse import unquote

from hf_dvflnet import load_processor, set_video_limits
from hf_dvflnet.inference.pipeline import VIEWS, load_placed, predict_videos
from hf_dvflnet.video_decoding import video_limits


class EndpointHandler:
    """
    Args:
        path: The folder of the model, or one that `dvflnet export` wrote.
    """

    def __init__(self, path: str = ""):
        self.model, self.processor = load_placed(path or "."), load_processor(path or ".")
        set_video_limits(replace(video_limits(), allow_private_addresses=False, sandbox=True, max_seconds=60))

    def __call__(self, data: dict[str, Any]) -> list[dict[str, Any]]:
        """
        Return the best classes, best first, as `{"label": ..., "score": ...}`. If the model has a threshold and the
        best score is below it, the first label is null, and the class is there as `best_guess`.

        Raises:
            ValueError: If the request does not hold a video that can be read; the endpoint answers with the message.
        """
        parameters = data.get("parameters") or {}
        unknown = set(parameters) - {"top_k", "views"}
        if unknown:
            raise ValueError(f"parameters: {', '.join(sorted(unknown))}: unknown; there are top_k and views")
        top_k, views = parameters.get("top_k", 5), parameters.get("views", 1)
        if views not in VIEWS or not isinstance(top_k, int) or top_k < 1:
            raise ValueError(f"parameters: views must be 1, 4 or 12 and top_k at least 1, got {views!r} and {top_k!r}")
        video = video_of(data.get("inputs"))
        (row,) = predict_videos(self.model, self.processor, [video], views=views, top_k=top_k, num_workers=0)
        if "error" in row:
            raise row["error"]
        return row["answers"]


def video_of(inputs: Any) -> str | bytes:
    """Return a URL, or the bytes of a file; never a path of this machine."""
    if isinstance(inputs, bytes) and inputs:
        return inputs
    if isinstance(inputs, str) and inputs.lower().startswith(("http://", "https://")):
        return inputs
    if isinstance(inputs, str):
        text = inputs
        if text.lower().startswith("data:"):
            kind, _, text = text.partition(",")
            text = unquote(text) if kind.lower().endswith(";base64") else ""
        text = "".join(text.split())  # encoders break lines
        if not set("+/") & set(text):  # the alphabet for URLs, in which padding is often left out
            text = text.translate(str.maketrans("-_", "+/")) + "=" * (-len(text) % 4)
        with suppress(ValueError):
            if content := base64.b64decode(text, validate=True):
                return content
    raise ValueError("inputs: must be the http(s) URL of a video, or the bytes of a file in base64 or as a data: URI")
