"""What time demands of tasks: ends at deadlines, and whatever a crash left between two steps."""

import structlog

from common.domain.ids import TaskId
from common.domain.tasks import TaskStatus
from common.queues.due import DueTask, DueTimes
from common.queues.ends import Ends
from common.queues.keys import Keys
from common.queues.redis import Redis, is_mistake, unwrap
from common.queues.scripts import CHECK_TASK, FAIL_TASK
from common.queues.session_calls import SessionCalls
from common.queues.task_records import session_named
from common.queues.tasks import TaskStore
from common.queues.turns import Turns

log = structlog.get_logger(__name__)

NEXT_IN_LINE_MS = 3000  # how soon a waiting task is looked at again, lest its release was lost
FURTHER_BEHIND_MS = 15_000


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
        """Does what time demands of a task: an end, a missing delivery. Says if it ended.

        A task that cannot be looked at, for a mistake of ours, is left for the next look.
        """
        session, task_id = due.session, due.task_id
        (reply,) = await self._redis.batch(
            [
                self._calls.call(
                    CHECK_TASK,
                    session,
                    self._calls.task_keys(session, task_id),
                    *(task_id, self._gap_timeout_ms, NEXT_IN_LINE_MS, FURTHER_BEHIND_MS),
                )
            ]
        )
        if is_mistake(reply):
            log.error("look.failed", task_id=task_id, session=str(session), error=str(reply))
            return None
        state, next_look, status, reason, released, interrupts = unwrap(reply)
        ended = None
        match state:
            case b"gone":
                await self._redis.batch(
                    [
                        ("DEL", self._keys.task_session(task_id)),
                        self._due.forget(session, task_id),
                    ]
                )
            case b"ended":
                ended = TaskStatus(status.decode())
                if ended is not TaskStatus.COMPLETED:
                    await self._ends.tell_workers(session, task_id, reason.decode() or ended)
                await self._ends.tidy([(session, task_id)])
            case b"undelivered":
                await self._turns.release(session, [task_id])
            case _:
                if status == b"cancelling":
                    await self._ends.tell_workers(session, task_id, reason.decode())
                await self._tasks.interrupt(session, _ids(interrupts))
                await self._redis.batch([self._due.settle(due, next_look)])
        await self._turns.release(session, _ids(released))
        return ended

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
        await self._ends.tell_workers(session, task_id, error_type)
        await self._ends.tidy([(session, task_id)])
        await self._turns.release(session, _ids(released))
        return bool(ended)


def _ids(raw: list[bytes]) -> list[TaskId]:
    return [TaskId(each.decode()) for each in raw]
