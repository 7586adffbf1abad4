"""Answers held against the document: the status, the media type, the headers and the body."""

import re
from collections.abc import Mapping
from typing import Any

import orjson
from jsonschema import Draft202012Validator, FormatChecker

from tests.support.client import Address, Answer

# What is there in some answers of a status only.
SOMETIMES = ("Idempotent-Replayed", "Retry-After")


class Described:
    """Checks answers, and remembers which of those that the document tells of have been seen."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document
        self.seen: set[tuple[str, str, str]] = set()

    @property
    def told(self) -> set[tuple[str, str, str]]:
        """Method, path and status of each answer that the document tells of."""
        return {
            (method, path, status)
            for path, methods in self.document["paths"].items()
            for method, operation in methods.items()
            for status in operation["responses"]
        }

    def check(self, method: str, url: str, answer: Answer) -> None:
        path = self._path_of(url.partition("?")[0])
        operation = self.document["paths"][path][method.lower()]
        told = operation["responses"].get(str(answer.status))
        assert told is not None, f"{method} {path} answers {answer.status}: {answer.body[:300]!r}"
        media_type = answer.headers.get("Content-Type", "").partition(";")[0]
        for name in told["headers"]:
            assert name in answer.headers or name in SOMETIMES, (method, path, name)
        if answer.body:
            self._check_body(told["content"][media_type].get("schema"), answer.body, media_type)
        if media_type == "application/problem+json" and answer.status in (429, 503):
            assert int(answer.headers["Retry-After"]) >= 1
        self.seen.add((method.lower(), path, str(answer.status)))

    def _path_of(self, url: str) -> str:
        paths = [
            path
            for path in self.document["paths"]
            if re.fullmatch(re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(path)), url)
        ]
        assert len(paths) == 1, (url, paths)
        return str(paths[0])

    def _check_body(self, schema: Mapping[str, Any] | None, body: bytes, media_type: str) -> None:
        if schema is not None and media_type.endswith("json"):
            self.validate(schema, orjson.loads(body))

    def validate(self, schema: Mapping[str, Any], value: Any) -> None:
        """Raises jsonschema's ValidationError."""
        rooted = {**schema, "components": self.document["components"]}
        Draft202012Validator(rooted, format_checker=FormatChecker()).validate(value)


class Asking:
    """Asks a service, and holds each answer against the document."""

    def __init__(self, service: Address, described: Described, **headers: str) -> None:
        self._service = service
        self._described = described
        self._headers = headers

    async def __call__(
        self, status: int, method: str, url: str, body: Any = None, **headers: str
    ) -> Answer:
        content = body if isinstance(body, bytes | None) else orjson.dumps(body)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if content is not None:
            named.setdefault("Content-Type", "application/json")
        answer = await self._service.request(method, url, content, {**self._headers, **named})
        assert answer.status == status, (method, url, answer.status, answer.body[:300])
        self._described.check(method, url, answer)
        return answer
