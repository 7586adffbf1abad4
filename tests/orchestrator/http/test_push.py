"""Pushes of back-ends, by REST and by the stream of actions: kept, or told to all, and once."""

import asyncio
import uuid
from typing import Any

import pytest

from tests.support.client import WITHIN, Address, next_frame, say
from tests.support.fake_executor import FakeExecutor
from tests.support.redis_server import RedisServer
from tests.support.service import running_service


async def test_a_push_is_an_event_of_its_session(instance: Address, tenant: str) -> None:
    body = {
        "tenant_id": tenant,
        "session_id": "s",
        "message_data": {"text": "ä", "n": [1, None], "big": 2**64 - 1, "empty": []},
        "message_type": "weather",
        "metadata": {"from": "cron"},
        "user_id": "u-1",
    }
    async with instance.connect(f"{tenant}/s") as socket:
        await next_frame(socket)
        answer = await instance.post("/api/ws/send", body)
        assert answer.status == 202
        assert uuid.UUID(answer.json["action_id"])
        frame = await next_frame(socket)
    assert (frame["type"], frame["offset"]) == ("weather", 1)
    assert frame["data"] == body["message_data"]
    assert frame["metadata"] == body["metadata"]
    assert (await instance.events(f"{tenant}/s"))["events"] == [frame]


async def test_a_repeated_action_id_does_nothing_again(instance: Address, tenant: str) -> None:
    action_id = str(uuid.uuid4())
    body = {"tenant_id": tenant, "session_id": "s", "message_data": {}, "action_id": action_id}
    for _ in range(3):
        answer = await instance.post("/api/ws/send", body)
        assert (answer.status, answer.json) == (202, {"action_id": action_id})
    assert (await instance.events(f"{tenant}/s"))["last_offset"] == 1


async def test_a_broadcast_reaches_all_of_its_tenant_and_nobody_else(
    redis_server: RedisServer, prefix: str
) -> None:
    async with (
        running_service(redis_server.url, prefix) as one,
        running_service(redis_server.url, prefix) as other,
        one.connect("acme/a") as a,
        other.connect("acme/b") as b,
        other.connect("acme/c") as c,
        one.connect("rival/a") as rival,
    ):
        sockets = (a, b, c, rival)
        for socket in sockets:
            await next_frame(socket)
        action = {"tenant_id": "acme", "message_data": {"n": 1}, "action_id": str(uuid.uuid4())}
        for _ in range(2):
            assert (await one.post("/api/ws/broadcast", action)).status == 202
        targeted = {"tenant_id": "acme", "message_data": {"n": 2}, "message_type": "news"}
        targeted["target_sessions"] = ["b", "nobody", "b"]
        assert (await one.post("/api/ws/broadcast", targeted)).status == 202
        everyone = {"tenant_id": "acme", "message_data": {"n": 3}}
        assert (await other.post("/api/ws/broadcast", everyone)).status == 202
        assert await data_until(a, 3) == [{"n": 1}, {"n": 3}]
        assert await data_until(b, 3) == [{"n": 1}, {"n": 2}, {"n": 3}]
        assert await data_until(c, 3) == [{"n": 1}, {"n": 3}]
        await say(rival, "ping")
        assert (await next_frame(rival))["type"] == "pong"
        assert (await one.events("acme/a"))["events"] == []


async def data_until(socket: Any, last: int) -> list[dict[str, Any]]:
    told: list[dict[str, Any]] = []
    while not told or told[-1]["n"] != last:
        frame = await next_frame(socket)
        assert "offset" not in frame
        told.append(frame["data"])
    return told


@pytest.mark.parametrize("path", ["/api/ws/send", "/api/ws/broadcast"])
async def test_an_incomplete_push_is_refused_by_name(instance: Address, path: str) -> None:
    answer = await instance.post(path, {"message_type": "error"})
    assert (answer.status, answer.code) == (422, "validation_failed")
    assert answer.json["errors"].keys() >= {"tenant_id", "message_data", "message_type"}


async def test_pushes_by_the_stream_are_done_once_and_bad_ones_set_aside(
    redis_server: RedisServer, prefix: str
) -> None:
    async with (
        running_service(redis_server.url, prefix) as service,
        FakeExecutor(redis_server.url, prefix) as executor,
        service.connect("acme/s") as socket,
    ):
        await next_frame(socket)
        good: dict[str, Any] = {
            "action_type": "websocket.send_message",
            "action_id": str(uuid.uuid4()),
            "tenant_id": "acme",
            "session_id": "s",
            "message_data": {"n": 1},
        }
        bad: list[Any] = [
            b"no JSON",
            b"\xff",
            [],
            {**good, "action_id": "x"},
            {**good, "message_type": "agent_delta"},
            {**good, "session_id": "{}"},
            {**good, "action_type": "chat.send_message"},
        ]
        for action in (*bad, good, good):
            await executor.push(action)
        await executor.redis.xadd(f"{prefix}actions", {"other": "field"})
        broadcast = {"action_type": "websocket.broadcast", "action_id": str(uuid.uuid4())}
        await executor.push({**broadcast, "tenant_id": "acme", "message_data": {"n": 2}})
        assert [(await next_frame(socket))["data"] for _ in range(2)] == [{"n": 1}, {"n": 2}]
        letters = await executor.dead_letters("callbacks")
        assert [letter[b"reason"] for letter in letters] == [b"bad_action"] * 8
        assert letters[0][b"action"] == b"no JSON"
        assert (await service.events("acme/s"))["last_offset"] == 1
        async with asyncio.timeout(WITHIN):
            while await executor.redis.xlen(f"{prefix}actions"):
                await asyncio.sleep(0.01)
