"""Events and frames: what happened in a session, and how a client is told (contract, section 4).

The session log keeps an event as an *entry*, a JSON object without what all its neighbours share:

    {"type":"agent_delta","data":{"text":"Hel"},"timestamp":"…","task_id":"…"}

A *frame* is the entry with its address and offset put behind, byte for byte, never re-encoded:

    {"type":"agent_delta","data":{"text":"Hel"},"timestamp":"…","task_id":"…",
     "tenant_id":"acme","session_id":"s-1","offset":7}
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import orjson

from common.domain.ids import SessionKey, TaskId


class FrameType(StrEnum):
    """The words of section 4's table; a push may use any word but these (and two of these)."""

    CONNECTION_ACK = "connection_ack"
    USER_MESSAGE = "user_message"
    TASK_UPDATE = "task_update"
    AGENT_DELTA = "agent_delta"
    AGENT_EVENT = "agent_event"
    AGENT_RESPONSE = "agent_response"
    ERROR = "error"
    BROADCAST = "broadcast"
    TYPING_INDICATOR = "typing_indicator"
    ACK = "ack"
    PONG = "pong"
    RECONNECT = "reconnect"


PUSHABLE = frozenset({FrameType.AGENT_RESPONSE, FrameType.BROADCAST})
MAX_JOINED = 256 * 1024  # characters of text in one joined frame
RESERVED_TYPES = frozenset(FrameType) - PUSHABLE


@dataclass(slots=True)
class Event:
    """One kept event: its number in the session's log, and its entry. Not to be changed."""

    offset: int
    entry: bytes
    _frame: bytes | None = field(default=None, repr=False, compare=False)

    def frame(self, address: bytes) -> bytes:
        """The event's frame, made once however many connections of its session want it."""
        if self._frame is None:
            self._frame = b'%b%b,"offset":%d}' % (self.entry[:-1], address, self.offset)
        return self._frame


def encode_entry(
    type_: str,
    data: bytes,
    timestamp: str,
    task_id: TaskId | None = None,
    metadata: bytes | None = None,
) -> bytes:
    """Builds an entry around data that is JSON already. `type_` is a plain word."""
    parts = [b'{"type":', orjson.dumps(type_), b',"data":', data]
    parts += [b',"timestamp":"', timestamp.encode(), b'"']
    if task_id is not None:
        parts += [b',"task_id":"', task_id.encode(), b'"']
    if metadata is not None:
        parts += [b',"metadata":', metadata]
    parts.append(b"}")
    return b"".join(parts)


def address_of(session: SessionKey) -> bytes:
    """The part that all frames of a session share; ids need no escaping."""
    return f',"tenant_id":"{session.tenant_id}","session_id":"{session.session_id}"'.encode()


def encode_frame(entry: bytes, address: bytes) -> bytes:
    """A frame without offset: something told to those who are connected, and not kept."""
    return b"%b%b}" % (entry[:-1], address)


def encode_reply(
    type_: FrameType, data: bytes, timestamp: str, address: bytes, id_: str | None
) -> bytes:
    """A frame that answers one connection; `id_` correlates it with the client's frame."""
    frame = encode_frame(encode_entry(type_, data, timestamp), address)
    return frame if id_ is None else b'%b,"id":%b}' % (frame[:-1], orjson.dumps(id_))


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame to be written, and the offset up to which the client then has everything."""

    offset: int
    payload: bytes


class Compactor:
    """Joins consecutive deltas of one task and attempt whose data is only `text` (section 4).

    Feed it a replay page by page, then flush it: an answer that spans pages is still one frame.
    An attempt's first event is never a delta where an earlier one streamed (a `task_update` with
    `reset` comes first), so neighbouring deltas of one task are of one attempt.
    """

    def __init__(self, address: bytes) -> None:
        self._address = address
        self._run: list[tuple[Event, str]] = []
        self._task_id = ""
        self._timestamp = ""
        self._size = 0

    def feed(self, events: Iterable[Event]) -> Iterator[Frame]:
        for event in events:
            delta = _plain_delta(event)
            if delta is None:
                yield from self.flush()
                yield Frame(event.offset, event.frame(self._address))
                continue
            if delta["task_id"] != self._task_id or self._size > MAX_JOINED:
                yield from self.flush()
            self._add(event, delta)

    def _add(self, event: Event, delta: Mapping[str, Any]) -> None:
        text: str = delta["data"]["text"]
        self._run.append((event, text))
        self._task_id, self._timestamp = delta["task_id"], delta["timestamp"]
        self._size += len(text)

    def flush(self) -> Iterator[Frame]:
        """What has been held back to be joined."""
        run, self._run, self._size = self._run, [], 0
        if not run:
            return
        (first, _), (last, _) = run[0], run[-1]
        if first is last:
            yield Frame(first.offset, first.frame(self._address))
            return
        text = orjson.dumps({"text": "".join(text for _, text in run)})
        task_id = TaskId(self._task_id)
        entry = encode_entry(FrameType.AGENT_DELTA, text, self._timestamp, task_id)
        address = b'%b,"from_offset":%d' % (self._address, first.offset)
        yield Frame(last.offset, Event(last.offset, entry).frame(address))


def _plain_delta(event: Event) -> Mapping[str, Any] | None:
    if not event.entry.startswith(b'{"type":"agent_delta"'):
        return None
    decoded: Mapping[str, Any] = orjson.loads(event.entry)
    return decoded if decoded["data"].keys() == {"text"} else None
