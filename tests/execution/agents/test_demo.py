"""The demo agents, run by a worker against a real Redis."""

import signal

import pytest

from execution.agents.demo import words, worker
from execution.worker import Worker
from tests.execution.support import Orchestrator, Process, at_work, running, text, types
from tests.support.redis_server import RedisServer


def demo() -> Worker:
    """The demo agents in a worker that a test may stop."""
    fresh = Worker()
    fresh.include(worker)
    return fresh


@pytest.mark.parametrize(
    "said", ["", " ", "a", " a b ", "a\n\n b\t", "\n", "ä\u3000ö\xa0", "a" * 9]
)
def test_words_joined_are_the_text(said: str) -> None:
    assert "".join(words(said)) == said
    assert all(words(said))


def test_words_are_words() -> None:
    assert words("Hello,  big\nworld ") == ["Hello,", "  big", "\nworld "]


async def test_echo_says_the_message_back_word_by_word(
    redis_server: RedisServer, prefix: str
) -> None:
    said = "  Hello,  big\nworld "
    async with at_work(redis_server, prefix, demo()) as orchestrator:
        told = await orchestrator.callbacks(
            await orchestrator.submit("echo", said, context={"delay_ms": 1})
        )
    assert [each.data["text"] for each in told if each.type == "delta"] == words(said)
    assert told[-1].type == "completed"


@pytest.mark.parametrize("delay", ["soon", -1, 60_001, True, None])
async def test_a_delay_that_is_none_is_refused(
    redis_server: RedisServer, prefix: str, delay: object
) -> None:
    async with at_work(redis_server, prefix, demo()) as orchestrator:
        told = await orchestrator.callbacks(
            await orchestrator.submit("echo", context={"delay_ms": delay})
        )
    assert told[-1].data["error"]["type"] == "invalid_context"


async def test_storyteller_shows_tools_progress_typing_and_sources(
    redis_server: RedisServer, prefix: str
) -> None:
    async with at_work(redis_server, prefix, demo()) as orchestrator:
        told = await orchestrator.callbacks(
            await orchestrator.submit("storyteller", "rain", context={"delay_ms": 1})
        )
    assert {"started", "typing", "event", "progress", "delta", "completed"} == set(types(told))
    names = [each.data["name"] for each in told if each.type == "event"]
    assert names == ["reasoning", *["tool_call", "tool_result"] * 3]
    progress = [each.data["progress"] for each in told if each.type == "progress"]
    assert progress == [0, 33, 67, 100]
    end = told[-1].data
    assert end["response"] == text(told)
    assert len(end["sources"]) == 3
    assert end["tokens_used"] == end["usage"]["input_tokens"] + end["usage"]["output_tokens"] > 30


@pytest.mark.parametrize(("asked", "retryable"), [("error", None), (" Retryable ", True)])
async def test_faulty_fails_as_the_message_asks(
    redis_server: RedisServer, prefix: str, asked: str, retryable: bool | None
) -> None:
    async with at_work(redis_server, prefix, demo()) as orchestrator:
        told = await orchestrator.callbacks(await orchestrator.submit("faulty", asked))
    assert told[-1].type == "failed"
    assert told[-1].data["error"]["type"] == "asked_for"
    assert told[-1].data.get("retryable") is retryable


async def test_faulty_floods(redis_server: RedisServer, prefix: str) -> None:
    async with at_work(redis_server, prefix, demo()) as orchestrator:
        told = await orchestrator.callbacks(await orchestrator.submit("faulty", "flood 3000"))
    assert len(told) == 3002
    assert text(told).split() == [str(number) for number in range(3000)]


@pytest.mark.parametrize("asked", ["", "help me", "flood", "flood -1", "flood 1000001", "flood ²"])
async def test_faulty_explains_itself(redis_server: RedisServer, prefix: str, asked: str) -> None:
    async with at_work(redis_server, prefix, demo()) as orchestrator:
        told = await orchestrator.callbacks(await orchestrator.submit("faulty", asked))
    assert "I fail as you ask" in text(told)


async def test_faulty_hangs_until_it_is_cancelled(redis_server: RedisServer, prefix: str) -> None:
    async with at_work(redis_server, prefix, demo()) as orchestrator:
        task_id = await orchestrator.submit("faulty", "hang")
        await orchestrator.callbacks(task_id, until="Hanging.")
        await orchestrator.cancel(task_id)
        assert (await orchestrator.callbacks(task_id))[-1].type == "cancelled"


async def test_faulty_crashes_its_process_and_survives_the_second_time(
    redis_server: RedisServer, prefix: str
) -> None:
    async with Orchestrator(redis_server.url, prefix) as orchestrator:
        task_id = await orchestrator.submit("faulty", "crash once", visibility_timeout_ms=500)
        first = await Process.for_orchestrator(orchestrator)
        status, _, _ = await first.ended()
        assert status == -signal.SIGKILL
        async with running(demo(), orchestrator):
            told = await orchestrator.callbacks(task_id)
    second = [each for each in told if each.attempt == 2]
    assert text(second) == "Survived: this is attempt 2."


async def test_faulty_crashes_every_time_if_asked(redis_server: RedisServer, prefix: str) -> None:
    async with Orchestrator(redis_server.url, prefix) as orchestrator:
        await orchestrator.submit("faulty", "crash")
        status, _, _ = await (await Process.for_orchestrator(orchestrator)).ended()
        assert status == -signal.SIGKILL
        assert await orchestrator.left() == (1, 1)
