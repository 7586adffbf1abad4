"""The service as a whole: it starts, serves with others, stops, and leaves nothing behind."""

import asyncio
import socket
import threading
from typing import Any

from orchestrator.app import Phase
from tests.support.client import WITHIN, frames_until, next_frame
from tests.support.fake_executor import FakeExecutor
from tests.support.follower import eventually
from tests.support.redis_server import RedisServer
from tests.support.service import process_service, running_service


async def test_a_client_of_one_instance_sees_what_is_sent_through_another(
    redis_server: RedisServer, prefix: str
) -> None:
    async with (
        running_service(redis_server.url, prefix) as one,
        running_service(redis_server.url, prefix) as other,
        FakeExecutor(redis_server.url, prefix) as executor,
        one.connect("acme/s") as here,
        other.connect("acme/s") as there,
    ):
        for client in (here, there):
            await next_frame(client)
        await one.send("acme/s")
        task = await executor.take()
        await executor.stream_answer(task, *"abcdef")
        await executor.complete(task, "abcdef")
        frames = await frames_until(here, "agent_response")
        assert await frames_until(there, "agent_response") == frames
        assert [frame["offset"] for frame in frames] == list(range(1, 10))


async def test_it_is_ready_only_once_redis_answers(prefix: str) -> None:
    server = RedisServer()
    async with process_service(server.url, prefix, is_ready=False) as service:
        async with asyncio.timeout(WITHIN):
            while True:
                try:
                    assert (await service.get("/health")).status == 200
                    break
                except OSError:
                    await asyncio.sleep(0.05)
        assert (await service.get("/health/ready")).status == 503
        assert (await service.send()).status == 503
        with server:
            await service.ready()
            assert (await service.send()).status == 202


async def test_nothing_is_left_after_a_stop(redis_server: RedisServer, prefix: str) -> None:
    async with running_service(redis_server.url, prefix) as service:
        await service.send()
    before, threads = asyncio.all_tasks(), set(threads_of_ours())
    async with running_service(redis_server.url, prefix) as service:
        async with service.connect("acme/s") as client:
            await next_frame(client)
        await service.send()
        port = service.port
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0
    await eventually(lambda: not tasks_since(before))
    assert set(threads_of_ours()) <= threads


def tasks_since(before: set["asyncio.Task[Any]"]) -> set["asyncio.Task[Any]"]:
    """But for those of the clients' library."""
    return {task for task in asyncio.all_tasks() - before if "websockets" not in repr(task)}


def threads_of_ours() -> list[threading.Thread]:
    """But for those in which the loop looks up names: it has more or fewer as it pleases."""
    return [each for each in threading.enumerate() if not each.name.startswith("asyncio_")]


async def test_a_service_that_is_given_up_says_so(redis_server: RedisServer, prefix: str) -> None:
    async with running_service(redis_server.url, prefix) as service:
        service.service._escalate("an actor failed too often")
        assert await service.service.failed == "an actor failed too often"
        assert service.service.app.phase is Phase.FAILED
        assert (await service.get("/health/ready")).status == 503
        assert (await service.send()).status == 503
