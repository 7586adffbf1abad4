"""How tasks take their turns: from their session to their tenant's line, from there to a worker.

`lua/_turns.lua` says who goes next and why; here is only how it is told of what has happened.
"""

from collections.abc import Sequence
from typing import NamedTuple

from common.domain.actions import Priority
from common.domain.ids import SessionKey, TaskId
from common.queues.due import DueTimes, member_of
from common.queues.keys import DUE_SHARDS, GIVEN_BACK, WORK_GROUP, Keys
from common.queues.redis import Redis
from common.queues.scripts import TAKE_TURNS, Value
from common.queues.work import removal

TaskKey = tuple[SessionKey, TaskId]
"""All that it takes to find a task."""

TOLD_AT_ONCE = 200  # members in one call, and moves; a call stays within a few milliseconds


class Moved(NamedTuple):
    """What a call came to."""

    tasks: int  # that entered a work stream
    in_line: int  # that wait in the lines of all tenants


class Turns:
    """Gets tasks to the workers. Every method is safe to repeat, and whatever a crash kept from
    being told the next look at the task tells (`watch.py`)."""

    def __init__(self, redis: Redis, keys: Keys, due: DueTimes, *, prefetch: int) -> None:
        self._redis = redis
        self._keys = keys
        self._due = due
        self._prefetch = prefetch

    @property
    def keys(self) -> list[str]:
        """The last keys of each script that has turns taken (`lua/_tenants.lua`)."""
        return [
            *self._keys.work_streams,
            *(self._keys.ring(priority) for priority in Priority),
            *(self._keys.again(priority) for priority in Priority),
            self._keys.turns_state,
        ]

    @property
    def arguments(self) -> list[Value]:
        """The last arguments of each script that has turns taken."""
        prefix = self._keys.prefix
        return [prefix, self._prefetch, WORK_GROUP, GIVEN_BACK, TOLD_AT_ONCE, DUE_SHARDS]

    async def take(
        self, *, entered: Sequence[TaskKey] = (), ended: Sequence[TaskKey] = ()
    ) -> Moved:
        """Lets those go whose turn it is, after noting what has become of tasks: they came into
        their tenant's line (their session let them go, or they are to be tried again), or ended.

        All of it is one atomic step for up to 200 tasks. None is moved twice in a round.
        """
        told = [*(("entered", place) for place in entered), *(("ended", place) for place in ended)]
        moved, has_room, in_line = await self._call(told[:TOLD_AT_ONCE])
        rest = told[TOLD_AT_ONCE:]
        while rest or has_room:
            more, has_room, in_line = await self._call(rest[:TOLD_AT_ONCE])
            rest, moved = rest[TOLD_AT_ONCE:], moved + more
        return Moved(moved, in_line)

    async def _call(self, told: Sequence[tuple[str, TaskKey]]) -> list[int]:
        kinds = [kind for kind, _ in told]
        reply: list[int] = await self._redis.run(
            TAKE_TURNS,
            self.keys,
            *(kinds.count(kind) for kind in ("entered", "ended")),
            *(member_of(session, task_id) for _, (session, task_id) in told),
            *self.arguments,
        )
        return reply

    async def back_off(
        self, session: SessionKey, task_id: TaskId, retry_at: int, entry_id: bytes
    ) -> None:
        """Has a task that is to be tried again looked at in time, and its old entry removed.

        Which entry that is (empty: none is known) was settled with the retry itself: by now the
        task may have entered a stream again.
        """
        priority = await self._redis.call("HGET", self._keys.task(session, task_id), "priority")
        commands = [self._due.look_at(session, task_id, retry_at)]
        if entry_id and priority is not None:
            stream = self._keys.work_stream(Priority(priority.decode()))
            commands += removal(stream, entry_id)
        await self._redis.call_all(commands)
