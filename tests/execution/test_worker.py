"""A worker against a real Redis: what section 5 of the contract asks of it."""

import asyncio
import gc
from collections.abc import AsyncIterator

import pytest

from common.domain.ids import TaskId
from execution import (
    Delta,
    Event,
    Failed,
    Output,
    Progress,
    Result,
    Retryable,
    Task,
    Typing,
    Usage,
    Worker,
)
from tests.execution.support import Orchestrator, at_work, running, text, types
from tests.support.follower import eventually
from tests.support.redis_server import RedisServer


def worker_with(**agents: object) -> Worker:
    worker = Worker()
    for name, agent in agents.items():
        worker.agent(name)(agent)  # type: ignore[type-var]
    return worker


async def talk(_: Task) -> AsyncIterator[Output]:
    yield "Hello, "
    yield "world"


async def test_started_comes_first_and_the_end_of_the_agent_repeats_its_text(
    redis_server: RedisServer, prefix: str
) -> None:
    async with at_work(redis_server, prefix, worker_with(talk=talk)) as orchestrator:
        told = await orchestrator.callbacks(await orchestrator.submit("talk"))
        await orchestrator.emptied()
    assert types(told) == ["started", "delta", "delta", "completed"]
    assert [each.seq for each in told] == [1, 2, 3, 4]
    assert {each.attempt for each in told} == {1}
    assert text(told) == "Hello, world"
    end = told[-1].data
    assert 0 <= end.pop("execution_time") < 5
    assert end == {
        "response": "Hello, world",
        "sources": [],
        "tokens_used": None,
        "usage": {},
        "agent_info": {"agent_id": "talk"},
    }


async def test_everything_an_agent_may_yield_becomes_its_callback(
    redis_server: RedisServer, prefix: str
) -> None:
    async def rich(task: Task) -> AsyncIterator[Output]:
        yield Typing()
        yield Progress(40, "reading")
        yield Event("tool_call", tool="search", arguments={"q": "€"})
        yield Delta("text", part=1)
        yield ""
        yield Result(
            response="other text",
            sources=[{"url": "https://example.com"}],
            usage=Usage(3, 4, cost=0.5),
            agent_info={"model": "m"},
        )
        raise AssertionError("nothing is asked of an agent after its Result")

    async with at_work(redis_server, prefix, worker_with(rich=rich)) as orchestrator:
        told = await orchestrator.callbacks(await orchestrator.submit("rich"))
    assert [(each.type, each.data) for each in told[:-1]] == [
        ("started", {}),
        ("typing", {}),
        ("progress", {"progress": 40, "message": "reading"}),
        ("event", {"name": "tool_call", "tool": "search", "arguments": {"q": "€"}}),
        ("delta", {"text": "text", "part": 1}),
    ]
    end = told[-1].data
    assert end["response"] == "other text"
    assert end["sources"] == [{"url": "https://example.com"}]
    assert end["usage"] == {"input_tokens": 3, "output_tokens": 4, "cost": 0.5}
    assert end["tokens_used"] == 7
    assert end["agent_info"] == {"agent_id": "rich", "model": "m"}


async def test_an_agent_is_given_the_whole_action(redis_server: RedisServer, prefix: str) -> None:
    seen: list[Task] = []

    async def look(task: Task) -> AsyncIterator[Output]:
        seen.append(task)
        yield "seen"

    async with at_work(redis_server, prefix, worker_with(look=look)) as orchestrator:
        task_id = await orchestrator.submit(
            *("look", "what?"),
            user_id="u1",
            user_info={"name": "Ann"},
            context={"history": [{"role": "user", "content": "before"}]},
            metadata={"trace": 1},
        )
        await orchestrator.callbacks(task_id)
    (task,) = seen
    assert (task.task_id, task.tenant_id, task.session_id) == (task_id, "acme", "s1")
    assert (task.user_id, task.message, task.attempt) == ("u1", "what?", 1)
    assert (task.user_info, task.metadata) == ({"name": "Ann"}, {"trace": 1})
    assert [tuple(turn) for turn in await task.history()] == [("user", "before")]
    assert not task.cancelled


async def raising(error: Exception) -> AsyncIterator[Output]:
    yield "so far"
    raise error


@pytest.mark.parametrize(
    ("error", "data"),
    [
        (ValueError("bad"), {"error": {"type": "ValueError", "message": "bad"}}),
        (Failed("no", type="asked_for"), {"error": {"type": "asked_for", "message": "no"}}),
        (
            Retryable("later"),
            {"error": {"type": "retryable", "message": "later"}, "retryable": True},
        ),
        (ValueError("\ud800"), {"error": {"type": "ValueError", "message": "?"}}),
    ],
)
async def test_an_agents_exception_is_told_as_failed(
    redis_server: RedisServer, prefix: str, error: Exception, data: object
) -> None:
    async with at_work(
        redis_server, prefix, worker_with(bad=lambda _: raising(error))
    ) as orchestrator:
        told = await orchestrator.callbacks(await orchestrator.submit("bad"))
        await orchestrator.emptied()
    assert types(told) == ["started", "delta", "failed"]
    assert told[-1].data == data


async def exits(_: Task) -> AsyncIterator[Output]:
    yield "x"
    raise SystemExit(3)


async def cancels_itself(_: Task) -> AsyncIterator[Output]:
    yield "x"
    raise asyncio.CancelledError


@pytest.mark.parametrize(
    ("agent", "kind"), [(exits, "SystemExit"), (cancels_itself, "CancelledError")]
)
async def test_an_agent_cannot_end_the_worker(
    redis_server: RedisServer, prefix: str, agent: object, kind: str
) -> None:
    async with at_work(redis_server, prefix, worker_with(bad=agent, talk=talk)) as orchestrator:
        told = await orchestrator.callbacks(await orchestrator.submit("bad"))
        assert told[-1].data["error"]["type"] == kind
        good = await orchestrator.callbacks(await orchestrator.submit("talk"))
        assert good[-1].type == "completed"


@pytest.mark.parametrize(
    ("output", "complaint"),
    [
        ("\ud800", "JSON"),
        (Delta("x", extra=object()), "JSON"),
        (Delta(5), "int"),  # type: ignore[arg-type]
        (Event("x", huge=2**70), "JSON"),
        (Event(7), "name"),  # type: ignore[arg-type]
        (17, "cannot yield int"),
        (None, "cannot yield NoneType"),
        (Result(response="\udfff"), "JSON"),
        (Result(response=3), "int"),  # type: ignore[arg-type]
    ],
)
async def test_what_cannot_be_said_in_json_fails_the_task_clearly(
    redis_server: RedisServer, prefix: str, output: Output, complaint: str
) -> None:
    async def garbled(_: Task) -> AsyncIterator[Output]:
        yield "before"
        yield output

    async with at_work(redis_server, prefix, worker_with(garbled=garbled)) as orchestrator:
        told = await orchestrator.callbacks(await orchestrator.submit("garbled"))
    assert types(told) == ["started", "delta", "failed"]
    assert told[-1].data["error"]["type"] == "invalid_output"
    assert complaint in told[-1].data["error"]["message"]


async def test_a_function_that_does_not_yield_is_no_agent(
    redis_server: RedisServer, prefix: str
) -> None:
    async def answer(_: Task) -> str:
        return "no"

    with pytest.raises(TypeError, match="must yield"):
        Worker().agent("answer")(answer)  # type: ignore[type-var]
    async with at_work(redis_server, prefix, worker_with(plain=lambda _: "no")) as orchestrator:
        told = await orchestrator.callbacks(await orchestrator.submit("plain"))
    assert told[-1].data["error"]["type"] == "invalid_output"


def test_an_agents_name_is_an_agent_id_and_is_given_once() -> None:
    worker = worker_with(talk=talk)
    with pytest.raises(ValueError, match="two agents"):
        worker.agent("talk")(talk)
    with pytest.raises(ValueError, match="cannot be the name"):
        worker.agent("not ok")(talk)
    with pytest.raises(ValueError, match="two agents"):
        worker_with(talk=talk).include(worker)


async def test_an_unknown_agent_fails_the_task(redis_server: RedisServer, prefix: str) -> None:
    async with at_work(redis_server, prefix, worker_with(talk=talk)) as orchestrator:
        told = await orchestrator.callbacks(await orchestrator.submit("nobody"))
        await orchestrator.emptied()
    assert (types(told), told[0].seq) == (["failed"], 1)
    assert told[0].data["error"]["type"] == "agent_not_found"


async def test_high_is_taken_before_normal_before_low(
    redis_server: RedisServer, prefix: str
) -> None:
    order: list[str] = []

    async def note(task: Task) -> AsyncIterator[Output]:
        order.append(task.message)
        yield "noted"

    async with Orchestrator(redis_server.url, prefix) as orchestrator:
        tasks = [
            await orchestrator.submit("note", f"{priority} {number}", priority=priority)
            for number in (1, 2)
            for priority in ("low", "normal", "high")
        ]
        async with running(worker_with(note=note), orchestrator, concurrency=1):
            for task_id in tasks:
                await orchestrator.callbacks(task_id)
    assert order == ["high 1", "high 2", "normal 1", "normal 2", "low 1", "low 2"]


async def test_a_worker_takes_only_what_it_can_run(redis_server: RedisServer, prefix: str) -> None:
    release = asyncio.Event()

    async def wait(_: Task) -> AsyncIterator[Output]:
        yield "waiting"
        await release.wait()

    async with Orchestrator(redis_server.url, prefix) as orchestrator:
        tasks = [await orchestrator.submit("wait") for _ in range(5)]
        async with running(worker_with(wait=wait), orchestrator, concurrency=2):
            for task_id in tasks[:2]:
                await orchestrator.callbacks(task_id, until="waiting")
            await asyncio.sleep(0.1)
            assert await orchestrator.left() == (5, 2)
            release.set()
            for task_id in tasks[2:]:
                await orchestrator.callbacks(task_id)
            await orchestrator.emptied()


async def test_an_agent_in_full_flood_is_held_back_and_loses_nothing(
    redis_server: RedisServer, prefix: str
) -> None:
    count = 20_000
    ahead = 0
    said = 0

    async def flood(_: Task) -> AsyncIterator[Output]:
        nonlocal said
        for number in range(count):
            said = number
            yield f"{number} "

    async with at_work(redis_server, prefix, worker_with(flood=flood, talk=talk)) as orchestrator:
        task_id = await orchestrator.submit("flood")
        other = await orchestrator.submit("talk")
        told = await orchestrator.next_callbacks(task_id)
        while told[-1].type != "completed":
            ahead = max(
                ahead, said - await orchestrator.redis.xlen(orchestrator.stream_of(task_id))
            )
            told += await orchestrator.next_callbacks(task_id)
        assert (await orchestrator.callbacks(other))[-1].type == "completed"
    assert [each.seq for each in told] == list(range(1, count + 3))
    assert text(told) == "".join(f"{number} " for number in range(count))
    assert ahead <= 1100


async def test_a_message_that_is_no_action_is_failed_if_anyone_can_be_told(
    redis_server: RedisServer, prefix: str
) -> None:
    async with at_work(redis_server, prefix, worker_with(talk=talk)) as orchestrator:
        told = await orchestrator.callbacks(await orchestrator.submit("talk", message=5))  # type: ignore[arg-type]
        assert types(told) == ["failed"]
        assert told[0].data["error"]["type"] == "invalid_action"
        await orchestrator.emptied()


@pytest.mark.parametrize("action", [b"", b"[]", b"{", b'{"tenant_id": "acme"}', b"\xff"])
async def test_an_entry_that_names_nobody_to_tell_stays_and_counts_an_attempt(
    redis_server: RedisServer, prefix: str, action: bytes
) -> None:
    async with Orchestrator(redis_server.url, prefix) as orchestrator:
        await orchestrator.add("high", {"task_id": "t1", "action": action})
        async with running(worker_with(talk=talk), orchestrator):
            told = await orchestrator.callbacks(await orchestrator.submit("talk"))
            assert told[-1].type == "completed"
            assert await orchestrator.redis.get(orchestrator.keys.attempt(TaskId("t1"))) == b"1"
        assert await orchestrator.left() == (1, 1)


async def test_an_entry_of_no_task_is_removed(redis_server: RedisServer, prefix: str) -> None:
    async with Orchestrator(redis_server.url, prefix) as orchestrator:
        await orchestrator.add("high", {"what": "ever"})
        async with running(worker_with(talk=talk), orchestrator):
            await orchestrator.emptied()


async def test_nothing_is_left_running_after_a_stop(redis_server: RedisServer, prefix: str) -> None:
    async with Orchestrator(redis_server.url, prefix) as orchestrator:
        await orchestrator.left()  # connects
        before = len(asyncio.all_tasks())
        async with running(worker_with(talk=talk), orchestrator):
            for _ in range(20):
                await orchestrator.callbacks(await orchestrator.submit("talk"))
            assert await orchestrator.consumers()
        gc.collect()
        await eventually(lambda: len(asyncio.all_tasks()) <= before)
        assert await orchestrator.consumers() == set()
