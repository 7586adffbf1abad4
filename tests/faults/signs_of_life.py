"""What tells that a service lives without its Redis, and that everything works again with it."""

import asyncio
import time

from websockets.asyncio.client import ClientConnection

from tests.support.service import Address, FakeExecutor, frames_until, say

REFUSED_WITHIN = 3.0  # seconds: section 6 of the contract
BACK_WITHIN = 5.0
KEY = "8f6f6a53-3f0e-4b0c-9c5a-1d2e3f405162"


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
