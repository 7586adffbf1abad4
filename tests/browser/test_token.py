"""The first page at a service that asks for tokens."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from tests.browser.service import Service
from tests.support.callers import KEY, token

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page


@pytest.fixture(scope="module")
def guarded_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    guard = {
        "ORCHESTRATOR_AUTH__MODE": "jwt",
        "ORCHESTRATOR_AUTH__JWT__ALGORITHMS": "[HS256]",
        "ORCHESTRATOR_AUTH__JWT__KEY": KEY,
        "ORCHESTRATOR_AUTH__JWT__LEEWAY": "0",
    }
    with Service(tmp_path_factory.mktemp("guarded"), **guard) as service:
        yield service


def enter(page: Page, shown: str, tenant: str = "demo") -> None:
    page.click("#settings summary")
    page.fill("#tenant", tenant)
    page.fill("#token", shown)
    page.click("#settings-form button[type=submit]")


def test_a_token_is_asked_for_kept_out_of_sight_and_remembered_by_the_tab(
    context: BrowserContext, guarded_service: Service
) -> None:
    page = context.new_page()
    page.goto(guarded_service.url)
    expect(page.locator("#connection")).to_have_attribute("data-state", "stopped")
    expect(page.locator("#alert")).to_contain_text("asks for a valid token")

    shown = token("demo")
    enter(page, shown)
    expect(page.locator("#connection")).to_have_attribute("data-state", "open")
    expect(page.locator("#alert")).to_be_hidden()
    page.fill("#message", "hello")
    page.press("#message", "Enter")
    expect(page.locator("#messages .agent").last).to_have_attribute("data-status", "completed")
    assert shown not in page.url
    assert shown not in page.locator("body").inner_text()
    assert shown not in guarded_service.log

    page.reload()
    expect(page.locator("#connection")).to_have_attribute("data-state", "open")
    other = context.new_page()
    other.goto(guarded_service.url)
    expect(other.locator("#connection")).to_have_attribute("data-state", "stopped")


def test_who_may_not_is_told_so_and_tries_no_further(
    context: BrowserContext, guarded_service: Service
) -> None:
    page = context.new_page()
    opened: list[str] = []
    page.on("websocket", lambda socket: opened.append(socket.url))
    page.goto(guarded_service.url)
    expect(page.locator("#alert")).to_contain_text("asks for a valid token")
    for shown, tenant, words in (
        ("to.ke.n", "demo", "asks for a valid token"),
        ("a/key that is none==", "demo", "asks for a valid token"),
        (token("demo"), "acme", "is not open to you"),
        (token("demo", scope="push"), "demo", "is not open to you"),
    ):
        before = len(opened)
        with page.expect_websocket() as opening:
            enter(page, shown, tenant)
        if not opening.value.is_closed():
            opening.value.wait_for_event("close")
        expect(page.locator("#connection")).to_have_attribute("data-state", "stopped")
        expect(page.locator("#alert")).to_contain_text(words)
        assert len(opened) == before + 1


def test_a_token_that_expires_is_told_of(context: BrowserContext, guarded_service: Service) -> None:
    page = context.new_page()
    page.goto(guarded_service.url)
    enter(page, token("demo", expires_in=5))
    expect(page.locator("#connection")).to_have_attribute("data-state", "open")
    expect(page.locator("#alert")).to_contain_text("has expired")
    expect(page.locator("#connection")).to_have_attribute("data-state", "stopped")
