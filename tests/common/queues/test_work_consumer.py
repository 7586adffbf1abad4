"""The worker's door to Redis, one promise at a time; Redis is real, the connection may be cut."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from secrets import token_hex

import pytest

from common.domain.errors import RedisUnavailable
from common.domain.ids import TaskId
from common.queues.keys import GIVEN_BACK, WORK_GROUP
from common.queues.work_consumer import WorkConsumer
from common.queues.work_entries import GroupMissing, Lease, Report, WorkEntry
from tests.execution.support import PATIENCE, Orchestrator
from tests.support.redis_server import RedisServer


@asynccontextmanager
async def consumer_of(orchestrator: Orchestrator, name: str = "c1") -> AsyncIterator[WorkConsumer]:
    consumer = WorkConsumer(orchestrator.url, orchestrator.keys, name, socket_timeout=PATIENCE)
    try:
        yield consumer
    finally:
        await consumer.close()


@asynccontextmanager
async def consuming(
    redis_server: RedisServer, prefix: str
) -> AsyncIterator[tuple[Orchestrator, WorkConsumer]]:
    async with (
        Orchestrator(redis_server.url, prefix) as orchestrator,
        consumer_of(orchestrator) as consumer,
    ):
        yield orchestrator, consumer


async def leased(consumer: WorkConsumer, orchestrator: Orchestrator) -> Lease:
    """The first attempt of a task `t` that was added and taken."""
    await orchestrator.submit("a", task_id="t")
    (entry,) = await take_some(consumer)
    return Lease(entry, (await consumer.begin(entry.task_id, token_hex(4))).attempt)


async def take_some(consumer: WorkConsumer, count: int = 10) -> list[WorkEntry]:
    """A worker asks again and again, too, and so gets over a connection that was cut."""
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                if entries := await consumer.take(count):
                    return entries
            except RedisUnavailable:
                await asyncio.sleep(0.05)


async def until_it_waits(orchestrator: Orchestrator) -> None:
    """Until a consumer waits for work; nobody else waits for anything in this Redis."""
    async with asyncio.timeout(PATIENCE):
        while not (await orchestrator.redis.info("clients"))["blocked_clients"]:
            await asyncio.sleep(0.01)


async def test_it_takes_by_priority_and_never_more_than_asked(
    redis_server: RedisServer, prefix: str
) -> None:
    async with consuming(redis_server, prefix) as (orchestrator, consumer):
        for priority in ("low", "normal", "high"):
            for number in (1, 2):
                await orchestrator.submit("a", task_id=f"{priority}{number}", priority=priority)
        first = [entry.task_id for entry in await consumer.take(3)]
        then = [entry.task_id for entry in await consumer.take(9)]
    assert first == ["high1", "high2", "normal1"]
    assert then == ["normal2", "low1", "low2"]


class Late(WorkConsumer):
    """Finds all streams filled just after it looked at each."""

    async def _read(self, count: int, *streams: str, wait: bool = False) -> list[WorkEntry]:
        return await super()._read(count, *streams, wait=wait) if wait else []


async def test_a_waiting_read_that_finds_several_streams_filled_gives_back_what_is_too_much(
    redis_server: RedisServer, prefix: str
) -> None:
    async with (
        Orchestrator(redis_server.url, prefix) as orchestrator,
        consumer_of(orchestrator, "c2") as other,
    ):
        for priority in ("high", "normal", "low"):
            await orchestrator.submit("a", task_id=priority, priority=priority)
        late = Late(orchestrator.url, orchestrator.keys, "c1")
        assert [entry.task_id for entry in await late.take(1)] == ["high"]
        await late.close()
        assert [entry.task_id for entry in await take_some(other)] == ["normal", "low"]
        assert await orchestrator.redis.get(orchestrator.keys.attempt(TaskId("low"))) is None


async def test_a_take_can_be_told_to_stop_waiting(
    prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("common.queues.work_consumer.BLOCK_SECONDS", 10 * PATIENCE)
    with RedisServer() as server:
        async with consuming(server, prefix) as (orchestrator, consumer):
            waiting = asyncio.create_task(consumer.take(1))
            await until_it_waits(orchestrator)
            async with asyncio.timeout(PATIENCE):
                await consumer.stop_waiting()
                assert await waiting == []
                assert await consumer.take(1) == []


async def test_without_a_group_it_says_so(redis_server: RedisServer, prefix: str) -> None:
    orchestrator = Orchestrator(redis_server.url, prefix)
    async with consumer_of(orchestrator) as consumer:
        with pytest.raises(GroupMissing):
            await consumer.take(1)
    await orchestrator.redis.aclose()


async def test_an_attempt_is_counted_with_the_cancel_key_and_redis_own_clock(
    redis_server: RedisServer, prefix: str
) -> None:
    async with consuming(redis_server, prefix) as (orchestrator, consumer):
        before = await orchestrator.now_ms()
        begun = await consumer.begin(TaskId("t"), token_hex(4))
        assert (begun.attempt, begun.cancel) == (1, None)
        assert before <= begun.now_ms <= await orchestrator.now_ms()
        await orchestrator.cancel("t", "")
        again = await consumer.begin(TaskId("t"), token_hex(4))
        assert (again.attempt, again.cancel) == (2, "")


async def test_only_the_newest_attempt_may_refresh_finish_or_give_back(
    redis_server: RedisServer, prefix: str
) -> None:
    async with consuming(redis_server, prefix) as (orchestrator, consumer):
        old = await leased(consumer, orchestrator)
        entry = old.entry
        assert await consumer.refresh(old)
        new = Lease(entry, (await consumer.begin(entry.task_id, token_hex(4))).attempt)
        assert not await consumer.refresh(old)
        assert not await consumer.finish(old)
        await consumer.give_back(entry, old.attempt)
        (pending,) = await orchestrator.redis.xpending_range(entry.stream, WORK_GROUP, "-", "+", 9)
        assert pending["consumer"] == b"c1"
        assert await consumer.finish(new)
        assert await consumer.finish(new), "again, after a lost reply"
        assert await orchestrator.left() == (0, 0)


async def test_a_refresh_resets_the_idle_time_and_counts_no_delivery(
    redis_server: RedisServer, prefix: str
) -> None:
    async with consuming(redis_server, prefix) as (orchestrator, consumer):
        lease = await leased(consumer, orchestrator)
        entry = lease.entry
        # As if it had been taken a minute ago.
        await orchestrator.redis.xclaim(
            entry.stream, WORK_GROUP, "c1", 0, [entry.entry_id], idle=60_000, justid=True
        )
        await consumer.refresh(lease)
        (pending,) = await orchestrator.redis.xpending_range(entry.stream, WORK_GROUP, "-", "+", 9)
        assert pending["time_since_delivered"] < 60_000
        assert pending["times_delivered"] == 1


async def test_a_refresh_survives_a_deleted_entry_and_a_lost_group(
    redis_server: RedisServer, prefix: str
) -> None:
    async with consuming(redis_server, prefix) as (orchestrator, consumer):
        lease = await leased(consumer, orchestrator)
        entry = lease.entry
        await orchestrator.redis.xdel(entry.stream, entry.entry_id)
        assert await consumer.refresh(lease)
        await orchestrator.redis.xgroup_destroy(entry.stream, WORK_GROUP)
        assert await consumer.refresh(lease)
        assert await consumer.finish(lease)


async def test_reports_are_added_in_order_and_each_has_its_own_result(
    redis_server: RedisServer, prefix: str
) -> None:
    async with consuming(redis_server, prefix) as (orchestrator, consumer):
        stream = orchestrator.stream_of("t")
        await orchestrator.redis.set("no-stream", "x")

        def report(to: str, seq: int) -> Report:
            return Report(to, "t", "acme", "s1", 1, seq, "delta", b'{"text":"x"}')

        results = await consumer.report(
            [report(stream, 1), report("no-stream", 1), report(stream, 2)]
        )
        assert (results[0], results[2]) == (None, None)
        assert "WRONGTYPE" in str(results[1])
        assert [told.seq for told in await orchestrator.next_callbacks("t")] == [1, 2]


async def test_a_retiring_consumer_gives_back_what_is_pending_and_is_gone(
    redis_server: RedisServer, prefix: str
) -> None:
    async with (
        consuming(redis_server, prefix) as (orchestrator, consumer),
        consumer_of(orchestrator, "c2") as other,
    ):
        for number in range(250):
            await orchestrator.submit("a", task_id=f"t{number}")
        entries = await take_some(consumer, 250)
        await orchestrator.redis.xdel(entries[0].stream, entries[0].entry_id)
        await consumer.retire()
        assert await orchestrator.consumers() == {GIVEN_BACK}
        assert await orchestrator.left() == (249, 249)
        claimed = await take_some(other, 1000)
        assert len(claimed) == 249


async def test_an_entry_whose_reply_was_lost_is_found_again_by_the_same_consumer(
    prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("common.queues.work_consumer.BLOCK_SECONDS", PATIENCE)
    with RedisServer() as server:
        async with consuming(server, prefix) as (orchestrator, consumer):
            await orchestrator.submit("a", task_id="held")
            (held,) = await take_some(consumer)
            # What a cut connection leaves behind: delivered, but never seen.
            await orchestrator.submit("a", task_id="lost")
            await orchestrator.redis.xreadgroup(WORK_GROUP, "c1", {held.stream: ">"})
            waiting = asyncio.create_task(consumer.take(1))
            await until_it_waits(orchestrator)
            await orchestrator.redis.execute_command(
                "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"
            )
            with pytest.raises(RedisUnavailable):
                await waiting
            found = await take_some(consumer)
            assert [entry.task_id for entry in found] == ["lost"]


async def test_consumers_that_died_long_ago_are_removed_unless_something_is_pending_for_them(
    redis_server: RedisServer, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("common.queues.work_consumer.GONE_AFTER_MS", 50)
    async with consuming(redis_server, prefix) as (orchestrator, consumer):
        await orchestrator.submit("a")
        stream = orchestrator.keys.work_streams[1]
        await orchestrator.redis.xreadgroup(WORK_GROUP, "holding", {stream: ">"})
        await orchestrator.redis.xgroup_createconsumer(stream, WORK_GROUP, "idle")
        await asyncio.sleep(0.1)
        await consumer.take(1)
        assert await orchestrator.consumers() == {"holding", "c1"}


async def test_a_redis_out_of_reach_is_told_within_its_timeout(prefix: str) -> None:
    with RedisServer() as server:
        orchestrator = Orchestrator(server.url, prefix)
    async with consumer_of(orchestrator) as consumer:
        begun = time.monotonic()
        with pytest.raises(RedisUnavailable):
            await consumer.take(1)
        with pytest.raises(RedisUnavailable):
            await consumer.begin(TaskId("t"), token_hex(4))
        assert time.monotonic() - begun < 3
