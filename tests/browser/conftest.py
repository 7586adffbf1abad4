"""A browser, and the real service to show it; both only here.

These tests need Playwright (requirements-dev.txt) and a Chromium on PATH. Without either they are
not collected, and the end of the run says so: the plain way, requirements.txt and `pytest`, stays
whole.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

from tests.browser.service import Service
from tests.browser.wire import Wire
from tests.support.needs import left_out

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

    OpenPage = Callable[..., Page]

FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"),
    *("--disable-quic", "--no-first-run", "--disable-component-update", "--disable-sync"),
]
PATIENCE = 30_000  # milliseconds; what should happen happens in a few seconds
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
collect_ignore_glob = left_out(
    __file__, packages=["playwright"], programs=("chromium", "chromium-browser")
)


# Playwright's synchronous half keeps an event loop running in this thread for as long as it is
# open, and no asynchronous test can run beside it: so it ends with this package.
@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=PATIENCE)  # the context's own is for everything else
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def shared_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """For all tests that do not harm it."""
    with Service(tmp_path_factory.mktemp("data")) as service:
        yield service


@pytest.fixture
def own_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """For a test that ends it."""
    with Service(tmp_path_factory.mktemp("data")) as service:
        yield service


@pytest.fixture
def wire(shared_service: Service) -> Iterator[Wire]:
    """A way to the service that can be cut; open pages at its `url`."""
    with Wire(shared_service.port) as wire:
        yield wire


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """A browser that has been nowhere yet."""
    context = browser.new_context(viewport={"width": 1200, "height": 800})
    context.set_default_timeout(PATIENCE)
    yield context
    context.close()


@pytest.fixture
def open_page(context: BrowserContext, shared_service: Service) -> OpenPage:
    """`open_page(url=…)`: a tab that has connected; by default at the shared service."""
    from playwright.sync_api import expect

    def open_page(url: str = shared_service.url) -> Page:
        page = context.new_page()
        page.goto(url)
        expect(page.locator("#connection")).to_have_attribute("data-state", "open")
        return page

    return open_page
