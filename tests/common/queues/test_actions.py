"""Broadcasts reach every instance once; pushes that cannot be read are set aside."""

from typing import Any

import orjson
from redis.asyncio import Redis as Client

from common.domain.actions import WebSocketBroadcastAction
from common.domain.ids import SessionId, TenantId
from common.queues.actions import decode_broadcast, encode_broadcast
from tests.support.redis_server import RedisServer
from tests.support.stores import stores


def broadcast(**fields: Any) -> WebSocketBroadcastAction:
    return WebSocketBroadcastAction(
        **({"tenant_id": TenantId("acme"), "message_data": {"text": "a\nb"}} | fields)
    )


def test_a_broadcast_survives_the_way() -> None:
    action = broadcast(metadata={"k": 1}, message_type="news")
    found = decode_broadcast(encode_broadcast(action))
    assert (found.tenant_id, found.target_sessions) == ("acme", None)
    entry = orjson.loads(found.entry)
    assert (entry["type"], entry["data"]) == ("news", {"text": "a\nb"})
    assert entry["metadata"] == {"k": 1}


def test_a_broadcast_may_be_for_some_sessions_only() -> None:
    action = broadcast(target_sessions=(SessionId("a"), SessionId("b")))
    found = decode_broadcast(encode_broadcast(action))
    assert found.target_sessions == frozenset({SessionId("a"), SessionId("b")})
    assert "metadata" not in orjson.loads(found.entry)


async def test_a_broadcast_is_told_once_for_its_action_id_and_tenant(
    redis_server: RedisServer, prefix: str
) -> None:
    async with (
        stores(redis_server.url, prefix) as each,
        Client.from_url(redis_server.url) as client,
        client.pubsub(ignore_subscribe_messages=True) as listener,
    ):
        await listener.subscribe(each.keys.broadcasts)
        await listener.get_message(timeout=5)
        ours = broadcast(action_id="same")
        assert await each.pushes.broadcast(ours)
        assert not await each.pushes.broadcast(ours)
        assert await each.pushes.broadcast(broadcast(action_id="same", tenant_id=TenantId("b")))
        told = [await listener.get_message(timeout=5) for _ in range(2)]
        assert [decode_broadcast(each["data"]).tenant_id for each in told] == ["acme", "b"]
        assert await each.ttl(each.keys.broadcast_done(TenantId("acme"), "same")) > 86_000


async def test_a_push_that_cannot_be_read_is_set_aside(
    redis_server: RedisServer, prefix: str
) -> None:
    async with stores(redis_server.url, prefix) as each:
        stream = each.pushes.stream
        await stream.ensure_group()
        await each.redis.call(
            "XADD", each.keys.actions, "*", "action", "not json", "reason", "mine"
        )
        (entry,) = await stream.read(10, 1)
        for _ in range(2):  # as after a crash between the letter and the ack
            await each.pushes.set_aside(entry)
        (letter,) = await each.dead()
        assert letter["reason"] == b"bad_action"
        assert letter["action"] == b"not json"
        assert letter["original_reason"] == b"mine"
        assert letter["stream"] == each.keys.actions.encode()
        assert await stream.waiting() == (0, 0)
