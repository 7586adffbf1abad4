"""A worker's life beside its tasks: claiming, stopping, and a Redis that goes and returns."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator

import pytest
import structlog.testing

from common.domain.ids import TaskId
from common.queues.keys import GIVEN_BACK, WORK_GROUP
from common.queues.work_entries import RedisRefused
from execution import Output, Task, Worker
from tests.execution.support import (
    PATIENCE,
    Orchestrator,
    Told,
    running,
    settings_for,
    text,
    types,
)
from tests.support.follower import eventually
from tests.support.redis_server import RedisServer


class Gated:
    """An agent that speaks, waits for its gate, and speaks again."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.entered = asyncio.Event()
        self.worker = Worker()
        self.worker.agent("gated")(self)

    async def __call__(self, task: Task) -> AsyncIterator[Output]:
        self.entered.set()
        yield f"attempt {task.attempt}"
        await self.gate.wait()
        yield ", done"


async def test_an_entry_that_nobody_refreshes_is_claimed_as_the_next_attempt(
    redis_server: RedisServer, prefix: str
) -> None:
    gated = Gated()
    gated.gate.set()
    async with Orchestrator(redis_server.url, prefix) as orchestrator:
        task_id = await orchestrator.submit("gated", visibility_timeout_ms=400)
        stream = orchestrator.keys.work_streams[1]
        begun = time.monotonic()
        await orchestrator.redis.xreadgroup(WORK_GROUP, "dead", {stream: ">"})
        await orchestrator.redis.incr(orchestrator.keys.attempt(TaskId(task_id)))
        async with running(gated.worker, orchestrator):
            told = await orchestrator.callbacks(task_id)
            await orchestrator.emptied()
    assert 0.4 <= time.monotonic() - begun < PATIENCE
    assert {each.attempt for each in told} == {2}
    assert (told[0].seq, text(told)) == (1, "attempt 2, done")


async def test_each_entry_is_claimed_by_its_own_visibility_timeout(
    redis_server: RedisServer, prefix: str
) -> None:
    gated = Gated()
    gated.gate.set()
    async with Orchestrator(redis_server.url, prefix) as orchestrator:
        await orchestrator.submit("gated", visibility_timeout_ms=60_000)
        soon = await orchestrator.submit("gated", visibility_timeout_ms=100)
        stream = orchestrator.keys.work_streams[1]
        await orchestrator.redis.xreadgroup(WORK_GROUP, "dead", {stream: ">"})
        async with running(gated.worker, orchestrator):
            await orchestrator.callbacks(soon)
            async with asyncio.timeout(PATIENCE):
                while (await orchestrator.left())[0] > 1:
                    await asyncio.sleep(0.01)
            assert await orchestrator.left() == (1, 1)


async def test_an_entry_deleted_while_it_was_pending_is_cleared_away(
    redis_server: RedisServer, prefix: str
) -> None:
    async with Orchestrator(redis_server.url, prefix) as orchestrator:
        await orchestrator.submit("gated")
        stream = orchestrator.keys.work_streams[1]
        ((_, ((entry_id, _),)),) = await orchestrator.redis.xreadgroup(
            WORK_GROUP, "dead", {stream: ">"}
        )
        await orchestrator.redis.xdel(stream, entry_id)
        assert await orchestrator.left() == (0, 1)
        async with running(Gated().worker, orchestrator):
            await orchestrator.emptied()


async def test_a_stop_lets_running_tasks_finish_and_takes_no_more(
    redis_server: RedisServer, prefix: str
) -> None:
    gated = Gated()
    async with Orchestrator(redis_server.url, prefix) as orchestrator:
        async with running(gated.worker, orchestrator) as run:
            task_id = await orchestrator.submit("gated")
            await orchestrator.callbacks(task_id, until="attempt 1")
            with structlog.testing.capture_logs() as logs:
                gated.worker.stop()
                await eventually(lambda: any(line["event"] == "worker.draining" for line in logs))
            await orchestrator.submit("gated")
            await asyncio.sleep(0.2)
            assert not run.done()
            gated.gate.set()
            assert (await orchestrator.callbacks(task_id))[-1].type == "completed"
            await run
        assert await orchestrator.left() == (1, 0)
        assert await orchestrator.consumers() == set()


async def test_what_does_not_finish_is_given_back_and_goes_on_elsewhere_at_once(
    redis_server: RedisServer, prefix: str
) -> None:
    first, second = Gated(), Gated()
    second.gate.set()
    async with Orchestrator(redis_server.url, prefix) as orchestrator:
        async with running(first.worker, orchestrator, drain_seconds=0.2) as run:
            task_id = await orchestrator.submit("gated")
            told = await orchestrator.callbacks(task_id, until="attempt 1")
            first.worker.stop()
            await run
        assert types(told) == ["started", "delta"]
        assert await orchestrator.left() == (1, 1)
        assert await orchestrator.consumers() == {GIVEN_BACK}
        begun = time.monotonic()
        async with running(second.worker, orchestrator):
            told = await orchestrator.callbacks(task_id)
            assert time.monotonic() - begun < 10  # its visibility timeout is a minute
            await orchestrator.emptied()
    assert {each.attempt for each in told} == {2}
    assert text(told) == "attempt 2, done"


async def test_a_second_stop_waits_for_nothing(redis_server: RedisServer, prefix: str) -> None:
    gated = Gated()
    async with Orchestrator(redis_server.url, prefix) as orchestrator:
        async with running(gated.worker, orchestrator) as run:
            task_id = await orchestrator.submit("gated")
            await orchestrator.callbacks(task_id, until="attempt 1")
            gated.worker.stop()
            begun = time.monotonic()
            gated.worker.stop()
            await run
            assert time.monotonic() - begun < 10  # it would drain for 20
        assert await orchestrator.left() == (1, 1)


async def test_without_its_group_a_worker_waits_and_says_so_once(
    redis_server: RedisServer, prefix: str
) -> None:
    gated = Gated()
    gated.gate.set()
    orchestrator = Orchestrator(redis_server.url, prefix)
    with structlog.testing.capture_logs() as logs:
        async with running(gated.worker, orchestrator):
            await eventually(lambda: any(line["event"] == "group.missed" for line in logs))
            await asyncio.sleep(1.2)
            async with orchestrator:
                told = await orchestrator.callbacks(await orchestrator.submit("gated"))
                assert told[-1].type == "completed"
    assert [line["event"] for line in logs].count("group.missed") == 1


@pytest.mark.alone
async def test_a_worker_survives_a_redis_that_goes_and_returns() -> None:
    gated = Gated()
    with RedisServer() as server:
        async with Orchestrator(server.url, "p:") as orchestrator:
            with structlog.testing.capture_logs() as logs:
                async with running(gated.worker, orchestrator):
                    task_id = await orchestrator.submit("gated")
                    told = await orchestrator.callbacks(task_id, until="attempt 1")
                    server.kill()
                    gated.gate.set()
                    await asyncio.sleep(1.0)
                    server.start()
                    begun = time.monotonic()
                    told += await orchestrator.callbacks(task_id)
                    assert time.monotonic() - begun < 5
                    await orchestrator.emptied()
                    after = await orchestrator.callbacks(await orchestrator.submit("gated"))
    assert after[-1].type == "completed"
    # A batch whose reply was lost may be there twice, with the same numbers.
    assert list(dict.fromkeys(each.seq for each in told)) == [1, 2, 3, 4]
    events = [line["event"] for line in logs]
    assert events.count("redis.lost") == events.count("redis.returned") == 1


async def test_a_silent_redis_holds_the_agent_back_and_nothing_is_lost() -> None:
    worker = Worker()
    said = 0

    @worker.agent("ticks")
    async def ticks(_: Task) -> AsyncIterator[Output]:
        nonlocal said
        while said < 300:
            said += 1
            yield f"{said} "
            await asyncio.sleep(0.005)

    with RedisServer() as server:
        async with (
            Orchestrator(server.url, "p:") as orchestrator,
            running(worker, orchestrator, socket_timeout=0.3),
        ):
            task_id = await orchestrator.submit("ticks")
            told = await orchestrator.callbacks(task_id, until="20 ")
            os.kill(server.pid, signal.SIGSTOP)
            held_at = -1
            while said != held_at:  # until it says nothing for a while
                held_at = said
                await asyncio.sleep(0.5)
            assert held_at < 300
            os.kill(server.pid, signal.SIGCONT)
            told += await orchestrator.callbacks(task_id)
            await orchestrator.emptied()
    unique: dict[int, Told] = {each.seq: each for each in told}
    assert sorted(unique) == list(range(1, 303))
    expected = "".join(f"{number} " for number in range(1, 301))
    assert text([unique[seq] for seq in sorted(unique)]) == expected


async def test_a_redis_that_was_emptied_ends_what_ran_and_the_worker_goes_on() -> None:
    gated = Gated()
    with RedisServer() as server:
        async with (
            Orchestrator(server.url, "p:") as orchestrator,
            running(gated.worker, orchestrator),
        ):
            task_id = await orchestrator.submit("gated", visibility_timeout_ms=300)
            await orchestrator.callbacks(task_id, until="attempt 1")
            await orchestrator.redis.flushall()
            await orchestrator.make_groups()
            gated.gate.set()
            told = await orchestrator.callbacks(await orchestrator.submit("gated"))
            assert told[-1].type == "completed"


async def test_one_task_whose_callbacks_are_refused_disturbs_no_other(
    redis_server: RedisServer, prefix: str
) -> None:
    gated = Gated()
    gated.gate.set()
    async with Orchestrator(redis_server.url, prefix) as orchestrator:
        async with running(gated.worker, orchestrator, drain_seconds=0):
            await orchestrator.redis.set("not-a-stream", 1)
            await orchestrator.submit("gated", callback_stream="not-a-stream")
            for _ in range(3):
                told = await orchestrator.callbacks(await orchestrator.submit("gated"))
                assert told[-1].type == "completed"
            async with asyncio.timeout(PATIENCE):
                while await orchestrator.left() != (1, 1):  # an entry goes after its callback
                    await asyncio.sleep(0.01)
        assert await orchestrator.left() == (1, 1)


@pytest.mark.parametrize("user", ["", ":wrong@"])
async def test_a_wrong_password_ends_the_start(prefix: str, user: str) -> None:
    with RedisServer() as server:
        async with Orchestrator(server.url, prefix) as orchestrator:
            await orchestrator.redis.config_set("requirepass", "secret")
            settings = settings_for(orchestrator, redis_url=server.url.replace("//", f"//{user}"))
            with pytest.raises(RedisRefused):
                await Gated().worker.run(settings)


async def test_the_first_line_names_the_agents_and_hides_the_password(
    redis_server: RedisServer, prefix: str
) -> None:
    gated = Gated()
    async with Orchestrator(redis_server.url, prefix) as orchestrator:
        with structlog.testing.capture_logs() as logs:
            async with running(gated.worker, orchestrator, concurrency=3):
                await orchestrator.submit("gated")
                gated.gate.set()
                await gated.entered.wait()
    started = next(line for line in logs if line["event"] == "worker.started")
    assert (started["agents"], started["concurrency"]) == (["gated"], 3)
    assert started["redis"] == redis_server.url
