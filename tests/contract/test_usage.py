"""Section 3, `GET /usage/{tenant_id}`: what a tenant used on a UTC day, each task once."""

import asyncio
from typing import Any

import orjson
import pytest
from tornado.httpclient import HTTPError

from tests.contract.lines import limited, run
from tests.contract.talk import Talk, talk, talk_to_two, until
from tests.contract.used import COUNTED, SPENT, counted, spend, spent, usage
from tests.support.fake_executor import FakeExecutor, TakenTask
from tests.support.redis_server import RedisServer
from tests.support.service import STARTED_WITHIN, process_service, running_service

DAY = 86_400
KEPT = 90 * DAY
KEY = "6e0c3c0a-52ab-49f0-8a6b-9a4cde0f7a11"
FAILURE = {"error": {"type": "overloaded", "message": "Not today."}}
QUICK: Any = {
    "callbacks": {"claim_idle": 0.2, "poll_seconds": 0.05},
    "execution": {"retry_backoff": 0.1, "cancel_grace": 0.3},
}

# What is counted


async def test_requests_ends_tokens_and_cost_of_a_day(
    redis_server: RedisServer, prefix: str
) -> None:
    async with talk(redis_server, prefix, **QUICK) as each:
        assert await usage(each.service) == {}
        for number in range(2):
            await spend(each, await each.started(f"acme/s-{number}"))
        await counted(each.service, requests=2, completed=2, **spent(2))
        task = await each.started()
        await each.executor.report(task, "failed", FAILURE)
        waiting = await each.sent()
        assert await each.cancel(waiting) == (200, "cancelled")
        late = await each.sent("acme/late", timeout=1)
        await each.service.task_ended(late)
        await counted(
            each.service, requests=5, completed=2, failed=1, cancelled=1, timeout=1, **spent(2)
        )
        assert await usage(each.service, "other") == {}


async def test_each_tenant_has_its_own(redis_server: RedisServer, prefix: str) -> None:
    async with talk(redis_server, prefix) as each:
        await spend(each, await each.started("acme/s-1"))
        await each.sent("other/s-1")
        await counted(each.service, "other", requests=1)
        await counted(each.service, requests=1, completed=1, **spent(1))


async def test_what_is_sent_again_or_refused_is_no_request(
    redis_server: RedisServer, prefix: str
) -> None:
    async with talk(redis_server, prefix, **limited(requests_per_minute=2)) as each:
        for _ in range(3):
            await each.sent(key=KEY)
        statuses = [
            (await each.service.send(message="another body", key=KEY)).status,
            (await each.service.send(message="")).status,
        ]
        await each.sent("acme/s-2")
        statuses.append((await each.service.send("acme/s-3")).status)
        assert statuses == [409, 422, 429]
        await counted(each.service, requests=2)


async def test_numbers_that_are_none_are_not_counted(
    redis_server: RedisServer, prefix: str
) -> None:
    """What agents report is data: it cannot take away what was counted, nor spoil it."""
    async with talk(redis_server, prefix) as each:
        odds: list[Any] = [-5, "7", None, [], {}, True, 1e300]
        for number, odd in enumerate(odds):
            task = await each.started(f"acme/s-{number}")
            spent = {"input_tokens": odd, "output_tokens": 1}
            await each.executor.report(task, "completed", {"response": "", "usage": spent})
            await each.executor.finish(task)
        await counted(each.service, requests=7, completed=7, output_tokens=7)


async def test_an_unknown_day_is_all_zeros_and_what_is_no_day_is_refused(
    redis_server: RedisServer, prefix: str
) -> None:
    async with talk(redis_server, prefix) as each:
        await each.sent()
        answer = await each.service.get("/usage/acme?date=2001-02-03")
        assert answer.status == 200
        assert answer.json == {
            "tenant_id": "acme",
            "date": "2001-02-03",
            **dict.fromkeys(COUNTED, 0),
        }
        for date in ("2001-02-30", "yesterday", "20010203", "", "2001-02-03T00:00:00Z", "*"):
            answer = await each.service.get(f"/usage/acme?date={date}")
            assert (answer.status, answer.code) == (422, "validation_failed"), date
            assert "date" in answer.json["errors"]


async def test_usage_is_kept_for_90_days(redis_server: RedisServer, prefix: str) -> None:
    async with talk(redis_server, prefix) as each:
        await spend(each, await each.started())
        await until(lambda: _is_counted(each))
        keys = [key async for key in each.redis.scan_iter(f"{prefix}*usage*")]
        assert keys
        for key in keys:
            assert KEPT - DAY <= await each.redis.ttl(key) <= KEPT + DAY


async def _is_counted(each: Talk) -> bool:
    return "completed" in await usage(each.service)


# Each once


async def test_callbacks_that_are_repeated_count_once(
    redis_server: RedisServer, prefix: str
) -> None:
    async with talk_to_two(redis_server, prefix) as (each, other):
        task = await each.started()
        for _ in range(20):  # read by either instance, some by both at once
            await each.executor.report(task, "completed", {"response": "done", **SPENT}, seq=2)
        await each.executor.report(task, "failed", FAILURE, seq=3)
        await each.handled(task)
        after = await each.started("acme/s-2")
        await spend(each, after)
        for service in (each.service, other):
            await counted(service, requests=2, completed=2, **spent(2))


async def test_a_task_that_is_tried_again_is_one_request_with_one_end(
    redis_server: RedisServer, prefix: str
) -> None:
    async with talk(redis_server, prefix, **QUICK) as each:
        task = await each.started()
        await each.executor.report(task, "failed", {**FAILURE, "retryable": True, **SPENT})
        await each.executor.finish(task)
        again = await each.executor.take()
        await each.executor.report(again, "started")
        await spend(each, again)
        await counted(each.service, requests=1, completed=1, **spent(1))


async def test_an_end_that_comes_too_late_is_not_counted_beside_the_first(
    redis_server: RedisServer, prefix: str
) -> None:
    async with talk(redis_server, prefix, **QUICK) as each:
        task = await each.started()
        assert await each.cancel(task.task_id) == (202, "cancelling")
        assert (await each.service.task_ended(task.task_id))["status"] == "cancelled"  # the grace
        await each.executor.report(task, "completed", {"response": "too late", **SPENT})
        assert (await each.cancel(task.task_id))[0] == 200
        await run(each, await each.taken("acme/s-2"))
        await counted(each.service, requests=2, cancelled=1, completed=1)


async def test_ends_of_every_kind_at_once_are_all_counted(
    redis_server: RedisServer, prefix: str
) -> None:
    """Cancellations, answers and failures race each other; every task has one end."""
    count = 60
    async with talk_to_two(redis_server, prefix, **QUICK) as (each, other):
        tasks = [await each.taken(f"acme/s-{number}") for number in range(count)]

        async def end(number: int, task: TakenTask) -> None:
            await each.executor.report(task, "started")
            end = ("completed", SPENT) if number % 2 else ("failed", FAILURE)
            service = (each.service, other)[number % 2]
            asked = {"tenant_id": "acme", "task_id": task.task_id}
            await asyncio.gather(
                each.executor.report(task, *end), service.post("/api/chat/cancel", asked)
            )
            await each.executor.finish(task)

        await asyncio.gather(*(end(*pair) for pair in enumerate(tasks)))
        ends = [(await each.service.task_ended(task.task_id))["status"] for task in tasks]
        expected: dict[str, Any] = {name: ends.count(name) for name in set(ends)}
        if done := ends.count("completed"):
            expected |= spent(done)
        await counted(each.service, requests=count, **expected)


@pytest.mark.parametrize(
    "place", ["callbacks.after_read", "callbacks.before_apply", "callbacks.after_apply"]
)
async def test_an_end_by_callback_that_a_crash_cut_off_is_counted_once(
    redis_server: RedisServer, prefix: str, place: str
) -> None:
    async with FakeExecutor(redis_server.url, prefix) as executor:
        environ = {"FAILPOINTS": f"{place}=exit"}
        patient = {**QUICK, "callbacks": {"poll_seconds": 60}}  # it reads nothing before the end
        async with process_service(redis_server.url, prefix, environ=environ, **patient) as first:
            await first.send()
            task = await executor.take()
            await executor.report(task, "completed", {"response": "done", **SPENT})
            assert await first.exited() == 9
        async with running_service(redis_server.url, prefix, **QUICK) as second:
            await counted(second, requests=1, completed=1, **spent(1))


@pytest.mark.parametrize("place", ["housekeeper.after_take", "housekeeper.after_check"])
async def test_an_end_by_a_deadline_that_a_crash_cut_off_is_counted_once(
    redis_server: RedisServer, prefix: str, place: str
) -> None:
    """Whoever takes up what is due dies in the middle of it."""
    async with talk(redis_server, prefix, **QUICK) as each:
        task = await each.taken(timeout=1)
    async with FakeExecutor(redis_server.url, prefix) as executor:
        while (await executor.redis.time())[0] * 1000 <= task.action["deadline"]:
            await asyncio.sleep(0.05)
    environ = {"FAILPOINTS": f"{place}=exit"}
    async with process_service(
        redis_server.url, prefix, environ=environ, is_ready=False, **QUICK
    ) as first:
        assert await first.exited(STARTED_WITHIN) == 9
    async with running_service(redis_server.url, prefix, **QUICK) as second:
        await counted(second, requests=1, timeout=1)


@pytest.mark.parametrize(
    "place",
    [
        *("chat_router.on_batch", "chat_router.after_submit"),
        *("tasks.after_take", "http.before_202"),
    ],
)
async def test_a_message_sent_again_after_a_crash_is_one_request(
    redis_server: RedisServer, prefix: str, place: str
) -> None:
    environ = {"FAILPOINTS": f"{place}=exit"}
    async with running_service(redis_server.url, prefix, **QUICK) as second:
        async with process_service(redis_server.url, prefix, environ=environ, **QUICK) as first:
            with pytest.raises((OSError, HTTPError)):
                await first.send(key=KEY)
            assert await first.exited() == 9
        for _ in range(2):
            assert (await second.send(key=KEY)).status == 202
        await counted(second, requests=1)


async def test_a_failure_made_by_the_orchestrator_counts_as_well(
    redis_server: RedisServer, prefix: str
) -> None:
    async with talk(redis_server, prefix, execution={"max_attempts": 1}) as each:
        task = await each.started()
        await each.executor.count_attempt(task.task_id)
        await counted(each.service, requests=1, failed=1)
        other = await each.started("acme/s-2")
        await each.executor.report(other, "completed", orjson.dumps(["no object"]))
        await counted(each.service, requests=2, failed=2)
