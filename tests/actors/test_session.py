"""One connection hears each event once and in order, whatever happens around it."""

from typing import Any

import pytest

from actors.connection_manager import Connect
from actors.loop_actor import LoopRef
from actors.session import SessionActor
from actors.session_messages import (
    CaughtUp,
    Close,
    Command,
    Connection,
    Doubt,
    Passing,
    Ping,
    ReadLog,
    SocketClosed,
)
from common.domain.actions import ChatGetStatusAction
from common.domain.events import encode_entry
from common.domain.ids import TaskId, new_id
from common.domain.resume import Published, ResumeRequest
from common.failpoints import armed
from common.queues.bridge import HeardPassing
from tests.actors.instance import Instance, RecordingTransport, instance
from tests.support.redis_server import RedisServer
from tests.support.stores import ACME, OTHER_SESSION, SESSION, Stores, message


def status_of(task_id: str) -> ChatGetStatusAction:
    return ChatGetStatusAction(tenant_id=ACME, task_id=TaskId(task_id))


async def acknowledged(transport: RecordingTransport) -> dict[str, Any]:
    data: dict[str, Any] = (await transport.frame("connection_ack"))["data"]
    return data


async def published(kept: Stores, first: int, last: int) -> Published:
    """What the session's channel tells of these events."""
    page = await kept.log.read(SESSION, first - 1, last - first + 1)
    return Published(str(page.state.epoch), page.events)


# Events.


async def test_a_new_connection_is_told_who_it_is_and_then_what_happens(
    redis_server: RedisServer, prefix: str
) -> None:
    async with instance(redis_server.url, prefix) as running:
        await running.push(2)
        _, transport = await running.connect()
        ack = await acknowledged(transport)
        assert (ack["offset"], ack["recovered"], ack["replayed"]) == (2, False, 0)
        assert (ack["instance_id"], ack["ping_interval"]) == ("instance-1", 30.0)
        await running.push(2)
        await transport.offset(4)
        assert transport.offsets == [3, 4]
        assert transport.frames[-1]["session_id"] == SESSION.session_id


async def test_a_resumed_connection_gets_what_it_missed_and_goes_live_without_a_hole(
    redis_server: RedisServer, prefix: str
) -> None:
    async with instance(redis_server.url, prefix) as running:
        await running.push(5)
        epoch = (await running.stores.log.join(SESSION)).epoch
        transport = RecordingTransport(is_slow=True)
        _, transport = await running.connect(offset=2, epoch=epoch, transport=transport)
        assert (await acknowledged(transport))["recovered"] is True
        await running.push(3)  # while it replays
        transport.drain()
        await transport.offset(8)
        assert transport.offsets == [3, 4, 5, 6, 7, 8]


async def test_a_long_replay_goes_page_by_page_at_the_sockets_pace(
    redis_server: RedisServer, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.session.PAGE", 3)
    async with instance(redis_server.url, prefix) as running:
        await running.push(8, size=1000)  # more than the send buffer: a replay is never too slow
        transport = RecordingTransport(is_slow=True)
        ref, transport = await running.connect(offset=0, transport=transport)
        for last in (0, 3, 6):
            await ref.ask(CaughtUp())
            assert transport.offsets == list(range(1, last + 1))
            transport.drain()
        await transport.offset(8)
        assert transport.offsets == list(range(1, 9))
        assert transport.closed is None


async def test_a_replay_may_come_joined(
    redis_server: RedisServer, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.session.PAGE", 4)
    async with instance(redis_server.url, prefix) as running:
        task_id = await running.stores.submit()
        deltas = [(1, seq, "delta", {"text": f"{seq} "}) for seq in range(2, 8)]
        await running.stores.report(task_id, (1, 1, "started", {}), *deltas)
        _, transport = await running.connect(offset=0, compact=True)
        await transport.offset(8)
        assert transport.offsets == [1, 2, 8]
        joined = transport.frames[-1]
        assert (joined["from_offset"], joined["data"]) == (3, {"text": "2 3 4 5 6 7 "})


async def test_an_event_told_twice_is_written_once(redis_server: RedisServer, prefix: str) -> None:
    async with instance(redis_server.url, prefix) as running:
        ref, transport = await running.connect()
        await running.push(3)
        await transport.offset(3)
        ref.tell(await published(running.stores, 1, 3))
        ref.tell(await published(running.stores, 2, 2))
        await ref.ask(CaughtUp())
        assert transport.offsets == [1, 2, 3]


async def test_a_hole_is_filled_from_the_log(redis_server: RedisServer, prefix: str) -> None:
    async with instance(redis_server.url, prefix) as running:
        ref, transport = await unheard(running)
        await running.push(4)
        ref.tell(await published(running.stores, 1, 1))
        ref.tell(await published(running.stores, 4, 4))
        await transport.offset(4)
        assert transport.offsets == [1, 2, 3, 4]


async def test_in_doubt_the_log_is_read_and_nothing_is_missing_or_double(
    redis_server: RedisServer, prefix: str
) -> None:
    async with instance(redis_server.url, prefix) as running:
        ref, transport = await unheard(running)
        await running.push(2)
        ref.tell(Doubt())
        ref.tell(Doubt())
        ref.tell(await published(running.stores, 2, 2))
        await transport.offset(2)
        await running.push(1)
        ref.tell(Doubt())
        await transport.offset(3)
        assert transport.offsets == [1, 2, 3]


async def test_a_log_that_began_anew_closes_the_connection(
    redis_server: RedisServer, prefix: str
) -> None:
    async with instance(redis_server.url, prefix) as running:
        ref, transport = await running.connect()
        await running.push(1)
        await transport.offset(1)
        event = (await published(running.stores, 1, 1)).events
        ref.tell(Published("another epoch", event))
        assert await transport.close_code() == 4410
        await running.push(1)
        await ref.ask(CaughtUp())
        assert transport.offsets == [1]


async def test_what_passes_by_is_written_without_an_offset(
    redis_server: RedisServer, prefix: str
) -> None:
    async with instance(redis_server.url, prefix) as running:
        ref, transport = await running.connect()
        ref.tell(Passing((encode_entry("typing_indicator", b"{}", "now"),)))
        frame = await transport.frame("typing_indicator")
        assert "offset" not in frame
        assert frame["tenant_id"] == SESSION.tenant_id


# Redis is away.


async def test_a_connection_that_cannot_join_is_closed_and_may_come_back(prefix: str) -> None:
    with RedisServer() as server:
        async with instance(server.url, prefix) as running:
            await running.listen()
            server.stop()
            connection = Connection(
                connection_id="c",
                session=SESSION,
                user_id=None,
                request=ResumeRequest(),
                compact=False,
            )
            transport = RecordingTransport()
            ref = await running.manager.ask(Connect(connection, transport))
            assert await transport.close_code() == 4500
            ref.tell(Doubt())
            ref.tell(Ping("p"))
            await ref.ask(CaughtUp())
            assert transport.frames == []
            assert running.supervised() == []


async def test_a_replay_waits_for_redis_while_the_connection_goes_on(prefix: str) -> None:
    with RedisServer() as server:
        async with instance(server.url, prefix) as running:
            ref, transport = await unheard(running)
            await running.push(2)
            server.stop()
            ref.tell(Doubt())
            ref.tell(Ping("p"))
            assert (await transport.frame("pong"))["id"] == "p"
            await ref.ask(CaughtUp())
            assert transport.offsets == []
            server.start()
            await transport.offset(2)
            assert (transport.offsets, transport.closed) == ([1, 2], None)


async def test_a_replay_ends_with_its_connection(redis_server: RedisServer, prefix: str) -> None:
    async with instance(redis_server.url, prefix) as running:
        await running.push(2)
        ref, transport = await running.connect(offset=0, transport=RecordingTransport(is_slow=True))
        ref.tell(Close(1012, "test"))
        await ref.ask(CaughtUp())
        transport.drain()  # calls for the next page
        await ref.ask(CaughtUp())
        ref.tell(SocketClosed())
        await ref.stop()
        transport.drain()
        assert transport.offsets == []
        assert transport.closed == (1012, "test")


# Slow readers.


async def test_a_client_that_reads_too_slowly_is_closed_and_counted(
    redis_server: RedisServer, prefix: str
) -> None:
    async with instance(redis_server.url, prefix) as running:
        _, transport = await running.connect(transport=RecordingTransport(is_slow=True))
        transport.drain()
        await running.push(1, size=5000)  # one frame may exceed the buffer
        await transport.offset(1)
        assert transport.closed is None
        await running.push(1)
        assert await transport.close_code() == 4008
        assert running.counters.slow_consumers_closed == 1
        assert running.counters.closes == {4008: 1}


async def test_more_messages_than_a_connection_may_hold_close_it(
    redis_server: RedisServer, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SessionActor, "mailbox_size", 5)
    async with instance(redis_server.url, prefix) as running:
        _, transport = await running.connect()
        _, elsewhere = await running.connect(OTHER_SESSION)
        entry = encode_entry("typing_indicator", b"{}", "now")
        for _ in range(6):  # the manager passes on all of them in one turn
            running.manager.tell(HeardPassing(SESSION, (entry,)))
        assert await transport.close_code() == 4008
        await gone(running)
        assert running.counters.slow_consumers_closed == 1
        assert (running.counters.connections, elsewhere.closed) == (1, None)
        assert running.supervised() == []


async def test_a_full_mailbox_does_not_lose_the_next_page(
    redis_server: RedisServer, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SessionActor, "mailbox_size", 3)
    async with instance(redis_server.url, prefix) as running:
        await running.push(2)
        ref, transport = await running.connect(offset=0, transport=RecordingTransport(is_slow=True))
        for number in range(3):
            ref.tell(Ping(str(number)))
        transport.drain()  # calls for the next page
        await transport.offset(2)
        assert (transport.closed, running.supervised()) == (None, [])


# Ends.


async def test_a_session_that_fails_is_closed_and_no_other_hears_of_it(
    redis_server: RedisServer, prefix: str
) -> None:
    async with instance(redis_server.url, prefix) as running:
        victim, closing = await running.connect()
        _, other = await running.connect()
        with armed("session.on_receive=raise:1"):
            victim.tell(Ping("p"))
            assert await closing.close_code() == 4500
        await running.push(1)
        await other.offset(1)
        assert other.closed is None
        (failure,) = running.supervised()
        assert (failure["class"], failure["outcome"]) == ("SessionActor", "ended")
        assert failure["message_type"] == "Ping"
        assert running.counters.connections == 1


async def test_one_that_fails_at_its_start_is_closed_and_forgotten(
    redis_server: RedisServer, prefix: str
) -> None:
    async with instance(redis_server.url, prefix) as running:
        with armed("session.on_start=base:1"):
            _, transport = await running.connect()
        assert await transport.close_code() == 4500
        await gone(running)
        assert running.counters.connections == 0


async def test_an_answer_that_comes_after_the_end_is_missed_by_nobody(
    redis_server: RedisServer, prefix: str
) -> None:
    async with instance(redis_server.url, prefix) as running:
        ref, transport = await running.connect()
        ref.tell(Command("late", status_of("unknown")))
        ref.tell(SocketClosed())
        await ref.stop()
        await running.router.ask(message())
        assert "error" not in transport.types
        assert running.counters.connections == 0
        assert running.supervised() == []


async def test_a_page_that_nobody_asked_for_is_not_read(
    redis_server: RedisServer, prefix: str
) -> None:
    async with instance(redis_server.url, prefix) as running:
        ref, transport = await running.connect()
        ref.tell(ReadLog())
        await ref.ask(CaughtUp())
        assert transport.types == ["connection_ack"]


# How the tests get there.


async def unheard(running: Instance) -> tuple[LoopRef, RecordingTransport]:
    """A connection to which nobody tells anything but the test."""
    transport = RecordingTransport()
    connection = Connection(
        connection_id=new_id(),
        session=SESSION,
        user_id=None,
        request=ResumeRequest(),
        compact=False,
    )
    policy = running.manager._cell.args[1]
    ref = SessionActor.start(
        connection,
        transport,
        policy,
        running.stores.log,
        running.router,
        running.manager,
        running.counters,
        supervisor=running.supervisor,
    )
    await transport.frame("connection_ack")
    return ref, transport


async def gone(running: Instance) -> None:
    """All that was told to the manager before has been handled."""
    await running.manager.ask(CaughtUp())
    await running.manager.ask(CaughtUp())
