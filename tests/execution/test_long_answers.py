"""An answer may be longer than one callback: what was streamed is then not sent again."""

import asyncio
from collections.abc import AsyncIterator

import orjson
import pytest

from common.domain.tasks import Task as Record
from common.domain.tasks import TaskStatus
from execution import Delta, Output, Task, Worker, WorkerSettings
from tests.execution.support import PATIENCE
from tests.support.redis_server import RedisServer
from tests.support.stores import stores

MAX_BYTES = 1 << 20  # of a callback, by default
LENGTH = 1_200_000


def said_by(name: str) -> list[Output]:
    said: dict[str, list[Output]] = {
        "pieces": ["x" * 1000] * (LENGTH // 1000),
        "one piece": ["x" * LENGTH],
        "one delta": [Delta("x" * LENGTH)],
        "escaped": ["\0" * LENGTH],
        "deltas with more beside the text": [Delta("x" * 30_000, n=n) for n in range(40)],
    }
    return said[name]


@pytest.mark.parametrize(
    "how",
    ["pieces", "one piece", "one delta", "escaped", "deltas with more beside the text"],
)
async def test_an_answer_above_the_limit_of_a_callback_is_completed_whole(
    redis_server: RedisServer, prefix: str, how: str
) -> None:
    task = await outcome_of(said_by(how), redis_server, prefix)
    assert (task.status, task.error) == (TaskStatus.COMPLETED, None)
    assert task.result is not None
    assert orjson.loads(task.result)["response"] == ("\0" if how == "escaped" else "x") * LENGTH


@pytest.mark.parametrize(("length", "max_bytes"), [(LENGTH, MAX_BYTES), (75_000, 1 << 16)])
async def test_where_a_piece_cannot_be_taken_the_answer_is_not_told_without_it(
    redis_server: RedisServer, prefix: str, length: int, max_bytes: int
) -> None:
    said: list[Output] = ["a", Delta("x" * length, n=1), "b"]
    task = await outcome_of(said, redis_server, prefix, max_bytes)
    assert task.status is TaskStatus.FAILED
    assert task.error is not None
    assert orjson.loads(task.error)["error_type"] == "too_large"


async def outcome_of(
    outputs: list[Output], redis_server: RedisServer, prefix: str, max_bytes: int = MAX_BYTES
) -> Record:
    """What an orchestrator makes of an agent that says this."""
    worker = Worker()

    @worker.agent("long")
    async def long(_: Task) -> AsyncIterator[Output]:
        for output in outputs:
            yield output

    async with stores(redis_server.url, prefix, max_bytes=max_bytes) as each:
        await each.work.ensure_groups()
        task_id = await each.submit_and_deliver(agent_id="long")
        run = asyncio.create_task(
            worker.run(WorkerSettings(redis_url=redis_server.url, key_prefix=prefix))
        )
        try:
            async with asyncio.timeout(PATIENCE):
                while (task := await each.task(task_id)).finished_at is None:
                    await each.handle()
        finally:
            worker.stop()
            await run
    return task
