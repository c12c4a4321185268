"""What a run's page shows of its pictures, in a real browser: sorted, filtered, and as a view to go back to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from manifests.store.store import Store
from tasks.run.plan import Plan
from tests.browser import Visit, accessibility_faults, wait_until
from tests.made_run import HOSTILE
from tests.tasks.report.test_page_in_browser import in_wall, index_of

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext


def test_sorting_and_filtering(context: BrowserContext, night: tuple[Store, Plan]) -> None:
    visit = Visit(context.new_page(), index_of(night))
    page = visit.page
    values = [value for _, value in in_wall(visit)]
    assert len(values) == 18 and values[:17] == sorted(values[:17]) and values[17] != values[17]  # nan: not drawn
    page.click("#direction")
    assert [value for _, value in in_wall(visit)][:17] == sorted(values[:17], reverse=True)
    page.select_option("#sort", label="colours off the style's ↓")
    page.click("#direction")
    distances = [value for _, value in in_wall(visit)][:17]
    assert distances == sorted(distances, reverse=True)
    page.click("#ranges summary")
    # Between two pictures: the page shows its numbers rounded, and a bound as shown may cut off the picture itself.
    most, least = ((distances[number - 1] + distances[number]) / 2 for number in (10, 16))
    page.fill('[aria-label="colours off the style\'s, at most"]', str(most))
    page.fill('[aria-label="colours off the style\'s, at least"]', str(least))
    assert [value for _, value in in_wall(visit)] == distances[10:16]
    page.click("#ranges summary")  # it had closed, as something beside it was pressed
    page.click("#clear-ranges")
    page.fill("#search", "owl ink")
    assert {label.partition(", seed")[0] for label, _ in in_wall(visit)} == {"owl in ink"}
    page.fill("#search", "")
    page.select_option("#decision", "missing")
    assert len(in_wall(visit)) == 1
    assert visit.complaints == []


def test_histograms_filter_the_address_keeps_it_and_an_empty_page_can_be_cleared(
    context: BrowserContext, night: tuple[Store, Plan]
) -> None:
    visit = Visit(context.new_page(), index_of(night))
    page = visit.page
    page.click("#ranges summary")
    bars = page.locator(".range").first.locator(".histogram")
    box = bars.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] * 12.5 / 24, box["y"] + 5)  # amid a bar: its edges are parts of pixels
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] - 1, box["y"] + 5)
    page.mouse.up()
    assert bars.locator("i").count() == 24 and bars.locator("i.out").count() == 12  # the bar that was begun in is in
    lowest = float(page.input_value("[aria-label='overall, at least']"))
    assert page.input_value("[aria-label='overall, at most']") == ""
    page.keyboard.press("Escape")
    assert page.locator("#ranges[open]").count() == 0
    few = in_wall(visit)
    assert 0 < len(few) < 17 and min(value for _, value in few) >= lowest - 0.001
    page.goto(page.url)
    page.reload()
    assert in_wall(visit) == few, "the address says what is shown"
    page.fill("#search", "no such name")
    page.click("#clear")
    assert len(in_wall(visit)) == 18 and page.text_content("#ranges-on") == ""
    page.click("#as-grid")
    page.click("#show-keys")
    dialog = page.evaluate(
        "(() => { const d = document.getElementById('keys'); return [d.offsetHeight, d.scrollHeight]; })()"
    )
    assert dialog[0] <= dialog[1] + 2 < 700, "no taller than what it says"
    page.keyboard.press("Escape")
    width = page.evaluate(
        "[document.querySelector('.canvas').offsetWidth, document.getElementById('sheet').clientWidth]"
    )
    assert width[1] - 60 < width[0] <= width[1], "three columns fill the width"
    assert visit.complaints == []


def test_a_view_can_be_gone_back_to_named_and_sent(browser: Browser, night: tuple[Store, Plan]) -> None:
    context = browser.new_context(viewport={"width": 1200, "height": 800}, bypass_csp=True)
    visit = Visit(context.new_page(), index_of(night))
    page = visit.page

    def state() -> list[str]:
        return [page.input_value("#search"), str(page.text_content("#direction")), str(page.text_content("#count"))]

    first = state()
    page.wait_for_timeout(900)  # changes that follow each other sooner are one step
    page.click("#direction")
    page.wait_for_timeout(900)
    page.locator("#search").press_sequentially("apple", delay=20)
    assert state() == ["apple", "Best first", "6 of 18 pictures"]
    page.click("#views summary")
    page.fill("#view-name", HOSTILE[:80])
    page.keyboard.press("Enter")
    assert page.locator("#view-list a").all_text_contents() == [HOSTILE[:80]]
    assert accessibility_faults(page) == []
    page.keyboard.press("Escape")
    page.go_back()
    wait_until(page, "document.getElementById('search').value === ''")
    assert state() == ["", "Best first", first[2]]
    page.go_back()
    wait_until(page, "document.getElementById('direction').textContent === 'Worst first'")
    assert state() == first
    page.go_forward()
    wait_until(page, "document.getElementById('direction').textContent === 'Best first'")
    page.reload()
    page.click("#views summary")
    page.click("#view-list a")
    wait_until(page, "document.getElementById('search').value === 'apple'")
    assert state() == ["apple", "Best first", "6 of 18 pictures"]
    page.click("#views .panel button:has-text('Forget')")
    assert page.locator("#view-list li").count() == 0
    page.select_option("#sort", "-1")
    sent = browser.new_context().new_page()
    sent.goto(page.url)
    assert sent.input_value("#search") == "apple" and sent.input_value("#sort") == "-1", (
        "to a browser that kept nothing"
    )
    sent.context.close()
    page.evaluate("location.hash = '#sheet'")  # a place, as of the link to skip to the pictures
    assert page.input_value("#search") == "apple" and visit.complaints == []
    assert page.evaluate("window.hacked") is None
    context.close()
