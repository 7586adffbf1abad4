"""The callback queue: what workers report, applied to sessions once and in order (section 5)."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
import structlog

from common.domain.callbacks import (
    TERMINAL_TYPES,
    Callback,
    CallbackType,
    DeadLetter,
    DeadReason,
    Position,
    names_another,
    read_callback,
)
from common.domain.ids import SessionKey, TaskId
from common.failpoints import failpoint, is_off
from common.queues.dead_letters import DeadLetters
from common.queues.due import DueTimes
from common.queues.ends import Ends
from common.queues.keys import CALLBACK_GROUP, Keys
from common.queues.redis import Redis, is_mistake, unwrap
from common.queues.scripts import APPLY_CALLBACKS, Command, Value
from common.queues.session_calls import SessionCalls
from common.queues.streams import ConsumerStream, Entry
from common.queues.task_records import session_named
from common.queues.turns import TaskKey, Turns

log = structlog.get_logger(__name__)

SWITCHES = ("dedupe", "gap", "fence")  # rules that a test may switch off: negative controls
MAX_BACKOFF_MS = 30_000
MAX_PARKED = 10_000
MAX_PARKED_BYTES = 8 * 1024 * 1024
ENDED_HERE = 2  # what the script answers for a task whose workers do not know of its end


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
        turns: Turns,
        ends: Ends,
        letters: DeadLetters,
        *,
        consumer: str,
        max_bytes: int,
        max_attempts: int,
        gap_timeout_ms: int,
        retry_backoff_ms: int,
        max_parked: int = MAX_PARKED,
        max_parked_bytes: int = MAX_PARKED_BYTES,
    ) -> None:
        self._redis = redis
        self._keys = keys
        self._calls = calls
        self._due = due
        self._turns = turns
        self._ends = ends
        self._letters = letters
        self._max_bytes = max_bytes
        self._max_attempts = max_attempts
        self._gap_timeout_ms = gap_timeout_ms
        self._retry_backoff_ms = retry_backoff_ms
        self._waiting_allowed = (max_parked, max_parked_bytes)  # for one task's gap
        self.stream = ConsumerStream(redis, keys.callbacks, CALLBACK_GROUP, consumer)

    async def apply(self, entries: Sequence[Entry]) -> Applied:
        """Applies a batch and acks it. Applying the same entries again changes nothing.

        The order of entries within a session is kept; sessions do not wait for each other.
        """
        if is_off("ack"):  # for tests: acked before it is applied, and so lost in a crash
            await self.stream.finish([entry.id for entry in entries])
        failpoint("callbacks.before_apply")
        items = [_Item(entry, self._read(entry)) for entry in entries]
        await self._find_sessions(items)
        await self._apply_by_session(items)
        applied = Applied()
        await self._set_aside(items, applied)
        failpoint("callbacks.after_apply")
        await self.stream.finish([item.entry.id for item in items])
        return applied

    async def set_aside(self, entry: Entry) -> None:
        """Makes a dead letter of an entry that cannot even be looked at."""
        await self._letters.bury_callback(self.stream.name, entry, DeadReason.UNREADABLE)
        await self.stream.finish([entry.id])

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
        names = await self._redis.call_all(
            [("GET", self._keys.task_session(task_id)) for _, task_id in lost]
        )
        for (item, _), name in zip(lost, names, strict=True):
            if name is None:
                continue
            session = session_named(name)
            if names_another(item.entry.fields, session):
                item.read = DeadLetter(reason=DeadReason.MISMATCH, position=None)
            else:
                item.session = session

    async def _apply_by_session(self, items: Iterable[_Item]) -> None:
        batches = _batches_of(items)
        done: list[tuple[_SessionBatch, Any]] = []
        for batch, reply in zip(batches, await self._run(batches), strict=True):
            if is_mistake(reply):
                log.error("callbacks.failed", session=str(batch.session), error=str(reply))
                done += await self._apply_one_by_one(batch)
            else:
                done.append((batch, unwrap(reply)))
        failpoint("callbacks.before_follow_up")
        await self._follow_up(done)

    async def _run(self, batches: Sequence["_SessionBatch"]) -> list[Any]:
        return await self._redis.batch([self._command(batch) for batch in batches])

    async def _apply_one_by_one(self, batch: "_SessionBatch") -> list[tuple["_SessionBatch", Any]]:
        """Applies a session's callbacks after they failed together, so that one spoils no other.

        One that fails alone as well is set aside: it counts as received, if that much can be done.
        """
        done: list[tuple[_SessionBatch, Any]] = []
        for single in batch.singles():
            (reply,) = await self._run([single])
            if is_mistake(reply):
                single.give_up(str(reply))
                (reply,) = await self._run([single])
            if not is_mistake(reply):
                done.append((single, unwrap(reply)))
        return done

    async def _follow_up(self, done: Iterable[tuple["_SessionBatch", Any]]) -> None:
        """Notes what became of each callback, and sees to gaps and ends of tasks."""
        looks: list[Command] = []
        stopped: list[tuple[SessionKey, TaskId, str]] = []
        ended: list[TaskKey] = []
        released: list[TaskKey] = []
        has_started = False
        for batch, (outcomes, gaps, ends, retries, turns) in done:
            for (item, _), outcome in zip(batch.group, outcomes, strict=True):
                item.outcome = outcome.decode()
                has_started |= _is_start(item)
            for task_id, (retry_at, entry_id) in zip(batch.task_ids, retries, strict=True):
                if retry_at:
                    await self._turns.back_off(batch.session, task_id, retry_at, entry_id)
            released += [(batch.session, TaskId(each.decode())) for each in turns]
            for task_id, gap_at, end in zip(batch.task_ids, gaps, ends, strict=True):
                if end == ENDED_HERE:
                    stopped.append((batch.session, task_id, "The task has ended."))
                if end:
                    ended.append((batch.session, task_id))
                elif gap_at:
                    looks.append(self._due.look_at(batch.session, task_id, gap_at))
        await self._redis.call_all(looks)
        await self._ends.tell_workers(stopped)
        if ended or released:
            await self._ends.tidy(ended, released=released)
        elif has_started:  # where a worker took an entry there is room for another
            await self._turns.take()

    def _command(self, batch: "_SessionBatch") -> Command:
        task_keys = [
            key
            for task_id in batch.task_ids
            for key in self._calls.task_keys(batch.session, task_id)
        ]
        numbers = (len(batch.task_ids), self._gap_timeout_ms, *self._waiting_allowed)
        return self._calls.call(
            APPLY_CALLBACKS,
            batch.session,
            task_keys,
            *numbers,
            len(batch.group),
            self._max_attempts,
            self._retry_backoff_ms,
            MAX_BACKOFF_MS,
            ",".join(rule for rule in SWITCHES if is_off(rule)),
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
        names = await self._redis.call_all(
            [("GET", self._keys.task_session(task_id)) for task_id in ordered]
        )
        return {task_id for task_id, name in zip(ordered, names, strict=True) if name is not None}


class _SessionBatch:
    """One session's share of a batch, as its script takes it."""

    def __init__(self, session: SessionKey, group: list[tuple[_Item, Position]]) -> None:
        self.session = session
        self.group = group
        self.task_ids = list(dict.fromkeys(position.task_id for _, position in group))

    def singles(self) -> Iterable["_SessionBatch"]:
        return (_SessionBatch(self.session, [each]) for each in self.group)

    def give_up(self, error: str) -> None:
        """Makes the only callback of this batch a dead letter."""
        item, position = self.group[0]
        read = item.read
        ends = read.ends_task if isinstance(read, DeadLetter) else read.type in TERMINAL_TYPES
        item.read = DeadLetter(reason=DeadReason.UNREADABLE, position=position, ends_task=ends)
        log.error(
            "callback.failed",
            task_id=position.task_id,
            entry_id=item.entry.id.decode(),
            error=error,
        )

    def arguments(self) -> Iterable[Value]:
        numbers = {task_id: number for number, task_id in enumerate(self.task_ids, start=1)}
        for item, position in self.group:
            yield from (numbers[position.task_id], position.attempt, position.seq)
            yield from _payload(item.read)


def _is_start(item: _Item) -> bool:
    return isinstance(item.read, Callback) and item.read.type is CallbackType.STARTED


def _batches_of(items: Iterable[_Item]) -> list[_SessionBatch]:
    groups: dict[SessionKey, list[tuple[_Item, Position]]] = {}
    for item in items:
        if item.session is not None and item.read.position is not None:
            groups.setdefault(item.session, []).append((item, item.read.position))
    return [_SessionBatch(session, group) for session, group in groups.items()]


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
            usage = orjson.dumps(body["usage"]) if isinstance(body.get("usage"), dict) else b""
            return (read.type, read.data, usage if "response" in body else b"-" + usage)
        case CallbackType.FAILED:
            if body.get("retryable") is True:
                worn_out = _failure(body["error"], error_type="max_attempts")
                return ("retry", b"", worn_out)
            return (read.type, _failure(body["error"]), b"")
        case _:
            return (read.type, read.data, b"")


def _failure(error: dict[str, object], error_type: str | None = None) -> bytes:
    """The data of the `error` frame that ends a failed task; also what its status tells."""
    return orjson.dumps(
        {
            "code": "task_failed",
            "error_type": error_type or _word(error.get("type"), "error"),
            "message": _word(error.get("message"), "The agent failed."),
            "status": "failed",
        }
    )


def _word(said: object, otherwise: str) -> str:
    return said if isinstance(said, str) and said else otherwise
