"""The page of a run in a real browser: look, decide, export, reload; from a disk and over http."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from manifests import layout
from manifests.store.run_folder import RunFolder
from manifests.store.store import Store
from manifests.tables.run import FAULTS_FILE
from tasks.report.run_page import copy_report, write_report
from tasks.review.decisions import read_marks
from tasks.run.plan import Plan, load_plan
from tests.browser import Visit, accessibility_faults, served, wait_until
from tests.made_run import finish, plan_run

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext

SIDES = 30  # contents, and styles, of the large run; tests/benchmarks/page.py has 100


def index_of(night: tuple[Store, Plan]) -> str:
    """The address of the page on the disk."""
    store, plan = night
    return (Path(store.root) / layout.report_prefix(plan.run.run_id) / "index.html").as_uri()


def in_wall(visit: Visit) -> list[tuple[str, float]]:
    """Labels and values of the cells on the screen, in reading order."""
    visit.page.click("#as-wall")
    cells = visit.page.locator("#sheet .cell").all()
    order = sorted(
        cells, key=lambda cell: (int(cell.get_attribute("data-row") or 0), int(cell.get_attribute("data-column") or 0))
    )
    values = [cell.locator(".caption .value").text_content() or "" for cell in order]
    return [
        (cell.locator(".said").text_content() or "", float("nan") if value == "\u2013" else float(value))
        for cell, value in zip(order, values, strict=True)
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 390])
def test_the_page_opens_without_complaint_and_is_accessible(
    browser: Browser, night: tuple[Store, Plan], scheme: Any, width: int
) -> None:
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme, bypass_csp=True)
    visit = Visit(context.new_page(), index_of(night))
    page = visit.page
    page.wait_for_selector("#sheet img[src^='data:image/webp']")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    found = {"grid": accessibility_faults(page)}
    page.locator("#sheet .cell").first.click()
    page.wait_for_selector("#pair[open] .candidate img")
    found["pair"] = accessibility_faults(page)
    page.keyboard.press("Escape")
    for part in ("faults", "about"):
        page.click(f"#to-{part}")
        found[part] = accessibility_faults(page)
    assert {name: faults for name, faults in found.items() if faults} == {}
    assert visit.complaints == []
    dark = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    assert (max(map(int, dark[4:-1].split(","))) < 80) is (scheme == "dark")
    context.close()


def test_it_asks_nothing_of_any_other_place(context: BrowserContext, night: tuple[Store, Plan]) -> None:
    store, plan = night
    with served(Path(store.root)) as address:
        visit = Visit(context.new_page(), f"{address}/{layout.report_prefix(plan.run.run_id)}index.html")
        visit.page.wait_for_selector("#sheet img[src^='data:image/webp']")
        visit.page.locator("#sheet .cell").first.click()
        visit.page.wait_for_selector("#pair[open] .candidate img")
        wait_until(visit.page, "[...document.images].every((image) => image.complete && image.naturalWidth)")
        assert visit.complaints == []
        assert [one for one in visit.requests if not one.startswith((address, "data:"))] == []


def test_hostile_names_are_shown_and_not_run(context: BrowserContext, night: tuple[Store, Plan]) -> None:
    visit = Visit(context.new_page(), index_of(night))
    visit.page.fill("#search", "onerror")
    assert [label for label, _ in in_wall(visit) if "<img src=x onerror=" in label]
    visit.page.locator("#sheet .cell").first.click()
    assert "<img src=x onerror=" in (visit.page.text_content("#pair-heading") or "")
    visit.page.keyboard.press("Escape")
    visit.page.click("#to-faults")
    assert "<img src=x onerror=" in (visit.page.text_content("#faults") or "")
    assert visit.page.evaluate("window.hacked") is None
    assert visit.complaints == []


def test_deciding_by_keyboard_surviving_a_reload_and_exporting(
    context: BrowserContext, night: tuple[Store, Plan], tmp_path: Path
) -> None:
    visit = Visit(context.new_page(), index_of(night))
    page = visit.page
    page.keyboard.press("w")
    page.keyboard.press("ArrowDown")  # from nowhere: onto the first picture
    labels = []
    for key in ("k", "r", "d", "k"):
        labels.append(page.evaluate("document.activeElement.querySelector('.said').textContent"))
        page.keyboard.press(key)
        page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("k")  # takes the last one back
    assert page.text_content("#tally") == "1 kept · 1 rejected · 1 to redo · 15 open"
    page.keyboard.press("Home")
    page.keyboard.press("Enter")
    page.keyboard.press("ArrowRight")  # in the pair: the next candidate, or the next pair
    page.keyboard.press("r")
    page.keyboard.press("Escape")
    before = page.text_content("#tally")
    assert before != "1 kept · 1 rejected · 1 to redo · 15 open"
    page.reload()
    assert page.text_content("#tally") == before
    page.select_option("#decision", "keep")
    assert [label.partition(", overall")[0] for label, _ in in_wall(visit)] == [labels[0].partition(", overall")[0]]
    page.fill("#reviewer", "Ada")
    with page.expect_download() as download:
        page.click("#export")
    assert download.value.suggested_filename == f"{night[1].run.run_id}.decisions.json"
    file = tmp_path / "decisions.json"
    download.value.save_as(file)
    body = json.loads(file.read_text())
    assert set(body) == {"format", "run_id", "reviewer", "decisions"}
    marks = read_marks(str(file), night[1])
    assert sorted(mark.decision for mark in marks)[0] == "keep" and {mark.reviewer for mark in marks} == {"Ada"}
    assert f"blora review {night[1].run.run_id}" in (page.text_content("#next") or "")
    assert visit.complaints == []


def test_marking_what_is_filtered_out_by_its_mark_goes_on_to_the_next(
    context: BrowserContext, night: tuple[Store, Plan]
) -> None:
    visit = Visit(context.new_page(), index_of(night))
    page = visit.page
    page.keyboard.press("w")
    page.select_option("#decision", "undecided")
    page.locator("#sheet .cell").first.focus()
    seen = []
    for _ in range(3):
        seen.append(page.evaluate("document.activeElement.querySelector('.said').textContent"))
        page.keyboard.press("k")
    assert len(set(seen)) == 3
    assert page.text_content("#tally") == "3 kept · 0 rejected · 0 to redo · 15 open"
    assert (page.text_content("#count") or "").startswith("15 of 18")


def test_another_tab_of_the_page_follows(context: BrowserContext, night: tuple[Store, Plan]) -> None:
    store, plan = night
    with served(Path(store.root)) as address:
        visits = [
            Visit(context.new_page(), f"{address}/{layout.report_prefix(plan.run.run_id)}index.html") for _ in range(2)
        ]
        visits[0].page.locator("#sheet .cell").first.focus()
        visits[0].page.keyboard.press("k")
        wait_until(visits[1].page, "document.getElementById('tally').textContent.startsWith('1 kept')")


def test_the_grid_is_walked_by_keys_and_shows_candidates_side_by_side(
    context: BrowserContext, night: tuple[Store, Plan]
) -> None:
    visit = Visit(context.new_page(), index_of(night))
    page = visit.page
    assert page.get_attribute("#sheet", "aria-rowcount") == "4"  # three contents and the head
    assert page.locator("#sheet [role=columnheader]").count() == 4
    page.locator("#sheet .cell").first.focus()
    for key in ("ArrowDown", "ArrowRight", "ArrowRight", "ArrowRight", "ArrowUp"):
        page.keyboard.press(key)
    place = page.evaluate("[document.activeElement.dataset.row, document.activeElement.dataset.column]")
    assert place == ["0", "2"]
    page.keyboard.press("Enter")
    assert page.locator("#pair .candidate").count() == 2
    assert page.locator("#pair .side img").count() == 2
    assert page.locator("#pair .candidate .scores tr").count() in (5, 10)
    page.keyboard.press("Escape")
    assert page.evaluate("[document.activeElement.dataset.row, document.activeElement.dataset.column]") == place


def test_a_copy_works_alone(context: BrowserContext, night: tuple[Store, Plan], tmp_path: Path) -> None:
    store, plan = night
    index = Path(copy_report(store, plan.run.run_id, str(tmp_path / "copy"), pictures=False))
    visit = Visit(context.new_page(), index.as_uri())
    visit.page.locator("#sheet .cell").first.click()
    wait_until(visit.page, "[...document.images].every((image) => image.complete && image.naturalWidth)")
    assert visit.complaints == []
    assert [one for one in visit.requests if not one.startswith((index.parent.as_uri(), "data:"))] == []


def test_decisions_of_the_store_are_shown_and_newer_ones_win(
    context: BrowserContext, night: tuple[Store, Plan]
) -> None:
    from datetime import UTC, datetime

    from tasks.review.decisions import Mark, record_marks

    store, plan = night
    old = Mark(plan.samples[0].sample_id, "reject", "Bo", datetime(2020, 1, 1, tzinfo=UTC))
    record_marks(store, plan.run.run_id, [old])
    write_report(store, load_plan(store, plan.run.run_id))
    page = Visit(context.new_page(), index_of(night)).page
    assert page.text_content("#tally") == "0 kept · 1 rejected · 0 to redo · 17 open"
    page.fill("#search", f"{plan.samples[0].content_name} {plan.samples[0].style_name} {plan.samples[0].seed}")
    page.keyboard.press("Tab")
    page.locator("#sheet .cell").first.click()
    assert "marked by Bo" in (page.text_content("#pair-body") or "")
    page.keyboard.press("k")
    assert page.text_content("#tally") == "1 kept · 0 rejected · 0 to redo · 17 open"


def test_a_large_run_draws_and_asks_for_what_is_on_the_screen_alone(context: BrowserContext, tmp_path: Path) -> None:
    names = [f"thing {number:02}" for number in range(SIDES)], [f"look {number:02}" for number in range(SIDES)]
    store, plan = plan_run(tmp_path, *names)
    finish(store, plan)
    visit = Visit(context.new_page(), index_of((store, plan)))
    page = visit.page

    def pages_asked_for() -> int:
        return len({one for one in visit.requests if "/thumbnails/" in one})

    page.select_option("#sort", label="as in the manifest")
    page.wait_for_selector("#sheet .cell img[src]")
    visit.requests.clear()
    page.reload()  # which keeps the order
    wait_until(page, "document.querySelectorAll('#sheet .cell img[src]').length > 20")
    assert page.locator("#sheet .cell").count() < 150
    in_all = len(list((Path(store.root) / layout.report_prefix(plan.run.run_id) / "thumbnails").iterdir()))
    assert 0 < pages_asked_for() < in_all / 2
    page.evaluate("document.getElementById('sheet').scrollTo(1e6, 1e6)")
    page.wait_for_selector(f"#sheet .cell[data-row='{SIDES - 1}'][data-column='{SIDES - 1}'] img[src]")
    assert page.locator("#sheet .cell").count() < 150
    page.click("#as-wall")
    page.locator("#sheet .cell").first.focus()
    page.keyboard.press("End")
    page.wait_for_selector("#sheet .cell:focus img[src]")
    assert f"thing {SIDES - 1} in look {SIDES - 1}" in (page.text_content("#sheet .cell:focus .said") or "")
    assert visit.complaints == []


def test_the_chosen_candidate_is_marked_and_can_be_shown_alone(browser: Browser, tmp_path: Path) -> None:
    context = browser.new_context(bypass_csp=True)
    store, plan = plan_run(tmp_path, ["apple", "owl"], ["wave"], candidates=4)
    finish(store, plan, scorer=lambda sample, number: {"transfer": number / 10})
    visit = Visit(context.new_page(), index_of((store, plan)))
    page = visit.page
    grid = page.locator("#sheet .cell")
    assert grid.locator(".more").all_text_contents() == ["1 of 4", "1 of 4"]
    assert grid.locator(".chosen").count() == 2, "worst first orders the pairs; in each the chosen one is shown"
    shown = grid.locator(".caption .value").all_text_contents()
    assert shown == ["0.300", "0.700"] == page.locator("[role=rowheader] .mean > span").all_text_contents()
    page.click("#as-wall")
    assert page.locator("#sheet .cell .chosen").count() == 2
    page.select_option("#decision", "chosen")
    assert (page.text_content("#count") or "").startswith("2 of 8")
    page.locator("#sheet .cell").first.click()
    marked = page.locator(".candidate:has(.best)")
    assert page.locator(".candidate").count() == 4 and marked.count() == 1
    best = max((s for s in plan.samples if s.content_name == "apple"), key=plan.samples.index)
    other = max((s for s in plan.samples if s.content_name == "owl"), key=plan.samples.index)
    assert marked.locator("h3").text_content() in (f"seed {best.seed}★ chosen", f"seed {other.seed}★ chosen")
    assert accessibility_faults(page) == [] and visit.complaints == []


def test_a_mark_needs_a_picture_that_has_the_focus_and_is_told_and_taken_back(
    context: BrowserContext, night: tuple[Store, Plan]
) -> None:
    visit = Visit(context.new_page(), index_of(night))
    page = visit.page
    before = page.text_content("#tally") or ""
    page.focus("#as-grid")
    page.keyboard.press("r")  # on the toolbar: which picture would that be?
    assert page.text_content("#tally") == before
    assert "No picture has the focus" in (page.text_content("#toast") or "")
    page.locator("#sheet .cell").first.focus()
    page.keyboard.press("r")
    assert page.text_content("#tally") != before and ": rejected" in (page.text_content("#toast") or "")
    page.click("#toast button")
    assert page.text_content("#tally") == before and page.is_disabled("#export")
    page.locator("#sheet .cell").first.click()
    page.keyboard.press("k")
    page.keyboard.press("r")
    page.click("dialog[open] #toast button")  # within reach, though the rest of the page is not
    assert page.locator(".candidate[aria-current][data-mark=keep]").count() == 1
    page.keyboard.press("u")
    page.keyboard.press("Escape")
    assert page.text_content("#tally") == before and visit.complaints == []


def test_a_picture_that_is_missing_says_why(context: BrowserContext, tmp_path: Path) -> None:
    store, plan = plan_run(tmp_path, ["apple"], ["wave", "ink"])
    finish(store, plan, missing=[1])
    page = Visit(context.new_page(), index_of((store, plan))).page
    page.select_option("#decision", "missing")
    (fault,) = (row["what"] for row in RunFolder(store, plan.run.run_id).rows(FAULTS_FILE))
    assert fault and page.locator("#sheet .missing small").text_content() == fault
    assert f"blora review {plan.run.run_id} FILE --root {store.root}" in (page.text_content("#keys") or "")
