"""Callbacks on their way to Redis: batched, in order, bounded, fair."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

from common.domain.ids import TaskId
from common.queues.work_consumer import WorkConsumer
from common.queues.work_entries import Report
from execution.reporter import BATCH_BYTES, MAX_WAITING, Reporter
from execution.task import Address
from tests.execution.support import PATIENCE, Orchestrator
from tests.support.follower import eventually
from tests.support.redis_server import RedisServer

DATA = b'{"text":"x"}'


class Noting(WorkConsumer):
    """The real thing, which notes the sizes of the pipelines."""

    sizes: list[int]

    async def report(self, reports: Sequence[Report]) -> list[str | None]:
        self.sizes.append(len(reports))
        return await super().report(reports)


@asynccontextmanager
async def reporting(orchestrator: Orchestrator) -> AsyncIterator[tuple[Reporter, list[int]]]:
    consumer = Noting(orchestrator.url, orchestrator.keys, "c1", socket_timeout=PATIENCE)
    consumer.sizes = []
    reporter = Reporter(consumer)
    sending = asyncio.create_task(reporter.run())
    try:
        yield reporter, consumer.sizes
    finally:
        sending.cancel()
        with suppress(asyncio.CancelledError):
            await sending
        await consumer.close()


def address(orchestrator: Orchestrator, task_id: str) -> Address:
    return Address(orchestrator.stream_of(task_id), TaskId(task_id), "acme", "s1", 1)


async def test_what_is_said_in_one_turn_of_the_loop_goes_in_one_pipeline(
    redis_server: RedisServer, prefix: str
) -> None:
    async with (
        Orchestrator(redis_server.url, prefix) as orchestrator,
        reporting(orchestrator) as (reporter, sizes),
    ):
        outboxes = [reporter.open(address(orchestrator, f"t{number}")) for number in range(50)]
        for outbox in outboxes:
            await outbox.add("started", b"{}")
            await outbox.add("delta", DATA)
        for outbox in outboxes:
            await outbox.flushed()
        assert sizes == [100]
        told = await orchestrator.next_callbacks("t49")
    assert [(each.seq, each.type) for each in told] == [(1, "started"), (2, "delta")]


async def test_an_agent_waits_while_its_outbox_is_full_and_one_that_is_not_does_not(
    redis_server: RedisServer, prefix: str
) -> None:
    async with (
        Orchestrator(redis_server.url, prefix) as orchestrator,
        reporting(orchestrator) as (reporter, sizes),
    ):
        outbox = reporter.open(address(orchestrator, "t"))
        for _ in range(MAX_WAITING - 1):
            await outbox.add("delta", DATA)
        assert sizes == []
        await outbox.add("delta", DATA)
        assert sum(sizes) > 0
        large = reporter.open(address(orchestrator, "u"))
        await large.add("delta", b'{"text":"%s"}' % (b"x" * BATCH_BYTES))
        await large.flushed()


async def test_one_that_says_much_does_not_crowd_out_the_others(
    redis_server: RedisServer, prefix: str
) -> None:
    async with (
        Orchestrator(redis_server.url, prefix) as orchestrator,
        reporting(orchestrator) as (reporter, _),
    ):
        loud = reporter.open(address(orchestrator, "loud"))
        for _ in range(3000):
            loud.put("delta", b'{"text":"%s"}' % (b"x" * 5000))
        quiet = reporter.open(address(orchestrator, "quiet"))
        quiet.put("delta", DATA)
        await quiet.flushed()
        assert len(loud) > 1000
        await loud.flushed()
        assert await orchestrator.redis.xlen(orchestrator.stream_of("loud")) == 3000


async def test_what_was_discarded_is_not_sent(redis_server: RedisServer, prefix: str) -> None:
    async with (
        Orchestrator(redis_server.url, prefix) as orchestrator,
        reporting(orchestrator) as (reporter, sizes),
    ):
        outbox = reporter.open(address(orchestrator, "t"))
        outbox.put("delta", DATA)
        outbox.discard()
        await outbox.flushed()
        other = reporter.open(address(orchestrator, "u"))
        await other.add("delta", DATA)
        await other.flushed()
        assert sizes == [1]


async def test_what_redis_did_not_take_goes_again_with_the_same_numbers() -> None:
    with RedisServer() as server:
        async with (
            Orchestrator(server.url, "p:") as orchestrator,
            reporting(orchestrator) as (reporter, _),
        ):
            outbox = reporter.open(address(orchestrator, "t"))
            server.stop()
            outbox.put("started", b"{}")
            waiting = asyncio.create_task(outbox.add("delta", DATA))
            await eventually(lambda: outbox.blocked)
            adding = asyncio.create_task(outbox.add("delta", DATA))
            await asyncio.sleep(0)
            assert not adding.done(), "the agent is held back"
            server.start()
            await asyncio.gather(waiting, adding)
            await outbox.flushed()
            told = await orchestrator.next_callbacks("t")
    assert [each.seq for each in told] == [1, 2, 3]


async def test_a_refused_callback_goes_again_and_those_after_it_keep_their_order() -> None:
    with RedisServer() as server:
        async with (
            Orchestrator(server.url, "p:") as orchestrator,
            reporting(orchestrator) as (reporter, _),
        ):
            outbox, other = (reporter.open(address(orchestrator, name)) for name in ("t", "u"))
            stream = orchestrator.stream_of("t")
            await orchestrator.redis.set(stream, "in the way")
            for box in (outbox, other):
                box.put("started", b"{}")
                box.put("delta", DATA)
            await other.flushed()
            await orchestrator.redis.delete(stream)
            await outbox.flushed()
            told = await orchestrator.next_callbacks("t")
    assert [each.seq for each in told] == [1, 2]
