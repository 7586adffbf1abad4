"""Tenants that want all of it at once: each gets its share, and nobody waits for a flood."""

import asyncio
import collections
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tornado.httpclient import HTTPError

from tests.support.crew import Crew, flood, post_all, sampled
from tests.support.fake_executor import FakeExecutor
from tests.support.figures import measured
from tests.support.redis_server import RedisServer
from tests.support.service import RunningProcess, process_service, running_service

PREFETCH = 8
PASSED_OVER = 5.0  # seconds that a lower priority may be, in line and again in its stream
Instances = tuple[RunningProcess, RunningProcess]


@contextlib.asynccontextmanager
async def two_instances(
    redis_url: str, prefix: str, prefetch: int = PREFETCH, **settings: Any
) -> AsyncIterator[Instances]:
    settings = {
        "execution": {"prefetch": prefetch},
        "callbacks": {"poll_seconds": 0.05, "claim_idle": 0.5},
        **settings,
    }
    async with (
        process_service(redis_url, prefix, **settings) as first,
        process_service(redis_url, prefix, **settings) as second,
    ):
        yield first, second


def sessions_of(tenant_id: str, count: int, sessions: int = 100) -> list[str]:
    return [f"{tenant_id}/s-{number % sessions}" for number in range(count)]


async def flood_both(instances: Instances, tenant_id: str, count: int, **fields: Any) -> None:
    half = sessions_of(tenant_id, count // 2)
    await asyncio.gather(*(flood(each, half, **fields) for each in instances))


@pytest.mark.alone
async def test_10_000_messages_of_one_tenant_delay_anothers_by_no_more_than_the_work_streams_hold(
    prefix: str,
) -> None:
    with RedisServer() as server:
        async with (
            two_instances(server.url, prefix, default_tier="open", tiers={"open": {}}) as instances,
            Crew(server.url, prefix, workers=2, pause=0.005) as crew,
        ):
            await flood_both(instances, "flood", 10_000)
            for number, instance in enumerate(instances):
                await check_delay_to_the_letter(crew, instance, f"patient-{number}")
            async with crew.at_work():
                for number in range(4):
                    await check_delay(crew, instances[number % 2], f"single-{number}")
                await instances[0].kill()
                for number in range(4, 10):
                    await check_delay(crew, instances[1], f"single-{number}")
            crew.check_that_nothing_ran_twice()


async def check_delay_to_the_letter(crew: Crew, instance: RunningProcess, tenant_id: str) -> None:
    """While the workers rest, all that is ahead can be counted."""
    async with crew.at_work():
        goal = len(crew.starts) + 40
        await crew.until(lambda: len(crew.starts) >= goal)
    answer = await instance.send(f"{tenant_id}/s-1")
    assert answer.status == 202
    ahead, _ = await crew.waiting()
    assert ahead <= PREFETCH
    before = len(crew.starts)
    async with crew.at_work():
        place = await crew.has_started(answer.json["task_id"])
    assert place - before <= ahead


async def check_delay(crew: Crew, instance: RunningProcess, tenant_id: str) -> None:
    """The same in full swing."""
    answer = await instance.send(f"{tenant_id}/s-1")
    assert answer.status == 202
    before = len(crew.starts)
    place = await crew.has_started(answer.json["task_id"])
    assert place - before <= PREFETCH


@pytest.mark.alone
async def test_busy_tenants_get_shares_of_1000_tasks_as_their_weights_say(prefix: str) -> None:
    weights = {"one": 1, "two": 2, "four": 4}
    settings: Any = {
        "tiers": {name: {"weight": weight} for name, weight in weights.items()},
        "tenants": {name: {"tier": name} for name in weights},
    }
    with RedisServer() as server:
        async with (
            two_instances(server.url, prefix, **settings) as instances,
            Crew(server.url, prefix, workers=2, at_once=2) as crew,
        ):
            for name, weight in weights.items():
                await flood_both(instances, name, 100 + 160 * weight)
            async with crew.at_work():
                await crew.until(lambda: len(crew.starts) >= PREFETCH + 1000)
            counted = crew.starts[PREFETCH : PREFETCH + 1000]  # the first came to empty streams
            shares = collections.Counter(start.tenant_id for start in counted)
            for name, weight in weights.items():
                fair = 1000 * weight / sum(weights.values())
                measured(f"share of weight {weight} in 1000 tasks", shares[name], "tasks")
                assert 0.9 * fair <= shares[name] <= 1.1 * fair, shares
            crew.check_that_nothing_ran_twice()


async def test_a_flood_of_high_priority_does_not_starve_the_low_one_of_another_tenant(
    redis_server: RedisServer, prefix: str
) -> None:
    async with (
        two_instances(redis_server.url, prefix) as instances,
        Crew(redis_server.url, prefix, workers=2, pause=0.05) as crew,
    ):
        await flood_both(instances, "loud", 700, priority="high")
        (low,) = await flood(instances[0], ["quiet/s-1"], priority="low")
        async with crew.at_work():
            place = await crew.has_started(low, within=2 * PASSED_OVER + 5)
            goal = place + 20  # and the others go on
            await crew.until(lambda: len(crew.starts) >= goal)
        assert crew.ended < 700  # there was something to pass it all the time
        crew.check_that_nothing_ran_twice()


async def test_high_priority_goes_first_across_tenants(
    redis_server: RedisServer, prefix: str
) -> None:
    async with (
        two_instances(redis_server.url, prefix) as instances,
        Crew(redis_server.url, prefix, workers=2) as crew,
    ):
        await flood_both(instances, "busy", 100)
        high = await flood(instances[0], sessions_of("urgent", 20), priority="high")
        async with crew.at_work():
            for task_id in high:
                assert await crew.has_started(task_id) < PREFETCH + len(high)
            await crew.until(lambda: crew.ended == 120)
        crew.check_that_nothing_ran_twice()


@pytest.mark.alone
async def test_a_session_each_of_1000_tenants_all_come_to_an_end(
    redis_server: RedisServer, prefix: str
) -> None:
    names = [f"tenant-{number}" for number in range(1000)]
    async with (
        two_instances(redis_server.url, prefix) as instances,
        Crew(redis_server.url, prefix, workers=2, at_once=4) as crew,
    ):
        halves = (names[:500], names[500:])
        sent = await asyncio.gather(
            *(
                flood(instance, [f"{name}/s-1" for name in half])
                for instance, half in zip(instances, halves, strict=True)
            )
        )
        async with crew.at_work():
            await crew.until(lambda: crew.ended == 1000)
        crew.check_that_nothing_ran_twice()
        asked = [
            {"tenant_id": name, "task_id": task_id}
            for name, task_id in zip(names, [*sent[0], *sent[1]], strict=True)
        ]

        async def all_have_completed() -> bool:
            answers = await post_all(instances[1], "/api/chat/status", asked)
            return {answer.json["status"] for answer in answers} == {"completed"}

        async with asyncio.timeout(10):
            while not await all_have_completed():
                await asyncio.sleep(0.1)


async def test_prefetch_is_never_exceeded_whatever_two_instances_do(
    redis_server: RedisServer, prefix: str
) -> None:
    async with (
        two_instances(redis_server.url, prefix) as instances,
        Crew(redis_server.url, prefix, workers=2, at_once=3, pause=0.01) as crew,
        sampled(crew) as samples,
        asyncio.TaskGroup() as flooding,
    ):
        for number in range(3):
            flooding.create_task(flood_both(instances, f"t-{number}", 100))
        flooding.create_task(flood_both(instances, "urgent", 100, priority="high"))
        flooding.create_task(flood_both(instances, "patient", 100, priority="low"))
        # Who takes faster than a slow machine is flooded would never see the streams full.
        await crew.until(lambda: samples and samples[-1][0] == PREFETCH)
        async with crew.at_work():
            await crew.until(lambda: crew.ended == 500)
    assert len(samples) > 100
    assert max(untaken for untaken, _ in samples) == PREFETCH
    crew.check_that_nothing_ran_twice()


async def test_the_streams_hold_as_many_as_are_executed_and_never_more(
    redis_server: RedisServer, prefix: str
) -> None:
    most = 12  # that the workers run at once
    async with (
        two_instances(redis_server.url, prefix, prefetch=2) as instances,
        Crew(redis_server.url, prefix, workers=2, at_once=most // 2, pause=0.1) as crew,
        sampled(crew) as samples,
    ):
        await flood_both(instances, "busy", 300)
        async with crew.at_work():
            await crew.until(lambda: crew.ended == 300)
    assert 2 < max(untaken for untaken, _ in samples) <= most
    crew.check_that_nothing_ran_twice()


@pytest.mark.parametrize("place", ["tasks.after_take", "housekeeper.after_check"])
async def test_a_mover_that_dies_loses_nothing_and_moves_nothing_twice(
    redis_server: RedisServer, prefix: str, place: str
) -> None:
    execution = {"prefetch": 2}
    async with (
        process_service(redis_server.url, prefix, execution=execution) as second,
        Crew(redis_server.url, prefix, workers=2, pause=0.002) as crew,
    ):
        await flood(second, sessions_of("busy", 50))
        environ = {"FAILPOINTS": f"{place}=exit"}
        async with (
            process_service(
                redis_server.url, prefix, environ=environ, is_ready=False, execution=execution
            ) as first,
            crew.at_work(),
        ):
            sender = asyncio.create_task(_send_when_ready(first))
            assert await first.exited() == 9
            sender.cancel()
            await crew.until(lambda: crew.ended >= 50)
        crew.check_that_nothing_ran_twice()


async def _send_when_ready(instance: RunningProcess) -> None:
    """If it ever is; whatever comes of it."""
    with contextlib.suppress(OSError, HTTPError):
        await instance.ready()
        await instance.send("other/s-1")


async def test_a_task_that_waits_for_its_next_attempt_holds_its_tenants_place(
    redis_server: RedisServer, prefix: str
) -> None:
    settings: Any = {
        "tiers": {"one": {"max_running": 1}},
        "tenants": {"acme": {"tier": "one"}},
        "execution": {"retry_backoff": 1},
    }
    async with (
        running_service(redis_server.url, prefix, **settings) as service,
        FakeExecutor(redis_server.url, prefix) as executor,
    ):
        first = (await service.send("acme/s-1")).json["task_id"]
        second = (await service.send("acme/s-2")).json["task_id"]
        task = await executor.take()
        await executor.report(task, "started")
        failure = {"error": {"type": "overloaded", "message": "Later."}, "retryable": True}
        await executor.report(task, "failed", failure)
        await executor.finish(task)
        again = await executor.take()
        assert (again.task_id, again.attempt) == (first, 2)
        assert await executor.redis.xlen(again.stream) == 1  # the second still waits
        await executor.report(again, "started")
        await executor.complete(again)
        assert (await executor.take()).task_id == second
