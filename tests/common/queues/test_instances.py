"""Who is there, and what they hold together."""

import asyncio

from common.queues.instances import ClusterCounts
from tests.support.redis_server import RedisServer
from tests.support.stores import stores


async def test_what_living_instances_hold_is_added_up(
    redis_server: RedisServer, prefix: str
) -> None:
    async with stores(redis_server.url, prefix) as each:
        await each.instances.beat("a", 3, 2)
        await each.instances.beat("a", 5, 4)  # its newest word counts
        assert await each.instances.beat("b", 1, 1) == ClusterCounts(
            instances=2, connections=6, sessions=5
        )


async def test_one_that_leaves_is_out_of_every_count(
    redis_server: RedisServer, prefix: str
) -> None:
    async with stores(redis_server.url, prefix) as each:
        await each.instances.beat("a", 3, 2)
        await each.instances.beat("b", 1, 1)
        await each.instances.leave("a")
        assert (await each.instances.beat("b", 1, 1)).connections == 1


async def test_one_that_falls_silent_is_out_of_every_count(
    redis_server: RedisServer, prefix: str
) -> None:
    async with stores(redis_server.url, prefix) as each:
        await asyncio.gather(*(each.instances.beat(name, 3, 2) for name in "abc"))
        await each.redis.call("ZINCRBY", each.keys.instances, -12_001, "a")  # its last beat is old
        await each.redis.call("ZINCRBY", each.keys.instances, -9_000, "b")
        assert await each.instances.beat("c", 3, 2) == ClusterCounts(
            instances=2, connections=6, sessions=4
        )
        assert await each.redis.call("HLEN", each.keys.instance_facts) == 2
