"""Due times: each had by one, none forgotten."""

import asyncio
from typing import Any

from common.domain.ids import TaskId
from common.queues.due import LEASE_MS, DueTask
from tests.support.redis_server import RedisServer
from tests.support.stores import SESSION, Stores, stores

TASK = TaskId("task-1")


async def score(each: Stores, task_id: TaskId = TASK) -> float | None:
    found = await each.redis.call("ZSCORE", each.keys.due(task_id), f"{SESSION}:{task_id}")
    return None if found is None else float(found)


async def now(each: Stores) -> float:
    seconds, micros = await each.redis.call("TIME")
    return int(seconds) * 1000 + int(micros) / 1000


async def run(each: Stores, *commands: Any) -> list[Any]:
    return await each.redis.batch(list(commands))


async def test_what_is_due_is_leased_to_one(redis_server: RedisServer, prefix: str) -> None:
    async with stores(redis_server.url, prefix) as each:
        tasks = [TaskId(f"task-{i}") for i in range(20)]
        await run(each, *(each.due.look_in(SESSION, task, 0) for task in tasks))
        taken = await asyncio.gather(*(each.due.take(100) for _ in range(5)))
        found = [due.task_id for some in taken for due in some]
        assert sorted(found) == sorted(tasks)
        before = await now(each)
        for due in (due for some in taken for due in some):
            assert due.session == SESSION
            assert before < due.leased_until <= before + LEASE_MS


async def test_only_so_many_of_a_shard_are_taken(redis_server: RedisServer, prefix: str) -> None:
    async with stores(redis_server.url, prefix) as each:
        tasks = [TaskId(f"task-{i}") for i in range(40)]
        await run(each, *(each.due.look_in(SESSION, task, 0) for task in tasks))
        assert len(await each.due.take(2)) == 8
        assert len(await each.due.take(100)) == 32


async def test_what_is_not_due_yet_is_left(redis_server: RedisServer, prefix: str) -> None:
    async with stores(redis_server.url, prefix) as each:
        before = await now(each)
        await run(each, each.due.look_in(SESSION, TASK, 60_000))
        assert await each.due.take(10) == []
        planned = await score(each)
        assert planned is not None
        assert before + 59_999 <= planned <= await now(each) + 60_000


async def test_the_earlier_of_two_looks_stays(redis_server: RedisServer, prefix: str) -> None:
    async with stores(redis_server.url, prefix) as each:
        await run(
            each,
            each.due.look_at(SESSION, TASK, 2_000),
            each.due.look_at(SESSION, TASK, 3_000),
            each.due.look_at(SESSION, TASK, 1_000),
        )
        assert await score(each) == 1_000


async def test_a_lease_is_given_back_with_the_next_look(
    redis_server: RedisServer, prefix: str
) -> None:
    async with stores(redis_server.url, prefix) as each:
        await run(each, each.due.look_at(SESSION, TASK, 1))
        (due,) = await each.due.take(10)
        assert await run(each, each.due.settle(due, 9_999_999_999_999)) == [1]
        assert await score(each) == 9_999_999_999_999
        assert await run(each, each.due.settle(due, 1)) == [0]  # it is not ours any more


async def test_a_lease_that_nobody_gives_back_comes_back(
    redis_server: RedisServer, prefix: str
) -> None:
    async with stores(redis_server.url, prefix) as each:
        await run(each, each.due.look_at(SESSION, TASK, 1))
        (first,) = await each.due.take(10)
        # As if the lease's time had passed.
        await each.redis.call("ZADD", each.keys.due(TASK), "XX", 5, f"{SESSION}:{TASK}")
        (again,) = await each.due.take(10)
        assert again.task_id == first.task_id


async def test_a_wish_that_comes_during_a_lease_is_not_settled_away(
    redis_server: RedisServer, prefix: str
) -> None:
    """Who holds the lease may have looked before there was something to see."""
    async with stores(redis_server.url, prefix) as each:
        for wish in (each.due.look_in(SESSION, TASK, 1000), each.due.look_in(SESSION, TASK, 9000)):
            await run(each, each.due.look_at(SESSION, TASK, 1))
            (due,) = await each.due.take(10)
            await run(each, wish)
            assert await run(each, each.due.settle(due, 9_999_999_999_999)) == [0]
            planned = await score(each)
            assert planned is not None
            assert planned <= due.leased_until
            await run(each, each.due.forget(SESSION, TASK))


async def test_a_task_that_ended_is_forgotten(redis_server: RedisServer, prefix: str) -> None:
    async with stores(redis_server.url, prefix) as each:
        await run(each, each.due.look_at(SESSION, TASK, 1))
        (due,) = await each.due.take(10)
        await run(each, each.due.forget(SESSION, TASK))
        assert await run(each, each.due.settle(due, 1)) == [0]
        assert await score(each) is None


def test_a_due_task_is_a_value() -> None:
    one = DueTask(session=SESSION, task_id=TASK, leased_until=1)
    assert one == DueTask(session=SESSION, task_id=TASK, leased_until=1)
