"""The pages of a comparison and of nights over time in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tasks.report.comparison import compare
from tasks.report.comparison_page import write_comparison
from tasks.report.trends_page import write_nights
from tests.browser import Visit, accessibility_faults, browsing, wait_until
from tests.made_run import HOSTILE, finish, plan_run

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One chromium for the module."""
    with browsing() as started:
        yield started


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Addresses of a comparison and of a report about nights, of two runs with a hostile name."""
    folder = tmp_path_factory.mktemp("two")
    names = ["apple", HOSTILE], ["wave", "ink", "sunset"]
    store, a = plan_run(folder, *names)
    finish(store, a)
    _, b = plan_run(folder, *names, settings={"sample": {"guidance_scale": 3.5}})
    finish(store, b, missing=[2])
    keys = write_comparison(store, compare(store, a.run.run_id, b.run.run_id)), write_nights(store, 30)[0]
    first, second = ((Path(store.root) / key).as_uri() for key in keys)
    return first, second


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_of_a_comparison(browser: Browser, pages: tuple[str, str], scheme: str) -> None:
    context = browser.new_context(color_scheme=scheme, bypass_csp=True)  # type: ignore[arg-type]
    visit = Visit(context.new_page(), pages[0])
    page = visit.page
    page.wait_for_selector("#sheet .cell img[src^='data:image/webp']")
    assert page.locator("#sheet .cell").count() == 6
    for worst_first in (True, False):  # of the colour distance, whose small numbers are the good ones
        texts = [text.replace("\u2212", "-") for text in page.locator("#sheet .value").all_text_contents()]
        changes = [float(text) for text in texts if text != "\u2013"]
        assert len(changes) == 5 and changes == sorted(changes, reverse=worst_first)
        page.click("#direction")
    assert accessibility_faults(page) == []
    page.locator("#sheet .cell").first.click()
    wait_until(page, "[...document.querySelectorAll('#twin img')].filter((one) => one.naturalWidth).length === 2")
    assert accessibility_faults(page) == []
    assert page.evaluate("window.hacked") is None and visit.complaints == []
    context.close()


@pytest.mark.parametrize("width", [1200, 390])
def test_the_page_of_nights(browser: Browser, pages: tuple[str, str], width: int) -> None:
    context = browser.new_context(viewport={"width": width, "height": 800}, bypass_csp=True)
    visit = Visit(context.new_page(), pages[1])
    assert visit.page.locator("svg.chart").count() >= 6
    assert visit.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert accessibility_faults(visit.page) == [] and visit.complaints == []
    context.close()
