"""The work queue: three streams from which the Agent Execution Service takes tasks (section 5)."""

import re
from dataclasses import dataclass
from typing import Any

import structlog
from redis import exceptions

from common.domain.actions import Priority
from common.domain.ids import TaskId
from common.queues.dead_letters import DeadLetters
from common.queues.keys import GIVEN_BACK, WORK_GROUP, Keys
from common.queues.redis import Redis, is_mistake, unwrap
from common.queues.scripts import DROP_HANDLED, TAKEN_ENTRIES, Command
from common.queues.streams import Entry, consumer_of, create_group, fields_of, is_missing_group

log = structlog.get_logger(__name__)

COUNT = re.compile(rb"[0-9]{1,9}")
TAKEN_PAGE = 100
SCAN_MS = 800
HANDLED_PAGE = 500
SILENT_MS = 90_000  # a worker that lives is heard of more often


@dataclass(frozen=True, slots=True, kw_only=True)
class TakenEntry:
    """An entry that a worker took and has not finished; what it says stays in Redis."""

    stream: str
    entry_id: bytes
    task_id: TaskId
    idle_ms: int
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkDepth:
    """How many entries no worker has taken, by priority, and how many workers are known."""

    untaken: dict[str, int]
    consumers: int


class WorkQueue:
    """The orchestrator's side of the work streams; workers have `work_consumer`."""

    def __init__(self, redis: Redis, keys: Keys, letters: DeadLetters) -> None:
        self._redis = redis
        self._keys = keys
        self._letters = letters

    async def ensure_groups(self) -> None:
        for stream in self._keys.work_streams:
            await create_group(self._redis, stream, WORK_GROUP)

    async def may_scan(self) -> bool:
        """True for one instance at a time, about once a second: one scan serves them all."""
        granted = await self._redis.call("SET", self._keys.scan_lease, "1", "NX", "PX", SCAN_MS)
        return granted is not None

    async def drop_handled(self) -> int:
        """Deletes what workers acked and did not live to delete; says how many entries."""
        replies = await self._redis.batch(
            [
                DROP_HANDLED.call([stream], WORK_GROUP, HANDLED_PAGE)
                for stream in self._keys.work_streams
            ]
        )
        return sum(reply for reply in replies if isinstance(reply, int))

    async def taken(self) -> list[TakenEntry]:
        """The entries in workers' hands."""
        found: list[TakenEntry] = []
        for stream in self._keys.work_streams:
            start = "-"
            while start:
                page, last = await self._page(stream, start)
                found += await self._with_attempts(stream, page)
                start = f"({last.decode()}" if last else ""
        return found

    async def _page(self, stream: str, start: str) -> tuple[list[Any], bytes]:
        """Ids of entries and tasks with their idle times; where the page ended, if not for good."""
        try:
            page, last = await self._redis.run(
                TAKEN_ENTRIES, [stream], WORK_GROUP, start, TAKEN_PAGE
            )
        except exceptions.ResponseError as error:
            if not is_missing_group(error):
                raise
            return [], b""
        return page, last

    async def _with_attempts(self, stream: str, page: list[Any]) -> list[TakenEntry]:
        task_ids = [TaskId(name.decode(errors="replace")) for _, name, _ in page]
        attempts = await self._redis.batch(
            [("GET", self._keys.attempt(task_id)) for task_id in task_ids]
        )
        return [
            TakenEntry(
                stream=stream,
                entry_id=entry_id,
                task_id=task_id,
                idle_ms=idle_ms,
                attempt=_attempt_of(task_id, attempt),
            )
            for (entry_id, _, idle_ms), task_id, attempt in zip(
                page, task_ids, attempts, strict=True
            )
        ]

    async def bury(self, taken: TakenEntry, reason: str) -> bool:
        """Moves an entry to the dead letters. False if another instance had done so."""
        found = await self._redis.call("XRANGE", taken.stream, taken.entry_id, taken.entry_id)
        buried = False
        for entry_id, flat in found:
            entry = Entry(entry_id, fields_of(flat))
            buried = await self._letters.bury_work(taken.stream, entry, reason)
        await self.remove(taken)
        return buried

    async def remove(self, taken: TakenEntry) -> None:
        """Takes an entry out."""
        await self._redis.call_all(removal(taken.stream, taken.entry_id))

    async def depth(self) -> WorkDepth:
        """What waits for a worker."""
        lengths = await self._redis.batch([("XLEN", each) for each in self._keys.work_streams])
        pendings = await self._redis.batch(
            [("XPENDING", each, WORK_GROUP) for each in self._keys.work_streams]
        )
        untaken = {}
        for priority, length, pending in zip(Priority, lengths, pendings, strict=True):
            taken = 0 if isinstance(pending, Exception) else int(pending[0])
            untaken[str(priority)] = max(0, int(unwrap(length)) - taken)
        return WorkDepth(untaken=untaken, consumers=await self._consumers())

    async def _consumers(self) -> int:
        replies = await self._redis.batch(
            [("XINFO", "CONSUMERS", each, WORK_GROUP) for each in self._keys.work_streams]
        )
        consumers = [
            consumer_of(flat)
            for reply in replies
            if not isinstance(reply, Exception)
            for flat in reply
        ]
        names = {each["name"] for each in consumers if each["idle"] < SILENT_MS}
        return len(names - {GIVEN_BACK})


def _attempt_of(task_id: TaskId, told: Any) -> int:
    """What workers have counted. Any of them may write nonsense there: it stops nobody else."""
    if not is_mistake(told) and unwrap(told) is None:
        return 0
    if isinstance(told, bytes) and COUNT.fullmatch(told):
        return int(told)
    log.warning("attempt.unreadable", task_id=task_id)
    return 0


def removal(stream: str, entry_id: bytes) -> list[Command]:
    """The commands that take an entry out, whoever has it; it may be gone already."""
    # Deleted first: cut off in between, what is left is cleared by the next who claims.
    return [("XDEL", stream, entry_id), ("XACK", stream, WORK_GROUP, entry_id)]
