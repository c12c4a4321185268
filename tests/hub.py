"""A hub on loopback: the part of the Hugging Face protocol that the real ``huggingface_hub`` client speaks to download.

``/api/models/<repo>/revision/<commit>`` and its tree list the files; ``/<repo>/resolve/<commit>/<file>`` answers HEAD
with the headers that name the file, and GET with its bytes, also from an offset. What goes wrong is set on the server.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPO = "org/model"


@dataclass
class Hub:
    """The server's one repository, and its moods.

    Attributes:
        url: Where it listens.
        folder: What the repository holds.
        refuse_with: A status for every request; 0 for none.
        error_code: The hub's word for that, in X-Error-Code.
        cut_after: The next files that are longer end after so many bytes, as a lost connection does, one each.
        asked: Every request: method, path, first byte that was asked for.
    """

    url: str
    folder: Path
    refuse_with: int = 0
    error_code: str = ""
    cut_after: list[int] = field(default_factory=list)
    asked: list[tuple[str, str, int]] = field(default_factory=list)

    @property
    def downloads(self) -> list[tuple[str, int]]:
        """What was asked for with its bytes: the file's name, and the first byte."""
        return [
            (path.rpartition(COMMIT + "/")[2], first)
            for verb, path, first in self.asked
            if "/resolve/" in path and verb == "GET"
        ]


@contextmanager
def serve_hub(folder: Path) -> Iterator[Hub]:
    """Serve a folder as the repository `REPO` at `COMMIT` until the context ends."""

    class Handler(_Handler):
        hub: ClassVar[Hub]

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Handler.hub = Hub(f"http://127.0.0.1:{server.server_address[1]}", folder)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield Handler.hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: ClassVar[Hub]

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def _answer(self) -> None:
        hub, path = self.hub, self.path.partition("?")[0]
        first = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
        hub.asked.append((self.command, path, first))
        if hub.refuse_with:
            return self._send(hub.refuse_with, b"{}", {"X-Error-Code": hub.error_code} if hub.error_code else {})
        if not path.startswith((f"/api/models/{REPO}", f"/{REPO}/")):
            return self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        if COMMIT not in path:
            return self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        if path.startswith("/api/"):
            return self._send(200, json.dumps(self._listing("/tree/" in path)).encode())
        file = hub.folder / path.partition(f"{COMMIT}/")[2]
        if not file.is_file():
            return self._send(404, b"{}", {"X-Error-Code": "EntryNotFound"})
        data = file.read_bytes()
        headers = {
            "ETag": f'"{hashlib.sha256(data).hexdigest()}"',
            "X-Repo-Commit": COMMIT,
            "Accept-Ranges": "bytes",
            "Content-Range": f"bytes {first}-{len(data) - 1}/{len(data)}",
        }
        return self._send(206 if first else 200, data[first:], headers if first else headers | {"Content-Range": ""})

    def _listing(self, as_tree: bool) -> object:
        files = sorted(path for path in self.hub.folder.rglob("*") if path.is_file())
        names = [path.relative_to(self.hub.folder).as_posix() for path in files]
        if as_tree:
            return [
                {"type": "file", "oid": "0" * 40, "size": path.stat().st_size, "path": name}
                for path, name in zip(files, names, strict=True)
            ]
        siblings = [{"rfilename": name, "size": path.stat().st_size} for path, name in zip(files, names, strict=True)]
        return {"id": REPO, "modelId": REPO, "sha": COMMIT, "siblings": siblings}

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            if value:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        is_file = "/resolve/" in self.path and status < 300
        if is_file and self.hub.cut_after and len(body) > self.hub.cut_after[0]:
            self.wfile.write(body[: self.hub.cut_after.pop(0)])
            self.wfile.flush()
            self.close_connection = True
            self.connection.close()
            return
        self.wfile.write(body)
