"""Who is connected, and who has to hear what: the registry of all SessionActors of an instance."""

import asyncio
import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import structlog
from pykka import ActorDeadError

from actors.counters import Counters
from actors.loop_actor import LoopActor, LoopRef, MailboxFull, Watching
from actors.session import SessionActor
from actors.session_messages import (
    CaughtUp,
    Close,
    Connection,
    ConnectionPolicy,
    Doubt,
    GoElsewhere,
    Left,
    Passing,
)
from actors.transport import Transport
from common.domain.ids import SessionId, SessionKey, TenantId
from common.failpoints import failpoint
from common.queues.actions import Broadcast
from common.queues.bridge import Bridge, Heard, HeardPassing, Resubscribed
from common.queues.session_log import SessionLog

log = structlog.get_logger(__name__)

LINGER = 1.0  # seconds for which a session left by its last connection is still listened to
CONFIRMED_WITHIN = 4.0  # seconds; whoever waits for a subscription gives up earlier


@dataclass(frozen=True, slots=True)
class Listen:
    """A connection is about to come. Answered with `Listening`."""

    session: SessionKey


@dataclass(frozen=True, slots=True)
class Listening:
    """`confirmed` is done once all that the session's channel tells from then on is heard."""

    confirmed: asyncio.Future[None]


@dataclass(frozen=True, slots=True)
class Connect:
    """A socket is open. Answered with the ref of its SessionActor."""

    connection: Connection
    transport: Transport


@dataclass(frozen=True, slots=True)
class SendAllElsewhere:
    """The instance drains. Answered with how many connections were told.

    They are told different times, so that no more than `per_second` come back in a second.
    """

    per_second: float
    reason: str


@dataclass(frozen=True, slots=True)
class CloseAll:
    """The instance stops. Answered with how many connections were told."""

    code: int
    reason: str


class ConnectionManagerActor(LoopActor):
    """Starts a SessionActor for each connection and passes on what the bridge hears.

    It alone subscribes and unsubscribes, so these never cross. Everything is O(1) in the number of
    connections, except what concerns all of a tenant, or all.
    """

    mailbox_size = 20_000

    def __init__(
        self,
        bridge: Bridge,
        policy: ConnectionPolicy,
        session_log: SessionLog,
        router: LoopRef,
        supervisor: Watching,
        counters: Counters,
    ) -> None:
        super().__init__()
        self._bridge = bridge
        self._policy = policy
        self._session_log = session_log
        self._router = router
        self._supervisor = supervisor
        self._counters = counters
        self._sessions: dict[SessionKey, dict[str, LoopRef]] = {}
        self._tenants: dict[TenantId, set[SessionKey]] = {}
        self._lingering: dict[SessionKey, asyncio.TimerHandle] = {}

    def on_start(self) -> None:
        failpoint("connection_manager.on_start")

    def on_receive(self, message: Any) -> Any:
        failpoint("connection_manager.on_receive")
        match message:
            case Heard(session, published):
                self._tell(session, published)
            case HeardPassing(session, entries):
                self._tell(session, Passing(entries))
            case Broadcast():
                self._broadcast(message)
            case Resubscribed(session):
                self._tell(session, Doubt())
            case Listen(session):
                return self._listen(session)
            case Connect(connection, transport):
                return self._connect(connection, transport)
            case Left(session, connection_id):
                self._leave(session, connection_id)
            case CaughtUp():
                pass
            case SendAllElsewhere(per_second, reason):
                return self._send_all_elsewhere(per_second, reason)
            case CloseAll(code, reason):
                return self._close_all(Close(code, reason))
        return None

    def describe_children(self) -> Collection[LoopRef]:
        return list(self._all())

    def on_stop(self) -> None:
        failpoint("connection_manager.on_stop")
        self._forget_timers()

    def on_failure(self, *_: Any) -> None:
        # A new manager knows none of these; their clients come back to it.
        self._close_all(Close(4500, "internal error; come back"))
        self._forget_timers()
        for session, connections in self._sessions.items():
            for _connection in connections:
                self._counters.disconnected(session.tenant_id)
        self._counters.sessions = 0
        for session in {*self._sessions, *self._lingering}:
            self._bridge.unsubscribe(session)

    def _listen(self, session: SessionKey) -> Listening:
        confirmed = self._bridge.subscribe(session)
        if session not in self._sessions:
            self._linger(session, LINGER if confirmed.done() else CONFIRMED_WITHIN)
        return Listening(confirmed)

    def _connect(self, connection: Connection, transport: Transport) -> LoopRef:
        session = connection.session
        confirmed = self._bridge.subscribe(session)
        if not confirmed.done():
            # It came late, and was unsubscribed; what is told until then is found in the log.
            confirmed.add_done_callback(partial(self._doubt, session))
        self._stay(session)
        ref = SessionActor.start(
            connection,
            transport,
            self._policy,
            self._session_log,
            self._router,
            self.actor_ref,
            self._counters,
            name=f"{self.name}/{connection.connection_id}",
            supervisor=self._supervisor,
        )
        self._sessions.setdefault(session, {})[connection.connection_id] = ref
        self._tenants.setdefault(session.tenant_id, set()).add(session)
        self._counters.connected(session.tenant_id)
        self._counters.sessions = len(self._sessions)
        return ref

    def _leave(self, session: SessionKey, connection_id: str) -> None:
        connections = self._sessions.get(session, {})
        if connections.pop(connection_id, None) is None:
            return
        self._counters.disconnected(session.tenant_id)
        if not connections:
            del self._sessions[session]
            self._tenants[session.tenant_id].discard(session)
            if not self._tenants[session.tenant_id]:
                del self._tenants[session.tenant_id]
            self._linger(session, LINGER)
        self._counters.sessions = len(self._sessions)

    def _doubt(self, session: SessionKey, confirmed: asyncio.Future[None]) -> None:
        if not confirmed.cancelled():
            self.actor_ref.notify(Resubscribed(session))

    # A subscription outlives its last connection by a moment: most who leave come back at once.

    def _linger(self, session: SessionKey, seconds: float) -> None:
        self._stay(session)
        loop = asyncio.get_running_loop()
        # Not by a message: one on its way could not be taken back when somebody comes.
        self._lingering[session] = loop.call_later(seconds, self._give_up, session)

    def _stay(self, session: SessionKey) -> None:
        if timer := self._lingering.pop(session, None):
            timer.cancel()

    def _give_up(self, session: SessionKey) -> None:
        del self._lingering[session]
        self._bridge.unsubscribe(session)

    def _forget_timers(self) -> None:
        for timer in self._lingering.values():
            timer.cancel()

    # Passing on.

    def _tell(self, session: SessionKey, message: object) -> None:
        for ref in list(self._sessions.get(session, {}).values()):
            self._tell_one(ref, message)

    def _tell_one(self, ref: LoopRef, message: object) -> None:
        try:
            ref.tell(message)
        except ActorDeadError:
            pass  # it is on its way out; its `Left` follows
        except MailboxFull:
            # It cannot keep up. What it missed is in the log, and its client resumes there.
            self._counters.slow_consumers_closed += 1
            ref.stop(drop=True)

    def _broadcast(self, broadcast: Broadcast) -> None:
        passing = Passing((broadcast.entry,))
        for session in self._addressed(broadcast.tenant_id, broadcast.target_sessions):
            self._tell(session, passing)

    def _addressed(
        self, tenant_id: TenantId, targets: frozenset[SessionId] | None
    ) -> Iterable[SessionKey]:
        if targets is None:
            return list(self._tenants.get(tenant_id, ()))
        return [SessionKey(tenant_id, session_id) for session_id in targets]

    def _send_all_elsewhere(self, per_second: float, reason: str) -> int:
        refs = list(self._all())
        for number, ref in enumerate(refs, start=1):
            self._tell_one(ref, GoElsewhere(math.ceil(number * 1000 / per_second), reason))
        return len(refs)

    def _close_all(self, message: Close) -> int:
        refs = list(self._all())
        for ref in refs:
            self._tell_one(ref, message)
        return len(refs)

    def _all(self) -> Iterable[LoopRef]:
        for connections in self._sessions.values():
            yield from connections.values()
