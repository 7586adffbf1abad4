"""Answers are the bodies of section 3, and carry what agents said byte for byte."""

import orjson
import pytest

from common.domain.answers import answer_body, refusal_body
from common.domain.errors import SessionBusy, ValidationFailed
from common.domain.ids import AgentId, SessionId, SessionKey, TaskId, TenantId
from common.domain.tasks import CancelOutcome, Submitted, Task, TaskStatus


def task(**fields: object) -> Task:
    known: dict[str, object] = {
        "task_id": TaskId("t"),
        "session": SessionKey(TenantId("acme"), SessionId("s")),
        "agent_id": AgentId("a"),
        "status": TaskStatus.QUEUED,
        "progress": None,
        "attempt": None,
        "created_at": 0,
        "updated_at": 1,
        "started_at": None,
        "finished_at": None,
        "result": None,
        "error": None,
        "usage": None,
    }
    return Task(**(known | fields))  # type: ignore[arg-type]


def test_a_task_of_which_little_is_known_has_every_field_of_the_contract() -> None:
    assert orjson.loads(answer_body(task())) == {
        "task_id": "t",
        "tenant_id": "acme",
        "session_id": "s",
        "agent_id": "a",
        "status": "queued",
        "progress": None,
        "attempt": None,
        "created_at": "1970-01-01T00:00:00.000Z",
        "updated_at": "1970-01-01T00:00:00.001Z",
        "started_at": None,
        "finished_at": None,
        "result": None,
        "error": None,
        "usage": None,
    }


def test_what_an_agent_reported_is_passed_on_as_it_came() -> None:
    result = b'{"response":"x", "n":12345678901234567890, "empty":[]}'
    body = answer_body(task(result=result, started_at=2, finished_at=3))
    assert result in body
    assert b'"started_at":"1970-01-01T00:00:00.002Z"' in body


@pytest.mark.parametrize(("progress", "told"), [(50.0, b"50"), (12.5, b"12.5"), (0.0, b"0")])
def test_progress_is_a_plain_number(progress: float, told: bytes) -> None:
    assert b'"progress":%b,' % told in answer_body(task(progress=progress))


def test_a_submission_is_answered_the_same_in_every_replay() -> None:
    response = b'{"task_id":"t"}'
    assert answer_body(Submitted(task_id=TaskId("t"), response=response, replayed=True)) is response


def test_a_cancellation_is_answered_with_what_it_came_to() -> None:
    outcome = CancelOutcome(task_id=TaskId("t"), status=TaskStatus.CANCELLING)
    assert orjson.loads(answer_body(outcome)) == {"task_id": "t", "status": "cancelling"}


def test_a_refusal_names_its_code_and_the_fields_if_any() -> None:
    assert orjson.loads(refusal_body(SessionBusy())) == {
        "code": "session_busy",
        "message": "The session already has a task that has not ended.",
    }
    refused = orjson.loads(refusal_body(ValidationFailed(errors={"message": ["Too long."]})))
    assert refused["errors"] == {"message": ["Too long."]}
