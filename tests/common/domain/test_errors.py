"""One hierarchy of errors; the contract's list of codes, no more and no less of what is built."""

import pytest

from common.domain import errors
from common.domain.errors import (
    OrchestratorError,
    QueueFull,
    RateLimited,
    RedisUnavailable,
    TemporaryError,
    TooMany,
)

# Section 3, Codes.
CODES = {
    400: {"malformed_json", "bad_request"},
    401: {"unauthorized"},
    403: {"forbidden", "origin_not_allowed"},
    404: {"not_found", "task_not_found", "agent_not_found"},
    405: {"method_not_allowed"},
    409: {"idempotency_conflict", "session_busy", "task_already_finished", "epoch_changed"},
    413: {"payload_too_large"},
    415: {"unsupported_media_type"},
    422: {"validation_failed"},
    429: {"rate_limited", "quota_exceeded", "queue_full"},
    500: {"internal_error"},
    503: {"redis_unavailable", "draining", "overloaded"},
}
ALL = [
    value
    for value in vars(errors).values()
    if isinstance(value, type) and issubclass(value, OrchestratorError)
]


def test_each_code_has_the_status_of_the_contract() -> None:
    there: dict[int, set[str]] = {}
    for kind in ALL:
        there.setdefault(kind.http_status, set()).add(kind.code)
    assert there == CODES


def test_a_code_never_has_a_second_meaning() -> None:
    named = [kind for kind in ALL if not kind.__subclasses__() or kind is errors.Unauthorized]
    assert len({kind.code for kind in named}) == len(named)


@pytest.mark.parametrize("kind", [kind for kind in ALL if not issubclass(kind, TooMany)])
def test_the_docstring_is_the_message_unless_there_is_a_better_one(
    kind: type[OrchestratorError],
) -> None:
    assert kind().detail == str(kind()) == (kind.__doc__ or "").splitlines()[0]
    assert kind("Better.").detail == "Better."


def test_a_temporary_error_says_when_to_try_again() -> None:
    assert all(kind.temporary == issubclass(kind, TemporaryError) for kind in ALL)
    assert RedisUnavailable().retry_after == 1
    assert RedisUnavailable(retry_after=7).retry_after == 7


def test_a_limit_says_what_it_is_and_when_there_is_more() -> None:
    error = RateLimited(limit=10, reset=42)
    assert (error.limit, error.remaining, error.reset, error.retry_after) == (10, 0, 42, 42)
    assert error.detail == "Too many requests for now."
    assert QueueFull(limit=5, reset=0).retry_after == 1


def test_a_validation_error_names_the_fields() -> None:
    assert errors.ValidationFailed(errors={"message": ["Missing."]}).errors == {
        "message": ["Missing."]
    }
    assert errors.NotFound().errors is None
