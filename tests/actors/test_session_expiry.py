"""A connection lasts as long as its token, and the token may be renewed."""

import asyncio
import time

import orjson

from actors.session_messages import Renewed, SocketClosed
from tests.actors.instance import instance
from tests.support.redis_server import RedisServer

LONG_AFTER = 99_999_999_999.0  # unix seconds that no calendar of ours has


async def test_a_connection_is_closed_when_its_token_expires(
    redis_server: RedisServer, prefix: str
) -> None:
    async with instance(redis_server.url, prefix) as running:
        expires_at = time.time() + 0.2
        _, transport = await running.connect(expires_at=expires_at)
        assert await transport.close_code() == 4401
        assert expires_at <= time.time() < expires_at + 5
        assert running.counters.closes[4401] == 1


async def test_a_token_that_expired_on_the_way_in_is_noticed(
    redis_server: RedisServer, prefix: str
) -> None:
    async with instance(redis_server.url, prefix) as running:
        _, transport = await running.connect(expires_at=time.time() - 1)
        assert await transport.close_code() == 4401


async def test_a_renewal_moves_the_end_and_says_to_when(
    redis_server: RedisServer, prefix: str
) -> None:
    async with instance(redis_server.url, prefix) as running:
        expires_at = time.time() + 2  # by when it has to be connected
        until = expires_at + 0.2
        ref, transport = await running.connect(expires_at=expires_at)
        ref.tell(Renewed("later", LONG_AFTER))
        ref.tell(Renewed("never", None))
        ref.tell(Renewed(None, until))
        later, never = await transport.answers(2)
        assert (later["type"], later["data"]) == ("ack", {"expires_at": "5138-11-16T09:46:39.000Z"})
        assert (never["type"], never["data"]) == ("ack", {"expires_at": None})
        assert await transport.close_code() == 4401
        assert time.time() >= until


async def test_a_moment_that_no_calendar_has_is_told_as_the_last_one(
    redis_server: RedisServer, prefix: str
) -> None:
    async with instance(redis_server.url, prefix) as running:
        ref, transport = await running.connect()
        ref.tell(Renewed("r", 253_402_300_829.0))
        (answer,) = await transport.answers(1)
        assert orjson.dumps(answer["data"]) == b'{"expires_at":"9999-12-31T23:59:59.999Z"}'


async def test_who_has_left_is_not_closed_any_more(redis_server: RedisServer, prefix: str) -> None:
    async with instance(redis_server.url, prefix) as running:
        ref, transport = await running.connect()
        other, witness = await running.connect()
        soon = time.time() + 0.3
        ref.tell(Renewed(None, soon))
        ref.tell(SocketClosed())  # handled in the same turn, so before that moment
        other.tell(Renewed(None, soon + 0.1))
        assert await witness.close_code() == 4401
        await asyncio.sleep(0)
        assert transport.closed is None
        assert running.counters.closes[4401] == 1
