"""Due times: when each open task has to be looked at next, so that no crash leaves one alone.

Sorted sets that any instance may sweep, by Redis's own clock. A due item is leased by moving its
time on; it is removed only when its task has ended, so a sweeper that dies costs a lease's time.
"""

from dataclasses import dataclass

from common.domain.ids import SessionId, SessionKey, TaskId, TenantId
from common.queues.keys import DUE_SHARDS, Keys
from common.queues.redis import Redis, unwrap
from common.queues.scripts import SCHEDULE, SETTLE_DUE, TAKE_DUE, Command

LEASE_MS = 5000


@dataclass(frozen=True, slots=True, kw_only=True)
class DueTask:
    """A task leased for a look."""

    session: SessionKey
    task_id: TaskId
    leased_until: int


class DueTimes:
    """The index of due times."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self._redis = redis
        self._keys = keys

    def look_in(self, session: SessionKey, task_id: TaskId, ms: int) -> Command:
        """The command that has the task looked at in so long, or earlier if that was planned."""
        return SCHEDULE.call([self._keys.due(task_id)], member_of(session, task_id), "in", ms)

    def look_at(self, session: SessionKey, task_id: TaskId, unix_ms: int) -> Command:
        """The command that has the task looked at then, or earlier if that was planned."""
        return SCHEDULE.call([self._keys.due(task_id)], member_of(session, task_id), "at", unix_ms)

    def forget(self, session: SessionKey, task_id: TaskId) -> Command:
        """The command for a task that has ended and is tidied up after."""
        return ("ZREM", self._keys.due(task_id), member_of(session, task_id))

    def settle(self, due: DueTask, next_look: int) -> Command:
        """The command that gives a lease back with the time of the next look."""
        member = member_of(due.session, due.task_id)
        return SETTLE_DUE.call([self._keys.due(due.task_id)], member, due.leased_until, next_look)

    async def take(self, limit: int) -> list[DueTask]:
        """Leases what is due, at most `limit` of each shard."""
        shards = [self._keys.due_shard(shard) for shard in range(DUE_SHARDS)]
        replies = await self._redis.batch(
            [TAKE_DUE.call([shard], LEASE_MS, limit) for shard in shards]
        )
        return [
            _due_task(member, leased_until)
            for leased_until, *members in map(unwrap, replies)
            for member in members
        ]


def member_of(session: SessionKey, task_id: TaskId) -> str:
    """How sets name a task: by all that it takes to find it."""
    return f"{session}:{task_id}"


def _due_task(member: bytes, leased_until: int) -> DueTask:
    tenant_id, session_id, task_id = member.decode().split(":")
    session = SessionKey(TenantId(tenant_id), SessionId(session_id))
    return DueTask(session=session, task_id=TaskId(task_id), leased_until=leased_until)
