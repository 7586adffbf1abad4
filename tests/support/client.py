"""How a test speaks to an orchestrator, wherever it runs: as clients do, by HTTP and WebSocket."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import orjson
from tornado.httpclient import AsyncHTTPClient, HTTPRequest
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as connect_websocket
from websockets.exceptions import ConnectionClosed

from tests.support import canary

WITHIN = 15.0  # seconds; what should happen happens in a fraction of one
TERMINAL = ("completed", "failed", "cancelled", "timeout")

Frame = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer over HTTP."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)

    @property
    def code(self) -> str:
        """The code of a problem."""
        assert self.headers["Content-Type"] == "application/problem+json", self
        code: str = self.json["code"]
        return code


class Address:
    """Where an instance listens, and how to speak to it."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.address = f"http://127.0.0.1:{port}"

    async def request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Any status is an answer; redirects are not followed."""
        client = AsyncHTTPClient(force_instance=True, defaults={"user_agent": "tests"})
        try:
            response = await client.fetch(
                HTTPRequest(
                    self.address + path,
                    method=method,
                    body=body,
                    headers=dict(headers or {}),
                    follow_redirects=False,
                    allow_nonstandard_methods=True,
                    request_timeout=WITHIN,
                ),
                raise_error=False,
            )
        finally:
            client.close()
        if response.code == 599:
            raise response.error or ConnectionError(path)
        canary.look_at_answer(path, response.code, response.headers, response.body)
        return Answer(response.code, response.headers, response.body)

    async def get(self, path: str, **headers: str) -> Answer:
        return await self.request("GET", path, headers=_header_names(headers))

    async def post(self, path: str, body: Any, **headers: str) -> Answer:
        """Posts a value as JSON, or bytes as they are. `Idempotency_Key="k"` is a header."""
        content = body if isinstance(body, bytes) else orjson.dumps(body)
        named = {"Content-Type": "application/json", **_header_names(headers)}
        return await self.request("POST", path, content, named)

    async def send(
        self, session: str = "acme/s-1", message: str = "hello", key: str = "", **fields: Any
    ) -> Answer:
        """`POST /api/chat/send` to `tenant/session`."""
        tenant_id, session_id = session.split("/")
        body = {
            "tenant_id": tenant_id,
            "session_id": session_id,
            "agent_id": "echo",
            "message": message,
            **fields,
        }
        return await self.post("/api/chat/send", body, **({"Idempotency_Key": key} if key else {}))

    async def status(self, task_id: str, tenant_id: str = "acme") -> dict[str, Any]:
        answer = await self.post("/api/chat/status", {"tenant_id": tenant_id, "task_id": task_id})
        assert answer.status == 200, answer
        task: dict[str, Any] = answer.json
        return task

    async def task_ended(self, task_id: str, tenant_id: str = "acme") -> dict[str, Any]:
        """The task's status once it is terminal. A session's frames would tell the same."""
        async with asyncio.timeout(WITHIN):
            while (task := await self.status(task_id, tenant_id))["status"] not in TERMINAL:
                await asyncio.sleep(0.02)
        return task

    async def events(self, session: str = "acme/s-1", **query: Any) -> dict[str, Any]:
        answer = await self.get(f"/api/sessions/{session}/events?{urlencode(query)}")
        assert answer.status == 200, answer
        page: dict[str, Any] = answer.json
        return page

    @contextlib.asynccontextmanager
    async def connect(
        self, session: str = "acme/s-1", options: Mapping[str, Any] | None = None, **query: Any
    ) -> AsyncIterator[ClientConnection]:
        """A WebSocket of `tenant/session`; `options` are those of the websockets package."""
        asked = f"?{urlencode(query)}" if query else ""
        async with connect_websocket(
            f"ws://127.0.0.1:{self.port}/ws/{session}{asked}",
            **{"proxy": None, "ping_interval": None, "max_size": None, **(options or {})},
        ) as socket:
            yield socket

    async def ready(self, within: float = WITHIN) -> None:
        """Returns once the instance says that it is ready."""
        async with asyncio.timeout(within):
            while True:
                with contextlib.suppress(OSError):
                    if (await self.get("/health/ready")).status == 200:
                        return
                await asyncio.sleep(0.05)


def _header_names(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}


# --- Frames ---------------------------------------------------------------------------------


async def next_frame(socket: ClientConnection, within: float = WITHIN) -> Frame:
    async with asyncio.timeout(within):
        frame: Frame = orjson.loads(await socket.recv())
    return frame


async def frames_until(socket: ClientConnection, type_: str, within: float = WITHIN) -> list[Frame]:
    """All frames up to the first of that type, which is the last of them."""
    frames: list[Frame] = []
    async with asyncio.timeout(within):
        while not frames or frames[-1]["type"] != type_:
            frames.append(orjson.loads(await socket.recv()))
    return frames


async def say(socket: ClientConnection, type_: str, id_: str | None = None, **data: Any) -> None:
    """Sends a client frame."""
    frame = {"type": type_, "data": data} | ({} if id_ is None else {"id": id_})
    await socket.send(orjson.dumps(frame).decode())


async def close_code(socket: ClientConnection, within: float = WITHIN) -> int | None:
    """The code that the server closes with; frames that come before are read away."""
    async with asyncio.timeout(within):
        with contextlib.suppress(ConnectionClosed):
            while True:
                await socket.recv()
    return socket.close_code
