"""Reading a work entry."""

from typing import Any

import orjson
import pytest

from common.queues.work_entries import WorkEntry
from execution.outputs import Failed
from execution.task import (
    InvalidAction,
    Task,
    Turn,
    given_turns,
    read_action,
    read_address,
    read_task,
)

ACTION: dict[str, Any] = {
    "tenant_id": "acme",
    "session_id": "s1",
    "agent_id": "echo",
    "message": "hi",
    "callback_stream": "cb",
    "deadline": 1_900_000_000_000,
}


def task_of(**changes: Any) -> Task:
    action = {name: value for name, value in {**ACTION, **changes}.items() if value is not ...}
    entry = WorkEntry("s", "1-0", {b"task_id": b"t", b"action": orjson.dumps(action)})
    read = read_action(entry)
    return read_task(read_address(entry, read, 1), read, None)


def test_what_an_action_may_leave_out_has_defaults() -> None:
    task = task_of(user_id=None, context=None)
    assert (task.max_attempts, task.visibility_timeout_ms) == (3, 60_000)
    assert (task.user_id, task.context, task.metadata) == (None, {}, {})


@pytest.mark.parametrize(
    "change",
    [
        {"message": ...},
        {"message": 7},
        {"agent_id": None},
        {"deadline": "soon"},
        {"deadline": True},
        {"context": []},
        {"callback_stream": ...},
        {"tenant_id": 5},
    ],
)
def test_what_it_must_say_is_asked_for_by_name(change: dict[str, Any]) -> None:
    with pytest.raises(InvalidAction, match=next(iter(change))):
        task_of(**change)


async def test_without_anyone_to_ask_there_is_no_history() -> None:
    assert await task_of().history() == []


async def test_the_last_turns_of_a_given_history_are_used() -> None:
    turns = [{"role": "user", "content": str(number)} for number in range(5)]
    for name in ("history", "messages"):
        assert await task_of(context={name: turns}).history(limit=2) == [
            Turn("user", "3"),
            Turn("user", "4"),
        ]


@pytest.mark.parametrize(
    "history",
    [
        "text",
        5,
        [1],
        [{"role": "user"}],
        [{"role": "boss", "content": "x"}],
        [{"role": [], "content": "x"}],
        [{"role": "user", "content": 1}],
    ],
)
def test_a_history_that_is_none_is_refused(history: object) -> None:
    with pytest.raises(Failed, match="history"):
        given_turns({"history": history})
