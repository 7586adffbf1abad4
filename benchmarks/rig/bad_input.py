"""A stream of bad input beside the load: none of it may do anything to anybody."""

import asyncio
import contextlib
import random
import secrets
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import orjson
from redis import exceptions
from redis.asyncio import Redis
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from benchmarks.rig import http
from benchmarks.rig.checker import BAD_INPUT
from benchmarks.rig.clients import NO_CONNECTION
from benchmarks.rig.records import Journal
from benchmarks.rig.talk import NO_ANSWER, Session

FRAMES = 15  # bad ones in a row of one connection; at 20 it is closed
STRANGER = "intruder"

Kind = Callable[[], Awaitable[None]]


class BadInput:
    """Seeded. Every answer is written down; what is sent to no one in particular counts as 0."""

    def __init__(
        self,
        folder: Path,
        ports: Sequence[int],
        redis_port: int,
        prefix: str,
        sessions: Sequence[Session],
        dice: random.Random,
    ) -> None:
        self.tried = 0
        self._ports = ports
        self._sessions = sessions
        self._dice = dice
        self._prefix = prefix
        self._redis = Redis(port=redis_port, socket_timeout=5.0)
        self._journal = Journal(folder / BAD_INPUT)

    async def run(self, until: asyncio.Event, pause: float = 0.05) -> None:
        often, rarely = (
            [self._body, self._body, self._foreign, self._bytes],
            [self._frames, self._stream],
        )
        kinds: list[Kind] = [*often, *often, *rarely]
        while not until.is_set():
            with contextlib.suppress(exceptions.RedisError):
                await self._dice.choice(kinds)()
            await asyncio.sleep(pause * self._dice.uniform(0.5, 1.5))

    async def close(self) -> None:
        await self._redis.aclose()
        self._journal.close()

    def _note(self, kind: str, status: int, count: int = 1, **facts: Any) -> None:
        self.tried += count
        self._journal.write(kind=kind, status=status, count=count, **facts)

    async def _body(self) -> None:
        """A request that says something wrong."""
        path = self._dice.choice(("/api/chat/send", "/api/chat/status", "/api/chat/cancel"))
        name, body = self._dice.choice(_bodies())
        try:
            answer = await http.post(self._dice.choice(self._ports), path, body)
        except NO_ANSWER:
            return self._note(name, 0)
        return self._note(f"{path} {name}", answer.status)

    async def _bytes(self) -> None:
        """What is hardly HTTP, or asks for what is not there."""
        name, request = self._dice.choice(_requests(self._dice))
        try:
            answer = await http.exchange(self._dice.choice(self._ports), request, within=3.0)
        except (*NO_ANSWER, ConnectionClosed):
            return self._note(name, 0)
        return self._note(name, answer.status)

    async def _foreign(self) -> None:
        """Another tenant's task: asked for, and to be cancelled."""
        tasks = list(self._dice.choice(self._sessions).accepted)
        if not tasks:
            return
        body = {"tenant_id": STRANGER, "task_id": self._dice.choice(tasks)}
        path = self._dice.choice(("/api/chat/status", "/api/chat/cancel"))
        try:
            answer = await http.post(self._dice.choice(self._ports), path, body)
        except NO_ANSWER:
            return
        self._note(f"foreign {path}", answer.status, foreign=True)

    async def _frames(self) -> None:
        """A connection that sends nothing but rubbish; it is closed, or it is left."""
        url = f"ws://127.0.0.1:{self._dice.choice(self._ports)}/ws/{STRANGER}/rubbish"
        count = 0
        try:
            async with asyncio.timeout(5.0):
                async with connect(url, compression=None, proxy=None) as socket:
                    for _ in range(FRAMES):
                        count += 1
                        await socket.send(self._frame())
                    await socket.recv()
        except (ConnectionClosed, *NO_CONNECTION):
            pass
        self._note("frames", 0, count)

    def _frame(self) -> str | bytes:
        dice = self._dice
        good = {"type": "chat.send_message", "id": "x", "data": {"agent_id": "bench"}}
        text = orjson.dumps(good)
        cut = dice.randrange(len(text))
        mutated = text[:cut] + bytes([dice.randrange(32, 127)]) + text[cut + 1 :]
        tasks = list(dice.choice(self._sessions).accepted) or ["none"]
        theirs = {"type": "chat.cancel_task", "id": "y", "data": {"task_id": dice.choice(tasks)}}
        choices: list[str | bytes] = [secrets.token_bytes(dice.randrange(1, 200))]
        choices += [mutated.decode(), "[" * 2000, "null", '{"type":"no.such"}', '{"type":[]}']
        return dice.choice([*choices, orjson.dumps(theirs).decode()])

    async def _stream(self) -> None:
        """Rubbish where other services add actions."""
        name = f"{self._prefix}actions"
        fields = self._dice.choice(
            [
                {"action": "{"},
                {"rubbish": secrets.token_hex(8)},
                {"action": '{"action_type":"websocket.send_message","session_id":"x"}'},
                {"action": b"\xff\xfe" * 50},
            ]
        )
        await self._redis.xadd(name, fields)  # type: ignore[arg-type]
        self._note("rubbish in the stream of actions", 0)


def _bodies() -> list[tuple[str, Any]]:
    """Bodies that nobody may take, whichever of the three they are for."""
    right = {"tenant_id": STRANGER, "session_id": "s", "agent_id": "bench", "message": "m"}
    return [
        ("no JSON", b'{"tenant_id":'),
        ("not UTF-8", b'{"message":"\xff\xfe"}'),
        ("no object", ["tenant_id"]),
        ("nothing", b""),
        ("NaN", b'{"timeout":NaN}'),
        ("deep", b"[" * 5000),
        ("deep object", b'{"a":' * 100 + b"1" + b"}" * 100),
        ("unknown field", {**right, "task_id": "x", "surprise": 1}),
        ("bad ids", {**right, "tenant_id": "a:b{c}", "task_id": "x"}),
        ("control characters", {**right, "session_id": "a\r\nb\u0000", "task_id": 7}),
        ("wrong types", {"tenant_id": 1, "session_id": [], "message": {}, "task_id": None}),
        ("lone surrogate", b'{"tenant_id":"t","task_id":"\\ud800"}'),
        ("too long", {**right, "message": "x" * 70_000, "task_id": "x" * 300}),
        ("too large", b'{"message":"' + b"x" * 1_100_000 + b'"}'),
    ]


def _requests(dice: random.Random) -> list[tuple[str, bytes]]:
    end = b"Host: x\r\nConnection: close\r\n\r\n"
    return [
        ("noise", secrets.token_bytes(dice.randrange(1, 500)) + b"\r\n\r\n"),
        ("no such path", b"GET /api/nothing HTTP/1.1\r\n" + end),
        ("wrong method", b"DELETE /api/chat/send HTTP/1.1\r\n" + end),
        ("bad offset", b"GET /api/sessions/t/s/events?offset=-1 HTTP/1.1\r\n" + end),
        ("no upgrade", b"GET /ws/t/s HTTP/1.1\r\n" + end),
        (
            "two lengths",
            b"POST /api/chat/send HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n" + end,
        ),
        ("long header", b"GET /health HTTP/1.1\r\nX: " + b"x" * 70_000 + b"\r\n" + end),
    ]
