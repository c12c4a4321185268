"""A server that is busy or away is asked again; one that refuses is not."""

from __future__ import annotations

import http.server
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from prefect.client.schemas.objects import StateType

from manifests.store.store import Store
from tasks.dispatch import work_pool


@contextmanager
def answering(*codes: int) -> Iterator[tuple[str, list[int]]]:
    """A server that gives these status codes one after the other, and then 200; its address, and what it has given."""
    given: list[int] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            given.append(codes[len(given)] if len(given) < len(codes) else 200)
            self.send_response(given[-1])
            self.end_headers()

        def log_message(self, *args: object) -> None:
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/", given
    finally:
        server.shutdown()
        server.server_close()


def test_a_busy_server_is_asked_until_it_answers() -> None:
    with answering(503, 500) as (address, given):
        assert work_pool.patiently(lambda: httpx.get(address).raise_for_status()).status_code == 200
    assert given == [503, 500, 200]


def test_a_refusal_is_final() -> None:
    with answering(422, 200) as (address, given), pytest.raises(httpx.HTTPStatusError):
        work_pool.patiently(lambda: httpx.get(address).raise_for_status())
    assert given == [422]


def test_patience_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    with answering() as (address, _):
        pass  # nobody listens there any more
    monkeypatch.setattr(work_pool, "PATIENCE_SECONDS", 2.0)
    with pytest.raises(httpx.ConnectError):
        work_pool.patiently(lambda: httpx.get(address).raise_for_status())


def test_what_a_worker_took_and_never_started_is_given_up_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = work_pool.WorkPool(Store.open(str(tmp_path)), "run", "on-demand")
    taken = work_pool._Watched(lambda outcome: None, StateType.PENDING, since=time.monotonic() - 100)
    assert one._silent("flow-run", taken) == "", "an image may still be being pulled"
    monkeypatch.setenv("BLORA_STARTING_SECONDS", "60")
    assert one._silent("flow-run", taken) == "taken by a worker, but not started in 100 s"
