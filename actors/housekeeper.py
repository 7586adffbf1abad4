"""What time demands: deadlines, grace periods, gaps, worn-out tasks, what a crash left undone."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import structlog

from actors.counters import Counters
from actors.loop_actor import LoopActor
from common.domain.errors import OrchestratorError, TemporaryError
from common.failpoints import failpoint
from common.queues.due import DueTask
from common.queues.stores import Stores
from common.queues.watch import Look
from common.queues.work import TakenEntry

log = structlog.get_logger(__name__)

LOOK_EVERY = 0.25  # seconds; deadlines and grace periods are noticed within one second
DUE_BATCH = 16  # of each shard; where more is due, the next look follows at once
WORN_OUT_EVERY = 1.0
BEAT_EVERY = 3.0
RETIRE_EVERY = 10.0
SILENT_MS = 60_000  # a consumer that lives reads every second

Item = TypeVar("Item", DueTask, TakenEntry)


class LookAgain:
    """Told by the actor to itself."""


class HousekeeperActor(LoopActor):
    """Looks at what is due, several times a second, on each instance; each item is had by one.

    No clock of this machine decides anything: due times and leases are Redis's own. An item that
    fails keeps no other from being looked at.
    """

    def __init__(self, instance_id: str, stores: Stores, counters: Counters) -> None:
        super().__init__()
        self._instance_id = instance_id
        self._stores = stores
        self._watch = stores.watch
        self._due = stores.due
        self._work = stores.work
        self._instances = stores.instances
        self._limits = stores.limits
        self._counters = counters
        self._next: dict[str, float] = {}
        self._away = False

    def on_start(self) -> None:
        failpoint("housekeeper.on_start")
        self.actor_ref.notify(LookAgain())

    async def on_receive(self, _: LookAgain) -> None:
        failpoint("housekeeper.on_receive")
        more_is_due = False
        try:
            more_is_due = await self._look()
        except TemporaryError as error:
            if not self._away:
                log.warning("housekeeping.interrupted", error=error.code)
            self._away = True
        else:
            self._away = False
        self._counters.redis_away = self._away
        await asyncio.sleep(0 if more_is_due else LOOK_EVERY)
        self.actor_ref.notify(LookAgain())

    async def on_stop(self) -> None:
        failpoint("housekeeper.on_stop")
        try:
            await self._instances.leave(self._instance_id)
        except OrchestratorError as error:
            log.warning("instance.left_silently", error=error.code)

    async def _look(self) -> bool:
        """Does all that is due now, and says whether more may be."""
        due = await self._due.take(DUE_BATCH)
        failpoint("housekeeper.after_take")
        looks = dict(zip(due, await self._watch.look(due), strict=True))
        try:
            await self._follow(list(looks.values()))
        except TemporaryError:
            raise
        except Exception:  # noqa: BLE001  # one spoils it for all; alone, each shows if it is it
            await self._each(lambda each: self._follow([looks[each]]), due)
        failpoint("housekeeper.after_check")
        self._counters.tasks_in_line = (await self._stores.turns.take()).in_line
        if self._is_time("beat", BEAT_EVERY):
            await self._work.ensure_groups()  # workers wait for them, also after a flush
            self._counters.cluster = await self._instances.beat(
                self._instance_id, self._counters.connections, self._counters.sessions
            )
        if self._is_time("retire", RETIRE_EVERY):
            for stream in (self._stores.callbacks.stream, self._stores.pushes.stream):
                await stream.retire_dead(SILENT_MS)
            if dropped := await self._work.drop_handled():
                log.info("entries.dropped", count=dropped)
        if self._is_time("worn_out", WORN_OUT_EVERY) and await self._work.may_scan():
            await self._bury_worn_out()
        return len(due) >= DUE_BATCH

    async def _each(self, do: Callable[[Item], Awaitable[None]], items: Sequence[Item]) -> None:
        """Does it with all of them at once, and waits for all, whichever fail."""
        outcomes = await asyncio.gather(*map(do, items), return_exceptions=True)
        for item, outcome in zip(items, outcomes, strict=True):
            if isinstance(outcome, Exception) and not isinstance(outcome, TemporaryError):
                self.contain(outcome, item)
        for outcome in outcomes:
            if isinstance(outcome, TemporaryError):
                raise outcome

    def _is_time(self, what: str, every: float) -> bool:
        now = time.monotonic()
        if now < self._next.get(what, 0.0):
            return False
        self._next[what] = now + every
        return True

    async def _follow(self, looks: Sequence[Look]) -> None:
        await self._watch.follow(looks)
        for look in looks:
            if look.ended_as is not None:
                log.info("task.tidied", task_id=look.due.task_id, status=look.ended_as)

    async def _bury_worn_out(self) -> None:
        """Ends tasks above `max_attempts`, or at it and untouched past the visibility timeout
        (section 5)."""
        taken = await self._work.taken()
        # What has waited for so long may be the last word of an attempt: it comes first.
        backlog_ms = await self._stores.callbacks.stream.backlog_ms() if taken else 0
        await self._each(
            self._bury,
            [each for each in taken if self._is_worn_out(each, each.idle_ms - backlog_ms)],
        )

    def _is_worn_out(self, taken: TakenEntry, silent_ms: int) -> bool:
        if taken.attempt > self._limits.max_attempts:
            return silent_ms >= 0
        return (
            taken.attempt == self._limits.max_attempts
            and silent_ms >= self._limits.visibility_timeout_ms
        )

    async def _bury(self, taken: TakenEntry) -> None:
        told = f"The task was tried {self._limits.max_attempts} times."
        is_failed = await self._watch.fail(taken.task_id, "max_attempts", told)
        failpoint("housekeeper.before_bury")
        if not is_failed:  # it ended otherwise, and no worker is left to take its entry out
            await self._work.remove(taken)
        elif await self._work.bury(taken, "max_attempts"):
            log.warning("task.worn_out", task_id=taken.task_id, attempt=taken.attempt)
