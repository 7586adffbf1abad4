"""`/api/sessions/*/*/events`: what has happened in a session (contract, section 3)."""

from collections.abc import Sequence
from dataclasses import dataclass

import orjson

from common.domain.errors import EpochChanged, ValidationFailed
from common.domain.events import Compactor, Event, Frame, address_of
from common.domain.ids import SessionId, SessionKey, TenantId
from common.queues.session_log import PAGE_BYTES, LogState
from orchestrator.auth.caller import Access
from orchestrator.auth.credentials import Credentials, credentials_of
from orchestrator.auth.permission import tier_of
from orchestrator.http.event_stream import EventStream
from orchestrator.schemas import LARGEST_OFFSET, check_id

DEFAULT_LIMIT = 100
MAX_LIMIT = 1000
PAGE = 1000


@dataclass(frozen=True, slots=True)
class History:
    """Frames after an offset, and where the log stood when the last page was read."""

    state: LogState
    frames: Sequence[Frame]


class EventsHandler(EventStream):
    """The session's log after `offset`, at most `limit` frames; `compact=1` joins deltas.

    Fewer where they are large: whoever reads on from `next_offset` gets to the end all the same.
    """

    access = Access.CHAT

    def credentials(self) -> Credentials:
        """`EventSource` can set no header, so a stream's token may come by the query."""
        return credentials_of(self.request, in_query=self._is_stream)

    @property
    def _is_stream(self) -> bool:
        return "text/event-stream" in self.request.headers.get("Accept", "").lower()

    async def get(self, tenant_id: str, session_id: str) -> None:
        session = SessionKey(
            TenantId(check_id(tenant_id, "tenant_id")),
            SessionId(check_id(session_id, "session_id")),
        )
        self.caller.check_session(session)
        tier_of(session.tenant_id, self.app.settings)
        offset = self.query_number("offset", 0, 0, LARGEST_OFFSET)
        limit = self.query_number("limit", DEFAULT_LIMIT, 1, MAX_LIMIT)
        if self._is_stream:  # which has no end, and so no limit
            await self.stream(session, offset, compact=self._compact())
            return
        history = await self._read(session, offset, limit, compact=self._compact())
        epoch = self.get_query_argument("epoch", None)
        if epoch is not None and history.state.epoch not in (None, epoch):
            raise EpochChanged
        self.answer(200, _body(history, offset))

    def _compact(self) -> bool:
        given = self.get_query_argument("compact", "0")
        if given not in ("0", "1"):
            raise ValidationFailed(errors={"compact": ["Must be 0 or 1."]})
        return given == "1"

    async def _read(
        self, session: SessionKey, offset: int, limit: int, *, compact: bool
    ) -> History:
        address = address_of(session)
        log = self.app.session_log
        if not compact:
            page = await log.read(session, offset, limit)
            return History(page.state, _plain(page.events, address))
        compactor = Compactor(address)
        frames: list[Frame] = []
        while True:
            page = await log.read(session, offset, PAGE)
            frames += compactor.feed(page.events)
            if page.is_last:
                frames += compactor.flush()
            if page.is_last or len(frames) >= limit or _size_of(frames) >= PAGE_BYTES:
                return History(page.state, frames[:limit])
            offset = page.events[-1].offset


def _size_of(frames: Sequence[Frame]) -> int:
    return sum(len(frame.payload) for frame in frames)


def _plain(events: Sequence[Event], address: bytes) -> list[Frame]:
    return [Frame(event.offset, event.frame(address)) for event in events]


def _body(history: History, offset: int) -> bytes:
    state = history.state
    next_offset = history.frames[-1].offset if history.frames else min(offset, state.last)
    return orjson.dumps(
        {
            "epoch": state.epoch,
            "events": [orjson.Fragment(frame.payload) for frame in history.frames],
            "next_offset": next_offset,
            "last_offset": state.last,
            "oldest_offset": state.oldest or None,
        }
    )
