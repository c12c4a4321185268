"""Fixtures of the pages' tests: a real browser, and a run whose page it opens."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from manifests.store.store import Store
from tasks.run.plan import Plan
from tests.browser import browsing
from tests.made_run import HOSTILE, finish, plan_run

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One chromium for the module."""
    with browsing() as started:
        yield started


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """A fresh profile: nothing is kept from another test."""
    made = browser.new_context(viewport={"width": 1200, "height": 800}, accept_downloads=True)
    yield made
    made.close()


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Plan]:
    """A run of 3 x 3 pairs with two candidates each, a hostile name, and one picture that is missing."""
    store, plan = plan_run(
        tmp_path_factory.mktemp("night"), ["apple", "owl", HOSTILE], ["wave", "ink", "sunset"], seeds=(0, 1)
    )
    finish(store, plan, missing=[17])
    return store, plan
