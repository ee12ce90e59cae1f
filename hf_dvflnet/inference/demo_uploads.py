"""Limit the uploads to the demo page: their size, number, duration and location on disk."""

import asyncio
import os
import re
import shutil
import tempfile
from functools import partial
from pathlib import Path
from typing import Any


# Maximum number of uploads on disk at a time, and maximum seconds for receiving one and for keeping it on disk.
MAX_WAITING = 8
MAX_WAITING_SECONDS = 300.0
# An upload ends after MAX_SILENT_SECONDS without data. Each byte extends that time by 1 / MIN_BYTES_PER_SECOND.
MAX_SILENT_SECONDS = 10.0
MIN_BYTES_PER_SECOND = 50_000

UPLOADS = "uploads"  # the folder of uploads inside gradio's temporary folder


class UploadGate:
    """
    ASGI middleware in front of gradio's server. It accepts uploads of one file each within limits, stores each in its
    own folder, and refuses requests that the page does not use.

    gradio itself would store two uploads with the same bytes in one file, accept any number of uploads, and keep the
    files of broken connections.
    """

    # the POST requests of the page; all except uploads are passed on to gradio
    _POSTS = ("upload", "join", "cancel", "reset")
    # scripts and styles are inline; everything else comes from this host
    _POLICY = b"default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:"

    def __init__(self, app: Any, folder: Path, max_bytes: int):
        self.app, self.folder, self.max_bytes = app, folder, max_bytes

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        from starlette.responses import PlainTextResponse

        async def send_with_policy(message):
            if message["type"] == "http.response.start":
                message.setdefault("headers", []).append((b"content-security-policy", self._POLICY))
            await send(message)

        task = scope["path"].rstrip("/").rpartition("/")[2]
        if task == "upload_progress":  # gradio does not know these uploads, and would search for three seconds
            return await PlainTextResponse('data: {"msg": "done"}\n\n', media_type="text/event-stream")(
                scope, receive, send
            )
        # gradio would fetch URLs for any client, and write sessions with their pictures to disk
        foreign = task == "deep_link" or re.search(r"/file[=/]+https?:|/proxy=", scope["path"])
        if foreign or (scope["method"] == "POST" and task not in self._POSTS):
            return await PlainTextResponse("This page does not support this request.", 404)(scope, receive, send)
        if scope["method"] == "POST" and task == "upload":
            response = await self.take(scope, receive)
            return await response(scope, receive, send)
        return await self.app(scope, receive, send_with_policy)

    async def take(self, scope, receive):
        """Store an upload and respond with its path, as gradio does, or with an error message."""
        from starlette.exceptions import HTTPException
        from starlette.requests import ClientDisconnect, Request
        from starlette.responses import JSONResponse, PlainTextResponse

        request = Request(scope, receive)

        async def refuse(status: int, sentence: str):
            # a browser shows the response only after it has sent the whole request
            received = 0
            async for chunk in request.stream():
                received += len(chunk)
                if received > 2 * self.max_bytes:
                    break
            return PlainTextResponse(sentence, status)

        length = request.headers.get("content-length", "")
        # a chunked upload could be longer than its content-length
        if not length.isdigit() or "transfer-encoding" in request.headers:
            return await refuse(411, "The upload does not state its length.")
        if int(length) > self.max_bytes + 10_000:  # allowance for the multipart encoding
            limit = f"{self.max_bytes / 2**20:g} MB"
            return await refuse(
                413, f"The file is larger than the {limit} that this page accepts; shorten or compress it."
            )
        if len(os.listdir(self.folder)) >= MAX_WAITING:
            return await refuse(503, f"{MAX_WAITING} clips are already waiting; try again in a minute.")
        place = Path(tempfile.mkdtemp(dir=self.folder))
        try:
            clock: Any = asyncio.timeout(MAX_SILENT_SECONDS)
            async with clock:
                latest = asyncio.get_running_loop().time() + MAX_WAITING_SECONDS

                async def receive_in_time():
                    message = await receive()
                    seconds = len(message.get("body", b"")) / MIN_BYTES_PER_SECOND
                    clock.reschedule(min(latest, clock.when() + seconds))
                    return message

                async with Request(scope, receive_in_time).form(max_files=1, max_fields=1) as form:
                    file: Any = form.get("files")
                    if not hasattr(file, "filename"):
                        raise HTTPException(400)
                    path = place / _file_name(file.filename)
                    await asyncio.to_thread(_copy, file.file, path)
        except (HTTPException, ClientDisconnect, TimeoutError, OSError):
            shutil.rmtree(place, ignore_errors=True)
            return PlainTextResponse("The upload was incomplete; try again.", 400)
        except BaseException:
            shutil.rmtree(place, ignore_errors=True)
            raise
        # in case no answer is requested
        asyncio.get_running_loop().call_later(MAX_WAITING_SECONDS, partial(shutil.rmtree, place, ignore_errors=True))
        return JSONResponse([str(path)])


def _copy(file: Any, path: Path):
    with open(path, "wb") as copy:
        shutil.copyfileobj(file, copy, 1 << 20)


def _file_name(name: str | None) -> str:
    """Return a safe file name in which users still recognize their file."""
    kept = "".join(letter for letter in Path((name or "").replace("\\", "/")).name if letter.isprintable())
    kept = kept.strip(". ").replace("/", "")
    stem, suffix = os.path.splitext(kept)
    return f"{stem[:60]}{suffix[:10]}" or "clip"


__all__ = ["MAX_WAITING", "UPLOADS", "UploadGate"]
