"""Bad handshakes: counted over all instances, and here alone while Redis is away."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from common.domain.errors import RateLimited, RedisUnavailable
from common.queues import handshakes
from common.queues.handshakes import BadHandshakes
from common.queues.keys import Keys
from common.queues.redis import Redis
from tests.support.redis_server import RedisServer, free_port

HOME = "192.0.2.1"


@asynccontextmanager
async def counting(url: str, prefix: str, per_minute: int | None) -> AsyncIterator[BadHandshakes]:
    redis = Redis(url, socket_timeout=30.0)
    yield BadHandshakes(redis, Keys(prefix), per_minute)
    await redis.close()


def is_kept_out(counted: BadHandshakes, address: str = HOME) -> bool:
    try:
        counted.check(address)
    except RateLimited:
        return True
    return False


async def test_an_address_is_kept_out_from_the_limit_on_and_no_other_is(
    redis_server: RedisServer, prefix: str
) -> None:
    async with counting(redis_server.url, prefix, 3) as one:
        for _ in range(2):
            one.count(HOME)
        assert not is_kept_out(one)
        one.count(HOME)
        assert is_kept_out(one)
        assert not is_kept_out(one, "192.0.2.2")


async def test_instances_count_together(redis_server: RedisServer, prefix: str) -> None:
    async with (
        counting(redis_server.url, prefix, 10) as one,
        counting(redis_server.url, prefix, 10) as other,
    ):
        for _ in range(9):
            one.count(HOME)
        await one.share()
        other.count(HOME)
        assert not is_kept_out(other)
        await other.share()
        assert is_kept_out(other)
        assert not is_kept_out(one)  # until it hears of it, with the next that it refuses
        one.count(HOME)
        assert is_kept_out(one)


async def test_a_minute_begins_with_the_first_and_ends_for_all_at_once(
    redis_server: RedisServer, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handshakes, "MINUTE_MS", 2000)
    async with counting(redis_server.url, prefix, 2) as one:
        for _ in range(2):
            one.count(HOME)
        await one.share()
        assert is_kept_out(one)
        async with asyncio.timeout(10):
            while is_kept_out(one):
                await asyncio.sleep(0.01)
        one.count(HOME)
        assert not is_kept_out(one)


async def test_what_is_counted_here_holds_while_redis_is_away(prefix: str) -> None:
    async with counting(f"redis://127.0.0.1:{free_port()}", prefix, 2) as one:
        for _ in range(2):
            one.count(HOME)
            with pytest.raises(RedisUnavailable):
                await one.share()
        assert is_kept_out(one)


async def test_only_so_many_addresses_are_remembered_the_newest(
    redis_server: RedisServer, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handshakes, "MAX_REMEMBERED", 3)
    async with counting(redis_server.url, prefix, 1) as one:
        for number in range(5):
            one.count(f"192.0.2.{number}")
        kept_out = [is_kept_out(one, f"192.0.2.{number}") for number in range(5)]
        assert kept_out == [False, False, True, True, True]


async def test_without_a_limit_nothing_is_counted(redis_server: RedisServer, prefix: str) -> None:
    async with counting(redis_server.url, prefix, None) as one:
        for _ in range(100):
            one.count(HOME)
        await one.share()
        assert not is_kept_out(one)
