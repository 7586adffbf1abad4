"""One instance in a process of its own, for all tests that only look at the edge from outside."""

import asyncio
import secrets
from collections.abc import Iterator

import pytest

from tests.support.redis_server import RedisServer
from tests.support.service import RunningProcess, process_service


@pytest.fixture(scope="session")
def instance(redis_server: RedisServer) -> Iterator[RunningProcess]:
    """Shared, so each test takes a tenant of its own (`tenant`) and looks at no counters."""
    loop = asyncio.new_event_loop()
    starting = process_service(
        redis_server.url, f"edge-{secrets.token_hex(4)}:", server={"max_body_bytes": 400_000}
    )
    yield loop.run_until_complete(starting.__aenter__())
    loop.run_until_complete(starting.__aexit__(None, None, None))
    loop.close()


@pytest.fixture
def tenant() -> str:
    return f"t-{secrets.token_hex(6)}"
