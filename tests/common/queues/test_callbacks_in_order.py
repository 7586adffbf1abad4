"""Callbacks are applied once and in order, by whomever and however often they are read.

The rest of the rules is in tests/properties, against the model.
"""

import asyncio

import orjson

from common.queues.callbacks import MAX_PARKED
from tests.support.redis_server import RedisServer
from tests.support.stores import (
    SESSION,
    STARTED,
    Report,
    callback_fields,
    delta,
    entry_of,
    stores,
)


async def test_a_batch_applied_twice_or_by_two_at_once_is_applied_once(
    redis_server: RedisServer, prefix: str
) -> None:
    async with stores(redis_server.url, prefix) as one, stores(redis_server.url, prefix) as two:
        task_id = await one.submit()
        reports: list[Report] = [delta(1, "a"), delta(2, "b"), (1, 3, "completed", {})]
        for report in reports:
            await one.add(callback_fields(task_id, *report))
        entries = await one.read()
        await asyncio.gather(one.callbacks.apply(entries), two.callbacks.apply(entries))
        again = await one.callbacks.apply(entries)
        assert again.outcomes == {"late": 3}
        assert [kind for kind, _ in await one.told()] == [
            *("agent_delta", "agent_delta", "agent_response")
        ]


async def test_a_newer_attempt_resets_and_fences(redis_server: RedisServer, prefix: str) -> None:
    async with stores(redis_server.url, prefix) as each:
        task_id = await each.submit()
        progress = (1, 2, "progress", {"progress": 70})
        await each.report(task_id, delta(1, "old"), progress, delta(4, "lost"))
        applied = await each.report(
            task_id, (2, 1, "started", {}), delta(3, "late"), delta(2, "new", attempt=2)
        )
        assert applied.outcomes == {"applied": 2, "stale": 1}
        assert (await each.told())[2:] == [
            ("task_update", {"status": "running", "attempt": 2, "reset": True}),
            ("agent_delta", {"text": "new"}),
        ]
        task = await each.task(task_id)
        assert (task.attempt, task.progress) == (2, None)
        await each.cancel(task_id)
        await each.report(task_id, (2, 3, "cancelled", {}))
        assert orjson.loads((await each.task(task_id)).result or b"")["response"] == "new"


async def test_what_waits_is_looked_at_when_its_gap_is_over(
    redis_server: RedisServer, prefix: str
) -> None:
    async with stores(redis_server.url, prefix, gap_timeout_ms=30) as each:
        task_id = await each.submit_and_deliver()
        await each.report(task_id, STARTED, delta(3))
        async with asyncio.timeout(5):
            while not (due := await each.due.take(10)):
                await asyncio.sleep(0.01)  # for Redis's own clock
        assert await each.watch.check(due[0]) == "failed"
        assert (await each.told())[-1][1]["error_type"] == "callback_gap"
        assert await each.exists(each.keys.cancel(task_id))


async def test_a_gap_that_closes_in_time_does_no_harm(
    redis_server: RedisServer, prefix: str
) -> None:
    async with stores(redis_server.url, prefix, gap_timeout_ms=0) as each:
        task_id = await each.submit_and_deliver()
        await each.report(task_id, STARTED, delta(3, "b"))
        await each.report(task_id, delta(2, "a"))
        assert await each.look(task_id) is None
        assert [data.get("text") for _, data in await each.told()][1:] == ["a", "b"]


async def test_as_much_may_wait_as_the_contract_allows(
    redis_server: RedisServer, prefix: str
) -> None:
    async with stores(redis_server.url, prefix, socket_timeout=30.0) as each:
        task_id = await each.submit()
        entries = [
            entry_of(callback_fields(task_id, *delta(seq)), f"{seq}-0")
            for seq in range(2, MAX_PARKED + 2)
        ]
        for start in range(0, len(entries), 2000):
            await each.callbacks.apply(entries[start : start + 2000])
        await each.report(task_id, STARTED, (1, MAX_PARKED + 2, "completed", {}))
        task = await each.task(task_id)
        assert task.status == "completed"
        assert orjson.loads(task.result or b"")["response"] == "x" * MAX_PARKED


async def test_one_more_ends_the_task_and_stops_its_workers(
    redis_server: RedisServer, prefix: str
) -> None:
    async with stores(redis_server.url, prefix, max_parked=2) as each:
        task_id = await each.submit()
        applied = await each.report(task_id, STARTED, delta(3), delta(4), delta(5), delta(6))
        assert applied.outcomes == {"applied": 1, "parked": 3, "late": 1}
        assert (await each.told())[-1][1]["error_type"] == "callback_gap"
        assert await each.exists(each.keys.cancel(task_id))
        await each.redis.call("DEL", each.keys.cancel(task_id))
        await each.report(task_id, delta(7))  # as if we had crashed before we could tell them
        assert await each.exists(each.keys.cancel(task_id))


async def test_bytes_that_wait_are_counted_as_they_came(
    redis_server: RedisServer, prefix: str
) -> None:
    async with stores(redis_server.url, prefix, max_parked_bytes=100_000) as each:
        first, second = await each.submit(), await each.submit()
        await each.report(first, *(delta(seq, "x" * 24_900) for seq in range(2, 6)))
        assert (await each.task(first)).status == "queued"
        await each.report(first, STARTED)
        await each.report(first, *(delta(seq, "x" * 24_900) for seq in range(7, 11)))
        assert (await each.task(first)).status == "running"
        await each.report(second, *(delta(seq, "x" * 26_000) for seq in range(2, 6)))
        assert (await each.task(second)).status == "failed"


async def test_a_worker_that_gave_up_at_the_deadline_has_the_task_time_out(
    redis_server: RedisServer, prefix: str
) -> None:
    async with stores(redis_server.url, prefix) as each:
        task_id = await each.submit_and_deliver()
        await each.redis.call("HSET", each.keys.task(SESSION, task_id), "deadline", 1)
        await each.report(task_id, (1, 1, "cancelled", {}))
        assert (await each.task(task_id)).status == "timeout"
        assert await each.exists(each.keys.cancel(task_id))
