"""What is said of one method of one address, as plain values; `operations.py` says it of each."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from marshmallow import Schema

from common.domain.errors import OrchestratorError
from orchestrator.http.base import ProblemHandler

JSON = "application/json"

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """A status that is no error. Without a `schema` its body is any of `media_types`."""

    text: str
    schema: type[Schema] | None = None
    example: Any = None
    media_types: tuple[str, ...] = (JSON,)
    headers: tuple[str, ...] = ()
    or_else: type[Schema] | None = None  # where there are two kinds of body


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One method of one address.

    `body`: which of the schemas of `Schemas.published` it takes; `examples` are bodies that are
    taken. Errors that come with an access rule, a body or parameters are not repeated here.
    """

    tag: str
    method: str
    path: str
    handler: type[ProblemHandler]
    summary: str
    answers: Mapping[int, Answer]
    text: str = ""
    body: str | None = None
    examples: Mapping[str, Json] = field(default_factory=dict)
    parameters: tuple[Json, ...] = ()
    errors: tuple[type[OrchestratorError], ...] = ()

    @property
    def id(self) -> str:
        """A name for generated clients: `post_api_chat_send`."""
        words = [part for part in self.path.split("/") if part and not part.startswith("{")]
        named = "_".join(words).replace("-", "_").replace(".", "_")
        return "_".join(filter(None, (self.method, named or "root")))


def in_path(name: str, schema: Json, text: str, example: str) -> Json:
    return _parameter("path", name, schema, text, example, required=True)


def in_query(name: str, schema: Json, text: str, example: Any) -> Json:
    return _parameter("query", name, schema, text, example)


def in_header(name: str, schema: Json, text: str, example: str) -> Json:
    return _parameter("header", name, schema, text, example)


def _parameter(
    where: str, name: str, schema: Json, text: str, example: Any, *, required: bool = False
) -> Json:
    return {
        "in": where,
        "name": name,
        "required": required,
        "schema": schema,
        "description": text,
        "example": example,
    }
