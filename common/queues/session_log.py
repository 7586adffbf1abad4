"""The session log: all that happened in a session, numbered without holes, for as long as kept.

The log is the truth; what is published beside it is a hint that happens to carry the events.
"""

from dataclasses import dataclass

import orjson

from common.domain.actions import WebSocketSendAction
from common.domain.events import Event
from common.domain.ids import SessionKey
from common.queues.keys import Keys
from common.queues.redis import Redis
from common.queues.scripts import JOIN_SESSION, PUSH_EVENT, READ_LOG
from common.queues.session_calls import SessionCalls

REMEMBER_ACTIONS = 24 * 3600  # seconds
PAGE_BYTES = 1024 * 1024  # of entries; a single larger one is a page of its own


@dataclass(frozen=True, slots=True, kw_only=True)
class LogState:
    """Where a log stands. `oldest` is 0 where no event is kept."""

    epoch: str | None  # None: the session has no log
    last: int
    oldest: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LogPage:
    """Events in order of their offsets, and the log's state at the moment of reading."""

    state: LogState
    events: tuple[Event, ...]

    @property
    def is_last(self) -> bool:
        """Whether nothing follows. How many events there are does not tell: they may be large."""
        return not self.events or self.events[-1].offset >= self.state.last


class SessionLog:
    """Reads logs, begins them, and puts a back-end's pushes into them."""

    def __init__(self, redis: Redis, keys: Keys, calls: SessionCalls) -> None:
        self._redis = redis
        self._keys = keys
        self._calls = calls

    async def join(self, session: SessionKey) -> LogState:
        """Where the log stands; begins it if there is none."""
        reply = await self._redis.call(*self._calls.call(JOIN_SESSION, session, []))
        return _state_of(reply)

    async def read(self, session: SessionKey, after: int, limit: int) -> LogPage:
        """Events that follow the offset `after`: at most `limit`, and no more than `PAGE_BYTES`.

        So nobody's history is so large that Redis keeps others waiting over it. There is at least
        one where there is any: the last has been read when an event's offset is `state.last`.
        """
        reply = await self._redis.run(
            READ_LOG,
            [self._keys.session_meta(session), self._keys.session_log(session)],
            after,
            limit,
            PAGE_BYTES,
        )
        pairs = zip(reply[3::2], reply[4::2], strict=True)
        return LogPage(
            state=_state_of(reply), events=tuple(Event(offset, entry) for offset, entry in pairs)
        )

    async def push(self, action: WebSocketSendAction) -> bool:
        """Puts the action's data into the log. False if that action had been put in before."""
        added = await self._redis.call(
            *self._calls.call(
                PUSH_EVENT,
                action.session,
                [self._keys.pushed(action.session, action.action_id)],
                REMEMBER_ACTIONS,
                action.message_type,
                orjson.dumps(action.message_data),
                orjson.dumps(action.metadata) if action.metadata else b"",
            )
        )
        return bool(added)


def _state_of(reply: list[bytes | int]) -> LogState:
    epoch, last, oldest = reply[:3]
    name = epoch.decode() if isinstance(epoch, bytes) and epoch else None
    return LogState(epoch=name, last=int(last), oldest=int(oldest))
