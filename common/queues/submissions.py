"""Messages taken in: held to limits, made into tasks, logged, and put in line, in one step.

That step is `lua/submit_task.lua`. After it the message is safe: whatever dies later, the next
turns (`turns.py`) and the look that is due at the task (`watch.py`) do the rest.
"""

from collections.abc import Sequence
from typing import Any

import orjson
import structlog

from common.domain.actions import ChatSendMessageAction
from common.domain.errors import (
    Forbidden,
    IdempotencyConflict,
    InternalError,
    OrchestratorError,
    SessionBusy,
)
from common.domain.ids import SessionKey, TaskId
from common.domain.tasks import Submitted
from common.failpoints import failpoint
from common.queues.admissions import TierOf, refusal_of, terms_of
from common.queues.due import member_of
from common.queues.keys import Keys
from common.queues.redis import Redis, is_mistake, unwrap
from common.queues.scripts import SUBMIT_TASK, Command
from common.queues.session_calls import SessionCalls
from common.queues.task_records import (
    action_for_worker,
    response_to,
    timeout_ms,
    user_message_of,
)
from common.queues.tasks import TaskLimits, TaskStore
from common.queues.turns import Turns
from config.settings import TierSettings

log = structlog.get_logger(__name__)

REMEMBER_KEYS = 24 * 3600  # seconds an Idempotency-Key is remembered
SOON_MS = 3000  # how soon a sweep helps where a crash kept a task from being released, or stopped


class Submissions:
    """The way in of messages, many at once."""

    def __init__(
        self,
        redis: Redis,
        keys: Keys,
        calls: SessionCalls,
        turns: Turns,
        tasks: TaskStore,
        limits: TaskLimits,
        tier_of: TierOf,
    ) -> None:
        self._redis = redis
        self._keys = keys
        self._calls = calls
        self._turns = turns
        self._tasks = tasks
        self._limits = limits
        self._tier_of = tier_of

    async def submit(
        self, actions: Sequence[ChatSendMessageAction]
    ) -> list[Submitted | OrchestratorError]:
        """Takes messages in; all in one go, one script each. Once this returns, those taken are
        safe, and stand in line.

        Exact over all instances: never one more than a limit allows, never one fewer.

        Raises:
            RedisUnavailable: then any of them may have been taken; a repetition with the same
                Idempotency-Key finds it again.
        """
        outcomes: dict[TaskId, Submitted | OrchestratorError] = {}
        commands: dict[TaskId, Command] = {}
        for action in actions:
            tier = self._tier_of(action.tenant_id)
            if tier is None:
                outcomes[action.task_id] = Forbidden("This tenant is not served here.")
            else:
                commands[action.task_id] = self._submission(action, tier)
        replies = dict(zip(commands, await self._redis.batch([*commands.values()]), strict=True))
        for reply in replies.values():
            if not is_mistake(reply):
                unwrap(reply)
        for action in actions:
            if action.task_id in replies:
                outcomes[action.task_id] = self._outcome(action, replies[action.task_id])
        return [outcomes[action.task_id] for action in actions]

    def _submission(self, action: ChatSendMessageAction, tier: TierSettings) -> Command:
        task = self._keys.task(action.session, action.task_id)
        record = task
        if action.idempotency_key is not None:
            record = self._keys.idempotency(action.session, action.idempotency_key)
        fields = {
            "agent_id": action.agent_id,
            "user_id": action.user_id or "",
            "created": action.created_at,
            "timeout_ms": timeout_ms(action),
            "action": self._for_worker(action),
        }
        return self._calls.call(
            SUBMIT_TASK,
            action.session,
            [
                task,
                record,
                self._keys.task_session(action.task_id),
                self._keys.due(action.task_id),
                *self._turns.keys,
            ],
            action.task_id,
            action.fingerprint if action.idempotency_key is not None else "",
            REMEMBER_KEYS,
            response_to(action),
            user_message_of(action),
            orjson.dumps(action.metadata),
            action.if_busy,
            self._limits.max_wait_ms,
            SOON_MS,
            *terms_of(tier),
            member_of(action.session, action.task_id),
            action.priority,
            2 * len(fields),
            *(part for field in fields.items() for part in field),
            *self._turns.arguments,
        )

    def _outcome(self, action: ChatSendMessageAction, reply: Any) -> Submitted | OrchestratorError:
        match reply:
            case Exception():  # of this message alone
                log.error("submission.failed", session=str(action.session), error=str(reply))
                return InternalError()
            case [b"created", interrupts]:
                return Submitted(
                    task_id=action.task_id,
                    response=response_to(action),
                    replayed=False,
                    interrupts=tuple(TaskId(each.decode()) for each in interrupts),
                )
            case [b"replayed", response, task_id]:
                return Submitted(task_id=TaskId(task_id.decode()), response=response, replayed=True)
            case [b"busy"]:
                return SessionBusy()
            case [b"conflict"]:
                return IdempotencyConflict()
            case [kind, limit, reset]:
                return refusal_of(kind, limit, reset)
            case _:
                raise InternalError

    async def set_out(self, taken: Sequence[tuple[ChatSendMessageAction, Submitted]]) -> None:
        """What follows once messages are safe: those whose turn it is go to the workers, and those
        that interrupt others have them stopped. Safe to repeat; whatever a crash keeps from
        happening here, the next look does."""
        if all(submitted.replayed for _, submitted in taken):
            return
        await self._turns.take()
        failpoint("tasks.after_take")
        interrupted: dict[SessionKey, dict[TaskId, None]] = {}
        for action, submitted in taken:
            interrupted.setdefault(action.session, {}).update(dict.fromkeys(submitted.interrupts))
        for session, task_ids in interrupted.items():
            await self._tasks.interrupt(session, list(task_ids))

    def _for_worker(self, action: ChatSendMessageAction) -> bytes:
        return action_for_worker(
            action,
            callback_stream=self._keys.callbacks,
            max_attempts=self._limits.max_attempts,
            visibility_timeout_ms=self._limits.visibility_timeout_ms,
        )
