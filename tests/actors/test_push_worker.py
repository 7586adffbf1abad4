"""Pushes of other services are done once each; what cannot be read stops none behind it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest

from actors.loop_actor import LoopRef
from actors.push_worker import PushWorkerActor
from actors.supervisor import ChildSpec
from common.domain.ids import new_id
from common.failpoints import armed
from config.settings import CallbackSettings, ExecutionSettings
from orchestrator.schemas import Schemas
from tests.actors.instance import WITHIN, Instance, instance
from tests.support.redis_server import RedisServer
from tests.support.stores import ACME, SESSION

SETTINGS = CallbackSettings(poll_seconds=0.05, claim_idle=0.05)


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was left lying is looked for often."""
    monkeypatch.setattr("actors.stream_worker.CLAIM_EVERY", 0.05)


class Pushing:
    """An instance with a push worker, and the service that pushes."""

    def __init__(self, running: Instance) -> None:
        self.running = running

    def begin(self) -> LoopRef:
        kept = self.running.stores
        decode = Schemas(ExecutionSettings(), {}).queued_push
        arguments = (kept.pushes, kept.log, decode, self.running.counters, SETTINGS)
        return self.running.supervisor.spawn(ChildSpec("push_worker", PushWorkerActor, arguments))

    async def add(self, action: Any) -> None:
        text = action if isinstance(action, bytes) else orjson.dumps(action)
        await self.running.stores.redis.call(
            "XADD", self.running.stores.keys.actions, "*", "action", text
        )

    async def finished(self) -> None:
        """Returns once nothing is left in the stream."""
        async with asyncio.timeout(WITHIN):
            while sum(await self.running.stores.pushes.stream.waiting()):
                await asyncio.sleep(0.01)


@asynccontextmanager
async def pushing(redis_server: RedisServer, prefix: str) -> AsyncIterator[Pushing]:
    async with instance(redis_server.url, prefix) as running:
        await running.stores.pushes.stream.ensure_group()
        yield Pushing(running)


def to_session(number: int, action_id: str = "") -> dict[str, Any]:
    return {
        "action_type": "websocket.send_message",
        "action_id": action_id or new_id(),
        "tenant_id": ACME,
        "session_id": SESSION.session_id,
        "message_type": "note",
        "message_data": {"number": number},
    }


def to_all() -> dict[str, Any]:
    return {
        "action_type": "websocket.broadcast",
        "action_id": new_id(),
        "tenant_id": ACME,
        "message_data": {"all": True},
    }


async def test_pushes_reach_their_sessions_in_order(redis_server: RedisServer, prefix: str) -> None:
    async with pushing(redis_server, prefix) as pushed:
        _, transport = await pushed.running.connect()
        pushed.begin()
        for number in range(3):
            await pushed.add(to_session(number))
        await pushed.add(to_all())
        assert (await transport.frame("broadcast"))["data"] == {"all": True}
        notes = [frame["data"]["number"] for frame in transport.frames if frame["type"] == "note"]
        assert notes == [0, 1, 2]
        await pushed.finished()


async def test_an_action_added_twice_is_done_once(redis_server: RedisServer, prefix: str) -> None:
    async with pushing(redis_server, prefix) as pushed:
        same = to_session(1, new_id())
        await pushed.add(same)
        await pushed.add(same)
        pushed.begin()
        await pushed.finished()
        assert len(await pushed.running.stores.events()) == 1


async def test_what_cannot_be_read_is_set_aside_and_stops_none_behind_it(
    redis_server: RedisServer, prefix: str
) -> None:
    async with pushing(redis_server, prefix) as pushed:
        for bad in (b"no JSON", b"[]", b'{"action_type":"chat.send_message"}', b"\xff"):
            await pushed.add(bad)
        await pushed.add({**to_session(1), "message_type": "ack"})
        await pushed.add(to_session(2))
        ref = pushed.begin()
        await pushed.finished()
        (event,) = await pushed.running.stores.events()
        assert event["data"] == {"number": 2}
        letters = await pushed.running.stores.dead()
        assert [letter["reason"] for letter in letters] == [b"bad_action"] * 5
        assert (ref.restarts, pushed.running.supervised()) == (0, [])


async def test_a_failure_after_a_push_was_done_does_not_do_it_again(
    redis_server: RedisServer, prefix: str
) -> None:
    async with pushing(redis_server, prefix) as pushed:
        await pushed.add(to_session(1))
        await pushed.add(to_session(2))
        with armed("pushes.after_apply=raise:2"):
            pushed.begin()
            await pushed.finished()
        events = await pushed.running.stores.events()
        assert [event["data"]["number"] for event in events] == [1, 2]


async def test_a_push_that_breaks_us_every_time_becomes_a_dead_letter(
    redis_server: RedisServer, prefix: str
) -> None:
    async with pushing(redis_server, prefix) as pushed:
        await pushed.add(to_session(1))
        with armed("pushes.after_apply=raise"):
            ref = pushed.begin()
            await pushed.finished()
        assert len(await pushed.running.stores.dead()) == 1
        assert ref.restarts == 0
