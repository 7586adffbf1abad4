"""The proxy passes everything on, until it is told to fail, and again once it is healed."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import pytest
from redis import exceptions
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from tests.support.proxy import Proxy
from tests.support.redis_server import RedisServer, free_port

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@contextlib.asynccontextmanager
async def echoing() -> AsyncIterator[Proxy]:
    """A proxy in front of a server that says back what it hears."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with server, Proxy(server.sockets[0].getsockname()[1]) as proxy:
        yield proxy


@contextlib.asynccontextmanager
async def caller(proxy: Proxy) -> AsyncIterator[Streams]:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def said_back(streams: Streams, data: bytes, within: float = 5.0) -> bytes:
    reader, writer = streams
    writer.write(data)
    return await asyncio.wait_for(reader.readexactly(len(data)), within)


async def test_it_passes_on_what_it_gets() -> None:
    async with echoing() as proxy, caller(proxy) as streams:
        assert await said_back(streams, b"x" * 1_000_000) == b"x" * 1_000_000


async def test_a_cut_ends_every_connection_and_lets_new_ones_in() -> None:
    async with echoing() as proxy:
        async with caller(proxy) as streams:
            await said_back(streams, b"hello")
            proxy.cut()
            with pytest.raises((asyncio.IncompleteReadError, OSError)):
                await said_back(streams, b"again")
        async with caller(proxy) as streams:
            assert await said_back(streams, b"hello") == b"hello"


async def test_a_refusing_edge_takes_no_connection_until_it_is_healed() -> None:
    async with echoing() as proxy:
        await proxy.refuse()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", proxy.port)
        await proxy.heal()
        async with caller(proxy) as streams:
            assert await said_back(streams, b"hello") == b"hello"


async def test_what_falls_into_a_black_hole_comes_out_when_it_is_healed() -> None:
    async with echoing() as proxy, caller(proxy) as streams:
        await said_back(streams, b"hello")
        proxy.blackhole()
        with pytest.raises(TimeoutError):
            await said_back(streams, b"late ", within=0.2)
        await proxy.heal()
        assert await said_back(streams, b"!") + await streams[0].readexactly(5) == b"late !"


async def test_a_connection_made_in_the_dark_waits() -> None:
    async with echoing() as proxy:
        proxy.blackhole()
        async with caller(proxy) as streams:
            with pytest.raises(TimeoutError):
                await said_back(streams, b"a", within=0.2)
            await proxy.heal()
            assert await streams[0].readexactly(1) == b"a"


async def test_a_black_hole_may_swallow_subscribers_only() -> None:
    async with echoing() as proxy, caller(proxy) as subscriber, caller(proxy) as other:
        await said_back(subscriber, b"SUBSCRIBE x\r\n")
        await said_back(other, b"GET x\r\n")
        proxy.blackhole(pubsub_only=True)
        assert await said_back(other, b"more") == b"more"
        with pytest.raises(TimeoutError):
            await said_back(subscriber, b"more", within=0.2)


async def test_one_reply_is_lost_with_its_connection_after_as_many_as_asked() -> None:
    async with echoing() as proxy, caller(proxy) as streams:
        proxy.cut_reply(after=1)
        assert await said_back(streams, b"first") == b"first"
        with pytest.raises((asyncio.IncompleteReadError, OSError)):
            await said_back(streams, b"second")


async def test_latency_delays_and_keeps_the_order() -> None:
    async with echoing() as proxy, caller(proxy) as streams:
        proxy.latency = 0.1
        began = time.monotonic()
        streams[1].write(b"a")
        await asyncio.sleep(0.02)
        assert await said_back(streams, b"b") + await streams[0].readexactly(1) == b"ab"
        assert time.monotonic() - began >= 0.2


async def test_a_throttled_way_takes_its_time() -> None:
    async with echoing() as proxy, caller(proxy) as streams:
        proxy.rate = 100_000
        began = time.monotonic()
        assert await said_back(streams, b"x" * 20_000) == b"x" * 20_000
        assert time.monotonic() - began >= 0.2


async def test_it_goes_dark_as_soon_as_a_word_has_passed() -> None:
    async with echoing() as proxy, caller(proxy) as streams:
        proxy.trip(b"XACK")
        assert await said_back(streams, b"GET") == b"GET"
        assert not proxy.tripped.is_set()
        with pytest.raises(TimeoutError):
            await said_back(streams, b"XACK", within=0.2)
        assert proxy.tripped.is_set()


async def test_what_is_sent_after_the_heal_does_not_overtake_what_was_delayed() -> None:
    async with echoing() as proxy, caller(proxy) as (reader, writer):
        proxy.latency = 0.2
        for word in (b"one ", b"two "):
            writer.write(word)
            await writer.drain()
            await asyncio.sleep(0.02)  # each word a chunk of its own
        await proxy.heal()
        writer.write(b"three ")
        heard = await asyncio.wait_for(reader.readexactly(len(b"one two three ")), 5)
    assert heard == b"one two three "


async def test_only_those_are_frozen_who_were_connected_and_they_stay_so() -> None:
    async with echoing() as proxy, caller(proxy) as first, caller(proxy) as second:
        await said_back(first, b"hello")
        proxy.freeze()
        with pytest.raises(TimeoutError):
            await said_back(second, b"anyone?", within=0.2)
        async with caller(proxy) as third:
            assert await said_back(third, b"hello") == b"hello"
        await proxy.heal()
        with pytest.raises(TimeoutError):
            await said_back(first, b"anyone?", within=0.2)


async def test_a_connection_is_frozen_by_the_port_that_upstream_knows_it_by() -> None:
    async with echoing() as proxy, caller(proxy) as frozen:
        await said_back(frozen, b"hello")
        (pair,) = proxy.pairs
        async with caller(proxy) as other:
            await said_back(other, b"hello")
            proxy.freeze({pair.port_upstream})
            assert await said_back(other, b"again") == b"again"
            with pytest.raises(TimeoutError):
                await said_back(frozen, b"again", within=0.2)


async def test_led_elsewhere_new_connections_go_there() -> None:
    async with echoing() as proxy, echoing() as elsewhere:
        async with caller(proxy) as streams:
            await said_back(streams, b"hello")
            proxy.lead_to(elsewhere.port)
            with pytest.raises((asyncio.IncompleteReadError, OSError)):
                await said_back(streams, b"again")
        async with caller(proxy) as streams:
            assert await said_back(streams, b"hello") == b"hello"
        assert (proxy.accepted, elsewhere.accepted) == (2, 1)


def client_of(proxy: Proxy) -> Redis:
    return Redis.from_url(proxy.url, socket_timeout=5, retry=Retry(NoBackoff(), 0))


async def test_a_reply_is_cut_after_the_command_was_done(
    redis_server: RedisServer, prefix: str
) -> None:
    async with Proxy(redis_server.port) as proxy, client_of(proxy) as client:
        await client.ping()
        proxy.cut_replies = 1
        with pytest.raises(exceptions.ConnectionError):
            await client.incr(f"{prefix}counter")
        assert await client.get(f"{prefix}counter") == b"1"


async def test_a_client_of_a_server_that_is_down_is_cut() -> None:
    async with Proxy(free_port()) as proxy, client_of(proxy) as client:
        with pytest.raises(exceptions.ConnectionError):
            await client.ping()
