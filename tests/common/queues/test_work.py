"""The orchestrator's side of the work streams."""

import pytest
from redis import exceptions

from common.domain.actions import Priority
from common.domain.ids import TaskId
from common.queues import work
from common.queues.keys import WORK_GROUP
from common.queues.work import TAKEN_PAGE, TakenEntry
from tests.support.redis_server import RedisServer
from tests.support.stores import Stores, stores


async def add(each: Stores, *task_ids: str, priority: Priority = Priority.NORMAL) -> list[bytes]:
    """Adds entries of tasks to a work stream; returns their ids."""
    stream = each.keys.work_stream(priority)
    return await each.redis.batch(
        [("XADD", stream, "*", "task_id", task_id, "action", "{}") for task_id in task_ids]
    )


async def entries(each: Stores, priority: Priority = Priority.NORMAL) -> list[dict[str, bytes]]:
    found = await each.redis.call("XRANGE", each.keys.work_stream(priority), "-", "+")
    return [dict(zip(map(bytes.decode, f[::2]), f[1::2], strict=True)) for _, f in found]


async def take(each: Stores, consumer: str = "w", count: int = 10_000) -> None:
    for stream in each.keys.work_streams:
        await each.redis.call(
            *("XREADGROUP", "GROUP", WORK_GROUP, consumer, "COUNT", count, "STREAMS", stream, ">")
        )


async def test_groups_are_made_once_and_see_what_was_there_before(
    redis_server: RedisServer, prefix: str
) -> None:
    async with stores(redis_server.url, prefix) as each:
        await add(each, "task-1")
        await each.work.ensure_groups()
        await each.work.ensure_groups()
        await take(each)
        assert [taken.task_id for taken in await each.work.taken()] == ["task-1"]


async def test_entries_in_workers_hands_are_found_with_their_attempts(
    redis_server: RedisServer, prefix: str
) -> None:
    async with stores(redis_server.url, prefix) as each:
        await each.work.ensure_groups()
        assert await each.work.taken() == []
        many = TAKEN_PAGE + 20
        await add(each, *(f"t{i}" for i in range(many)))
        await add(each, "low", priority=Priority.LOW)
        assert await each.work.taken() == []
        await take(each)
        await each.redis.call("SET", each.keys.attempt(TaskId("t7")), 2)
        taken = {entry.task_id: entry for entry in await each.work.taken()}
        assert set(taken) == {"low", *(f"t{i}" for i in range(many))}
        assert (taken[TaskId("t7")].attempt, taken[TaskId("t8")].attempt) == (2, 0)
        assert taken[TaskId("low")].stream == each.keys.work_stream(Priority.LOW)
        assert 0 <= taken[TaskId("low")].idle_ms < 5000


async def test_what_was_deleted_while_pending_is_nobodys(
    redis_server: RedisServer, prefix: str
) -> None:
    async with stores(redis_server.url, prefix) as each:
        await each.work.ensure_groups()
        (entry_id,) = await add(each, "task-1")
        await take(each)
        await each.redis.call("XDEL", each.keys.work_stream(Priority.NORMAL), entry_id)
        assert await each.work.taken() == []


async def test_a_strangers_entry_hides_no_other(redis_server: RedisServer, prefix: str) -> None:
    async with stores(redis_server.url, prefix) as each:
        await each.work.ensure_groups()
        stream = each.keys.work_stream(Priority.NORMAL)
        await each.redis.call("XADD", stream, "*", "task_id", b"\xff\xfe")
        await each.redis.call("XADD", stream, "*", "something", "else")
        await add(each, "task-1")
        await take(each)
        assert "task-1" in [taken.task_id for taken in await each.work.taken()]


async def test_without_its_group_nothing_is_taken(redis_server: RedisServer, prefix: str) -> None:
    async with stores(redis_server.url, prefix) as each:
        assert await each.work.taken() == []
        await each.redis.call("SET", each.keys.work_streams[0], "no stream")
        with pytest.raises(exceptions.ResponseError, match="WRONGTYPE"):
            await each.work.taken()


async def test_an_entry_is_buried_once(redis_server: RedisServer, prefix: str) -> None:
    async with stores(redis_server.url, prefix) as each:
        await each.work.ensure_groups()
        await add(each, "task-1")
        await take(each)
        (taken,) = await each.work.taken()
        assert isinstance(taken, TakenEntry)
        assert await each.work.bury(taken, "max_attempts")
        assert not await each.work.bury(taken, "max_attempts")
        (letter,) = await each.dead_work()
        assert (letter["reason"], letter["task_id"]) == (b"max_attempts", b"task-1")
        assert letter["stream"] == taken.stream.encode()
        assert await entries(each) == []
        assert await each.work.taken() == []


async def test_what_waits_for_a_worker_is_counted_by_priority(
    redis_server: RedisServer, prefix: str
) -> None:
    async with stores(redis_server.url, prefix) as each:
        assert (await each.work.depth()).untaken == {"high": 0, "normal": 0, "low": 0}
        await each.work.ensure_groups()
        await add(each, *(f"t{i}" for i in range(5)))
        await take(each, "one", 2)
        await take(each, "two", 1)
        depth = await each.work.depth()
        assert depth.untaken == {"high": 0, "normal": 2, "low": 0}
        assert depth.consumers in (1, 2)  # a consumer that got nothing counts from Redis 7 on


async def test_one_scan_at_a_time_serves_all_instances(
    redis_server: RedisServer, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert work.SCAN_MS < 1000  # about once a second
    monkeypatch.setattr(work, "SCAN_MS", 60_000)
    async with stores(redis_server.url, prefix) as each:
        assert await each.work.may_scan()
        assert not await each.work.may_scan()
        assert 0 < await each.redis.call("PTTL", each.keys.scan_lease) <= 60_000


async def test_what_a_worker_acked_and_did_not_delete_is_deleted(
    redis_server: RedisServer, prefix: str
) -> None:
    async with stores(redis_server.url, prefix) as each:
        await each.work.ensure_groups()
        handled, taken, untaken = [await each.submit_and_deliver() for _ in range(3)]
        stream = each.keys.work_stream(Priority.NORMAL)
        read = ("XREADGROUP", "GROUP", WORK_GROUP, "worker", "COUNT", 2, "STREAMS", stream, ">")
        ((_, entries),) = await each.redis.call(*read)
        await each.redis.call("XACK", stream, WORK_GROUP, entries[0][0])

        assert await each.work.drop_handled() == 1
        assert await each.work.drop_handled() == 0

        left = await each.redis.call("XRANGE", stream, "-", "+")
        assert [flat[1].decode() for _, flat in left] == [taken, untaken]
        assert handled not in {flat[1].decode() for _, flat in left}
