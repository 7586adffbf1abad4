"""A session's earlier turns, asked over real HTTP of a server that answers as section 3 says."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port
from tornado.web import Application, RequestHandler

from execution import Output, Retryable, Task, Turn, Worker
from execution.history import OrchestratorHistory, turns_of
from tests.execution.support import Orchestrator, running, text
from tests.support.redis_server import RedisServer

Event = dict[str, Any]


def user(task_id: str, message: str) -> Event:
    return {"type": "user_message", "task_id": task_id, "data": {"message": message}}


def answer(task_id: str, response: str) -> Event:
    return {"type": "agent_response", "task_id": task_id, "data": {"response": response}}


def delta(task_id: str) -> Event:
    return {"type": "agent_delta", "task_id": task_id, "data": {"text": "…"}}


class Log(RequestHandler):
    """The events endpoint over a list, at most two events a page."""

    def initialize(self, events: list[Event], asked: list[dict[str, str]], status: int) -> None:
        self.events, self.asked, self.status = events, asked, status

    def get(self, tenant: str, session: str) -> None:
        query = {name: self.get_argument(name) for name in self.request.arguments}
        token = self.request.headers.get("Authorization", "")
        self.asked.append({"tenant": tenant, "session": session, "token": token, **query})
        self.set_status(self.status)
        offset = int(query["offset"])
        page = self.events[offset : offset + 2]
        self.finish(
            orjson.dumps({"epoch": "e1", "events": page, "next_offset": offset + len(page)})
        )


@asynccontextmanager
async def serving(
    events: list[Event], status: int = 200
) -> AsyncIterator[tuple[str, list[dict[str, str]]]]:
    asked: list[dict[str, str]] = []
    served = {"events": events, "asked": asked, "status": status}
    server = HTTPServer(Application([(r"/api/sessions/([^/]+)/([^/]+)/events", Log, served)]))
    socket, port = bind_unused_port()
    server.add_socket(socket)
    try:
        yield f"http://127.0.0.1:{port}", asked
    finally:
        server.stop()
        await server.close_all_connections()


TASK = Task(
    task_id="t3",  # type: ignore[arg-type]
    tenant_id="acme",
    session_id="s1",
    agent_id="a",
    message="third",
    attempt=1,
    max_attempts=3,
    deadline=0,
    visibility_timeout_ms=1,
)
LOG = [
    user("t1", "first"),
    delta("t1"),
    answer("t1", "one"),
    user("t2", "second"),
    {"type": "agent_response", "data": {"pushed": "by a back-end"}},
    user("t3", "third"),
    answer("t2", "too late"),
]


async def test_the_turns_are_what_was_said_before_the_tasks_own_message() -> None:
    async with serving(LOG) as (url, asked):
        history = OrchestratorHistory(url, token="secret")
        turns = await history.turns(TASK, 20)
        last = await history.turns(TASK, 1)
        await history.close()
    assert turns == [Turn("user", "first"), Turn("assistant", "one"), Turn("user", "second")]
    assert last == [Turn("user", "second")]
    assert (asked[0]["tenant"], asked[0]["session"]) == ("acme", "s1")
    assert (asked[0]["token"], asked[0]["compact"]) == ("Bearer secret", "1")
    assert "epoch" not in asked[0]
    assert [each["offset"] for each in asked[:3]] == ["0", "2", "4"]
    assert asked[1]["epoch"] == "e1"


def test_an_answer_stands_below_its_own_question() -> None:
    events = [user("a", "1"), user("b", "2"), answer("a", "one"), answer("b", "two")]
    assert [turn.content for turn in turns_of(events)] == ["1", "one", "2", "two"]


@pytest.mark.parametrize(
    ("events", "status"), [(LOG[:3], 200), (LOG, 500), (LOG, 409), ([{}], 200)]
)
async def test_a_history_that_cannot_be_known_is_never_an_empty_one(
    events: list[Event], status: int
) -> None:
    async with serving(events, status) as (url, _):
        history = OrchestratorHistory(url)
        with pytest.raises(Retryable) as caught:
            await history.turns(TASK, 20)
        await history.close()
    assert caught.value.type == "history_unavailable"


async def test_nobody_at_the_url_is_an_error_that_may_pass() -> None:
    async with serving([]) as (url, _):
        pass
    history = OrchestratorHistory(url)
    with pytest.raises(Retryable):
        await history.turns(TASK, 20)
    await history.close()


async def test_an_agent_asks_for_it_through_its_task(
    redis_server: RedisServer, prefix: str
) -> None:
    worker = Worker()

    @worker.agent("recall")
    async def recall(task: Task) -> AsyncIterator[Output]:
        for turn in await task.history():
            yield f"{turn.role}: {turn.content}. "

    async with (
        serving(LOG) as (url, _),
        Orchestrator(redis_server.url, prefix) as orchestrator,
        running(worker, orchestrator, orchestrator_url=url),
    ):
        told = await orchestrator.callbacks(await orchestrator.submit("recall", task_id="t3"))
    assert text(told) == "user: first. assistant: one. user: second. "
