"""As much of an HTTP client as a bench needs: one request, one connection, a deadline."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back. `headers` by lower-case name."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return orjson.loads(self.body)


async def get(port: int, path: str, *, within: float = 6.0) -> Answer:
    """Raises what `exchange` raises."""
    return await exchange(port, _head("GET", path, {}), within=within)


async def post(
    port: int,
    path: str,
    body: Any,
    *,
    headers: Mapping[str, str] | None = None,
    within: float = 6.0,
) -> Answer:
    """`body`: bytes as they are, anything else as JSON. Raises what `exchange` raises."""
    encoded = body if isinstance(body, bytes) else orjson.dumps(body)
    sent = {"Content-Type": "application/json", **(headers or {})}
    sent["Content-Length"] = str(len(encoded))
    return await exchange(port, _head("POST", path, sent) + encoded, within=within)


def _head(method: str, path: str, headers: Mapping[str, str]) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


async def exchange(port: int, request: bytes, *, within: float = 6.0) -> Answer:
    """Sends bytes and reads an answer.

    Raises:
        OSError, EOFError (asyncio.IncompleteReadError), TimeoutError: none came.
        ValueError: what came is no answer.
    """
    async with asyncio.timeout(within):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(request)
            return await _read(reader)
        finally:
            writer.close()


async def _read(reader: asyncio.StreamReader) -> Answer:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError as error:
        raise ValueError("a head without an end") from error
    first, *lines = head.decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in lines if line)
    headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Answer(int(first.split()[1]), headers, body)
