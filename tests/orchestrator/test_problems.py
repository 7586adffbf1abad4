"""A problem tells what a client needs, and nothing of our inside."""

import orjson
import pytest

from common.domain import errors
from common.domain.errors import (
    OrchestratorError,
    QuotaExceeded,
    RedisUnavailable,
    TaskNotFound,
    TooMany,
    Unauthorized,
    ValidationFailed,
)
from orchestrator.problems import headers_of, problem_body

ERRORS = [
    each
    for each in vars(errors).values()
    if isinstance(each, type) and issubclass(each, OrchestratorError)
]


@pytest.mark.parametrize("kind", ERRORS)
def test_every_error_is_a_problem(kind: type[OrchestratorError]) -> None:
    error = kind(limit=1) if issubclass(kind, TooMany) else kind()
    problem = orjson.loads(problem_body(error, "r-1"))
    assert problem["status"] == kind.http_status
    assert problem["code"] == kind.code
    assert problem["type"].endswith(f":{kind.code}")
    assert problem["title"]
    assert problem["detail"]
    assert problem["request_id"] == "r-1"
    assert "errors" not in problem


def test_fields_are_told_where_there_are_any() -> None:
    problem = orjson.loads(problem_body(ValidationFailed(errors={"a": ["no"]}), "r-1"))
    assert problem["errors"] == {"a": ["no"]}


def test_a_detail_of_its_own_wins() -> None:
    assert orjson.loads(problem_body(TaskNotFound("Look elsewhere."), "r"))["detail"] == (
        "Look elsewhere."
    )


@pytest.mark.parametrize(
    ("error", "headers"),
    [
        (TaskNotFound(), {}),
        (RedisUnavailable(retry_after=3), {"Retry-After": "3"}),
        (Unauthorized(), {"WWW-Authenticate": "Bearer"}),
        (
            QuotaExceeded(limit=40, remaining=0, reset=7),
            {
                "Retry-After": "7",
                "RateLimit-Limit": "40",
                "RateLimit-Remaining": "0",
                "RateLimit-Reset": "7",
            },
        ),
    ],
)
def test_headers_say_when_to_come_back_and_what_else_to_do(
    error: OrchestratorError, headers: dict[str, str]
) -> None:
    assert headers_of(error) == headers
