"""Pages shown on this machine: a real browser saves into the store, and nobody else reads or writes anything."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from manifests import layout
from manifests.store.store import Store
from tasks.closing.page_server import PageServer
from tasks.review.decisions import load_marks
from tasks.run.plan import Plan, load_plan
from tests.browser import Visit, browsing, wait_until
from tests.made_run import finish, plan_run


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Store, Plan, PageServer]]:
    """A run of four pictures whose page is shown, and beside it what a page has no business with."""
    store, plan = plan_run(tmp_path_factory.mktemp("shown"), ["apple", "owl"], ["wave", "ink"])
    finish(store, plan)
    store.replace("inbox/secret.json", b"{}")
    (Path(store.root).parent / "outside.json").write_text("{}")
    server = PageServer(store)
    thread = threading.Thread(target=server.serve, daemon=True)
    thread.start()
    yield store, plan, server
    server.stop()
    thread.join(10)
    assert not thread.is_alive()


def ask(server: PageServer, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, bytes]:
    """The answer to one request, sent as it stands; headers by their names with _ for -."""
    host = server.address.split("/")[2]
    connection = http.client.HTTPConnection(host, timeout=30)
    sent = {"Host": host} | {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, body, sent)
    answer = connection.getresponse()
    return answer.status, answer.read()


def path_of(server: PageServer) -> str:
    return "/" + server.address.split("/", 3)[3]


def test_decisions_of_the_page_go_straight_into_the_store(shown: tuple[Store, Plan, PageServer]) -> None:
    store, plan, server = shown
    with browsing() as browser:
        visit = Visit(browser.new_page(), server.address)
        page = visit.page
        page.click(f"text={plan.run.run_id}")
        page.wait_for_selector("#sheet img[src^='data:image/webp']")
        assert page.text_content("#export") == "Save decisions"
        page.select_option("#decision", "undecided")
        page.fill("#reviewer", "Ada")
        page.locator("#sheet .cell").first.focus()
        page.keyboard.press("k")
        page.keyboard.press("d")
        with page.expect_navigation():  # the page was written anew
            page.click("#export")
        page.wait_for_selector("html.ready")
        assert (page.text_content("#next") or "").startswith("2 decisions saved.")
        assert f"blora rerun {plan.run.run_id} --root" in (page.text_content("#next") or "")
        assert page.text_content("#tally") == "1 kept · 0 rejected · 1 to redo · 3 open", "one more is to be drawn"
        assert page.input_value("#decision") == "undecided", "what was looked at is still looked at"
        assert page.is_disabled("#export") and page.evaluate("Object.keys(localStorage).length") > 0
        page.locator("#sheet .cell:has(.frame)").first.click()
        wait_until(page, "[...document.images].every((image) => image.complete && image.naturalWidth)")
        assert visit.complaints == []
    marks = load_marks(store, plan.run.run_id)
    assert sorted((mark.decision, mark.reviewer) for mark in marks.values()) == [("keep", "Ada"), ("redo", "Ada")]
    assert len(load_plan(store, plan.run.run_id).samples) == 5


def test_only_what_pages_show_can_be_read(shown: tuple[Store, Plan, PageServer]) -> None:
    store, plan, server = shown
    start, run = path_of(server), plan.run.run_id
    for key in (f"{layout.report_prefix(run)}index.html", plan.samples[0].key, f"runs/{run}/scores.parquet"):
        assert ask(server, "GET", start + key) == (200, store.read(key))
    hidden: tuple[str, ...] = (
        "inbox/secret.json",
        "../outside.json",
        "runs/../inbox/secret.json",
        "%2e%2e/outside.json",
    )
    hidden += ("%2e%2e/outside.json", f"runs/{run}/report/..%2f..%2f..%2f..%2foutside.json", f"leases/run-{run}.json")
    hidden += (
        "//etc/passwd",
        f"runs/{run}/report",
        f"runs/{run}/decisions/",
        "images/",
        "samples/a/b/c.json",
        f"runs/{run}/report/.x.js",
    )
    for key in hidden:
        status, body = ask(server, "GET", start + key)
        assert (status, b"error" in body) == (404, True), key


@pytest.mark.parametrize(
    ("method", "tail", "headers", "status"),
    [
        ("GET", "", {"Host": "blora.example:80"}, 421),
        ("GET", "", {"Host": "localhost"}, 421),
        ("POST", "decisions", {}, 403),
        ("POST", "decisions", {"Origin": "https://evil.example"}, 403),
        ("POST", "decisions", {"Origin": "null"}, 403),
        ("POST", "decisions", {"Origin": "own", "Content_Type": "text/plain"}, 415),
        ("POST", "decisions", {"Origin": "own", "Content_Type": "application/json"}, 400),
        ("POST", "index.html", {"Origin": "own"}, 405),
        ("PUT", "inbox/new.yaml", {"Origin": "own"}, 405),
        ("DELETE", "decisions", {"Origin": "own"}, 405),
    ],
)
def test_nobody_else_gets_in(
    shown: tuple[Store, Plan, PageServer], method: str, tail: str, headers: dict[str, str], status: int
) -> None:
    store, plan, server = shown
    own = server.address[: -len(path_of(server))]
    sent = {name: own if value == "own" else value for name, value in headers.items()}
    now = datetime.now(UTC).isoformat()
    mark = {"sample_id": "none such", "decision": "keep", "decided_at": now}  # which is refused even from the page
    body = {"format": 1, "run_id": plan.run.run_id, "reviewer": "", "decisions": [mark]}
    before = store.list("")
    assert ask(server, method, path_of(server) + tail, json.dumps(body).encode(), **sent)[0] == status
    wrong = f"/serve-{'x' * 32}/{tail}"
    assert ask(server, method, wrong, b"{}", **sent)[0] in (404, 405, 421)
    assert store.list("").keys() == before.keys()
