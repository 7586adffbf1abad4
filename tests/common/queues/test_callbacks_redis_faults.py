"""Callbacks are applied once and in order, whatever Redis does in between."""

import contextlib

import pytest

from common.domain.errors import Overloaded, RedisUnavailable
from tests.support.proxy import Proxy
from tests.support.redis_server import RedisServer
from tests.support.stores import (
    Report,
    callback_fields,
    delta,
    key_of,
    stores,
)


@pytest.mark.parametrize("reply", range(4))
async def test_a_reply_that_is_lost_at_any_step_changes_nothing_in_the_end(
    redis_server: RedisServer, prefix: str, reply: int
) -> None:
    async with (
        Proxy(redis_server.port) as proxy,
        stores(redis_server.url, prefix) as watcher,
        stores(proxy.url, prefix, socket_timeout=30.0) as each,
    ):
        task_id = await watcher.submit()
        bad: Report = (1, 2, "laughing", {})
        for report in (delta(1, "a"), bad, delta(4, "d"), delta(3, "c")):
            await watcher.add(callback_fields(task_id, *report))
        await watcher.add(callback_fields(task_id, 1, 5, "completed", {}))
        await each.callbacks.stream.ensure_group()
        entries = await watcher.read()
        proxy.cut_reply(after=reply)
        with contextlib.suppress(RedisUnavailable):
            await each.callbacks.apply(entries)
        assert proxy.cut_replies == 0
        await watcher.callbacks.apply(entries)
        assert [data.get("text") for _, data in await watcher.told()] == ["a", "c", "d", None]
        assert (await watcher.task(task_id)).status == "completed"
        assert len(await watcher.dead()) == 1
        assert await watcher.callbacks.stream.waiting() == (0, 0)


async def test_scripts_that_redis_forgot_are_loaded_in_the_middle_of_a_batch(prefix: str) -> None:
    with RedisServer() as server:
        async with stores(server.url, prefix) as each:
            tasks = [await each.submit(key_of(f"s-{i}")) for i in range(5)]
            for i, task_id in enumerate(tasks):
                await each.add(callback_fields(task_id, *delta(1), key_of(f"s-{i}")))
            await each.redis.call("SCRIPT", "FLUSH")
            assert (await each.handle()).outcomes == {"applied": 5}


async def test_a_redis_without_memory_loses_nothing(prefix: str) -> None:
    with RedisServer("--maxmemory-policy", "noeviction") as server:
        async with stores(server.url, prefix) as each:
            task_id = await each.submit()
            await each.add(callback_fields(task_id, *delta(1)))
            entries = await each.read()
            await each.redis.call("CONFIG", "SET", "maxmemory", "1")
            with pytest.raises(Overloaded):
                await each.callbacks.apply(entries)
            assert await each.callbacks.stream.waiting() == (1, 0)
            await each.redis.call("CONFIG", "SET", "maxmemory", "0")
            claimed = await each.callbacks.stream.claim(0, 10)
            assert (await each.callbacks.apply(claimed)).outcomes == {"applied": 1}
            assert await each.dead() == []
