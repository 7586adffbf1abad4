"""The proxy fails as it says, and only then."""

import asyncio

import pytest
from redis import exceptions
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from tests.support.proxy import Proxy
from tests.support.redis_server import RedisServer


def client_of(proxy: Proxy) -> Redis:
    return Redis.from_url(proxy.url, socket_timeout=0.3, retry=Retry(NoBackoff(), 0))


async def test_it_passes_everything_on(redis_server: RedisServer, prefix: str) -> None:
    async with Proxy(redis_server.port) as proxy, client_of(proxy) as client:
        await client.set(f"{prefix}key", b"v" * 300_000)
        assert await client.get(f"{prefix}key") == b"v" * 300_000
        assert proxy.accepted == 1


async def test_who_is_refused_or_cut_hears_of_it(redis_server: RedisServer) -> None:
    async with Proxy(redis_server.port) as proxy, client_of(proxy) as client:
        await client.ping()
        await proxy.refuse()
        with pytest.raises(exceptions.ConnectionError):
            await client.ping()
        await proxy.heal()
        assert await client.ping()
        proxy.cut()
        with pytest.raises(exceptions.ConnectionError):
            await client.ping()
        assert await client.ping()


async def test_a_reply_is_cut_after_the_command_was_done(
    redis_server: RedisServer, prefix: str
) -> None:
    async with Proxy(redis_server.port) as proxy, client_of(proxy) as client:
        await client.ping()
        proxy.cut_replies = 1
        with pytest.raises(exceptions.ConnectionError):
            await client.incr(f"{prefix}counter")
        assert await client.get(f"{prefix}counter") == b"1"


async def test_a_black_hole_says_nothing_until_it_is_healed(redis_server: RedisServer) -> None:
    async with Proxy(redis_server.port) as proxy, client_of(proxy) as client:
        await client.ping()
        proxy.blackhole()
        with pytest.raises(exceptions.TimeoutError):
            await client.ping()
        await proxy.heal()
        assert await client.ping()


async def test_only_those_are_frozen_who_were_connected(redis_server: RedisServer) -> None:
    async with (
        Proxy(redis_server.port) as proxy,
        client_of(proxy) as first,
        client_of(proxy) as second,
    ):
        await first.ping()
        proxy.freeze()
        with pytest.raises(exceptions.TimeoutError):
            await first.ping()
        assert await second.ping()


async def test_latency_counts_each_way(redis_server: RedisServer) -> None:
    async with Proxy(redis_server.port) as proxy, client_of(proxy) as client:
        await client.ping()
        proxy.latency = 0.05
        loop = asyncio.get_running_loop()
        before = loop.time()
        await client.ping()
        assert 0.1 <= loop.time() - before < 0.3


async def test_a_client_of_a_server_that_is_down_is_cut() -> None:
    with RedisServer() as server:
        port = server.port
    async with Proxy(port) as proxy, client_of(proxy) as client:
        with pytest.raises(exceptions.ConnectionError):
            await client.ping()
