"""Who may do what: every caller at every address, from the route table (S9, S17).

A route without a row here fails the first test.
"""

import pytest

from orchestrator.auth.caller import Access
from orchestrator.http.base import NotFoundHandler
from orchestrator.routes import elsewhere, routes
from tests.orchestrator.auth.access import (
    CALLERS,
    EVENTS,
    HERE,
    LETTER,
    LETTERS,
    OPEN,
    PREFIX,
    PUSH,
    SESSION,
    TEXT,
    UNKNOWN,
    Row,
    World,
    for_operators,
    get,
    of_letter,
    of_task,
    post,
    statuses,
    stream,
    upgrade,
)
from tests.support.fake_executor import FakeExecutor
from tests.support.redis_server import RedisServer
from tests.support.service import RunningProcess, running_service

NOTHING = {**dict.fromkeys(CALLERS, 404), **dict.fromkeys(UNKNOWN, 401)}

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
    *(
        Row(r"/api(?:/.*)?", path, get(path), NOTHING)
        for path in ("/api", "/api/", "/api/nothing", "/api/chat/send/", "/api/sessions/acme/s-1")
    ),
    *(
        Row(r"/ws(?:/.*)?", f"{ask.__name__} {path}", ask(path), statuses(404, 404, 404))
        for ask in (get, upgrade)
        for path in ("/ws", "/ws/acme", "/ws/acme/s-1/", "/ws//s-1", "/ws/%ff")
    ),
]


async def test_every_route_has_its_row_and_says_what_it_asks_for(
    redis_server: RedisServer, prefix: str
) -> None:
    async with running_service(redis_server.url, prefix) as service:
        table = [*routes(service.service.app), *elsewhere(service.service.app)]
        rules = [rule for rule in table if isinstance(rule, tuple)]
    assert {str(rule[0]) for rule in rules} | {"anything else"} == {row.route for row in ROWS}
    asked = {str(rule[0]): vars(rule[1])["access"] for rule in rules}
    asked["anything else"] = vars(NotFoundHandler)["access"]
    for row in ROWS:
        expects_open = set(row.expected.values()) == {200}
        assert (asked[row.route] is Access.OPEN) == expects_open, row.route
        assert row.expected.keys() == CALLERS.keys()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.route} {row.name}".strip())
async def test_each_caller_is_answered_as_it_may_be(
    row: Row, guarded: RunningProcess, redis_server: RedisServer
) -> None:
    async with FakeExecutor(redis_server.url, PREFIX) as executor:
        answered = {
            name: await row.ask(World(guarded, executor, show())) for name, show in CALLERS.items()
        }
    assert answered == row.expected
