"""What is idle past its visibility timeout is claimed, whoever had it, unless it is in hand."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from common.queues.keys import WORK_GROUP
from common.queues.work_consumer import WorkConsumer
from common.queues.work_entries import GroupMissing, WorkEntry
from tests.execution.support import PATIENCE, Orchestrator
from tests.support.redis_server import RedisServer

IDLE_MS = 30_000  # half of what an entry may be idle that does not say


@asynccontextmanager
async def consuming(
    redis_server: RedisServer, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Orchestrator, WorkConsumer]]:
    """A consumer that looks for idle entries at each take, and waits for none."""
    monkeypatch.setattr("common.queues.work_consumer.CLAIM_SECONDS", 0)
    monkeypatch.setattr("common.queues.work_consumer.BLOCK_SECONDS", 0.05)
    async with Orchestrator(redis_server.url, prefix) as orchestrator:
        consumer = WorkConsumer(orchestrator.url, orchestrator.keys, "c1", socket_timeout=PATIENCE)
        try:
            yield orchestrator, consumer
        finally:
            await consumer.close()


async def look_idle(orchestrator: Orchestrator, entry: WorkEntry, ms: int, holder: str) -> None:
    """As if its holder had not refreshed it for so long."""
    await orchestrator.redis.xclaim(
        entry.stream, WORK_GROUP, holder, 0, [entry.entry_id], idle=ms, justid=True
    )


async def test_its_own_entry_is_claimed_once_it_has_let_go_of_it_and_not_before(
    redis_server: RedisServer, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with consuming(redis_server, prefix, monkeypatch) as (orchestrator, consumer):
        await orchestrator.submit("a", task_id="t", visibility_timeout_ms=1000)
        (entry,) = await consumer.take(1)
        await look_idle(orchestrator, entry, 2000, "c1")
        assert await consumer.take(1) == [], "it is in its hands"
        consumer.let_go(entry)
        await look_idle(orchestrator, entry, 500, "c1")
        assert await consumer.take(1) == [], "its timeout is not over"
        await look_idle(orchestrator, entry, 2000, "c1")
        assert [each.task_id for each in await consumer.take(1)] == ["t"]
        await look_idle(orchestrator, entry, 2000, "c1")
        assert await consumer.take(1) == [], "it is in its hands again"


async def test_what_it_once_had_in_its_hands_is_claimed_from_another(
    redis_server: RedisServer, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with consuming(redis_server, prefix, monkeypatch) as (orchestrator, consumer):
        await orchestrator.submit("a", task_id="t", visibility_timeout_ms=1000)
        (entry,) = await consumer.take(1)
        await look_idle(orchestrator, entry, 2000, "c2")
        assert [each.task_id for each in await consumer.take(1)] == ["t"]


async def test_what_it_overlooked_and_what_is_idle_is_told_once(
    redis_server: RedisServer, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with consuming(redis_server, prefix, monkeypatch) as (orchestrator, consumer):
        normal, low = orchestrator.keys.work_streams[1:]
        await orchestrator.redis.xgroup_destroy(low, WORK_GROUP)
        with pytest.raises(GroupMissing):
            await consumer.take(1)
        await orchestrator.make_groups()
        # Delivered in a reply that it never got, and a while ago.
        await orchestrator.submit("a", task_id="t", visibility_timeout_ms=1000)
        ((_, ((entry_id, _),)),) = await orchestrator.redis.xreadgroup(
            WORK_GROUP, "c1", {normal: ">"}
        )
        unseen = WorkEntry(normal, entry_id.decode(), {})
        await look_idle(orchestrator, unseen, 2000, "c1")
        assert [each.task_id for each in await consumer.take(5)] == ["t"]


FAKE = b'"visibility_timeout_ms":1'


@pytest.mark.parametrize(
    ("action", "is_claimed"),
    [
        (b'{"visibility_timeout_ms":20000,"deadline":5}', True),
        (b'{"visibility_timeout_ms": 20000 }', True),
        (b'{"visibility_timeout_ms":20000,"traceparent":"00-a-b","deadline":5}', True),
        (b'{"visibility_timeout_ms":20000,"context":{"a":{}},"deadline":5}', True),
        (b'{"visibility_timeout_ms":20000,"message":"' + b"x" * 2000 + b'"}', True),
        (b'{"visibility_timeout_ms":2e4}', True),
        (b'{"visibility_timeout_ms":20000.5}', True),
        (b'{"visibility_timeout_ms":40000,"deadline":5}', False),
        (b'{"visibility_timeout_ms":4e4}', False),
        (b'{"visibility_timeout_ms":"soon"}', False),
        (b"no json", False),
        (b"[1]", False),
        # What a client puts into its message says nothing.
        (b'{"context":{' + FAKE + b"}}", False),
        (b'{"context":{' + FAKE + b'},"visibility_timeout_ms":40000}', False),
        (b'{"visibility_timeout_ms":40000,"context":{' + FAKE + b"}}", False),
        (b'{"visibility_timeout_ms":40000,"context":[{' + FAKE + b"}]}", False),
        (b'{"message":"\\' + FAKE.replace(b'":', b'\\":') + b'}","deadline":5}', False),
        # Whole messages are not read for it: this one could not be.
        (b'{"message":...,"visibility_timeout_ms":20000,"deadline":5}', True),
    ],
)
async def test_an_entrys_own_timeout_counts(
    redis_server: RedisServer,
    prefix: str,
    monkeypatch: pytest.MonkeyPatch,
    action: bytes,
    is_claimed: bool,
) -> None:
    async with consuming(redis_server, prefix, monkeypatch) as (orchestrator, consumer):
        entry_id = await orchestrator.add("normal", {"task_id": "t", "action": action})
        entry = WorkEntry(orchestrator.keys.work_streams[1], entry_id, {})
        await orchestrator.redis.xreadgroup(WORK_GROUP, "dead", {entry.stream: ">"})
        await look_idle(orchestrator, entry, IDLE_MS, "dead")
        assert bool(await consumer.take(1)) is is_claimed
