"""The document says what there is: every address, who may call it, and all that it answers."""

import re
from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from common.domain import errors
from common.domain.errors import OrchestratorError
from config.settings import ExecutionSettings
from orchestrator import __version__
from orchestrator.api_docs.beyond import CONNECT
from orchestrator.api_docs.document import ALL, document
from orchestrator.auth.caller import Access
from orchestrator.routes import routes
from orchestrator.schemas import Schemas
from tests.support.redis_server import RedisServer
from tests.support.service import running_service

SCHEMAS = Schemas(ExecutionSettings(max_timeout=1234.0), {})
DOCUMENT: dict[str, Any] = orjson.loads(document(SCHEMAS.published, __version__))
DESCRIBED: dict[tuple[str, str], dict[str, Any]] = {
    (path, method): described
    for path, methods in DOCUMENT["paths"].items()
    for method, described in methods.items()
}
OPERATIONS = [
    pytest.param(path, method, described, id=f"{method} {path}")
    for (path, method), described in DESCRIBED.items()
]


async def test_each_route_is_described_and_nothing_else_is(
    redis_server: RedisServer, prefix: str
) -> None:
    async with running_service(redis_server.url, prefix) as service:
        rules = [rule for rule in routes(service.service.app) if isinstance(rule, tuple)]
        served = await service.get("/openapi.json")
    in_table = {(str(rule[0]), rule[1]) for rule in rules}
    described = set()
    for operation in ALL:
        address = re.sub(r"\{\w+\}", "x", operation.path)
        (rule,) = [each for each in rules if re.fullmatch(str(each[0]), address)]
        assert rule[1] is operation.handler, operation.path
        described.add((str(rule[0]), rule[1]))
    assert described == in_table
    assert served.json["paths"].keys() == DOCUMENT["paths"].keys()


def test_each_method_of_a_handler_is_described() -> None:
    assert "What answers `GET` answers `HEAD` as well" in DOCUMENT["info"]["description"]
    for operation in ALL:
        methods = {each.method for each in ALL if each.path == operation.path}
        if "get" in methods and operation is not CONNECT:
            methods.add("head")
        assert {each.lower() for each in operation.handler.methods()} == methods, operation.path


def test_it_has_the_version_of_the_service_and_its_settings_limits() -> None:
    assert DOCUMENT["openapi"].startswith("3.1.")
    assert DOCUMENT["info"]["version"] == __version__
    assert properties("SendMessage")["timeout"]["maximum"] == 1234


def test_what_a_body_may_have_is_what_its_schema_loads() -> None:
    for name, schema in SCHEMAS.published.items():
        described = DOCUMENT["components"]["schemas"][name]
        assert described["properties"].keys() == schema.fields.keys()
        required = {each for each, field in schema.fields.items() if field.required}
        assert set(described["required"]) == required
        assert described["additionalProperties"] is False


@pytest.mark.parametrize(("path", "method", "described"), OPERATIONS)
def test_whoever_must_say_who_they_are_is_told_how(
    path: str, method: str, described: dict[str, Any]
) -> None:
    (operation,) = [each for each in ALL if (each.path, each.method) == (path, method)]
    access = operation.handler.access
    if access is Access.OPEN:
        assert described["security"] == []
        assert "401" not in described["responses"]
        return
    ways = {name: scopes for way in described["security"] for name, scopes in way.items()}
    assert {"bearer": [access], "apiKey": [access]}.items() <= ways.items()
    assert ("token" in ways) == (path.startswith("/ws/{") or path.endswith("/events"))
    assert {"401", "403"} <= described["responses"].keys()


@pytest.mark.parametrize(("path", "method", "described"), OPERATIONS)
def test_each_answer_names_its_request_and_each_error_its_codes(
    path: str, method: str, described: dict[str, Any]
) -> None:
    for status, answer in described["responses"].items():
        assert "X-Request-ID" in answer["headers"]
        problem = answer.get("content", {}).get("application/problem+json")
        if problem is None:
            assert int(status) < 400, status
            continue
        codes = problem["schema"]["allOf"][1]["properties"]["code"]["enum"]
        assert problem["examples"].keys() == set(codes)
        assert codes_of(int(status)) >= set(codes)
        headers = answer["headers"].keys()
        assert ("Retry-After" in headers) == (status in ("429", "503"))
        assert ("RateLimit-Reset" in headers) == (status == "429")
        assert ("WWW-Authenticate" in headers) == (status == "401")


def test_every_code_of_the_contract_is_somewhere() -> None:
    told = {
        code
        for described in DESCRIBED.values()
        for answer in described["responses"].values()
        for code in answer.get("content", {})
        .get("application/problem+json", {})
        .get("examples", ())
    }
    # What is answered where there is no operation is told by the introduction.
    elsewhere = {"method_not_allowed"}
    assert told | elsewhere == {each.code for each in hierarchy(OrchestratorError)}
    assert all(f"`{code}`" in DOCUMENT["info"]["description"] for code in elsewhere)


def test_operations_have_names_of_their_own() -> None:
    names = [described["operationId"] for described in DESCRIBED.values()]
    assert len(set(names)) == len(names)
    assert "post_api_chat_send" in names


def properties(name: str) -> dict[str, Any]:
    found: dict[str, Any] = DOCUMENT["components"]["schemas"][name]["properties"]
    return found


def codes_of(status: int) -> set[str]:
    return {each.code for each in hierarchy(OrchestratorError) if each.http_status == status}


def hierarchy(kind: type[OrchestratorError]) -> Iterator[type[OrchestratorError]]:
    yield kind
    for each in kind.__subclasses__():
        if each.__module__ == errors.__name__:
            yield from hierarchy(each)
