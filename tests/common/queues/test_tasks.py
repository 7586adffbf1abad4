"""What is asked of tasks, what ends them, what a crash may leave undone."""

import asyncio

import orjson
import pytest
from redis.asyncio import Redis as Client

from common.domain.actions import ChatCancelTaskAction
from common.domain.errors import (
    TaskAlreadyFinished,
    TaskNotFound,
)
from common.domain.ids import SessionId, TaskId, TenantId
from common.queues.due import DueTask
from tests.support.redis_server import RedisServer
from tests.support.stores import ACME, SESSION, Stores, stores

# Being asked.


async def test_a_task_is_found_only_by_its_tenant(redis_server: RedisServer, prefix: str) -> None:
    async with stores(redis_server.url, prefix) as each:
        task_id = await each.submit()
        with pytest.raises(TaskNotFound):
            await each.task(task_id, "other")
        with pytest.raises(TaskNotFound):
            await each.task(TaskId("unknown"))
        await each.redis.call("DEL", each.keys.task(SESSION, task_id))
        with pytest.raises(TaskNotFound):
            await each.task(task_id)
        with pytest.raises(TaskNotFound):
            await each.cancel(task_id)


# Being cancelled.


async def test_a_queued_task_is_cancelled_at_once(redis_server: RedisServer, prefix: str) -> None:
    async with stores(redis_server.url, prefix, ttl=100) as each:
        task_id = await each.submit()
        assert await each.cancel(task_id, 'en"ough') == "cancelled"
        assert await each.cancel(task_id) == "cancelled"
        assert await each.told() == [("task_update", {"status": "cancelled", "message": 'en"ough'})]
        task = await each.task(task_id)
        assert (task.status, task.result, task.error) == ("cancelled", None, None)
        assert task.finished_at is not None
        assert not await each.is_due(task_id)
        assert 90 < await each.ttl(each.keys.task_session(task_id)) <= 100
        assert await each.redis.call("GET", each.keys.cancel(task_id)) is not None


async def test_a_running_task_is_given_time_to_stop(redis_server: RedisServer, prefix: str) -> None:
    async with stores(redis_server.url, prefix, cancel_grace_ms=0) as each:
        task_id = await each.submit_and_deliver()
        await each.report(task_id, (1, 1, "started", {}), (1, 2, "delta", {"text": "Hel"}))
        assert await each.cancel(task_id) == "cancelling"
        assert await each.cancel(task_id) == "cancelling"
        assert await each.look(task_id) == "cancelled"
        assert [data for _, data in await each.told()] == [
            {"status": "running", "attempt": 1},
            {"text": "Hel"},
            {"status": "cancelling"},
            {"status": "cancelled"},
        ]
        task = await each.task(task_id)
        assert orjson.loads(task.result or b"") == {"response": "Hel", "partial": True}


async def test_within_the_grace_the_first_end_wins(redis_server: RedisServer, prefix: str) -> None:
    async with stores(redis_server.url, prefix) as each:
        task_id = await each.submit_and_deliver()
        await each.report(task_id, (1, 1, "started", {}))
        await each.cancel(task_id)
        assert await each.look(task_id) is None
        await each.report(task_id, (1, 2, "completed", {"response": "x"}))
        assert (await each.task(task_id)).status == "completed"
        with pytest.raises(TaskAlreadyFinished, match="completed"):
            await each.cancel(task_id)


async def test_workers_are_told_by_a_key_and_by_a_message(
    redis_server: RedisServer, prefix: str
) -> None:
    async with (
        stores(redis_server.url, prefix) as each,
        Client.from_url(redis_server.url) as client,
        client.pubsub(ignore_subscribe_messages=True) as listener,
    ):
        await listener.subscribe(each.keys.control)
        await listener.get_message(timeout=5)
        task_id = await each.submit()
        await each.cancel(task_id, "enough")
        told = await listener.get_message(timeout=5)
        assert orjson.loads(told["data"]) == {
            "type": "cancel",
            "task_id": task_id,
            "tenant_id": "acme",
            "session_id": "s-1",
            "reason": "enough",
        }
        assert await each.redis.call("GET", each.keys.cancel(task_id)) == b"enough"
        assert 86_000 < await each.ttl(each.keys.cancel(task_id)) <= 86_400


async def test_another_tenants_task_cannot_be_cancelled(
    redis_server: RedisServer, prefix: str
) -> None:
    async with stores(redis_server.url, prefix) as each:
        task_id = await each.submit()
        with pytest.raises(TaskNotFound):
            await each.tasks.cancel(
                ChatCancelTaskAction(tenant_id=TenantId("other"), task_id=task_id)
            )
        assert (await each.task(task_id)).status == "queued"
        assert not await each.exists(each.keys.cancel(task_id))


async def test_the_look_at_the_end_of_the_grace_is_due_in_time(
    redis_server: RedisServer, prefix: str
) -> None:
    async with stores(redis_server.url, prefix, cancel_grace_ms=50) as each:
        task_id = await each.submit_and_deliver()
        await each.report(task_id, (1, 1, "started", {}))
        await each.redis.batch([each.due.look_in(SESSION, task_id, 0)])
        (due,) = await each.due.take(10)  # somebody looks just now
        await each.cancel(task_id)
        assert await each.watch.check(due) is None
        async with asyncio.timeout(10):
            while not (taken := await each.due.take(10)):
                await asyncio.sleep(0.01)  # for Redis's own clock
        assert taken[0].task_id == task_id
        assert await each.watch.check(taken[0]) == "cancelled"
        assert not await each.is_due(task_id)


async def test_what_was_stopped_only_halfway_is_stopped_by_the_next_look(
    redis_server: RedisServer, prefix: str
) -> None:
    """As after a crash right behind the session's script: no worker was told, nothing tidied."""
    async with stores(redis_server.url, prefix, ttl=100) as each:
        task_id = await each.submit()
        await each.cancel(task_id)
        await each.redis.call("DEL", each.keys.cancel(task_id))
        await each.redis.call("PERSIST", each.keys.task_session(task_id))
        await each.redis.batch([each.due.look_in(SESSION, task_id, 0)])
        assert await each.look(task_id) == "cancelled"
        assert await each.exists(each.keys.cancel(task_id))
        assert 90 < await each.ttl(each.keys.task_session(task_id)) <= 100
        assert not await each.is_due(task_id)


# What time does.


async def pass_deadline(each: Stores, task_id: TaskId) -> None:
    await each.redis.call("HSET", each.keys.task(SESSION, task_id), "deadline", 1)


async def test_the_deadline_ends_a_task_once(redis_server: RedisServer, prefix: str) -> None:
    async with stores(redis_server.url, prefix, ttl=100) as each:
        task_id = await each.submit_and_deliver()
        await each.report(task_id, (1, 1, "delta", {"text": "Hel"}), (1, 3, "delta", {"text": "o"}))
        assert await each.look(task_id) is None
        await pass_deadline(each, task_id)
        found = await asyncio.gather(*(each.look(task_id) for _ in range(5)))
        assert found == ["timeout"] * 5
        kind, data = (await each.told())[-1]
        assert (kind, data["code"], data["status"]) == ("error", "task_timeout", "timeout")
        assert [type_ for type_, _ in await each.told()] == ["agent_delta", "error"]
        task = await each.task(task_id)
        assert orjson.loads(task.error or b"") == data
        assert orjson.loads(task.result or b"")["response"] == "Hel"
        assert await each.exists(each.keys.cancel(task_id))
        for key in (each.keys.task_parked, each.keys.task_waiting):
            assert not await each.exists(key(SESSION, task_id))


async def test_a_task_that_is_cancelling_at_its_deadline_is_cancelled(
    redis_server: RedisServer, prefix: str
) -> None:
    async with stores(redis_server.url, prefix) as each:
        task_id = await each.submit_and_deliver()
        await each.report(task_id, (1, 1, "started", {}))
        await each.cancel(task_id)
        await pass_deadline(each, task_id)
        assert await each.look(task_id) == "cancelled"


async def test_an_open_task_is_looked_at_next_at_its_deadline(
    redis_server: RedisServer, prefix: str
) -> None:
    async with stores(redis_server.url, prefix) as each:
        task_id = await each.submit_and_deliver(timeout=100.0)
        await each.redis.batch([each.due.look_at(SESSION, task_id, 1)])
        (due,) = await each.due.take(10)
        assert await each.watch.check(due) is None
        score = await each.redis.call("ZSCORE", each.keys.due(task_id), f"{SESSION}:{task_id}")
        (entry,) = await each.work_entries()
        assert int(score) == entry["deadline"]


async def test_a_look_at_a_task_that_is_gone_tidies_up(
    redis_server: RedisServer, prefix: str
) -> None:
    async with stores(redis_server.url, prefix) as each:
        task_id = await each.submit()
        await each.redis.call("DEL", each.keys.task(SESSION, task_id))
        assert await each.look(task_id) is None
        assert not await each.exists(each.keys.task_session(task_id))
        assert not await each.is_due(task_id)


async def test_a_task_that_cannot_be_looked_at_harms_nobody(
    redis_server: RedisServer, prefix: str
) -> None:
    async with stores(redis_server.url, prefix) as each:
        due = DueTask(session=SESSION, task_id=TaskId("broken"), leased_until=0)
        await each.redis.call("SET", each.keys.task(SESSION, due.task_id), "no hash")
        assert await each.watch.check(due) is None


async def test_a_task_fails_once_for_a_reason_of_ours(
    redis_server: RedisServer, prefix: str
) -> None:
    async with stores(redis_server.url, prefix) as each:
        task_id = await each.submit()
        assert await each.watch.fail(task_id, "max_attempts", "Tried 3 times.")
        assert await each.watch.fail(task_id, "max_attempts", "Tried 3 times.")
        assert not await each.watch.fail(task_id, "another reason", "")
        assert not await each.watch.fail(TaskId("unknown"), "max_attempts", "")
        assert await each.told() == [
            (
                "error",
                {
                    "code": "task_failed",
                    "error_type": "max_attempts",
                    "message": "Tried 3 times.",
                    "status": "failed",
                },
            )
        ]
        assert await each.exists(each.keys.cancel(task_id))


async def test_tenants_do_not_share_anything(redis_server: RedisServer, prefix: str) -> None:
    async with stores(redis_server.url, prefix) as each:
        task_id = await each.submit()
        assert (await each.tasks.session_of(ACME, task_id)) == SESSION
        with pytest.raises(TaskNotFound):
            await each.tasks.session_of(TenantId("other"), task_id)
        within = frozenset({SESSION.session_id})
        assert (await each.tasks.session_of(ACME, task_id, within)) == SESSION
        for outside in (frozenset[SessionId](), frozenset({SessionId("another")})):
            with pytest.raises(TaskNotFound):
                await each.tasks.session_of(ACME, task_id, outside)
