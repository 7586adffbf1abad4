"""The model of the rules of delivery says what section 5 says, rule by rule."""

import itertools
from typing import Any

import orjson
import pytest

from common.domain.callbacks import Callback, CallbackType, DeadLetter, DeadReason, Position
from common.domain.delivery import Limits, Outcome, Read, SessionDelivery, TaskDelivery, Told
from common.domain.ids import SessionId, SessionKey, TaskId, TenantId
from common.domain.tasks import TaskStatus

TASK = TaskId("t")
SESSION = SessionKey(TenantId("acme"), SessionId("s"))


def place(attempt: int, seq: int, task_id: TaskId = TASK) -> Position:
    return Position(session=SESSION, task_id=task_id, attempt=attempt, seq=seq)


def callback(attempt: int, seq: int, type_: str, /, **data: Any) -> Callback:
    return Callback(
        position=place(attempt, seq), type=CallbackType(type_), data=orjson.dumps(data), body=data
    )


def delta(attempt: int, seq: int) -> Callback:
    return callback(attempt, seq, "delta", text=f"{attempt}.{seq} ")


def dead(attempt: int, seq: int, *, ends_task: bool = False) -> DeadLetter:
    return DeadLetter(
        reason=DeadReason.UNREADABLE, position=place(attempt, seq), ends_task=ends_task
    )


class Session:
    """A session with one task, told of callbacks one after the other, a second apart."""

    def __init__(self, **limits: Any) -> None:
        known = {"max_attempts": 3, "max_parked": 100, "gap_timeout": 90, "cancel_grace": 10}
        self.session = SessionDelivery(Limits(**(known | limits)))
        self.task: TaskDelivery = self.session.submit(TASK)
        self.now = 0.0

    def receive(self, *reads: Read) -> list[Outcome | None]:
        outcomes = []
        for read in reads:
            self.now += 1
            outcomes.append(self.session.receive(read, self.now))
        return outcomes

    @property
    def told(self) -> list[Any]:
        """The log in short: texts of deltas, statuses of updates, types of the rest."""
        return [_short(told) for told in self.session.log[1:]]


def _short(told: Told) -> Any:
    if told.type == "task_update":
        return (told.data["status"], *(name for name in ("reset",) if name in told.data))
    return told.data.get("text") or told.data.get("error_type") or str(told.type)


def test_callbacks_in_order_are_told_in_order() -> None:
    session = Session()
    session.receive(
        callback(1, 1, "started"),
        delta(1, 2),
        callback(1, 3, "event", name="tool"),
        callback(1, 4, "progress", progress=50, message="half", more=1),
        callback(1, 5, "typing"),
        callback(1, 6, "completed", response="Hi", sources=[]),
    )
    assert session.told == [("running",), "1.2 ", "agent_event", ("running",), "agent_response"]
    assert session.session.log[4].data == {"status": "running", "progress": 50, "message": "half"}
    assert [told.type for told in session.session.passing] == ["typing_indicator"]
    assert (session.task.status, session.task.response) == (TaskStatus.COMPLETED, "Hi")
    assert (session.task.progress, session.task.partial) == (50, None)


def test_every_order_and_repetition_comes_out_the_same() -> None:
    reads = [callback(1, 1, "started"), delta(1, 2), delta(1, 3), callback(1, 4, "completed")]
    for order in itertools.permutations([*reads, reads[1]]):
        session = Session()
        session.receive(*order, *order)
        assert session.told == [("running",), "1.2 ", "1.3 ", "agent_response"]
        assert session.task.response == "1.2 1.3 "


def test_what_is_below_its_turn_is_a_duplicate_and_what_is_above_waits() -> None:
    session = Session()
    assert session.receive(delta(1, 1), delta(1, 1), delta(1, 3), delta(1, 3), delta(1, 2)) == [
        *("applied", "duplicate", "parked", "duplicate", "applied")
    ]
    assert session.told == ["1.1 ", "1.2 ", "1.3 "]


def test_a_newer_attempt_takes_back_what_the_older_one_streamed_and_fences_it_off() -> None:
    session = Session()
    outcomes = session.receive(delta(1, 1), delta(1, 3), delta(2, 2), delta(1, 2), delta(2, 1))
    assert outcomes == ["applied", "parked", "parked", "stale", "applied"]
    assert session.told == ["1.1 ", ("running", "reset"), "2.1 ", "2.2 "]
    assert session.task.text == "2.1 2.2 "
    assert session.session.log[2].data == {"status": "running", "attempt": 2, "reset": True}


def test_the_reset_stands_for_the_newer_attempts_start() -> None:
    session = Session()
    session.receive(callback(1, 1, "started"), callback(2, 1, "started"))
    assert session.told == [("running",), ("running", "reset")]


def test_the_first_end_wins() -> None:
    session = Session()
    outcomes = session.receive(
        callback(1, 1, "cancelled"),
        callback(1, 2, "completed"),
        callback(2, 1, "failed", error={}),
    )
    assert outcomes == ["applied", "late", "late"]
    assert session.told == [("cancelled",)]


def test_an_unknown_task_and_an_unreadable_place_touch_nothing() -> None:
    session = Session()
    stranger = DeadLetter(reason=DeadReason.UNREADABLE, position=place(1, 1, TaskId("other")))
    nowhere = DeadLetter(reason=DeadReason.UNREADABLE, position=None)
    assert session.receive(stranger, nowhere) == [Outcome.UNKNOWN, None]
    assert session.told == []


def test_a_dead_one_counts_as_received() -> None:
    session = Session()
    assert session.receive(delta(1, 3), dead(1, 2), delta(1, 1)) == ["parked", "parked", "applied"]
    assert session.told == ["1.1 ", "1.3 "]


def test_a_dead_one_alone_does_not_make_a_task_run() -> None:
    session = Session()
    session.receive(dead(1, 1))
    assert session.task.status is TaskStatus.QUEUED


def test_a_dead_end_of_the_newest_attempt_fails_the_task_in_its_turn() -> None:
    session = Session()
    assert session.receive(delta(2, 1), dead(1, 1, ends_task=True)) == ["applied", "stale"]
    session.receive(dead(2, 3, ends_task=True))
    assert session.task.status is TaskStatus.RUNNING
    session.receive(delta(2, 2))
    assert session.told[-2:] == ["2.2 ", "unreadable"]
    assert session.task.partial == "2.1 2.2 "


def test_a_gap_that_lasts_too_long_fails_the_task() -> None:
    session = Session()
    session.receive(delta(1, 2), delta(1, 3))  # the first that waits came at 1
    session.task.look(90)
    assert session.task.status is TaskStatus.QUEUED
    session.task.look(91)
    assert (session.task.status, session.task.error_type) == (TaskStatus.FAILED, "callback_gap")
    assert session.task.ended_here


def test_a_newer_attempt_ends_the_wait() -> None:
    session = Session()
    session.receive(delta(1, 2), delta(2, 1))
    session.task.look(1000)
    assert session.task.status is TaskStatus.RUNNING


def test_too_many_that_wait_are_a_gap_at_once() -> None:
    session = Session(max_parked=2)
    assert session.receive(delta(1, 2), delta(1, 3), delta(1, 4)) == ["parked"] * 3
    assert session.told == ["callback_gap"]


def test_a_task_that_is_queued_is_cancelled_at_once() -> None:
    session = Session()
    session.task.cancel("enough", 0)
    session.task.cancel("again", 0)
    assert session.told == [("cancelled",)]
    assert session.session.log[1].data == {"status": "cancelled", "message": "enough"}


def test_a_task_that_runs_has_a_grace_period_to_stop_in() -> None:
    session = Session()
    session.receive(delta(1, 1))
    session.task.cancel("", 1)
    session.receive(delta(1, 2))
    session.task.look(10)
    assert session.task.status is TaskStatus.CANCELLING
    session.task.look(11)
    session.task.look(12)
    assert session.told == ["1.1 ", ("cancelling",), "1.2 ", ("cancelled",)]
    assert session.task.partial == "1.1 1.2 "


def test_the_deadline_ends_what_runs_as_timeout_and_what_is_cancelling_as_cancelled() -> None:
    for cancelled in (False, True):
        session = Session()
        session.task.deadline = 5
        session.receive(delta(1, 1))
        if cancelled:
            session.task.cancel("", 1)
        session.task.look(5)
        assert session.task.status == ("cancelled" if cancelled else "timeout")


def test_a_worker_that_finds_the_deadline_past_reports_a_timeout() -> None:
    session = Session()
    session.task.deadline = 1
    session.receive(callback(1, 1, "cancelled"))
    assert session.session.log[1].data == {
        "code": "task_timeout",
        "error_type": "timeout",
        "status": "timeout",
    }


def test_a_failure_says_what_the_agent_said() -> None:
    session = Session()
    session.receive(callback(1, 1, "failed", error={"type": "boom"}))
    assert session.told == ["boom"]
    assert session.task.error_type == "boom"


def test_an_attempt_that_asks_to_be_tried_again_is_over() -> None:
    session = Session()
    again = callback(1, 2, "failed", error={}, retryable=True)
    outcomes = session.receive(delta(1, 1), delta(1, 3), again, delta(1, 3), again, delta(2, 1))
    assert outcomes == ["applied", "parked", "applied", "stale", "stale", "applied"]
    assert session.told == ["1.1 ", ("queued",), ("running", "reset"), "2.1 "]
    assert session.task.status is TaskStatus.RUNNING


def test_attempts_are_used_up_at_last() -> None:
    session = Session(max_attempts=2)
    for attempt in (1, 2):
        session.receive(callback(attempt, 1, "failed", error={"type": "x"}, retryable=True))
    assert session.told == [("queued",), ("running", "reset"), "max_attempts"]


def test_what_is_cancelled_is_not_tried_again() -> None:
    session = Session()
    session.receive(delta(1, 1))
    session.task.cancel("", 0)
    session.receive(callback(1, 2, "failed", error={}, retryable=True))
    assert session.task.status is TaskStatus.CANCELLED


@pytest.mark.parametrize("status", [each for each in TaskStatus if each.is_terminal])
def test_nothing_changes_after_the_end(status: TaskStatus) -> None:
    session = Session()
    session.task.status = status
    session.task.cancel("", 0)
    session.task.look(1e9)
    session.receive(delta(5, 1))
    assert (session.told, session.task.status) == ([], status)
