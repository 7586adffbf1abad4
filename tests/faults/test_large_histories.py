"""A session whose log is large, or a body that is: nobody else waits while they are read.

What a client may put into one request is bounded; what a session keeps is bounded by number only.
"""

import asyncio
import re
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest
from redis.asyncio import Redis

from common.domain.actions import WebSocketSendAction
from common.domain.ids import SessionId, TenantId
from tests.support.client import Address, next_frame
from tests.support.figures import measured
from tests.support.raw import TEXT, frame, raw_socket, raw_websocket
from tests.support.redis_server import RedisServer
from tests.support.service import RunningProcess, process_service
from tests.support.stores import stores

EVENTS, EACH = 300, 900_000  # in one session, and bytes
SOON = 0.5  # seconds, for another tenant's message; two is when Redis counts as away
SLOW = 0.1  # seconds of Redis's own, in which it serves nobody else
BUSY_MOST = 0.1  # seconds of the loop's own work at a stretch

pytestmark = pytest.mark.alone


async def fill(url: str, prefix: str) -> None:
    """A session of a quarter of a gigabyte: each event is as large as a body may be."""
    async with stores(url, prefix) as each:
        for number in range(EVENTS):
            action = WebSocketSendAction(
                tenant_id=TenantId("acme"),
                session_id=SessionId("fat"),
                message_data={"number": number, "text": "x" * EACH},
                message_type="note",
            )
            await each.log.push(action)


@asynccontextmanager
async def full_service(prefix: str) -> AsyncIterator[RunningProcess]:
    """With such a session; nothing that is asked of Redis then may keep it for long."""
    # A file of that size is not the matter here.
    options = ("--appendonly", "no", "--slowlog-log-slower-than", str(int(SLOW * 1_000_000)))
    with RedisServer(*options) as server:
        await fill(server.url, prefix)
        async with (
            process_service(server.url, prefix) as service,
            Redis.from_url(server.url) as redis,
        ):
            await redis.slowlog_reset()
            yield service
            assert await redis.slowlog_get() == []


async def replayed(service: Address) -> list[int]:
    """The numbers of the session's events, as a WebSocket tells them."""
    async with service.connect("acme/fat", offset=0) as socket:
        ack = await next_frame(socket)
        assert (ack["data"]["recovered"], ack["data"]["replayed"]) == (True, EVENTS)
        frames = [await next_frame(socket) for _ in range(EVENTS)]
        assert [each["offset"] for each in frames] == list(range(1, EVENTS + 1))
        return [each["data"]["number"] for each in frames]


async def paged(service: Address, **query: Any) -> list[int]:
    """The same, as the events endpoint tells them."""
    numbers: list[int] = []
    offset = 0
    while (page := await service.events("acme/fat", offset=offset, limit=1000, **query))["events"]:
        assert page["last_offset"] == EVENTS
        numbers += [each["data"]["number"] for each in page["events"]]
        offset = page["next_offset"]
    return numbers


async def streamed(service: Address) -> list[int]:
    """The same, as server-sent events tell them."""
    numbers: list[int] = []
    async with raw_socket(service.port) as raw:
        head = "GET /api/sessions/acme/fat/events HTTP/1.1\r\nHost: h\r\nAccept: text/event-stream"
        await raw.write(f"{head}\r\n\r\n".encode())
        rest = b""
        while len(numbers) < EVENTS:
            rest += await raw.reader.read(2**20)
            *told, rest = rest.split(b"\n\n")
            numbers += [int(found[1]) for found in map(NUMBER.search, told) if found]
    return numbers


NUMBER = re.compile(rb'"number":(\d+)')


@pytest.mark.parametrize("way", [replayed, paged, streamed], ids=lambda way: way.__name__)
async def test_a_large_history_is_told_to_its_end_and_nobody_else_waits(
    prefix: str, way: Any
) -> None:
    async with full_service(prefix) as service:
        waits: list[float] = []
        reading = asyncio.ensure_future(way(service))
        try:
            while not reading.done():
                said = time.monotonic()
                assert (await service.send("globex/s", if_busy="parallel")).status == 202
                waits.append(time.monotonic() - said)
                await asyncio.sleep(0.02)
            assert await reading == list(range(EVENTS))
        finally:
            reading.cancel()
        measured(f"a message beside a large history that is {way.__name__}", max(waits), "s")
        measured("the same, median", statistics.median(waits), "s")
        assert max(waits) < SOON


async def test_a_large_history_may_be_read_with_deltas_joined(prefix: str) -> None:
    async with full_service(prefix) as service:
        assert await paged(service, compact=1) == list(range(EVENTS))


def bodies() -> list[tuple[str, bytes]]:
    """Each is as large as a body may be, and made of as much as fits into it."""
    send = {"tenant_id": "acme", "session_id": "s", "agent_id": "echo", "message": "m"}
    push = {"tenant_id": "acme", "message_data": {}}

    def with_field(body: dict[str, Any], field: str, text: bytes) -> bytes:
        return orjson.dumps(body)[:-1] + b',"%b":%b}' % (field.encode(), text)

    unknown = {f"u{number}": 1 for number in range(90_000)}
    return [
        ("/api/ws/broadcast", with_field(push, "target_sessions", b"[1%b]" % (b",1" * 520_000))),
        (
            "/api/ws/broadcast",
            with_field(push, "target_sessions", b'["x"%b]' % (b',"x"' * 250_000)),
        ),
        ("/api/chat/send", orjson.dumps({**send, **unknown})),
        ("/api/chat/send", with_field(send, "context", b'{"a":[[]%b]}' % (b",[]" * 330_000))),
        ("/api/chat/send", with_field(send, "context", b'{"a":[{}%b]}' % (b",{}" * 330_000))),
        ("/api/chat/send", with_field(send, "context", orjson.dumps(unknown))),
    ]


async def busy_most(service: Address) -> float:
    """Seconds for which the loop was late by its own work, at the worst."""
    text = (await service.get("/metrics")).body.decode()
    (told,) = re.findall(r"^orchestrator_loop_busy_max_seconds (\S+)$", text, re.MULTILINE)
    return float(told)


async def test_bodies_made_to_keep_the_loop_busy_are_refused_before_they_do(
    redis_server: RedisServer, prefix: str
) -> None:
    async with process_service(redis_server.url, prefix) as service:
        before = await busy_most(service)
        for path, body in bodies():
            for key in ({}, {"Idempotency_Key": "a-key-of-its-sender"}):
                answer = await service.post(path, body, **key)
                assert (answer.status, answer.code) == (422, "validation_failed")
                assert len(answer.body) < 10_000
        async with raw_websocket(service.port, "/ws/acme/s") as raw:
            unknown = {f"u{number}": 1 for number in range(20_000)}
            asked: list[dict[str, Any]] = [
                {"type": "chat.send_message", "data": {"agent_id": "a", "message": "m", **unknown}},
                {"type": "ping", **unknown},
                {"type": "auth.refresh", "data": unknown},
            ]
            for each in asked:
                await raw.write(frame(TEXT, orjson.dumps(each)))
                told = orjson.loads((await raw.frame()).payload)
                assert told["type"] == "error"
                assert len(orjson.dumps(told)) < 10_000
        after = await busy_most(service)
        measured("the loop's longest work, with bodies made for it", after * 1000, "ms")
        assert after < max(before, BUSY_MOST)
