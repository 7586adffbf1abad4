"""Messages taken in: counted against limits, made into tasks, and put in line.

A message's way in small repeatable steps, each keyed by the task's id:
  1. the message is counted against its tenant's limits                      (`admissions.py`)
  2. the task's session can be found from its id, a look at it is due soon   (`submit`)
  3. the session's script makes the task and logs `user_message`             (`submit`)
  4. the task stands in its tenant's line, until its turn comes              (`turns.py`)
After step 3 the message is safe: whatever dies later, the due look (`watch.py`) does the rest.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

import orjson
import structlog

from common.domain.actions import ChatSendMessageAction
from common.domain.errors import (
    IdempotencyConflict,
    InternalError,
    OrchestratorError,
    SessionBusy,
)
from common.domain.ids import SessionKey, TaskId
from common.domain.tasks import Submitted
from common.failpoints import failpoint
from common.queues.admissions import Admissions, Admitted, Refused
from common.queues.due import DueTimes
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
from common.queues.turns import Place, Turns

log = structlog.get_logger(__name__)

REMEMBER_KEYS = 24 * 3600  # seconds an Idempotency-Key is remembered
SOON_MS = 3000  # how long a message may take from step 2 to step 4 before a sweep helps
CONTEST_PAUSES = (0.002, 0.005, *(0.01,) * 20)  # seconds; what is under way takes less


class Submissions:
    """The way in of messages, many at once."""

    def __init__(
        self,
        redis: Redis,
        keys: Keys,
        calls: SessionCalls,
        due: DueTimes,
        turns: Turns,
        admissions: Admissions,
        tasks: TaskStore,
        limits: TaskLimits,
    ) -> None:
        self._redis = redis
        self._keys = keys
        self._calls = calls
        self._due = due
        self._turns = turns
        self._admissions = admissions
        self._tasks = tasks
        self._limits = limits

    async def submit(
        self, actions: Sequence[ChatSendMessageAction]
    ) -> list[Submitted | OrchestratorError]:
        """Takes messages in; all in one go. Once this returns, those taken are safe.

        One that finds its tenant's queue full, while some of those before it are just arriving or
        leaving, is tried again until that is settled: the limit is met exactly.

        Raises:
            RedisUnavailable: then any of them may have been taken; a repetition with the same
                Idempotency-Key finds it again.
        """
        outcomes: dict[TaskId, Submitted | OrchestratorError] = {}
        contested = list(actions)
        pauses = iter(CONTEST_PAUSES)
        while True:
            refused, made = await self._try_to_submit(contested, outcomes)
            contested = [action for action, why in refused if why.may_go or why.are_arriving]
            if not contested:
                break
            # Told as ended, their tenants stand in line by their newest terms.
            touched = [(action.session, action.task_id) for action in contested]
            moved = await self._turns.take(**_places(made), ended=touched)
            if made:
                continue
            if not moved.tasks:
                contested = [action for action, why in refused if why.are_arriving]
            pause = next(pauses, None)  # so many times at the most: what moves may be others'
            if not contested or pause is None:
                break
            await asyncio.sleep(0 if moved.tasks else pause)  # for what other instances have begun
        return [outcomes[action.task_id] for action in actions]

    async def _try_to_submit(
        self,
        actions: Sequence[ChatSendMessageAction],
        outcomes: dict[TaskId, Submitted | OrchestratorError],
    ) -> tuple[
        list[tuple[ChatSendMessageAction, Refused]], list[tuple[ChatSendMessageAction, Submitted]]
    ]:
        """Notes an outcome each; says which were refused, and what was made."""
        admitted: list[Admitted] = []
        refused: list[tuple[ChatSendMessageAction, Refused]] = []
        for action, answer in zip(actions, await self._admissions.admit(actions), strict=True):
            if isinstance(answer, Admitted):
                admitted.append(answer)
            else:
                outcomes[action.task_id] = answer.error
                refused.append((action, answer))
        failpoint("tasks.after_admit")
        made = await self._make(admitted)
        outcomes.update({each.action.task_id: outcome for each, outcome in made})
        return refused, [
            (each.action, outcome)
            for each, outcome in made
            if isinstance(outcome, Submitted) and not outcome.replayed
        ]

    async def _make(
        self, admitted: Sequence[Admitted]
    ) -> list[tuple[Admitted, Submitted | OrchestratorError]]:
        """Makes the tasks of messages that were let in; what comes to nothing is taken back."""
        commands: list[Command] = []
        for action in (each.action for each in admitted):
            found_by = ("SET", self._keys.task_session(action.task_id), str(action.session))
            commands.append(found_by)
            soon = min(SOON_MS, self._limits.max_wait_ms)  # no later than its end may be due
            commands.append(self._due.look_in(action.session, action.task_id, soon))
            commands.append(self._submission(action))
        results = await self._redis.batch(commands)
        for result in results:
            if not is_mistake(result):
                unwrap(result)
        made = [
            (each, self._outcome(each.action, reply))
            for each, reply in zip(admitted, results[2::3], strict=True)
        ]
        await self._forget_needless(made)
        return made

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
        self, made: Sequence[tuple[Admitted, Submitted | OrchestratorError]]
    ) -> None:
        """Takes back the first steps of messages that made no task."""
        needless = [
            (each, isinstance(outcome, Submitted | IdempotencyConflict))
            for each, outcome in made
            if isinstance(outcome, OrchestratorError) or outcome.task_id != each.action.task_id
        ]
        commands: list[Command] = []
        for each, _ in needless:
            commands.append(("DEL", self._keys.task_session(each.action.task_id)))
            commands.append(self._due.forget(each.action.session, each.action.task_id))
        if commands:
            await self._redis.batch(commands)
            await self._admissions.take_back(needless)

    async def set_out(self, taken: Sequence[tuple[ChatSendMessageAction, Submitted]]) -> None:
        """What follows once messages are safe: they get into line, and those that interrupt others
        have them stopped. Safe to repeat; a look at the task does it too."""
        await self._turns.take(**_places(taken))
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


def _places(taken: Sequence[tuple[ChatSendMessageAction, Submitted]]) -> dict[str, list[Place]]:
    """New tasks, as `Turns.take` is told of them: in line, or held back by their session."""
    places: dict[str, list[Place]] = {"entered": [], "held": []}
    for action, submitted in taken:
        if not submitted.replayed:
            place = (action.session, action.task_id)
            places["entered" if submitted.has_turn else "held"].append(place)
    return places
