"""What the document says holds for whatever is sent: requests are made from it (schemathesis).

For each operation, requests that it allows and requests that it does not; each answer has to be one
that the document tells of, with its headers, its media type and its schema, and none is a 5xx.
"""

import asyncio
from collections import Counter
from typing import Any

import orjson
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, assume, given, settings
from schemathesis import Case, GenerationMode, Response
from schemathesis.checks import CheckFunction, not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi import checks

from config.settings import ExecutionSettings
from orchestrator import __version__
from orchestrator.api_docs.document import document
from orchestrator.schemas import LARGEST_INTEGER, SMALLEST_INTEGER, Schemas
from tests.fuzz.conftest import KEY
from tests.support.service import RunningProcess

EXAMPLES = 20  # of each operation and each kind
HEADERS = {"X-API-Key": KEY}
DOCUMENT = orjson.loads(document(Schemas(ExecutionSettings(), {}).published, __version__))
CHECKS: list[CheckFunction] = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
]
UPGRADE = "/ws/{tenant_id}/{session_id}"  # whoever does not upgrade is always refused

schema = schemathesis.openapi.from_dict(DOCUMENT)
# Credentials are tried elsewhere: here each request has to get past them.
schema.config.generation.update(with_security_parameters=False)
OPERATIONS = {
    each.ok().label: each.ok() for each in schema.get_all_operations() if isinstance(each, Ok)
}
TAKES_SOMETHING = [
    label
    for label, each in OPERATIONS.items()
    if each.body or each.query or each.path_parameters  # any header is a good one
]


@pytest.mark.parametrize("label", OPERATIONS)
def test_a_request_that_is_allowed_is_answered_as_described(
    guarded: RunningProcess, label: str
) -> None:
    asyncio.run(guarded.ready())  # for a while after it stood still its own address says no
    more = [] if UPGRADE in label else [checks.positive_data_acceptance]
    try_(guarded, label, GenerationMode.POSITIVE, [*CHECKS, *more])


@pytest.mark.parametrize("label", TAKES_SOMETHING)
def test_a_request_that_is_not_allowed_is_refused_as_described(
    guarded: RunningProcess, label: str
) -> None:
    try_(guarded, label, GenerationMode.NEGATIVE, [*CHECKS, checks.negative_data_rejection])


def test_nothing_of_this_broke_the_service(guarded: RunningProcess) -> None:
    assert guarded.process.returncode is None
    events = Counter(line.get("event") for line in lines_of(guarded.log))
    assert events["request.failed"] == 0
    assert events["actor.failed"] == 0
    assert "Traceback" not in guarded.log


def try_(
    service: RunningProcess, label: str, mode: GenerationMode, judged: list[CheckFunction]
) -> None:
    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=OPERATIONS[label].as_strategy(generation_mode=mode))
    def run(case: Case[Any]) -> None:
        assume(is_exact(case.body))
        case.query.pop("token", None)  # it would come before the key
        answer: Response = case.call(base_url=service.address, headers=HEADERS)
        assert answer.status_code != 401, "nothing is tried by who is not let in"
        case.validate_response(answer, checks=judged, headers=HEADERS)

    run()


def is_exact(value: Any) -> bool:
    """Whether no integer is beyond 64 bits, which a schema cannot say of all objects."""
    if isinstance(value, dict | list):
        return all(map(is_exact, value.values() if isinstance(value, dict) else value))
    return not isinstance(value, int) or SMALLEST_INTEGER <= value <= LARGEST_INTEGER


def lines_of(log: str) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in log.splitlines() if line.startswith("{")]
