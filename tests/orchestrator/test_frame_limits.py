"""Frames of one connection: who sends more than it may is closed, and nobody else."""

import asyncio
from functools import partial

import orjson
import pytest

from orchestrator.token_bucket import TokenBucket
from tests.support.client import frames_until, next_frame, say
from tests.support.raw import CLOSE, CONTINUATION, PING, PONG, TEXT, RawSocket, frame, raw_websocket
from tests.support.redis_server import RedisServer
from tests.support.service import running_service

LIMIT = 3  # a second: a third of one for the next
OURS = orjson.dumps({"type": "ping", "id": "p"})


async def send_at_once(raw: RawSocket, count: int, opcode: int = TEXT) -> None:
    payload = OURS if opcode == TEXT else b""
    is_final = opcode != CONTINUATION
    await raw.write(frame(opcode, payload, is_final=is_final) * count)


@pytest.mark.parametrize("count", [LIMIT - 1, LIMIT])
async def test_a_seconds_worth_of_frames_may_come_at_once(
    redis_server: RedisServer, prefix: str, count: int
) -> None:
    limits = {"max_frames_per_second": LIMIT}
    async with (
        running_service(redis_server.url, prefix, websocket=limits) as service,
        raw_websocket(service.port, "/ws/acme/s") as raw,
    ):
        await send_at_once(raw, count)
        for _ in range(count):
            assert orjson.loads((await raw.frame()).payload)["type"] == "pong"
        assert raw.is_open()


@pytest.mark.parametrize("opcode", [TEXT, PING, PONG, CONTINUATION])
async def test_one_frame_more_closes_the_connection_whatever_kind_it_is(
    redis_server: RedisServer, prefix: str, monkeypatch: pytest.MonkeyPatch, opcode: int
) -> None:
    standing = partial(TokenBucket, clock=lambda: 0.0)  # however long this takes, it is at once
    monkeypatch.setattr("orchestrator.socket.TokenBucket", standing)
    limits = {"max_frames_per_second": LIMIT}
    async with (
        running_service(redis_server.url, prefix, websocket=limits) as service,
        raw_websocket(service.port, "/ws/acme/s") as raw,
    ):
        if opcode == CONTINUATION:
            await raw.write(frame(TEXT, b"", is_final=False))
        await send_at_once(raw, LIMIT + (opcode != CONTINUATION), opcode)
        assert (await raw.frame_of(CLOSE)).close_code == 4429
        assert await raw.ended()


async def test_a_flood_closes_its_own_connection_and_no_other(
    redis_server: RedisServer, prefix: str
) -> None:
    async with (
        running_service(redis_server.url, prefix) as service,
        service.connect("acme/s") as other,
        raw_websocket(service.port, "/ws/acme/s") as loud,
    ):
        await next_frame(other)
        # Read while it is sent: the close is soon followed by the end of the connection.
        close, _ = await asyncio.gather(loud.frame_of(CLOSE), send_at_once(loud, 20_000))
        assert close.close_code == 4429
        assert await loud.ended()
        await say(other, "ping", "still-here")
        assert (await frames_until(other, "pong"))[-1]["id"] == "still-here"
        assert (await service.get("/ws/stats")).json["instance"]["slow_consumers_closed"] == 0
