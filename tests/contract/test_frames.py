"""Section 4: frames, from the server and from clients (sentences 4.5 to 4.22)."""

import asyncio
import contextlib
import itertools
import math
import re
import uuid
from typing import Any

import orjson
from websockets.asyncio.client import ClientConnection

from tests.contract.talk import is_end, talk, until
from tests.support.client import Frame, close_code, frames_until, next_frame, say
from tests.support.redis_server import RedisServer

FIELDS = {
    *("type", "data", "timestamp", "tenant_id", "session_id"),
    *("task_id", "offset", "from_offset", "metadata", "id"),
}
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
KEPT = {"user_message", "task_update", "agent_delta", "agent_event", "agent_response"}


async def until_end(socket: ClientConnection) -> list[Frame]:
    """Frames up to the end of a task."""
    frames = [await next_frame(socket)]
    while not is_end(frames[-1]):
        frames.append(await next_frame(socket))
    return frames


async def test_4_5_and_4_6_every_frame_is_one_object_and_events_come_in_order_each_once(
    redis_server: RedisServer, prefix: str
) -> None:
    async with (
        talk(redis_server, prefix) as each,
        each.service.connect() as one,
        each.service.connect() as other,
    ):
        seen = [[await next_frame(socket)] for socket in (one, other)]  # both are there now
        await say(one, "ping", "p")
        await say(one, "chat.send_message", "m", agent_id="echo", message="hi", metadata={"k": [1]})
        task = await each.executor.take()
        await each.executor.stream_answer(task, "Hel", "lo")
        for type_, data in (
            ("event", {"name": "n"}),
            ("typing", {}),
            ("progress", {"progress": 5}),
        ):
            await each.executor.report(task, type_, data)
        await each.executor.complete(task, "Hello")
        seen = [seen[0] + await until_end(one), seen[1] + await until_end(other)]
        events = [[frame for frame in frames if "offset" in frame] for frames in seen]
        assert events[0] == events[1] == await each.frames()
        assert [frame["offset"] for frame in events[0]] == list(range(1, len(events[0]) + 1))
        for frame in (frame for frames in seen for frame in frames):
            assert frame.keys() <= FIELDS
            assert frame.keys() >= {"type", "data", "timestamp", "tenant_id", "session_id"}
            assert TIME.fullmatch(frame["timestamp"]), frame
            assert (frame["tenant_id"], frame["session_id"]) == ("acme", "s-1")
            assert isinstance(frame["data"], dict)
            assert ("offset" in frame) == (frame["type"] in KEPT), frame
            assert ("task_id" in frame) == (frame["type"] in KEPT | {"typing_indicator"}), frame


async def test_4_5_a_frame_is_text_even_with_what_json_need_not_escape(
    redis_server: RedisServer, prefix: str
) -> None:
    text = 'é\u2028\u0000"\\ \U0001f600'
    async with talk(redis_server, prefix) as each, each.service.connect() as socket:
        await say(socket, "chat.send_message", agent_id="echo", message=text)
        task = await each.executor.take()
        await each.executor.stream_answer(task, text)
        await each.executor.complete(task, text)
        frames = await until_end(socket)
        assert frames[1]["data"]["message"] == text
        assert frames[-2]["data"]["text"] == frames[-1]["data"]["response"] == text


async def test_4_7_the_acknowledgement_counts_events_before_joining_them(
    redis_server: RedisServer, prefix: str
) -> None:
    async with talk(redis_server, prefix) as each:
        task = await each.taken()
        await each.executor.stream_answer(task, "a", "b", "c")
        await each.handled(task)
        async with each.service.connect(offset=0, compact=1) as socket:
            data = (await next_frame(socket))["data"]
            assert (data["offset"], data["replayed"], data["recovered"]) == (5, 5, True)
            assert [(await next_frame(socket))["offset"] for _ in range(3)] == [1, 2, 5]


async def test_4_8_a_message_is_told_to_all_connections_with_its_metadata(
    redis_server: RedisServer, prefix: str
) -> None:
    async with talk(redis_server, prefix) as each, each.joined() as socket:
        await each.sent(message="by REST", user_id="u-1", metadata={"n": 12345678901234567890})
        frame = (await frames_until(socket, "user_message"))[-1]
        assert frame["data"] == {
            "message": "by REST",
            "message_type": "text",
            "user_id": "u-1",
            "agent_id": "echo",
        }
        assert frame["metadata"] == {"n": 12345678901234567890}


async def test_4_9_a_task_update_has_what_applies(redis_server: RedisServer, prefix: str) -> None:
    async with talk(redis_server, prefix, execution={"retry_backoff": 0.1}) as each:
        task = await each.started()
        await each.executor.report(task, "progress", {"progress": 12.5, "message": "a bit"})
        await each.executor.report(task, "progress", {"progress": 100})
        await each.executor.report(
            task, "failed", {"error": {"type": "t", "message": "m"}, "retryable": True}
        )
        await each.executor.finish(task)
        again = await each.executor.take()
        await each.executor.report(again, "started")
        await each.handled(again)
        assert await each.cancel(task.task_id, "enough") == (202, "cancelling")
        await each.executor.report(again, "cancelled")
        await each.handled(again)
        assert await each.told() == [
            ("task_update", {"status": "running", "attempt": 1}),
            ("task_update", {"status": "running", "progress": 12.5, "message": "a bit"}),
            ("task_update", {"status": "running", "progress": 100}),
            ("task_update", {"status": "queued", "attempt": 1}),
            ("task_update", {"status": "running", "attempt": 2, "reset": True}),
            ("task_update", {"status": "cancelling", "message": "enough"}),
            ("task_update", {"status": "cancelled", "message": "enough"}),
        ]


async def test_4_10_to_4_12_what_the_agent_reports_is_passed_on_whole(
    redis_server: RedisServer, prefix: str
) -> None:
    delta = {"text": "x", "part": 3, "empty": [], "big": 12345678901234567890}
    event = {"name": "tool_call", "arguments": {}, "list": [], "nested": {"a": [{}]}}
    response = {
        "response": "x",
        "sources": [],
        "execution_time": 1.5,
        "tokens_used": 7,
        "usage": {"input_tokens": 3, "output_tokens": 4, "cost": 0.01},
        "agent_info": {"model": "m"},
    }
    async with talk(redis_server, prefix) as each:
        task = await each.started()
        await each.executor.report(task, "delta", delta)
        await each.executor.report(task, "event", event)
        await each.executor.report(task, "completed", response)
        await each.handled(task)
        assert (await each.told())[1:] == [
            ("agent_delta", delta),
            ("agent_event", event),
            ("agent_response", response),
        ]


async def test_4_13_an_error_ends_a_task_or_refuses_a_frame(
    redis_server: RedisServer, prefix: str
) -> None:
    async with talk(redis_server, prefix) as each, each.joined() as socket:
        task = await each.taken()
        await each.executor.report(task, "failed", {"error": {"type": "boom", "message": "It."}})
        failed = (await frames_until(socket, "error"))[-1]
        assert failed["data"] == {
            "code": "task_failed",
            "error_type": "boom",
            "message": "It.",
            "status": "failed",
        }
        assert failed["task_id"] == task.task_id
        late = await each.taken(timeout=1)
        timed_out = (await frames_until(socket, "error"))[-1]
        assert timed_out["task_id"] == late.task_id
        assert timed_out["data"].items() >= {"code": "task_timeout", "status": "timeout"}.items()
        assert timed_out["data"].keys() == failed["data"].keys()
        await say(socket, "chat.send_message", "mine", agent_id="echo")
        refused = await next_frame(socket)
        assert refused["id"] == "mine"
        assert "offset" not in refused
        assert refused["data"]["code"] == "validation_failed"
        assert refused["data"]["message"]
        assert refused["data"]["errors"].keys() == {"message"}


async def test_4_14_a_push_is_kept_under_its_own_type_and_a_broadcast_is_not_kept(
    redis_server: RedisServer, prefix: str
) -> None:
    async with talk(redis_server, prefix) as each, each.joined() as socket:
        data = {"any": ["thing", {}], "n": 12345678901234567890}
        address = {"tenant_id": "acme", "session_id": "s-1", "message_data": data}
        for body, type_ in (
            (address, "agent_response"),
            ({**address, "message_type": "price.changed"}, "price.changed"),
        ):
            assert (await each.service.post("/api/ws/send", body)).status == 202
            frame = await next_frame(socket)
            assert (frame["type"], frame["data"]) == (type_, data)
            assert "offset" in frame
        del address["session_id"]
        for body, type_ in (
            (address, "broadcast"),
            ({**address, "message_type": "maintenance"}, "maintenance"),
        ):
            assert (await each.service.post("/api/ws/broadcast", body)).status == 202
            frame = await next_frame(socket)
            assert (frame["type"], frame["data"]) == (type_, data)
            assert "offset" not in frame
        assert [frame["offset"] for frame in await each.frames()] == [1, 2]


async def test_4_15_typing_names_the_agent_and_is_not_kept(
    redis_server: RedisServer, prefix: str
) -> None:
    async with talk(redis_server, prefix) as each, each.joined() as socket:
        task = await each.started(agent_id="agent-7")
        await each.executor.report(task, "typing")
        frame = (await frames_until(socket, "typing_indicator"))[-1]
        assert frame["data"] == {"agent_id": "agent-7"}
        assert "offset" not in frame
        assert (await each.frames())[-1]["type"] == "task_update"


async def test_4_16_an_ack_is_the_answer_that_rest_would_give(
    redis_server: RedisServer, prefix: str
) -> None:
    async with talk(redis_server, prefix) as each, each.service.connect() as socket:

        async def answer(type_: str, **data: Any) -> Any:
            await say(socket, type_, "correlates", **data)
            frame = (await frames_until(socket, "ack"))[-1]
            assert frame["id"] == "correlates"
            assert "offset" not in frame
            return frame["data"]

        taken = await answer("chat.send_message", agent_id="echo", message="hi")
        assert taken.keys() == {"task_id", "status", "tenant_id", "session_id", "created_at"}
        assert (taken["status"], taken["tenant_id"]) == ("queued", "acme")
        task_id = taken["task_id"]
        assert await answer("chat.get_status", task_id=task_id) == await each.service.status(
            task_id
        )
        stopped = await answer("chat.cancel_task", task_id=task_id, reason="r")
        assert stopped == {"task_id": task_id, "status": "cancelled"}


async def test_4_17_a_pong_is_empty_and_has_the_pings_id(
    redis_server: RedisServer, prefix: str
) -> None:
    async with talk(redis_server, prefix) as each, each.service.connect() as socket:
        for frame, id_ in (
            ({"type": "ping", "id": "x" * 128}, "x" * 128),
            ({"type": "ping"}, None),
        ):
            await socket.send(orjson.dumps(frame).decode())
            pong = (await frames_until(socket, "pong"))[-1]
            assert (pong["data"], pong.get("id")) == ({}, id_)


async def test_4_18_a_draining_instance_says_when_to_come_back_spread_over_time(
    redis_server: RedisServer, prefix: str
) -> None:
    per_second, count = 100, 20
    server = {"reconnects_per_second": per_second}
    limits = {"max_connections": 1000}
    async with (
        talk(redis_server, prefix, server=server, websocket=limits) as each,
        contextlib.AsyncExitStack() as stack,
    ):
        opening = (each.joined(f"acme/{number}") for number in range(count))
        sockets = [await stack.enter_async_context(joined) for joined in opening]
        draining = asyncio.create_task(each.service.service.drain())

        async def farewell(socket: ClientConnection) -> Frame:
            frame = (await frames_until(socket, "reconnect"))[-1]
            assert await close_code(socket) == 1012
            return frame

        told = await asyncio.gather(*map(farewell, sockets))
        await draining
    times = sorted(frame["data"]["after_ms"] for frame in told)
    assert all(frame["data"]["reason"] and "offset" not in frame for frame in told)
    window = math.ceil(1000 / per_second)
    assert all(later - sooner >= window - 1 for sooner, later in itertools.pairwise(times))
    assert times[-1] <= count * 1000 / per_second + window


async def test_4_19_a_client_frame_has_a_type_an_id_and_data_and_nothing_else(
    redis_server: RedisServer, prefix: str
) -> None:
    async with talk(redis_server, prefix) as each, each.joined() as socket:
        await socket.send('{"type":"ping","id":"a","data":{}}')
        assert (await next_frame(socket))["type"] == "pong"
        for wrong in ('{"type":"ping","id":"a","more":1}', '{"type":"ping","id":"a","data":[]}'):
            await socket.send(wrong)
            refused = await next_frame(socket)
            assert (refused["type"], refused["id"]) == ("error", "a")
            assert refused["data"]["code"] == "validation_failed"


async def test_4_20_a_uuid_is_the_key_of_a_message_by_frame_and_by_rest_alike(
    redis_server: RedisServer, prefix: str
) -> None:
    async with talk(redis_server, prefix) as each, each.service.connect() as socket:
        key = str(uuid.uuid4())
        acks = []
        for _ in range(2):
            await say(socket, "chat.send_message", key, agent_id="echo", message="hi")
            acks.append((await frames_until(socket, "ack"))[-1]["data"])
        by_rest = await each.service.send(message="hi", key=key)
        assert acks == [by_rest.json] * 2
        assert by_rest.headers["Idempotent-Replayed"] == "true"
        await say(socket, "chat.send_message", key, agent_id="echo", message="other")
        conflict = (await frames_until(socket, "error"))[-1]
        assert (conflict["id"], conflict["data"]["code"]) == (key, "idempotency_conflict")
        assert len(await each.frames()) == 1


async def test_4_20_without_tokens_there_is_none_to_refresh(
    redis_server: RedisServer, prefix: str
) -> None:
    async with talk(redis_server, prefix) as each, each.service.connect() as socket:
        await say(socket, "auth.refresh", "r", token="t")
        refused = (await frames_until(socket, "error"))[-1]
        assert (refused["id"], refused["data"]["code"]) == ("r", "forbidden")


async def test_4_21_bad_frames_are_answered_until_there_were_too_many_in_a_row(
    redis_server: RedisServer, prefix: str
) -> None:
    bad = (b'{"type":"ping"}', "no JSON", "[1]", '{"type":"chat.unknown"}', "{}")
    async with (
        talk(redis_server, prefix, websocket={"max_bad_frames": 6}) as each,
        each.joined() as socket,
    ):
        for _ in range(2):
            for frame in bad:
                await socket.send(frame)
                assert (await next_frame(socket))["type"] == "error"
            await say(socket, "ping")  # a good one: they are no longer in a row
            assert (await next_frame(socket))["type"] == "pong"
        for frame in (*bad, bad[0]):
            await socket.send(frame)
            assert (await next_frame(socket))["type"] == "error"
        assert await close_code(socket) == 4413


async def test_4_22_commands_that_are_refused_are_not_bad_frames(
    redis_server: RedisServer, prefix: str
) -> None:
    async with (
        talk(redis_server, prefix, websocket={"max_bad_frames": 2}) as each,
        each.joined() as socket,
    ):
        await each.sent(message="keeps the session busy")
        await next_frame(socket)
        key = "k" * 16
        await say(socket, "chat.send_message", key, agent_id="echo", message="a")
        await frames_until(socket, "ack")
        for type_, id_, data, code in (
            ("chat.get_status", "a", {"task_id": str(uuid.uuid4())}, "task_not_found"),
            ("chat.send_message", "b", {"agent_id": "echo"}, "validation_failed"),
            (
                *("chat.send_message", "c"),
                {"agent_id": "echo", "message": "m", "if_busy": "reject"},
                "session_busy",
            ),
            (
                "chat.send_message",
                key,
                {"agent_id": "echo", "message": "b"},
                "idempotency_conflict",
            ),
            ("auth.refresh", "d", {"token": "t"}, "forbidden"),
        ):
            await say(socket, type_, id_, **data)
            refused = (await frames_until(socket, "error"))[-1]
            assert (refused["id"], refused["data"]["code"]) == (id_, code)
        await say(socket, "ping")
        assert (await frames_until(socket, "pong"))[-1]["type"] == "pong"


async def test_4_18_who_is_sent_elsewhere_misses_nothing_there(
    redis_server: RedisServer, prefix: str
) -> None:
    async with talk(redis_server, prefix) as old, talk(redis_server, prefix) as new:
        task = await old.taken()
        await old.executor.stream_answer(task, "before")
        async with old.service.connect(offset=0) as socket:
            ack = await next_frame(socket)
            last = (await frames_until(socket, "agent_delta"))[-1]["offset"]
            draining = asyncio.create_task(old.service.service.drain())
            assert (await frames_until(socket, "reconnect"))[-1]["data"]["after_ms"] >= 0
        await old.executor.report(task, "delta", {"text": "after"})
        await old.executor.complete(task)
        await draining
        epoch = ack["data"]["epoch"]
        async with new.service.connect(epoch=epoch, offset=last) as socket:
            assert (await next_frame(socket))["data"]["recovered"] is True
            frames = await frames_until(socket, "agent_response")
            assert [frame["offset"] for frame in frames] == [last + 1, last + 2]

        async def has_ended() -> bool:
            return str((await new.service.status(task.task_id))["status"]) == "completed"

        assert await until(has_ended)
