"""Descriptions of answers say what the examples show; `tests/fuzz` tries them on real answers."""

from typing import Any

from marshmallow import Schema

from common.domain.tasks import TaskStatus
from orchestrator.api_docs import answers, examples


def test_examples_are_such_answers() -> None:
    shown: list[tuple[Schema, dict[str, Any]]] = [
        (answers.Accepted(), examples.ACCEPTED),
        (answers.TaskState(), examples.STATUS),
        (answers.Events(), examples.EVENTS),
    ]
    for schema, example in shown:
        assert schema.validate(example) == {}


def test_a_task_has_any_status_but_no_other() -> None:
    for status in TaskStatus:
        assert answers.TaskState().validate({**examples.STATUS, "status": status}) == {}
    assert answers.TaskState().validate({**examples.STATUS, "status": "lost"}).keys() == {"status"}


def test_a_time_is_said_to_have_milliseconds() -> None:
    assert answers.Time().json_schema()["format"] == "date-time"
