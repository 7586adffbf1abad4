"""A task's life: which status may follow which."""

import pytest

from common.domain.tasks import NEXT, TERMINAL, TaskStatus


def test_four_statuses_are_terminal_and_nothing_follows_them() -> None:
    assert {"completed", "failed", "cancelled", "timeout"} == TERMINAL
    assert all(NEXT[status] == frozenset() for status in TERMINAL)
    assert [status for status in TaskStatus if status.is_terminal] == [
        status for status in TaskStatus if status in TERMINAL
    ]


@pytest.mark.parametrize("status", [each for each in TaskStatus if not each.is_terminal])
def test_every_task_that_has_not_ended_may_end_in_each_way(status: TaskStatus) -> None:
    assert NEXT[status] >= TERMINAL


def test_only_what_runs_is_cancelled_slowly_or_tried_again() -> None:
    assert TaskStatus.CANCELLING not in NEXT[TaskStatus.QUEUED]
    assert NEXT[TaskStatus.RUNNING] - TERMINAL == {"queued", "cancelling"}
    assert NEXT[TaskStatus.CANCELLING] == TERMINAL
