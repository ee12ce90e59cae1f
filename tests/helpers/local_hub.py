"""A local stand-in for the Hub: what creating, uploading to and reading a model repository needs of its interface."""

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit


class LocalHub:
    """Serves `repositories`, {repo id: {path: bytes}}, at `endpoint` while it is open."""

    COMMIT = "0123456789abcdef0123456789abcdef01234567"

    def __init__(self):
        self.repositories: dict[str, dict[str, bytes]] = {}

    def __enter__(self) -> "LocalHub":
        hub = self

        class Handler(_Handler):
            repositories = hub.repositories

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *exception):
        self.server.shutdown()
        self.server.server_close()


class _Handler(BaseHTTPRequestHandler):
    repositories: dict[str, dict[str, bytes]]

    def log_message(self, *arguments):
        pass

    def answer(self, status: int, body: bytes = b"", **headers: str):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def answer_json(self, content: object, status: int = 200):
        self.answer(status, json.dumps(content).encode(), Content_Type="application/json")

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        path = unquote(urlsplit(self.path).path)
        if path == "/api/repos/create":
            asked = json.loads(body)
            repo_id = f"{asked['organization']}/{asked['name']}"
            self.repositories.setdefault(repo_id, {})
            self.answer_json({"url": f"http://{self.headers['Host']}/{repo_id}"})
        elif path == "/api/validate-yaml":
            self.answer_json({"errors": [], "warnings": []})
        elif path.endswith("/preupload/main"):
            files = [file["path"] for file in json.loads(body)["files"]]
            self.answer_json(
                {"files": [{"path": file, "uploadMode": "regular", "shouldIgnore": False} for file in files]}
            )
        elif match := re.fullmatch(r"/api/models/(.+)/commit/main", path):
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    file = line["value"]
                    self.repositories[match[1]][file["path"]] = base64.b64decode(file["content"])
            url = f"http://{self.headers['Host']}/{match[1]}/commit/{LocalHub.COMMIT}"
            self.answer_json({"commitUrl": url, "commitOid": LocalHub.COMMIT, "success": True})
        else:
            self.answer_json({"error": path}, status=404)

    def do_GET(self):
        path = unquote(urlsplit(self.path).path)
        if match := re.fullmatch(r"/(?:datasets/)?([^/]+/[^/]+)/resolve/[^/]+/(.+)", path):
            content = self.repositories.get(match[1], {}).get(match[2])
            if content is None:
                self.answer(404, X_Error_Code="EntryNotFound", X_Repo_Commit=LocalHub.COMMIT)
            else:
                digest = hashlib.sha256(content).hexdigest()
                self.answer(200, content, ETag=f'"{digest}"', X_Repo_Commit=LocalHub.COMMIT)
        elif match := re.fullmatch(r"/api/(?:models|datasets)/([^/]+/[^/]+)(/revision/[^/]+)?", path):
            files = [{"rfilename": file} for file in self.repositories.get(match[1], {})]
            self.answer_json({"id": match[1], "sha": LocalHub.COMMIT, "siblings": files})
        elif match := re.fullmatch(r"/api/(?:models|datasets)/([^/]+/[^/]+)/tree/[^/]+/?(.*)", path):
            below = f"{match[2]}/" if match[2] else ""
            files = {
                file: len(data) for file, data in self.repositories.get(match[1], {}).items() if file.startswith(below)
            }
            folders = {str(above) for file in files for above in PurePosixPath(file).parents if str(above) != "."}
            entries = [{"type": "file", "path": file, "size": size, "oid": ""} for file, size in files.items()]
            entries += [{"type": "directory", "path": folder, "oid": ""} for folder in folders if folder != match[2]]
            if "recursive=true" not in self.path.lower():
                entries = [entry for entry in entries if "/" not in str(entry["path"]).removeprefix(below)]
            if files:
                self.answer_json(entries)
            else:
                self.answer(404, X_Error_Code="EntryNotFound")
        else:
            self.answer_json({"error": path}, status=404)

    do_HEAD = do_GET


__all__ = ["LocalHub"]
