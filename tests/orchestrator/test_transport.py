"""Frames of one loop turn leave in one write; the backlog is known to the byte."""

import asyncio
from collections.abc import Callable

import pytest
from tornado.iostream import BaseIOStream

from orchestrator.transport import _header
from tests.support.client import next_frame, say
from tests.support.redis_server import RedisServer
from tests.support.service import running_service


@pytest.mark.parametrize(
    ("length", "header"),
    [
        (0, b"\x81\x00"),
        (125, b"\x81\x7d"),
        (126, b"\x81\x7e\x00\x7e"),
        (65_535, b"\x81\x7e\xff\xff"),
        (65_536, b"\x81\x7f\x00\x00\x00\x00\x00\x01\x00\x00"),
    ],
)
def test_a_header_tells_the_length_in_the_fewest_bytes(length: int, header: bytes) -> None:
    assert _header(0x81, length) == header


async def test_what_is_told_in_one_turn_is_one_write(
    redis_server: RedisServer, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes: list[int] = []
    write: Callable[..., asyncio.Future[None]] = BaseIOStream.write

    def counted(stream: BaseIOStream, data: bytes) -> "asyncio.Future[None]":
        writes.append(len(data))
        return write(stream, data)

    async with running_service(redis_server.url, prefix) as service:
        async with service.connect("acme/s") as socket:
            await next_frame(socket)
            for number in range(50):
                body = {"tenant_id": "acme", "session_id": "s", "message_data": {"n": number}}
                await service.post("/api/ws/send", body)
                await next_frame(socket)
        async with service.connect("acme/s", offset=0) as socket:
            await next_frame(socket)
            for _ in range(50):
                await next_frame(socket)
            monkeypatch.setattr(BaseIOStream, "write", counted)
            for number in range(30):
                await say(socket, "ping", str(number))
            for number in range(30):
                assert (await next_frame(socket))["id"] == str(number)
            assert len(writes) < 30
        writes.clear()
        async with service.connect("acme/s", offset=0) as socket:
            for _ in range(51):
                await next_frame(socket)
            # The handshake's answer, the acknowledgement, and the whole replay.
            assert len(writes) <= 4
