"""The execution service's only door to Redis: section 5 of the contract, the worker's side.

What a worker has in its hands is fenced by the task's attempt counter: an entry is refreshed, acked
and deleted only by the newest attempt, in one atomic step. So a worker that slept through its
visibility timeout finds out before it can do harm.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson
import structlog
from redis import exceptions

from common.domain.errors import RedisUnavailable, TemporaryError
from common.domain.ids import TaskId
from common.queues.keys import GIVEN_BACK, WORK_GROUP, Keys
from common.queues.redis import Redis, connect, meaning_of, unwrap
from common.queues.refusals import attempt, why_refused
from common.queues.scripts import Command, Script, Value, script
from common.queues.streams import fields_of, is_missing_group

log = structlog.get_logger(__name__)

BLOCK_SECONDS = 1.0  # the longest one read waits for work; a stop waits it out, losing nothing
CLAIM_SECONDS = 1.0  # between two looks for entries that nobody refreshes
PRESENCE_SECONDS = 60.0  # between two signs of life
GONE_AFTER_MS = 600_000
LOOK_AT = 300  # idle entries examined in one look
ATTEMPT_TTL_SECONDS = 86_400
DEFAULT_VISIBILITY_MS = 60_000  # of an entry that does not say; the contract's default
GIVEN_BACK_IDLE_MS = 86_400_000  # longer than any visibility timeout

REFRESH = script("work_refresh")
FINISH = script("work_finish")
GIVE_BACK = script("work_give_back")
CLAIM = script("work_claim")
UNANSWERED = script("work_unanswered")
RETIRE = script("work_retire")
PRESENCE = script("work_presence")


class GroupMissing(TemporaryError):
    """The orchestrator has not made the work streams' consumer group yet."""


class RedisRefused(Exception):
    """Redis does not accept this worker, or we not its certificate; the message says why."""


@dataclass(frozen=True, slots=True)
class WorkEntry:
    """An entry of a work stream, as it was delivered; its fields are not checked yet."""

    stream: str
    entry_id: str
    fields: Mapping[bytes, bytes]

    @property
    def task_id(self) -> TaskId:
        """Empty if the entry has none."""
        return TaskId(self.fields.get(b"task_id", b"").decode(errors="replace"))

    @property
    def action(self) -> bytes:
        return self.fields.get(b"action", b"")


@dataclass(frozen=True, slots=True)
class Lease:
    """This worker's right to an entry, for as long as `attempt` is the newest of its task."""

    entry: WorkEntry
    attempt: int


class Begun(NamedTuple):
    """What Redis said when an attempt began. `now_ms` is Redis's clock, `cancel` the reason."""

    attempt: int
    cancel: str | None
    now_ms: int


class Report(NamedTuple):
    """One callback, ready to be added to `stream`. `data` is a JSON object."""

    stream: str
    task_id: str
    tenant_id: str
    session_id: str
    attempt: int
    seq: int
    type: str
    data: bytes

    def command(self) -> Command:
        return (
            *("XADD", self.stream, "*"),
            *("task_id", self.task_id, "tenant_id", self.tenant_id, "session_id", self.session_id),
            *("attempt", self.attempt, "seq", self.seq, "type", self.type, "data", self.data),
        )


class WorkConsumer:
    """One consumer of the work streams, its name unique to one start of one worker.

    Every method raises `RedisUnavailable` (or another `TemporaryError`) if it may not have
    happened; each is safe to call again. Loss and return of Redis are logged here, once each.
    """

    def __init__(self, url: str, keys: Keys, name: str, *, socket_timeout: float = 2.0) -> None:
        """Raises ValueError if the URL cannot be read. Connects when first used."""
        self.name = name
        self._keys = keys
        self._redis = Redis(url, socket_timeout=socket_timeout)
        self._reader = connect(
            url, socket_timeout=BLOCK_SECONDS + socket_timeout, max_connections=1
        )
        self._listener = connect(url, socket_timeout=socket_timeout, max_connections=1)
        self._held: set[tuple[str, str]] = set()
        self._reply_lost = False
        self._next_claim = self._next_presence = 0.0
        self._floor_ms = 0
        self._away = False
        self._waiting_as: int | None = None
        self._impatient = False

    # Taking work.

    async def take(self, count: int) -> list[WorkEntry]:
        """Entries for this worker to run, at most `count`; waits up to a second if there are none.

        First what others left idle, then new entries, high before normal before low.

        Raises:
            GroupMissing: if there is no consumer group yet.
        """
        with self._answering(loses_entries=True):
            entries = await self._overlooked(count) + await self._idle(count)
            for stream in self._keys.work_streams:
                if len(entries) < count:
                    entries += await self._read(count - len(entries), stream)
            entries = entries or await self._wait()
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
        return [each for stream, items in found or () for each in _entries(stream.decode(), items)]

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
                await self._send(("CLIENT", "UNBLOCK", self._waiting_as))
                await asyncio.sleep(0.01)

    async def _idle(self, count: int) -> list[WorkEntry]:
        """What other workers hold and no longer refresh."""
        if time.monotonic() < self._next_claim:
            return []
        await self._show_presence()
        claimed: list[WorkEntry] = []
        smallest = self._floor_ms
        for stream in self._keys.work_streams:
            rest = count - len(claimed)
            found, seen = await self._eval(
                CLAIM,
                (stream,),
                *(WORK_GROUP, self.name, rest, self._floor_ms, DEFAULT_VISIBILITY_MS, LOOK_AT),
            )
            claimed += _entries(stream, found)
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
            pending = await self._eval(UNANSWERED, (stream,), WORK_GROUP, self.name, 1000)
            found += _entries(stream, pending)
        unseen = [each for each in found if (each.stream, each.entry_id) not in self._held]
        self._reply_lost = len(unseen) > count
        return unseen[:count]

    async def _show_presence(self) -> None:
        """Clears away dead workers' names, too, and forgets which timeouts were seen."""
        if time.monotonic() < self._next_presence:
            return
        for stream in self._keys.work_streams:
            await self._eval(PRESENCE, (stream,), WORK_GROUP, self.name, GONE_AFTER_MS)
        self._floor_ms = 0
        self._next_presence = time.monotonic() + PRESENCE_SECONDS

    # One entry's life.

    async def begin(self, task_id: TaskId) -> Begun:
        """Counts a new attempt, which fences off all earlier ones, then looks at the cancel key."""
        attempt_key = self._keys.attempt(task_id)
        attempt, _, cancel, (seconds, micros) = await self._send(
            ("INCR", attempt_key),
            ("EXPIRE", attempt_key, ATTEMPT_TTL_SECONDS),
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
        await self._send(
            ("XACK", entry.stream, WORK_GROUP, entry.entry_id),
            ("XDEL", entry.stream, entry.entry_id),
        )
        self.let_go(entry)

    def let_go(self, entry: WorkEntry) -> None:
        """This worker no longer has the entry in its hands, whoever has."""
        self._held.discard((entry.stream, entry.entry_id))

    # Reporting.

    async def report(self, reports: Sequence[Report]) -> list[str | None]:
        """Adds callbacks in one pipeline, in order. None for each that was added, else the error.

        If it raises, any of them may have been added; adding them again does no harm.
        """
        with self._answering():
            results = await self._redis.batch([each.command() for each in reports])
        return [str(each) if isinstance(each, Exception) else None for each in results]

    # Cancellation.

    async def cancelled(self, task_ids: Sequence[TaskId]) -> dict[TaskId, str]:
        """Those of the tasks that are to be stopped, with the reasons."""
        found = await self._send(*(("GET", self._keys.cancel(task_id)) for task_id in task_ids))
        pairs = zip(task_ids, found, strict=True)
        return {
            task_id: value.decode(errors="replace") for task_id, value in pairs if value is not None
        }

    @asynccontextmanager
    async def control(self) -> AsyncIterator[AsyncIterator[tuple[TaskId, str]]]:
        """Subscribed to the control channel while entered; gives cancellations as they are told.

        A hint only: what was said while Redis was away is found by `cancelled`.
        """
        pubsub = self._listener.pubsub(ignore_subscribe_messages=False)
        try:
            with self._answering():
                await pubsub.subscribe(self._keys.control)
                if await pubsub.get_message(timeout=self._redis.socket_timeout) is None:
                    raise RedisUnavailable  # it did not confirm
            yield self._hear(pubsub)
        finally:
            await pubsub.aclose()  # type: ignore[no-untyped-call]

    async def _hear(self, pubsub: Any) -> AsyncIterator[tuple[TaskId, str]]:
        while True:
            with self._answering():
                heard = await pubsub.get_message(timeout=BLOCK_SECONDS)
            if heard and heard["type"] == "message":
                cancel = _cancel_message(heard["data"])
                if cancel:
                    yield cancel

    # Coming and going.

    async def greet(self) -> None:
        """Finds out whether Redis would have us at all.

        Raises:
            RedisRefused: if it would not. A Redis that is away may still come.
        """
        probe = TaskId("rights")
        try:
            await attempt(self._redis, [("TIME",), ("GET", self._keys.cancel(probe))])
        except TemporaryError as error:
            if why := why_refused(error):
                raise RedisRefused(why) from error

    async def retire(self) -> None:
        """Gives back all that is left and removes this consumer from the streams."""
        for stream in self._keys.work_streams:
            with self._answering():
                await self._eval(
                    RETIRE, (stream,), WORK_GROUP, self.name, GIVEN_BACK, GIVEN_BACK_IDLE_MS
                )

    async def close(self) -> None:
        await self._reader.aclose()
        await self._listener.aclose()
        await self._redis.close()

    # How it is sent.

    async def _fenced(self, fenced: Script, entry: WorkEntry, *args: Value) -> bool:
        keys = (entry.stream, self._keys.attempt(entry.task_id))
        with self._answering():
            return bool(await self._eval(fenced, keys, WORK_GROUP, *args))

    async def _eval(self, body: Script, keys: Sequence[str], *args: Value) -> Any:
        # Short and rare: their text is sent along, so that a restarted Redis knows them.
        return await self._redis.call("EVAL", body.body, len(keys), *keys, *args)

    async def _send(self, *commands: Command) -> list[Any]:
        with self._answering():
            return [unwrap(result) for result in await self._redis.batch(commands)]

    @contextmanager
    def _answering(self, *, loses_entries: bool = False) -> Iterator[None]:
        """Turns redis-py's errors into ours, and tells the log when Redis goes and returns."""
        try:
            yield
        except exceptions.ResponseError as error:
            self._reply_lost |= loses_entries
            if is_missing_group(error):
                raise GroupMissing from error
            raise self._lost(meaning_of(error) or error, error) from error
        except (exceptions.RedisError, OSError, TimeoutError) as error:
            self._reply_lost |= loses_entries
            raise self._lost(meaning_of(error) or RedisUnavailable(), error) from error
        except TemporaryError as error:
            self._reply_lost |= loses_entries
            self._lost(error, error.__cause__ or error)
            raise
        if self._away:
            self._away = False
            log.info("redis.returned")

    def _lost(self, meaning: Exception, cause: BaseException) -> Exception:
        if not self._away:
            self._away = True
            log.warning("redis.lost", error=f"{type(cause).__name__}: {cause}")
        return meaning


def _entries(stream: str, found: Iterable[tuple[bytes, list[bytes]]]) -> list[WorkEntry]:
    return [WorkEntry(stream, entry_id.decode(), fields_of(flat)) for entry_id, flat in found]


def _cancel_message(data: bytes) -> tuple[TaskId, str] | None:
    """A cancellation heard on the control channel; None for anything else."""
    try:
        said = orjson.loads(data)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(said, dict) or said.get("type") != "cancel":
        return None
    return TaskId(str(said.get("task_id"))), str(said.get("reason") or "")
