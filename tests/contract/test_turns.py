"""Section 5: whose task is next, and how many wait where (sentences 5.42 to 5.46)."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.contract.talk import Talk, talk, until
from tests.support.redis_server import RedisServer
from tests.support.service import TakenTask, next_frame, running_service, say

GROUP = "agent-execution"
PRIORITIES = ("high", "normal", "low")
FAILURE = {"error": {"type": "overloaded", "message": "Come back later."}}


def limited(**limits: Any) -> dict[str, Any]:
    """Settings under which tenant `acme` has these limits alone, and the others none."""
    return {"tiers": {"limited": limits}, "tenants": {"acme": {"tier": "limited"}}}


async def waiting(each: Talk) -> tuple[int, int]:
    """Entries of the work streams that nobody has taken, and those in workers' hands."""
    pipeline = each.redis.pipeline(transaction=True)
    for priority in PRIORITIES:
        pipeline.xlen(each.executor.stream(priority))
        pipeline.xpending(each.executor.stream(priority), GROUP)
    replies = await pipeline.execute()
    taken = sum(found["pending"] for found in replies[1::2])
    return sum(replies[::2]) - taken, taken


async def in_streams(each: Talk) -> list[str]:
    """The tasks in the work streams, high before normal before low."""
    found: list[str] = []
    for priority in PRIORITIES:
        entries = await each.redis.xrange(each.executor.stream(priority))
        found += [fields[b"task_id"].decode() for _, fields in entries]
    return found


async def until_in_streams(each: Talk, *task_ids: str) -> None:
    async def are_there() -> bool:
        return set(task_ids) <= set(await in_streams(each))

    await until(are_there)


async def until_waiting(each: Talk, untaken: int) -> None:
    async def is_so() -> bool:
        return (await waiting(each))[0] == untaken

    await until(is_so)


async def a_turn_was_taken(each: Talk, tenant_id: str = "passer-by") -> None:
    """Returns once somebody else's message has come and gone: the lines were looked at."""
    task_id = await each.sent(f"{tenant_id}/s-1", priority="high")
    task = await each.executor.take()
    assert task.task_id == task_id
    await run(each, task)


async def run(each: Talk, task: TakenTask) -> None:
    await each.executor.report(task, "started")
    await each.executor.complete(task)
    await each.handled(task)


# 5.42: max_running, and turns by weight


async def test_5_42_no_more_tasks_of_a_tenant_are_with_the_workers_than_its_tier_allows(
    redis_server: RedisServer, prefix: str
) -> None:
    async with talk(redis_server, prefix, **limited(max_running=2)) as each:
        sent = [await each.sent(f"acme/s-{number}") for number in range(4)]
        sent.append(await each.sent("acme/s-0", if_busy="parallel"))
        assert await in_streams(each) == sent[:2]
        await a_turn_was_taken(each)
        assert await in_streams(each) == sent[:2]
        taken = [await each.executor.take() for _ in range(2)]  # they still count
        await a_turn_was_taken(each)
        assert await in_streams(each) == sent[:2]
        for task_id in sent:
            assert (await each.service.status(task_id))["status"] == "queued"
        for task, next_one in zip(taken, sent[2:4], strict=True):
            await run(each, task)
            await until_in_streams(each, next_one)
            assert len(await in_streams(each)) == 2


async def completed(each: Talk, task: TakenTask) -> None:
    await each.executor.complete(task)


async def failed(each: Talk, task: TakenTask) -> None:
    await each.executor.report(task, "failed", FAILURE)
    await each.executor.finish(task)


async def stopped(each: Talk, task: TakenTask) -> None:
    assert await each.cancel(task.task_id) == (202, "cancelling")
    await each.executor.report(task, "cancelled")
    await each.executor.finish(task)


async def out_of_time(each: Talk, task: TakenTask) -> None:
    assert (await each.service.task_ended(task.task_id))["status"] == "timeout"


async def out_of_grace(each: Talk, task: TakenTask) -> None:
    assert await each.cancel(task.task_id) == (202, "cancelling")
    assert (await each.service.task_ended(task.task_id))["status"] == "cancelled"


async def out_of_attempts(each: Talk, task: TakenTask) -> None:
    for _ in range(3):
        await each.executor.count_attempt(task.task_id)
    assert (await each.service.task_ended(task.task_id))["status"] == "failed"


@pytest.mark.parametrize(
    "end", [completed, failed, stopped, out_of_time, out_of_grace, out_of_attempts]
)
async def test_5_42_every_end_of_a_task_lets_the_next_one_go(
    redis_server: RedisServer, prefix: str, end: Callable[[Talk, TakenTask], Awaitable[None]]
) -> None:
    timeout = 1 if end is out_of_time else 60
    settings = {**limited(max_running=1), "execution": {"cancel_grace": 0.3}}
    async with talk(redis_server, prefix, **settings) as each:
        task = await each.started("acme/s-1", timeout=timeout)
        second, third = [await each.sent(f"acme/s-{number}") for number in (2, 3)]
        await end(each, task)
        after = await each.executor.take()
        assert after.task_id == second
        assert third not in await in_streams(each)  # one end, one turn
        await run(each, after)
        assert (await each.executor.take()).task_id == third


async def test_5_42_a_task_cancelled_before_a_worker_took_it_holds_no_place(
    redis_server: RedisServer, prefix: str
) -> None:
    async with talk(redis_server, prefix, **limited(max_running=1)) as each:
        first, second, third = [await each.sent(f"acme/s-{number}") for number in range(3)]
        assert await each.cancel(second) == (200, "cancelled")  # in its line
        assert await each.cancel(first) == (200, "cancelled")  # in the work stream
        await until_in_streams(each, third)
        assert second not in await in_streams(each)


async def test_5_42_what_waits_too_long_for_its_tenants_turn_times_out(
    redis_server: RedisServer, prefix: str
) -> None:
    settings = {**limited(max_running=1), "execution": {"max_wait": 1}}
    async with talk(redis_server, prefix, **settings) as each:
        task = await each.started("acme/s-1")
        late = await each.sent("acme/s-2")
        assert (await each.service.task_ended(late))["status"] == "timeout"
        on_time = await each.sent("acme/s-3")
        await run(each, task)
        after = await each.executor.take()
        assert after.task_id == on_time
        assert after.action["deadline"] > await each.now_ms() + 200_000  # from now, not from then


async def order_of(each: Talk, count: int) -> str:
    """The tenants of the next tasks, a letter each, one running at a time."""
    order = ""
    for _ in range(count):
        task = await each.executor.take()
        order += task.action["tenant_id"][0]
        await run(each, task)
    return order


async def filled(each: Talk, prefetch: int) -> None:
    """The work streams are full with tasks of tenant `x`."""
    for number in range(prefetch):
        await each.sent(f"x/s-{number}")
    assert await waiting(each) == (prefetch, 0)


@pytest.mark.parametrize(("light", "heavy"), [(1, 1), (1, 2), (0.5, 2)])
async def test_5_42_tenants_take_turns_by_weight(
    redis_server: RedisServer, prefix: str, light: float, heavy: float
) -> None:
    settings = {
        "tiers": {"light": {"weight": light}, "heavy": {"weight": heavy}},
        "tenants": {"a": {"tier": "light"}, "b": {"tier": "heavy"}},
        "execution": {"prefetch": 2},
    }
    count = 20
    async with talk(redis_server, prefix, **settings) as each:
        await filled(each, 2)
        for tenant_id in "ab":
            for number in range(count):
                await each.sent(f"{tenant_id}/s-{number}")
        order = await order_of(each, 2 + count)
        assert order[:2] == "xx"
        for end in range(2, len(order) + 1):  # at every moment, not only in the end
            so_far = order[2:end]
            share = len(so_far) * heavy / (light + heavy)
            assert abs(so_far.count("b") - share) <= 1, order


async def test_5_42_who_comes_late_neither_waits_for_the_others_nor_catches_up(
    redis_server: RedisServer, prefix: str
) -> None:
    async with talk(redis_server, prefix, execution={"prefetch": 2}) as each:
        for number in range(20):
            await each.sent(f"a/s-{number}")
        assert await order_of(each, 10) == "a" * 10
        await until_waiting(each, 2)
        for number in range(10):
            await each.sent(f"b/s-{number}")
        order = await order_of(each, 12)
        assert order[:2] == "aa"
        assert order[2] == "b"
        assert sorted(order[2:]) == sorted("ab" * 5)
        assert "bbb" not in order


async def test_5_42_the_messages_of_one_tenant_keep_their_order(
    redis_server: RedisServer, prefix: str
) -> None:
    async with talk(redis_server, prefix, **limited(max_running=1)) as each:
        sent = [await each.sent(f"acme/s-{number % 3}", if_busy="parallel") for number in range(9)]
        for task_id in sent:
            task = await each.executor.take()
            assert task.task_id == task_id
            await run(each, task)


async def test_5_42_a_session_that_waits_does_not_hold_its_tenants_other_sessions(
    redis_server: RedisServer, prefix: str
) -> None:
    async with talk(redis_server, prefix, **limited(max_running=2)) as each:
        busy = await each.sent("acme/s-1")
        for _ in range(5):
            await each.sent("acme/s-1")  # wait in their session, and take nobody's turn
        other = await each.sent("acme/s-2")
        assert await in_streams(each) == [busy, other]


# 5.43: prefetch


async def test_5_43_the_work_streams_hold_no_more_than_prefetch_and_are_filled_at_once(
    redis_server: RedisServer, prefix: str
) -> None:
    async with talk(redis_server, prefix, execution={"prefetch": 3}) as each:
        sent = [await each.sent(f"t-{number}/s-1") for number in range(8)]
        assert await waiting(each) == (3, 0)
        for expected in sent[:5]:
            task = await each.executor.take()
            assert task.task_id == expected
            began = time.monotonic()
            await each.executor.report(task, "started")
            await until_waiting(each, 3)
            assert time.monotonic() - began < 1
            await each.executor.complete(task)
            await each.handled(task)
        for expected in sent[5:]:
            assert (await each.executor.take()).task_id == expected


async def test_5_43_a_worker_that_says_nothing_is_noticed_all_the_same(
    redis_server: RedisServer, prefix: str
) -> None:
    async with talk(redis_server, prefix, execution={"prefetch": 2}) as each:
        for number in range(4):
            await each.sent(f"t-{number}/s-1")
        await each.executor.take()  # and does not report that it has started
        await until_waiting(each, 2)
        assert await waiting(each) == (2, 1)


async def test_5_43_or_as_many_as_are_being_executed_if_that_is_more(
    redis_server: RedisServer, prefix: str
) -> None:
    async with talk(redis_server, prefix, execution={"prefetch": 1}) as each:
        sent = {await each.sent(f"t-{number}/s-1") for number in range(9)}
        for executing in range(1, 5):
            task = await each.executor.take()
            await each.executor.report(task, "started")
            await until_waiting(each, executing)
            assert await waiting(each) == (executing, executing)
        assert set(await in_streams(each)) < sent


async def test_5_43_what_waits_waits_where_a_higher_priority_still_passes_it(
    redis_server: RedisServer, prefix: str
) -> None:
    async with talk(redis_server, prefix, execution={"prefetch": 2}) as each:
        await filled(each, 2)
        low, normal, high = [
            await each.sent(f"t-{priority}/s-1", priority=priority)
            for priority in ("low", "normal", "high")
        ]
        taken = []
        for _ in range(5):
            task = await each.executor.take()
            taken.append(task.task_id)
            await run(each, task)
            if high not in taken:
                await until_in_streams(each, high)
        assert [task_id for task_id in taken if task_id in {low, normal, high}] == [
            *(high, normal, low)
        ]


async def test_5_43_two_instances_fill_the_same_streams(
    redis_server: RedisServer, prefix: str
) -> None:
    execution = {"prefetch": 3}
    async with (
        talk(redis_server, prefix, execution=execution) as each,
        running_service(redis_server.url, prefix, execution=execution) as other,
    ):
        services = (each.service, other)
        answers = await asyncio.gather(
            *(services[number % 2].send(f"t-{number}/s-1") for number in range(20))
        )
        assert {answer.status for answer in answers} == {202}
        assert await waiting(each) == (3, 0)
        taken = []
        for _ in answers:
            task = await each.executor.take()
            taken.append(task.task_id)
            await each.executor.report(task, "started")
            assert (await waiting(each))[0] <= 3
            await each.executor.complete(task)
        assert sorted(taken) == sorted(answer.json["task_id"] for answer in answers)


async def test_5_43_a_work_stream_that_is_gone_is_filled_again(
    redis_server: RedisServer, prefix: str
) -> None:
    """What was in it is lost to the workers; what waited in line is not behind it."""
    async with talk(redis_server, prefix, execution={"prefetch": 1}) as each:
        await each.sent("t-1/s-1")
        second = await each.sent("t-2/s-1")
        await each.redis.delete(each.executor.stream("normal"))
        assert (await each.executor.take()).task_id == second


# 5.44: lower priorities


async def test_5_44_an_entry_that_was_passed_for_5_seconds_is_passed_no_more(
    redis_server: RedisServer, prefix: str
) -> None:
    async with talk(redis_server, prefix, execution={"prefetch": 2}) as each:
        low = await each.sent("quiet/s-1", priority="low")
        entered = time.monotonic()
        assert await in_streams(each) == [low]
        for number in range(60):
            await each.sent(f"loud/s-{number}", priority="high")
        passed = 0
        while (task := await each.executor.take()).task_id != low:
            passed += 1
            await asyncio.sleep(0.1)  # so that there is always another, to the end
            await run(each, task)
            if time.monotonic() - entered < 4.5:
                await until_waiting(each, 2)  # high is added above it all the time
        waited = time.monotonic() - entered
        assert passed >= 3
        assert 4.5 <= waited <= 7
        assert (await each.executor.take()).action["tenant_id"] == "loud"  # and they go on


# 5.45: max_queued


async def test_5_45_no_more_tasks_of_a_tenant_wait_than_its_tier_allows(
    redis_server: RedisServer, prefix: str
) -> None:
    settings = limited(max_running=1, max_queued=4)
    async with talk(redis_server, prefix, **settings) as each:
        await each.sent("acme/s-1")  # has its turn: it does not wait
        for session in ("acme/s-1", "acme/s-1", "acme/s-2", "acme/s-3"):
            await each.sent(session)  # two wait in their session, two in the tenant's line
        for session in ("acme/s-1", "acme/s-9"):
            refused = await each.service.send(session)
            assert (refused.status, refused.code) == (429, "queue_full")
        assert await each.frames("acme/s-9") == []  # nothing was taken
        await each.sent("other/s-1")  # it is nobody else's limit


async def test_5_45_who_leaves_the_line_makes_room_for_one(
    redis_server: RedisServer, prefix: str
) -> None:
    settings = limited(max_running=1, max_queued=2)
    async with talk(redis_server, prefix, **settings) as each:
        task = await each.started("acme/s-1")
        waiting_ids = [await each.sent(session) for session in ("acme/s-1", "acme/s-2")]
        for task_id in waiting_ids:  # in its session, and in the line
            assert (await each.service.send("acme/s-3")).status == 429
            assert await each.cancel(task_id) == (200, "cancelled")
            await each.sent("acme/s-4")
        assert (await each.service.send("acme/s-5")).status == 429
        await run(each, task)  # the next one has its turn
        await each.executor.take()
        await each.sent("acme/s-5")
        assert (await each.service.send("acme/s-6")).status == 429


# 5.46: what counts against requests_per_*


async def test_5_46_messages_accepted_by_rest_or_websocket_count_and_replays_do_not(
    redis_server: RedisServer, prefix: str
) -> None:
    key = "1b0d8a5e-27f1-4d1c-a5b7-0d7b7a6b7c11"
    async with (
        talk(redis_server, prefix, **limited(requests_per_minute=3)) as each,
        each.service.connect("acme/s-1") as socket,
    ):
        assert (await next_frame(socket))["type"] == "connection_ack"
        first = await each.sent("acme/s-1", key=key)
        for _ in range(3):
            assert await each.sent("acme/s-1", key=key) == first
        await each.sent("acme/s-2")
        await say(socket, "chat.send_message", "by-frame", agent_id="echo", message="hello")
        await until_ack(socket)
        refused = await each.service.send("acme/s-2")
        assert (refused.status, refused.code) == (429, "rate_limited")
        assert await each.sent("acme/s-1", key=key) == first  # it was taken, and still is


async def until_ack(socket: Any) -> None:
    while (await next_frame(socket))["type"] != "ack":
        pass


async def test_5_46_what_is_asked_and_stopped_does_not_count(
    redis_server: RedisServer, prefix: str
) -> None:
    async with talk(redis_server, prefix, **limited(requests_per_minute=1)) as each:
        task_id = await each.sent()
        for _ in range(3):
            await each.service.status(task_id)
        assert (await each.cancel(task_id))[0] == 200
        push = {"tenant_id": "acme", "session_id": "s-1", "message_data": {}}
        assert (await each.service.post("/api/ws/send", push)).status == 202
        assert (await each.service.send()).code == "rate_limited"
