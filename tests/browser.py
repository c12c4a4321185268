"""A real browser for the tests: Debian's chromium, driven by playwright; accessibility rules by axe-core from npm.

Neither is needed to use the product. Without them these tests are skipped with the reason, unless NEED_BROWSER is set,
as `.ci/run` does: then what is missing is an error.
"""

from __future__ import annotations

import functools
import http.server
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Request

AXE = "axe-core@4.14.1"
CACHE = Path.home() / ".cache" / "blora-tests"


def lacking(reason: str) -> None:
    """Skip the test, or fail where a browser is required."""
    if os.environ.get("NEED_BROWSER"):
        pytest.fail(f"NEED_BROWSER is set, but {reason}")
    pytest.skip(reason)


@contextmanager
def browsing() -> Iterator[Browser]:
    """A headless chromium."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        lacking('playwright is not installed: pip install -e ".[test]"')
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    path = next((found for found in map(shutil.which, names) if found), None)
    if path is None:
        lacking("no chromium on this machine: apt-get install chromium")
    with sync_playwright() as driver:
        # Root, as in a container, cannot use chromium's sandbox; pages of the tests are our own.
        flags = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = driver.chromium.launch(executable_path=path, args=flags)
        yield browser
        browser.close()


class Visit:
    """A page that is looked at, with all that went wrong on it.

    Attributes:
        page: playwright's page.
        complaints: console errors and warnings, uncaught errors, failed requests.
        requests: addresses of everything that the page asked for.
    """

    def __init__(self, page: Page, address: str) -> None:
        """Open an address and wait until the page is ready."""
        self.page = page
        self.complaints: list[str] = []
        self.requests: list[str] = []
        page.on("console", lambda said: self._complain(said.type, said.text))
        page.on("pageerror", lambda error: self.complaints.append(f"uncaught {error}"))
        page.on("requestfailed", self._failed)
        page.on("request", lambda request: self.requests.append(request.url))
        page.goto(address)

    def _failed(self, request: Request) -> None:
        if request.failure != "net::ERR_ABORTED":  # taken back by the browser itself: the page was left meanwhile
            self.complaints.append(f"failed {request.url}: {request.failure}")

    def _complain(self, kind: str, text: str) -> None:
        if kind in ("error", "warning"):
            self.complaints.append(f"{kind} {text}")


@functools.cache
def axe_script() -> str:
    """The source of axe-core, installed once into a cache folder by npm."""
    script = CACHE / "node_modules" / "axe-core" / "axe.min.js"
    if not script.exists():
        npm = shutil.which("npm")
        if npm is None:
            lacking("no npm on this machine to install axe-core with: apt-get install npm")
        CACHE.mkdir(parents=True, exist_ok=True)
        command = [str(npm), "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(CACHE), AXE]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        if done.returncode or not script.exists():
            lacking(f"npm could not install {AXE}: {done.stderr.strip()[-200:]}")
    return script.read_text()


def accessibility_faults(page: Page) -> list[str]:
    """What axe-core finds against WCAG 2.2 A and AA, and its best practices, a line each."""
    page.evaluate(axe_script())
    found: Any = page.evaluate("axe.run(document, {resultTypes: ['violations'], preload: false})")
    return [f"{one['id']}: {node['html'][:200]}" for one in found["violations"] for node in one["nodes"]]


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder on a loopback port, as a bucket's website would be."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def wait_until(page: Page, expression: str, timeout_seconds: float = 30) -> None:
    """Wait until an expression is true in the page.

    Not `page.wait_for_function`: where its first look finds a false value, it evaluates text in the page from then on,
    which the policy of our pages forbids.
    """
    deadline = time.monotonic() + timeout_seconds
    while not page.evaluate(expression):
        assert time.monotonic() < deadline, f"not true after {timeout_seconds} s: {expression}"
        page.wait_for_timeout(50)
