"""One hierarchy of errors; the contract's list of codes, no more and no less of what is built."""

import pytest

from common.domain import errors
from common.domain.errors import OrchestratorError, RedisUnavailable, TemporaryError

# Section 3, Codes. The rest comes with authentication and limits.
CODES = {
    400: {"malformed_json", "bad_request"},
    403: {"forbidden", "origin_not_allowed"},
    404: {"not_found", "task_not_found", "agent_not_found"},
    405: {"method_not_allowed"},
    409: {"idempotency_conflict", "session_busy", "task_already_finished", "epoch_changed"},
    413: {"payload_too_large"},
    415: {"unsupported_media_type"},
    422: {"validation_failed"},
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
    for status, codes in CODES.items():
        assert codes <= there[status]


def test_a_code_never_has_a_second_meaning() -> None:
    named = [kind for kind in ALL if kind.__name__ not in ("OrchestratorError", "TemporaryError")]
    assert len({kind.code for kind in named}) == len(named)


@pytest.mark.parametrize("kind", ALL)
def test_the_docstring_is_the_message_unless_there_is_a_better_one(
    kind: type[OrchestratorError],
) -> None:
    assert kind().detail == str(kind()) == (kind.__doc__ or "").splitlines()[0]
    assert kind("Better.").detail == "Better."


def test_a_temporary_error_says_when_to_try_again() -> None:
    assert all(kind.temporary == issubclass(kind, TemporaryError) for kind in ALL)
    assert RedisUnavailable().retry_after == 1
    assert RedisUnavailable(retry_after=7).retry_after == 7


def test_a_validation_error_names_the_fields() -> None:
    assert errors.ValidationFailed(errors={"message": ["Missing."]}).errors == {
        "message": ["Missing."]
    }
    assert errors.NotFound().errors is None
