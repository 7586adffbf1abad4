"""An attempt is counted once for each taking, however often and however late Redis is asked."""

import asyncio

import pytest
from redis.asyncio import Redis

from common.domain.errors import RedisUnavailable
from common.domain.ids import TaskId
from common.queues.keys import Keys
from common.queues.work_consumer import TAKING_TTL_SECONDS, WorkConsumer
from tests.execution.support import PATIENCE
from tests.support.proxy import Proxy
from tests.support.redis_server import RedisServer

TASK = TaskId("t")


async def connected(consumer: WorkConsumer) -> None:
    """Until it has a connection, so that what it is told next is the answer to what it asks."""
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                await consumer.cancellations.kept([TASK])
            except RedisUnavailable:  # after a fault it looks away for a moment
                await asyncio.sleep(0.05)
            else:
                return


async def test_lost_replies_use_up_no_attempt(redis_server: RedisServer, prefix: str) -> None:
    keys = Keys(prefix)
    async with Proxy(redis_server.port) as proxy, Redis.from_url(redis_server.url) as redis:
        consumer = WorkConsumer(proxy.url, keys, "c1", socket_timeout=PATIENCE)
        for _ in range(2):
            await connected(consumer)
            proxy.cut_replies = 1
            with pytest.raises(RedisUnavailable):
                await consumer.begin(TASK, "first")
            assert await redis.get(keys.attempt(TASK)) == b"1"
        await connected(consumer)
        assert (await consumer.begin(TASK, "first")).attempt == 1
        assert (await consumer.begin(TASK, "second")).attempt == 2
        await consumer.close()


async def test_what_is_asked_late_does_not_supersede_who_has_begun_since(
    redis_server: RedisServer, prefix: str
) -> None:
    keys = Keys(prefix)
    async with Redis.from_url(redis_server.url) as redis:
        consumer = WorkConsumer(redis_server.url, keys, "c1", socket_timeout=PATIENCE)
        assert [(await consumer.begin(TASK, each)).attempt for each in ("a", "b", "a")] == [1, 2, 1]
        assert await redis.get(keys.attempt(TASK)) == b"2"
        await consumer.close()


async def test_what_it_keeps_is_the_counter_for_a_day_and_the_taking_for_less(
    redis_server: RedisServer, prefix: str
) -> None:
    keys = Keys(prefix)
    async with Redis.from_url(redis_server.url) as redis:
        consumer = WorkConsumer(redis_server.url, keys, "c1", socket_timeout=PATIENCE)
        await consumer.begin(TASK, "a")
        kept = {each: await redis.ttl(each) async for each in redis.scan_iter(f"{prefix}*")}
        counter = keys.attempt(TASK).encode()
        assert 86_000 < kept.pop(counter) <= 86_400
        ((taking, seconds),) = kept.items()
        assert taking.startswith(f"{prefix}attempt:".encode())  # where a worker may write
        assert 0 < seconds <= TAKING_TTL_SECONDS
        await consumer.close()
