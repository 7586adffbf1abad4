"""The first page, in a real browser, against the real service."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import BrowserContext, Locator, Page, expect

from tests.browser.service import Service
from tests.browser.wire import Wire

if TYPE_CHECKING:
    from tests.browser.conftest import OpenPage

SCREENSHOTS = Path(__file__).parents[2] / "screenshots"
# At 20 ms a word this takes echo long enough for anything to happen in between.
LONG = " ".join(f"word-{number}" for number in range(250))
ENDLESS = " ".join(f"word-{number}" for number in range(3000))  # for what is stopped


def send(page: Page, text: str, agent: str = "echo") -> None:
    page.fill("#agent", agent)
    page.fill("#message", text)
    page.press("#message", "Enter")


def answers(page: Page) -> Locator:
    return page.locator("#messages .agent")


def texts(page: Page) -> list[str]:
    """What the conversation says, from its first message to its last."""
    return page.locator("#messages .message .text").all_text_contents()


def wait_for_status(page: Page, status: str) -> None:
    """Of the newest answer."""
    expect(answers(page).last).to_have_attribute("data-status", status)


def wait_until_it_speaks(page: Page) -> None:
    """Until some of the newest answer's words are there, and not all."""
    expect(answers(page).last.locator(".text")).to_contain_text("word-3 ")
    wait_for_status(page, "running")


def test_the_page_loads_without_a_complaint_and_connects(
    context: BrowserContext, shared_service: Service
) -> None:
    page = context.new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("requestfailed", lambda request: complaints.append(request.url))

    page.goto(shared_service.url)

    expect(page.locator("#connection")).to_have_text("Connected")
    expect(page.locator("#message")).to_be_focused()
    assert "tenant=demo" in page.url
    assert "session=web-" in page.url
    assert complaints == []


def test_an_answer_is_shown_as_it_comes(open_page: "OpenPage") -> None:
    page = open_page()

    send(page, LONG)
    wait_until_it_speaks(page)
    wait_for_status(page, "completed")

    assert texts(page) == [LONG, LONG]


def test_shift_and_enter_make_a_new_line(open_page: "OpenPage") -> None:
    page = open_page()

    page.fill("#message", "one")
    page.press("#message", "Shift+Enter")
    page.locator("#message").press_sequentially("two")
    page.press("#message", "Enter")
    wait_for_status(page, "completed")

    assert texts(page) == ["one\ntwo", "one\ntwo"]


def test_the_stop_button_stops_and_keeps_what_was_said(open_page: "OpenPage") -> None:
    page = open_page()
    expect(page.locator("#stop")).to_be_hidden()

    send(page, ENDLESS)
    wait_until_it_speaks(page)
    page.click("#stop")
    wait_for_status(page, "cancelled")

    said, answered = texts(page)
    assert said == ENDLESS
    assert ENDLESS.startswith(answered)
    assert "word-3 " in answered
    assert answered != ENDLESS
    expect(page.locator("#stop")).to_be_hidden()


def test_escape_stops_an_agent_that_hangs(open_page: "OpenPage") -> None:
    page = open_page()

    send(page, "hang", "faulty")
    expect(answers(page).last.locator(".text")).to_have_text("Hanging.")
    page.keyboard.press("Escape")
    wait_for_status(page, "cancelled")

    assert texts(page) == ["hang", "Hanging."]


def test_a_failure_is_shown_with_its_reason(open_page: "OpenPage") -> None:
    page = open_page()

    send(page, "error", "faulty")
    wait_for_status(page, "failed")

    expect(answers(page).last.locator(".problem")).to_contain_text("You asked for an error.")


def test_tools_and_progress_are_shown_beside_the_answer(open_page: "OpenPage") -> None:
    page = open_page()

    send(page, "a patient queue", "storyteller")
    expect(page.locator("#messages progress")).to_be_visible()
    wait_for_status(page, "completed")

    expect(page.locator("#messages .event", has_text="tool call").first).to_be_visible()
    expect(page.locator("#messages progress")).to_be_hidden()


def test_markup_in_an_answer_is_shown_as_text(open_page: "OpenPage") -> None:
    page = open_page()
    markup = (
        "<script>window.harmed = 1</script> <img src=x onerror='window.harmed = 1'> <b>bold</b>"
    )

    send(page, markup)
    wait_for_status(page, "completed")

    assert texts(page) == [markup, markup]
    assert page.locator("#messages :is(script, img, b)").count() == 0
    assert page.evaluate("window.harmed") is None


def test_a_cut_in_the_middle_of_an_answer_shows(wire: Wire, open_page: "OpenPage") -> None:
    """… each text once: the page comes back by itself and goes on where it was."""
    page = open_page(wire.url)

    send(page, LONG)
    for word in ("word-10 ", "word-40 ", "word-80 "):
        expect(answers(page).last.locator(".text")).to_contain_text(word)
        wire.cut()
    wait_for_status(page, "completed")

    assert texts(page) == [LONG, LONG]
    expect(page.locator("#connection")).to_have_text("Connected")


def test_what_is_written_without_a_connection_is_sent_once(
    wire: Wire, open_page: "OpenPage"
) -> None:
    page = open_page(wire.url)

    wire.break_off()
    expect(page.locator("#connection")).not_to_have_text("Connected")
    send(page, "patience")
    expect(page.locator("#unconfirmed .text")).to_have_text("patience")
    wire.mend()
    wait_for_status(page, "completed")

    assert texts(page) == ["patience", "patience"]
    expect(page.locator("#unconfirmed .message")).to_have_count(0)


def test_a_killed_service_that_is_started_again(
    own_service: Service, open_page: "OpenPage"
) -> None:
    """… finds its pages back, and they show each text once."""
    page = open_page(own_service.url)
    send(page, "before")
    wait_for_status(page, "completed")

    own_service.kill()
    expect(page.locator("#connection")).not_to_have_text("Connected")
    own_service.start()
    expect(page.locator("#connection")).to_have_text("Connected")
    send(page, "after")
    expect(answers(page)).to_have_count(2)
    wait_for_status(page, "completed")

    assert texts(page) == ["before", "before", "after", "after"]


def test_a_service_that_drains_and_is_started_again(
    own_service: Service, open_page: "OpenPage"
) -> None:
    """… finds its pages back too."""
    page = open_page(own_service.url)
    send(page, "before")
    wait_for_status(page, "completed")

    own_service.stop()
    own_service.start()
    expect(page.locator("#connection")).to_have_text("Connected")
    send(page, "after")
    expect(answers(page)).to_have_count(2)
    wait_for_status(page, "completed")

    assert texts(page) == ["before", "before", "after", "after"]


def test_two_tabs_of_a_session_show_the_same(open_page: "OpenPage") -> None:
    one = open_page()
    send(one, LONG)
    wait_until_it_speaks(one)

    other = open_page(one.url)  # joins in the middle of an answer
    send(other, "from the other tab")
    for page in (one, other):
        expect(page.locator("#messages .agent[data-status=completed]")).to_have_count(2)

    assert texts(one) == [LONG, LONG, "from the other tab", "from the other tab"]
    assert texts(other) == texts(one)


def test_another_session_shows_nothing_of_this_one(open_page: "OpenPage") -> None:
    page = open_page()
    send(page, "secret")
    wait_for_status(page, "completed")

    page.click("#settings summary")
    page.click("#new-session")

    expect(page.locator("#empty")).to_be_visible()
    expect(page.locator("#connection")).to_have_text("Connected")
    assert texts(page) == []
    page.go_back()
    expect(page.locator("#messages .message")).to_have_count(2)


def test_a_reload_builds_the_conversation_again(open_page: "OpenPage") -> None:
    page = open_page()
    send(page, "first")
    wait_for_status(page, "completed")
    send(page, LONG)
    expect(answers(page)).to_have_count(2)
    wait_until_it_speaks(page)

    page.reload()
    expect(answers(page)).to_have_count(2)
    wait_for_status(page, "completed")

    assert texts(page) == ["first", "first", LONG, LONG]


@pytest.mark.alone
def test_a_long_answer_keeps_the_page_responsive(open_page: "OpenPage") -> None:
    page = open_page()
    page.evaluate(
        """() => {
          window.longest = 0;
          new PerformanceObserver((list) => {
            for (const { duration } of list.getEntries()) {
              window.longest = Math.max(window.longest, duration);
            }
          }).observe({ type: "longtask" });
        }"""
    )

    send(page, "flood 5000", "faulty")
    wait_for_status(page, "completed")

    assert texts(page)[-1].split() == [str(number) for number in range(5000)]
    assert page.evaluate("window.longest") < 1000  # ms, on a machine that is busy with tests


def test_the_page_as_it_looks(open_page: "OpenPage") -> None:
    """Kept for people to look at; light, dark and on a phone."""
    SCREENSHOTS.mkdir(exist_ok=True)
    page = open_page()
    send(page, "The quick brown fox jumps over the lazy dog.")
    wait_for_status(page, "completed")
    send(page, "a patient queue", "storyteller")
    expect(answers(page)).to_have_count(2)
    wait_for_status(page, "completed")

    for name, scheme, width in (
        ("light", "light", 1200),
        ("dark", "dark", 1200),
        ("phone", "light", 390),
    ):
        page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        page.screenshot(path=SCREENSHOTS / f"page-{name}.png")
    assert (SCREENSHOTS / "page-phone.png").stat().st_size > 0
