"""What time demands of tasks; the rules themselves are tested with the tasks and callbacks."""

import pytest

from common.domain.actions import IfBusy
from common.domain.ids import TaskId
from common.domain.tasks import TaskStatus
from common.failpoints import Injected, armed
from tests.support.redis_server import RedisServer
from tests.support.stores import ACME, SESSION, Report, Stores


async def test_a_look_at_an_unknown_task_leaves_nothing_behind(
    redis_server: RedisServer, prefix: str
) -> None:
    stores = Stores(redis_server.url, prefix)
    task_id = TaskId("gone")
    await stores.redis.batch([stores.due.look_in(SESSION, task_id, 0)])
    assert await stores.look(task_id) is None
    assert await stores.redis.call("ZCARD", stores.keys.due(task_id)) == 0
    await stores.close()


async def test_a_look_delivers_what_a_crash_left_undelivered(
    redis_server: RedisServer, prefix: str
) -> None:
    stores = Stores(redis_server.url, prefix)
    task_id = await stores.submit()
    await stores.work.ensure_groups()
    await stores.look(task_id)
    assert (await stores.work.depth()).untaken["normal"] == 1
    await stores.close()


async def test_a_task_that_waits_too_long_for_its_turn_ends_as_timeout(
    redis_server: RedisServer, prefix: str
) -> None:
    stores = Stores(redis_server.url, prefix, max_wait_ms=0)
    await stores.submit_and_deliver(if_busy=IfBusy.ENQUEUE)
    waiting = await stores.submit(if_busy=IfBusy.ENQUEUE)
    assert await stores.look(waiting) == TaskStatus.TIMEOUT
    assert (await stores.tasks.get(ACME, waiting)).status is TaskStatus.TIMEOUT
    await stores.close()


async def test_a_release_that_was_lost_is_made_good_by_the_next_look(
    redis_server: RedisServer, prefix: str
) -> None:
    stores = Stores(redis_server.url, prefix)
    first = await stores.submit_and_deliver(if_busy=IfBusy.ENQUEUE)
    second = await stores.submit(if_busy=IfBusy.ENQUEUE)
    await stores.work.ensure_groups()
    await stores.cancel(first)  # the release of the second follows
    line = stores.keys.session_line(SESSION)
    number = await stores.redis.call("ZSCORE", stores.keys.session_open(SESSION), second)
    # As if the end had happened and the task had stayed in line.
    await stores.redis.call("ZADD", line, number, second)
    await stores.look(second)
    assert await stores.redis.call("ZCARD", line) == 0
    await stores.close()


async def test_an_interruption_that_a_crash_cut_off_is_repeated(
    redis_server: RedisServer, prefix: str
) -> None:
    stores = Stores(redis_server.url, prefix)
    running = await stores.submit_and_deliver(if_busy=IfBusy.ENQUEUE)
    await stores.report(running, (1, 1, "started", {}))
    newer = await stores.submit(if_busy=IfBusy.INTERRUPT)  # and there it ended
    assert (await stores.tasks.get(ACME, running)).status is TaskStatus.RUNNING
    await stores.look(newer)
    assert (await stores.tasks.get(ACME, running)).status is TaskStatus.CANCELLING
    assert await stores.redis.call("EXISTS", stores.keys.cancel(running)) == 1
    await stores.close()


async def test_workers_of_a_cancelled_task_are_told_again_at_each_look(
    redis_server: RedisServer, prefix: str
) -> None:
    stores = Stores(redis_server.url, prefix)
    task_id = await stores.submit_and_deliver()
    await stores.report(task_id, (1, 1, "started", {}))
    await stores.cancel(task_id, "enough")
    await stores.redis.call("DEL", stores.keys.cancel(task_id))
    await stores.look(task_id)
    assert await stores.redis.call("GET", stores.keys.cancel(task_id)) == b"enough"
    await stores.close()


async def test_failing_a_task_twice_is_one_end_for_one_reason(
    redis_server: RedisServer, prefix: str
) -> None:
    stores = Stores(redis_server.url, prefix)
    task_id = await stores.submit_and_deliver()
    assert await stores.watch.fail(task_id, "max_attempts", "tried 3 times")
    assert await stores.watch.fail(task_id, "max_attempts", "tried 3 times")
    assert not await stores.watch.fail(task_id, "other", "something else")
    assert not await stores.watch.fail(TaskId("gone"), "max_attempts", "tried 3 times")
    ends = (await stores.log.read(SESSION, 0, 100)).events
    assert sum(b'"type":"error"' in event.entry for event in ends) == 1
    await stores.close()


async def test_a_look_settles_the_next_one_at_the_deadline(
    redis_server: RedisServer, prefix: str
) -> None:
    stores = Stores(redis_server.url, prefix)
    task_id = await stores.submit_and_deliver(timeout=60.0)
    await stores.redis.batch([stores.due.look_in(SESSION, task_id, 0)])
    (due,) = await stores.due.take(10)
    assert await stores.watch.check(due) is None
    shard = stores.keys.due(task_id)
    (member,) = await stores.redis.call("ZRANGE", shard, 0, -1)
    deadline = await stores.redis.call("HGET", stores.keys.task(SESSION, task_id), "deadline")
    assert int(await stores.redis.call("ZSCORE", shard, member)) == int(deadline)
    await stores.close()


async def test_whose_turn_it_is_is_told_again_by_who_repeats_the_end(
    redis_server: RedisServer, prefix: str
) -> None:
    stores = Stores(redis_server.url, prefix)
    first = await stores.submit_and_deliver(if_busy=IfBusy.ENQUEUE)
    second = await stores.submit(if_busy=IfBusy.ENQUEUE)
    done: tuple[Report, ...] = ((1, 1, "started", {}), (1, 2, "completed", {"response": ""}))
    with armed("callbacks.before_follow_up=raise:1"), pytest.raises(Injected):
        await stores.report(first, *done)
    assert (await stores.tasks.get(ACME, first)).status is TaskStatus.COMPLETED
    await stores.report(first, *done)  # taken over from the one that died
    delivered = await stores.redis.call("HGET", stores.keys.task(SESSION, second), "delivered")
    assert delivered == b"0"
    await stores.close()
