"""The actors of one instance as the service puts them together, without its edge; for tests."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import orjson

from actors.chat_router import ChatRouterActor
from actors.connection_manager import Connect, ConnectionManagerActor, Listen, Listening
from actors.counters import Counters
from actors.loop_actor import LoopRef
from actors.restart_policy import RestartPolicy
from actors.session_messages import Connection, ConnectionPolicy, SocketClosed
from actors.supervision_log import Event
from actors.supervisor import ChildSpec, SupervisorActor
from common.domain.actions import WebSocketSendAction
from common.domain.ids import SessionKey, new_id
from common.domain.resume import ResumeRequest
from common.queues.bridge import Bridge, Message
from config.settings import AgentSettings
from tests.support.stores import SESSION, Stores, stores

WITHIN = 10.0  # seconds; what should happen happens in a fraction of one

Frame = dict[str, Any]


class RecordingTransport:
    """A socket that writes down what it is given; a slow one takes it when `drain` is called."""

    def __init__(self, *, is_slow: bool = False) -> None:
        self.frames: list[Frame] = []
        self.closed: tuple[int, str] | None = None
        self.queued = self.sent = 0
        self.is_slow = is_slow
        self._waiters: list[Callable[[], None]] = []
        self._changed = asyncio.Event()

    def write(self, frames: Sequence[bytes]) -> None:
        self.frames += map(orjson.loads, frames)
        self.queued += sum(map(len, frames))
        if not self.is_slow:
            self.drain()
        self._changed.set()

    def when_drained(self, callback: Callable[[], None]) -> None:
        if self.sent == self.queued:
            callback()
        else:
            self._waiters.append(callback)

    def close(self, code: int, reason: str) -> None:
        self.closed = self.closed or (code, reason)
        self._changed.set()

    def drain(self) -> None:
        """All that was written has left."""
        self.sent = self.queued
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter()

    async def until(self, is_so: Callable[[], object]) -> None:
        """Returns once it is so, looking whenever something was written, or the socket closed."""
        async with asyncio.timeout(WITHIN):
            while not is_so():
                self._changed.clear()
                await self._changed.wait()

    async def frame(self, type_: str) -> Frame:
        """The first frame of that type, as soon as there is one."""
        await self.until(lambda: type_ in self.types)
        return next(frame for frame in self.frames if frame["type"] == type_)

    async def offset(self, offset: int) -> None:
        """Returns once the event of that offset was written."""
        await self.until(lambda: offset in self.offsets)

    async def close_code(self) -> int:
        await self.until(lambda: self.closed)
        assert self.closed is not None
        return self.closed[0]

    async def answers(self, count: int) -> list[Frame]:
        """The frames that carry an id, once there are so many."""
        await self.until(lambda: len(self._answers()) >= count)
        return self._answers()

    def _answers(self) -> list[Frame]:
        return [frame for frame in self.frames if "id" in frame]

    @property
    def types(self) -> list[str]:
        return [frame["type"] for frame in self.frames]

    @property
    def offsets(self) -> list[int]:
        return [frame["offset"] for frame in self.frames if "offset" in frame]


class Instance:
    """Supervisor, router, manager and bridge over real stores."""

    def __init__(
        self, kept: Stores, agents: Mapping[str, AgentSettings], policy: Mapping[str, Any]
    ) -> None:
        self.stores = kept
        self.counters = Counters()
        self.given_up: list[str] = []
        self.supervisor = SupervisorActor.start(
            self.given_up.append, policy=RestartPolicy(first_delay=0.001)
        )
        self.router = self.supervisor.spawn(
            ChildSpec(
                "chat_router",
                ChatRouterActor,
                (kept.submissions, kept.tasks, kept.log, kept.pushes, agents, self.counters),
            )
        )
        self.bridge = Bridge(kept.redis, kept.keys, new_id(), self._hear)
        told: dict[str, Any] = {
            "instance_id": "instance-1",
            "ping_interval": 30.0,
            "max_message_bytes": 1000,
            "max_bad_frames": 3,
            "send_buffer_bytes": 2000,
        }
        self.manager = self.supervisor.spawn(
            ChildSpec(
                "connection_manager",
                ConnectionManagerActor,
                (
                    self.bridge,
                    ConnectionPolicy(**{**told, **policy}),
                    kept.log,
                    self.router,
                    self.supervisor,
                    self.counters,
                ),
            )
        )

    async def _hear(self, message: Message) -> None:
        if self.manager.is_alive():
            self.manager.tell(message)

    async def listen(self, session: SessionKey = SESSION) -> None:
        """As the edge does before an upgrade: from now on everything is heard."""
        async with asyncio.timeout(WITHIN):
            while True:
                listening: Listening = await self.manager.ask(Listen(session))
                await asyncio.wait((listening.confirmed,))
                if not listening.confirmed.cancelled():  # else it took so long that it was given up
                    return

    async def connect(
        self,
        session: SessionKey = SESSION,
        *,
        offset: int | None = None,
        epoch: str | None = None,
        compact: bool = False,
        expires_at: float | None = None,
        transport: RecordingTransport | None = None,
    ) -> tuple[LoopRef, RecordingTransport]:
        """A connection that has joined."""
        await self.listen(session)
        transport = transport or RecordingTransport()
        connection = Connection(
            connection_id=new_id(),
            session=session,
            user_id=None,
            request=ResumeRequest(epoch=epoch, offset=offset),
            compact=compact,
            expires_at=expires_at,
        )
        ref: LoopRef = await self.manager.ask(Connect(connection, transport))
        await transport.until(lambda: transport.frames or transport.closed)
        return ref, transport

    async def push(self, count: int = 1, session: SessionKey = SESSION, size: int = 0) -> None:
        """Puts so many events into the session's log."""
        for number in range(count):
            await self.stores.log.push(
                WebSocketSendAction(
                    tenant_id=session.tenant_id,
                    session_id=session.session_id,
                    message_data={"number": number, "filling": "x" * size},
                    message_type="note",
                )
            )

    async def leave(self, ref: LoopRef) -> None:
        """The client is gone, and the manager knows."""
        ref.tell(SocketClosed())
        await ref.stop()
        await self.manager.ask(Listen(SessionKey(SESSION.tenant_id, SESSION.session_id)))

    def supervised(self, event: str = "actor.failed") -> list[Event]:
        """The newest first."""
        return [each for each in self.supervisor.log.newest(500) if each["event"] == event]


@asynccontextmanager
async def instance(
    url: str,
    prefix: str,
    *,
    agents: Mapping[str, AgentSettings] | None = None,
    policy: Mapping[str, Any] | None = None,
    **settings: Any,
) -> AsyncIterator[Instance]:
    async with stores(url, prefix, **settings) as kept:
        running = Instance(kept, agents or {}, policy or {})
        running.bridge.start()
        try:
            yield running
        finally:
            await running.bridge.stop()
            for session in list(running.supervisor._supervisor._watched):
                await session.stop(1.0, drop=True)
            await running.supervisor.stop()
