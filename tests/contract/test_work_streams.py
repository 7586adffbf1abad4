"""Section 5: how much stands in the work streams, and above what (sentences 5.43 and 5.44)."""

import asyncio

from tests.contract.lines import filled, in_streams, run, until_in_streams, until_waiting, waiting
from tests.contract.talk import talk, talk_to_two, until
from tests.support.fake_executor import TakenTask
from tests.support.redis_server import RedisServer

PATIENCE = 5000  # ms, as the contract says
SLACK = 1000  # ms from when it is decided until the entry is there: the machine has others to serve

# 5.43: prefetch


async def test_5_43_the_work_streams_hold_no_more_than_prefetch_and_are_filled_at_once(
    redis_server: RedisServer, prefix: str
) -> None:
    async with talk(redis_server, prefix, execution={"prefetch": 3}) as each:
        sent = [await each.sent(f"t-{number}/s-1") for number in range(8)]
        assert await waiting(each) == (3, 0)
        for expected in sent[:5]:
            task = await each.executor.take()
            assert task.task_id == expected
            await each.executor.report(task, "started")
            await each.handled(task)
            assert await waiting(each) == (3, 1)
            await each.executor.complete(task)
            await each.handled(task)
        for expected in sent[5:]:
            assert (await each.executor.take()).task_id == expected


async def test_5_43_a_worker_that_says_nothing_is_noticed_all_the_same(
    redis_server: RedisServer, prefix: str
) -> None:
    async with talk(redis_server, prefix, execution={"prefetch": 2}) as each:
        for number in range(4):
            await each.sent(f"t-{number}/s-1")
        await each.executor.take()  # and does not report that it has started
        await until_waiting(each, 2)
        assert await waiting(each) == (2, 1)


async def test_5_43_or_as_many_as_are_being_executed_if_that_is_more(
    redis_server: RedisServer, prefix: str
) -> None:
    async with talk(redis_server, prefix, execution={"prefetch": 1}) as each:
        sent = {await each.sent(f"t-{number}/s-1") for number in range(9)}
        for executing in range(1, 5):
            task = await each.executor.take()
            await each.executor.report(task, "started")
            await until_waiting(each, executing)
            assert await waiting(each) == (executing, executing)
        assert set(await in_streams(each)) < sent


async def test_5_43_what_waits_waits_where_a_higher_priority_still_passes_it(
    redis_server: RedisServer, prefix: str
) -> None:
    async with talk(redis_server, prefix, execution={"prefetch": 2}) as each:
        await filled(each, 2)
        low, normal, high = [
            await each.sent(f"t-{priority}/s-1", priority=priority)
            for priority in ("low", "normal", "high")
        ]
        taken = []
        for _ in range(5):
            task = await each.executor.take()
            taken.append(task.task_id)
            await run(each, task)
            if high not in taken:
                await until_in_streams(each, high)
        assert [task_id for task_id in taken if task_id in {low, normal, high}] == [
            *(high, normal, low)
        ]


async def test_5_43_two_instances_fill_the_same_streams(
    redis_server: RedisServer, prefix: str
) -> None:
    execution = {"prefetch": 3}
    async with talk_to_two(redis_server, prefix, execution=execution) as (each, other):
        services = (each.service, other)
        answers = await asyncio.gather(
            *(services[number % 2].send(f"t-{number}/s-1") for number in range(20))
        )
        assert {answer.status for answer in answers} == {202}
        assert await waiting(each) == (3, 0)
        taken = []
        for _ in answers:
            task = await each.executor.take()
            taken.append(task.task_id)
            await each.executor.report(task, "started")
            assert (await waiting(each))[0] <= 3
            await each.executor.complete(task)
        assert sorted(taken) == sorted(answer.json["task_id"] for answer in answers)


async def test_5_43_a_work_stream_that_is_gone_is_filled_again(
    redis_server: RedisServer, prefix: str
) -> None:
    """What was in it is lost to the workers; what waited in line is not behind it."""
    async with talk(redis_server, prefix, execution={"prefetch": 1}) as each:
        await each.sent("t-1/s-1")
        second = await each.sent("t-2/s-1")
        await each.redis.delete(each.executor.stream("normal"))
        assert (await each.executor.take()).task_id == second


# 5.44: lower priorities


async def test_5_44_an_entry_that_was_passed_for_5_seconds_is_passed_no_more(
    redis_server: RedisServer, prefix: str
) -> None:
    async with talk(redis_server, prefix, execution={"prefetch": 2}) as each:
        low = await each.sent("quiet/s-1", priority="low")
        ((entry_id, _),) = await each.redis.xrange(each.executor.stream("low"))
        passed_until = entered(entry_id) + PATIENCE
        for number in range(3):
            await each.sent(f"loud/s-{number}", priority="high")
        passed: list[TakenTask] = []

        async def another_or_too_late() -> bool:
            another = await each.redis.xlen(each.executor.stream("high"))
            return bool(another) or await each.now_ms() >= passed_until

        while (task := await each.executor.take()).task_id != low:
            passed.append(task)
            assert entered(task.entry_id) <= passed_until + SLACK
            await each.sent(f"loud/more-{len(passed)}", priority="high")  # there is always another
            await asyncio.sleep(0.1)  # as long as it runs
            await run(each, task)
            await until(another_or_too_late)
        assert len(passed) >= 3
        assert await each.now_ms() >= passed_until
        assert (await each.executor.take()).action["tenant_id"] == "loud"  # and they go on


def entered(entry_id: bytes) -> int:
    """When an entry was added, by Redis's clock."""
    return int(entry_id.split(b"-")[0])
