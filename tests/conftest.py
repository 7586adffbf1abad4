"""What every test may ask for: a real Redis server, and a key prefix of its own in it."""

import asyncio
import inspect
import secrets
from collections.abc import Iterator
from typing import Any

import pytest
from tornado.ioloop import IOLoop

from actors.mailbox import dead_letters
from tests.support import canary
from tests.support.figures import FIGURES
from tests.support.needs import NOT_RUN
from tests.support.redis_server import RedisServer

pytest_runtest_makereport = canary.pytest_runtest_makereport  # no test may let a secret out


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """One server for all tests; a test that stops or kills Redis starts a `RedisServer` itself."""
    with RedisServer() as server:
        yield server


@pytest.fixture(autouse=True)
def io_loop(request: pytest.FixtureRequest) -> Iterator[IOLoop | None]:
    """A loop of its own for each test that wants one (pytest-tornasync runs it in this), so that
    nothing which an earlier one left running, or had not told yet, can end up in it."""
    if not inspect.iscoroutinefunction(request.function):
        yield None
        return
    loop = IOLoop(make_current=False)
    yield loop
    loop.run_sync(_end_what_is_left)
    loop.close(all_fds=True)
    dead_letters._unlogged.clear()  # they are told up to a second later


async def _end_what_is_left() -> None:
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)


@pytest.fixture
def prefix() -> str:
    """A fresh key prefix, so that tests cannot see each other's keys."""
    return f"t-{secrets.token_hex(6)}:"


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Where tests run side by side (pytest-xdist), a worker hands in what it has to tell."""
    handed_in = getattr(session.config, "workeroutput", None)
    if handed_in is not None:
        handed_in.update(figures=FIGURES, not_run=NOT_RUN)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """A worker has ended: what it tells is told once, by the one that started it."""
    handed_in = getattr(node, "workeroutput", {})
    FIGURES.extend(handed_in.get("figures", []))
    NOT_RUN.extend(line for line in handed_in.get("not_run", []) if line not in NOT_RUN)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for line in NOT_RUN:
        terminalreporter.write_line(line, yellow=True)
    for line in FIGURES:
        terminalreporter.write_line(line)
