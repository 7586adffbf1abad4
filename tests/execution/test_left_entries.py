"""What a worker took and did not bring to an end is taken again, be it by the same one."""

import asyncio
from collections.abc import AsyncIterator

import orjson
from redis.asyncio import Redis

from common.domain.ids import TaskId
from execution import Output, Task, Worker
from tests.execution.support import PATIENCE, Orchestrator, at_work, running, types
from tests.support.follower import eventually
from tests.support.redis_server import RedisServer

SOON_MS = 600  # a visibility timeout


class Counting:
    """An agent that notes its attempts; the first ends when it is stopped, all others by itself."""

    def __init__(self) -> None:
        self.attempts: list[int] = []
        self.running = 0
        self.most_at_once = 0
        self.worker = Worker()
        self.worker.agent("counting")(self)

    async def __call__(self, task: Task) -> AsyncIterator[Output]:
        self.attempts.append(task.attempt)
        self.running += 1
        self.most_at_once = max(self.running, self.most_at_once)
        try:
            yield f"attempt {task.attempt}"
            if len(self.attempts) == 1:
                await asyncio.Event().wait()
        finally:
            self.running -= 1


async def test_an_attempt_superseded_by_nobody_is_followed_by_another(
    redis_server: RedisServer, prefix: str
) -> None:
    counting = Counting()
    async with at_work(redis_server, prefix, counting.worker) as orchestrator:
        task_id = await orchestrator.submit("counting", visibility_timeout_ms=SOON_MS)
        await orchestrator.callbacks(task_id, until="attempt 1")
        # A count that came late: there is no other who runs it.
        await orchestrator.redis.incr(orchestrator.keys.attempt(TaskId(task_id)))
        told = await orchestrator.callbacks(task_id)
        await orchestrator.emptied()
    assert {each.attempt for each in told} == {3}
    assert types(told) == ["started", "delta", "completed"]
    assert (counting.attempts, counting.most_at_once) == ([1, 3], 1)


async def test_what_cannot_be_read_is_taken_until_its_attempts_are_used_up(
    redis_server: RedisServer, prefix: str
) -> None:
    action = orjson.dumps({"visibility_timeout_ms": SOON_MS, "max_attempts": 3})
    async with at_work(redis_server, prefix, Counting().worker) as orchestrator:
        await orchestrator.add("normal", {"task_id": "t", "action": action})
        counter = orchestrator.keys.attempt(TaskId("t"))

        async def is_used_up() -> bool:
            return int(await orchestrator.redis.get(counter) or 0) >= 3

        await eventually(is_used_up, within=PATIENCE)
        assert await orchestrator.left() == (1, 1)  # the orchestrator ends it


async def test_what_is_tried_too_often_is_left_and_counted_on(
    redis_server: RedisServer, prefix: str
) -> None:
    counting = Counting()
    async with at_work(redis_server, prefix, counting.worker) as orchestrator:
        counter = orchestrator.keys.attempt(TaskId("t"))
        await orchestrator.redis.set(counter, 3)
        await orchestrator.submit("counting", task_id="t", visibility_timeout_ms=SOON_MS)

        async def was_taken_again() -> bool:
            return int(await orchestrator.redis.get(counter)) >= 5

        await eventually(was_taken_again, within=PATIENCE)
        assert await orchestrator.left() == (1, 1)
    assert counting.attempts == []


async def test_a_task_that_may_be_tried_once_survives_a_redis_that_did_and_did_not_answer() -> None:
    counting = Counting()
    counting.attempts.append(0)  # so that it ends by itself
    with RedisServer() as server:
        async with Redis.from_url(server.url) as admin:
            await admin.acl_setuser(
                *("worker", True),
                passwords=["+secret"],
                keys=["*"],
                channels=["*"],
                categories=["+@all"],
            )

            async def refused() -> int:
                said = await admin.info("commandstats")
                return int(said.get("cmdstat_time", {}).get("rejected_calls", 0))

            url = server.url.replace("//", "//worker:secret@")
            async with (
                Orchestrator(server.url, "p:") as orchestrator,
                running(counting.worker, orchestrator, redis_url=url),
            ):
                await eventually(orchestrator.consumers, within=PATIENCE)
                # From here on the attempt is counted, and the worker does not hear of it: what
                # it asks in the same breath is refused.
                await admin.acl_setuser("worker", True, commands=["-time"])
                task_id = await orchestrator.submit("counting", max_attempts=1)

                async def was_tried_twice() -> bool:
                    return await refused() >= 2

                await eventually(was_tried_twice, within=PATIENCE)
                counter = orchestrator.keys.attempt(TaskId(task_id))
                assert await orchestrator.redis.get(counter) == b"1"
                await admin.acl_setuser("worker", True, commands=["+time"])
                told = await orchestrator.callbacks(task_id)
                await orchestrator.emptied()
    assert types(told) == ["started", "delta", "completed"]
    assert counting.attempts == [0, 1]
