"""The callback queue: what workers report, applied to sessions once and in order (section 5)."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import orjson

from common.domain.callbacks import (
    Callback,
    CallbackType,
    DeadLetter,
    DeadReason,
    Position,
    read_callback,
)
from common.domain.ids import SessionKey, TaskId
from common.queues.dead_letters import DeadLetters
from common.queues.due import DueTimes
from common.queues.keys import CALLBACK_GROUP, Keys
from common.queues.redis import Redis, unwrap
from common.queues.scripts import APPLY_CALLBACKS, Command, Value
from common.queues.session_calls import SessionCalls
from common.queues.streams import ConsumerStream, Entry
from common.queues.task_records import session_named
from common.queues.tasks import TaskStore

MAX_PARKED = 10_000
MAX_PARKED_BYTES = 8 * 1024 * 1024


@dataclass(slots=True)
class Applied:
    """What became of a batch: how many callbacks came to which outcome, and what was set aside."""

    outcomes: dict[str, int] = field(default_factory=dict)
    dead: dict[str, int] = field(default_factory=dict)

    def count(self, outcome: str) -> None:
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1

    def count_dead(self, reason: str) -> None:
        self.dead[reason] = self.dead.get(reason, 0) + 1


@dataclass(slots=True)
class _Item:
    """One entry of the stream on its way through a batch."""

    entry: Entry
    read: Callback | DeadLetter
    session: SessionKey | None = None
    outcome: str = ""


class CallbackQueue:
    """Takes callbacks from their stream and applies them, one script a session and batch."""

    def __init__(
        self,
        redis: Redis,
        keys: Keys,
        calls: SessionCalls,
        due: DueTimes,
        tasks: TaskStore,
        letters: DeadLetters,
        *,
        consumer: str,
        max_bytes: int,
        max_attempts: int,
        gap_timeout_ms: int,
    ) -> None:
        self._redis = redis
        self._keys = keys
        self._calls = calls
        self._due = due
        self._tasks = tasks
        self._letters = letters
        self._max_bytes = max_bytes
        self._max_attempts = max_attempts
        self._gap_timeout_ms = gap_timeout_ms
        self.stream = ConsumerStream(redis, keys.callbacks, CALLBACK_GROUP, consumer)

    async def apply(self, entries: Sequence[Entry]) -> Applied:
        """Applies a batch and acks it. Applying the same entries again changes nothing.

        The order of entries within a session is kept; sessions do not wait for each other.
        """
        items = [_Item(entry, self._read(entry)) for entry in entries]
        await self._find_sessions(items)
        await self._apply_by_session(items)
        applied = Applied()
        await self._set_aside(items, applied)
        await self.stream.finish([item.entry.id for item in items])
        return applied

    def _read(self, entry: Entry) -> Callback | DeadLetter:
        return read_callback(entry.fields, self._max_bytes, self._max_attempts)

    async def _find_sessions(self, items: Iterable[_Item]) -> None:
        """Entries whose session cannot be read are found by their task, if that can be."""
        lost: list[tuple[_Item, TaskId]] = []
        for item in items:
            position = item.read.position
            if position is not None:
                item.session = position.session
                if position.session is None:
                    lost.append((item, position.task_id))
        names = await self._redis.batch(
            [("GET", self._keys.task_session(task_id)) for _, task_id in lost]
        )
        for (item, _), name in zip(lost, names, strict=True):
            if unwrap(name) is not None:
                item.session = session_named(name)

    async def _apply_by_session(self, items: Iterable[_Item]) -> None:
        groups: dict[SessionKey, list[tuple[_Item, Position]]] = {}
        for item in items:
            if item.session is not None and item.read.position is not None:
                groups.setdefault(item.session, []).append((item, item.read.position))
        batches = [_SessionBatch(session, group) for session, group in groups.items()]
        replies = await self._redis.batch([self._command(batch) for batch in batches])
        follow_up: list[Command] = []
        ended: list[tuple[SessionKey, TaskId]] = []
        for batch, reply in zip(batches, replies, strict=True):
            outcomes, gaps, ends = unwrap(reply)
            for (item, _), outcome in zip(batch.group, outcomes, strict=True):
                item.outcome = outcome.decode()
            for task_id, gap_at, end in zip(batch.task_ids, gaps, ends, strict=True):
                if end:
                    ended.append((batch.session, task_id))
                elif gap_at:
                    follow_up.append(self._due.look_at(batch.session, task_id, gap_at))
        for result in await self._redis.batch(follow_up):
            unwrap(result)
        await self._tasks.tidy(ended)

    def _command(self, batch: "_SessionBatch") -> Command:
        task_keys = [
            key
            for task_id in batch.task_ids
            for key in self._calls.task_keys(batch.session, task_id)
        ]
        numbers = (len(batch.task_ids), self._gap_timeout_ms, MAX_PARKED, MAX_PARKED_BYTES)
        return self._calls.call(
            APPLY_CALLBACKS,
            batch.session,
            task_keys,
            *numbers,
            len(batch.group),
            *batch.task_ids,
            *batch.arguments(),
        )

    async def _set_aside(self, items: Sequence[_Item], applied: Applied) -> None:
        """Keeps what could not be used as dead letters, and counts what became of all."""
        strangers = await self._strangers(items)
        for item in items:
            reason = self._reason(item, strangers)
            if reason is None:
                applied.count(item.outcome)
            elif await self._letters.bury_callback(self.stream.name, item.entry, reason):
                applied.count_dead(reason)

    def _reason(self, item: _Item, strangers: set[TaskId]) -> str | None:
        position = item.read.position
        if item.outcome == "unknown" and position is not None and position.task_id in strangers:
            return DeadReason.MISMATCH
        return item.read.reason if isinstance(item.read, DeadLetter) else None

    async def _strangers(self, items: Iterable[_Item]) -> set[TaskId]:
        """Tasks that exist, but not in the session that a callback named."""
        unknown = {
            item.read.position.task_id
            for item in items
            if item.outcome == "unknown" and item.read.position is not None
        }
        ordered = sorted(unknown)
        names = await self._redis.batch(
            [("GET", self._keys.task_session(task_id)) for task_id in ordered]
        )
        return {
            task_id
            for task_id, name in zip(ordered, names, strict=True)
            if unwrap(name) is not None
        }


class _SessionBatch:
    """One session's share of a batch, as its script takes it."""

    def __init__(self, session: SessionKey, group: list[tuple[_Item, Position]]) -> None:
        self.session = session
        self.group = group
        self.task_ids = list(dict.fromkeys(position.task_id for _, position in group))

    def arguments(self) -> Iterable[Value]:
        numbers = {task_id: number for number, task_id in enumerate(self.task_ids, start=1)}
        for item, position in self.group:
            yield from (numbers[position.task_id], position.attempt, position.seq)
            yield from _payload(item.read)


def _payload(read: Callback | DeadLetter) -> tuple[str, bytes, bytes]:
    """Kind, data and extra, as `lua/apply_callbacks.lua` wants them."""
    if isinstance(read, DeadLetter):
        return ("dead_end" if read.ends_task else "dead", b"", read.reason.encode())
    body = read.body
    match read.type:
        case CallbackType.DELTA:
            return (read.type, read.data, body["text"].encode())
        case CallbackType.PROGRESS:
            data = {"status": "running", "progress": body["progress"]}
            if "message" in body:
                data["message"] = body["message"]
            return (read.type, orjson.dumps(data), orjson.dumps(body["progress"]))
        case CallbackType.COMPLETED:
            usage = orjson.dumps(body["usage"]) if body.get("usage") is not None else b""
            return (read.type, read.data, usage if "response" in body else b"-" + usage)
        case CallbackType.FAILED:
            return (read.type, _failure(body["error"]), b"")
        case _:
            return (read.type, read.data, b"")


def _failure(error: dict[str, object]) -> bytes:
    """The data of the `error` frame that ends a failed task; also what its status tells."""
    return orjson.dumps(
        {
            "code": "task_failed",
            "error_type": str(error.get("type", "error")),
            "message": str(error.get("message", "The agent failed.")),
            "status": "failed",
        }
    )
