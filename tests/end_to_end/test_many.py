"""A thousand who only listen and two hundred who are streamed to: no warning, nothing lost."""

import asyncio
import contextlib
import resource
from collections.abc import AsyncIterator

import orjson
import pytest
from websockets.asyncio.client import ClientConnection

from tests.support.client import next_frame
from tests.support.fake_executor import FakeExecutor
from tests.support.redis_server import RedisServer
from tests.support.service import RunningProcess, process_service

pytestmark = pytest.mark.alone

IDLE, STREAMING, DELTAS = 1000, 200, 40
AT_ONCE = 50  # handshakes


@contextlib.asynccontextmanager
async def many(service: RunningProcess, names: list[str]) -> AsyncIterator[list[ClientConnection]]:
    """Connections of as many sessions, each with its acknowledgement read."""
    gate = asyncio.Semaphore(AT_ONCE)
    async with contextlib.AsyncExitStack() as stack:

        async def enter(name: str) -> ClientConnection:
            async with gate:
                socket = await stack.enter_async_context(service.connect(name))
                await next_frame(socket)
                return socket

        yield list(await asyncio.gather(*map(enter, names)))


async def streamed(socket: ClientConnection) -> str:
    """All text up to the end, its offsets without a hole."""
    text, expected = "", 1
    while True:
        frame = await next_frame(socket)
        assert frame["offset"] == expected
        expected += 1
        if frame["type"] == "agent_delta":
            text += frame["data"]["text"]
        if frame["type"] == "agent_response":
            return text


async def test_1000_idle_and_200_streaming_sessions_make_no_warning(
    redis_server: RedisServer, prefix: str
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, 4096), hard), hard))
    idle = [f"acme/idle-{i}" for i in range(IDLE)]
    busy = [f"acme/busy-{i}" for i in range(STREAMING)]
    async with (
        process_service(redis_server.url, prefix) as service,
        FakeExecutor(redis_server.url, prefix) as executor,
        many(service, idle) as listeners,
        many(service, busy) as talkers,
    ):
        stats = (await service.get("/ws/stats")).json["instance"]
        assert stats["connections"] == IDLE + STREAMING
        answers = [asyncio.create_task(streamed(socket)) for socket in talkers]
        for name in busy:
            assert (await service.send(name)).status == 202
        tasks = [await executor.take() for _ in busy]
        for task in tasks:
            await executor.report(task, "started")
        for number in range(DELTAS):
            pipeline = executor.redis.pipeline(transaction=False)
            for task in tasks:
                task.seq += 1
                fields = {
                    "task_id": task.task_id,
                    "tenant_id": "acme",
                    "session_id": task.action["session_id"],
                    "attempt": 1,
                    "seq": task.seq,
                    "type": "delta",
                    "data": orjson.dumps({"text": f"{number} "}),
                }
                pipeline.xadd(task.action["callback_stream"], fields)
            await pipeline.execute()
        for task in tasks:
            await executor.complete(task)
        whole = "".join(f"{number} " for number in range(DELTAS))
        async with asyncio.timeout(30):
            assert set(await asyncio.gather(*answers)) == {whole}
        assert (
            await service.post("/api/ws/broadcast", {"tenant_id": "acme", "message_data": {"n": 1}})
        ).status == 202
        async with asyncio.timeout(15):
            for socket in (*listeners, *talkers):
                assert (await next_frame(socket))["data"] == {"n": 1}
        lines = [orjson.loads(line) for line in service.log.splitlines()]
        warnings = [line for line in lines if line["level"] != "info"]
        # How late the loop was is the machine's matter, which others may use, too.
        assert [line for line in warnings if line["event"] != "loop.stalled"] == []
