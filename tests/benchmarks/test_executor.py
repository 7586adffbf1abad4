"""What the bench's executor makes up can be told apart by its marks, however it is mangled."""

import random
from collections import Counter

import orjson

from benchmarks.rig.attempt import Action, plan_of
from benchmarks.rig.mischief import mangled, rubbish
from benchmarks.rig.records import marks_in

ACTION = Action(
    task="task", tenant="t", session="s", behave="", deadline=0, max_attempts=3, callback_stream="c"
)


def test_an_action_is_read_from_its_entry() -> None:
    said = {
        "tenant_id": "t",
        "session_id": "s",
        "context": {},
        "deadline": 0,
        "max_attempts": 3,
        "callback_stream": "c",
    }
    assert Action.read({b"task_id": b"task", b"action": orjson.dumps(said)}) == ACTION
    assert Action.read({b"task_id": b"task", b"action": b"{"}) is None
    assert Action.read({b"action": orjson.dumps(said)}) is None


def test_a_plan_is_the_same_for_the_same_attempt() -> None:
    one, other = (plan_of(ACTION, 1, random.Random("x")) for _ in range(2))
    assert [step.callback for step in one.steps] == [step.callback for step in other.steps]


def test_seqs_count_all_callbacks_and_marks_count_those_that_are_seen() -> None:
    for seed in range(50):
        plan = plan_of(ACTION, 2, random.Random(seed))
        callbacks = [*(step.callback for step in plan.steps), *plan.end]
        assert [each.seq for each in callbacks] == list(range(1, len(callbacks) + 1))
        marked = [each for each in callbacks if each.number]
        assert [each.number for each in marked] == list(range(1, len(marked) + 1))
        for each in marked:
            (mark,) = marks_in(each.data.decode())
            assert (mark.attempt, mark.number) == (2, each.number)


def test_mischief_changes_the_order_and_leaves_nothing_out() -> None:
    plan = plan_of(ACTION, 1, random.Random(1))
    groups = [group for group, _ in mangled(plan.steps, random.Random(2), 0.9)]
    sent = [callback.seq for group in groups for callback in group]
    planned = [step.callback.seq for step in plan.steps]
    assert sorted(sent) == planned != sent


def test_rubbish_carries_the_id_by_which_it_is_found_again() -> None:
    dice = random.Random(1)
    kinds: Counter[str] = Counter()
    for _ in range(100):
        kind, fields, _reason = rubbish(ACTION, "0123456789abcdef", dice)
        kinds[kind] += 1
        assert any("0123456789abcdef" in str(field) for field in fields)
    assert len(kinds) == 5
