"""The contract from outside: an orchestrator, and an executor that does what a test tells it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any, TypeVar

import orjson
from redis import exceptions
from websockets.asyncio.client import ClientConnection

from tests.support.client import Address, Frame, next_frame
from tests.support.fake_executor import FakeExecutor, TakenTask
from tests.support.redis_server import RedisServer
from tests.support.service import Running, running_service

WITHIN = 20.0  # seconds; what should happen happens in a fraction of one
PRIORITIES = ("high", "normal", "low")

Value = TypeVar("Value")


async def until(look: Callable[[], Awaitable[Value | None]], within: float = WITHIN) -> Value:
    """What `look` returns, once it is something."""
    async with asyncio.timeout(within):
        while not (found := await look()):
            await asyncio.sleep(0.01)
    return found


class Talk:
    """A service (perhaps one of several), the executor beside it, and the moves of a test."""

    def __init__(self, service: Running, executor: FakeExecutor, redis_url: str) -> None:
        self.service = service
        self.executor = executor
        self.redis: Any = executor.redis
        self.redis_url = redis_url
        self.prefix = executor.prefix

    async def sent(self, session: str = "acme/s-1", **fields: Any) -> str:
        """A message that was taken: its task's id."""
        answer = await self.service.send(session, **fields)
        assert answer.status == 202, answer
        task_id: str = answer.json["task_id"]
        return task_id

    async def taken(self, session: str = "acme/s-1", **fields: Any) -> TakenTask:
        """A message that was taken, by us and by the executor."""
        task_id = await self.sent(session, **fields)
        task = await self.executor.take()
        assert task.task_id == task_id
        return task

    async def started(self, session: str = "acme/s-1", **fields: Any) -> TakenTask:
        """The same, and it runs."""
        task = await self.taken(session, **fields)
        await self.executor.report(task, "started")
        await self.handled(task)
        return task

    async def add_deltas(self, task: TakenTask, seqs: Iterable[int], data: bytes) -> None:
        """Adds many deltas of its first attempt at once, and waits until they are handled."""
        async with self.redis.pipeline(transaction=False) as pipeline:
            for seq in seqs:
                pipeline.xadd(
                    task.action["callback_stream"],
                    {
                        "task_id": task.task_id,
                        "tenant_id": task.action["tenant_id"],
                        "session_id": task.action["session_id"],
                        "attempt": 1,
                        "seq": seq,
                        "type": "delta",
                        "data": data,
                    },
                )
            await pipeline.execute()
        await self.handled(task)

    async def handled(self, task: TakenTask) -> None:
        """Returns once no callback waits to be handled: the stream is empty."""

        async def is_empty() -> bool:
            return not await self.redis.xlen(task.action["callback_stream"])

        await until(is_empty)

    async def told(self, session: str = "acme/s-1") -> list[tuple[str, Any]]:
        """Types and data of the session's events, without `user_message`."""
        return [
            (frame["type"], frame["data"])
            for frame in await self.frames(session)
            if frame["type"] != "user_message"
        ]

    async def frames(self, session: str = "acme/s-1") -> list[Frame]:
        """The session's events."""
        frames: list[Frame] = (await self.service.events(session, limit=1000))["events"]
        return frames

    async def ends(self, task: TakenTask) -> list[Frame]:
        """The events that tell of a task's end."""
        session = f"{task.action['tenant_id']}/{task.action['session_id']}"
        return [
            frame
            for frame in await self.frames(session)
            if frame.get("task_id") == task.task_id and is_end(frame)
        ]

    async def is_pending(self, task: TakenTask) -> bool:
        """Whether the task's entry is still in its work stream."""
        return bool(await self.redis.xrange(task.stream, task.entry_id, task.entry_id))

    async def is_gone(self, task: TakenTask) -> bool:
        """Whether its work stream and the group of workers know nothing of the task's entry."""
        entry = (task.entry_id, task.entry_id)
        pending = await self.redis.xpending_range(task.stream, self.executor.GROUP, *entry, 1)
        return not pending and not await self.is_pending(task)

    async def cancel(self, task_id: str, reason: str | None = None) -> tuple[int, str]:
        """The answer's status, and the task's (or the problem's code)."""
        asked = {"tenant_id": "acme", "task_id": task_id}
        answer = await self.service.post(
            "/api/chat/cancel", asked if reason is None else {**asked, "reason": reason}
        )
        return answer.status, answer.json["status"] if answer.status < 400 else answer.code

    async def now_ms(self) -> int:
        """By Redis's clock, which is the one that counts."""
        seconds, micros = await self.redis.time()
        return int(seconds) * 1000 + int(micros) // 1000

    @contextlib.asynccontextmanager
    async def joined(
        self, session: str = "acme/s-1", **query: Any
    ) -> AsyncIterator[ClientConnection]:
        """A connection that has its acknowledgement: it is told of all that happens from now on.

        Before that it may miss what the test does meanwhile: it joins on its own time.
        """
        async with self.service.connect(session, **query) as socket:
            assert (await next_frame(socket))["type"] == "connection_ack"
            yield socket

    @contextlib.asynccontextmanager
    async def control(self) -> AsyncIterator[Callable[[], Awaitable[Any]]]:
        """Listens on `P`+`control`; what is yielded awaits the next message."""
        async with self.redis.pubsub() as channel:
            await channel.subscribe(f"{self.prefix}control")
            await channel.get_message(timeout=WITHIN)

            async def heard() -> Any:
                message = await until(
                    lambda: channel.get_message(ignore_subscribe_messages=True, timeout=1.0)
                )
                return orjson.loads(message["data"])

            yield heard


def is_end(frame: Frame) -> bool:
    """Whether an event tells that a task has ended."""
    if frame["type"] == "task_update":
        return bool(frame["data"]["status"] == "cancelled")
    return frame["type"] in ("agent_response", "error")


@contextlib.asynccontextmanager
async def talk(redis_server: RedisServer, prefix: str, **overrides: Any) -> AsyncIterator[Talk]:
    """Sections override settings, as in `running_service`."""
    async with (
        running_service(redis_server.url, prefix, **overrides) as service,
        FakeExecutor(redis_server.url, prefix) as executor,
    ):
        for priority in PRIORITIES:
            await until_there_is_a_group(executor, priority)
        yield Talk(service, executor, redis_server.url)


@contextlib.asynccontextmanager
async def talk_to_two(
    redis_server: RedisServer, prefix: str, **overrides: Any
) -> AsyncIterator[tuple[Talk, Running]]:
    """The same, and another instance beside it."""
    async with (
        talk(redis_server, prefix, **overrides) as each,
        running_service(redis_server.url, prefix, **overrides) as other,
    ):
        yield each, other


async def until_there_is_a_group(executor: FakeExecutor, priority: str) -> None:
    """An instance that is ready makes the group of workers as soon as it comes to it."""

    async def is_there() -> bool:
        try:
            found = await executor.redis.xinfo_groups(executor.stream(priority))
        except exceptions.ResponseError:  # there is no stream yet
            return False
        return executor.GROUP.encode() in {group["name"] for group in found}

    await until(is_there)


async def replayed(service: Address, session: str = "acme/s-1", **query: Any) -> list[Frame]:
    """What a new connection is told at once: its acknowledgement and the replay."""
    async with service.connect(session, **query) as socket:
        ack = orjson.loads(await socket.recv())
        frames = [ack]
        left = ack["data"]["replayed"]
        while left:
            frame = orjson.loads(await socket.recv())
            left -= frame["offset"] - frame.get("from_offset", frame["offset"]) + 1
            frames.append(frame)
    return frames
