"""What a worker makes of an answer that does not come, and of one that refuses."""

import pytest
import structlog.testing
from redis import exceptions

from common.domain.errors import RedisUnavailable
from common.queues.redis import Redis
from common.queues.work_connection import WorkConnection
from common.queues.work_entries import GroupMissing, RedisRefused
from tests.execution.support import PATIENCE
from tests.support.follower import eventually
from tests.support.redis_server import RedisServer


async def test_loss_and_return_of_redis_are_logged_once_each() -> None:
    with RedisServer() as server, structlog.testing.capture_logs() as logs:
        redis = Redis(server.url)
        connection = WorkConnection(redis)

        async def answers() -> bool:
            try:
                await connection.send(("GET", "key"))
            except RedisUnavailable:
                return False
            return True

        assert await answers()
        server.kill()
        assert [await answers() for _ in range(3)] == [False] * 3
        server.restart()
        await eventually(answers, within=PATIENCE)
        assert await answers()
        await redis.close()
    assert [line["event"] for line in logs] == ["redis.lost", "redis.returned"]


async def test_a_missing_group_and_a_mistake_of_ours_are_told_apart(
    redis_server: RedisServer, prefix: str
) -> None:
    redis = Redis(redis_server.url)
    connection = WorkConnection(redis)
    with pytest.raises(GroupMissing):
        await connection.send(("XPENDING", f"{prefix}stream", "group"))
    with pytest.raises(exceptions.ResponseError, match="unknown command"):
        await connection.send(("NO-SUCH-COMMAND",))
    added, refused = await connection.report([("SET", prefix, "1"), ("XLEN", prefix)])
    assert added == b"OK"
    assert "WRONGTYPE" in str(refused)
    await redis.close()


async def test_a_redis_that_would_not_have_us_is_told_from_one_that_is_away() -> None:
    with RedisServer() as server:
        redis = Redis(server.url.replace("//", "//:wrong@"))
        with pytest.raises(RedisRefused):
            await WorkConnection(redis).greet("key", "other")
        await redis.close()
    redis = Redis(server.url)
    await WorkConnection(redis).greet("key", "other")  # it may still come
    await redis.close()


async def test_a_redis_that_lets_us_read_only_is_told_before_any_work_is_taken() -> None:
    with RedisServer() as server:
        redis, reader = Redis(server.url), Redis(server.url.replace("//", "//reader:x@"))
        await redis.call("ACL", "SETUSER", "reader", "on", "nopass", "~*", "+@all", "-set")
        with pytest.raises(RedisRefused):
            await WorkConnection(reader).greet("key", "other")
        await WorkConnection(redis).greet("key", "other")
        assert await redis.call("EXISTS", "other") == 0  # asking has written nothing
        for each in (redis, reader):
            await each.close()
