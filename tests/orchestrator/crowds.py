"""Clients that come in numbers, from wherever a test says, as if through a trusted proxy."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import InvalidStatus

from common.domain.ids import SessionId, SessionKey, TenantId
from common.queues.keys import Keys
from tests.support.follower import eventually
from tests.support.raw import raw_socket
from tests.support.service import Running

SESSION = SessionKey(TenantId("acme"), SessionId("s"))
PROXY = {"trusted_proxies": ["127.0.0.1"]}  # these tests, so that they may come from anywhere
HOME, ELSEWHERE = "198.51.100.1", "198.51.100.2"
LIMIT = 3


def tier(max_connections: int) -> dict[str, Any]:
    """Settings by which `acme` may have so many connections, and other tenants any number."""
    return {
        "tiers": {"small": {"max_connections": max_connections}},
        "tenants": {"acme": {"tier": "small"}},
    }


def coming_from(address: str) -> dict[str, Any]:
    return {"additional_headers": {"X-Forwarded-For": address}}


async def counted(service: Running, address: str = HOME) -> tuple[int, int]:
    """How many connections of `acme`, and of an address, Redis knows of."""
    keys, redis = Keys(service.service.app.settings.redis.key_prefix), service.service.app.redis
    tenant = await redis.call("ZCARD", keys.connections_of_tenant(SESSION.tenant_id))
    return tenant, await redis.call("ZCARD", keys.connections_of_address(address))


async def all_have_left(service: Running) -> None:
    async def is_so() -> bool:
        return await counted(service) == (0, 0) and not service.service.app.sockets

    await eventually(is_so)


async def refused(service: Running, session: str, address: str = HOME, **query: Any) -> Any:
    """The answer that refuses an upgrade."""
    with pytest.raises(InvalidStatus) as caught:
        async with service.connect(session, coming_from(address), **query):
            pass
    return caught.value.response


def assert_too_many(response: Any, limit: int) -> None:
    assert response.status_code == 429
    assert orjson.loads(response.body)["code"] == "rate_limited"
    headers = response.headers
    assert (headers["RateLimit-Limit"], headers["RateLimit-Remaining"]) == (str(limit), "0")
    assert int(headers["Retry-After"]) >= 1
    assert int(headers["RateLimit-Reset"]) >= 1


@contextlib.asynccontextmanager
async def crowd(
    service: Running, count: int, session: str = "acme/s", address: str = HOME
) -> AsyncIterator[list[ClientConnection]]:
    async with contextlib.AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(service.connect(session, coming_from(address)))
            for _ in range(count)
        ]


@contextlib.asynccontextmanager
async def event_stream(service: Running, session: str = "acme/s") -> AsyncIterator[str]:
    """Server-sent events of a session; what its answer's first line is."""
    async with raw_socket(service.port) as raw:
        head = (
            f"GET /api/sessions/{session}/events HTTP/1.1",
            *("Host: localhost", "Accept: text/event-stream", f"X-Forwarded-For: {HOME}"),
            *("", ""),
        )
        await raw.write("\r\n".join(head).encode())
        answer = await raw.reader.readuntil(b"\r\n\r\n")
        yield answer.decode().partition("\r\n")[0]
