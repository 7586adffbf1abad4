"""What every script of a session is given (see `lua/_session.lua`)."""

from collections.abc import Sequence

from common.domain.ids import SessionKey, TaskId, new_id
from common.domain.times import now_ms, rfc3339
from common.queues.keys import Keys
from common.queues.scripts import Command, Script, Value


class SessionCalls:
    """Builds the commands that run a session's scripts: one atomic step on one slot each."""

    def __init__(self, keys: Keys, *, max_events: int, ttl: float) -> None:
        self.keys = keys
        self.max_events = max_events
        self.ttl = int(ttl)  # seconds after the last event

    def call(
        self, script: Script, session: SessionKey, own_keys: Sequence[str], *args: Value
    ) -> Command:
        keys = [
            self.keys.session_meta(session),
            self.keys.session_log(session),
            self.keys.session_open(session),
            self.keys.session_line(session),
            *own_keys,
        ]
        shared: list[Value] = [
            self.keys.session_channel(session),
            rfc3339(now_ms()),
            new_id(),
            self.max_events,
            self.ttl,
        ]
        return script.call(keys, *shared, *args)

    def task_keys(self, session: SessionKey, task_id: TaskId) -> list[str]:
        """The four keys of a task, in the order in which the scripts expect them."""
        return [
            self.keys.task(session, task_id),
            self.keys.task_text(session, task_id),
            self.keys.task_parked(session, task_id),
            self.keys.task_waiting(session, task_id),
        ]
