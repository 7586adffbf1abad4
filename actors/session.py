"""One connection of a session: what the client has, what it is told next, what it asks for."""

import asyncio
from collections.abc import Sequence
from typing import Any

import orjson
import structlog
from pykka import ActorDeadError, Timeout

from actors.counters import Counters
from actors.expiry import Expiry
from actors.loop_actor import LoopActor, LoopRef
from actors.session_messages import (
    Answered,
    Close,
    Command,
    Connection,
    ConnectionPolicy,
    Doubt,
    GoElsewhere,
    Left,
    Passing,
    Ping,
    ReadLog,
    Refused,
    Renewed,
    SocketClosed,
)
from actors.transport import Transport
from common.domain.actions import ChatAction
from common.domain.answers import answer_body, refusal_body
from common.domain.errors import (
    Draining,
    InternalError,
    OrchestratorError,
    Overloaded,
    RedisUnavailable,
    TemporaryError,
)
from common.domain.events import Compactor, Event, FrameType, address_of, encode_frame, encode_reply
from common.domain.resume import Joined, Phase, Published, Resume, Step, join
from common.domain.times import now_ms, rfc3339
from common.failpoints import failpoint
from common.queues.session_log import SessionLog

log = structlog.get_logger(__name__)

PAGE = 1000  # events of one read
READ_AGAIN = 0.5  # seconds, while Redis is away
ANSWER_WITHIN = 2.9  # seconds; a client gets its refusal within three
LATEST_MS = 253_402_300_799_999  # the end of the year 9999, and of what RFC 3339 can tell
MAX_UNANSWERED = 64  # commands of one connection


class SessionActor(LoopActor):
    """Writes a session's events to one connection, each once and in order (`Resume` decides).

    Temporary: if it fails its socket is closed with 4500, and the client resumes on a fresh one.
    A client that reads too slowly is closed with 4008; a replay goes at the socket's own pace.
    """

    mailbox_size = 1000

    def __init__(
        self,
        connection: Connection,
        transport: Transport,
        policy: ConnectionPolicy,
        session_log: SessionLog,
        router: LoopRef,
        manager: LoopRef,
        counters: Counters,
    ) -> None:
        super().__init__()
        self._connection = connection
        self._transport = transport
        self._policy = policy
        self._log = session_log
        self._router = router
        self._manager = manager
        self._counters = counters
        self._address = address_of(connection.session)
        self._resume: Resume | None = None
        self._compactor = Compactor(self._address) if connection.compact else None
        self._replayed_up_to = 0  # bytes queued when the replay's last frame was written
        self._bad_frames = 0
        self._unanswered = 0
        self._closed = False
        expired = Close(4401, "the token has expired; come back with another")
        self._expiry = Expiry(lambda: self.actor_ref.notify(expired))

    async def on_start(self) -> None:
        failpoint("session.on_start")
        self._expiry.at(self._connection.expires_at)
        try:
            state = await self._log.join(self._connection.session)
        except TemporaryError as error:
            self._close(4500, f"{error.detail} Come back.")
            return
        joined = join(self._connection.request, state.epoch, state.last, state.oldest)
        self._resume = Resume(joined)
        self._reply(FrameType.CONNECTION_ACK, self._acknowledgement(joined), None)
        self._do(self._resume.begin())

    def on_receive(self, message: object) -> Any:
        failpoint("session.on_receive")
        match message:
            case Published():
                self._on_published(message)
            case Passing(entries):
                self._write([encode_frame(entry, self._address) for entry in entries])
            case ReadLog():
                return self._read_log()
            case Command() | Ping() | Renewed() | Refused():
                self._on_frame(message)
            case Answered(id_, answer):
                self._answer(id_, answer)
            case Doubt():
                if self._resume is not None:
                    self._do(self._resume.doubted())
            case GoElsewhere(after_ms, reason):
                data = orjson.dumps({"after_ms": after_ms, "reason": reason})
                self._reply(FrameType.RECONNECT, data, None)
                self._close(1012, reason)
            case Close(code, reason):
                self._close(code, reason)
            case SocketClosed():
                self._closed = True
                self.stop()
        return None

    def on_stop(self) -> None:
        self._say_goodbye()
        failpoint("session.on_stop")
        # Stopped with its socket open: only because more waited for it than it may hold.
        self._close(4008, "reads too slowly; come back")

    def on_failure(self, *_: object) -> None:
        self._say_goodbye()
        self._close(4500, "internal error; come back")

    def _say_goodbye(self) -> None:
        """First of all, so that whatever fails then, the connection is not counted any more."""
        self._expiry.cancel()
        self._manager.notify(Left(self._connection.session, self._connection.connection_id))

    # Events.

    def _on_published(self, published: Published) -> None:
        if self._resume is not None:
            self._do(self._resume.published(published))

    async def _read_log(self) -> None:
        resume = self._resume
        if resume is None or resume.phase is not Phase.REPLAYING or self._closed:
            return
        try:
            page = await self._log.read(self._connection.session, resume.position, PAGE)
        except TemporaryError:
            asyncio.get_running_loop().call_later(READ_AGAIN, self.actor_ref.notify, ReadLog())
            return
        step = resume.page(page.state.epoch, page.state.last, page.events)
        self._write_replay(step.events, is_last=not step.read)
        self._do(Step(read=step.read, lost=step.lost))

    def _write_replay(self, events: Sequence[Event], *, is_last: bool) -> None:
        if self._compactor is None:
            frames = [event.frame(self._address) for event in events]
        else:
            frames = [frame.payload for frame in self._compactor.feed(events)]
            if is_last:
                frames += [frame.payload for frame in self._compactor.flush()]
        self._send(frames)
        self._replayed_up_to = self._transport.queued

    def _do(self, step: Step) -> None:
        if step.events:
            self._write([event.frame(self._address) for event in step.events])
        if step.read:
            self._transport.when_drained(lambda: self.actor_ref.notify(ReadLog()))
        if step.lost:
            self._close(4410, "the session's log began anew, or was trimmed; come back")

    def _write(self, frames: Sequence[bytes]) -> None:
        """Writes live frames, unless the client is so slow that they would pile up."""
        before = self._backlog()
        self._send(frames)
        # A single frame may exceed the buffer, so what counts is what waited before it.
        is_slow = before and self._backlog() > self._policy.send_buffer_bytes
        if is_slow and not self._closed:
            self._counters.slow_consumers_closed += 1
            self._close(4008, "reads too slowly; come back")

    def _backlog(self) -> int:
        """Bytes of live frames that wait; those of a replay ahead of them do not count."""
        return self._transport.queued - max(self._transport.sent, self._replayed_up_to)

    def _send(self, frames: Sequence[bytes]) -> None:
        if frames and not self._closed:
            self._transport.write(frames)
            self._counters.messages_sent += len(frames)
            self._counters.bytes_sent += sum(map(len, frames))

    # What the client says.

    def _on_frame(self, frame: Command | Ping | Renewed | Refused) -> None:
        is_bad = isinstance(frame, Refused) and frame.is_bad
        self._bad_frames = self._bad_frames + 1 if is_bad else 0
        match frame:
            case Command(id_, action):
                self._command(id_, action)
            case Ping(id_):
                self._reply(FrameType.PONG, b"{}", id_)
            case Renewed(id_, expires_at):
                self._renew(id_, expires_at)
            case Refused():
                self._refuse(frame)

    def _command(self, id_: str | None, action: ChatAction) -> None:
        if self._unanswered >= MAX_UNANSWERED:
            self._reply_error(id_, Overloaded("Too many frames wait for an answer."))
            return
        try:
            answer = self._router.ask(action, timeout=ANSWER_WITHIN)
        except (ActorDeadError, Overloaded) as error:
            self._reply_error(id_, _meaning_of(error))
            return
        self._unanswered += 1
        answer.add_done_callback(lambda done: self.actor_ref.notify(Answered(id_, _outcome(done))))

    def _answer(self, id_: str | None, answer: Any) -> None:
        self._unanswered -= 1
        if isinstance(answer, OrchestratorError):
            self._reply_error(id_, answer)
        elif id_ is not None:
            self._reply(FrameType.ACK, answer_body(answer), id_)

    def _refuse(self, refused: Refused) -> None:
        self._counters.bad_frames += refused.is_bad
        self._reply_error(refused.id, refused.error)
        if self._bad_frames >= self._policy.max_bad_frames:
            self._close(4413, "too many bad frames")

    def _reply_error(self, id_: str | None, error: OrchestratorError) -> None:
        self._reply(FrameType.ERROR, refusal_body(error), id_)

    def _reply(self, type_: FrameType, data: bytes, id_: str | None) -> None:
        self._write([encode_reply(type_, data, rfc3339(now_ms()), self._address, id_)])

    def _renew(self, id_: str | None, expires_at: float | None) -> None:
        self._expiry.at(expires_at)
        if id_ is not None:
            told = None if expires_at is None else rfc3339(min(int(expires_at * 1000), LATEST_MS))
            self._reply(FrameType.ACK, orjson.dumps({"expires_at": told}), id_)

    def _acknowledgement(self, joined: Joined) -> bytes:
        return orjson.dumps(
            {
                "connection_id": self._connection.connection_id,
                "epoch": joined.epoch,
                "offset": joined.last,
                "recovered": joined.recovered,
                "replayed": joined.replayed,
                "ping_interval": self._policy.ping_interval,
                "max_message_bytes": self._policy.max_message_bytes,
                "instance_id": self._policy.instance_id,
            }
        )

    def _close(self, code: int, reason: str) -> None:
        if not self._closed:
            self._closed = True
            self._expiry.cancel()
            self._counters.closes[code] += 1
            self._transport.close(code, reason)


def _outcome(done: "asyncio.Future[Any]") -> Any:
    """A future's result, or what its failure means to the client."""
    if done.cancelled():
        return InternalError()
    error = done.exception()
    return done.result() if error is None else _meaning_of(error)


def _meaning_of(error: BaseException) -> OrchestratorError:
    """The same as over HTTP."""
    match error:
        case OrchestratorError():
            return error
        case Timeout():
            return RedisUnavailable()  # whatever is slow here, it is Redis
        case ActorDeadError():
            return Draining()
        case _:
            return InternalError()
