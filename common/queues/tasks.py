"""Tasks in Redis: told about, stopped. How they get there: `submissions.py`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import structlog

from common.domain.actions import ChatCancelTaskAction
from common.domain.errors import TaskAlreadyFinished, TaskNotFound
from common.domain.ids import SessionId, SessionKey, TaskId, TenantId
from common.domain.tasks import CancelOutcome, Task, TaskStatus
from common.queues.due import DueTimes
from common.queues.ends import Ends
from common.queues.keys import Keys
from common.queues.redis import Redis
from common.queues.scripts import CANCEL_TASK, Command
from common.queues.session_calls import SessionCalls
from common.queues.task_records import session_named, task_of

log = structlog.get_logger(__name__)

INTERRUPTED = "Interrupted by a newer message."
STOPPED_AT_ONCE = 200  # lest Redis or the loop stand still for thousands
STOPPED = (TaskStatus.CANCELLED, TaskStatus.CANCELLING)


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskLimits:
    """What the settings say about tasks. Milliseconds."""

    max_attempts: int
    visibility_timeout_ms: int
    cancel_grace_ms: int
    max_wait_ms: int


class TaskStore:
    """What is asked of tasks, and what stops them."""

    def __init__(
        self,
        redis: Redis,
        keys: Keys,
        calls: SessionCalls,
        due: DueTimes,
        ends: Ends,
        limits: TaskLimits,
    ) -> None:
        self._redis = redis
        self._keys = keys
        self._calls = calls
        self._due = due
        self._ends = ends
        self._limits = limits

    async def get(
        self, tenant_id: TenantId, task_id: TaskId, within: frozenset[SessionId] | None = None
    ) -> Task:
        """What is known of a task.

        Raises:
            TaskNotFound: also for a task of another tenant, or of a session that is not `within`.
        """
        session = await self.session_of(tenant_id, task_id, within)
        flat, text = await self._redis.call_all(
            [
                ("HGETALL", self._keys.task(session, task_id)),
                ("GET", self._keys.task_text(session, task_id)),
            ]
        )
        if not flat:
            raise TaskNotFound
        fields = dict(zip(flat[::2], flat[1::2], strict=True))
        return task_of(task_id, session, fields, text)

    async def session_of(
        self, tenant_id: TenantId, task_id: TaskId, within: frozenset[SessionId] | None = None
    ) -> SessionKey:
        """Where a tenant's task belongs.

        Raises:
            TaskNotFound: also for a task of another tenant, or of a session that is not `within`.
        """
        name = await self._redis.call("GET", self._keys.task_session(task_id))
        session = None if name is None else session_named(name)
        if session is None or session.tenant_id != tenant_id:
            raise TaskNotFound
        if within is not None and session.session_id not in within:
            raise TaskNotFound
        return session

    async def cancel(self, action: ChatCancelTaskAction) -> CancelOutcome:
        """Stops a task: at once where it is queued, through its worker where it runs.

        Raises:
            TaskNotFound, TaskAlreadyFinished.
        """
        session = await self.session_of(action.tenant_id, action.task_id, action.within)
        (status,) = await self._cancel(session, [action.task_id], action.reason)
        if status is None:
            raise TaskNotFound
        if status not in STOPPED:
            raise TaskAlreadyFinished(f"The task has already ended as {status}.")
        return CancelOutcome(task_id=action.task_id, status=status)

    async def interrupt(self, session: SessionKey, task_ids: Sequence[TaskId]) -> None:
        """Stops tasks because a newer message wants their place; those that have ended stay so."""
        for first in range(0, len(task_ids), STOPPED_AT_ONCE):
            await self._cancel(session, task_ids[first : first + STOPPED_AT_ONCE], INTERRUPTED)

    async def _cancel(
        self, session: SessionKey, task_ids: Sequence[TaskId], reason: str
    ) -> list[TaskStatus | None]:
        """Each task's status after; None for one that is unknown."""
        grace = self._limits.cancel_grace_ms
        commands: list[Command] = []
        for task_id in task_ids:
            # The look at the grace's end is due before the task changes, so no crash can lose it.
            commands.append(self._due.look_in(session, task_id, grace))
            keys = self._calls.task_keys(session, task_id)
            commands.append(self._calls.call(CANCEL_TASK, session, keys, task_id, reason, grace))
        replies = (await self._redis.call_all(commands))[1::2]
        released = [TaskId(each.decode()) for *_, released in replies for each in released]
        stopped = {
            task_id: TaskStatus(after.decode())
            for task_id, (_, after, _) in zip(task_ids, replies, strict=True)
            if after.decode() in STOPPED
        }
        await self._follow_cancellations(session, stopped, reason, released)
        return [TaskStatus(after.decode()) if after else None for _, after, _ in replies]

    async def _follow_cancellations(
        self,
        session: SessionKey,
        stopped: Mapping[TaskId, TaskStatus],
        reason: str,
        released: Sequence[TaskId],
    ) -> None:
        await self._ends.tell_workers((session, task_id, reason) for task_id in stopped)
        await self._ends.tidy(
            [
                (session, task_id)
                for task_id, status in stopped.items()
                if status is TaskStatus.CANCELLED
            ],
            released=[(session, task_id) for task_id in released],
        )
