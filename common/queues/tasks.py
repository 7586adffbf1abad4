"""Tasks in Redis: taken in, delivered to the workers, watched, stopped, told about.

A message's way in small repeatable steps, each keyed by the task's id:
  1. the task's session can be found from its id, and a look at it is due soon   (`submit`)
  2. the session's script makes the task and logs `user_message`                 (`submit`)
  3. the task enters a work stream, once                                         (`deliver`)
  4. the task notes its deadline, and the next look is due then                  (`deliver`)
After step 2 the message is safe: whatever dies later, the due look (`check`) does what is missing.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
import structlog

from common.domain.actions import ChatCancelTaskAction, ChatSendMessageAction, Priority
from common.domain.errors import (
    IdempotencyConflict,
    InternalError,
    OrchestratorError,
    TaskAlreadyFinished,
    TaskNotFound,
)
from common.domain.ids import SessionKey, TaskId, TenantId
from common.domain.tasks import CancelOutcome, Submitted, Task, TaskStatus
from common.failpoints import failpoint
from common.queues.due import DueTask, DueTimes
from common.queues.keys import Keys
from common.queues.redis import Redis, is_mistake, unwrap
from common.queues.scripts import (
    CANCEL_TASK,
    CHECK_TASK,
    FAIL_TASK,
    NOTE_DELIVERY,
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
from common.queues.work import Delivery, WorkQueue

log = structlog.get_logger(__name__)

REMEMBER_KEYS = 24 * 3600  # seconds an Idempotency-Key is remembered
CANCEL_KEY_TTL = 24 * 3600  # seconds
SOON_MS = 3000  # how long a message may take from step 1 to step 4 before a sweep helps


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskLimits:
    """What the settings say about tasks. Milliseconds."""

    max_attempts: int
    visibility_timeout_ms: int
    cancel_grace_ms: int
    gap_timeout_ms: int


class TaskStore:
    """All that happens to tasks except the callbacks of workers (`callbacks.py`)."""

    def __init__(
        self,
        redis: Redis,
        keys: Keys,
        calls: SessionCalls,
        due: DueTimes,
        work: WorkQueue,
        limits: TaskLimits,
    ) -> None:
        self._redis = redis
        self._keys = keys
        self._calls = calls
        self._due = due
        self._work = work
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
            commands.append(self._due.look_in(action.session, action.task_id, SOON_MS))
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
            *(part for field in fields.items() for part in field),
        )

    def _outcome(self, action: ChatSendMessageAction, reply: Any) -> Submitted | OrchestratorError:
        match reply:
            case Exception():  # of this message alone
                log.error("submission.failed", session=str(action.session), error=str(reply))
                return InternalError()
            case [b"created"]:
                return Submitted(
                    task_id=action.task_id, response=response_to(action), replayed=False
                )
            case [b"replayed", response, task_id]:
                return Submitted(task_id=TaskId(task_id.decode()), response=response, replayed=True)
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

    def delivery_of(self, action: ChatSendMessageAction) -> Delivery:
        return Delivery(
            session=action.session,
            task_id=action.task_id,
            priority=action.priority,
            timeout_ms=timeout_ms(action),
            action=self._for_worker(action),
        )

    async def deliver(self, deliveries: Sequence[Delivery]) -> None:
        """Puts tasks into their work streams and notes their deadlines. Safe to repeat."""
        entered = await self._redis.batch([self._work.deliver(each) for each in deliveries])
        failpoint("tasks.after_deliver")
        commands: list[Command] = []
        for delivery, reply in zip(deliveries, entered, strict=True):
            entry_id, deadline = unwrap(reply)
            task = self._keys.task(delivery.session, delivery.task_id)
            commands.append(NOTE_DELIVERY.call([task], deadline, entry_id))
        for result in await self._redis.batch(commands):
            unwrap(result)

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
        # The look at the grace's end is due before the task changes, so no crash can lose it.
        grace = self._limits.cancel_grace_ms
        scheduled, reply = await self._redis.batch(
            [
                self._due.look_in(session, action.task_id, grace),
                self._calls.call(
                    CANCEL_TASK,
                    session,
                    self._calls.task_keys(session, action.task_id),
                    *(action.task_id, action.reason, grace),
                ),
            ]
        )
        unwrap(scheduled)
        _, after, _ = unwrap(reply)
        if not after:
            raise TaskNotFound
        status = TaskStatus(after.decode())
        if status not in (TaskStatus.CANCELLED, TaskStatus.CANCELLING):
            raise TaskAlreadyFinished(f"The task has already ended as {status}.")
        await self.tell_workers(session, action.task_id, action.reason)
        if status is TaskStatus.CANCELLED:
            await self.tidy([(session, action.task_id)])
        return CancelOutcome(task_id=action.task_id, status=status)

    async def tell_workers(self, session: SessionKey, task_id: TaskId, reason: str) -> None:
        """Sets the cancel key and says so on the control channel (section 5, Cancel)."""
        message = {
            "type": "cancel",
            "task_id": task_id,
            "tenant_id": session.tenant_id,
            "session_id": session.session_id,
            "reason": reason,
        }
        for result in await self._redis.batch(
            [
                ("SET", self._keys.cancel(task_id), reason, "EX", CANCEL_KEY_TTL),
                ("PUBLISH", self._keys.control, orjson.dumps(message)),
            ]
        ):
            unwrap(result)

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
                    *(task_id, self._limits.gap_timeout_ms),
                )
            ]
        )
        if is_mistake(reply):
            log.error("look.failed", task_id=task_id, session=str(session), error=str(reply))
            return None
        state, next_look, status = unwrap(reply)
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
                    await self.tell_workers(session, task_id, ended)
                await self.tidy([(session, task_id)])
                return ended
            case b"undelivered":
                await self.deliver([await self._undelivered(session, task_id)])
            case _:
                await self._redis.batch([self._due.settle(due, next_look)])
        return None

    async def _undelivered(self, session: SessionKey, task_id: TaskId) -> Delivery:
        priority, timeout, action = await self._redis.call(
            *("HMGET", self._keys.task(session, task_id), "priority", "timeout_ms", "action")
        )
        return Delivery(
            session=session,
            task_id=task_id,
            priority=Priority(priority.decode()),
            timeout_ms=int(timeout),
            action=action,
        )

    async def fail(self, task_id: TaskId, error_type: str, message: str) -> bool:
        """Ends a task as failed. True if this call ended it; False if it had ended, or is gone."""
        name = await self._redis.call("GET", self._keys.task_session(task_id))
        if name is None:
            return False
        session = session_named(name)
        ended = await self._redis.call(
            *self._calls.call(
                FAIL_TASK,
                session,
                self._calls.task_keys(session, task_id),
                *(task_id, error_type, message),
            )
        )
        await self.tell_workers(session, task_id, error_type)
        await self.tidy([(session, task_id)])
        return bool(ended)

    async def tidy(self, ended: Iterable[tuple[SessionKey, TaskId]]) -> None:
        """What is left to do for tasks that have ended: their id leads nowhere after the ttl."""
        commands: list[Command] = []
        for session, task_id in ended:
            commands.append(("EXPIRE", self._keys.task_session(task_id), self._calls.ttl))
            commands.append(self._due.forget(session, task_id))
        for result in await self._redis.batch(commands):
            unwrap(result)

    def _for_worker(self, action: ChatSendMessageAction) -> bytes:
        return action_for_worker(
            action,
            callback_stream=self._keys.callbacks,
            max_attempts=self._limits.max_attempts,
            visibility_timeout_ms=self._limits.visibility_timeout_ms,
        )
