"""Fifty at once, at two instances: never one more than a limit allows, never one fewer."""

import asyncio
import contextlib
import itertools
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tornado.httpclient import HTTPError

from tests.support.client import Address, Answer
from tests.support.fake_executor import FakeExecutor, TakenTask
from tests.support.follower import eventually
from tests.support.redis_server import RedisServer
from tests.support.service import RunningProcess, process_service

AT_ONCE = 50
DAY = 24 * 3600  # seconds
LOST = (OSError, HTTPError)  # what a sender sees of an instance that was killed
KEY = "0d5c7b1e-3a64-4f0b-9c7e-2b1a4d6f8e90"


@contextlib.asynccontextmanager
async def two_instances(
    redis_server: RedisServer, prefix: str, limits: Mapping[str, Any], failing: str = ""
) -> AsyncIterator[tuple[RunningProcess, RunningProcess]]:
    """Of tenant `acme`, that has these limits; the first one fails where it is told to."""
    settings: Any = {
        "tiers": {"limited": limits},
        "tenants": {"acme": {"tier": "limited"}},
        "callbacks": {"poll_seconds": 0.05, "claim_idle": 0.5},
    }
    environ = {"FAILPOINTS": failing} if failing else {}
    async with (
        process_service(redis_server.url, prefix, environ=environ, **settings) as first,
        process_service(redis_server.url, prefix, **settings) as second,
    ):
        yield first, second


async def burst(
    addresses: Sequence[Address], *, session: str = "", keys: Sequence[str] = (), count: int = 0
) -> list[Answer | BaseException]:
    """As many messages at once, by turns to each instance; to a session each, if none is named."""
    count = count or len(keys) or AT_ONCE
    return await asyncio.gather(
        *(
            address.send(session or f"acme/s-{number}", key=keys[number] if keys else "")
            for number, address in zip(range(count), itertools.cycle(addresses), strict=False)
        ),
        return_exceptions=True,
    )


def accepted(answers: Sequence[Answer | BaseException]) -> list[str]:
    """The tasks of those that were accepted; all others were refused with 429."""
    found = [answer for answer in answers if isinstance(answer, Answer)]
    assert {answer.status for answer in found} <= {202, 429}, found
    return [answer.json["task_id"] for answer in found if answer.status == 202]


def codes(answers: Sequence[Answer | BaseException]) -> set[str]:
    """Of those that were refused."""
    return {each.code for each in answers if isinstance(each, Answer) and each.status != 202}


async def told_messages(address: Address, count: int = AT_ONCE) -> int:
    """How many messages the logs of the sessions have: what was really taken."""
    pages = await asyncio.gather(*(address.events(f"acme/s-{n}") for n in range(count)))
    return sum(
        event["type"] == "user_message" for page in pages for event in page["events"]
    )  # fmt: skip


async def run_one(executor: FakeExecutor, usage: dict[str, int] | None = None) -> TakenTask:
    task = await executor.take()
    await executor.report(task, "started")
    await executor.report(task, "completed", {"response": "done", "usage": usage or {}})
    await executor.finish(task)
    await eventually(lambda: _all_is_handled(executor, task))
    return task


async def _all_is_handled(executor: FakeExecutor, task: TakenTask) -> bool:
    return not await executor.redis.xlen(task.action["callback_stream"])


# Without faults: exactly as many


@pytest.mark.parametrize("setting", ["requests_per_minute", "requests_per_hour"])
async def test_a_window_of_requests_is_exact(
    redis_server: RedisServer, prefix: str, setting: str
) -> None:
    async with two_instances(redis_server, prefix, {setting: 17}) as instances:
        answers = await burst(instances)
        assert len(set(accepted(answers))) == 17
        assert codes(answers) == {"rate_limited"}
        assert await told_messages(instances[0]) == 17
        assert accepted(await burst(instances)) == []


async def test_a_window_is_exact_to_the_last_place(redis_server: RedisServer, prefix: str) -> None:
    async with two_instances(redis_server, prefix, {"requests_per_minute": 41}) as instances:
        assert len(accepted(await burst(instances, count=20))) == 20
        assert len(accepted(await burst(instances, count=20))) == 20
        assert len(accepted(await burst(instances))) == 1


async def test_of_two_windows_the_narrower_decides_and_the_wider_counts_no_more(
    redis_server: RedisServer, prefix: str
) -> None:
    limits = {"requests_per_minute": 11, "requests_per_hour": 12}
    async with two_instances(redis_server, prefix, limits) as instances:
        assert len(accepted(await burst(instances))) == 11  # refused ones left no trace
        assert len(accepted(await burst(instances))) == 0


async def test_the_queue_is_exact_beside_what_runs(redis_server: RedisServer, prefix: str) -> None:
    """Those that run do not wait: as many as may run, and as many as may wait."""
    limits = {"max_running": 3, "max_queued": 8}
    async with (
        two_instances(redis_server, prefix, limits) as instances,
        FakeExecutor(redis_server.url, prefix) as executor,
    ):
        answers = await burst(instances)
        assert len(set(accepted(answers))) == 3 + 8
        assert codes(answers) == {"queue_full"}
        assert await told_messages(instances[0]) == 3 + 8
        for _ in range(2):
            await run_one(executor)
        await eventually(lambda: _entries(executor, 3))  # two have moved on
        assert len(accepted(await burst(instances))) == 2


async def _entries(executor: FakeExecutor, count: int) -> bool:
    return bool(await executor.redis.xlen(executor.stream("normal")) == count)


async def test_the_queue_is_exact_where_all_wait_in_one_session(
    redis_server: RedisServer, prefix: str
) -> None:
    """One runs, whatever else might: the others wait behind it."""
    limits = {"max_running": 20, "max_queued": 8}
    async with two_instances(redis_server, prefix, limits) as instances:
        answers = await burst(instances, session="acme/s-0")
        assert len(set(accepted(answers))) == 1 + 8
        assert codes(answers) == {"queue_full"}


async def test_the_queue_is_exact_while_the_work_streams_are_full(
    redis_server: RedisServer, prefix: str
) -> None:
    """Where nothing can move on, only the line is left."""
    async with two_instances(redis_server, prefix, {"max_queued": 8}) as instances:
        first, _ = instances
        others = await asyncio.gather(*(first.send(f"other/s-{n}") for n in range(16)))
        assert {answer.status for answer in others} == {202}
        assert len(set(accepted(await burst(instances)))) == 8


async def test_tokens_are_exact(redis_server: RedisServer, prefix: str) -> None:
    """One token left is enough for all that come; none left for nobody."""
    async with (
        two_instances(redis_server, prefix, {"tokens_per_day": 100}) as instances,
        FakeExecutor(redis_server.url, prefix) as executor,
    ):
        await _day_lasts(executor)
        await instances[0].send("acme/first")
        await run_one(executor, {"input_tokens": 50, "output_tokens": 49})
        await eventually(lambda: _has_ended(instances[1], 1))
        assert len(accepted(await burst(instances))) == AT_ONCE
        await run_one(executor, {"input_tokens": 1, "output_tokens": 0})
        await eventually(lambda: _has_ended(instances[1], 2))
        answers = await burst(instances)
        assert accepted(answers) == []
        assert codes(answers) == {"quota_exceeded"}


async def _day_lasts(executor: FakeExecutor, seconds: float = 30) -> None:
    """Returns where so much of the UTC day is left, by Redis's clock: at midnight it waits."""
    now, _ = await executor.redis.time()
    left = DAY - now % DAY
    if left < seconds:
        await asyncio.sleep(left + 1)


async def _has_ended(address: Address, count: int) -> bool:
    """Whether so many completed tasks, and what they used, were counted."""
    now = datetime.now(UTC)
    days = {(now - timedelta(minutes=ago)).date().isoformat() for ago in (0, 1)}
    found = [(await address.get(f"/usage/acme?date={day}")).json["completed"] for day in days]
    return bool(sum(found) == count)


async def test_a_message_sent_fifty_times_with_one_key_takes_one_place(
    redis_server: RedisServer, prefix: str
) -> None:
    async with two_instances(redis_server, prefix, {"requests_per_minute": 7}) as instances:
        same = await burst(instances, session="acme/s-0", keys=[KEY] * AT_ONCE)
        assert len(accepted(same)) == AT_ONCE
        assert len(set(accepted(same))) == 1
        assert len(accepted(await burst(instances))) == 6


async def test_a_message_sent_fifty_times_with_one_key_waits_in_one_place(
    redis_server: RedisServer, prefix: str
) -> None:
    limits = {"max_running": 1, "max_queued": 4}
    async with two_instances(redis_server, prefix, limits) as instances:
        await instances[0].send("acme/first")
        same = await burst(instances, session="acme/s-0", keys=[KEY] * AT_ONCE)
        assert len(accepted(same)) == AT_ONCE
        assert len(set(accepted(same))) == 1
        assert len(accepted(await burst(instances))) == 3


# While an instance is killed: never one more


async def burst_and_kill(
    instances: tuple[RunningProcess, RunningProcess], keys: Sequence[str]
) -> list[Answer | BaseException]:
    """The first instance is killed as soon as any message is answered."""
    first, second = instances
    sends = [
        asyncio.create_task((first, second)[number % 2].send(f"acme/s-{number}", key=key))
        for number, key in enumerate(keys)
    ]
    await asyncio.wait(sends, return_when=asyncio.FIRST_COMPLETED)
    await first.kill()
    return await asyncio.gather(*sends, return_exceptions=True)


@pytest.mark.parametrize(
    "limits", [{"requests_per_minute": 17}, {"max_running": 3, "max_queued": 14}]
)
async def test_a_limit_holds_while_an_instance_is_killed(
    redis_server: RedisServer, prefix: str, limits: dict[str, int]
) -> None:
    keys = [str(uuid.uuid4()) for _ in range(AT_ONCE)]
    async with two_instances(redis_server, prefix, limits) as instances:
        answers = await burst_and_kill(instances, keys)
        assert all(isinstance(answer, Answer | OSError | HTTPError) for answer in answers)
        again = await burst(instances[1:], keys=keys)  # all of them, as clients do
        tasks = {*accepted(answers), *accepted(again)}
        assert set(accepted(answers)) <= set(accepted(again))  # none was taken back
        assert len(tasks) <= 17
        assert await told_messages(instances[1]) == len(tasks)


@pytest.mark.parametrize(
    "place",
    [
        *("chat_router.on_batch", "chat_router.after_submit"),
        *("tasks.after_take", "http.before_202"),
    ],
)
async def test_a_place_taken_by_a_message_that_a_crash_cut_off_is_that_messages_own(
    redis_server: RedisServer, prefix: str, place: str
) -> None:
    async with two_instances(
        redis_server, prefix, {"requests_per_minute": 1}, f"{place}=exit"
    ) as instances:
        first, second = instances
        with pytest.raises(LOST):
            await first.send("acme/s-0", key=KEY)
        assert await first.exited() == 9
        again = await second.send("acme/s-0", key=KEY)
        assert again.status == 202
        assert (await second.send("acme/s-1")).code == "rate_limited"
        assert await told_messages(second, 2) == 1
