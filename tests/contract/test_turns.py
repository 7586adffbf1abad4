"""Section 5: whose task is next, and what a tier lets wait (sentences 5.42, 5.45 and 5.46).

What stands in the work streams meanwhile (5.43, 5.44) is in test_work_streams.py.
"""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.contract.lines import (
    a_turn_was_taken,
    filled,
    in_streams,
    limited,
    run,
    until_in_streams,
    until_waiting,
)
from tests.contract.talk import Talk, talk
from tests.support.client import next_frame, say
from tests.support.fake_executor import TakenTask
from tests.support.redis_server import RedisServer

FAILURE = {"error": {"type": "overloaded", "message": "Come back later."}}

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
    settings = {**limited(max_running=1), "execution": {"max_wait": 3}}
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
