"""Tasks in Redis: taken in, told about, stopped.

A message's way in small repeatable steps, each keyed by the task's id:
  1. the task's session can be found from its id, and a look at it is due soon   (`submit`)
  2. the session's script makes the task and logs `user_message`                 (`submit`)
  3. the task enters a work stream, once                                         (`turns.py`)
  4. the task notes its deadline, and the next look is due then                  (`turns.py`)
After step 2 the message is safe: whatever dies later, the due look (`watch.py`) does the rest.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson
import structlog

from common.domain.actions import ChatCancelTaskAction, ChatSendMessageAction
from common.domain.errors import (
    IdempotencyConflict,
    InternalError,
    OrchestratorError,
    SessionBusy,
    TaskAlreadyFinished,
    TaskNotFound,
)
from common.domain.ids import SessionKey, TaskId, TenantId
from common.domain.tasks import CancelOutcome, Submitted, Task, TaskStatus
from common.queues.due import DueTimes
from common.queues.ends import Ends
from common.queues.keys import Keys
from common.queues.redis import Redis, is_mistake, unwrap
from common.queues.scripts import (
    CANCEL_TASK,
    SUBMIT_TASK,
    Command,
)
from common.queues.session_calls import SessionCalls
from common.queues.task_records import (
    action_for_worker,
    response_to,
    session_named,
    task_of,
    timeout_ms,
    user_message_of,
)
from common.queues.turns import Turns
from common.queues.work import Delivery

log = structlog.get_logger(__name__)

REMEMBER_KEYS = 24 * 3600  # seconds an Idempotency-Key is remembered
INTERRUPTED = "Interrupted by a newer message."
STOPPED = (TaskStatus.CANCELLED, TaskStatus.CANCELLING)
SOON_MS = 3000  # how long a message may take from step 1 to step 4 before a sweep helps


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskLimits:
    """What the settings say about tasks. Milliseconds."""

    max_attempts: int
    visibility_timeout_ms: int
    cancel_grace_ms: int
    max_wait_ms: int


class TaskStore:
    """All that happens to tasks except the callbacks of workers (`callbacks.py`)."""

    def __init__(
        self,
        redis: Redis,
        keys: Keys,
        calls: SessionCalls,
        due: DueTimes,
        turns: Turns,
        ends: Ends,
        limits: TaskLimits,
    ) -> None:
        self._redis = redis
        self._keys = keys
        self._calls = calls
        self._due = due
        self._turns = turns
        self._ends = ends
        self._limits = limits

    async def submit(
        self, actions: Sequence[ChatSendMessageAction]
    ) -> list[Submitted | OrchestratorError]:
        """Takes messages in; all in one go. Once this returns, those taken are safe.

        Raises:
            RedisUnavailable: then any of them may have been taken; a repetition with the same
                Idempotency-Key finds it again.
        """
        commands: list[Command] = []
        for action in actions:
            found_by = ("SET", self._keys.task_session(action.task_id), str(action.session))
            commands.append(found_by)
            # No later than its own end may be due.
            soon = min(SOON_MS, timeout_ms(action), self._limits.max_wait_ms)
            commands.append(self._due.look_in(action.session, action.task_id, soon))
            commands.append(self._submission(action))
        results = await self._redis.batch(commands)
        for result in results:
            if not is_mistake(result):
                unwrap(result)
        outcomes = [
            self._outcome(action, reply)
            for action, reply in zip(actions, results[2::3], strict=True)
        ]
        await self._forget_needless(actions, outcomes)
        return outcomes

    def _submission(self, action: ChatSendMessageAction) -> Command:
        keys = [self._keys.task(action.session, action.task_id)]
        if action.idempotency_key is None:
            keys.append(keys[0])
        else:
            keys.append(self._keys.idempotency(action.session, action.idempotency_key))
        fields = {
            "agent_id": action.agent_id,
            "user_id": action.user_id or "",
            "created": action.created_at,
            "priority": action.priority,
            "timeout_ms": timeout_ms(action),
            "action": self._for_worker(action),
        }
        return self._calls.call(
            SUBMIT_TASK,
            action.session,
            keys,
            action.task_id,
            action.fingerprint if action.idempotency_key is not None else "",
            REMEMBER_KEYS,
            response_to(action),
            user_message_of(action),
            orjson.dumps(action.metadata),
            action.if_busy,
            self._limits.max_wait_ms,
            *(part for field in fields.items() for part in field),
        )

    def _outcome(self, action: ChatSendMessageAction, reply: Any) -> Submitted | OrchestratorError:
        match reply:
            case Exception():  # of this message alone
                log.error("submission.failed", session=str(action.session), error=str(reply))
                return InternalError()
            case [b"created", has_turn, interrupts]:
                return Submitted(
                    task_id=action.task_id,
                    response=response_to(action),
                    replayed=False,
                    has_turn=bool(has_turn),
                    interrupts=tuple(TaskId(each.decode()) for each in interrupts),
                )
            case [b"replayed", response, task_id]:
                return Submitted(task_id=TaskId(task_id.decode()), response=response, replayed=True)
            case [b"busy"]:
                return SessionBusy()
            case _:
                return IdempotencyConflict()

    async def _forget_needless(
        self,
        actions: Sequence[ChatSendMessageAction],
        outcomes: Sequence[Submitted | OrchestratorError],
    ) -> None:
        """Takes back step 1 of messages that made no task; a sweep would do so as well."""
        commands: list[Command] = []
        for action, outcome in zip(actions, outcomes, strict=True):
            if isinstance(outcome, OrchestratorError) or outcome.task_id != action.task_id:
                commands.append(("DEL", self._keys.task_session(action.task_id)))
                commands.append(self._due.forget(action.session, action.task_id))
        if commands:
            await self._redis.batch(commands)

    def _delivery_of(self, action: ChatSendMessageAction) -> Delivery:
        return Delivery(
            session=action.session,
            task_id=action.task_id,
            priority=action.priority,
            timeout_ms=timeout_ms(action),
            action=self._for_worker(action),
        )

    async def set_out(self, taken: Sequence[tuple[ChatSendMessageAction, Submitted]]) -> None:
        """What follows once messages are safe: those whose turn has come are delivered, those
        that interrupt others have them stopped. Safe to repeat; a look at the task does it too."""
        await self._turns.deliver(
            [self._delivery_of(action) for action, submitted in taken if submitted.has_turn]
        )
        for action, submitted in taken:
            await self.interrupt(action.session, submitted.interrupts)

    async def get(self, tenant_id: TenantId, task_id: TaskId) -> Task:
        """What is known of a task.

        Raises:
            TaskNotFound: also for a task of another tenant.
        """
        session = await self.session_of(tenant_id, task_id)
        fields_reply, text = await self._redis.batch(
            [
                ("HGETALL", self._keys.task(session, task_id)),
                ("GET", self._keys.task_text(session, task_id)),
            ]
        )
        flat = unwrap(fields_reply)
        if not flat:
            raise TaskNotFound
        fields = dict(zip(flat[::2], flat[1::2], strict=True))
        return task_of(task_id, session, fields, unwrap(text))

    async def session_of(self, tenant_id: TenantId, task_id: TaskId) -> SessionKey:
        """Where a tenant's task belongs.

        Raises:
            TaskNotFound: also for a task of another tenant.
        """
        name = await self._redis.call("GET", self._keys.task_session(task_id))
        session = None if name is None else session_named(name)
        if session is None or session.tenant_id != tenant_id:
            raise TaskNotFound
        return session

    async def cancel(self, action: ChatCancelTaskAction) -> CancelOutcome:
        """Stops a task: at once where it is queued, through its worker where it runs.

        Raises:
            TaskNotFound, TaskAlreadyFinished.
        """
        session = await self.session_of(action.tenant_id, action.task_id)
        (status,) = await self._cancel(session, [action.task_id], action.reason)
        if status is None:
            raise TaskNotFound
        if status not in STOPPED:
            raise TaskAlreadyFinished(f"The task has already ended as {status}.")
        return CancelOutcome(task_id=action.task_id, status=status)

    async def interrupt(self, session: SessionKey, task_ids: Sequence[TaskId]) -> None:
        """Stops tasks because a newer message wants their place; those that have ended stay so."""
        if task_ids:
            await self._cancel(session, task_ids, INTERRUPTED)

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
        replies = [unwrap(each) for each in await self._redis.batch(commands)][1::2]
        statuses = [TaskStatus(after.decode()) if after else None for _, after, _ in replies]
        await self._follow_cancellations(session, task_ids, statuses, reason)
        await self._turns.release(
            session, [TaskId(each.decode()) for *_, released in replies for each in released]
        )
        return statuses

    async def _follow_cancellations(
        self,
        session: SessionKey,
        task_ids: Sequence[TaskId],
        statuses: Sequence[TaskStatus | None],
        reason: str,
    ) -> None:
        pairs = list(zip(task_ids, statuses, strict=True))
        told = [
            command
            for task_id, status in pairs
            if status in STOPPED
            for command in self._ends.cancellation(session, task_id, reason)
        ]
        for result in await self._redis.batch(told):
            unwrap(result)
        await self._ends.tidy(
            (session, task_id) for task_id, status in pairs if status is TaskStatus.CANCELLED
        )

    def _for_worker(self, action: ChatSendMessageAction) -> bytes:
        return action_for_worker(
            action,
            callback_stream=self._keys.callbacks,
            max_attempts=self._limits.max_attempts,
            visibility_timeout_ms=self._limits.visibility_timeout_ms,
        )
