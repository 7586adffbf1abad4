"""How a task is written down."""

import orjson
import pytest

from common.domain.actions import IfBusy, Priority
from common.domain.ids import TaskId, UserId
from common.queues.task_records import (
    action_for_worker,
    response_to,
    session_named,
    task_of,
    timeout_ms,
    user_message_of,
)
from tests.support.stores import SESSION, message

RECORD = {
    b"status": b"running",
    b"attempt": b"2",
    b"agent_id": b"echo",
    b"created": b"1000",
    b"updated": b"2000",
}


def test_a_worker_is_given_the_whole_action_and_what_it_needs_to_report() -> None:
    action = message(
        user_id=UserId("u"),
        metadata={"m": 1},
        context={"c": []},
        user_info={"i": {}},
        priority=Priority.HIGH,
        if_busy=IfBusy.PARALLEL,
        created_at=123,
    )
    begun = action_for_worker(
        action, callback_stream="P:callbacks", max_attempts=3, visibility_timeout_ms=60_000
    )
    assert orjson.loads(begun + b"42}") == {
        "action_id": action.task_id,
        "action_type": "chat.send_message",
        "tenant_id": "acme",
        "user_id": "u",
        "created_at": "1970-01-01T00:00:00.123Z",
        "metadata": {"m": 1},
        "agent_id": "echo",
        "session_id": "s-1",
        "message": "hello",
        "message_type": "text",
        "user_info": {"i": {}},
        "context": {"c": []},
        "timeout": 300.0,
        "priority": "high",
        "if_busy": "parallel",
        "callback_stream": "P:callbacks",
        "max_attempts": 3,
        "visibility_timeout_ms": 60_000,
        "deadline": 42,
    }


def test_a_client_is_told_what_the_contract_promises() -> None:
    action = message(created_at=123, user_id=UserId("u"))
    assert orjson.loads(response_to(action)) == {
        "task_id": action.task_id,
        "status": "queued",
        "tenant_id": "acme",
        "session_id": "s-1",
        "created_at": "1970-01-01T00:00:00.123Z",
    }
    assert orjson.loads(user_message_of(action)) == {
        "message": "hello",
        "message_type": "text",
        "user_id": "u",
        "agent_id": "echo",
    }


@pytest.mark.parametrize(("seconds", "ms"), [(1, 1000), (0.0015, 2), (43200.0, 43_200_000)])
def test_a_timeout_is_kept_in_milliseconds(seconds: float, ms: int) -> None:
    assert timeout_ms(message(timeout=seconds)) == ms


def test_a_session_is_found_by_its_name() -> None:
    assert session_named(str(SESSION).encode()) == SESSION


def test_a_record_becomes_a_task() -> None:
    task = task_of(TaskId("t"), SESSION, {**RECORD, b"progress": b"12.5", b"started": b"5"}, b"x")
    assert (task.status, task.attempt, task.progress, task.started_at) == ("running", 2, 12.5, 5)
    assert (task.result, task.finished_at, task.error, task.usage) == (None, None, None, None)


def test_an_attempt_that_nobody_made_is_not_known() -> None:
    assert task_of(TaskId("t"), SESSION, {**RECORD, b"attempt": b"0"}, None).attempt is None


@pytest.mark.parametrize("status", [b"failed", b"cancelled", b"timeout"])
def test_what_ended_without_completing_keeps_what_it_had_streamed(status: bytes) -> None:
    record = {**RECORD, b"status": status}
    task = task_of(TaskId("t"), SESSION, record, "Grüße".encode())
    assert orjson.loads(task.result or b"") == {"response": "Grüße", "partial": True}
    assert task_of(TaskId("t"), SESSION, record, None).result is None


def test_what_completed_has_its_own_result() -> None:
    record = {**RECORD, b"status": b"completed", b"result": b'{"response":"x"}'}
    assert task_of(TaskId("t"), SESSION, record, None).result == b'{"response":"x"}'
