"""What stands between people's uploads and the demo page: size, number, time and place of them are limited."""

import asyncio
import os
import re
import shutil
import tempfile
from functools import partial
from pathlib import Path
from typing import Any


# Clips that may lie on the disk at once, and for how many seconds one may wait for its answer.
MAX_WAITING = 8
MAX_WAITING_SECONDS = 300.0
# An upload that sends nothing holds its place for so long; each byte gives it the time that so many a second take.
MAX_SILENT_SECONDS = 10.0
MIN_BYTES_PER_SECOND = 50_000

UPLOADS = "uploads"  # the folder of them, in gradio's


class UploadGate:
    """
    What stands before gradio's server: it takes uploads, one file each, within limits and into a folder of its own,
    and turns away what the page does not use.

    gradio would keep two uploads of equal bytes in one file, take any number of them, and leave those of broken
    connections behind.
    """

    # of what the page sends, all but uploads goes on to gradio
    _POSTS = ("upload", "join", "cancel", "reset")
    # scripts and styles stand in the page itself; everything else comes from this host
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
        if task == "upload_progress":  # gradio knows of none, and would look for it for three seconds
            return await PlainTextResponse('data: {"msg": "done"}\n\n', media_type="text/event-stream")(
                scope, receive, send
            )
        # gradio would fetch URLs for whoever asks, and write sessions with their pictures to the disk
        foreign = task == "deep_link" or re.search(r"/file[=/]+https?:|/proxy=", scope["path"])
        if foreign or (scope["method"] == "POST" and task not in self._POSTS):
            return await PlainTextResponse("This page has no such service.", 404)(scope, receive, send)
        if scope["method"] == "POST" and task == "upload":
            response = await self.take(scope, receive)
            return await response(scope, receive, send)
        return await self.app(scope, receive, send_with_policy)

    async def take(self, scope, receive):
        """Store an upload, and answer with its path as gradio does, or with a sentence."""
        from starlette.exceptions import HTTPException
        from starlette.requests import ClientDisconnect, Request
        from starlette.responses import JSONResponse, PlainTextResponse

        request = Request(scope, receive)

        async def refuse(status: int, sentence: str):
            # a browser shows an answer only when it has sent everything
            received = 0
            async for chunk in request.stream():
                received += len(chunk)
                if received > 2 * self.max_bytes:
                    break
            return PlainTextResponse(sentence, status)

        length = request.headers.get("content-length", "")
        # in pieces, it would be as long as it likes whatever else it tells
        if not length.isdigit() or "transfer-encoding" in request.headers:
            return await refuse(411, "The upload does not tell its length.")
        if int(length) > self.max_bytes + 10_000:  # what multipart adds
            limit = f"{self.max_bytes / 2**20:g} MB"
            return await refuse(
                413, f"The file is larger than the {limit} this page takes; cut it or make it smaller."
            )
        if len(os.listdir(self.folder)) >= MAX_WAITING:
            return await refuse(503, f"{MAX_WAITING} clips are waiting already; try again in a minute.")
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
            return PlainTextResponse("The upload did not arrive in one piece; try again.", 400)
        except BaseException:
            shutil.rmtree(place, ignore_errors=True)
            raise
        # should nobody ask for its answer
        asyncio.get_running_loop().call_later(MAX_WAITING_SECONDS, partial(shutil.rmtree, place, ignore_errors=True))
        return JSONResponse([str(path)])


def _copy(file: Any, path: Path):
    with open(path, "wb") as copy:
        shutil.copyfileobj(file, copy, 1 << 20)


def _file_name(name: str | None) -> str:
    """A name that is safe as a file's, and still tells people which file it was."""
    kept = "".join(letter for letter in Path((name or "").replace("\\", "/")).name if letter.isprintable())
    kept = kept.strip(". ").replace("/", "")
    stem, suffix = os.path.splitext(kept)
    return f"{stem[:60]}{suffix[:10]}" or "clip"


__all__ = ["MAX_WAITING", "UPLOADS", "UploadGate"]
