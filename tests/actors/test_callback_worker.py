"""What workers report ends up in the sessions' logs, counted, though the worker fails between."""

import asyncio

import pytest

from actors.callback_worker import CallbackWorkerActor
from actors.loop_actor import LoopRef
from actors.supervisor import ChildSpec
from common.domain.callbacks import DeadReason
from common.failpoints import armed
from config.settings import CallbackSettings
from tests.actors.instance import WITHIN, Instance, instance
from tests.support.redis_server import RedisServer
from tests.support.stores import OTHER_SESSION, callback_fields

SETTINGS = CallbackSettings(poll_seconds=0.05, claim_idle=0.05)


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was left lying is looked for often."""
    monkeypatch.setattr("actors.stream_worker.CLAIM_EVERY", 0.05)


def begin(running: Instance) -> LoopRef:
    arguments = (running.stores.callbacks, running.counters, SETTINGS)
    return running.supervisor.spawn(ChildSpec("callback_worker", CallbackWorkerActor, arguments))


async def test_callbacks_reach_the_clients_of_their_sessions(
    redis_server: RedisServer, prefix: str
) -> None:
    async with instance(redis_server.url, prefix) as running:
        _, transport = await running.connect()
        task_id = await running.stores.submit()
        begin(running)
        reports = [(1, "started", {}), (2, "delta", {"text": "Hi"}), (2, "delta", {"text": "Hi"})]
        for seq, type_, data in [*reports, (3, "completed", {"response": "Hi"})]:
            await running.stores.add(callback_fields(task_id, 1, seq, type_, data))
        await transport.frame("agent_response")
        await running.supervisor.stop()
        assert transport.offsets == [1, 2, 3, 4]
        assert running.counters.callbacks == {"applied": 3, "duplicate": 1}


async def test_what_cannot_be_used_is_set_aside_and_counted(
    redis_server: RedisServer, prefix: str
) -> None:
    async with instance(redis_server.url, prefix) as running:
        _, transport = await running.connect()
        task_id = await running.stores.submit()
        await running.stores.add({"nonsense": "x"})
        await running.stores.add(callback_fields(task_id, 1, 1, "completed", {"response": ""}))
        begin(running)
        await transport.frame("agent_response")
        await running.supervisor.stop()
        assert running.counters.dead_callbacks == {"unreadable": 1}
        assert [letter["reason"] for letter in await running.stores.dead()] == [b"unreadable"]


async def test_a_failure_between_applying_and_acking_shows_nothing_twice(
    redis_server: RedisServer, prefix: str
) -> None:
    async with instance(redis_server.url, prefix) as running:
        _, transport = await running.connect()
        first = await running.stores.submit()
        second = await running.stores.submit(OTHER_SESSION)
        for session, task_id in ((None, first), (OTHER_SESSION, second)):
            more = {} if session is None else {"session": session}
            await running.stores.add(callback_fields(task_id, 1, 1, "started", {}, **more))
            await running.stores.add(callback_fields(task_id, 1, 2, "completed", {}, **more))
        with armed("callbacks.after_apply=raise:2"):
            begin(running)
            await transport.frame("agent_response")
            async with asyncio.timeout(WITHIN):
                while sum(await running.stores.callbacks.stream.waiting()):
                    await asyncio.sleep(0.01)
        assert transport.offsets == [1, 2, 3]
        assert await running.stores.dead() == []
        assert [e["type"] for e in await running.stores.events(OTHER_SESSION)] == [
            "user_message",
            "task_update",
            "agent_response",
        ]


async def test_a_callback_that_breaks_us_every_time_becomes_a_dead_letter(
    redis_server: RedisServer, prefix: str
) -> None:
    async with instance(redis_server.url, prefix) as running:
        task_id = await running.stores.submit()
        await running.stores.add(callback_fields(task_id, 1, 1, "started", {}))
        with armed("callbacks.after_apply=raise"):
            ref = begin(running)
            async with asyncio.timeout(WITHIN):
                while not running.counters.dead_callbacks:
                    await asyncio.sleep(0.01)
        assert running.counters.dead_callbacks == {DeadReason.UNREADABLE: 1}
        (letter,) = await running.stores.dead()
        assert letter["task_id"] == task_id.encode()
        assert ref.restarts == 0
        assert {each["outcome"] for each in running.supervised()} == {"contained"}
