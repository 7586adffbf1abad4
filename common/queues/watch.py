"""What time demands of tasks: ends at deadlines, and whatever a crash left between two steps."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from common.domain.ids import TaskId
from common.domain.tasks import TaskStatus
from common.failpoints import failpoint
from common.queues.due import DueTask, DueTimes
from common.queues.ends import Ends
from common.queues.keys import Keys
from common.queues.redis import Redis, is_mistake, unwrap
from common.queues.scripts import CHECK_TASK, FAIL_TASK, Command
from common.queues.session_calls import SessionCalls
from common.queues.task_records import session_named
from common.queues.tasks import TaskStore
from common.queues.turns import TaskKey, Turns

log = structlog.get_logger(__name__)

NEXT_IN_LINE_MS = 3000  # how soon a waiting task is looked at again, lest its release was lost
FURTHER_BEHIND_MS = 100  # more for each task that is before it


@dataclass(frozen=True, slots=True)
class Look:
    """What `lua/check_task.lua` found and did; `unseen` where it could not."""

    due: DueTask
    state: bytes = b"unseen"
    next_look: int = 0
    status: bytes = b""
    reason: str = ""
    released: Sequence[TaskId] = ()
    interrupts: Sequence[TaskId] = ()

    @property
    def task(self) -> TaskKey:
        return (self.due.session, self.due.task_id)

    @property
    def ended_as(self) -> TaskStatus | None:
        """How the task ended; None if it goes on."""
        return TaskStatus(self.status.decode()) if self.state == b"ended" else None

    @property
    def why_stopped(self) -> str:
        return self.reason or self.status.decode()


class TaskWatch:
    """Looks at tasks that are due. Every look is safe to repeat, at any moment, by anyone."""

    def __init__(
        self,
        redis: Redis,
        keys: Keys,
        calls: SessionCalls,
        due: DueTimes,
        tasks: TaskStore,
        turns: Turns,
        ends: Ends,
        *,
        gap_timeout_ms: int,
    ) -> None:
        self._redis = redis
        self._keys = keys
        self._calls = calls
        self._due = due
        self._tasks = tasks
        self._turns = turns
        self._ends = ends
        self._gap_timeout_ms = gap_timeout_ms

    async def check(self, due: DueTask) -> TaskStatus | None:
        """Looks at one task, and does what follows. Says how it ended, if it has."""
        looks = await self.look([due])
        await self.follow(looks)
        return looks[0].ended_as

    async def look(self, due: Sequence[DueTask]) -> list[Look]:
        """Ends what time demands to be ended; all in one go, so that many due at once are in time.

        A task that cannot be looked at, for a mistake of ours, is left for the next look.
        """
        replies = await self._redis.batch([self._command(each) for each in due])
        return [_look(each, reply) for each, reply in zip(due, replies, strict=True)]

    def _command(self, due: DueTask) -> Command:
        return self._calls.call(
            CHECK_TASK,
            due.session,
            self._calls.task_keys(due.session, due.task_id),
            *(due.task_id, self._gap_timeout_ms, NEXT_IN_LINE_MS, FURTHER_BEHIND_MS),
        )

    async def follow(self, looks: Sequence[Look]) -> None:
        """Does what looks call for outside their tasks' sessions, for all of them in a few steps.

        What is due is settled last, so that whatever a crash leaves undone is looked at again.
        """
        by_state: dict[bytes, list[Look]] = {}
        for look in looks:
            by_state.setdefault(look.state, []).append(look)
        gone, ended = by_state.pop(b"gone", []), by_state.pop(b"ended", [])
        undelivered = by_state.get(b"undelivered", [])
        by_state.pop(b"unseen", None)
        going_on = [look for some in by_state.values() for look in some]

        stopped = [look for look in ended if look.ended_as is not TaskStatus.COMPLETED]
        stopped += [look for look in going_on if look.status == b"cancelling"]
        await self._ends.tell_workers([(*each.task, each.why_stopped) for each in stopped])
        await self._ends.tidy(
            [each.task for each in ended],
            released=[(each.due.session, freed) for each in ended for freed in each.released],
        )
        if undelivered or gone:
            failpoint("watch.undelivered")
            await self._turns.take(
                entered=[each.task for each in undelivered],
                ended=[each.task for each in gone],
            )
        for each in going_on:
            await self._tasks.interrupt(each.due.session, each.interrupts)
        await self._settle(gone, going_on)

    async def _settle(self, gone: Sequence[Look], going_on: Sequence[Look]) -> None:
        """No look is due at what is gone; the others are looked at again in time."""
        commands: list[Command] = []
        for each in gone:
            commands.append(("DEL", self._keys.task_session(each.due.task_id)))
            commands.append(self._due.forget(*each.task))
        commands += [self._due.settle(each.due, each.next_look) for each in going_on]
        await self._redis.call_all(commands)

    async def fail(self, task_id: TaskId, error_type: str, message: str) -> bool:
        """Ends a task as failed. False if it had ended for another reason, or is gone."""
        name = await self._redis.call("GET", self._keys.task_session(task_id))
        if name is None:
            return False
        session = session_named(name)
        ended, released = await self._redis.call(
            *self._calls.call(
                FAIL_TASK,
                session,
                self._calls.task_keys(session, task_id),
                *(task_id, error_type, message),
            )
        )
        await self._ends.tell_workers([(session, task_id, error_type)])
        freed = [(session, each) for each in _ids(released)]
        await self._ends.tidy([(session, task_id)], released=freed)
        return bool(ended)


def _look(due: DueTask, reply: Any) -> Look:
    if is_mistake(reply):
        log.error("look.failed", task_id=due.task_id, session=str(due.session), error=str(reply))
        return Look(due)
    state, next_look, status, reason, released, interrupts = unwrap(reply)
    return Look(due, state, next_look, status, reason.decode(), _ids(released), _ids(interrupts))


def _ids(raw: list[bytes]) -> list[TaskId]:
    return [TaskId(each.decode()) for each in raw]
