"""What is left to do when a task is stopped, or has ended: outside its session's own slot."""

from collections.abc import Iterable, Sequence

import orjson

from common.domain.ids import SessionKey, TaskId
from common.queues.due import DueTimes
from common.queues.keys import Keys
from common.queues.redis import Redis
from common.queues.scripts import Command
from common.queues.turns import TaskKey, Turns

CANCEL_KEY_TTL = 24 * 3600  # seconds


class Ends:
    """Tells the workers, and tidies up. Safe to repeat; a crash in between is made good by the
    next look at the task, which stays due until it is tidied up after."""

    def __init__(
        self, redis: Redis, keys: Keys, due: DueTimes, turns: Turns, *, ttl: float
    ) -> None:
        self._redis = redis
        self._keys = keys
        self._due = due
        self._turns = turns
        self._ttl = int(ttl)  # seconds for which an ended task can be asked about

    async def tell_workers(self, stopped: Iterable[tuple[SessionKey, TaskId, str]]) -> None:
        """Sets the cancel key of each task, with the reason, and says so on the control channel
        (section 5, Cancel)."""
        commands = [command for each in stopped for command in self._cancellation(*each)]
        await self._redis.call_all(commands)

    def _cancellation(self, session: SessionKey, task_id: TaskId, reason: str) -> list[Command]:
        message = {
            "type": "cancel",
            "task_id": task_id,
            "tenant_id": session.tenant_id,
            "session_id": session.session_id,
            "reason": reason,
        }
        return [
            ("SET", self._keys.cancel(task_id), reason, "EX", CANCEL_KEY_TTL),
            ("PUBLISH", self._keys.control, orjson.dumps(message)),
        ]

    async def tidy(self, ended: Sequence[TaskKey], *, released: Sequence[TaskKey] = ()) -> None:
        """For tasks that have ended: their places are free, what they used is counted, their id
        leads nowhere after the ttl, no look is due. `released`: who can go because of that."""
        if ended or released:
            await self._turns.take(entered=released, ended=ended)
        commands: list[Command] = []
        for session, task_id in ended:
            commands.append(("EXPIRE", self._keys.task_session(task_id), self._ttl))
            commands.append(self._due.forget(session, task_id))
        await self._redis.call_all(commands)
