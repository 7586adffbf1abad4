"""What an execution service is by section 5 of the contract alone, so that a test decides which
callback arrives when.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import orjson
from redis import exceptions
from redis.asyncio import Redis

from tests.support.client import WITHIN


@dataclass(slots=True)
class TakenTask:
    """An entry of a work stream that the executor has taken, and its newest attempt."""

    stream: str
    entry_id: bytes
    task_id: str
    action: dict[str, Any]
    attempt: int
    seq: int = 0  # of the callback that was added last


class FakeExecutor:
    """An execution service that does nothing by itself: a test takes entries and adds callbacks.

    Knows section 5 of the contract and a plain connection to Redis, nothing of ours.
    """

    GROUP = "agent-execution"

    def __init__(self, redis_url: str, prefix: str, consumer: str = "fake") -> None:
        self.prefix = prefix
        self.consumer = consumer
        self.redis: Any = Redis.from_url(redis_url, protocol=2)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.redis.aclose()

    def stream(self, priority: str) -> str:
        return f"{self.prefix}execute:{priority}"

    async def take(self, within: float = WITHIN) -> TakenTask:
        """The next entry, high before normal before low, its attempt counted."""
        async with asyncio.timeout(within):
            while True:
                for priority in ("high", "normal", "low"):
                    if taken := await self._take_from(self.stream(priority)):
                        return taken
                await asyncio.sleep(0.005)

    async def _take_from(self, stream: str) -> TakenTask | None:
        try:
            found = await self.redis.xreadgroup(self.GROUP, self.consumer, {stream: ">"}, count=1)
        except exceptions.ResponseError as error:
            if "NOGROUP" not in str(error):  # the orchestrator has not made it yet
                raise
            return None
        if not found:
            return None
        ((entry_id, fields),) = found[0][1]
        task_id = fields[b"task_id"].decode()
        return TakenTask(
            stream=stream,
            entry_id=entry_id,
            task_id=task_id,
            action=orjson.loads(fields[b"action"]),
            attempt=await self.count_attempt(task_id),
        )

    async def count_attempt(self, task_id: str) -> int:
        """`INCR` of the attempt counter; for a second attempt of a task, too."""
        key = f"{self.prefix}attempt:{task_id}"
        attempt, _ = await self.redis.pipeline().incr(key).expire(key, 86_400).execute()
        return int(attempt)

    async def report(
        self,
        task: TakenTask,
        type_: str,
        data: Mapping[str, Any] | bytes | None = None,
        *,
        seq: int | None = None,
        attempt: int | None = None,
        **fields: Any,
    ) -> None:
        """Adds a callback, by default with the next `seq`; `fields` replace those of the entry."""
        if seq is None:
            task.seq += 1
        entry = {
            "task_id": task.task_id,
            "tenant_id": task.action["tenant_id"],
            "session_id": task.action["session_id"],
            "attempt": task.attempt if attempt is None else attempt,
            "seq": task.seq if seq is None else seq,
            "type": type_,
            "data": data if isinstance(data, bytes) else orjson.dumps(data or {}),
            **fields,
        }
        await self.add(task, {name: each for name, each in entry.items() if each is not None})

    async def add(self, task: TakenTask, entry: Mapping[str, Any]) -> None:
        """Adds an entry as it is to the stream that the task's callbacks go to."""
        await self.redis.xadd(task.action["callback_stream"], dict(entry))

    async def finish(self, task: TakenTask) -> None:
        """Removes the entry, as a worker does after its terminal callback."""
        await self.redis.xack(task.stream, self.GROUP, task.entry_id)
        await self.redis.xdel(task.stream, task.entry_id)

    async def stream_answer(self, task: TakenTask, *texts: str) -> None:
        """`started` and a delta for each text; the end is the test's."""
        await self.report(task, "started")
        for text in texts:
            await self.report(task, "delta", {"text": text})

    async def complete(self, task: TakenTask, response: str = "done") -> None:
        await self.report(task, "completed", {"response": response})
        await self.finish(task)

    async def push(self, action: Mapping[str, Any] | bytes) -> None:
        """Adds an action to stream `P`+`actions`."""
        text = action if isinstance(action, bytes) else orjson.dumps(action)
        await self.redis.xadd(f"{self.prefix}actions", {"action": text})

    async def dead_letters(self, queue: str) -> list[dict[bytes, bytes]]:
        """Those of `execute` or `callbacks`, the oldest first."""
        return [fields for _, fields in await self.redis.xrange(f"{self.prefix}dead:{queue}")]
