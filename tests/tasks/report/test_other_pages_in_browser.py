"""The pages of a comparison and of nights over time in a real browser."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tasks.report.comparison import compare
from tasks.report.comparison_page import write_comparison
from tasks.report.trends_page import write_nights
from tests.browser import Visit, accessibility_faults, wait_until
from tests.made_run import HOSTILE, finish, plan_run

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


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


def table(page: Page) -> list[list[str]]:
    """The rows of the table of a comparison, the mean of all first."""
    rows = page.locator("#twins .means, #twins tbody tr").all()
    return [[cell.replace("\u2212", "-") for cell in row.locator("th, td").all_text_contents()] for row in rows]


@pytest.mark.parametrize("width", [1200, 390])
def test_both_runs_scores_stand_side_by_side_are_sorted_filtered_and_averaged(
    browser: Browser, pages: tuple[str, str], width: int
) -> None:
    context = browser.new_context(viewport={"width": width, "height": 800}, bypass_csp=True)
    visit = Visit(context.new_page(), pages[0])
    page = visit.page
    page.click("#as-table")
    mean, *rows = table(page)
    assert mean[0] == "mean of 6" and len(rows) == 6 and len(mean) == 1 + 3 * 4
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "the table scrolls, and not the page"
    for a, b, change in ([float(text) for text in row[1:4]] for row in rows if "\u2013" not in row[1:4]):
        assert b - a == pytest.approx(change, abs=0.02)
    known = [float(row[1]) for row in rows if row[1] != "\u2013"]
    assert float(mean[1]) == pytest.approx(sum(known) / len(known), abs=0.01)
    page.click("#twins thead button >> nth=0")  # run a's own values, the worst of a distance first
    of_a = [row[1] for row in table(page)[1:]]
    in_order = [f"{value:.2f}" if value >= 10 else f"{value:.3f}" for value in sorted(known, reverse=True)]
    assert of_a == [*in_order, "\u2013"]
    page.click("#twins thead button >> nth=0")
    assert [row[1] for row in table(page)[1:]] == [*of_a[-2::-1], "\u2013"], "what has none stays at the end"
    page.fill("#search", "apple")
    assert all("apple in " in row[0] for row in table(page)[1:])
    assert page.text_content("#count") == "3 of 6 pairs"
    page.fill("#search", "")
    page.select_option("#by", "styles")
    by_style = table(page)[1:]
    assert sorted(row[0] for row in by_style) == ["ink2", "sunset2", "wave2"], "names, and how many each is of"
    page.click("#columns summary")
    page.uncheck("#column-boxes input >> nth=0")
    page.keyboard.press("Escape")
    assert len(table(page)[0]) == 1 + 3 * 3
    shown, address = table(page), page.url
    page.goto("about:blank")
    page.goto(address)
    assert table(page) == shown, "the address says what is shown"
    assert accessibility_faults(page) == []
    page.select_option("#by", "")
    page.locator("#twins tbody button").first.click()
    assert page.locator("#twin[open]").count() == 1
    assert page.evaluate("window.hacked") is None and visit.complaints == []
    context.close()


def test_differences_are_filtered_by_their_histograms(browser: Browser, pages: tuple[str, str]) -> None:
    context = browser.new_context(bypass_csp=True)
    page = Visit(context.new_page(), pages[0]).page
    page.click("#ranges summary")
    assert page.locator(".range .histogram").count() == 4
    page.locator(".range input").first.fill("0")
    assert accessibility_faults(page) == []
    page.keyboard.press("Escape")
    page.click("#as-table")
    changes = [row[3] for row in table(page)[1:]]
    assert 0 < len(changes) < 6 and all(float(text) >= 0 for text in changes)
    page.fill("#search", "nobody")
    page.click("#clear")
    assert page.text_content("#count") == "6 pairs"
    context.close()


@pytest.mark.parametrize("width", [1200, 390])
def test_the_page_of_nights(browser: Browser, pages: tuple[str, str], width: int) -> None:
    context = browser.new_context(viewport={"width": width, "height": 800}, bypass_csp=True)
    visit = Visit(context.new_page(), pages[1])
    assert visit.page.locator("svg.chart").count() >= 6
    assert visit.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert accessibility_faults(visit.page) == [] and visit.complaints == []
    context.close()
