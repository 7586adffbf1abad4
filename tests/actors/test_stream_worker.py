"""What is in a stream is handled, whatever fails, and by whomever it was taken."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from actors.counters import Counters
from actors.loop_actor import LoopRef
from actors.restart_policy import RestartPolicy
from actors.stream_worker import GIVE_UP_AFTER, StreamWorkerActor
from actors.supervision_log import Event
from actors.supervisor import ChildSpec, SupervisorActor, SupervisorRef
from common.domain.errors import RedisUnavailable
from common.failpoints import armed
from common.queues.redis import Redis
from common.queues.streams import ConsumerStream, Entry
from tests.support.redis_server import RedisServer

WITHIN = 10.0  # seconds; what should happen happens in a fraction of one
GROUP = "readers"


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was left lying is looked for often."""
    monkeypatch.setattr("actors.stream_worker.CLAIM_EVERY", 0.05)


class Book:
    """What a worker handled and set aside; outlives its instances."""

    def __init__(self) -> None:
        self.handled: list[str] = []
        self.tries: list[list[str]] = []
        self.aside: list[str] = []
        self.poison: set[str] = set()
        self._written = asyncio.Event()

    def write(self, page: list[str], *words: str) -> None:
        page += words
        self._written.set()

    async def has(self, *words: str, aside: bool = False) -> None:
        async with asyncio.timeout(WITHIN):
            while not set(words) <= set(self.aside if aside else self.handled):
                self._written.clear()
                await self._written.wait()


class ReaderActor(StreamWorkerActor):
    """Writes down each entry's word; a poisonous one breaks it."""

    what = "words"

    def __init__(self, stream: ConsumerStream, book: Book, **settings: Any) -> None:
        super().__init__(stream, Counters(), **settings)
        self.book = book

    async def handle(self, entries: Sequence[Entry]) -> None:
        words = [entry.fields[b"word"].decode() for entry in entries]
        self.book.tries.append(words)
        if self.book.poison & set(words):
            raise ValueError(f"poison among {words}")
        self.book.write(self.book.handled, *words)
        await self._stream.finish([entry.id for entry in entries])

    async def set_aside(self, entry: Entry) -> None:
        self.book.write(self.book.aside, entry.fields[b"word"].decode())
        await self._stream.finish([entry.id])


class Desk:
    """A stream, a worker that reads it under supervision, and another reader's hands."""

    def __init__(self, url: str, prefix: str, **settings: Any) -> None:
        self.redis = Redis(url)
        self.key = f"{prefix}words"
        self.book = Book()
        self.stream = ConsumerStream(self.redis, self.key, GROUP, "reader")
        self.other = ConsumerStream(self.redis, self.key, GROUP, "other")
        self.settings = {"batch": 10, "poll_seconds": 0.05, "claim_idle": 0.05, **settings}
        self.supervisor: SupervisorRef = SupervisorActor.start(
            lambda _reason: None, policy=RestartPolicy(first_delay=0.001, max_restarts=3)
        )

    def begin(self) -> LoopRef:
        return self.supervisor.spawn(
            ChildSpec("reader", ReaderActor, (self.stream, self.book), self.settings)
        )

    async def add(self, *words: str) -> None:
        for word in words:
            await self.redis.call("XADD", self.key, "*", "word", word)

    async def left(self) -> tuple[int, int]:
        return await self.stream.waiting()

    def failures(self) -> list[Event]:
        log = self.supervisor.log.newest(100)
        return [event for event in reversed(log) if event["event"] == "actor.failed"]


@asynccontextmanager
async def desk(url: str, prefix: str, **settings: Any) -> AsyncIterator[Desk]:
    opened = Desk(url, prefix, **settings)
    try:
        await opened.other.ensure_group()
        yield opened
    finally:
        await opened.supervisor.stop()
        await opened.other.close()
        await opened.redis.close()


async def test_entries_are_handled_in_order_and_removed(
    redis_server: RedisServer, prefix: str
) -> None:
    async with desk(redis_server.url, prefix) as opened:
        await opened.add("a", "b")
        opened.begin()
        await opened.book.has("b")
        await opened.add("c")
        await opened.book.has("c")
        assert opened.book.handled == ["a", "b", "c"]
        await opened.supervisor.stop()
        assert await opened.left() == (0, 0)


async def test_what_another_reader_left_is_claimed(redis_server: RedisServer, prefix: str) -> None:
    async with desk(redis_server.url, prefix) as opened:
        await opened.add("a", "b")
        assert len(await opened.other.read(10, 0.01)) == 2
        opened.begin()
        await opened.book.has("a", "b")


async def test_one_entry_that_fails_keeps_no_other_waiting_and_is_set_aside_in_the_end(
    redis_server: RedisServer, prefix: str
) -> None:
    async with desk(redis_server.url, prefix) as opened:
        opened.book.poison = {"bad"}
        await opened.add("a", "bad", "b")
        ref = opened.begin()
        await opened.book.has("a", "b")
        assert opened.book.aside == []
        await opened.book.has("bad", aside=True)
        assert opened.book.tries.count(["bad"]) == GIVE_UP_AFTER
        assert [each["outcome"] for each in opened.failures()] == ["contained"] * GIVE_UP_AFTER
        assert (ref.restarts, opened.book.aside) == (0, ["bad"])
        await opened.supervisor.stop()
        assert await opened.left() == (0, 0)


async def test_one_that_fails_but_once_is_handled_the_next_time(
    redis_server: RedisServer, prefix: str
) -> None:
    async with desk(redis_server.url, prefix) as opened:
        opened.book.poison = {"moody"}
        await opened.add("moody")
        opened.begin()
        async with asyncio.timeout(WITHIN):
            while not opened.failures():
                await asyncio.sleep(0.005)
        opened.book.poison = set()
        await opened.book.has("moody")
        assert opened.book.aside == []


async def test_a_worker_that_fails_is_restarted_and_finishes_at_once_what_it_had_taken(
    redis_server: RedisServer, prefix: str
) -> None:
    async with desk(redis_server.url, prefix, claim_idle=3600) as opened:
        await opened.add("a")
        with armed("words.after_read=raise:1,words.on_start=raise:1"):
            ref = opened.begin()
            await opened.add("b")
            await opened.book.has("a", "b")
        assert ref.restarts == 2
        assert sorted(opened.book.handled) == ["a", "b"]
        assert [each["phase"] for each in opened.failures()] == ["on_start", "on_receive"]


async def test_a_worker_waits_for_redis_and_goes_on_with_what_it_had_taken(prefix: str) -> None:
    with RedisServer() as server:
        async with desk(server.url, prefix, claim_idle=3600) as opened:
            opened.begin()
            await opened.add("a")
            await opened.book.has("a")
            server.kill()
            server.start()
            redis = Redis(server.url)  # that does not know that it was away
            await redis.call("XADD", opened.key, "*", "word", "b")
            taken = ConsumerStream(redis, opened.key, GROUP, "reader")
            await taken.read(10, 0.01)  # in its name: the reply never arrived there
            await taken.close()
            await redis.call("XADD", opened.key, "*", "word", "c")
            await redis.close()
            await opened.book.has("b", "c")
            assert opened.failures() == []


async def test_a_stream_that_vanished_is_made_again_and_nothing_added_before_is_skipped(
    redis_server: RedisServer, prefix: str
) -> None:
    async with desk(redis_server.url, prefix) as opened:
        opened.begin()
        await opened.add("a")
        await opened.book.has("a")
        await opened.redis.call("DEL", opened.key)
        await opened.add("b")
        await opened.book.has("b")
        assert opened.failures() == []


async def test_redis_away_in_the_middle_of_a_batch_is_no_failure_of_an_entry(
    redis_server: RedisServer, prefix: str
) -> None:
    class Interrupted(ReaderActor):
        async def handle(self, entries: Sequence[Entry]) -> None:
            if not self.book.tries:
                self.book.tries.append([])
                raise RedisUnavailable
            await super().handle(entries)

    async with desk(redis_server.url, prefix, claim_idle=3600) as opened:
        await opened.add("a", "b")
        spec = ChildSpec("reader", Interrupted, (opened.stream, opened.book), opened.settings)
        opened.supervisor.spawn(spec)
        await opened.book.has("a", "b")
        assert opened.book.tries == [[], ["a", "b"]]
        assert opened.failures() == []
