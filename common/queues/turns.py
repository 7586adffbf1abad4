"""How a task whose turn has come gets into a work stream: once a round, whoever tries."""

from collections.abc import Sequence

from common.domain.actions import Priority
from common.domain.ids import SessionKey, TaskId
from common.failpoints import failpoint
from common.queues.due import DueTimes
from common.queues.keys import Keys
from common.queues.redis import Redis, unwrap
from common.queues.scripts import NOTE_DELIVERY, Command
from common.queues.work import Delivery, WorkQueue, removal

DELIVERY_FIELDS = ("priority", "timeout_ms", "action", "round", "deadline")


class Turns:
    """Delivers tasks to the workers. Every method is safe to repeat, and whatever a crash leaves
    undone the next look at the task does (`watch.py`)."""

    def __init__(self, redis: Redis, keys: Keys, due: DueTimes, work: WorkQueue) -> None:
        self._redis = redis
        self._keys = keys
        self._due = due
        self._work = work

    async def deliver(self, deliveries: Sequence[Delivery]) -> None:
        """Puts tasks into their work streams and notes their deadlines."""
        if not deliveries:
            return
        entered = await self._redis.batch([self._work.deliver(each) for each in deliveries])
        failpoint("tasks.after_deliver")
        commands: list[Command] = []
        for delivery, reply in zip(deliveries, entered, strict=True):
            entry_id, deadline = unwrap(reply)
            task = self._keys.task(delivery.session, delivery.task_id)
            commands.append(NOTE_DELIVERY.call([task], deadline, entry_id, delivery.round))
        for result in await self._redis.batch(commands):
            unwrap(result)

    async def release(self, session: SessionKey, task_ids: Sequence[TaskId]) -> None:
        """Delivers tasks that waited until now; one that has ended meanwhile is left out."""
        found = await self._redis.batch(
            [("HMGET", self._keys.task(session, task_id), *DELIVERY_FIELDS) for task_id in task_ids]
        )
        await self.deliver(
            [
                _delivery(session, task_id, unwrap(fields))
                for task_id, fields in zip(task_ids, found, strict=True)
                if unwrap(fields)[0] is not None
            ]
        )

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
        for result in await self._redis.batch(commands):
            unwrap(result)


def _delivery(session: SessionKey, task_id: TaskId, fields: Sequence[bytes]) -> Delivery:
    priority, timeout_ms, action, round_, deadline = fields
    return Delivery(
        session=session,
        task_id=task_id,
        priority=Priority(priority.decode()),
        timeout_ms=int(timeout_ms),
        action=action,
        round=int(round_),
        deadline=None if deadline is None else int(deadline),
    )
