"""A push that could not be put in is put in when it is tried again."""

import pytest
from redis import exceptions

from common.domain.actions import WebSocketSendAction
from tests.support.redis_server import RedisServer
from tests.support.stores import SESSION, stores


async def test_a_push_that_failed_is_not_taken_for_one_that_was_told(
    redis_server: RedisServer, prefix: str
) -> None:
    action = WebSocketSendAction(
        tenant_id=SESSION.tenant_id,
        session_id=SESSION.session_id,
        message_type="note",
        message_data={"text": "hello"},
    )
    async with stores(redis_server.url, prefix) as each:
        await each.redis.call("SET", each.keys.session_log(SESSION), "no stream")
        with pytest.raises(exceptions.ResponseError, match="WRONGTYPE"):
            await each.log.push(action)
        await each.redis.call("DEL", each.keys.session_log(SESSION))
        assert await each.log.push(action)
        assert not await each.log.push(action)
        assert await each.told() == [("note", {"text": "hello"})]
