"""Callbacks: what the Agent Execution Service reports about a task (contract, section 5).

`read_callback` looks at an entry's fields once. What it returns is either a `Callback`, whose data
is passed on as the bytes it came in, or a `DeadLetter`, which says why the entry is set aside.
"""

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import chain, islice
from typing import Any

import orjson

from common.domain.ids import SessionId, SessionKey, TaskId, TenantId, is_outside_id

MAX_SEQ = 2**53 - 1  # the largest integer that survives every JSON and Lua number
MAX_DEPTH = 32
OVERHEAD = 4096  # bytes that the fields beside `data` may take


class CallbackType(StrEnum):
    """What a worker may report; the last three end the task."""

    STARTED = "started"
    DELTA = "delta"
    EVENT = "event"
    PROGRESS = "progress"
    TYPING = "typing"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


TERMINAL_TYPES = frozenset({CallbackType.COMPLETED, CallbackType.FAILED, CallbackType.CANCELLED})


class DeadReason(StrEnum):
    """Why an entry went to the dead letters."""

    UNREADABLE = "unreadable"
    UNKNOWN_TYPE = "unknown_type"
    MISMATCH = "mismatch"
    TOO_LARGE = "too_large"
    BAD_ACTION = "bad_action"


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """Where a callback stands: which task, which run of it, and which of that run's callbacks.

    `session` is None where the entry does not name one; the task's own is meant then.
    """

    session: SessionKey | None
    task_id: TaskId
    attempt: int
    seq: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Callback:
    """One report. `data` is the JSON object as it came; `body` the same, decoded."""

    position: Position
    type: CallbackType
    data: bytes
    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """An entry that says nothing usable. Where its position can be read it counts as received."""

    reason: DeadReason
    position: Position | None
    ends_task: bool = False  # it was to end its task, so the task fails with the reason


def read_callback(
    fields: Mapping[bytes, bytes], max_bytes: int, max_attempts: int
) -> Callback | DeadLetter:
    """Checks an entry once. Promises valid UTF-8 and JSON, nested at most 32 deep, in `data`.

    A line break in `data` is white space between tokens; it becomes a space, so that one event
    stays one line wherever events are told by lines.
    """
    position = _read_position(fields, max_attempts)
    kind = fields.get(b"type", b"")
    is_terminal = kind in (b"completed", b"failed", b"cancelled")

    def dead(reason: DeadReason) -> DeadLetter:
        return DeadLetter(
            reason=reason, position=position, ends_task=is_terminal and position is not None
        )

    data = fields.get(b"data", b"")
    size = sum(len(name) + len(value) for name, value in fields.items())
    if len(data) > max_bytes or size > max_bytes + OVERHEAD:
        return dead(DeadReason.TOO_LARGE)
    if position is None or position.session is None:
        return dead(DeadReason.UNREADABLE)
    try:
        type_ = CallbackType(kind.decode())
    except ValueError:
        return dead(DeadReason.UNKNOWN_TYPE if kind else DeadReason.UNREADABLE)
    body = _read_object(data)
    if body is None or not _fits(type_, body):
        return dead(DeadReason.UNREADABLE)
    if b"\n" in data or b"\r" in data:
        data = data.replace(b"\r", b" ").replace(b"\n", b" ")
    return Callback(position=position, type=type_, data=data.strip(), body=body)


def _read_position(fields: Mapping[bytes, bytes], max_attempts: int) -> Position | None:
    try:
        task_id = fields[b"task_id"].decode("ascii")
        attempt = _read_count(fields[b"attempt"])
        seq = _read_count(fields[b"seq"])
    except (KeyError, ValueError):
        return None
    if attempt > max_attempts or not is_outside_id(task_id):
        return None
    return Position(
        session=_read_session(fields), task_id=TaskId(task_id), attempt=attempt, seq=seq
    )


def _read_session(fields: Mapping[bytes, bytes]) -> SessionKey | None:
    try:
        tenant_id = fields[b"tenant_id"].decode("ascii")
        session_id = fields[b"session_id"].decode("ascii")
    except (KeyError, ValueError):
        return None
    if not (is_outside_id(tenant_id) and is_outside_id(session_id)):
        return None
    return SessionKey(TenantId(tenant_id), SessionId(session_id))


def names_another(fields: Mapping[bytes, bytes], session: SessionKey) -> bool:
    """Whether an entry names, legibly, a tenant or a session that is not this one."""
    own = {b"tenant_id": session.tenant_id, b"session_id": session.session_id}
    named = {name: fields.get(name, b"").decode("ascii", "replace") for name in own}
    return any(is_outside_id(named[name]) and named[name] != own[name] for name in own)


def _read_count(text: bytes) -> int:
    """A number from 1 on, in plain decimal digits.

    Raises:
        ValueError: if it is anything else.
    """
    if not text.isdigit() or not 0 < len(text) <= len(str(MAX_SEQ)):
        raise ValueError(text[:32])
    number = int(text)
    if not 1 <= number <= MAX_SEQ:
        raise ValueError(number)
    return number


def _read_object(data: bytes) -> Mapping[str, Any] | None:
    try:
        body = orjson.loads(data)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(body, dict) or depth_of(body) > MAX_DEPTH:
        return None
    return body


@dataclass(frozen=True, slots=True)
class Extent:
    """How large a JSON value is. Beyond what was to be counted, `values` is one more than that."""

    depth: int  # 1 for `{}`, 2 for `{"a": []}`; 0 for a number
    values: int  # itself, and whatever it holds


def depth_of(value: object) -> int:
    """How deep a JSON value nests."""
    return extent_of(value).depth


def extent_of(value: object, most: int = sys.maxsize - 1) -> Extent:
    """Measures a JSON value layer by layer; stops as soon as it holds more than `most` values."""
    depth, values, layer = 0, 1, [value]
    while nesting := [item for item in layer if isinstance(item, (dict, list))]:
        depth += 1
        children = chain.from_iterable(map(_children_of, nesting))
        layer = list(islice(children, most + 1 - values))
        values += len(layer)
        if values > most:
            break
    return Extent(depth, values)


def _children_of(item: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return item.values() if isinstance(item, dict) else item


def _fits(type_: CallbackType, body: Mapping[str, Any]) -> bool:
    """Whether the fields that we look into ourselves are what the contract's table says."""
    match type_:
        case CallbackType.DELTA:
            return isinstance(body.get("text"), str)
        case CallbackType.EVENT:
            return isinstance(body.get("name"), str)
        case CallbackType.PROGRESS:
            return _is_progress(body.get("progress")) and isinstance(body.get("message", ""), str)
        case CallbackType.COMPLETED:
            return isinstance(body.get("response", ""), str)
        case CallbackType.FAILED:
            return isinstance(body.get("error"), dict)
        case _:
            return True


def _is_progress(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 100
