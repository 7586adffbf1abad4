"""How an attempt ends: cancelled, past its deadline, superseded, above its number (section 5)."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import pytest

from common.domain.ids import TaskId
from common.queues.keys import WORK_GROUP
from execution import Output, Task, Worker
from execution.attempt import DEADLINE_MARGIN
from tests.execution.support import PATIENCE, Orchestrator, Told, at_work, running, text, types
from tests.support.redis_server import RedisServer


class Hanging:
    """An agent that says something and then waits for ever; it notes how it was stopped."""

    def __init__(self) -> None:
        self.stopped = asyncio.Event()
        self.tasks: list[Task] = []

    async def __call__(self, task: Task) -> AsyncIterator[Output]:
        self.tasks.append(task)
        try:
            yield "waiting"
            await asyncio.Event().wait()
        finally:
            self.stopped.set()

    async def was_stopped(self) -> None:
        """Returns once it is."""
        await asyncio.wait_for(self.stopped.wait(), PATIENCE)

    def worker(self) -> Worker:
        worker = Worker()
        worker.agent("hang")(self)
        return worker


async def test_a_cancellation_stops_the_coroutine_and_is_told_after_what_was_streamed(
    redis_server: RedisServer, prefix: str
) -> None:
    hanging = Hanging()
    async with at_work(redis_server, prefix, hanging.worker()) as orchestrator:
        task_id = await orchestrator.submit("hang")
        told = await orchestrator.callbacks(task_id, until="waiting")
        # By the channel alone, so that it was that which told it.
        await orchestrator.cancel(task_id, "the user's wish", set_key=False)
        told += await orchestrator.callbacks(task_id)
        await orchestrator.emptied()
    assert hanging.stopped.is_set()
    assert hanging.tasks[0].cancelled
    assert hanging.tasks[0].cancel_reason == "the user's wish"
    assert [each[1:] for each in told] == [
        (1, "started", {}),
        (2, "delta", {"text": "waiting"}),
        (3, "cancelled", {}),
    ]


@pytest.mark.alone
async def test_a_cancellation_that_the_channel_did_not_tell_is_found_within_five_seconds(
    redis_server: RedisServer, prefix: str
) -> None:
    hanging = Hanging()
    async with at_work(redis_server, prefix, hanging.worker()) as orchestrator:
        task_id = await orchestrator.submit("hang")
        await orchestrator.callbacks(task_id, until="waiting")
        await orchestrator.cancel(task_id, publish=False)
        begun = time.monotonic()
        assert (await orchestrator.callbacks(task_id))[-1].type == "cancelled"
        assert time.monotonic() - begun < 5


async def test_a_task_cancelled_before_it_is_taken_is_not_run(
    redis_server: RedisServer, prefix: str
) -> None:
    hanging = Hanging()
    async with Orchestrator(redis_server.url, prefix) as orchestrator:
        task_id = await orchestrator.submit("hang")
        await orchestrator.cancel(task_id)
        async with running(hanging.worker(), orchestrator):
            assert await orchestrator.callbacks(task_id) == [Told(1, 1, "cancelled", {})]
            await orchestrator.emptied()
    assert hanging.tasks == []


async def test_a_task_past_its_deadline_is_not_run(redis_server: RedisServer, prefix: str) -> None:
    hanging = Hanging()
    async with at_work(redis_server, prefix, hanging.worker()) as orchestrator:
        task_id = await orchestrator.submit("hang", deadline_in=-1)
        assert await orchestrator.callbacks(task_id) == [Told(1, 1, "cancelled", {})]
        await orchestrator.emptied()
    assert hanging.tasks == []


@pytest.mark.alone
async def test_the_worker_stops_an_agent_at_its_deadline_and_lets_the_orchestrator_speak_first(
    redis_server: RedisServer, prefix: str
) -> None:
    hanging, deadline = Hanging(), 1.5
    async with at_work(redis_server, prefix, hanging.worker()) as orchestrator:
        begun = time.monotonic()
        task_id = await orchestrator.submit("hang", deadline_in=deadline)
        await hanging.was_stopped()
        assert deadline - 0.1 < time.monotonic() - begun < deadline + 1
        told = await orchestrator.callbacks(task_id)
        assert types(told) == ["started", "delta", "cancelled"]
        assert time.monotonic() - begun > deadline + DEADLINE_MARGIN - 0.1
        await orchestrator.emptied()


@pytest.mark.alone
async def test_at_the_deadline_the_orchestrators_own_end_is_answered_at_once(
    redis_server: RedisServer, prefix: str
) -> None:
    hanging = Hanging()
    async with at_work(redis_server, prefix, hanging.worker()) as orchestrator:
        task_id = await orchestrator.submit("hang", deadline_in=1.5)
        await hanging.was_stopped()
        begun = time.monotonic()
        await orchestrator.cancel(task_id, "timeout")
        await orchestrator.callbacks(task_id)
        assert time.monotonic() - begun < 1


async def test_an_agent_that_swallows_its_cancellation_is_cut_at_its_next_output(
    redis_server: RedisServer, prefix: str
) -> None:
    worker = Worker()
    closed = asyncio.Event()

    @worker.agent("stubborn")
    async def stubborn(_: Task) -> AsyncIterator[Output]:
        yield "waiting"
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        try:
            while True:
                yield "more"
        finally:
            closed.set()

    async with at_work(redis_server, prefix, worker) as orchestrator:
        task_id = await orchestrator.submit("stubborn")
        told = await orchestrator.callbacks(task_id, until="waiting")
        await orchestrator.cancel(task_id)
        told += await orchestrator.callbacks(task_id)
    assert (text(told), told[-1].type) == ("waiting", "cancelled")
    assert closed.is_set()


async def test_an_attempt_is_counted_and_above_the_most_the_entry_is_left(
    redis_server: RedisServer, prefix: str
) -> None:
    hanging = Hanging()
    async with Orchestrator(redis_server.url, prefix) as orchestrator:
        counter = orchestrator.keys.attempt(TaskId("t"))
        await orchestrator.redis.set(counter, 3)
        await orchestrator.submit("hang", task_id="t", max_attempts=3)
        async with running(hanging.worker(), orchestrator):
            other = await orchestrator.submit("hang", priority="low")
            await orchestrator.callbacks(other, until="waiting")
            await orchestrator.cancel(other)
            await orchestrator.callbacks(other)
            assert await orchestrator.redis.get(counter) == b"4"
            assert 86_000 < await orchestrator.redis.ttl(counter) <= 86_400
            assert await orchestrator.redis.xlen(orchestrator.stream_of("t")) == 0
        assert (await orchestrator.left())[0] == 1
    assert [task.task_id for task in hanging.tasks] == [other]


async def test_while_it_runs_the_entry_never_looks_idle_past_its_visibility_timeout(
    redis_server: RedisServer, prefix: str
) -> None:
    hanging, visibility_ms = Hanging(), 3000  # so long that a busy machine refreshes it in time
    async with (
        Orchestrator(redis_server.url, prefix) as orchestrator,
        running(hanging.worker(), orchestrator),
        running(Hanging().worker(), orchestrator),
    ):
        task_id = await orchestrator.submit("hang", visibility_timeout_ms=visibility_ms)
        await orchestrator.callbacks(task_id, until="waiting")
        for _ in range(40):
            await asyncio.sleep(0.1)
            stream = orchestrator.keys.work_streams[1]
            (pending,) = await orchestrator.redis.xpending_range(stream, WORK_GROUP, "-", "+", 9)
            assert pending["time_since_delivered"] < visibility_ms
        assert await orchestrator.redis.get(orchestrator.keys.attempt(TaskId(task_id))) == b"1"
        await orchestrator.cancel(task_id)
        await orchestrator.callbacks(task_id)


async def test_a_superseded_attempt_stops_and_says_nothing_more(
    redis_server: RedisServer, prefix: str
) -> None:
    hanging = Hanging()
    async with at_work(redis_server, prefix, hanging.worker()) as orchestrator:
        # So long that its worker does not take it up again while this looks.
        task_id = await orchestrator.submit("hang", visibility_timeout_ms=6000)
        told = await orchestrator.callbacks(task_id, until="waiting")
        await orchestrator.redis.incr(orchestrator.keys.attempt(TaskId(task_id)))
        await hanging.was_stopped()
        assert hanging.tasks[0].cancel_reason == "superseded"
        assert await orchestrator.redis.xlen(orchestrator.stream_of(task_id)) == len(told)
        assert await orchestrator.left() == (1, 1)


async def test_an_attempt_superseded_at_its_very_end_leaves_the_entry_alone(
    redis_server: RedisServer, prefix: str
) -> None:
    worker = Worker()
    superseded = asyncio.Event()

    @worker.agent("late")
    async def late(_: Task) -> AsyncIterator[Output]:
        yield "almost"
        await superseded.wait()

    async with Orchestrator(redis_server.url, prefix) as orchestrator:
        async with running(worker, orchestrator):
            task_id = await orchestrator.submit("late")
            await orchestrator.callbacks(task_id, until="almost")
            await orchestrator.redis.incr(orchestrator.keys.attempt(TaskId(task_id)))
            superseded.set()
            assert (await orchestrator.callbacks(task_id))[-1].type == "completed"
        assert await orchestrator.left() == (1, 1)


@pytest.mark.parametrize("how", ["result", "error"])
async def test_what_an_agent_leaves_open_is_closed_when_it_ends(
    redis_server: RedisServer, prefix: str, how: str
) -> None:
    worker = Worker()
    closed = asyncio.Event()

    @worker.agent("open")
    async def opened(_: Task) -> AsyncIterator[Output]:
        try:
            yield "open"
            yield 5 if how == "error" else "fine"  # type: ignore[misc]
        finally:
            await asyncio.sleep(0)
            closed.set()

    async with at_work(redis_server, prefix, worker) as orchestrator:
        await orchestrator.callbacks(await orchestrator.submit("open"))
    assert closed.is_set()
