"""Requests made from the OpenAPI document: allowed, wrong somewhere, and hardly HTTP."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from benchmarks.rig.mutations import NASTY_TEXTS, Json, Mutator

WRONG_TYPES = (
    "text/plain",
    "application/xml",
    "application/json; charset=utf-16",
    "",
    "a/b/c",
    "json",
)
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD", "TRACE", "BREW")
UPGRADE = "/ws/{tenant_id}/{session_id}"


@dataclass(frozen=True, slots=True)
class Request:
    """`operation` is that of the document, where the request is meant for one."""

    method: str
    operation: Json | None
    data: bytes


class RestInputs:
    """Makes requests from a document."""

    def __init__(self, mutator: Mutator, document: Json) -> None:
        self._mutator = mutator
        self._dice = mutator.dice
        self._schemas = document["components"]["schemas"]
        self._operations = [
            (path, method, operation)
            for path, methods in document["paths"].items()
            for method, operation in methods.items()
            if path != UPGRADE
        ]
        self.spoken: dict[str, Callable[[], Request]] = {
            "a request that is allowed": lambda: self._request(0.0),
            "a request with something wrong": lambda: self._request(0.5),
            "a request of any method": self._any_method,
        }
        self.broken: dict[str, Callable[[], Request]] = {
            "garbled bytes of requests": self._garbled,
        }

    def _request(self, wrong: float) -> Request:
        path, method, operation = self._dice.choice(self._operations)
        body = self._body(operation, wrong)
        return Request(
            method.upper(),
            operation,
            self._bytes(method.upper(), self._url(path, operation, wrong), body, operation, wrong),
        )

    def _any_method(self) -> Request:
        path, _, operation = self._dice.choice(self._operations)
        method = self._dice.choice(METHODS)
        body = b"{}" if self._mutator.chance(0.5) else None
        return Request(method, None, self._bytes(method, self._url(path, operation, 0.1), body))

    def _garbled(self) -> Request:
        made = self._request(0.2)
        return Request(made.method, None, self._mutator.garbled(made.data))

    def _url(self, path: str, operation: Json, wrong: float) -> str:
        query = []
        for parameter in operation["parameters"]:
            value = self._value(parameter["schema"], wrong)
            if parameter["in"] == "path":
                path = path.replace(f"{{{parameter['name']}}}", value or "x")
            elif parameter["in"] == "query" and self._mutator.chance(0.5):
                query.append(f"{parameter['name']}={value}")
        if self._mutator.chance(wrong / 4):
            query.append(f"{self._mutator.text()}={quote(self._dice.choice(NASTY_TEXTS[:-1]))}")
        return path + ("?" + "&".join(query) if query else "")

    def _value(self, schema: Json, wrong: float) -> str:
        if self._mutator.chance(wrong / 3):
            return self._dice.choice(
                (quote(self._dice.choice(NASTY_TEXTS[:-1]), safe=""), "%ff", "%00")
            )
        value = self._mutator.of({**schema, "type": schema.get("type", "string")})
        if "pattern" in schema and "-[0-9]" in schema["pattern"]:
            value = f"{self._dice.randrange(2**65)}-{self._dice.randrange(3)}"
        return quote(str(value), safe="")

    def _body(self, operation: Json, wrong: float) -> bytes | None:
        if "requestBody" not in operation:
            return (
                self._mutator.encoded(self._mutator.json())
                if self._mutator.chance(wrong / 4)
                else None
            )
        reference = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]
        value: Any = self._mutator.of(self._schemas[reference.rpartition("/")[2]])
        if not wrong:
            return self._mutator.encoded(value)
        if self._mutator.chance(wrong):
            value = self._mutator.broken(value)
        if self._mutator.chance(wrong / 5):
            value = self._mutator.json()
        text = self._mutator.encoded(value)
        return self._mutator.garbled(text) if self._mutator.chance(wrong / 3) else text

    def _bytes(
        self,
        method: str,
        url: str,
        body: bytes | None,
        operation: Json | None = None,
        wrong: float = 0.0,
    ) -> bytes:
        lines = [f"{method} {url} HTTP/1.1", "Host: localhost"]
        for parameter in (operation or {}).get("parameters", ()):
            if parameter["in"] == "header" and self._mutator.chance(0.3):
                lines.append(f"{parameter['name']}: {self._header(parameter, wrong)}")
        if body is not None:
            kind = (
                self._dice.choice(WRONG_TYPES)
                if self._mutator.chance(wrong / 5)
                else "application/json"
            )
            lines.append(f"Content-Type: {kind}")
        if body is not None or method in ("POST", "PUT", "PATCH"):
            lines.append(f"Content-Length: {len(body or b'')}")
        return "\r\n".join((*lines, "", "")).encode("latin-1", "replace") + (body or b"")

    def _header(self, parameter: Mapping[str, Any], wrong: float) -> str:
        if self._mutator.chance(wrong):
            text = self._dice.choice(NASTY_TEXTS[:-1])
            return "".join(each for each in text if each not in "\r\n\x00")
        return str(parameter["example"])
