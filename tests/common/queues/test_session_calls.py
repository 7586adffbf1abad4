"""What every script of a session is given."""

from common.domain.ids import TaskId
from common.queues.keys import Keys
from common.queues.scripts import Script
from common.queues.session_calls import SessionCalls
from tests.support.stores import SESSION

KEYS = Keys("P:")
CALLS = SessionCalls(KEYS, max_events=100, ttl=60.9)


def test_the_sessions_keys_come_first_then_the_scripts_own() -> None:
    command = CALLS.call(Script(b"", "sha"), SESSION, ["own"], "arg")
    assert command[:8] == (
        *("EVALSHA", "sha", 5),
        KEYS.session_meta(SESSION),
        KEYS.session_log(SESSION),
        KEYS.session_open(SESSION),
        KEYS.session_line(SESSION),
        "own",
    )
    channel, timestamp, epoch, max_events, ttl, own = command[8:]
    assert (channel, max_events, ttl, own) == (KEYS.session_channel(SESSION), 100, 60, "arg")
    assert str(timestamp).endswith("Z")
    assert epoch != CALLS.call(Script(b"", "sha"), SESSION, [])[9]


def test_a_tasks_keys_come_in_the_order_in_which_scripts_expect_them() -> None:
    task = TaskId("t")
    assert CALLS.task_keys(SESSION, task) == [
        KEYS.task(SESSION, task),
        KEYS.task_text(SESSION, task),
        KEYS.task_parked(SESSION, task),
        KEYS.task_waiting(SESSION, task),
    ]
