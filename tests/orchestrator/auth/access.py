"""Callers of each kind, what they ask, and how each is to be answered."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import orjson

from tests.support.callers import OPERATOR_KEY, bearer, token
from tests.support.client import Answer
from tests.support.fake_executor import FakeExecutor
from tests.support.raw import raw_socket
from tests.support.service import RunningProcess

# --- Callers --------------------------------------------------------------------------------

CALLERS: dict[str, Callable[[], dict[str, str]]] = {
    "owner": lambda: bearer(token()),
    "colleague": lambda: bearer(token(user="bob")),
    "chat_only": lambda: bearer(token(scope="chat")),
    "push_only": lambda: bearer(token(scope="push")),
    "bound_within": lambda: bearer(token(sessions=["s-1", "s-2"])),
    "bound_elsewhere": lambda: bearer(token(session_id="s-elsewhere")),
    "stranger": lambda: bearer(token("globex", "mallory")),
    "without_scope": lambda: bearer(token(scope="read openid")),
    "admin": lambda: bearer(token(user="root", scope="admin")),
    "bound_admin": lambda: bearer(token(user="root", scope="admin", sessions=["s-elsewhere"])),
    "foreign_admin": lambda: bearer(token("globex", "root", "admin")),
    "operator": lambda: {"X-API-Key": OPERATOR_KEY},
    "operator_by_bearer": lambda: bearer(OPERATOR_KEY),
    "nobody": dict,
    "garbage": lambda: bearer("to.ke.n"),
    "unknown_key": lambda: {"X-API-Key": "guessed"},
    "expired": lambda: bearer(token(scope="chat push admin", expires_in=-1)),
    "forged": lambda: bearer(token()[:-8] + "AAAAAAAA"),
}
UNKNOWN = ("nobody", "garbage", "unknown_key", "expired", "forged")
OPERATORS = ("operator", "operator_by_bearer")


def statuses(good: int, foreign: int, elsewhere: int, scope: str = "chat") -> dict[str, int]:
    """Of an address that asks for a scope, and is about session s-1 of acme."""
    return {
        "chat_only": good if scope == "chat" else 403,
        "push_only": good if scope == "push" else 403,
        **dict.fromkeys(("owner", "colleague", "bound_within", "admin", *OPERATORS), good),
        **dict.fromkeys(("stranger", "foreign_admin"), foreign),
        **dict.fromkeys(("bound_elsewhere", "bound_admin"), elsewhere),
        "without_scope": 403,
        **dict.fromkeys(UNKNOWN, 401),
    }


def for_operators(good: int, foreign: int, elsewhere: int) -> dict[str, int]:
    """Of an address that asks for `admin`."""
    of_acme = ("owner", "colleague", "chat_only", "push_only", "bound_within", "bound_elsewhere")
    return {
        **dict.fromkeys((*of_acme, "stranger", "without_scope"), 403),
        **dict.fromkeys(("admin", *OPERATORS), good),
        "foreign_admin": foreign,
        "bound_admin": elsewhere,
        **dict.fromkeys(UNKNOWN, 401),
    }


OPEN = dict.fromkeys(CALLERS, 200)
HERE = for_operators(200, 200, 200)  # about this process, and of no tenant


# --- What is asked --------------------------------------------------------------------------


@dataclass
class World:
    """An instance, and a task of s-1 of acme that waits for a worker."""

    instance: RunningProcess
    executor: FakeExecutor
    who: dict[str, str] = field(default_factory=dict)

    async def ask(self, method: str, path: str, body: Any = None) -> Answer:
        content = None if body is None else orjson.dumps(body)
        headers = {"Content-Type": "application/json", "X-Request-ID": "r-1", **self.who}
        return await self.instance.request(method, path, content, headers)

    async def begin(self, path: str, *lines: str) -> int:
        """The status of an answer that may never end."""
        shown = [f"{name}: {value}" for name, value in self.who.items()]
        async with raw_socket(self.instance.port) as raw:
            head = "\r\n".join((f"GET {path} HTTP/1.1", "Host: x", *shown, *lines, "", ""))
            await raw.write(head.encode())
            async with asyncio.timeout(10):
                return int((await raw.reader.readline()).split()[1])

    async def task(self) -> str:
        """A task of s-1 of acme."""
        body = {**SESSION, "agent_id": "echo", "message": "hello", "if_busy": "parallel"}
        sent = await self.instance.post("/api/chat/send", body, **bearer(token()))
        assert sent.status == 202, sent
        task_id: str = sent.json["task_id"]
        return task_id

    async def letter(self, queue: str) -> str:
        """A dead letter of s-1 of acme."""
        action = {**SESSION, "agent_id": "echo", "message": "hello", "timeout": 5}
        fields = {"task_id": secrets.token_hex(8)}
        if queue == "execute":
            fields["action"] = orjson.dumps(action).decode()
        else:
            fields |= {**SESSION, "type": "nonsense"}
        about = {"reason": "attempts", "stream": f"{self.executor.prefix}x", "entry_id": "1-0"}
        key = f"{self.executor.prefix}dead:{queue}"
        added: bytes = await self.executor.redis.xadd(key, {**about, **fields})
        return added.decode()


SESSION = {"tenant_id": "acme", "session_id": "s-1"}
UPGRADE = (
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)

Ask = Callable[[World], Awaitable[int]]


def get(path: str) -> Ask:
    async def ask(world: World) -> int:
        return (await world.ask("GET", path)).status

    return ask


def post(path: str, **body: Any) -> Ask:
    async def ask(world: World) -> int:
        return (await world.ask("POST", path, body)).status

    return ask


def of_task(path: str) -> Ask:
    async def ask(world: World) -> int:
        body = {"tenant_id": "acme", "task_id": await world.task()}
        return (await world.ask("POST", path, body)).status

    return ask


def of_letter(method: str, path: str, queue: str) -> Ask:
    async def ask(world: World) -> int:
        letter = await world.letter(queue)
        return (await world.ask(method, path.format(letter))).status

    return ask


def stream(path: str) -> Ask:
    return lambda world: world.begin(path, "Accept: text/event-stream")


def upgrade(path: str) -> Ask:
    return lambda world: world.begin(path, *UPGRADE)


@dataclass(frozen=True)
class Row:
    """One thing to ask of a route, and how each caller is answered."""

    route: str
    name: str
    ask: Ask
    expected: dict[str, int]


PREFIX = f"matrix-{secrets.token_hex(4)}:"

EVENTS = "/api/sessions/acme/s-1/events"
TEXT: dict[str, Any] = {"agent_id": "echo", "message": "hello", "if_busy": "parallel"}
PUSH = {"tenant_id": "acme", "message_data": {"a": 1}}
LETTERS, LETTER = r"/dead-letters/([^/]+)", r"/dead-letters/([^/]+)/([^/]+)"
