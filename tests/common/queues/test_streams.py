"""A stream of a consumer group: what one consumer drops another picks up, and nothing grows."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from redis import exceptions

from common.domain.errors import RedisUnavailable
from common.queues.redis import Redis
from common.queues.streams import ConsumerStream, create_group, fields_of, is_missing_group
from tests.support.proxy import Proxy
from tests.support.redis_server import RedisServer


@asynccontextmanager
async def stream_of(
    url: str, prefix: str, consumer: str = "a", socket_timeout: float = 2.0
) -> AsyncIterator[tuple[ConsumerStream, Redis]]:
    redis = Redis(url, socket_timeout=socket_timeout)
    stream = ConsumerStream(redis, f"{prefix}stream", "group", consumer)
    try:
        yield stream, redis
    finally:
        await stream.close()
        await redis.close()


async def add(redis: Redis, prefix: str, *values: str) -> list[bytes]:
    return [await redis.call("XADD", f"{prefix}stream", "*", "v", value) for value in values]


async def until_somebody_waits(redis: Redis) -> None:
    while b"blocked_clients:0" in await redis.call("INFO", "clients"):
        await asyncio.sleep(0.01)


def values_of(entries: object) -> list[str]:
    assert isinstance(entries, list)
    return [entry.fields[b"v"].decode() for entry in entries]


async def test_what_was_added_before_the_group_is_read_too(
    redis_server: RedisServer, prefix: str
) -> None:
    async with stream_of(redis_server.url, prefix) as (stream, redis):
        await add(redis, prefix, "1", "2", "3")
        await stream.ensure_group()
        await stream.ensure_group()
        assert values_of(await stream.read(2, 1)) == ["1", "2"]
        assert values_of(await stream.read(2, 1)) == ["3"]
        assert await stream.read(2, 0.01) == []


async def test_a_read_waits_for_the_first_entry(redis_server: RedisServer, prefix: str) -> None:
    async with stream_of(redis_server.url, prefix) as (stream, redis):
        await stream.ensure_group()
        reading = asyncio.create_task(stream.read(10, 5))
        async with asyncio.timeout(5):
            await until_somebody_waits(redis)
            await add(redis, prefix, "1")
            assert values_of(await reading) == ["1"]


async def test_what_is_finished_is_gone(redis_server: RedisServer, prefix: str) -> None:
    async with stream_of(redis_server.url, prefix) as (stream, redis):
        await stream.ensure_group()
        await add(redis, prefix, "1", "2", "3")
        entries = await stream.read(2, 1)
        assert await stream.waiting() == (2, 1)
        for _ in range(2):
            await stream.finish([entry.id for entry in entries])
        await stream.finish([])
        assert await stream.waiting() == (0, 1)
        assert await redis.call("XLEN", stream.name) == 1


async def test_what_waits_is_known_even_without_a_group(
    redis_server: RedisServer, prefix: str
) -> None:
    async with stream_of(redis_server.url, prefix) as (stream, redis):
        assert await stream.waiting() == (0, 0)
        await add(redis, prefix, "1")
        assert await stream.waiting() == (0, 1)


async def test_what_a_dead_consumer_left_is_claimed(redis_server: RedisServer, prefix: str) -> None:
    async with (
        stream_of(redis_server.url, prefix, "dead") as (dead, redis),
        stream_of(redis_server.url, prefix, "alive") as (alive, _),
    ):
        await dead.ensure_group()
        await add(redis, prefix, "1", "2", "3")
        await dead.read(10, 1)
        assert await alive.claim(60, 10) == []
        assert values_of(await alive.claim(0, 2)) == ["1", "2"]
        assert alive.has_more_to_claim
        assert values_of(await alive.claim(0, 10)) == ["1", "2", "3"]
        assert not alive.has_more_to_claim


async def test_what_one_took_itself_and_never_saw_is_claimed_too(
    redis_server: RedisServer, prefix: str
) -> None:
    async with stream_of(redis_server.url, prefix) as (stream, redis):
        await stream.ensure_group()
        await add(redis, prefix, "1")
        await stream.read(10, 1)
        assert values_of(await stream.claim(0, 10)) == ["1"]


@pytest.mark.parametrize("count", [3, 100])
async def test_entries_deleted_while_pending_are_cleared_away(
    redis_server: RedisServer, prefix: str, count: int
) -> None:
    async with (
        stream_of(redis_server.url, prefix, "dead") as (dead, redis),
        stream_of(redis_server.url, prefix, "alive") as (alive, _),
    ):
        await dead.ensure_group()
        ids = await add(redis, prefix, *map(str, range(10)))
        await dead.read(100, 1)
        await redis.call("XDEL", dead.name, *ids[:4], *ids[6:])
        found = set()
        async with asyncio.timeout(5):
            while (await alive.waiting())[0] > 2:
                found |= set(values_of(await alive.claim(0, count)))
            found |= set(values_of(await alive.claim(0, count)))
        assert found == {"4", "5"}


async def test_what_is_idle_is_found_behind_much_that_is_not(
    redis_server: RedisServer, prefix: str
) -> None:
    """Redis looks at ten times as many entries as are asked for, then stops."""
    async with (
        stream_of(redis_server.url, prefix, "busy") as (busy, redis),
        stream_of(redis_server.url, prefix, "alive") as (alive, _),
    ):
        await busy.ensure_group()
        ids = await add(redis, prefix, *map(str, range(60)))
        await busy.read(100, 1)
        command = ("XCLAIM", busy.name, "group", "busy", 0, ids[-1], "IDLE", 60_000, "JUSTID")
        await redis.call(*command)
        assert values_of(await alive.claim(30, 2)) == ["59"]


async def test_a_group_that_is_gone_is_made_again(redis_server: RedisServer, prefix: str) -> None:
    async with stream_of(redis_server.url, prefix) as (stream, redis):
        assert await stream.read(10, 0.1) == []  # there was none yet
        await add(redis, prefix, "1")
        assert values_of(await stream.read(10, 1)) == ["1"]
        await redis.call("DEL", stream.name)
        assert await stream.claim(0, 10) == []
        await add(redis, prefix, "2")
        assert values_of(await stream.read(10, 1)) == ["2"]


async def test_a_stream_deleted_under_a_waiting_read_is_made_again(
    redis_server: RedisServer, prefix: str
) -> None:
    async with stream_of(redis_server.url, prefix) as (stream, redis):
        await stream.ensure_group()
        reading = asyncio.create_task(stream.read(10, 2))
        async with asyncio.timeout(5):
            await until_somebody_waits(redis)
            await redis.call("DEL", stream.name)
            assert await reading == []
            await add(redis, prefix, "1")
            while not (entries := await stream.read(10, 1)):
                pass
        assert values_of(entries) == ["1"]


async def test_a_mistake_of_ours_is_not_hidden(redis_server: RedisServer, prefix: str) -> None:
    async with stream_of(redis_server.url, prefix) as (stream, redis):
        await redis.call("SET", stream.name, "no stream")
        with pytest.raises(exceptions.ResponseError, match="WRONGTYPE"):
            await stream.read(1, 0.1)
        with pytest.raises(exceptions.ResponseError, match="WRONGTYPE"):
            await stream.claim(0, 1)
        with pytest.raises(exceptions.ResponseError, match="WRONGTYPE"):
            await create_group(redis, stream.name, "group")


async def test_a_waiting_read_notices_that_redis_died_and_goes_on_when_it_is_back(
    prefix: str,
) -> None:
    with RedisServer() as server:
        async with stream_of(server.url, prefix) as (stream, redis):
            await stream.ensure_group()
            reading = asyncio.create_task(stream.read(10, 5))
            async with asyncio.timeout(5):
                await until_somebody_waits(redis)
                server.kill()
                with pytest.raises(RedisUnavailable):
                    await reading
            server.restart()
            await asyncio.sleep(0.4)  # the pause after a failure
            await add(redis, prefix, "1")
            assert values_of(await stream.read(10, 5)) == ["1"]


async def test_silence_is_an_error_only_after_the_wait_and_the_timeout(
    redis_server: RedisServer, prefix: str
) -> None:
    async with (
        Proxy(redis_server.port) as proxy,
        stream_of(proxy.url, prefix, socket_timeout=1.5) as (stream, redis),
    ):
        await stream.ensure_group()
        assert await stream.read(10, 0.2) == []
        proxy.blackhole()
        loop = asyncio.get_running_loop()
        before = loop.time()
        with pytest.raises(RedisUnavailable):
            await stream.read(10, 0.2)
        assert 1.6 < loop.time() - before < 2 * 1.7  # and it is not asked again by the way
        await proxy.heal()
        await add(redis, prefix, "1")
        # The read that was given up may arrive late, and take it.
        found = [*await stream.read(10, 0.2), *await stream.claim(0, 10)]
        assert values_of(found)[0] == "1"


async def test_what_was_taken_with_a_lost_reply_is_claimed(
    redis_server: RedisServer, prefix: str
) -> None:
    async with Proxy(redis_server.port) as proxy, stream_of(proxy.url, prefix) as (stream, redis):
        await stream.ensure_group()
        await stream.read(10, 0.01)
        await add(redis, prefix, "1")
        proxy.cut_replies = 1
        with pytest.raises(RedisUnavailable):
            await stream.read(10, 1)
        assert await stream.read(10, 0.05) == []
        assert values_of(await stream.claim(0, 10)) == ["1"]


async def test_a_read_that_was_given_up_does_not_disturb_the_next(
    redis_server: RedisServer, prefix: str
) -> None:
    async with stream_of(redis_server.url, prefix) as (stream, redis):
        await stream.ensure_group()
        reading = asyncio.create_task(stream.read(10, 5))
        await asyncio.sleep(0.05)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        await add(redis, prefix, "1")
        found = [*await stream.read(10, 0.2), *await stream.claim(0, 10)]
        assert values_of(found)[0] == "1"


async def test_it_may_be_closed_before_and_after_reading(
    redis_server: RedisServer, prefix: str
) -> None:
    async with stream_of(redis_server.url, prefix) as (stream, _):
        await stream.close()
        await stream.read(1, 0.01)
        await stream.close()
        assert await stream.read(1, 0.01) == []


def test_fields_come_as_one_flat_list() -> None:
    assert fields_of([b"a", b"1", b"b", b"2"]) == {b"a": b"1", b"b": b"2"}


def test_a_missing_group_is_known_by_what_redis_says() -> None:
    for text in ("NOGROUP No such key", "UNBLOCKED the stream key no longer exists"):
        assert is_missing_group(exceptions.ResponseError(text))
    assert not is_missing_group(exceptions.ResponseError("WRONGTYPE"))


# Consumers.


async def names_of(redis: Redis, stream: ConsumerStream) -> set[str]:
    found = await redis.call("XINFO", "CONSUMERS", stream.name, "group")
    return {flat[1].decode() for flat in found}


async def test_what_one_took_and_how_often_is_known_until_it_is_finished(
    redis_server: RedisServer, prefix: str
) -> None:
    async with stream_of(redis_server.url, prefix) as (stream, redis):
        assert await stream.unfinished(10) == []  # there is no group yet
        await stream.ensure_group()
        ids = await add(redis, prefix, "1", "2", "3")
        entries = await stream.read(10, 1)
        await redis.call("XDEL", stream.name, ids[1])
        assert values_of(await stream.unfinished(10)) == ["1", "3"]
        assert values_of(await stream.unfinished(1)) == ["1"]
        before = await stream.deliveries(entries[0])
        await stream.claim(0, 10)
        assert await stream.deliveries(entries[0]) == before + 1
        await stream.finish([entries[0].id])
        assert await stream.deliveries(entries[0]) == 0


async def test_a_silent_consumer_is_retired_unless_something_is_pending_for_it(
    redis_server: RedisServer, prefix: str
) -> None:
    async with (
        stream_of(redis_server.url, prefix, "idle") as (idle, redis),
        stream_of(redis_server.url, prefix, "dead") as (dead, _),
        stream_of(redis_server.url, prefix, "alive") as (alive, _),
    ):
        assert await alive.retire_dead(0) == 0  # there is no group yet
        await alive.ensure_group()
        for stream in (idle, dead, alive):
            await add(redis, prefix, "1")
            entries = await stream.read(10, 1)
            if stream is not dead:
                await stream.finish([entry.id for entry in entries])
        assert await alive.retire_dead(60_000) == 0
        assert await alive.retire_dead(0) == 1
        assert await names_of(redis, alive) == {"dead", "alive"}
        assert values_of(await alive.claim(0, 10)) == ["1"]  # nothing was lost with it
        assert await alive.retire_dead(0) == 1


async def test_who_leaves_is_gone_unless_another_has_to_take_over_from_it(
    redis_server: RedisServer, prefix: str
) -> None:
    async with stream_of(redis_server.url, prefix) as (stream, redis):
        await stream.leave()  # nothing to leave
        await stream.ensure_group()
        await add(redis, prefix, "1")
        entries = await stream.read(10, 1)
        await stream.leave()
        assert await names_of(redis, stream) == {"a"}
        await stream.finish([entry.id for entry in entries])
        await stream.leave()
        assert await names_of(redis, stream) == set()


async def test_leaving_a_redis_that_is_away_takes_no_harm(redis_server: RedisServer) -> None:
    async with (
        Proxy(redis_server.port) as proxy,
        stream_of(proxy.url, "any:") as (stream, _),
    ):
        await proxy.refuse()
        await stream.leave()


async def test_who_looks_after_consumers_does_not_hide_a_mistake(
    redis_server: RedisServer, prefix: str
) -> None:
    async with stream_of(redis_server.url, prefix) as (stream, redis):
        await redis.call("SET", stream.name, "no stream")
        with pytest.raises(exceptions.ResponseError, match="WRONGTYPE"):
            await stream.retire_dead(0)
        with pytest.raises(exceptions.ResponseError, match="WRONGTYPE"):
            await stream.unfinished(1)
