"""Generated input against a real service (requirements-dev.txt). Bounded and seeded: each run tries
the same, so that what fails here fails everywhere."""

import asyncio
import hashlib
import secrets
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.canary import CANARY
from tests.support.needs import left_out
from tests.support.redis_server import RedisServer
from tests.support.service import RunningProcess, process_service

collect_ignore_glob = left_out(__file__, packages=["hypothesis", "jsonschema", "schemathesis"])

KEY = f"a-{CANARY}-for-everything-of-every-tenant"
AUTH: dict[str, Any] = {
    "mode": ["api_key"],
    "api_keys": [
        {
            "name": "fuzz",
            "sha256": hashlib.sha256(KEY.encode()).hexdigest(),
            "tenant_id": "*",
            "scopes": ["chat", "push", "admin"],
        }
    ],
}


@pytest.fixture(scope="session")
def guarded(redis_server: RedisServer) -> Iterator[RunningProcess]:
    """One instance for all of these tests; who calls it shows `KEY`."""
    loop = asyncio.new_event_loop()
    starting = process_service(
        redis_server.url, f"fuzz-{secrets.token_hex(4)}:", auth=AUTH, agents={"echo": {}}
    )
    yield loop.run_until_complete(starting.__aenter__())
    loop.run_until_complete(starting.__aexit__(None, None, None))
    loop.close()
