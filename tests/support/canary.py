"""A canary in every secret of the tests: where it sings, a secret has leaked (S16).

Passwords, keys and API keys of tests contain `CANARY`; tokens are told by their shape. What
services and workers write, and what they say to anybody who asks (`/metrics`, `/actors`, problems
and the like), is looked at; a test in which a secret is found there has failed, whatever else it
found. It works by itself: see where `look` is called.
"""

import re
from collections.abc import Generator
from typing import Any

import pytest

CANARY = "canary-secret"
TOKEN = re.compile(r"\beyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]{16,}")

# Pages that show what is inside. What a caller has put in himself and reads back is no leak.
SHOWING = ("/", "/health", "/metrics", "/actors", "/ws/stats", "/usage", "/openapi", "/asyncapi")

_hits: list[str] = []


def look(place: str, text: str | bytes) -> None:
    """Notes each line of a text that holds a secret; the test under way fails for it."""
    said = text.decode(errors="replace") if isinstance(text, bytes) else text
    for line in said.splitlines():
        found = line.find(CANARY) if CANARY in line else -1
        if found < 0 and (token := TOKEN.search(line)):
            found = token.start()
        if found >= 0:
            _hits.append(f"{place}: …{line[max(found - 80, 0) : found + 40]}…")


def look_at_answer(path: str, status: int, headers: Any, body: bytes) -> None:
    """An answer over HTTP: its headers, and its body if it is a problem or shows what is inside."""
    page = path.partition("?")[0]
    look(f"headers of {page}", str(dict(headers)))
    if status >= 400 or page == "/" or page.startswith(SHOWING[1:]):
        look(f"body of {page} ({status})", body)


def take_hits() -> list[str]:
    """What was noted since it was last asked."""
    hits = list(_hits)
    _hits.clear()
    return hits


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """At the end of each test, with all that was captured meanwhile."""
    report = yield
    if call.when == "teardown":
        for title, text in report.sections:
            look(title, text)
        if hits := take_hits():
            report.outcome = "failed"
            where = "\n".join(dict.fromkeys(hits[:20]))
            report.longrepr = f"{item.nodeid} let a secret out:\n{where}"
    return report
