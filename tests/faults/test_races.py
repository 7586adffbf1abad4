"""Two instances, two ends of one thing, at the same moment: there is exactly one outcome.

What a script of Redis decides is raced on two instances' stores directly, which puts the two as
close together as they get; what clients see is raced by HTTP and WebSocket on two services.
"""

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any

from common.domain.actions import IfBusy, Priority
from common.domain.errors import TaskAlreadyFinished
from common.domain.ids import SessionKey, TaskId
from tests.contract.talk import is_end
from tests.support.client import Answer, next_frame
from tests.support.fake_executor import FakeExecutor
from tests.support.redis_server import RedisServer
from tests.support.service import Running, running_service
from tests.support.stores import Stores, callback_fields, entry_of, key_of, stores

ALL_AT_ONCE = {"prefetch": 2000}  # what is to be raced for stands in the streams
RACES = 1000
AT_ONCE = 50
BUSY_RACES = 100


async def raced(
    races: int, race: Callable[[int, random.Random], Awaitable[str]], at_once: int = AT_ONCE
) -> Counter[str]:
    """How often each outcome came up. Each race draws from a seed of its own."""
    outcomes: Counter[str] = Counter()
    for first in range(0, races, at_once):
        numbers = range(first, min(races, first + at_once))
        outcomes.update(
            await asyncio.gather(*(race(number, random.Random(number)) for number in numbers))
        )
    return outcomes


async def together(order: random.Random, *runners: Awaitable[Any]) -> list[Any]:
    """All of them at once, none of them always first. Results in the order given."""

    async def run(runner: Awaitable[Any], delay: int) -> Any:
        for _ in range(delay):
            await asyncio.sleep(0)
        return await runner

    tasks = [asyncio.ensure_future(run(runner, order.randrange(8))) for runner in runners]
    return list(await asyncio.gather(*tasks))


# What scripts decide.


@contextlib.asynccontextmanager
async def two_stores(
    redis_server: RedisServer, prefix: str, **settings: Any
) -> AsyncIterator[tuple[Stores, Stores]]:
    async with (
        stores(redis_server.url, prefix, socket_timeout=15, **settings) as one,
        stores(redis_server.url, prefix, socket_timeout=15, consumer="two", **settings) as two,
    ):
        yield one, two


async def report(each: Stores, session: SessionKey, task_id: TaskId, *types: str) -> None:
    """Applies callbacks of an attempt that an instance has read: `started` is the first."""
    data = {"completed": {"response": "done"}}
    seqs = {"started": 1}
    await each.callbacks.apply(
        [
            entry_of(
                callback_fields(task_id, 1, seqs.get(type_, 2), type_, data.get(type_, {}), session)
            )
            for type_ in types
        ]
    )


async def end_of(each: Stores, session: SessionKey, task_id: TaskId) -> str:
    """How a task ended, seen to be the same in its status and, once, in the log."""
    status = str((await each.task(task_id)).status)
    ends = [event for event in await each.events(session) if is_end(event)]
    assert len(ends) == 1, ends
    of_log = "completed" if ends[0]["type"] == "agent_response" else ends[0]["data"]["status"]
    assert status == of_log
    return status


async def test_cancel_against_completed(redis_server: RedisServer, prefix: str) -> None:
    async with two_stores(redis_server, prefix, cancel_grace_ms=0) as (one, two):

        async def race(number: int, order: random.Random) -> str:
            session = key_of(f"s-{number}")
            task_id = await one.submit_and_deliver(session)
            is_running = order.random() < 0.5
            if is_running:
                await report(one, session, task_id, "started")

            async def cancel() -> str:
                try:
                    answered = await one.cancel(task_id)
                except TaskAlreadyFinished:
                    return "finished"
                await one.look(task_id, session)  # its grace is over already
                return answered

            rest = ("completed",) if is_running else ("started", "completed")
            answered, _, _ = await together(
                order,
                cancel(),
                report(two, session, task_id, *rest),
                two.look(task_id, session),
            )
            end = await end_of(one, session, task_id)
            allowed = {"cancelled": {"cancelled"}, "finished": {"completed"}}
            assert end in allowed.get(answered, {"cancelled", "completed"})
            return end

        outcomes = await raced(RACES, race)
    assert outcomes.keys() == {"cancelled", "completed"}, outcomes


async def test_deadline_against_completed(redis_server: RedisServer, prefix: str) -> None:
    async with two_stores(redis_server, prefix) as (one, two):

        async def race(number: int, order: random.Random) -> str:
            session = key_of(f"s-{number}")
            task_id = await one.submit_and_deliver(session, timeout=0.001)
            await report(one, session, task_id, "started")
            await together(
                order,
                one.look(task_id, session),
                two.look(task_id, session),
                report(two, session, task_id, "completed"),
            )
            return await end_of(two, session, task_id)

        outcomes = await raced(RACES, race)
    assert outcomes.keys() == {"timeout", "completed"}, outcomes


async def test_a_callback_read_by_two_instances_is_told_once(
    redis_server: RedisServer, prefix: str
) -> None:
    async with two_stores(redis_server, prefix) as (one, two):

        async def race(number: int, order: random.Random) -> str:
            session = key_of(f"s-{number}")
            task_id = await one.submit_and_deliver(session)
            await together(
                order,
                report(one, session, task_id, "started", "completed"),
                report(two, session, task_id, "started", "completed"),
            )
            types = [type_ for type_, _ in await one.told(session)]
            assert types == ["task_update", "agent_response"]
            return await end_of(two, session, task_id)

        assert await raced(RACES, race) == {"completed": RACES}


async def test_a_message_that_gets_in_line_while_the_line_ends_is_delivered_once(
    redis_server: RedisServer, prefix: str
) -> None:
    async with two_stores(redis_server, prefix) as (one, two):

        async def race(number: int, order: random.Random) -> str:
            session = key_of(f"s-{number}")
            first = await one.submit_and_deliver(session, if_busy=IfBusy.ENQUEUE)
            _, second, _ = await together(
                order,
                report(one, session, first, "started", "completed"),
                two.submit_and_deliver(session, if_busy=IfBusy.ENQUEUE),
                two.look(first, session),
            )
            await together(order, one.look(second, session), two.look(second, session))
            return str((await one.task(second)).status)

        assert await raced(RACES // 2, race) == {"queued": RACES // 2}
        entries = await one.redis.call("XRANGE", one.keys.work_stream(Priority.NORMAL), "-", "+")
        delivered = Counter(fields[1] for _, fields in entries)
        assert len(delivered) == RACES
        assert set(delivered.values()) == {1}


# What clients see.


@contextlib.asynccontextmanager
async def two_services(
    redis_server: RedisServer, prefix: str
) -> AsyncIterator[tuple[Running, Running, FakeExecutor]]:
    async with (
        running_service(redis_server.url, prefix, execution=ALL_AT_ONCE) as one,
        running_service(redis_server.url, prefix, execution=ALL_AT_ONCE) as two,
        FakeExecutor(redis_server.url, prefix) as executor,
    ):
        yield one, two, executor


async def test_two_identical_sends_on_two_instances(redis_server: RedisServer, prefix: str) -> None:
    async with two_services(redis_server, prefix) as (one, two, executor):

        async def race(number: int, order: random.Random) -> str:
            session, key = f"acme/s-{number % 10}", f"key-{number}"
            answers = await together(
                order,
                *(each.send(session, str(number), key, if_busy="parallel") for each in (one, two)),
            )
            assert [answer.status for answer in answers] == [202, 202]
            assert answers[0].body == answers[1].body
            replayed = ["Idempotent-Replayed" in answer.headers for answer in answers]
            assert sorted(replayed) == [False, True]
            return "one" if replayed[1] else "two"

        outcomes = await raced(RACES, race)
        assert outcomes.keys() == {"one", "two"}, outcomes
        assert await executor.redis.xlen(executor.stream("normal")) == RACES
        told = [len((await one.events(f"acme/s-{n}", limit=1000))["events"]) for n in range(10)]
        assert sum(told) == RACES


async def test_resume_against_live(redis_server: RedisServer, prefix: str) -> None:
    """Clients join with an offset while events happen: none is missing, none comes twice."""
    async with two_services(redis_server, prefix) as (one, two, _):
        done = asyncio.Event()
        last = 0

        async def happen() -> None:
            nonlocal last
            body = {"tenant_id": "acme", "session_id": "s-1", "message_data": {}}
            while not done.is_set():
                assert (await one.post("/api/ws/send", body)).status == 202
                last += 1

        async with one.connect() as socket:
            epoch = (await next_frame(socket))["data"]["epoch"]
        happening = asyncio.create_task(happen())

        async def race(number: int, order: random.Random) -> str:
            instance, offset = order.choice((one, two)), max(0, last - order.randrange(4))
            options = {"max_queue": None}
            async with instance.connect("acme/s-1", options, epoch=epoch, offset=offset) as socket:
                data = (await next_frame(socket))["data"]
                assert data["recovered"] is True
                until = data["offset"] + 3  # three more than were there: these came live
                seen = [(await next_frame(socket))["offset"] for _ in range(offset, until)]
            assert seen == list(range(offset + 1, until + 1))
            return "replayed" if data["replayed"] else "live"

        try:
            outcomes = await raced(RACES, race, at_once=25)
        finally:
            done.set()
            await happening
    assert outcomes.keys() == {"replayed", "live"}, outcomes


# `if_busy`: two messages to an idle session, one on each instance.


async def both(one: Running, two: Running, session: str, if_busy: str) -> list[Answer]:
    order = random.Random(session)
    return await together(order, *(each.send(session, if_busy=if_busy) for each in (one, two)))


def sessions() -> Iterable[str]:
    return (f"acme/s-{number}" for number in range(BUSY_RACES))


async def raced_sends(one: Running, two: Running, if_busy: str) -> dict[str, list[Answer]]:
    """The answers to both sends of each session."""
    found: dict[str, list[Answer]] = {}
    names = list(sessions())
    for first in range(0, BUSY_RACES, AT_ONCE):
        batch = names[first : first + AT_ONCE]
        answers = await asyncio.gather(*(both(one, two, name, if_busy) for name in batch))
        found.update(zip(batch, answers, strict=True))
    return found


async def tasks_of(each: Running, session: str) -> list[str]:
    """The tasks of a session, in the order of their messages."""
    frames = (await each.events(session))["events"]
    return [frame["task_id"] for frame in frames if frame["type"] == "user_message"]


async def test_of_two_messages_that_reject_a_busy_session_one_is_taken(
    redis_server: RedisServer, prefix: str
) -> None:
    async with two_services(redis_server, prefix) as (one, two, executor):
        found = await raced_sends(one, two, "reject")
        for session, answers in found.items():
            assert sorted(answer.status for answer in answers) == [202, 409]
            (refused,) = [answer for answer in answers if answer.status == 409]
            assert refused.code == "session_busy"
            assert len(await tasks_of(one, session)) == 1
        assert await executor.redis.xlen(executor.stream("normal")) == BUSY_RACES


async def test_of_two_messages_in_line_one_runs_and_the_other_follows(
    redis_server: RedisServer, prefix: str
) -> None:
    async with two_services(redis_server, prefix) as (one, two, executor):
        found = await raced_sends(one, two, "enqueue")
        assert {answer.status for answers in found.values() for answer in answers} == {202}
        in_order = {session: await tasks_of(one, session) for session in found}
        assert await executor.redis.xlen(executor.stream("normal")) == BUSY_RACES
        for turn in range(2):
            taken = [await executor.take() for _ in range(BUSY_RACES)]
            assert {task.task_id for task in taken} == {ids[turn] for ids in in_order.values()}
            for task in taken:
                await executor.complete(task)
        for ids in in_order.values():
            assert (await two.task_ended(ids[1]))["status"] == "completed"


async def test_two_messages_in_parallel_run_at_once(redis_server: RedisServer, prefix: str) -> None:
    async with two_services(redis_server, prefix) as (one, two, executor):
        found = await raced_sends(one, two, "parallel")
        sent = {answer.json["task_id"] for answers in found.values() for answer in answers}
        assert len(sent) == 2 * BUSY_RACES
        taken = {(await executor.take()).task_id for _ in sent}
        assert taken == sent


async def test_of_two_messages_that_interrupt_the_later_runs_and_the_earlier_is_cancelled(
    redis_server: RedisServer, prefix: str
) -> None:
    async with two_services(redis_server, prefix) as (one, two, executor):
        found = await raced_sends(one, two, "interrupt")
        assert {answer.status for answers in found.values() for answer in answers} == {202}
        later = set()
        for session in found:
            ids = await tasks_of(two, session)
            assert len(ids) == 2
            assert (await two.task_ended(ids[0]))["status"] == "cancelled"
            assert await executor.redis.exists(f"{prefix}cancel:{ids[0]}")
            assert (await one.status(ids[1]))["status"] == "queued"
            assert not await executor.redis.exists(f"{prefix}cancel:{ids[1]}")
            later.add(ids[1])
        taken = {(await executor.take()).task_id for _ in range(2 * BUSY_RACES)}
        assert later <= taken


async def test_simultaneous_first_connections_begin_one_log(
    redis_server: RedisServer, prefix: str
) -> None:
    async with two_services(redis_server, prefix) as (one, two, _):

        async def race(number: int, order: random.Random) -> str:
            async def epoch(each: Running) -> str:
                async with each.connect(f"acme/s-{number}") as socket:
                    found: str = (await next_frame(socket))["data"]["epoch"]
                    return found

            epochs = await together(order, epoch(one), epoch(two), epoch(one))
            assert len(set(epochs)) == 1
            return "one"

        assert await raced(BUSY_RACES, race, at_once=10) == {"one": BUSY_RACES}
