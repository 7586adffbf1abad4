"""The OpenAPI document, put together from operations, schemas and the errors' own classes."""

import http
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson
from apispec import APISpec
from apispec.ext.marshmallow import MarshmallowPlugin
from marshmallow import Schema, fields

from common.domain import errors
from common.domain.errors import OrchestratorError, TooMany
from orchestrator.api_docs import answers, beyond, operations
from orchestrator.api_docs import parameters as given
from orchestrator.api_docs.operation import JSON, Answer, Json, Operation
from orchestrator.auth.caller import Access
from orchestrator.http.base import ApiHandler
from orchestrator.problems import CONTENT_TYPE, headers_of, problem_body

ALL: Sequence[Operation] = (
    *operations.CHAT,
    beyond.CONNECT,
    *operations.PUSHES,
    *operations.OPERATIONS,
    *operations.LETTERS,
    *operations.USAGE,
    *operations.DOCUMENTS,
    *beyond.FILES,
)

ABOUT = """\
Chat clients on one side, agents on the other.

Every answer carries `X-Request-ID`. Errors are `application/problem+json` (RFC 9457) with a `code`;
a method that an address does not know is 405 `method_not_allowed`, an unknown address 404
`not_found`. What answers `GET` answers `HEAD` as well, without the body. Unknown fields in a body
are refused. Integers beyond 64 bits are refused; of equal keys the last one holds. Where the
service runs with `auth.mode: none`, nobody is asked for credentials.
"""

SECURITY_SCHEMES: Mapping[str, Json] = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "A token (JWT), or an API key."},
    "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    "token": {
        "type": "apiKey",
        "in": "query",
        "name": "token",
        "description": "For a WebSocket and for server-sent events.",
    },
}

HEADERS: Mapping[str, Json] = {
    "X-Request-ID": {
        "description": "The request's name in logs.",
        "required": True,
        "schema": {"type": "string"},
    },
    "Retry-After": {"description": "Seconds.", "schema": {"type": "integer", "minimum": 1}},
    "RateLimit-Limit": {"description": "How much is allowed.", "schema": {"type": "integer"}},
    "RateLimit-Remaining": {"description": "What is left.", "schema": {"type": "integer"}},
    "RateLimit-Reset": {
        "description": "Seconds until there is more.",
        "schema": {"type": "integer", "minimum": 0},
    },
    "WWW-Authenticate": {"description": "`Bearer`.", "schema": {"type": "string"}},
    "Idempotent-Replayed": {
        "description": "`true` where an earlier response is answered again.",
        "schema": {"type": "string", "enum": ["true"]},
    },
    "ETag": {"description": "For `If-None-Match`.", "schema": {"type": "string"}},
}


def document(bodies: Mapping[str, Schema], version: str) -> bytes:
    """OpenAPI 3.1 as JSON. `bodies`: the schemas that validate, by name (`Schemas.published`)."""
    plugin = MarshmallowPlugin()
    spec = APISpec(
        title="Agent Orchestrator",
        version=version,
        openapi_version="3.1.0",
        info={"description": ABOUT},
        plugins=[plugin],
    )
    plugin.converter.add_attribute_function(_own_schema)  # type: ignore[union-attr]
    for name, scheme in SECURITY_SCHEMES.items():
        spec.components.security_scheme(name, dict(scheme))
    for name, header in HEADERS.items():
        spec.components.header(name, dict(header))
    for name, schema in {**bodies, "Problem": answers.Problem}.items():
        spec.components.schema(name, schema=schema)
    paths: dict[str, Json] = defaultdict(dict)
    for operation in ALL:
        paths[operation.path][operation.method] = _described(operation)
    for path, methods in paths.items():
        spec.path(path=path, operations=methods)
    return orjson.dumps(spec.to_dict())


def _own_schema(_: object, field: fields.Field[Any], **__: Any) -> Json:
    """What a field of our own says of itself."""
    return dict(field.json_schema()) if hasattr(field, "json_schema") else {}


def _described(operation: Operation) -> Json:
    access = operation.handler.access
    described: Json = {
        "operationId": operation.id,
        "tags": [operation.tag],
        "summary": operation.summary,
        "parameters": [*operation.parameters, given.REQUEST_ID],
        "responses": _responses(operation, access),
        "security": _security(operation, access),
    }
    if operation.text:
        described["description"] = operation.text
    if operation.body:
        shown = {name: {"value": value} for name, value in operation.examples.items()}
        schema = {"$ref": f"#/components/schemas/{operation.body}"}
        content = {JSON: {"schema": schema, "examples": shown}}
        described["requestBody"] = {"required": True, "content": content}
    return described


def _responses(operation: Operation, access: Access) -> Json:
    responses = {str(status): _answer(each) for status, each in operation.answers.items()}
    responses.update(_not_modified(operation))
    for status, problem in _problems(operation, access).items():
        known = responses.setdefault(status, problem)
        if known is not problem:  # a body of its own, or a problem
            known["content"].update(problem["content"])
            known["headers"].update(problem["headers"])
    return responses


def _security(operation: Operation, access: Access) -> list[Json]:
    if access is Access.OPEN:
        return []
    by_query = ["token"] if given.TOKEN in operation.parameters else []
    return [{scheme: [access.value]} for scheme in ("bearer", "apiKey", *by_query)]


def _answer(answer: Answer) -> Json:
    described: Json = {"description": answer.text, "headers": _headers(*answer.headers)}
    content: Json = {media_type: {} for media_type in answer.media_types}
    if answer.schema is not None:
        content[JSON]["schema"] = answer.schema
        if answer.or_else is not None:
            content[JSON]["schema"] = {"oneOf": [answer.schema, answer.or_else]}
    if answer.example is not None:
        content[JSON]["example"] = answer.example
    return {**described, **({"content": content} if content else {})}


def _not_modified(operation: Operation) -> Json:
    """Whoever has an answer already, and says so, need not be sent it again."""
    if operation.method != "get" or 200 not in operation.answers:
        return {}
    text = "What `If-None-Match` names is what there is."
    return {"304": {"description": text, "headers": _headers("ETag")}}


def _problems(operation: Operation, access: Access) -> Json:
    """The errors of an operation by status: its own, and those that come with what it takes."""
    by_status: dict[int, list[type[OrchestratorError]]] = defaultdict(list)
    for error in dict.fromkeys((*_implied(operation, access), *operation.errors)):
        by_status[error.http_status].append(error)
    return {str(status): _problem(status, found) for status, found in by_status.items()}


def _implied(operation: Operation, access: Access) -> Iterable[type[OrchestratorError]]:
    yield errors.InternalError
    if access is not Access.OPEN:
        # The last one where the keys of tokens cannot be fetched.
        yield from (errors.Unauthorized, errors.Forbidden, errors.Overloaded)
    has_query = any(each["in"] == "query" for each in operation.parameters)
    if has_query:
        yield errors.BadRequest  # escapes that are not UTF-8
    if issubclass(operation.handler, ApiHandler):
        yield errors.PayloadTooLarge
        if has_query:
            yield errors.ValidationFailed
    if operation.body:
        yield from (errors.MalformedJson, errors.UnsupportedMediaType, errors.ValidationFailed)


def _problem(status: int, found: Sequence[type[OrchestratorError]]) -> Json:
    codes = list(dict.fromkeys(error.code for error in found))
    own = {"properties": {"code": {"enum": codes}, "status": {"const": status}}}
    return {
        "description": http.HTTPStatus(status).phrase,
        "headers": _headers(*headers_of(_made(found[0]))),
        "content": {
            CONTENT_TYPE: {
                "schema": {"allOf": [answers.Problem, own]},
                "examples": {error.code: {"value": _example_of(error)} for error in found},
            }
        },
    }


def _made(error: type[OrchestratorError]) -> OrchestratorError:
    return error(limit=60, reset=12) if issubclass(error, TooMany) else error()


def _example_of(error: type[OrchestratorError]) -> Json:
    made = _made(error)
    if isinstance(made, errors.ValidationFailed):
        made.errors = {"message": ["Missing data for required field."]}
    example: Json = orjson.loads(problem_body(made, "r-42"))
    return example


def _headers(*names: str) -> Json:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in ("X-Request-ID", *names)}
