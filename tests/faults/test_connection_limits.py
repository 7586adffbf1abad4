"""Connections of a tenant over two instances: exact in a crowd, and after one of them is gone."""

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import InvalidStatus

from tests.support.client import Address, frames_until, next_frame, say
from tests.support.fake_executor import FakeExecutor
from tests.support.figures import measured
from tests.support.follower import eventually
from tests.support.redis_server import RedisServer
from tests.support.service import RunningProcess, process_service

LIMIT = 20
GONE_WITHIN = 15.0  # seconds (contract, section 3)
TIER: dict[str, Any] = {
    "tiers": {"small": {"max_connections": LIMIT}},
    "tenants": {"acme": {"tier": "small"}},
}


@contextlib.asynccontextmanager
async def two_instances(
    redis_server: RedisServer, prefix: str
) -> AsyncIterator[tuple[RunningProcess, RunningProcess]]:
    async with (
        process_service(redis_server.url, prefix, **TIER) as one,
        process_service(redis_server.url, prefix, **TIER) as other,
    ):
        yield one, other


async def try_to_connect(
    stack: contextlib.AsyncExitStack, service: Address
) -> ClientConnection | None:
    """A socket that got its place, open as long as the stack; None if it was refused one."""
    connecting = contextlib.AsyncExitStack()
    try:
        socket = await connecting.enter_async_context(service.connect("acme/s"))
    except InvalidStatus as refusal:
        if refusal.response.status_code != 429:
            raise
        return None
    await stack.enter_async_context(connecting)
    assert (await next_frame(socket))["type"] == "connection_ack"
    return socket


async def connected(
    stack: contextlib.AsyncExitStack, services: Sequence[Address], count: int
) -> list[ClientConnection]:
    """Those that are let in of so many who come at once, each to the next instance."""
    trying = (try_to_connect(stack, services[i % len(services)]) for i in range(count))
    return [socket for socket in await asyncio.gather(*trying) if socket is not None]


async def places_taken(executor: FakeExecutor) -> int:
    """As Redis has it: what decides who is let in."""
    keys = await executor.redis.keys(f"{executor.prefix}connections:*")
    return sum([int(await executor.redis.zcard(key)) for key in keys])


async def none_is_taken(executor: FakeExecutor) -> bool:
    return await places_taken(executor) == 0


async def test_fifty_who_come_at_once_get_exactly_the_twenty_places_of_their_tenant(
    redis_server: RedisServer, prefix: str
) -> None:
    async with (
        two_instances(redis_server, prefix) as both,
        FakeExecutor(redis_server.url, prefix) as executor,
        contextlib.AsyncExitStack() as stack,
    ):
        for _ in range(3):
            async with contextlib.AsyncExitStack() as crowd:
                assert len(await connected(crowd, both, 50)) == LIMIT
                assert await try_to_connect(stack, both[0]) is None
            await eventually(lambda: none_is_taken(executor), within=5)
        assert len(await connected(stack, both, LIMIT - 1)) == LIMIT - 1
        assert len(await connected(stack, both, 2)) == 1


@pytest.mark.parametrize("fate", [signal.SIGKILL, signal.SIGSTOP])
async def test_the_places_of_an_instance_that_is_gone_are_free_within_15_seconds(
    redis_server: RedisServer, prefix: str, fate: signal.Signals
) -> None:
    async with (
        two_instances(redis_server, prefix) as (one, other),
        FakeExecutor(redis_server.url, prefix) as executor,
        contextlib.AsyncExitStack() as stack,
    ):
        theirs = await connected(stack, [one], 8)
        assert len(theirs) == 8
        assert len(await connected(stack, [other], LIMIT)) == LIMIT - 8
        one.send_signal(fate)
        since, let_in = time.monotonic(), 0
        async with asyncio.timeout(GONE_WITHIN):
            while let_in < 8:
                if await try_to_connect(stack, other) is None:
                    await asyncio.sleep(0.1)
                else:
                    let_in += 1
        measured(f"places free again after {fate.name}", time.monotonic() - since, "s")
        assert await try_to_connect(stack, other) is None
        if fate is signal.SIGSTOP:
            one.send_signal(signal.SIGCONT)  # it wakes up, its connections as open as ever
            async with asyncio.timeout(10):
                while await places_taken(executor) < LIMIT + 8:
                    await asyncio.sleep(0.05)
            await say(theirs[0], "ping", "still-here")
            assert (await frames_until(theirs[0], "pong"))[-1]["id"] == "still-here"
            assert await try_to_connect(stack, one) is None
