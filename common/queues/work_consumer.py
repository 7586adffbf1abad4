"""The execution service's only door to Redis: section 5 of the contract, the worker's side.

What a worker has in its hands is fenced by the task's attempt counter: an entry is refreshed, acked
and deleted only by the newest attempt, in one atomic step. So a worker that slept through its
visibility timeout finds out before it can do harm.
"""

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress

import structlog

from common.domain.errors import TemporaryError
from common.domain.ids import TaskId
from common.queues.keys import GIVEN_BACK, WORK_GROUP, Keys
from common.queues.redis import Redis, connect
from common.queues.scripts import Script, Value, script
from common.queues.work_cancellations import Cancellations
from common.queues.work_connection import WorkConnection
from common.queues.work_entries import (
    DEFAULT_VISIBILITY_MS,
    Begun,
    Lease,
    Report,
    WorkEntry,
    entries_of,
)

log = structlog.get_logger(__name__)

BLOCK_SECONDS = 1.0  # the longest one read waits for work; a stop waits it out, losing nothing
CLAIM_SECONDS = 1.0  # between two looks for entries that nobody refreshes
PRESENCE_SECONDS = 60.0  # between two signs of life
GONE_AFTER_MS = 600_000
LOOK_AT = 300  # idle entries examined in one look
ATTEMPT_TTL_SECONDS = 86_400
TAKING_TTL_SECONDS = 3600  # longer than a command can be on its way, or tried again
GIVEN_BACK_IDLE_MS = 86_400_000  # longer than any visibility timeout

BEGIN = script("work_begin")
REFRESH = script("work_refresh")
FINISH = script("work_finish")
GIVE_BACK = script("work_give_back")
CLAIM = script("work_claim")
UNANSWERED = script("work_unanswered")
RETIRE = script("work_retire")
PRESENCE = script("work_presence")


class WorkConsumer:
    """One consumer of the work streams, its name unique to one start of one worker.

    Every method raises `RedisUnavailable` (or another `TemporaryError`) if it may not have
    happened; each is safe to call again. `cancellations` tells which tasks are to be stopped.
    """

    def __init__(self, url: str, keys: Keys, name: str, *, socket_timeout: float = 2.0) -> None:
        """Raises ValueError if the URL cannot be read. Connects when first used."""
        self.name = name
        self._keys = keys
        self._redis = Redis(url, socket_timeout=socket_timeout)
        self._reader = connect(
            url, socket_timeout=BLOCK_SECONDS + socket_timeout, max_connections=1
        )
        self._connection = WorkConnection(self._redis)
        self.cancellations = Cancellations(
            self._connection, self._keys, url, socket_timeout=socket_timeout
        )
        self._held: set[tuple[str, str]] = set()
        self._reply_lost = False
        self._next_claim = self._next_presence = 0.0
        self._floor_ms = 0
        self._waiting_as: int | None = None
        self._impatient = False

    # Taking work.

    async def take(self, count: int) -> list[WorkEntry]:
        """Entries for this worker to run, at most `count`; waits up to a second if there are none.

        First what others left idle, then new entries, high before normal before low.

        Raises:
            GroupMissing: if there is no consumer group yet.
        """
        try:
            with self._connection.answering():
                entries = await self._overlooked(count)
                entries += await self._idle(count - len(entries), besides=entries)
                for stream in self._keys.work_streams:
                    if len(entries) < count:
                        entries += await self._read(count - len(entries), stream)
                entries = entries or await self._wait()
        except Exception:
            self._reply_lost = True
            raise
        self._held.update((each.stream, each.entry_id) for each in entries)
        # A read that waits counts for each stream: two that were filled at once give one too many.
        await self._return(entries[count:])
        return entries[:count]

    async def _return(self, surplus: Sequence[WorkEntry]) -> None:
        for entry in surplus:
            try:
                await self.give_back(entry)
            except TemporaryError:
                self.let_go(entry)
                self._reply_lost = True  # it is found again as one that this worker never saw

    async def _read(self, count: int, *streams: str, wait: bool = False) -> list[WorkEntry]:
        block = ("BLOCK", int(BLOCK_SECONDS * 1000)) if wait else ()
        found = await self._reader.execute_command(  # type: ignore[no-untyped-call]
            *("XREADGROUP", "GROUP", WORK_GROUP, self.name, "COUNT", count, *block),
            *("STREAMS", *streams, *(">" for _ in streams)),
        )
        return [
            each for stream, items in found or () for each in entries_of(stream.decode(), items)
        ]

    async def _wait(self) -> list[WorkEntry]:
        """The next entry of any stream; none within a second, or once `stop_waiting` was asked."""
        self._waiting_as = await self._reader.execute_command("CLIENT", "ID")  # type: ignore[no-untyped-call]
        try:
            # From here on `stop_waiting` reaches the read, even before it has begun to wait.
            if self._impatient:
                return []
            return await self._read(1, *self._keys.work_streams, wait=True)
        finally:
            self._waiting_as = None

    async def stop_waiting(self) -> None:
        """Ends a `take` that waits, for good. Cancelling it could lose sight of an entry."""
        self._impatient = True
        with suppress(TemporaryError):
            while self._waiting_as is not None:
                await self._connection.send(("CLIENT", "UNBLOCK", self._waiting_as))
                await asyncio.sleep(0.01)

    async def _idle(self, count: int, besides: Sequence[WorkEntry]) -> list[WorkEntry]:
        """What nobody refreshes: other workers, or this one, which has let go of it."""
        in_hand = self._held | {(each.stream, each.entry_id) for each in besides}
        if time.monotonic() < self._next_claim:
            return []
        await self._show_presence()
        claimed: list[WorkEntry] = []
        smallest = self._floor_ms
        for stream in self._keys.work_streams:
            rest = count - len(claimed)
            found, seen = await self._connection.eval(
                CLAIM,
                (stream,),
                *(WORK_GROUP, self.name, rest, self._floor_ms, DEFAULT_VISIBILITY_MS, LOOK_AT),
                *(entry_id for held_in, entry_id in in_hand if held_in == stream),
            )
            claimed += entries_of(stream, found)
            smallest = min(smallest or seen, seen or smallest)
        self._floor_ms = smallest
        self._next_claim = time.monotonic() + CLAIM_SECONDS
        for each in claimed:
            log.info("entry.claimed", task_id=each.task_id, entry_id=each.entry_id)
        return claimed

    async def _overlooked(self, count: int) -> list[WorkEntry]:
        """What was delivered to this consumer in a reply that never arrived."""
        if not self._reply_lost:
            return []
        found: list[WorkEntry] = []
        for stream in self._keys.work_streams:
            pending = await self._connection.eval(
                UNANSWERED, (stream,), WORK_GROUP, self.name, 1000
            )
            found += entries_of(stream, pending)
        unseen = [each for each in found if (each.stream, each.entry_id) not in self._held]
        self._reply_lost = len(unseen) > count
        return unseen[:count]

    async def _show_presence(self) -> None:
        """Clears away dead workers' names, too, and forgets which timeouts were seen."""
        if time.monotonic() < self._next_presence:
            return
        for stream in self._keys.work_streams:
            await self._connection.eval(PRESENCE, (stream,), WORK_GROUP, self.name, GONE_AFTER_MS)
        self._floor_ms = 0
        self._next_presence = time.monotonic() + PRESENCE_SECONDS

    # One entry's life.

    async def begin(self, task_id: TaskId, taking: str) -> Begun:
        """Counts a new attempt, which fences off all earlier ones, then looks at the cancel key.

        `taking` is a word made up when the entry was taken: with the same one the same attempt is
        answered, so that asking again after a lost reply uses up none.
        """
        counter = self._keys.attempt(task_id)
        # Below `attempt:`, where a worker may write; the tag puts it beside the counter.
        number = f"{self._keys.prefix}attempt:{{{counter}}}:{taking}"
        attempt, cancel, (seconds, micros) = await self._connection.send(
            ("EVAL", BEGIN.body, 2, counter, number, ATTEMPT_TTL_SECONDS, TAKING_TTL_SECONDS),
            ("GET", self._keys.cancel(task_id)),
            ("TIME",),
        )
        now_ms = int(seconds) * 1000 + int(micros) // 1000
        return Begun(attempt, None if cancel is None else cancel.decode(errors="replace"), now_ms)

    async def refresh(self, lease: Lease) -> bool:
        """Keeps the entry from being claimed. False: a newer attempt has begun, let go of it."""
        entry = lease.entry
        return await self._fenced(REFRESH, entry, self.name, entry.entry_id, lease.attempt)

    async def finish(self, lease: Lease) -> bool:
        """Acks and deletes the entry; call it once the terminal callback has been added.

        False: a newer attempt has begun, whose entry it is now; nothing was done.
        """
        entry = lease.entry
        ours = await self._fenced(FINISH, entry, entry.entry_id, lease.attempt)
        self.let_go(entry)
        return ours

    async def give_back(self, entry: WorkEntry, attempt: int | None = None) -> None:
        """Lets another worker claim the entry at once. Without `attempt`: none has begun."""
        fence = "" if attempt is None else attempt
        await self._fenced(GIVE_BACK, entry, GIVEN_BACK, entry.entry_id, fence, GIVEN_BACK_IDLE_MS)
        self.let_go(entry)

    async def discard(self, entry: WorkEntry) -> None:
        """Removes an entry that belongs to no task."""
        await self._connection.send(
            ("XACK", entry.stream, WORK_GROUP, entry.entry_id),
            ("XDEL", entry.stream, entry.entry_id),
        )
        self.let_go(entry)

    def let_go(self, entry: WorkEntry) -> None:
        """This worker no longer has the entry in its hands, whoever has.

        An entry that is neither finished nor given back is claimed once it has been idle for its
        visibility timeout, be it by this same worker.
        """
        self._held.discard((entry.stream, entry.entry_id))

    # Reporting.

    async def report(self, reports: Sequence[Report]) -> list[str | None]:
        """Adds callbacks in one pipeline, in order. None for each that was added, else the error.

        If it raises, any of them may have been added; adding them again does no harm.
        """
        results = await self._connection.report([each.command() for each in reports])
        return [str(each) if isinstance(each, Exception) else None for each in results]

    # Coming and going.

    async def greet(self) -> None:
        """Finds out whether Redis would have us at all.

        Raises:
            RedisRefused: if it would not. A Redis that is away may still come.
        """
        probe = TaskId("rights")
        await self._connection.greet(self._keys.cancel(probe), self._keys.attempt(probe))

    async def retire(self) -> None:
        """Gives back all that is left and removes this consumer from the streams."""
        for stream in self._keys.work_streams:
            with self._connection.answering():
                await self._connection.eval(
                    RETIRE, (stream,), WORK_GROUP, self.name, GIVEN_BACK, GIVEN_BACK_IDLE_MS
                )

    async def close(self) -> None:
        await self._reader.aclose()
        await self.cancellations.close()
        await self._redis.close()

    async def _fenced(self, fenced: Script, entry: WorkEntry, *args: Value) -> bool:
        keys = (entry.stream, self._keys.attempt(entry.task_id))
        with self._connection.answering():
            return bool(await self._connection.eval(fenced, keys, WORK_GROUP, *args))
