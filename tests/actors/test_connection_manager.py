"""Who is connected, who hears what, and what is left when somebody goes, or the manager fails."""

import asyncio

import pytest

from actors.connection_manager import CloseAll, Connect, Listen, Listening, SendAllElsewhere
from actors.session_messages import CaughtUp, Connection, Left
from actors.supervisor import GetTree
from common.domain.actions import WebSocketBroadcastAction
from common.domain.ids import SessionId, SessionKey, TenantId, new_id
from common.domain.resume import Published, ResumeRequest
from common.failpoints import Injected, armed
from common.queues.bridge import Heard, Resubscribed
from tests.actors.instance import WITHIN, Instance, RecordingTransport, instance
from tests.support.redis_server import RedisServer
from tests.support.stores import ACME, OTHER_SESSION, SESSION, key_of

GLOBEX = SessionKey(TenantId("globex"), SessionId("s-1"))


async def listeners(running: Instance, session: SessionKey = SESSION) -> int:
    """How many instances Redis knows to be subscribed to a session's channel."""
    channel = running.stores.keys.session_channel(session)
    _, count = await running.stores.redis.call("PUBSUB", "NUMSUB", channel)
    return int(count)


async def unheard(running: Instance, session: SessionKey = SESSION) -> None:
    """Returns once nobody is subscribed to a session any more."""
    async with asyncio.timeout(WITHIN):
        while await listeners(running, session):
            await asyncio.sleep(0.01)


async def caught_up(running: Instance) -> None:
    await running.manager.ask(CaughtUp())


def connection_to(session: SessionKey) -> Connection:
    return Connection(
        connection_id=new_id(),
        session=session,
        user_id=None,
        request=ResumeRequest(),
        compact=False,
    )


async def test_all_connections_of_a_session_hear_its_events_and_no_other_does(
    redis_server: RedisServer, prefix: str
) -> None:
    async with instance(redis_server.url, prefix) as running:
        _, first = await running.connect()
        _, second = await running.connect()
        _, other = await running.connect(OTHER_SESSION)
        await running.push(2)
        await running.push(1, OTHER_SESSION)
        for transport in (first, second):
            await transport.offset(2)
        await other.offset(1)
        assert first.offsets == second.offsets == [1, 2]
        assert other.offsets == [1]


async def test_connections_are_counted(redis_server: RedisServer, prefix: str) -> None:
    async with instance(redis_server.url, prefix) as running:
        first, _ = await running.connect()
        await running.connect()
        await running.connect(GLOBEX)
        counters = running.counters
        assert (counters.connections, counters.sessions) == (3, 2)
        assert dict(counters.connections_by_tenant) == {"acme": 2, "globex": 1}
        await running.leave(first)
        assert (counters.connections, counters.sessions, counters.peak_connections) == (2, 2, 3)


async def test_a_departure_told_twice_or_of_a_stranger_counts_once(
    redis_server: RedisServer, prefix: str
) -> None:
    async with instance(redis_server.url, prefix) as running:
        ref, _ = await running.connect()
        await running.leave(ref)
        running.manager.tell(Left(SESSION, ref.name.rpartition("/")[2]))
        running.manager.tell(Left(OTHER_SESSION, "stranger"))
        await caught_up(running)
        assert (running.counters.connections, running.counters.sessions) == (0, 0)


async def test_a_broadcast_reaches_a_tenant_or_some_of_its_sessions(
    redis_server: RedisServer, prefix: str
) -> None:
    async with instance(redis_server.url, prefix) as running:
        _, first = await running.connect()
        _, second = await running.connect(OTHER_SESSION)
        _, stranger = await running.connect(GLOBEX)
        targets = (SESSION.session_id, SessionId("not-here"))
        for data, named in (({"n": 1}, targets), ({"n": 2}, None)):
            action = WebSocketBroadcastAction(
                tenant_id=ACME, message_data=data, target_sessions=named
            )
            await running.stores.pushes.broadcast(action)
        await first.until(lambda: first.types.count("broadcast") == 2)
        await second.until(lambda: second.types.count("broadcast") == 1)
        assert second.frames[-1]["data"] == {"n": 2}
        assert stranger.types == ["connection_ack"]
        nobody = WebSocketBroadcastAction(tenant_id=TenantId("nobody"), message_data={})
        await running.stores.pushes.broadcast(nobody)


# Subscriptions.


async def test_a_session_that_was_left_is_listened_to_for_a_moment_longer(
    redis_server: RedisServer, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with instance(redis_server.url, prefix) as running:
        first, _ = await running.connect()
        second, _ = await running.connect()
        with monkeypatch.context() as hurried:
            hurried.setattr("actors.connection_manager.LINGER", 0.05)
            await running.leave(first)
            assert await listeners(running) == 1
            await running.leave(second)
            await unheard(running)
        _, again = await running.connect()
        await running.push(1)
        await again.offset(1)


async def test_who_comes_back_at_once_keeps_the_subscription(
    redis_server: RedisServer, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with instance(redis_server.url, prefix) as running:
        ref, _ = await running.connect()
        monkeypatch.setattr("actors.connection_manager.LINGER", 0.5)
        await running.leave(ref)
        _, transport = await running.connect()
        await asyncio.sleep(0.6)  # longer than it would have lingered
        assert await listeners(running) == 1
        await running.push(1)
        await transport.offset(1)


async def test_listening_for_somebody_who_never_comes_ends(
    redis_server: RedisServer, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.connection_manager.LINGER", 60.0)
    async with instance(redis_server.url, prefix) as running:
        await running.listen()
        assert await listeners(running) == 1
        monkeypatch.setattr("actors.connection_manager.LINGER", 0.05)
        await running.manager.ask(Listen(SESSION))  # from now on it lingers for that long only
        await unheard(running)


async def test_a_subscription_that_takes_long_to_confirm_is_not_given_up(
    prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.connection_manager.LINGER", 0.01)
    with RedisServer() as server:
        async with instance(server.url, prefix) as running:
            await running.stores.redis.call("CLIENT", "PAUSE", 300)
            listening: Listening = await running.manager.ask(Listen(SESSION))
            await listening.confirmed


async def test_who_comes_after_the_listening_ended_misses_nothing(
    redis_server: RedisServer, prefix: str
) -> None:
    async with instance(redis_server.url, prefix) as running:
        # Without having listened before: as after a manager's restart, or a slow upgrade.
        transport = RecordingTransport()
        asked = running.manager.ask(Connect(connection_to(SESSION), transport))
        asking = asyncio.ensure_future(asked)
        await transport.frame("connection_ack")
        await running.push(1)
        await transport.offset(1)
        await asking
        assert transport.offsets == [1]


async def test_in_doubt_every_connection_of_the_session_looks_into_the_log(
    redis_server: RedisServer, prefix: str
) -> None:
    async with instance(redis_server.url, prefix) as running:
        _, first = await running.connect()
        _, second = await running.connect()
        await running.bridge.stop()  # what is told from now on is not heard
        await running.push(2)
        running.manager.tell(Resubscribed(SESSION))
        for transport in (first, second):
            await transport.offset(2)
        running.bridge.start()


async def test_who_waits_for_a_subscription_that_is_given_up_is_told(
    prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.connection_manager.LINGER", 0.1)
    with RedisServer() as server:
        async with instance(server.url, prefix) as running:
            server.stop()
            listening: Listening = await running.manager.ask(Listen(SESSION))
            transport = RecordingTransport()
            ref = await running.manager.ask(Connect(connection_to(SESSION), transport))
            await transport.close_code()
            await running.leave(ref)
            with pytest.raises(asyncio.CancelledError):
                await listening.confirmed


# Ends.


async def test_all_are_closed_when_the_instance_stops(
    redis_server: RedisServer, prefix: str
) -> None:
    async with instance(redis_server.url, prefix) as running:
        _, first = await running.connect()
        gone, _ = await running.connect(OTHER_SESSION)
        gone.stop()
        assert await running.manager.ask(CloseAll(1012, "stops")) >= 1
        await first.close_code()
        assert first.closed == (1012, "stops")


async def test_those_who_are_sent_elsewhere_come_back_spread_over_time(
    redis_server: RedisServer, prefix: str
) -> None:
    async with instance(redis_server.url, prefix) as running:
        transports = [(await running.connect())[1] for _ in range(3)]
        assert await running.manager.ask(SendAllElsewhere(2, "drains")) == 3
        told = [(await transport.frame("reconnect"))["data"] for transport in transports]
        assert [data["after_ms"] for data in told] == [500, 1000, 1500]
        assert [await transport.close_code() for transport in transports] == [1012] * 3


async def test_connections_are_shown_below_their_manager(
    redis_server: RedisServer, prefix: str
) -> None:
    async with instance(redis_server.url, prefix) as running:
        ref, _ = await running.connect()
        tree = await running.supervisor.ask(GetTree())
        (manager,) = [node for node in tree["children"] if node["name"] == "connection_manager"]
        assert [node["name"] for node in manager["children"]] == [ref.name.rpartition("/")[2]]


async def test_a_dead_session_is_passed_over(redis_server: RedisServer, prefix: str) -> None:
    async with instance(redis_server.url, prefix) as running:
        ref, transport = await running.connect()
        await running.push(1)
        await transport.offset(1)
        page = await running.stores.log.read(SESSION, 0, 1)
        ref.stop()  # its departure is told in the next turn
        running.manager.tell(Heard(SESSION, Published(str(page.state.epoch), page.events)))
        await caught_up(running)
        await running.listen()
        assert running.counters.connections == 0
        assert running.supervised() == []


async def test_a_manager_that_fails_closes_its_clients_and_counts_right_afterwards(
    redis_server: RedisServer, prefix: str
) -> None:
    async with instance(redis_server.url, prefix) as running:
        await running.push(1)
        first, transport = await running.connect()
        _, second = await running.connect(OTHER_SESSION)
        await running.listen(key_of("s-3"))
        with armed("connection_manager.on_receive=raise:1"), pytest.raises(Injected):
            await running.manager.ask(CaughtUp())
        assert await transport.close_code() == await second.close_code() == 4500
        counters = running.counters
        assert (counters.connections, counters.sessions) == (0, 0)
        await caught_up(running)  # the new one is there
        epoch = (await running.stores.log.join(SESSION)).epoch
        await running.push(1)
        _, again = await running.connect(offset=1, epoch=epoch)
        assert (counters.connections, counters.sessions) == (1, 1)
        await running.leave(first)  # of the old one
        assert (counters.connections, counters.sessions) == (1, 1)
        await running.push(1)
        await again.offset(3)
        assert again.offsets == [2, 3]
        assert dict(counters.connections_by_tenant) == {"acme": 1}
        assert await listeners(running, key_of("s-3")) == 0
        (failure,) = running.supervised()
        assert (failure["message_type"], failure["outcome"]) == ("CaughtUp", "restart")


async def test_a_manager_that_fails_at_its_restart_tries_again(
    redis_server: RedisServer, prefix: str
) -> None:
    async with instance(redis_server.url, prefix) as running:
        await caught_up(running)
        with armed("connection_manager.on_receive=raise:1,connection_manager.on_start=raise:2"):
            with pytest.raises(Injected):
                await running.manager.ask(CaughtUp())
            await caught_up(running)
        assert running.manager.restarts == 3
        phases = [each["phase"] for each in running.supervised()]
        assert phases == ["on_start", "on_start", "on_receive"]
