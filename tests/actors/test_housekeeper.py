"""Time is kept: ends, deliveries, worn-out tasks, heartbeats; one bad item spoils no other."""

from typing import Any

import pytest

from actors.housekeeper import HousekeeperActor
from actors.loop_actor import LoopRef
from actors.supervisor import ChildSpec
from common.domain.tasks import TaskStatus
from common.failpoints import armed
from common.queues.due import DueTask
from common.queues.keys import WORK_GROUP
from tests.actors.instance import Instance, instance
from tests.support.follower import eventually
from tests.support.redis_server import RedisServer
from tests.support.stores import OTHER_SESSION, SESSION, callback_fields


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks follow each other at once, so that a test need not wait for them."""
    monkeypatch.setattr("actors.housekeeper.LOOK_EVERY", 0.01)
    monkeypatch.setattr("actors.housekeeper.WORN_OUT_EVERY", 0.05)
    monkeypatch.setattr("actors.housekeeper.BEAT_EVERY", 0.05)
    monkeypatch.setattr("common.queues.work.SCAN_MS", 20)


def begin(running: Instance, instance_id: str = "instance-1") -> LoopRef:
    arguments = (instance_id, running.stores, running.counters)
    return running.supervisor.spawn(
        ChildSpec(f"housekeeper-{instance_id}", HousekeeperActor, arguments)
    )


async def make_due(running: Instance, task_id: Any, session: Any = SESSION) -> None:
    await running.stores.redis.batch([running.stores.due.look_in(session, task_id, 0)])


async def untaken(running: Instance) -> int:
    return sum((await running.stores.work.depth()).untaken.values())


async def test_a_message_that_a_crash_left_behind_is_delivered(
    redis_server: RedisServer, prefix: str
) -> None:
    async with instance(redis_server.url, prefix) as running:
        task_id = await running.stores.submit()
        await make_due(running, task_id)
        begin(running)
        await eventually(lambda: untaken(running))


async def test_a_task_past_its_deadline_ends(redis_server: RedisServer, prefix: str) -> None:
    async with instance(redis_server.url, prefix) as running:
        task_id = await running.stores.submit_and_deliver(timeout=0.01)
        await make_due(running, task_id)
        begin(running)

        async def ended() -> bool:
            return (await running.stores.task(task_id)).status is TaskStatus.TIMEOUT

        await eventually(ended)


async def test_a_task_that_cannot_be_looked_at_keeps_no_other_waiting(
    redis_server: RedisServer, prefix: str
) -> None:
    async with instance(redis_server.url, prefix) as running:
        healthy = await running.stores.submit_and_deliver(timeout=0.01)
        broken = await running.stores.submit(OTHER_SESSION)
        await make_due(running, healthy)
        await make_due(running, broken, OTHER_SESSION)
        with armed("watch.undelivered=raise:2"):  # with the healthy one, and then by itself
            ref = begin(running)

            async def ended() -> bool:
                return (await running.stores.task(healthy)).status is TaskStatus.TIMEOUT

            async def recorded() -> bool:
                return bool(running.supervised())

            await eventually(ended)
            await eventually(recorded)
        assert ref.restarts == 0
        (failure,) = running.supervised()
        assert (failure["outcome"], failure["task_id"]) == ("contained", broken)
        assert failure["message_type"] == "DueTask"


async def take(running: Instance, task_id: Any, attempts: int) -> None:
    """A worker takes the only entry, and counts so many attempts."""
    await running.stores.work.ensure_groups()
    for stream in running.stores.keys.work_streams:
        await running.stores.redis.call(
            *("XREADGROUP", "GROUP", WORK_GROUP, "worker", "STREAMS", stream, ">")
        )
    await running.stores.redis.call("SET", running.stores.keys.attempt(task_id), attempts)


async def test_a_task_tried_more_often_than_allowed_fails_and_is_moved(
    redis_server: RedisServer, prefix: str
) -> None:
    async with instance(redis_server.url, prefix) as running:
        task_id = await running.stores.submit_and_deliver()
        await take(running, task_id, 4)
        with armed("housekeeper.before_bury=raise:1"):
            begin(running)
            await eventually(running.stores.dead_work)
        (letter,) = await running.stores.dead_work()
        assert (letter["reason"], letter["task_id"]) == (b"max_attempts", task_id.encode())
        assert (await running.stores.task(task_id)).status is TaskStatus.FAILED
        assert [each["outcome"] for each in running.supervised()] == ["contained"]
        errors = [e for e in await running.stores.events() if e["type"] == "error"]
        assert len(errors) == 1


async def test_a_last_attempt_that_is_still_under_way_is_left_alone(
    redis_server: RedisServer, prefix: str
) -> None:
    async with instance(redis_server.url, prefix) as running:
        task_id = await running.stores.submit_and_deliver()
        await take(running, task_id, 3)
        ref = begin(running)
        await eventually(lambda: beaten(running))
        await ref.stop()
        assert await running.stores.dead_work() == []
        assert (await running.stores.task(task_id)).status is TaskStatus.QUEUED


async def test_a_last_attempt_may_have_had_its_say_already(
    redis_server: RedisServer, prefix: str
) -> None:
    """Its worker has died, but what that reported at the end still waits to be handled."""
    async with instance(redis_server.url, prefix) as running:
        stores = running.stores
        told, silent = [await stores.submit_and_deliver(each) for each in (SESSION, OTHER_SESSION)]
        await take(running, told, 3)
        await stores.redis.call("SET", stores.keys.attempt(silent), 3)
        seconds, _ = await stores.redis.call("TIME")
        fields = callback_fields(told, 3, 1, "completed", {"response": "done"})
        flat = [part for field in fields.items() for part in field]
        earlier = f"{int(seconds) * 1000 - 100_000}-0"
        await stores.redis.call("XADD", stores.keys.callbacks, earlier, *flat)
        await untouched(running, 120_000)
        ref = begin(running)
        await eventually(lambda: beaten(running))
        await ref.stop()
        assert await stores.dead_work() == []
        await stores.handle()
        begin(running, "instance-2")
        await eventually(stores.dead_work)
        (letter,) = await stores.dead_work()
        assert letter["task_id"] == silent.encode()
        assert (await stores.task(told)).status is TaskStatus.COMPLETED
        assert (await stores.task(silent)).status is TaskStatus.FAILED


async def untouched(running: Instance, ms: int) -> None:
    """As if the worker had last touched its entries so long ago."""
    redis = running.stores.redis
    for stream in running.stores.keys.work_streams:
        for entry_id, *_ in await redis.call("XPENDING", stream, WORK_GROUP, "-", "+", 10):
            await redis.call(
                *("XCLAIM", stream, WORK_GROUP, "worker", 0, entry_id, "IDLE", ms, "JUSTID")
            )


async def beaten(running: Instance) -> bool:
    name = f"{running.stores.keys.instances}"
    return bool(await running.stores.redis.call("ZCARD", name))


async def test_instances_know_of_each_other_until_they_leave(
    redis_server: RedisServer, prefix: str
) -> None:
    async with instance(redis_server.url, prefix) as running:
        await running.connect()
        begin(running, "instance-1")
        second = begin(running, "instance-2")

        async def are_two() -> bool:
            return running.counters.cluster.instances == 2

        async def is_one() -> bool:
            return running.counters.cluster.instances == 1

        await eventually(are_two)
        assert running.counters.cluster.connections == 2  # both tell of the same counters
        await second.stop()
        await eventually(is_one)


async def test_housekeeping_goes_on_by_itself_when_redis_returns(prefix: str) -> None:
    with RedisServer() as server:
        async with instance(server.url, prefix) as running:
            ref = begin(running)
            await eventually(lambda: beaten(running))
            server.stop()

            async def is_away() -> bool:
                return running.counters.redis_away

            async def is_back() -> bool:
                return not running.counters.redis_away

            await eventually(is_away)
            server.start()
            await eventually(is_back)
            server.stop()
            await eventually(is_away)
            await ref.stop()  # cannot say goodbye
            assert running.supervised() == []


async def test_a_housekeeper_that_fails_is_restarted_and_goes_on(
    redis_server: RedisServer, prefix: str
) -> None:
    async with instance(redis_server.url, prefix) as running:
        with armed("housekeeper.on_receive=raise:1,housekeeper.after_take=base:1"):
            ref = begin(running)
            await eventually(lambda: beaten(running))
        assert ref.restarts == 2
        assert [e["error_type"] for e in running.supervised()] == ["InjectedBase", "Injected"]


async def test_a_check_that_finds_redis_away_is_an_interruption_only(
    prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RedisServer() as server:
        async with instance(server.url, prefix) as running:
            task_id = await running.stores.submit()
            await make_due(running, task_id)
            (due,) = [d for d in await running.stores.due.take(10) if d.task_id == task_id]
            ref = begin(running)
            await eventually(lambda: beaten(running))
            server.stop()
            actor = ref._cell.actor
            assert isinstance(actor, HousekeeperActor)

            async def check(due: DueTask) -> None:
                await running.stores.watch.check(due)

            with pytest.raises(Exception, match="out of reach"):
                await actor._each(check, [due, due])
            assert running.supervised() == []
