"""The pages of a store shown on this machine, where decisions go straight into the store.

    GET   /serve-TOKEN/                  the pages that there are
    GET   /serve-TOKEN/KEY               an object that a page shows or links to
    POST  /serve-TOKEN/decisions         a decisions file, as the page exports it and `blora review` reads it

Only 127.0.0.1 is listened on. The token is random, made anew each time and part of every address, so that another user
of the machine or a page of the web cannot name one; requests with another Host (a name that was bound to this address)
are refused, and marks that do not come from a page of this server. Nothing else can be written, and of the store only
reports and the kinds of object that they link to can be read.
"""

from __future__ import annotations

import json
import logging
import re
import secrets
import shlex
import socket
import threading
from http import HTTPStatus
from typing import Final

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from manifests import layout
from manifests.errors import InvalidId, ManifestsError, counted, reason_of
from manifests.store.backend import CONTENT_TYPES
from manifests.store.store import Store
from tasks.closing.reviewing import take_review
from tasks.errors import RunRefused, TaskError
from tasks.report.html import page_of
from tasks.review.decisions import MAX_BYTES, marks_of
from tasks.run.plan import load_plan

log = logging.getLogger(__name__)

ADDRESS: Final = "127.0.0.1"
SHOWN: Final = tuple(
    re.compile(pattern)
    for pattern in (
        r"runs/[^/]+/report/[^/]+(/[^/]+)?",
        r"runs/[^/]+/[^/]+\.(parquet|json)",
        r"reports/(compare/[^/]+/[^/]+|nights)/[^/]+(/[^/]+)?",
        r"images/[^/]+\.png",
        r"samples/[^/]+/[^/]+/[^/]+\.png",
        r"adapters/[^/]+/(content|style)\.safetensors",
    )
)
"""Keys that can be read: reports, and what they link to."""
TYPES: Final = {
    **{end: CONTENT_TYPES[end] for end in ("html", "js", "css", "png", "gif", "json")},
    "parquet": "application/vnd.apache.parquet",
    "safetensors": "application/octet-stream",
}
"""Kinds of file that are handed out, by the ends of their names."""
_HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class PageServer:
    """Shows a store's pages on a port of this machine until it is stopped.

    Attributes:
        address: of the list of pages; whoever has it can read them and decide.
    """

    def __init__(self, store: Store, port: int = 0) -> None:
        """Take a port.

        Args:
            store: the store.
            port: 0: any that is free. A browser keeps decisions that were not saved yet by the port.

        Raises:
            OSError: the port is taken.
        """
        self._store, self._saving = store, threading.Lock()
        self._socket = socket.create_server((ADDRESS, port))
        self._host = f"{ADDRESS}:{self._socket.getsockname()[1]}"
        self._path = f"/serve-{secrets.token_urlsafe(24)}/"
        self.address = f"http://{self._host}{self._path}"
        routes = [
            Route("/{token}/", self._list, methods=["GET"]),
            Route("/{token}/decisions", self._save, methods=["POST"]),
            Route("/{token}/{key:path}", self._show, methods=["GET"]),
        ]
        errors = {HTTPException: _refused}
        app = Starlette(routes=routes, exception_handlers=errors)  # type: ignore[arg-type]  # its stub wants any exception
        config = uvicorn.Config(app, log_level="warning", access_log=False, server_header=False, lifespan="off")
        self._server = uvicorn.Server(config)

    def page(self, run_id: str) -> str:
        """The address of a run's page."""
        return f"{self.address}{layout.report_prefix(run_id)}index.html"

    def serve(self) -> None:
        """Answer until `stop`, or, in the main thread, until Ctrl-C."""
        self._server.run(sockets=[self._socket])

    def stop(self) -> None:
        """Have `serve` return."""
        self._server.should_exit = True

    def _check(self, request: Request) -> None:
        """Refuse whoever does not name this address and its token.

        Raises:
            HTTPException: so it is.
        """
        if request.headers.get("host") != self._host:
            raise HTTPException(HTTPStatus.MISDIRECTED_REQUEST, f"this is {self._host}")
        given = f"/{request.path_params['token']}/"
        if not secrets.compare_digest(given.encode(), self._path.encode()):
            raise HTTPException(HTTPStatus.NOT_FOUND, "no such page: open the address that blora serve printed")

    def _list(self, request: Request) -> Response:
        self._check(request)
        ends = "/report/index.html"
        runs = [key.split("/")[1] for key in self._store.list(layout.RUNS_PREFIX) if key.endswith(ends)]
        others = [key for key in self._store.list(layout.REPORTS_PREFIX) if key.endswith("/index.html")]
        pages = [(run_id, f"{layout.report_prefix(run_id)}index.html") for run_id in sorted(runs)]
        pages += [(key.removesuffix("/index.html"), key) for key in sorted(others)]
        return HTMLResponse(page_of("pages.html.j2", root=self._store.root, pages=pages), headers=_HEADERS)

    def _show(self, request: Request) -> Response:
        self._check(request)
        key = request.path_params["key"]
        kind = TYPES.get(key.rpartition(".")[2])
        data = None
        if kind and any(pattern.fullmatch(key) for pattern in SHOWN):
            try:
                data = self._store.find(key)
            except InvalidId:
                pass  # no name that an object can have
        if data is None:
            raise HTTPException(HTTPStatus.NOT_FOUND, "no such page, or nothing that a page shows")
        return Response(data, media_type=kind, headers=_HEADERS)

    async def _save(self, request: Request) -> Response:
        self._check(request)
        if request.headers.get("origin") != f"http://{self._host}":
            raise HTTPException(HTTPStatus.FORBIDDEN, "decisions are taken from the pages of this server alone")
        if request.headers.get("content-type") != "application/json":
            raise HTTPException(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "a decisions file is application/json")
        body = bytearray()
        async for part in request.stream():
            body += part
            if len(body) > MAX_BYTES:
                raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"more than {MAX_BYTES} bytes")
        return await run_in_threadpool(self._take, bytes(body))

    def _take(self, body: bytes) -> Response:
        """Record a decisions file; of two at once, one after the other."""
        try:
            run_id = json.loads(body)["run_id"]
            with self._saving:
                plan = load_plan(self._store, run_id)
                marks = marks_of(body, "the page", plan)
                added = take_review(self._store, plan, marks)
        except RunRefused as error:
            told = "; ".join(str(fault) for fault in error.faults)
            return _answer({"error": f"{error}{': ' if told else ''}{told}"}, HTTPStatus.BAD_REQUEST)
        except (ManifestsError, TaskError, ValueError, KeyError, TypeError) as error:
            log.warning("decisions were not saved: %s", error)
            return _answer({"error": reason_of(error)}, HTTPStatus.BAD_REQUEST)
        root = shlex.quote(self._store.root)
        following = f"blora rerun {run_id} --root {root} draws {counted(len(added), 'picture')} anew" if added else ""
        return _answer({"saved": len(marks), "next": following}, HTTPStatus.OK)


def _answer(body: dict[str, object], status: HTTPStatus) -> Response:
    return JSONResponse(body, status_code=status, headers=_HEADERS)


async def _refused(request: Request, error: HTTPException) -> Response:
    return _answer({"error": error.detail}, HTTPStatus(error.status_code))
