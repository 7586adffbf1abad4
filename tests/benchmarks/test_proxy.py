"""The proxy passes everything on, until it is told to fail, and again once it is healed."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import pytest

from benchmarks.rig.proxy import Edge
from tests.support.redis_server import free_port

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@contextlib.asynccontextmanager
async def echoing() -> AsyncIterator[Edge]:
    """An edge in front of a server that says back what it hears."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    edge = Edge("edge", free_port(), server.sockets[0].getsockname()[1])
    await edge.open()
    try:
        yield edge
    finally:
        await edge.close()
        server.close()
        await server.wait_closed()


@contextlib.asynccontextmanager
async def caller(edge: Edge) -> AsyncIterator[Streams]:
    reader, writer = await asyncio.open_connection("127.0.0.1", edge.port)
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
    async with echoing() as edge, caller(edge) as streams:
        assert await said_back(streams, b"x" * 1_000_000) == b"x" * 1_000_000


async def test_a_cut_ends_every_connection_and_lets_new_ones_in() -> None:
    async with echoing() as edge:
        async with caller(edge) as streams:
            await said_back(streams, b"hello")
            edge.cut()
            with pytest.raises((asyncio.IncompleteReadError, OSError)):
                await said_back(streams, b"again")
        async with caller(edge) as streams:
            assert await said_back(streams, b"hello") == b"hello"


async def test_a_refusing_edge_takes_no_connection_until_it_is_healed() -> None:
    async with echoing() as edge:
        await edge.refuse()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", edge.port)
        await edge.heal()
        async with caller(edge) as streams:
            assert await said_back(streams, b"hello") == b"hello"


async def test_what_falls_into_a_black_hole_comes_out_when_it_is_healed() -> None:
    async with echoing() as edge, caller(edge) as streams:
        await said_back(streams, b"hello")
        edge.blackhole()
        with pytest.raises(TimeoutError):
            await said_back(streams, b"late ", within=0.2)
        await edge.heal()
        assert await said_back(streams, b"!") + await streams[0].readexactly(5) == b"late !"


async def test_a_connection_made_in_the_dark_waits() -> None:
    async with echoing() as edge:
        edge.blackhole()
        async with caller(edge) as streams:
            with pytest.raises(TimeoutError):
                await said_back(streams, b"a", within=0.2)
            await edge.heal()
            assert await streams[0].readexactly(1) == b"a"


async def test_a_black_hole_may_swallow_subscribers_only() -> None:
    async with echoing() as edge, caller(edge) as subscriber, caller(edge) as other:
        await said_back(subscriber, b"SUBSCRIBE x\r\n")
        await said_back(other, b"GET x\r\n")
        edge.blackhole(pubsub_only=True)
        assert await said_back(other, b"more") == b"more"
        with pytest.raises(TimeoutError):
            await said_back(subscriber, b"more", within=0.2)


async def test_one_reply_is_lost_with_its_connection_after_as_many_as_asked() -> None:
    async with echoing() as edge, caller(edge) as streams:
        edge.cut_reply(after=1)
        assert await said_back(streams, b"first") == b"first"
        with pytest.raises((asyncio.IncompleteReadError, OSError)):
            await said_back(streams, b"second")


async def test_latency_delays_and_keeps_the_order() -> None:
    async with echoing() as edge, caller(edge) as streams:
        edge.latency = 0.1
        began = time.monotonic()
        streams[1].write(b"a")
        await asyncio.sleep(0.02)
        assert await said_back(streams, b"b") + await streams[0].readexactly(1) == b"ab"
        assert time.monotonic() - began >= 0.2


async def test_a_throttled_way_takes_its_time() -> None:
    async with echoing() as edge, caller(edge) as streams:
        edge.rate = 100_000
        began = time.monotonic()
        assert await said_back(streams, b"x" * 20_000) == b"x" * 20_000
        assert time.monotonic() - began >= 0.2


async def test_it_goes_dark_as_soon_as_a_word_has_passed() -> None:
    async with echoing() as edge, caller(edge) as streams:
        edge.trip(b"XACK")
        assert await said_back(streams, b"GET") == b"GET"
        assert not edge.tripped.is_set()
        with pytest.raises(TimeoutError):
            await said_back(streams, b"XACK", within=0.2)
        assert edge.tripped.is_set()


async def test_what_is_sent_after_the_heal_does_not_overtake_what_was_delayed() -> None:
    async with echoing() as edge, caller(edge) as (reader, writer):
        edge.latency = 0.2
        for word in (b"one ", b"two "):
            writer.write(word)
            await writer.drain()
            await asyncio.sleep(0.02)  # each word a chunk of its own
        await edge.heal()
        writer.write(b"three ")
        heard = await asyncio.wait_for(reader.readexactly(len(b"one two three ")), 5)
    assert heard == b"one two three "
