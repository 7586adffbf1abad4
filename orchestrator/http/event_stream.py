"""Server-sent events: the same events as by WebSocket, for clients that only listen (section 3)."""

import asyncio
import contextlib
import re
from collections.abc import Callable, Sequence
from functools import partial

import orjson
from pykka import ActorDeadError
from tornado.iostream import StreamClosedError

from actors.connection_manager import Connect
from actors.loop_actor import LoopRef
from actors.session_messages import Connection, SocketClosed
from common.domain.errors import BadRequest
from common.domain.ids import SessionKey, new_id
from common.domain.resume import ResumeRequest
from orchestrator.admission import Admission
from orchestrator.app import ask
from orchestrator.http.base import ApiHandler
from orchestrator.schemas import LARGEST_OFFSET

EVENT_ID = re.compile(r"([^:\s]{1,128}):(\d{1,16})")
# A frame's end is ours: the offset comes last, behind all that an agent may have said.
TAIL = re.compile(rb',"offset":(\d+)\}\Z')
TYPE = re.compile(rb'\{"type":"([^"]+)"')


class EventStreamTransport:
    """A response that never ends, as SessionActors see it (`actors.transport.Transport`)."""

    def __init__(self, handler: "EventStream", ping_interval: float) -> None:
        self._handler = handler
        self._loop = asyncio.get_running_loop()
        self._ping_interval = ping_interval
        self._ping = self._loop.call_later(ping_interval, self._send_ping)
        self._epoch = ""
        self._waiters: list[Callable[[], None]] = []
        self.closed: asyncio.Future[None] = self._loop.create_future()
        self.queued = 0
        self.sent = 0

    def write(self, frames: Sequence[bytes]) -> None:
        if not self.closed.done():
            self._send(b"".join(map(self._event, frames)), sum(map(len, frames)))

    def when_drained(self, callback: Callable[[], None]) -> None:
        if self.sent >= self.queued:
            callback()
        else:
            self._waiters.append(callback)

    def close(self, code: int, reason: str) -> None:  # noqa: ARG002  a response has no close code
        self._ping.cancel()
        if not self.closed.done():
            self.closed.set_result(None)

    def _event(self, frame: bytes) -> bytes:
        """`id: EPOCH:OFFSET` for kept events, `event: TYPE`, `data: FRAME`."""
        kind = TYPE.match(frame)
        name = kind[1] if kind else b"message"
        if name == b"connection_ack":
            self._epoch = orjson.loads(frame)["data"]["epoch"]
        tail = TAIL.search(frame)
        id_ = b"id: %b:%b\n" % (self._epoch.encode(), tail[1]) if tail else b""
        return b"%bevent: %b\ndata: %b\n\n" % (id_, name, frame)

    def _send_ping(self) -> None:
        self._send(b": ping\n\n", 0)
        self._ping = self._loop.call_later(self._ping_interval, self._send_ping)

    def _send(self, text: bytes, counted: int) -> None:
        self.queued += counted
        try:
            self._handler.write(text)
            flushed = asyncio.ensure_future(self._handler.flush())
        except (StreamClosedError, RuntimeError):
            self.close(0, "")
            return
        flushed.add_done_callback(partial(self._on_flushed, self.queued))

    def _on_flushed(self, upto: int, flushed: "asyncio.Future[None]") -> None:
        if flushed.cancelled() or flushed.exception() is not None:
            self.close(0, "")
            return
        self.sent = max(self.sent, upto)
        if self.sent >= self.queued:
            waiters, self._waiters = self._waiters, []
            for callback in waiters:
                callback()


class EventStream(ApiHandler):
    """What the events endpoint does where `text/event-stream` is asked for."""

    _session: LoopRef | None = None
    _transport: EventStreamTransport | None = None

    async def stream(self, session: SessionKey, offset: int, *, compact: bool) -> None:
        """First what is kept, then live, until one of both sides ends it, or the token expires."""
        connection = Connection(
            connection_id=new_id(),
            session=session,
            user_id=None,
            request=self._resume_request(offset),
            compact=compact,
            expires_at=self.caller.expires_at,
        )
        self.set_header("Content-Type", "text/event-stream")
        self.set_header("X-Accel-Buffering", "no")  # a proxy that buffers would keep it all
        if self.request.method == "HEAD":
            self.app.refuse_new_work()
            await self.flush()  # that there is no length is told too
            return
        self.app.requests.discard(self)  # it never ends by itself, so nobody waits for it
        admission = Admission(self.app, self.request)
        try:
            await admission.admit(session)
            ping_interval = self.app.settings.websocket.ping_interval
            transport = self._transport = EventStreamTransport(self, ping_interval)
            self._session = await ask(self.app.manager, Connect(connection, transport))
            await transport.closed
        finally:
            admission.release()
            self._end_session()

    def _resume_request(self, offset: int) -> ResumeRequest:
        """`Last-Event-ID` wins over the query."""
        given = self.request.headers.get("Last-Event-ID")
        if not given:
            return ResumeRequest(epoch=self.get_query_argument("epoch", None), offset=offset)
        matched = EVENT_ID.fullmatch(given)
        if matched is None or int(matched[2]) > LARGEST_OFFSET:
            raise BadRequest("`Last-Event-ID` must be EPOCH:OFFSET.")
        return ResumeRequest(epoch=matched[1], offset=int(matched[2]))

    def on_connection_close(self) -> None:
        """The client is gone: `stream` goes on, and ends."""
        if self._transport is not None:
            self._transport.close(1006, "gone")
        super().on_connection_close()

    def _end_session(self) -> None:
        if self._session is not None:
            with contextlib.suppress(ActorDeadError):
                self._session.tell(SocketClosed())
