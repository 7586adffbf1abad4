"""What a log tells of a task is compared with what its executors sent."""

from collections import Counter
from typing import Any

import pytest

from benchmarks.rig.events import events_of
from benchmarks.rig.findings import Findings
from benchmarks.rig.task_check import Sent, TaskCheck
from tests.benchmarks.recorded import SESSION, TASK, TENANT, delta, frame, good_story, mark

Frames = list[dict[str, Any]]


def check(frames: Frames, sent: Sent | None = None) -> Counter[str]:
    findings = Findings()
    task = TaskCheck(TASK, (TENANT, SESSION), sent or Sent(), findings)
    for each in frames:
        for event in events_of(each):
            task.event(event)
    task.finish()
    return findings.counts


def cancelled(offset: int) -> dict[str, Any]:
    return frame(offset, "task_update", {"status": "cancelled"})


def reset(offset: int, attempt: int) -> dict[str, Any]:
    data = {"status": "running", "attempt": attempt, "reset": True}
    return frame(offset, "task_update", data)


def test_a_good_story_is_clean() -> None:
    assert check(good_story()) == {}


def test_a_second_attempt_replaces_the_first() -> None:
    story = good_story()
    end = frame(9, "agent_response", {"response": mark(1, 2), "agent_info": {"mark": mark(2, 2)}})
    assert check([*story[:4], reset(5, 2), delta(6, 1, attempt=2), end]) == {}


def test_a_missing_delta_is_lost() -> None:
    story = good_story()
    del story[3]
    assert check(story) == {"lost": 1, "altered": 1}  # the response tells of it as well


def test_a_missing_delta_at_the_end_of_an_attempt_is_lost() -> None:
    story = good_story()
    assert check([*story[:3], story[5]])["lost"] == 2


def test_a_delta_that_was_applied_twice_is_duplicated() -> None:
    story = good_story()
    assert check([*story[:3], *story[2:5], cancelled(9)]) == {"duplicated": 1}


def test_deltas_in_another_order_are_reordered() -> None:
    story = good_story()
    story[2], story[3] = story[3], story[2]
    assert check([*story[:5], cancelled(9)]) == {"reordered": 1}


def test_what_an_older_attempt_sent_is_stale() -> None:
    story = good_story()
    assert check([*story[:3], reset(4, 2), delta(5, 1, 2), delta(6, 2, 1)]) == {"stale": 1}


def test_a_newer_attempt_that_was_not_announced_is_noticed() -> None:
    assert check([*good_story()[:3], delta(4, 1, attempt=2)]) == {"altered": 1}


@pytest.mark.parametrize("late", [delta(7, 5), frame(7, "task_update", {"status": "cancelling"})])
def test_nothing_is_told_of_a_task_after_its_end(late: dict[str, Any]) -> None:
    assert check([*good_story(), late]) == {"after_end": 1}


def test_a_second_end_is_duplicated() -> None:
    assert check([*good_story(), cancelled(7)]) == {"duplicated": 1}


def test_another_tenants_payload_is_cross_tenant() -> None:
    leak = frame(3, "agent_delta", {"text": mark(1, tenant="other")})
    assert check([*good_story()[:2], leak]) == {"cross_tenant": 1}


def test_another_tasks_payload_is_cross_tenant() -> None:
    leak = frame(3, "agent_delta", {"text": mark(1, task="task-2")})
    assert check([*good_story()[:2], leak]) == {"cross_tenant": 1}


def test_a_payload_that_was_changed_on_its_way_is_altered() -> None:
    sent = Sent(attempts={(TASK, 1)}, payloads={(TASK, 1, 1): (0, {"text": mark(1) + "!"})})
    assert check(good_story()[:3], sent) == {"altered": 1}


def test_a_payload_that_nobody_sent_is_altered() -> None:
    assert check(good_story()[:3], Sent(attempts={(TASK, 1)})) == {"altered": 1}


def test_an_attempt_that_came_to_its_end_unheard_is_lost() -> None:
    assert check(good_story()[:3], Sent(concluded={(TASK, 1): 4})) == {"lost": 3}


def test_an_attempt_that_ended_as_a_gap_though_it_was_sent_whole_is_lost() -> None:
    gap = frame(9, "error", {"status": "failed", "error_type": "callback_gap", "message": ""})
    assert check([*good_story()[:3], gap], Sent(concluded={(TASK, 1): 4})) == {"lost": 3}
    assert check([*good_story()[:3], gap]) == {}  # an executor that died in the middle
