"""A bad network in front of the real S3 server: an HTTP proxy that makes chosen requests go wrong.

Everything else passes through byte for byte (the signature covers the Host header, which the server sees unchanged).
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar, Literal
from urllib.parse import unquote, urlsplit

from tests.servers import S3Server

Trouble = Literal["slow down", "internal error", "reset", "lost answer", "cut short", "delay", "ignore conditions"]
"""503 without doing it · 500 without doing it · connection reset without doing it · done, then reset · done, and half
of the answer · done, late · done whatever If-(None-)Match says."""

_SLOW_DOWN = (
    b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
)
_INTERNAL = b"<?xml version='1.0'?><Error><Code>InternalError</Code><Message>Please try again.</Message></Error>"
_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "expect"}


@dataclass
class Proxy:
    """A running proxy; requests of `method` meet the troubles in `queue`, one each, in order."""

    endpoint_url: str
    server: S3Server
    queue: list[tuple[str, Trouble]] = field(default_factory=list)
    seen: list[tuple[str, str, str]] = field(default_factory=list)
    """(method, path, Authorization header) of every request."""
    ignore_conditions: bool = False
    delay_seconds: float = 0.5

    @cached_property
    def client(self) -> Any:
        """A client of the server behind."""
        return self.server.client()

    def trouble(self, method: str, *troubles: Trouble) -> None:
        """Let the next requests of a method go wrong, one trouble each."""
        self.queue.extend((method, trouble) for trouble in troubles)

    def next_trouble(self, method: str, path: str) -> Trouble | None:
        """Take the trouble that awaits this request; the probes of conditional writes meet none."""
        if "/.probe-" not in path and self.queue and self.queue[0][0] == method:
            return self.queue.pop(0)[1]
        return "ignore conditions" if self.ignore_conditions and method == "PUT" else None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: ClassVar[Proxy]

    def log_message(self, format: str, *arguments: Any) -> None:
        """Be silent."""

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.proxy.seen.append((self.command, self.path, self.headers.get("Authorization", "")))
        trouble = self.proxy.next_trouble(self.command, self.path)
        if trouble == "slow down":
            self._answer(503, [("Content-Type", "application/xml")], _SLOW_DOWN)
        elif trouble == "internal error":
            self._answer(500, [("Content-Type", "application/xml")], _INTERNAL)
        elif trouble == "reset":
            self._reset()
        elif trouble == "ignore conditions":
            bucket, _, key = unquote(urlsplit(self.path).path).lstrip("/").partition("/")
            etag = self.proxy.client.put_object(Bucket=bucket, Key=key, Body=body)["ETag"]
            self._answer(200, [("ETag", etag)], b"")
        else:
            answer = self._forward(body)
            if trouble == "lost answer":
                self._reset()
            elif trouble == "cut short":
                self._cut(*answer)
            else:
                time.sleep(self.proxy.delay_seconds if trouble == "delay" else 0)
                self._answer(*answer)

    do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = _handle

    def _forward(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        address = urlsplit(self.proxy.server.endpoint_url)
        connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=60)
        with contextlib.closing(connection):
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in _HOP_BY_HOP:
                    connection.putheader(name, value)
            connection.endheaders(body)
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()

    def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in _HOP_BY_HOP and (name.lower() != "content-length" or self.command == "HEAD"):
                self.send_header(name, value)
        if self.command != "HEAD":
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _cut(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        """Send half of the body, or half of the head where there is none, and reset the connection."""
        lines = [f"HTTP/1.1 {status} "]
        lines += [f"{name}: {value}" for name, value in headers if name.lower() not in _HOP_BY_HOP | {"content-length"}]
        head = "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode()
        self.wfile.write(head + body[: len(body) // 2] if body else head[: len(head) // 2])
        self._reset()

    def _reset(self) -> None:
        # Lingering for zero seconds makes close() send RST, as a crashed server or a cut line does.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def finish(self) -> None:
        """End the connection, whether or not it was reset."""
        with contextlib.suppress(OSError, ValueError):
            super().finish()


class _Listener(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Be silent where a client has gone, because it was killed, say; anything else is a fault of this proxy."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


@contextlib.contextmanager
def flaky_proxy(server: S3Server, kind: type[Proxy] = Proxy) -> Iterator[Proxy]:
    """Run a proxy in front of the server; `kind` decides what befalls a request."""
    handler = type("Handler", (_Handler,), {})
    listener = _Listener(("127.0.0.1", 0), handler)
    proxy = kind(f"http://127.0.0.1:{listener.server_port}", server)
    handler.proxy = proxy  # type: ignore[attr-defined]
    thread = threading.Thread(target=listener.serve_forever, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        listener.shutdown()
        listener.server_close()
        thread.join()
