"""What every test may ask for: a real Redis server, and a key prefix of its own in it."""

import secrets
from collections.abc import Iterator

import pytest

from tests.support.figures import FIGURES
from tests.support.needs import NOT_RUN
from tests.support.redis_server import RedisServer


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """One server for all tests; a test that stops or kills Redis starts a `RedisServer` itself."""
    with RedisServer() as server:
        yield server


@pytest.fixture
def prefix() -> str:
    """A fresh key prefix, so that tests cannot see each other's keys."""
    return f"t-{secrets.token_hex(6)}:"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for line in NOT_RUN:
        terminalreporter.write_line(line, yellow=True)
    for line in FIGURES:
        terminalreporter.write_line(line)
