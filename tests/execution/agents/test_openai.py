"""The `openai` agent against a local server that speaks the protocol, over real HTTP."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import openai
import orjson
import pytest
from tornado.httpserver import HTTPServer
from tornado.iostream import StreamClosedError
from tornado.testing import bind_unused_port
from tornado.web import Application, RequestHandler

from execution import Worker
from execution.agents.openai import OpenAIAgent, configured
from tests.execution.support import Orchestrator, Process, Told, running, text, types
from tests.support.redis_server import RedisServer


def chunk(content: str | None = None, finish: str | None = None, **delta: Any) -> dict[str, Any]:
    return {
        "id": "c1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "test-model-0613",
        "choices": [{"index": 0, "delta": {"content": content, **delta}, "finish_reason": finish}],
    }


USAGE = {
    **chunk(),
    "choices": [],
    "usage": {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9},
}
GOOD = [chunk(""), chunk("Hello"), chunk(", you"), chunk(finish="stop"), USAGE]


class Provider:
    """What the server is to do, and what it was asked."""

    def __init__(self) -> None:
        self.chunks: Sequence[dict[str, Any]] = GOOD
        self.status = 200
        self.error: dict[str, Any] = {"message": "no", "type": "t", "code": None}
        self.ending = "done"  # or "hang", "cut", "end" (without the [DONE])
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self.hung_up = asyncio.Event()
        self.url = ""


class Completions(RequestHandler):
    def initialize(self, provider: Provider) -> None:
        self.provider = provider

    def on_connection_close(self) -> None:
        self.provider.hung_up.set()

    async def post(self) -> None:
        provider = self.provider
        provider.asked.append(orjson.loads(self.request.body))
        provider.keys.append(self.request.headers["Authorization"])
        if provider.status != 200:
            self.set_status(provider.status)
            self.finish({"error": provider.error})
            return
        self.set_header("Content-Type", "text/event-stream")
        for each in provider.chunks:
            self.write(b"data: " + orjson.dumps(each) + b"\n\n")
            await self.flush()
        match provider.ending:
            case "done":
                self.finish(b"data: [DONE]\n\n")
            case "hang":
                await provider.hung_up.wait()
            case "cut":
                assert self.request.connection is not None
                self.detach().close()
            case "end":
                self.finish()


@asynccontextmanager
async def provided() -> AsyncIterator[Provider]:
    provider = Provider()
    server = HTTPServer(
        Application([("/v1/chat/completions", Completions, {"provider": provider})])
    )
    socket, port = bind_unused_port()
    server.add_socket(socket)
    provider.url = f"http://127.0.0.1:{port}/v1"
    try:
        yield provider
    finally:
        server.stop()
        with suppress(StreamClosedError):
            await server.close_all_connections()


@asynccontextmanager
async def asking(
    server: RedisServer, prefix: str, provider: Provider, **agent: Any
) -> AsyncIterator[Orchestrator]:
    client = openai.AsyncOpenAI(api_key="k", base_url=provider.url, max_retries=0)
    worker = Worker()
    worker.agent("openai")(OpenAIAgent(client, **{"model": "test-model", **agent}))
    async with (
        client,
        Orchestrator(server.url, prefix) as orchestrator,
        running(worker, orchestrator),
    ):
        yield orchestrator


async def ask(orchestrator: Orchestrator, message: str = "hi", **fields: Any) -> list[Told]:
    return await orchestrator.callbacks(await orchestrator.submit("openai", message, **fields))


async def test_it_streams_the_answer_and_reports_usage(
    redis_server: RedisServer, prefix: str
) -> None:
    async with provided() as provider, asking(redis_server, prefix, provider) as orchestrator:
        told = await ask(orchestrator)
    assert types(told) == ["started", "delta", "delta", "completed"]
    assert text(told) == "Hello, you"
    assert told[-1].data["usage"] == {"input_tokens": 7, "output_tokens": 2}
    assert told[-1].data["tokens_used"] == 9
    assert told[-1].data["agent_info"] == {
        "agent_id": "openai",
        "model": "test-model-0613",
        "finish_reason": "stop",
    }
    assert provider.keys == ["Bearer k"]
    assert provider.asked == [
        {
            "model": "test-model",
            "messages": [{"role": "user", "content": "hi"}],
            "stream": True,
            "stream_options": {"include_usage": True},
        }
    ]


async def test_earlier_turns_the_system_prompt_and_another_model_are_sent(
    redis_server: RedisServer, prefix: str
) -> None:
    turns = [{"role": "user", "content": "I am Ann"}, {"role": "assistant", "content": "Hi Ann"}]
    async with (
        provided() as provider,
        asking(redis_server, prefix, provider, system_prompt="Be kind") as orchestrator,
    ):
        await ask(orchestrator, "who am I?", context={"history": turns, "model": "other"})
    (asked,) = provider.asked
    assert asked["model"] == "other"
    assert asked["messages"] == [
        {"role": "system", "content": "Be kind"},
        *turns,
        {"role": "user", "content": "who am I?"},
    ]


async def test_reasoning_is_told_as_an_event(redis_server: RedisServer, prefix: str) -> None:
    async with provided() as provider, asking(redis_server, prefix, provider) as orchestrator:
        provider.chunks = [chunk(reasoning_content="Hm."), *GOOD]
        told = await ask(orchestrator)
    assert told[1].data == {"name": "reasoning", "text": "Hm."}
    assert text(told) == "Hello, you"


@pytest.mark.parametrize(
    ("status", "code", "kind", "retryable"),
    [
        (429, None, "provider_rate_limit", True),
        (429, "insufficient_quota", "provider_quota", None),
        (500, None, "provider_unavailable", True),
        (503, None, "provider_unavailable", True),
        (400, None, "provider_refused", None),
        (401, None, "provider_refused", None),
        (404, "model_not_found", "provider_refused", None),
    ],
)
async def test_the_providers_errors_say_whether_they_may_pass(
    redis_server: RedisServer,
    prefix: str,
    status: int,
    code: str | None,
    kind: str,
    retryable: bool | None,
) -> None:
    async with provided() as provider, asking(redis_server, prefix, provider) as orchestrator:
        provider.status = status
        provider.error = {"message": "said the provider", "type": "t", "code": code}
        told = await ask(orchestrator)
    assert told[-1].type == "failed"
    assert told[-1].data["error"]["type"] == kind
    assert "said the provider" in told[-1].data["error"]["message"]
    assert told[-1].data.get("retryable") is retryable


@pytest.mark.parametrize("ending", ["cut", "end", "done"])
async def test_an_answer_that_breaks_off_is_never_taken_for_whole(
    redis_server: RedisServer, prefix: str, ending: str
) -> None:
    async with provided() as provider, asking(redis_server, prefix, provider) as orchestrator:
        provider.chunks, provider.ending = GOOD[:2], ending
        told = await ask(orchestrator)
    assert types(told) == ["started", "delta", "failed"]
    assert told[-1].data["error"]["type"] == "provider_unavailable"
    assert told[-1].data["retryable"] is True


async def test_an_error_in_the_middle_of_the_stream_may_pass(
    redis_server: RedisServer, prefix: str
) -> None:
    async with provided() as provider, asking(redis_server, prefix, provider) as orchestrator:
        provider.chunks = [GOOD[1], {"error": {"message": "overloaded", "code": 529}}]
        told = await ask(orchestrator)
    assert told[-1].data["retryable"] is True
    assert "overloaded" in told[-1].data["error"]["message"]


async def test_a_filtered_answer_is_a_failure(redis_server: RedisServer, prefix: str) -> None:
    async with provided() as provider, asking(redis_server, prefix, provider) as orchestrator:
        provider.chunks = [GOOD[1], chunk(finish="content_filter")]
        told = await ask(orchestrator)
    assert told[-1].data["error"]["type"] == "content_filter"


async def test_nobody_at_the_url_may_pass(redis_server: RedisServer, prefix: str) -> None:
    async with provided() as provider:
        pass
    async with asking(redis_server, prefix, provider) as orchestrator:
        told = await ask(orchestrator)
    assert told[-1].data["error"]["type"] == "provider_unavailable"
    assert told[-1].data["retryable"] is True


async def test_a_cancellation_hangs_up_on_the_provider(
    redis_server: RedisServer, prefix: str
) -> None:
    async with provided() as provider, asking(redis_server, prefix, provider) as orchestrator:
        provider.ending = "hang"
        task_id = await orchestrator.submit("openai")
        await orchestrator.callbacks(task_id, until=", you")
        await orchestrator.cancel(task_id)
        assert (await orchestrator.callbacks(task_id))[-1].type == "cancelled"
        async with asyncio.timeout(5):
            await provider.hung_up.wait()


@pytest.mark.parametrize("model", [None, "", 5, "x" * 201])
async def test_a_model_that_is_none_fails_the_task(
    redis_server: RedisServer, prefix: str, model: object
) -> None:
    async with provided() as provider, asking(redis_server, prefix, provider) as orchestrator:
        told = await ask(orchestrator, context={"model": model})
    assert told[-1].data["error"]["type"] == "invalid_model"
    assert provider.asked == []


def test_it_is_there_only_if_the_environment_says_where() -> None:
    assert set(configured({}).agents) == set()
    assert set(configured({"OPENAI_MODEL": "m"}).agents) == set()
    assert set(configured({"OPENAI_API_KEY": "k"}).agents) == {"openai"}
    assert set(configured({"OPENAI_BASE_URL": "http://127.0.0.1:1/v1"}).agents) == {"openai"}


async def test_a_worker_process_takes_it_from_its_environment(
    redis_server: RedisServer, prefix: str
) -> None:
    async with provided() as provider, Orchestrator(redis_server.url, prefix) as orchestrator:
        process = await Process.start(
            *("--redis-url", redis_server.url, "--key-prefix", prefix),
            environ={"OPENAI_BASE_URL": provider.url, "OPENAI_MODEL": "m"},
        )
        try:
            told = await ask(orchestrator)
        finally:
            await process.kill()
    assert text(told) == "Hello, you"
    assert provider.asked[0]["model"] == "m"
