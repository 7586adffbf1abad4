"""Everybody comes back at once (FAULTS N3; issue: 2000 clients, all caught up within 10 s)."""

import asyncio
import contextlib
import random
import resource
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
import pytest
from redis.asyncio import Redis

from tests.support.figures import measured
from tests.support.raw import UPGRADE
from tests.support.redis_server import RedisServer
from tests.support.service import process_service

pytestmark = pytest.mark.alone

CLIENTS = 2000
SESSIONS = 100
CAUGHT_UP = 10.0  # seconds
KNOWN, MISSED = 4, 6  # events of each session
TEXT = 0x81


class Refused(Exception):
    """By HTTP, or closed: come back."""


@dataclass
class Client:
    """As lean as can be: what it costs is to be the service's cost, not the test's."""

    session: str
    epoch: str = ""
    offset: int = 0
    writer: asyncio.StreamWriter | None = None
    refused: int = 0

    async def catch_up(self, port: int, until: int) -> None:
        """Comes back until it has that offset."""
        while self.offset < until:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, Refused):
                await self._connect(port, until)
                return
            self.cut()
            self.refused += 1
            await asyncio.sleep(random.uniform(0.1, 0.5))

    async def _connect(self, port: int, until: int) -> None:
        known = f"epoch={self.epoch}&offset={self.offset}" if self.epoch else "offset=0"
        reader, self.writer = await asyncio.open_connection("127.0.0.1", port)
        head = "\r\n".join((f"GET /ws/{self.session}?{known} HTTP/1.1", "Host: a", *UPGRADE))
        self.writer.write(f"{head}\r\n\r\n".encode())
        answer = await reader.readuntil(b"\r\n\r\n")
        if not answer.startswith(b"HTTP/1.1 101"):
            raise Refused(answer)
        ack = await self._frame(reader)
        assert ack["data"]["recovered"], ack
        self.epoch = ack["data"]["epoch"]
        while self.offset < until:
            frame = await self._frame(reader)
            assert frame["offset"] == self.offset + 1, "a hole, or one twice"
            self.offset += 1

    async def _frame(self, reader: asyncio.StreamReader) -> Any:
        first, length = await reader.readexactly(2)
        if length == 126:
            length = int.from_bytes(await reader.readexactly(2))
        payload = await reader.readexactly(length)
        if first != TEXT:
            raise Refused(payload)
        return orjson.loads(payload)

    def cut(self) -> None:
        if self.writer is not None:
            self.writer.transport.abort()


@contextlib.contextmanager
def room_for_sockets() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 8192)), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def push(redis: Redis, prefix: str, count: int) -> None:
    """So many events for each session, by the queue of other services."""
    pipeline = redis.pipeline(transaction=False)
    for number in range(SESSIONS * count):
        action = {
            "action_id": str(uuid.uuid4()),
            "action_type": "websocket.send_message",
            "tenant_id": "acme",
            "session_id": f"s-{number % SESSIONS}",
            "message_data": {"text": f"event {number}"},
        }
        pipeline.xadd(f"{prefix}actions", {"action": orjson.dumps(action)})
    await pipeline.execute()


async def test_two_thousand_clients_that_come_back_at_once_are_caught_up_within_ten_seconds(
    redis_server: RedisServer, prefix: str
) -> None:
    clients = [Client(f"acme/s-{number % SESSIONS}") for number in range(CLIENTS)]
    with room_for_sockets():
        async with (
            process_service(redis_server.url, prefix) as service,
            Redis.from_url(redis_server.url) as redis,
        ):
            try:
                await push(redis, prefix, KNOWN)
                for begin in range(0, CLIENTS, 100):
                    await connect_all(clients[begin : begin + 100], service.port, KNOWN)
                for each in clients:
                    each.cut()
                await push(redis, prefix, MISSED)
                begun = time.monotonic()
                await connect_all(clients, service.port, KNOWN + MISSED)
                took = time.monotonic() - begun
            finally:
                for each in clients:
                    each.cut()
    measured("2000 clients that came back at once are caught up", took, "s")
    measured("refused on the way", sum(each.refused for each in clients), "times")
    assert took < CAUGHT_UP


async def connect_all(clients: Sequence[Client], port: int, until: int) -> None:
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        for each in clients:
            group.create_task(each.catch_up(port, until))
