"""What tells that a service lives without its Redis, and that everything works again with it."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis
from websockets.asyncio.client import ClientConnection

from tests.support.client import Address, frames_until, next_frame, say
from tests.support.fake_executor import FakeExecutor, TakenTask
from tests.support.proxy import Proxy
from tests.support.redis_server import RedisServer
from tests.support.service import Running, running_service

REFUSED_WITHIN = 3.0  # seconds: section 6 of the contract
BACK_WITHIN = 5.0
KEY = "8f6f6a53-3f0e-4b0c-9c5a-1d2e3f405162"


@contextlib.asynccontextmanager
async def through_a_proxy(
    redis_server: RedisServer, prefix: str
) -> AsyncIterator[tuple[Proxy, Running, FakeExecutor]]:
    """A service that reaches Redis through a proxy, and an executor that reaches it by itself."""
    async with (
        Proxy(redis_server.port) as proxy,
        running_service(proxy.url, prefix) as service,
        FakeExecutor(redis_server.url, prefix) as executor,
    ):
        yield proxy, service, executor


@dataclass(frozen=True, slots=True)
class Life:
    """A Redis of the test's own, and those who live on it."""

    server: RedisServer
    redis: Any  # a client of the test's; replies are text
    service: Running
    executor: FakeExecutor
    socket: ClientConnection

    async def is_half_told(self, text: str) -> TakenTask:
        """The task of a message whose answer the client has up to the end of this text."""
        await self.service.send()
        task = await self.executor.take()
        await self.executor.stream_answer(task, text)
        await frames_until(self.socket, "agent_delta")
        return task

    async def goes_on(self) -> None:
        await goes_on(self.service, self.executor, self.socket)


@contextlib.asynccontextmanager
async def life(prefix: str, *options: str) -> AsyncIterator[Life]:
    """With a Redis that is started with these options, and a client that is connected."""
    with RedisServer(*options) as server:
        async with (
            running_service(server.url, prefix) as service,
            FakeExecutor(server.url, prefix) as executor,
            Redis.from_url(server.url, decode_responses=True) as redis,
            service.connect() as socket,
        ):
            await next_frame(socket)
            yield Life(server, redis, service, executor, socket)


async def is_refused(service: Address, code: str = "redis_unavailable") -> None:
    """A message is, in time, and with word of when to come again."""
    asked = time.monotonic()
    answer = await service.send(key=KEY)
    assert time.monotonic() - asked < REFUSED_WITHIN
    assert (answer.status, answer.code) == (503, code)
    assert int(answer.headers["Retry-After"]) >= 1


async def is_alive(socket: ClientConnection) -> None:
    """A connection is answered, whatever Redis does."""
    await say(socket, "ping", "p-1")
    await frames_until(socket, "pong")


async def goes_on(
    service: Address, executor: FakeExecutor, socket: ClientConnection, within: float = BACK_WITHIN
) -> float:
    """Everything works again: a message is taken, run, and told on the old connection."""
    begun = time.monotonic()
    async with asyncio.timeout(within + 10):
        while (answer := await service.send(key=KEY)).status != 202:
            await asyncio.sleep(0.05)
        while (task := await executor.take()).task_id != answer.json["task_id"]:
            pass
        await executor.stream_answer(task, "back")
        await executor.complete(task, "back")
        while (await frames_until(socket, "agent_response"))[-1]["task_id"] != task.task_id:
            pass
    took = time.monotonic() - begun
    assert took < within
    return took


async def restarts(service: Address) -> int:
    """How many actors had to be restarted."""
    answer = await service.get("/health/detailed")
    count: int = answer.json["components"]["actors"]["restarts"]
    return count
