"""Callbacks doubled, shuffled, late, poisoned, too many or from nowhere (FAULTS, c5), end to end.

The rules one by one: tests/common/domain/test_delivery.py, tests/common/queues/test_callbacks*.py.
"""

import asyncio
import random
from typing import Any

import pytest

from tests.support.fake_executor import FakeExecutor, TakenTask
from tests.support.follower import Follower, eventually, followed
from tests.support.redis_server import RedisServer
from tests.support.service import process_service, running_service

KEY = "8f6f6a53-3f0e-4b0c-9c5a-1d2e3f405162"
QUICK: Any = {"callbacks": {"claim_idle": 0.3, "poll_seconds": 0.05}}


async def nothing_waits(executor: FakeExecutor, task: TakenTask) -> bool:
    return int(await executor.redis.xlen(task.action["callback_stream"])) == 0


async def handled(address: Any, outcome: str) -> float:
    """How many callbacks came to that outcome, by the metrics."""
    text = (await address.get("/metrics")).body.decode()
    name = f'orchestrator_callbacks_total{{outcome="{outcome}"}} '
    lines = [line for line in text.splitlines() if line.startswith(name)]
    return float(lines[0].rpartition(" ")[2]) if lines else 0.0


# Q1, Q2, Q4


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_callbacks_shuffled_and_repeated_to_two_instances_come_out_as_one_answer(
    redis_server: RedisServer, prefix: str, seed: int
) -> None:
    dice = random.Random(seed)
    words = [f"{number} " for number in range(60)]
    callbacks: list[tuple[int, str, Any]] = [(1, "started", {})]
    callbacks += [(2 + i, "delta", {"text": word}) for i, word in enumerate(words)]
    callbacks.append((62, "completed", {"response": "".join(words)}))
    told = [each for each in callbacks for _ in range(dice.choice([1, 1, 2, 5]))]
    told += [callbacks[5]] * 100
    dice.shuffle(told)
    follower = Follower()
    async with (
        running_service(redis_server.url, prefix) as one,
        running_service(redis_server.url, prefix) as other,
        FakeExecutor(redis_server.url, prefix) as executor,
        follower.following(other),
    ):
        await one.send()
        task = await executor.take()
        for seq, type_, data in told:
            await executor.report(task, type_, data, seq=seq)
        await follower.ended()
        await eventually(lambda: nothing_waits(executor, task))
        assert follower.text == "".join(words)
        assert len(follower.events) == 1 + len(callbacks)


async def test_whatever_comes_after_the_end_or_out_of_nowhere_is_dropped_and_counted(
    redis_server: RedisServer, prefix: str
) -> None:
    async with followed(redis_server.url, prefix) as (service, executor, follower):
        await service.send()
        task = await executor.take()
        await executor.stream_answer(task, "a")
        await executor.complete(task, "a")
        await follower.ended()
        await executor.report(task, "delta", {"text": "late"})
        await executor.report(task, "failed", {"error": {"type": "x", "message": "y"}})
        await executor.report(task, "completed", {"response": "another"})
        for seq in (0, -1, "x", 2**70):
            await executor.report(task, "delta", {"text": "?"}, seq=seq)  # type: ignore[arg-type]
        await executor.report(task, "delta", {"text": "?"}, task_id=KEY)
        await executor.report(task, "delta", {"text": "?"}, tenant_id="umbrella")
        await eventually(lambda: nothing_waits(executor, task))
        assert (await service.events())["last_offset"] == 4
        assert (await service.status(task.task_id))["result"]["response"] == "a"
        assert await handled(service, "unknown") == 1
        reasons = [each[b"reason"] for each in await executor.dead_letters("callbacks")]
        assert sorted(reasons) == [b"mismatch", *[b"unreadable"] * 4]


# Q5, Q6


async def test_one_callback_that_cannot_be_used_keeps_none_behind_it_waiting(
    redis_server: RedisServer, prefix: str
) -> None:
    async with followed(redis_server.url, prefix) as (service, executor, follower):
        await service.send()
        task = await executor.take()
        await executor.stream_answer(task, "a")
        await executor.add(task, {"x": "y"})
        await executor.report(task, "delta", b"{not json")
        await executor.report(task, "delta", {"text": "x" * 1_100_000})
        await executor.report(task, "verse", {"text": "?"})
        await executor.report(task, "delta", {"text": "b"})
        await executor.complete(task, "ab")
        await follower.ended()
        assert follower.text == "ab"
        await eventually(lambda: nothing_waits(executor, task))
        reasons = [each[b"reason"] for each in await executor.dead_letters("callbacks")]
        assert reasons == [b"unreadable", b"unreadable", b"too_large", b"unknown_type"]


# Q8


async def test_a_clock_of_redis_that_once_stood_in_the_far_future_disturbs_no_order(
    redis_server: RedisServer, prefix: str
) -> None:
    """Nothing reads a time, or an order of events, out of an entry's id."""
    async with followed(redis_server.url, prefix) as (service, executor, follower):
        await service.send()
        task = await executor.take()
        await executor.report(task, "started")
        stream = task.action["callback_stream"]
        later = {"task_id": KEY, "tenant_id": "acme", "session_id": "s-1", "attempt": 1, "seq": 1}
        await executor.redis.xadd(
            stream, {**later, "type": "typing", "data": "{}"}, id="99999999999999-1"
        )
        await executor.report(task, "delta", {"text": "after"})
        await executor.complete(task, "after")
        await follower.ended(within=10)
        assert (await service.task_ended(task.task_id))["result"]["response"] == "after"


# Q9, Q10


async def test_what_was_added_while_no_instance_lived_is_all_told_when_one_does(
    redis_server: RedisServer, prefix: str
) -> None:
    """Twenty thousand small deltas and a large one: nothing is trimmed that was not handled."""
    follower = Follower()
    async with FakeExecutor(redis_server.url, prefix) as executor:
        async with process_service(redis_server.url, prefix) as first:
            await first.send()
            task = await executor.take()
            await first.kill()
        pipeline = executor.redis.pipeline(transaction=False)
        entry = {"task_id": task.task_id, "tenant_id": "acme", "session_id": "s-1", "attempt": 1}
        texts = [f"{number}," for number in range(20_000)]
        texts.append("x" * 1_000_000)
        for seq, text in enumerate(texts, 1):
            delta = {"type": "delta", "data": b'{"text":"%s"}' % text.encode(), "seq": seq}
            pipeline.xadd(task.action["callback_stream"], {**entry, **delta})
        await pipeline.execute()
        long = {"sessions": {"max_events": 50_000}, **QUICK}
        async with running_service(redis_server.url, prefix, **long) as second:
            task.seq = len(texts)
            await executor.complete(task, "all")
            async with follower.following(second):
                await follower.ended(within=60)
            await eventually(lambda: nothing_waits(executor, task))
    assert follower.text == "".join(texts)


@pytest.mark.alone
async def test_a_worker_that_says_nothing_more_is_ended_by_the_deadline(
    redis_server: RedisServer, prefix: str
) -> None:
    async with (
        running_service(redis_server.url, prefix) as service,
        FakeExecutor(redis_server.url, prefix) as executor,
    ):
        task_id = (await service.send(timeout=2)).json["task_id"]
        task = await executor.take()
        await executor.stream_answer(task, "only this")
        entered = asyncio.get_running_loop().time()
        ended = await service.task_ended(task_id)
        assert asyncio.get_running_loop().time() - entered < 2 + 1 + 0.5
        assert (ended["status"], ended["result"]) == (
            "timeout",
            {"response": "only this", "partial": True},
        )


# Q11, R24


async def test_a_session_that_was_deleted_from_redis_begins_with_another_epoch(
    redis_server: RedisServer, prefix: str
) -> None:
    """Its offsets begin at 1 again; nobody takes them for the old ones."""
    push = {"tenant_id": "acme", "session_id": "s-1", "message_data": {"n": 1}}
    async with (
        running_service(redis_server.url, prefix) as service,
        FakeExecutor(redis_server.url, prefix) as executor,
    ):
        for _ in range(3):
            await service.post("/api/ws/send", push)
        before = await service.events()
        keys = [key async for key in executor.redis.scan_iter(f"{prefix}session:*")]
        await executor.redis.delete(*keys)
        await service.post("/api/ws/send", push)
        after = await service.events()
        assert (before["last_offset"], after["last_offset"]) == (3, 1)
        assert before["epoch"] != after["epoch"]
        async with service.connect(epoch=before["epoch"], offset=1) as socket:
            assert b'"recovered":false' in (await socket.recv(decode=False))


async def test_entries_trimmed_while_they_were_pending_stop_nothing(
    redis_server: RedisServer, prefix: str
) -> None:
    """A stranger trims our stream while a dead instance's callbacks lie in it."""
    follower = Follower()
    async with FakeExecutor(redis_server.url, prefix) as executor:
        async with process_service(
            redis_server.url, prefix, environ={"FAILPOINTS": "callbacks.before_apply=exit"}
        ) as first:
            await first.send()
            task = await executor.take()
            await executor.stream_answer(task, "lost")
            assert await first.exited() == 9
        stream = task.action["callback_stream"]
        await executor.redis.xtrim(stream, maxlen=0, approximate=False)
        async with (
            running_service(redis_server.url, prefix, **QUICK) as second,
            follower.following(second),
        ):
            task.attempt, task.seq = await executor.count_attempt(task.task_id), 0
            await executor.stream_answer(task, "found")
            await executor.complete(task, "found")
            await follower.ended()
            assert follower.text == "found"
            (group,) = await executor.redis.xinfo_groups(stream)
            await eventually(lambda: _none_pending(executor, stream, group["name"]))


async def _none_pending(executor: FakeExecutor, stream: str, group: bytes) -> bool:
    return int((await executor.redis.xpending(stream, group))["pending"]) == 0
