"""How tasks take their turns: lines, rings, places, room (contract, section 5, Turns)."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from common.domain.actions import IfBusy, Priority
from common.domain.ids import SessionKey, TaskId, TenantId
from common.domain.tasks import Submitted
from common.queues.keys import GIVEN_BACK, WORK_GROUP
from config.settings import TierSettings
from tests.support.redis_server import RedisServer
from tests.support.stores import SESSION, Stores, key_of, message, stores

BY_TENANT: Mapping[str, TierSettings] = {
    "one": TierSettings(max_running=1),
    "two": TierSettings(max_running=2),
    "heavy": TierSettings(weight=4),
    "middle": TierSettings(weight=2),
    "light": TierSettings(weight=1),
}


def tier_of(tenant_id: TenantId) -> TierSettings:
    return BY_TENANT.get(tenant_id, TierSettings())


async def entries(stores: Stores, priority: Priority = Priority.NORMAL) -> list[dict[bytes, bytes]]:
    found = await stores.redis.call("XRANGE", stores.keys.work_stream(priority), "-", "+")
    return [dict(zip(flat[::2], flat[1::2], strict=True)) for _, flat in found]


async def delivered(stores: Stores, priority: Priority = Priority.NORMAL) -> list[str]:
    return [entry[b"task_id"].decode() for entry in await entries(stores, priority)]


async def take_entries(stores: Stores, count: int = 1, consumer: str = "w") -> list[str]:
    """A worker takes entries, high before normal before low; says of which tasks."""
    taken: list[str] = []
    await stores.work.ensure_groups()
    for stream in stores.keys.work_streams:
        if count > len(taken):
            reply = await stores.redis.call(
                *("XREADGROUP", "GROUP", WORK_GROUP, consumer, "COUNT", count - len(taken)),
                *("STREAMS", stream, ">"),
            )
            for _, fields in reply[0][1] if reply else []:
                taken.append(fields[fields.index(b"task_id") + 1].decode())
    return taken


async def finish(stores: Stores, session: SessionKey, task_id: TaskId) -> None:
    """The worker of a task is done with it: reported, acked, deleted."""
    done: Sequence[Any] = ((1, 1, "started", {}), (1, 2, "completed", {"response": "done"}))
    await remove(stores, task_id)
    await stores.report(task_id, *done, session=session)


async def remove(stores: Stores, task_id: TaskId) -> None:
    for stream in stores.keys.work_streams:
        for entry_id, fields in await stores.redis.call("XRANGE", stream, "-", "+"):
            if fields[fields.index(b"task_id") + 1] == task_id.encode():
                await stores.redis.call("XACK", stream, WORK_GROUP, entry_id)
                await stores.redis.call("XDEL", stream, entry_id)


async def submit_all(stores: Stores, sessions: Sequence[SessionKey]) -> list[TaskId]:
    """A task for each of these sessions, submitted as a router does under load: many at once."""
    actions = [message(session) for session in sessions]
    submitted = [
        each for each in await stores.submissions.submit(actions) if isinstance(each, Submitted)
    ]
    await stores.submissions.set_out(list(zip(actions, submitted, strict=True)))
    return [each.task_id for each in submitted]


def of(tenant: str, session: str = "s") -> SessionKey:
    return key_of(session, tenant)


FAILED_FOR_NOW: Sequence[Any] = (
    (1, 1, "started", {}),
    (1, 2, "failed", {"error": {"type": "busy", "message": "try again"}, "retryable": True}),
)

# Entering.


async def test_a_task_that_enters_twice_is_delivered_once(
    redis_server: RedisServer, prefix: str
) -> None:
    async with stores(redis_server.url, prefix) as each:
        task_id = await each.submit()
        for _ in range(3):
            await each.turns.take(entered=[(SESSION, task_id), (SESSION, task_id)])
        assert await delivered(each) == [task_id]


async def test_a_task_that_is_unknown_by_now_is_left_out(
    redis_server: RedisServer, prefix: str
) -> None:
    async with stores(redis_server.url, prefix) as each:
        moved = await each.turns.take(entered=[(SESSION, TaskId("gone"))])
        assert (moved.tasks, moved.in_line) == (0, 0)
        assert await entries(each) == []


async def test_each_priority_has_its_stream(redis_server: RedisServer, prefix: str) -> None:
    async with stores(redis_server.url, prefix) as each:
        for priority in Priority:
            task_id = await each.submit_and_deliver(priority=priority)
            assert await delivered(each, priority) == [task_id]


async def test_the_deadline_begins_when_the_task_enters_the_stream(
    redis_server: RedisServer, prefix: str
) -> None:
    async with stores(redis_server.url, prefix) as each:
        first = await each.submit_and_deliver(timeout=100.0, if_busy=IfBusy.ENQUEUE)
        second = await each.submit(timeout=100.0, if_busy=IfBusy.ENQUEUE)
        await each.turns.take(entered=[(SESSION, second)])
        one, two = (orjson.loads(entry[b"action"]) for entry in await entries(each))
        assert (one["action_id"], two["action_id"]) == (first, second)
        assert two["deadline"] >= one["deadline"] > 0
        noted = await each.redis.call("HGET", each.keys.task(SESSION, second), "deadline")
        assert int(noted) == two["deadline"]
        member = f"{SESSION}:{second}"
        due = await each.redis.call("ZSCORE", each.keys.due(second), member)
        assert float(due) <= two["deadline"]


async def test_a_retry_keeps_its_deadline_and_its_old_entry_goes(
    redis_server: RedisServer, prefix: str
) -> None:
    async with stores(redis_server.url, prefix, retry_backoff_ms=1) as each:
        task_id = await each.submit_and_deliver()
        (before,) = await entries(each)
        failure = {"error": {"type": "busy", "message": "try again"}, "retryable": True}
        await each.report(task_id, (1, 1, "started", {}), (1, 2, "failed", failure))
        assert await entries(each) == []
        await each.turns.take(entered=[(SESSION, task_id)])
        await each.turns.take(entered=[(SESSION, task_id)])
        (after,) = await entries(each)
        assert orjson.loads(after[b"action"]) == orjson.loads(before[b"action"])


# Places to run.


async def test_a_tenant_has_no_more_in_the_streams_than_may_run(
    redis_server: RedisServer, prefix: str
) -> None:
    async with stores(redis_server.url, prefix, tier_of=tier_of) as each:
        sent = [await each.submit_and_deliver(of("two", f"s{i}")) for i in range(5)]
        assert await delivered(each) == sent[:2]
        assert (await each.turns.take()).in_line == 3
        assert len(await entries(each)) == 2


async def test_each_end_lets_the_next_one_go(redis_server: RedisServer, prefix: str) -> None:
    async with stores(redis_server.url, prefix, tier_of=tier_of) as each:
        sent = [await each.submit_and_deliver(of("one", f"s{i}")) for i in range(3)]
        for i, task_id in enumerate(sent):
            assert await delivered(each) == [task_id]
            await finish(each, of("one", f"s{i}"), task_id)
        assert await delivered(each) == []


async def test_a_task_to_be_tried_again_keeps_its_place(
    redis_server: RedisServer, prefix: str
) -> None:
    async with stores(redis_server.url, prefix, tier_of=tier_of, retry_backoff_ms=0) as each:
        first = await each.submit_and_deliver(of("one", "a"))
        await each.submit_and_deliver(of("one", "b"))
        failure = {"error": {"type": "busy", "message": "try again"}, "retryable": True}
        reports: Sequence[Any] = ((1, 1, "started", {}), (1, 2, "failed", failure))
        await each.report(first, *reports, session=of("one", "a"))
        assert await entries(each) == []
        await each.turns.take(entered=[(of("one", "a"), first)])
        assert await delivered(each) == [first]


async def test_a_task_that_backs_off_goes_no_sooner_whoever_tells_of_it(
    redis_server: RedisServer, prefix: str
) -> None:
    async with stores(redis_server.url, prefix, retry_backoff_ms=60_000) as each:
        task_id, other = await each.submit_and_deliver(), await each.submit_and_deliver()
        await each.report(task_id, *FAILED_FOR_NOW)
        await finish(each, SESSION, other)
        await each.report(other, (1, 2, "completed", {"response": "again"}))
        await each.look(other)
        await each.turns.take(entered=[(SESSION, task_id)])
        assert await entries(each) == []


async def test_a_task_whose_next_attempt_has_begun_is_not_added_again(
    redis_server: RedisServer, prefix: str
) -> None:
    async with stores(redis_server.url, prefix, retry_backoff_ms=0) as each:
        task_id = await each.submit_and_deliver()
        await each.report(task_id, *FAILED_FOR_NOW)
        await each.report(task_id, (2, 1, "started", {}))  # by one who had claimed the old entry
        await each.look(task_id)
        assert await entries(each) == []


async def test_a_task_cancelled_in_line_never_goes(redis_server: RedisServer, prefix: str) -> None:
    async with stores(redis_server.url, prefix, tier_of=tier_of) as each:
        first, second, third = [await each.submit_and_deliver(of("one", f"s{i}")) for i in range(3)]
        await each.cancel(second, tenant_id="one")
        await finish(each, of("one", "s0"), first)
        assert await delivered(each) == [third]
        assert (await each.turns.take()).in_line == 0


# Turns.


async def test_tenants_take_turns_however_long_a_line_is(
    redis_server: RedisServer, prefix: str
) -> None:
    async with stores(redis_server.url, prefix, prefetch=4) as each:
        for i in range(50):
            await each.submit_and_deliver(of("flood", f"s{i}"))
        single = await each.submit_and_deliver(of("quiet"))
        assert len(await delivered(each)) == 4
        taken = await take_entries(each, 4)
        await each.turns.take()
        taken += await take_entries(each, 1)
        assert taken[-1] == single


async def test_busy_tenants_share_by_weight(redis_server: RedisServer, prefix: str) -> None:
    async with stores(redis_server.url, prefix, prefetch=1, tier_of=tier_of) as each:
        whose: dict[str, str] = {}
        for tenant in ("heavy", "middle", "light"):
            for i in range(60):
                whose[await each.submit_and_deliver(of(tenant, f"s{i}"))] = tenant
        went = Counter[str]()
        for _ in range(70):
            (task_id,) = await take_entries(each)
            went[whose[task_id]] += 1
            await remove(each, TaskId(task_id))
            await each.turns.take()
        assert went["heavy"] in range(39, 42)
        assert went["middle"] in range(19, 22)
        assert went["light"] in range(9, 12)


async def test_weights_hold_in_each_priority_whatever_others_send(
    redis_server: RedisServer, prefix: str
) -> None:
    async with stores(redis_server.url, prefix, prefetch=1, tier_of=tier_of) as each:
        whose: dict[str, str] = {}
        for i in range(60):
            for tenant in ("heavy", "light"):
                whose[await each.submit_and_deliver(of(tenant, f"s{i}"))] = tenant
        went = Counter[str]()
        for i in range(100):
            if i % 2:
                high = await each.submit_and_deliver(of("loud", f"s{i}"), priority=Priority.HIGH)
                whose[high] = "loud"
            (task_id,) = await take_entries(each)
            went[whose[task_id]] += 1
            await remove(each, TaskId(task_id))
            await each.turns.take()
        assert went["loud"] >= 49
        assert 3.5 < went["heavy"] / went["light"] < 4.5


async def test_who_comes_back_after_a_pause_has_no_credit(
    redis_server: RedisServer, prefix: str
) -> None:
    async with stores(redis_server.url, prefix, prefetch=1) as each:
        whose: dict[str, str] = {}
        for i in range(40):
            whose[await each.submit_and_deliver(of("busy", f"s{i}"))] = "busy"
        for _ in range(20):
            (task_id,) = await take_entries(each)
            await remove(each, TaskId(task_id))
            await each.turns.take()
        for i in range(20):
            whose[await each.submit_and_deliver(of("late", f"s{i}"))] = "late"
        went = []
        for _ in range(10):
            (task_id,) = await take_entries(each)
            went.append(whose[task_id])
            await remove(each, TaskId(task_id))
            await each.turns.take()
        assert went.count("late") in (5, 6)


# Room.


async def test_the_streams_hold_no_more_than_is_fetched_ahead(
    redis_server: RedisServer, prefix: str
) -> None:
    async with stores(redis_server.url, prefix, prefetch=3) as each:
        for i in range(10):
            await each.submit_and_deliver(of("acme", f"s{i}"), priority=list(Priority)[i % 3])
        lengths = [len(await entries(each, priority)) for priority in Priority]
        assert sum(lengths) == 3


async def test_as_many_wait_in_the_streams_as_are_executed(
    redis_server: RedisServer, prefix: str
) -> None:
    async with stores(redis_server.url, prefix, prefetch=2) as each:
        for i in range(20):
            await each.submit_and_deliver(of("acme", f"s{i}"))
        for executing in range(2, 9, 2):
            await take_entries(each, 2)
            await each.turns.take()
            assert len(await entries(each)) - executing == max(2, executing)


async def test_a_start_that_is_reported_fills_the_room(
    redis_server: RedisServer, prefix: str
) -> None:
    async with stores(redis_server.url, prefix, prefetch=1) as each:
        first = await each.submit_and_deliver(of("acme", "a"))
        second = await each.submit_and_deliver(of("acme", "b"))
        await take_entries(each)
        await each.report(first, (1, 1, "started", {}), session=of("acme", "a"))
        assert await delivered(each) == [first, second]


# Priorities.


async def test_high_goes_before_normal_before_low(redis_server: RedisServer, prefix: str) -> None:
    async with stores(redis_server.url, prefix, prefetch=1) as each:
        await each.submit_and_deliver(of("acme", "first"))
        sent = {
            priority: await each.submit_and_deliver(of(priority), priority=priority)
            for priority in reversed(Priority)
        }
        await take_entries(each)
        went = []
        for _ in Priority:
            await each.turns.take()
            went += await take_entries(each)
            await remove(each, TaskId(went[-1]))
        assert went == [sent[priority] for priority in Priority]


async def back_date(stores: Stores, level: int, ms: int = 5000) -> None:
    """As if a class had waited for longer."""
    state = stores.keys.turns_state
    since = int(await stores.redis.call("HGET", state, f"since:{level}"))
    await stores.redis.call("HSET", state, f"since:{level}", since - ms)


async def test_a_class_that_has_waited_long_gets_the_next_place(
    redis_server: RedisServer, prefix: str
) -> None:
    async with stores(redis_server.url, prefix, prefetch=1) as each:
        for i in range(5):
            await each.submit_and_deliver(of("acme", f"s{i}"), priority=Priority.HIGH)
        low = await each.submit_and_deliver(of("low", "a"), priority=Priority.LOW)
        await each.submit_and_deliver(of("low", "b"), priority=Priority.LOW)
        await back_date(each, 3)
        went = []
        for _ in range(3):
            went += await take_entries(each)
            await remove(each, TaskId(went[-1]))
            await each.turns.take()
        assert went.index(low) == 1  # one place, then it stands back again
        assert len(await delivered(each, Priority.HIGH)) == 1
        assert await delivered(each, Priority.LOW) == []


async def test_nothing_is_added_above_an_entry_that_has_waited_long(
    redis_server: RedisServer, prefix: str
) -> None:
    async with stores(redis_server.url, prefix, prefetch=10) as each:
        low = each.keys.work_stream(Priority.LOW)
        seconds, micros = map(int, await each.redis.call("TIME"))
        long_ago = seconds * 1000 + micros // 1000 - 5001
        await each.redis.call("XADD", low, f"{long_ago}-0", "task_id", "old", "action", "{}")
        high = await each.submit_and_deliver(priority=Priority.HIGH)
        normal = await each.submit_and_deliver(of("acme", "b"))
        assert await delivered(each, Priority.HIGH) == []
        assert await delivered(each) == []
        assert await take_entries(each) == ["old"]
        await each.turns.take()
        assert await delivered(each, Priority.HIGH) == [high]
        assert await delivered(each) == [normal]


async def test_neither_is_one_added_above_an_entry_that_was_given_back(
    redis_server: RedisServer, prefix: str
) -> None:
    async with stores(redis_server.url, prefix, prefetch=10) as each:
        low = each.keys.work_stream(Priority.LOW)
        seconds, _ = map(int, await each.redis.call("TIME"))
        entry_id = f"{seconds * 1000 - 6000}-0"
        await each.redis.call("XADD", low, entry_id, "task_id", "old", "action", "{}")
        await take_entries(each)
        claim = ("XCLAIM", low, WORK_GROUP, GIVEN_BACK, 0, entry_id)
        await each.redis.call(*claim)
        await each.submit_and_deliver(priority=Priority.HIGH)
        assert await delivered(each, Priority.HIGH) == []


# Many.


async def test_a_thousand_tenants_each_have_their_turn_beside_a_flood_of_one(
    redis_server: RedisServer, prefix: str
) -> None:
    async with stores(redis_server.url, prefix, prefetch=16, socket_timeout=30.0) as each:
        await submit_all(each, [of("flood", f"s{i}") for i in range(2000)])
        singles = set(await submit_all(each, [of(f"tenant-{i}") for i in range(1000)]))
        seen: list[str] = []
        while singles - set(seen):
            went = await take_entries(each, 16)
            assert went
            seen += went
            for task_id in went:
                await remove(each, TaskId(task_id))
            await each.turns.take()
        assert len(seen) <= 16 + 1000 + 16 + 2
