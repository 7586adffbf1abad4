"""Who may do what: every caller at every address, from the route table (S9, S17).

A route without a row here fails the first test.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest

from orchestrator.auth.caller import Access
from orchestrator.http.base import NotFoundHandler
from orchestrator.routes import routes
from tests.support.callers import AUTH, OPERATOR_KEY, bearer, token
from tests.support.raw import raw_socket
from tests.support.redis_server import RedisServer
from tests.support.service import (
    Answer,
    FakeExecutor,
    RunningProcess,
    next_frame,
    process_service,
    running_service,
)

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


EVENTS = "/api/sessions/acme/s-1/events"
TEXT: dict[str, Any] = {"agent_id": "echo", "message": "hello", "if_busy": "parallel"}
PUSH = {"tenant_id": "acme", "message_data": {"a": 1}}
LETTERS, LETTER = r"/dead-letters/([^/]+)", r"/dead-letters/([^/]+)/([^/]+)"
ROWS = [
    Row("/api/chat/send", "", post("/api/chat/send", **SESSION, **TEXT), statuses(202, 403, 403)),
    Row("/api/chat/status", "", of_task("/api/chat/status"), statuses(200, 404, 404)),
    Row("/api/chat/cancel", "", of_task("/api/chat/cancel"), statuses(200, 404, 404)),
    Row(r"/api/sessions/([^/]+)/([^/]+)/events", "json", get(EVENTS), statuses(200, 403, 403)),
    Row(r"/api/sessions/([^/]+)/([^/]+)/events", "sse", stream(EVENTS), statuses(200, 403, 403)),
    Row(r"/ws/([^/]+)/([^/]+)", "", upgrade("/ws/acme/s-1"), statuses(101, 403, 403)),
    Row(
        "/api/ws/send",
        "",
        post("/api/ws/send", **PUSH, session_id="s-1"),
        statuses(202, 403, 403, "push"),
    ),
    Row(
        "/api/ws/broadcast",
        "to_all",
        post("/api/ws/broadcast", **PUSH),
        {**statuses(202, 403, 403, "push"), "bound_within": 403},
    ),
    Row(
        "/api/ws/broadcast",
        "to_some",
        post("/api/ws/broadcast", **PUSH, target_sessions=["s-1", "s-2"]),
        statuses(202, 403, 403, "push"),
    ),
    Row("/health", "", get("/health"), OPEN),
    Row("/health/ready", "", get("/health/ready"), OPEN),
    Row("/health/detailed", "", get("/health/detailed"), HERE),
    Row("/ws/stats", "", get("/ws/stats"), HERE),
    Row("/metrics", "", get("/metrics"), HERE),
    Row("/actors", "", get("/actors"), HERE),
    Row("/actors/supervision", "", get("/actors/supervision"), HERE),
    *(
        Row(LETTERS, queue, get(f"/dead-letters/{queue}"), HERE)
        for queue in ("execute", "callbacks")
    ),
    *(
        Row(
            LETTER,
            queue,
            of_letter("DELETE", f"/dead-letters/{queue}/{{}}", queue),
            for_operators(204, 404, 404),
        )
        for queue in ("execute", "callbacks")
    ),
    *(
        Row(
            rf"{LETTER}/requeue",
            queue,
            of_letter("POST", f"/dead-letters/{queue}/{{}}/requeue", queue),
            for_operators(202, 404, 404),
        )
        for queue in ("execute", "callbacks")
    ),
    Row(r"/usage/([^/]+)", "", get("/usage/acme"), for_operators(200, 403, 403)),
    Row(r"/openapi\.json", "", get("/openapi.json"), OPEN),
    Row("/", "", get("/"), OPEN),
    Row(r"/page/([^/]+)", "", get("/page/page.js"), OPEN),
    Row(r"/client/([^/]+)", "", get("/client/link.js"), OPEN),
    Row("anything else", "", get("/favicon.ico"), for_operators(404, 404, 404)),
    Row("anything else", "below_api", get("/api/nothing"), for_operators(404, 404, 404)),
]


PREFIX = f"matrix-{secrets.token_hex(4)}:"

# --- The tests ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shared(redis_server: RedisServer) -> Iterator[RunningProcess]:
    loop = asyncio.new_event_loop()
    starting = process_service(redis_server.url, PREFIX, auth=AUTH)
    yield loop.run_until_complete(starting.__aenter__())
    loop.run_until_complete(starting.__aexit__(None, None, None))
    loop.close()


async def test_every_route_has_its_row_and_says_what_it_asks_for(
    redis_server: RedisServer, prefix: str
) -> None:
    async with running_service(redis_server.url, prefix) as service:
        rules = [rule for rule in routes(service.service.app) if isinstance(rule, tuple)]
    assert {str(rule[0]) for rule in rules} | {"anything else"} == {row.route for row in ROWS}
    asked = {str(rule[0]): vars(rule[1])["access"] for rule in rules}
    asked["anything else"] = vars(NotFoundHandler)["access"]
    for row in ROWS:
        expects_open = set(row.expected.values()) == {200}
        assert (asked[row.route] is Access.OPEN) == expects_open, row.route
        assert row.expected.keys() == CALLERS.keys()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.route} {row.name}".strip())
async def test_each_caller_is_answered_as_it_may_be(
    row: Row, shared: RunningProcess, redis_server: RedisServer
) -> None:
    async with FakeExecutor(redis_server.url, PREFIX) as executor:
        answered = {
            name: await row.ask(World(shared, executor, show())) for name, show in CALLERS.items()
        }
    assert answered == row.expected


async def test_what_is_foreign_looks_like_what_does_not_exist(
    shared: RunningProcess, redis_server: RedisServer
) -> None:
    async with FakeExecutor(redis_server.url, PREFIX) as executor:
        for caller in ("stranger", "bound_elsewhere", "foreign_admin", "bound_admin"):
            world = World(shared, executor, CALLERS[caller]())
            for path in ("/api/chat/status", "/api/chat/cancel"):
                there = {"tenant_id": "acme", "task_id": await world.task()}
                nowhere = {"tenant_id": "acme", "task_id": "no-such-task"}
                answers = [await world.ask("POST", path, body) for body in (there, nowhere)]
                if not caller.startswith("bound"):  # nor does asking as one's own help
                    own = {**there, "tenant_id": "globex"}
                    answers.append(await world.ask("POST", path, own))
                assert len({told(answer) for answer in answers}) == 1, answers
                assert answers[0].code == "task_not_found"
        for caller in ("foreign_admin", "bound_admin"):
            world = World(shared, executor, CALLERS[caller]())
            for queue in ("execute", "callbacks"):
                letter = await world.letter(queue)
                for method, rest in (("DELETE", ""), ("POST", "/requeue")):
                    address = f"/dead-letters/{queue}"
                    foreign = await world.ask(method, f"{address}/{letter}{rest}")
                    missing = await world.ask(method, f"{address}/1-1{rest}")
                    assert told(foreign) == told(missing)
                    assert foreign.status == 404


def told(answer: Answer) -> tuple[Any, ...]:
    """All of an answer but the time of day."""
    headers = sorted((name, value) for name, value in answer.headers.items() if name != "Date")
    return answer.status, tuple(headers), answer.body


async def test_an_operator_of_a_tenant_sees_its_letters_and_connections_only(
    shared: RunningProcess, redis_server: RedisServer
) -> None:
    async with (
        FakeExecutor(redis_server.url, PREFIX) as executor,
        shared.connect("acme/s-1", {"additional_headers": bearer(token())}) as here,
        shared.connect("globex/s-1", {"additional_headers": bearer(token("globex"))}) as there,
    ):
        for socket in (here, there):
            assert (await next_frame(socket))["type"] == "connection_ack"
        letter = await World(shared, executor).letter("callbacks")
        key = f"{PREFIX}dead:callbacks"
        unsure = {
            "reason": "mismatch", "stream": "x", "entry_id": "1-0", **SESSION, "task_id": "t",
        }  # fmt: skip
        nobodys = await executor.redis.xadd(key, unsure)
        for number in range(250):  # so many of others that one page of reading is not enough
            about = {"reason": "unreadable", "stream": "x", "entry_id": f"{number}-0"}
            await executor.redis.xadd(key, {**about, "tenant_id": "globex", "session_id": "s"})
        for caller, sees, connections in (
            ("admin", {letter}, {"acme"}),
            ("bound_admin", set(), set()),
            ("foreign_admin", set(), {"globex"}),
            ("operator", {letter, nobodys.decode()}, {"acme", "globex"}),
        ):
            world = World(shared, executor, CALLERS[caller]())
            items = (await world.ask("GET", "/dead-letters/callbacks?limit=1000")).json["items"]
            assert {letter, nobodys.decode()} & {item["id"] for item in items} == sees
            stats = (await world.ask("GET", "/ws/stats")).json["instance"]["by_tenant"]
            assert stats.keys() == connections
        world = World(shared, executor, CALLERS["admin"]())
        items = (await world.ask("GET", "/dead-letters/callbacks?limit=1")).json["items"]
        assert [item["id"] for item in items] == [letter]


async def test_a_refusal_says_what_to_do_and_nothing_else(shared: RunningProcess) -> None:
    shown = token(expires_in=-1)
    refused = await shared.post("/api/chat/status", {"tenant_id": "acme"}, **bearer(shown))
    assert (refused.status, refused.code) == (401, "unauthorized")
    assert refused.headers["WWW-Authenticate"] == "Bearer"
    assert shown not in str(refused)
    forbidden = await shared.get("/actors", **bearer(token()))
    assert (forbidden.status, forbidden.code) == (403, "forbidden")
    assert "WWW-Authenticate" not in forbidden.headers


async def test_who_calls_is_asked_before_what_is_asked_for(shared: RunningProcess) -> None:
    for method in ("GET", "PUT", "DELETE", "OPTIONS", "HEAD"):
        assert (await shared.request(method, "/api/chat/send")).status == 401
        allowed = await shared.request(method, "/api/chat/send", headers=bearer(token()))
        assert (allowed.status, allowed.headers["Allow"]) == (405, "POST")
        assert (await shared.request(method, "/api/nothing")).status == 401
    assert (await shared.post("/health", {})).status == 405
    assert (await shared.post("/api/chat/send", b"{")).status == 401
    assert (await shared.get("/ws/acme/s-1")).status == 401  # no upgrade, and nobody
    assert (await shared.get("/ws/acme/s-1", **bearer(token()))).status == 400


async def test_a_refused_request_leaves_its_connection_usable(shared: RunningProcess) -> None:
    async with raw_socket(shared.port) as raw:
        for _ in range(3):
            answer = await raw.request("POST", "/api/chat/send", ["Content-Length: 2"], b"{}")
            assert answer.status == 401
        shown = f"Authorization: Bearer {token()}"
        answer = await raw.request("POST", "/api/chat/send", ["Content-Length: 2", shown], b"{}")
        assert answer.status == 422


@pytest.mark.parametrize(
    "lines",
    [
        ["Content-Length: 100000000"],
        ["Content-Length: 5", "Expect: 100-continue"],
        ["Transfer-Encoding: chunked"],
    ],
)
async def test_a_body_that_may_be_long_is_not_read_from_nobody(
    shared: RunningProcess, lines: list[str]
) -> None:
    async with raw_socket(shared.port) as raw:
        assert (await raw.request("POST", "/api/chat/send", lines)).status == 401
        assert await raw.ended()


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/chat/send", {**SESSION, **TEXT}),
        ("/api/ws/send", {**SESSION, "message_data": {}}),
        ("/api/ws/broadcast", PUSH),
    ],
)
async def test_nobody_acts_as_somebody_else(
    shared: RunningProcess, path: str, body: dict[str, Any]
) -> None:
    for user, status in (("alice", 202), ("bob", 403), (None, 202)):
        answer = await shared.post(path, {**body, "user_id": user}, **bearer(token()))
        assert answer.status == status
    # A key is nobody's in particular, and may speak for anyone.
    answer = await shared.post(path, {**body, "user_id": "bob"}, **bearer(OPERATOR_KEY))
    assert answer.status == 202


async def test_the_token_says_who_sent_a_message(shared: RunningProcess) -> None:
    session = f"s-{secrets.token_hex(4)}"
    body = {"tenant_id": "acme", "session_id": session, **TEXT}
    assert (await shared.post("/api/chat/send", body, **bearer(token()))).status == 202
    page = await shared.get(f"/api/sessions/acme/{session}/events", **bearer(token()))
    assert page.json["events"][0]["data"]["user_id"] == "alice"


async def test_a_token_in_the_query_counts_for_streams_only(shared: RunningProcess) -> None:
    shown = token()
    assert (await shared.get(f"{EVENTS}?token={shown}")).status == 401
    assert (await shared.get(f"/metrics?token={OPERATOR_KEY}")).status == 401
    async with raw_socket(shared.port) as raw:
        await raw.write(
            f"GET {EVENTS}?token={shown} HTTP/1.1\r\nHost: x\r\n"
            "Accept: text/event-stream\r\n\r\n".encode()
        )
        assert b"200" in await raw.reader.readline()
