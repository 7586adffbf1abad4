"""An open WebSocket: what it is told, how it ends, how it resumes (section 4)."""

import asyncio
import contextlib
import signal
import uuid
from typing import Any

import pytest

from common.domain.events import encode_entry
from tests.support.client import WITHIN, close_code, frames_until, next_frame, say
from tests.support.fake_executor import FakeExecutor
from tests.support.raw import CLOSE, TEXT, raw_websocket
from tests.support.redis_server import RedisServer
from tests.support.service import RunningProcess, process_service, running_service

# The way out


async def test_typing_is_told_and_not_kept(redis_server: RedisServer, prefix: str) -> None:
    async with (
        running_service(redis_server.url, prefix) as service,
        FakeExecutor(redis_server.url, prefix) as executor,
        service.connect("acme/s") as socket,
    ):
        await service.send("acme/s")
        task = await executor.take()
        await executor.report(task, "started")
        await executor.report(task, "typing")
        typing = (await frames_until(socket, "typing_indicator"))[-1]
        await executor.complete(task)
        await frames_until(socket, "agent_response")
        assert "offset" not in typing
        assert typing["data"] == {"agent_id": "echo"}
        kept = (await service.events("acme/s"))["events"]
        assert [event["type"] for event in kept] == [
            "user_message",
            "task_update",
            "agent_response",
        ]


async def test_a_slow_reader_is_closed_and_the_other_tab_hears_all(
    redis_server: RedisServer, prefix: str
) -> None:
    small = {"send_buffer_bytes": 20_000}
    async with (
        running_service(redis_server.url, prefix, websocket=small) as service,
        raw_websocket(service.port, "/ws/acme/s", receive_buffer=4096) as slow,
    ):
        async with service.connect("acme/s") as quick:
            await next_frame(quick)
            frames = []
            for i in range(60):
                await push(service, "acme", "s", {"text": "x" * 100_000, "n": i})
                frames.append(await next_frame(quick))  # it keeps up, or it were slow as well
            assert [frame["data"]["n"] for frame in frames] == list(range(60))
            assert [frame["offset"] for frame in frames] == list(range(1, 61))
        stats = (await service.get("/ws/stats")).json["instance"]
        assert stats["slow_consumers_closed"] >= 1
        # What was on its way still comes, then the close; or the connection is just cut.
        last = None
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while last is None or last.opcode != CLOSE:
                last = await slow.frame()
        assert last is not None
        assert last.opcode == TEXT or last.close_code == 4008


async def test_a_single_large_frame_is_not_slowness(redis_server: RedisServer, prefix: str) -> None:
    small = {"send_buffer_bytes": 1024}
    async with (
        running_service(redis_server.url, prefix, websocket=small) as service,
        service.connect("acme/s") as socket,
    ):
        await next_frame(socket)
        await push(service, "acme", "s", {"text": "x" * 900_000})
        assert len((await next_frame(socket))["data"]["text"]) == 900_000


async def push(service: Any, tenant: str, session: str, data: dict[str, Any]) -> None:
    body = {"tenant_id": tenant, "session_id": session, "message_data": data}
    assert (await service.post("/api/ws/send", body)).status == 202


# Ends


@pytest.mark.parametrize(("signal_", "code"), [("SIGTERM", 1012), ("SIGINT", 1001)])
async def test_an_instance_that_stops_says_so(
    redis_server: RedisServer, prefix: str, signal_: str, code: int
) -> None:
    async with process_service(redis_server.url, prefix) as service:
        async with service.connect("acme/s") as one, service.connect("acme/t") as other:
            for socket in (one, other):
                await next_frame(socket)  # let in for good; before that it would be refused
            service.send_signal(signal.Signals[signal_])
            assert await close_code(one) == code
            assert await close_code(other) == code
        assert await service.exited() == 0
        assert "Traceback" not in service.log


async def test_a_log_that_began_anew_is_told_with_4410(prefix: str) -> None:
    with RedisServer() as server:
        async with (
            running_service(server.url, prefix) as service,
            FakeExecutor(server.url, prefix) as fake,
            service.connect("acme/s") as socket,
        ):
            await next_frame(socket)
            await push(service, "acme", "s", {"n": 1})
            assert (await next_frame(socket))["offset"] == 1
            await fake.redis.delete(*await fake.redis.keys(f"{prefix}session:*"))
            await push(service, "acme", "s", {"n": 2})
            assert await close_code(socket) == 4410


async def test_a_mistake_of_ours_closes_with_4500_and_nobody_else(
    redis_server: RedisServer, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        running_service(redis_server.url, prefix) as service,
        service.connect("acme/s") as one,
        service.connect("acme/t") as other,
    ):
        for socket in (one, other):
            await next_frame(socket)

        def fail(*_: object) -> None:
            raise RuntimeError("injected")

        with monkeypatch.context() as patched:
            patched.setattr("orchestrator.socket.read_frame", fail)
            await say(one, "ping")
            assert await close_code(one) == 4500
        await say(other, "ping")
        assert (await next_frame(other))["type"] == "pong"


async def test_what_cannot_be_encoded_for_one_session_is_no_news_to_another(
    instance: RunningProcess, tenant: str
) -> None:
    entry = encode_entry("x", b"{}", "now")
    assert entry.endswith(b"}")
    async with instance.connect(f"{tenant}/a") as one, instance.connect(f"{tenant}/b") as other:
        for socket in (one, other):
            await next_frame(socket)
        await push(instance, tenant, "a", {"for": "a"})
        await push(instance, tenant, "b", {"for": "b"})
        assert (await next_frame(one))["data"] == {"for": "a"}
        assert (await next_frame(other))["data"] == {"for": "b"}


# Resume


async def test_the_table_of_resuming(instance: RunningProcess, tenant: str) -> None:
    session = f"{tenant}/s"
    async with instance.connect(session) as socket:
        epoch = (await next_frame(socket))["data"]["epoch"]
    for i in range(5):
        await push(instance, tenant, "s", {"n": i})
    for query, recovered, first in (
        ({}, False, None),
        ({"epoch": epoch, "offset": 0}, True, 1),
        ({"epoch": epoch, "offset": 3}, True, 4),
        ({"epoch": epoch, "offset": 5}, True, None),
        ({"epoch": epoch, "offset": 6}, False, None),
        ({"epoch": epoch, "offset": 2**53 - 1}, False, None),
        ({"epoch": str(uuid.uuid4()), "offset": 3}, False, None),
        ({"offset": 0}, True, 1),
    ):
        async with instance.connect(session, **query) as socket:
            data = (await next_frame(socket))["data"]
            expected = [] if first is None else list(range(first, 6))
            assert (data["recovered"], data["offset"]) == (recovered, 5), query
            assert data["replayed"] == len(expected)
            await say(socket, "ping")
            frames = await frames_until(socket, "pong")
            assert [frame["offset"] for frame in frames[:-1]] == expected


async def test_a_log_trimmed_past_the_offset_is_not_recovered(
    redis_server: RedisServer, prefix: str
) -> None:
    async with running_service(redis_server.url, prefix, sessions={"max_events": 3}) as service:
        async with service.connect("acme/s") as socket:
            epoch = (await next_frame(socket))["data"]["epoch"]
            for i in range(5):
                await push(service, "acme", "s", {"n": i})
        async with service.connect("acme/s", epoch=epoch, offset=1) as socket:
            assert (await next_frame(socket))["data"]["recovered"] is False
        async with service.connect("acme/s", epoch=epoch, offset=2) as socket:
            assert (await next_frame(socket))["data"]["recovered"] is True
            assert [(await next_frame(socket))["offset"] for _ in range(3)] == [3, 4, 5]
        async with service.connect("acme/s", offset=0) as socket:
            data = (await next_frame(socket))["data"]
            assert (data["recovered"], data["replayed"]) == (False, 3)


async def test_joining_in_the_middle_of_a_long_answer_costs_few_frames(
    redis_server: RedisServer, prefix: str
) -> None:
    async with (
        running_service(redis_server.url, prefix) as service,
        FakeExecutor(redis_server.url, prefix) as executor,
    ):
        await service.send("acme/s")
        task = await executor.take()
        await executor.stream_answer(task, *(f"w{i} " for i in range(1500)))
        async with asyncio.timeout(WITHIN):
            while (await service.events("acme/s"))["last_offset"] < 1502:
                await asyncio.sleep(0.05)
        async with service.connect("acme/s", offset=0, compact=1) as socket:
            await next_frame(socket)
            frames = [await next_frame(socket) for _ in range(3)]
            assert [frame["type"] for frame in frames] == [
                "user_message",
                "task_update",
                "agent_delta",
            ]
            assert (frames[2]["from_offset"], frames[2]["offset"]) == (3, 1502)
            assert frames[2]["data"]["text"] == "".join(f"w{i} " for i in range(1500))
            await executor.complete(task)
            assert (await next_frame(socket))["offset"] == 1503
