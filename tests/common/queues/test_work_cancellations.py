"""Cancellations reach a worker by the channel, and by the keys where the channel said nothing."""

import asyncio

import pytest

from common.domain.errors import RedisUnavailable
from common.domain.ids import TaskId
from tests.common.queues.test_work_consumer import consuming
from tests.execution.support import PATIENCE
from tests.support.redis_server import RedisServer


async def test_cancellations_are_heard_and_looked_up(
    redis_server: RedisServer, prefix: str
) -> None:
    async with consuming(redis_server, prefix) as (orchestrator, consumer):
        async with consumer.cancellations.told() as cancellations:
            for noise in (b"no json", b"[]", b'{"type":"other"}'):
                await orchestrator.redis.publish(orchestrator.keys.control, noise)
            await orchestrator.cancel("t1", "why")
            async with asyncio.timeout(PATIENCE):
                assert await anext(cancellations) == ("t1", "why")
        asked = [TaskId("t1"), TaskId("t2")]
        assert await consumer.cancellations.kept(asked) == {"t1": "why"}


async def test_who_listens_learns_that_redis_has_gone(prefix: str) -> None:
    with RedisServer() as server:
        async with consuming(server, prefix) as (_, consumer):
            async with consumer.cancellations.told() as cancellations:
                server.kill()
                with pytest.raises(RedisUnavailable):
                    await anext(cancellations)
            with pytest.raises(RedisUnavailable):
                async with consumer.cancellations.told():
                    raise AssertionError("nobody confirmed it")
