"""One instance in a process of its own that asks for tokens and keys, for all tests of access."""

import asyncio
from collections.abc import Iterator

import pytest

from tests.orchestrator.auth.access import PREFIX
from tests.support.callers import AUTH
from tests.support.redis_server import RedisServer
from tests.support.service import RunningProcess, process_service


@pytest.fixture(scope="package")
def guarded(redis_server: RedisServer) -> Iterator[RunningProcess]:
    loop = asyncio.new_event_loop()
    starting = process_service(redis_server.url, PREFIX, auth=AUTH)
    yield loop.run_until_complete(starting.__aenter__())
    loop.run_until_complete(starting.__aexit__(None, None, None))
    loop.close()
