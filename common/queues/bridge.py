"""The bridge between instances: what Redis publishes, heard by the instance that needs it.

A subscription's connection can die without a word, so each instance also publishes a canary to
itself: a listener that hears nothing for `DEAF_AFTER` tears its connection down, builds another one
and subscribes anew. What was published meanwhile is missed; each session is told so
(`Resubscribed`) and looks into the log, which is the truth.

Frames on a session's channel begin with a line: `E EPOCH FIRST`, then kept events, one a line,
numbered from FIRST on; or `T`, then entries that pass by and are not kept.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from itertools import count
from typing import Any

import structlog
from redis import exceptions

from common.domain.errors import OrchestratorError
from common.domain.events import Event
from common.domain.ids import SessionKey
from common.domain.resume import Published
from common.queues.actions import Broadcast, decode_broadcast
from common.queues.keys import Keys
from common.queues.redis import Redis, connect

log = structlog.get_logger(__name__)

CANARY_EVERY = 1.0  # seconds
DEAF_AFTER = 3.0
CHANNELS_A_COMMAND = 500
RECONNECT_DELAY = 1.0  # seconds at the most


@dataclass(frozen=True, slots=True)
class Heard:
    """Kept events of a session."""

    session: SessionKey
    published: Published


@dataclass(frozen=True, slots=True)
class HeardPassing:
    """Entries for those who are connected, not kept."""

    session: SessionKey
    entries: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Resubscribed:
    """This session may have missed something; its log will tell."""

    session: SessionKey


Message = Heard | HeardPassing | Resubscribed | Broadcast


class Deaf(Exception):
    """Not even the canary was heard: the connection is dead, though nobody said so."""


class NotPassedOn(Exception):
    """The sink failed on a message; whom it was for has to look into the log."""


class Bridge:
    """One instance's ear. `sink` gets every message, in the order heard of each channel."""

    def __init__(
        self,
        redis: Redis,
        keys: Keys,
        instance_id: str,
        sink: Callable[[Message], Awaitable[None]],
    ) -> None:
        self._redis = redis
        self._keys = keys
        self._canary = keys.canary(instance_id)
        self._sink = sink
        self._sessions: dict[str, SessionKey] = {}
        self._confirmed: set[str] = set()
        self._heard_before: set[str] = set()
        self._waiters: dict[str, asyncio.Future[None]] = {}
        self._outbox: list[tuple[str, str]] = []
        self._outgoing = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._pool = connect(redis.url, socket_timeout=redis.socket_timeout).connection_pool
        self.rebuilt = 0  # how often the connection had to be made anew

    def start(self) -> None:
        self._tasks = [
            asyncio.create_task(self._listen_for_ever(), name="bridge.listen"),
            asyncio.create_task(self._sing(), name="bridge.canary"),
        ]

    async def stop(self) -> None:
        for task in self._tasks:
            await _end(task)
        for waiter in self._waiters.values():
            waiter.cancel()
        await self._pool.disconnect()

    def subscribe(self, session: SessionKey) -> asyncio.Future[None]:
        """Done once Redis has confirmed: what is published from then on is heard."""
        channel = self._keys.session_channel(session)
        if channel not in self._sessions:
            self._sessions[channel] = session
            self._send("SUBSCRIBE", channel)
        waiter = self._waiters.get(channel)
        if waiter is None or waiter.done():  # who gave up waiting has cancelled it
            waiter = self._waiters[channel] = asyncio.get_running_loop().create_future()
        if channel in self._confirmed:
            del self._waiters[channel]
            waiter.set_result(None)
        return waiter

    def unsubscribe(self, session: SessionKey) -> None:
        """What is published from now on is not heard any more."""
        channel = self._keys.session_channel(session)
        if self._sessions.pop(channel, None) is None:
            return
        self._confirmed.discard(channel)
        self._heard_before.discard(channel)
        if waiter := self._waiters.pop(channel, None):
            waiter.cancel()
        self._send("UNSUBSCRIBE", channel)

    def _send(self, verb: str, channel: str) -> None:
        self._outbox.append((verb, channel))
        self._outgoing.set()

    async def _sing(self) -> None:
        is_hoarse = False
        while True:
            # A canary that cannot be sent is not heard either; the listener draws the conclusion.
            try:
                await self._redis.call("PUBLISH", self._canary, "")
                is_hoarse = False
            except OrchestratorError:
                pass
            except Exception:  # nobody else would hear of it
                if not is_hoarse:
                    log.exception("bridge.canary_failed")
                is_hoarse = True
            await asyncio.sleep(CANARY_EVERY)

    async def _listen_for_ever(self) -> None:
        while True:
            connection = self._pool.make_connection()  # type: ignore[no-untyped-call]
            try:
                await connection.connect()
                await self._listen(connection)
            except (exceptions.RedisError, OSError, TimeoutError, Deaf, NotPassedOn) as error:
                why = f"{type(error).__name__}: {error}"
                log.warning("bridge.lost", error=why, sessions=len(self._sessions))
            except Exception:  # nobody waits for this task: it would end, and all be deaf for ever
                log.exception("bridge.failed", sessions=len(self._sessions))
            finally:
                self._confirmed.clear()
                await connection.disconnect(nowait=True)
            self.rebuilt += 1
            await asyncio.sleep(random.uniform(0.1, 1) * RECONNECT_DELAY)  # noqa: S311

    async def _listen(self, connection: Any) -> None:
        # All that is wanted is asked for anew; what still waited to be sent is part of it.
        self._outbox = [("SUBSCRIBE", channel) for channel in self._sessions]
        await connection.send_command("SUBSCRIBE", self._canary, self._keys.broadcasts)
        self._outgoing.set()
        writer = asyncio.create_task(self._write(connection), name="bridge.write")
        try:
            while True:
                message = await connection.read_response(timeout=DEAF_AFTER)
                if message is None:
                    raise Deaf
                await self._handle(message)
                if writer.done():
                    writer.result()
        finally:
            await _end(writer)

    async def _write(self, connection: Any) -> None:
        """Sends what is asked for, in order, as few commands as that allows."""
        while True:
            await self._outgoing.wait()
            self._outgoing.clear()
            while self._outbox:
                verb = self._outbox[0][0]
                run = 0
                for each, _ in self._outbox[:CHANNELS_A_COMMAND]:
                    if each != verb:
                        break
                    run += 1
                channels = [channel for _, channel in self._outbox[:run]]
                del self._outbox[:run]
                await connection.send_command(verb, *channels)

    async def _handle(self, message: Any) -> None:
        match message:
            case [b"message", channel, payload]:
                heard = self._decode(channel.decode(), payload)
                if heard is not None:
                    await self._pass_on(heard)
            case [b"subscribe", channel, _]:
                await self._confirm(channel.decode())
            case _:
                pass  # an unsubscription's confirmation: nobody waits for it

    async def _pass_on(self, message: Message) -> None:
        try:
            await self._sink(message)
        except (Exception, asyncio.CancelledError) as error:
            if _is_being_ended(error):
                raise
            log.exception("bridge.message_missed", message_type=type(message).__name__)
            raise NotPassedOn(repr(error)) from error

    def _decode(self, channel: str, payload: bytes) -> Message | None:
        """What a message says; None if it concerns nobody here, or is not in our words."""
        session = self._sessions.get(channel)
        try:
            if channel == self._keys.broadcasts:
                return decode_broadcast(payload)
            # Else it is the canary, or for a session that was left a moment ago.
            return None if session is None else _decode_session(session, payload)
        except (ValueError, KeyError, TypeError) as error:
            kind = type(error).__name__  # its text would repeat what was published
            log.warning("bridge.message_unreadable", channel=channel, error_type=kind)
            return None

    async def _confirm(self, channel: str) -> None:
        session = self._sessions.get(channel)
        if session is None:
            return
        self._confirmed.add(channel)
        waiter = self._waiters.pop(channel, None)
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
        if channel in self._heard_before:
            await self._pass_on(Resubscribed(session))
        self._heard_before.add(channel)


def _is_being_ended(error: BaseException) -> bool:
    """Whether that is our own end, and not that of something which we waited for."""
    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling() > 0


async def _end(task: asyncio.Task[None]) -> None:
    """Cancels a task until it has ended, whatever came of it.

    Once may not be enough: `asyncio.wait_for` of Python 3.11, with which redis-py writes, swallows
    a cancellation that comes just as it is done. Nor is the task awaited: its cancellation could
    not be told from our own.
    """
    while not task.done():
        task.cancel()
        await asyncio.wait((task,), timeout=0.1)
    if not task.cancelled():
        task.exception()  # seen: what broke the writer has broken the reader, too


def _decode_session(session: SessionKey, payload: bytes) -> Heard | HeardPassing:
    """
    Raises:
        ValueError: if it is neither of the two forms above.
    """
    head, *entries = payload.split(b"\n")
    match head.split():
        case [b"E", epoch, first] if entries:
            events = tuple(map(Event, count(int(first)), entries))
            return Heard(session, Published(epoch.decode(), events))
        case [b"T"]:
            return HeardPassing(session, tuple(entries))
        case _:
            raise ValueError(head[:64])
