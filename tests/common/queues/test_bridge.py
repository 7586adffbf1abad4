"""One instance's ear: it hears what is published, and knows when it may have missed something."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from common.domain.actions import WebSocketBroadcastAction, WebSocketSendAction
from common.domain.errors import RedisUnavailable
from common.domain.ids import SessionKey
from common.queues.actions import Broadcast
from common.queues.bridge import (
    CANARY_EVERY,
    DEAF_AFTER,
    RECONNECT_DELAY,
    Bridge,
    Heard,
    HeardPassing,
    Message,
    Resubscribed,
)
from common.queues.redis import Redis
from tests.support.proxy import Proxy
from tests.support.redis_server import RedisServer
from tests.support.stores import ACME, OTHER_SESSION, SESSION, Stores, key_of, stores

PATIENCE = 30.0  # seconds


class Ear:
    """A bridge, and what it has told so far."""

    def __init__(self, redis: Redis, each: Stores) -> None:
        self.told: list[Message] = []
        self._changed = asyncio.Event()
        self.fails_on: type[object] | None = None
        self.bridge = Bridge(redis, each.keys, "instance-1", self._hear)

    async def _hear(self, message: Message) -> None:
        if self.fails_on is not None and isinstance(message, self.fails_on):
            self.fails_on = None
            raise RuntimeError("the sink is broken")
        self.told.append(message)
        self._changed.set()

    async def until(self, found: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not found():
                self._changed.clear()
                await self._changed.wait()

    async def subscribe(self, session: SessionKey) -> None:
        async with asyncio.timeout(PATIENCE):
            await self.bridge.subscribe(session)

    def offsets(self, session: SessionKey = SESSION) -> list[int]:
        return [
            event.offset
            for message in self.told
            if isinstance(message, Heard) and message.session == session
            for event in message.published.events
        ]

    def resubscribed(self) -> list[SessionKey]:
        return [each.session for each in self.told if isinstance(each, Resubscribed)]


@asynccontextmanager
async def ear_of(each: Stores, url: str | None = None) -> AsyncIterator[Ear]:
    """An ear that listens at `url`."""
    redis = each.redis if url is None else Redis(url, socket_timeout=each.redis.socket_timeout)
    ear = Ear(redis, each)
    ear.bridge.start()
    try:
        yield ear
    finally:
        await ear.bridge.stop()
        if redis is not each.redis:
            await redis.close()


async def push(each: Stores, session: SessionKey = SESSION) -> None:
    await each.log.push(
        WebSocketSendAction(
            tenant_id=session.tenant_id,
            session_id=session.session_id,
            message_type="note",
            message_data={"text": "a\nb"},
        )
    )


async def kill_listeners(each: Stores) -> None:
    """Ends the connections that subscribe, as a Redis does whose output buffer ran over."""
    await each.redis.call("CLIENT", "KILL", "TYPE", "pubsub")


async def test_what_is_published_after_the_confirmation_is_heard_in_order(
    redis_server: RedisServer, prefix: str
) -> None:
    async with stores(redis_server.url, prefix) as each, ear_of(each) as ear:
        await ear.subscribe(SESSION)
        for _ in range(20):
            await push(each)
        await ear.until(lambda: len(ear.offsets()) == 20)
        assert ear.offsets() == list(range(1, 21))
        page = await each.log.read(SESSION, 0, 100)
        heard = [m for m in ear.told if isinstance(m, Heard)]
        assert {message.published.epoch for message in heard} == {page.state.epoch}
        assert [e for m in heard for e in m.published.events] == list(page.events)
        assert ear.resubscribed() == []


async def test_a_subscription_is_confirmed_by_redis_and_not_before(
    redis_server: RedisServer, prefix: str
) -> None:
    async with (
        Proxy(redis_server.port) as proxy,
        stores(redis_server.url, prefix) as each,
        ear_of(each, proxy.url) as ear,
    ):
        await ear.subscribe(OTHER_SESSION)
        proxy.freeze()
        waiting = ear.bridge.subscribe(SESSION)
        await asyncio.sleep(0.2)
        assert not waiting.done()
        async with asyncio.timeout(PATIENCE):
            await waiting  # on the connection that replaces the frozen one
        await push(each)
        await ear.until(lambda: ear.offsets() == [1])


async def test_who_subscribes_again_has_nothing_to_wait_for(
    redis_server: RedisServer, prefix: str
) -> None:
    async with stores(redis_server.url, prefix) as each, ear_of(each) as ear:
        first, second = ear.bridge.subscribe(SESSION), ear.bridge.subscribe(SESSION)
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(first, second)
        assert ear.bridge.subscribe(SESSION).done()


async def test_who_gives_up_waiting_spoils_it_for_nobody(
    redis_server: RedisServer, prefix: str
) -> None:
    async with stores(redis_server.url, prefix) as each:
        ear = Ear(each.redis, each)  # it has not begun to listen
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(ear.bridge.subscribe(SESSION), 0.01)
        again = ear.bridge.subscribe(SESSION)
        ear.bridge.start()
        async with asyncio.timeout(PATIENCE):
            await again
        await ear.bridge.stop()


async def test_a_session_that_was_left_is_not_heard(redis_server: RedisServer, prefix: str) -> None:
    async with stores(redis_server.url, prefix) as each, ear_of(each) as ear:
        await ear.subscribe(SESSION)
        await ear.subscribe(OTHER_SESSION)
        ear.bridge.unsubscribe(SESSION)
        ear.bridge.unsubscribe(SESSION)
        await push(each)
        await push(each, OTHER_SESSION)
        await ear.until(lambda: ear.offsets(OTHER_SESSION) == [1])
        assert ear.offsets() == []


async def test_leaving_and_coming_back_at_once_ends_in_hearing(
    redis_server: RedisServer, prefix: str
) -> None:
    async with stores(redis_server.url, prefix) as each, ear_of(each) as ear:
        for _ in range(20):
            left = ear.bridge.subscribe(SESSION)
            ear.bridge.unsubscribe(SESSION)
            assert left.cancelled()
        await ear.subscribe(SESSION)
        await push(each)
        # Confirmed by an earlier round, it may have missed something: then it says so.
        await ear.until(lambda: ear.offsets() == [1] or ear.resubscribed() == [SESSION])


async def test_what_passes_by_and_broadcasts_are_heard(
    redis_server: RedisServer, prefix: str
) -> None:
    async with stores(redis_server.url, prefix) as each, ear_of(each) as ear:
        await ear.subscribe(SESSION)
        task_id = await each.submit()
        await each.report(task_id, (1, 1, "typing", {}))
        await each.pushes.broadcast(
            WebSocketBroadcastAction(tenant_id=ACME, message_data={"text": "a\nb"})
        )
        await ear.until(lambda: any(isinstance(m, Broadcast) for m in ear.told))
        (passing,) = [m for m in ear.told if isinstance(m, HeardPassing)]
        assert passing.session == SESSION
        assert b"typing_indicator" in passing.entries[0]


async def test_a_thousand_sessions_are_subscribed_and_told_apart(
    redis_server: RedisServer, prefix: str
) -> None:
    room = {"socket_timeout": 60.0}  # they are pushed all at once
    async with stores(redis_server.url, prefix, **room) as each, ear_of(each) as ear:
        sessions = [key_of(f"s-{i}") for i in range(1000)]
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*map(ear.bridge.subscribe, sessions))
        await asyncio.gather(*(push(each, session) for session in sessions))
        await ear.until(lambda: len(ear.told) == 1000)
        assert all(ear.offsets(session) == [1] for session in sessions[::100])
        await kill_listeners(each)
        await ear.until(lambda: len(ear.resubscribed()) == 1000)
        assert set(ear.resubscribed()) == set(sessions)
        for session in sessions:
            ear.bridge.unsubscribe(session)
        await ear.subscribe(SESSION)


async def test_a_connection_that_was_ended_is_made_anew_and_says_so(
    redis_server: RedisServer, prefix: str
) -> None:
    async with stores(redis_server.url, prefix) as each, ear_of(each) as ear:
        await ear.subscribe(SESSION)
        for count in (1, 2):
            await kill_listeners(each)
            await ear.until(lambda n=count: len(ear.resubscribed()) == n)  # type: ignore[misc]
        assert ear.bridge.rebuilt == 2
        await push(each)
        await ear.until(lambda: ear.offsets() == [1])


@pytest.mark.alone
async def test_a_connection_that_died_in_silence_is_found_by_its_canary(
    redis_server: RedisServer, prefix: str
) -> None:
    async with (
        Proxy(redis_server.port) as proxy,
        stores(redis_server.url, prefix) as each,
        ear_of(each, proxy.url) as ear,
    ):
        await ear.subscribe(SESSION)
        await asyncio.sleep(0)
        proxy.freeze()
        loop = asyncio.get_running_loop()
        before = loop.time()
        await push(each)
        await ear.until(lambda: ear.resubscribed() == [SESSION])
        assert loop.time() - before < DEAF_AFTER + RECONNECT_DELAY + 1
        assert ear.offsets() == []  # missed, and said
        await push(each)
        await ear.until(lambda: ear.offsets() == [2])


async def test_a_quiet_connection_is_not_taken_for_a_dead_one(
    redis_server: RedisServer, prefix: str
) -> None:
    async with stores(redis_server.url, prefix) as each, ear_of(each) as ear:
        await ear.subscribe(SESSION)
        await asyncio.sleep(DEAF_AFTER + 0.5)
        assert (ear.bridge.rebuilt, ear.told) == (0, [])


async def answers(each: Stores) -> bool:
    """Whether Redis is there, as far as the pool knows: after a fault it looks away a moment."""
    try:
        await each.redis.call("PING")
    except RedisUnavailable:
        return False
    return True


async def test_a_redis_that_dies_is_heard_again_when_it_is_back(prefix: str) -> None:
    with RedisServer() as server:
        room = {"socket_timeout": PATIENCE}  # what is dead refuses, and is not waited for
        async with stores(server.url, prefix, **room) as each, ear_of(each) as ear:
            await ear.subscribe(SESSION)
            server.kill()
            during = ear.bridge.subscribe(OTHER_SESSION)
            server.restart()
            async with asyncio.timeout(PATIENCE):
                await during
            await ear.until(lambda: SESSION in ear.resubscribed())
            assert OTHER_SESSION not in ear.resubscribed()  # it has missed nothing
            async with asyncio.timeout(PATIENCE):
                while not await answers(each):
                    await asyncio.sleep(0.01)
            await push(each)
            await ear.until(lambda: ear.offsets() == [1])


async def test_what_makes_no_sense_is_passed_over(redis_server: RedisServer, prefix: str) -> None:
    async with stores(redis_server.url, prefix) as each, ear_of(each) as ear:
        await ear.subscribe(SESSION)
        channel = each.keys.session_channel(SESSION)
        for garbage in (
            b"",
            b"x",
            b"\xff",
            b"E epoch",
            b"E epoch one\n{}",
            b"E epoch 1",
            b"T T\nx",
        ):
            await each.redis.call("PUBLISH", channel, garbage)
        for garbage in (b"", b"{", b"[]\n{}", b"{}\n{}", b"\xff"):
            await each.redis.call("PUBLISH", each.keys.broadcasts, garbage)
        await push(each)
        await ear.until(lambda: ear.offsets() == [1])
        assert len(ear.told) == 1
        assert ear.bridge.rebuilt == 0


@pytest.mark.parametrize("what", [Heard, Resubscribed])
async def test_a_message_that_could_not_be_passed_on_is_made_good(
    redis_server: RedisServer, prefix: str, what: type[object]
) -> None:
    async with stores(redis_server.url, prefix) as each, ear_of(each) as ear:
        await ear.subscribe(SESSION)
        ear.fails_on = what
        if what is Heard:
            await push(each)
        else:
            await kill_listeners(each)
        await ear.until(lambda: ear.resubscribed() == [SESSION])
        await push(each)
        await ear.until(lambda: len(ear.offsets()) == 1)


async def test_it_stops_whatever_it_is_doing(redis_server: RedisServer, prefix: str) -> None:
    async with Proxy(redis_server.port) as proxy, stores(redis_server.url, prefix) as each:
        async with ear_of(each, proxy.url) as ear:
            await ear.subscribe(SESSION)
            proxy.blackhole()
            waiting = ear.bridge.subscribe(OTHER_SESSION)
        assert waiting.cancelled()
        async with ear_of(each, proxy.url) as ear:
            await asyncio.sleep(0.05)
        bridge = Bridge(each.redis, each.keys, "i", ear._hear)
        await bridge.stop()  # before it began
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("bridge.")]


async def test_a_canary_that_cannot_sing_does_not_stop_trying(prefix: str) -> None:
    with RedisServer() as server:
        async with stores(server.url, prefix) as each, ear_of(each) as ear:
            await ear.subscribe(SESSION)
            server.kill()
            await asyncio.sleep(CANARY_EVERY + 0.2)
            server.restart()
            await ear.until(lambda: ear.resubscribed() == [SESSION])
