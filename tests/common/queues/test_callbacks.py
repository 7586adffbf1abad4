"""What callbacks become in a session's log and in its tasks."""

import asyncio
from typing import Any

import orjson
import pytest
from redis.asyncio import Redis as Client

from common.domain.actions import Priority
from tests.support.redis_server import RedisServer
from tests.support.stores import (
    SESSION,
    STARTED,
    callback_fields,
    delta,
    entry_of,
    key_of,
    stores,
)

# What each type becomes.


async def test_a_whole_answer_comes_out_as_the_contract_says(
    redis_server: RedisServer, prefix: str
) -> None:
    async with stores(redis_server.url, prefix) as each:
        task_id = await each.submit_and_deliver()
        usage = {"input_tokens": 3, "output_tokens": 4, "cost": 0.5}
        applied = await each.report(
            task_id,
            STARTED,
            delta(2, "Hel"),
            (1, 3, "event", {"name": "tool", "args": []}),
            (1, 4, "progress", {"progress": 50, "message": "half", "more": 1}),
            (1, 5, "typing", {}),
            (1, 6, "completed", {"response": "Hello", "sources": [], "usage": usage}),
        )
        assert (applied.outcomes, applied.dead) == ({"applied": 6}, {})
        assert await each.told() == [
            ("task_update", {"status": "running", "attempt": 1}),
            ("agent_delta", {"text": "Hel"}),
            ("agent_event", {"name": "tool", "args": []}),
            ("task_update", {"status": "running", "progress": 50, "message": "half"}),
            ("agent_response", {"response": "Hello", "sources": [], "usage": usage}),
        ]
        task = await each.task(task_id)
        assert (task.status, task.attempt, task.progress) == ("completed", 1, 50)
        assert orjson.loads(task.result or b"")["response"] == "Hello"
        assert orjson.loads(task.usage or b"") == usage
        assert None not in (task.started_at, task.finished_at)
        assert await each.callbacks.stream.waiting() == (0, 0)
        assert not await each.exists(each.keys.task_text(SESSION, task_id))


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"{}", {"response": 'a"b\u00e9\n/'}),
        (b"{ }", {"response": 'a"b\u00e9\n/'}),
        (b' { "sources":[],"n":12345678901234567890}', None),
    ],
)
async def test_completed_without_a_response_has_what_was_streamed(
    redis_server: RedisServer, prefix: str, data: bytes, told: Any
) -> None:
    async with stores(redis_server.url, prefix) as each:
        task_id = await each.submit()
        await each.report(task_id, delta(1, 'a"b'))
        await each.report(task_id, delta(2, "é\n/"), (1, 3, "completed", data))
        page = await each.log.read(SESSION, 3, 1)
        entry = page.events[0].entry
        response = orjson.loads(entry)["data"]
        assert response["response"] == 'a"bé\n/'
        assert told is None or response == told
        assert told or b'"n":12345678901234567890}' in entry
        assert (await each.task(task_id)).usage is None


@pytest.mark.parametrize("usage", [-5, 5, "x", None, []])
async def test_a_usage_that_is_none_is_left_alone(
    redis_server: RedisServer, prefix: str, usage: object
) -> None:
    async with stores(redis_server.url, prefix) as each:
        task_id = await each.submit()
        data = {"response": "x", "usage": usage}
        await each.report(task_id, (1, 1, "completed", data))
        assert await each.told() == [("agent_response", data)]
        assert (await each.task(task_id)).usage is None


@pytest.mark.parametrize(
    ("error", "type_", "message"),
    [
        ({"type": "boom", "message": "It broke."}, "boom", "It broke."),
        ({}, "error", "The agent failed."),
        ({"type": None, "message": 5}, "error", "The agent failed."),
    ],
)
async def test_a_failure_is_told_and_kept(
    redis_server: RedisServer, prefix: str, error: object, type_: str, message: str
) -> None:
    async with stores(redis_server.url, prefix) as each:
        task_id = await each.submit()
        await each.report(task_id, (1, 1, "failed", {"error": error}))
        told = {
            "code": "task_failed",
            "error_type": type_,
            "message": message,
            "status": "failed",
        }
        assert await each.told() == [("error", told)]
        task = await each.task(task_id)
        assert (task.status, orjson.loads(task.error or b"")) == ("failed", told)


async def test_typing_passes_by(redis_server: RedisServer, prefix: str) -> None:
    async with (
        stores(redis_server.url, prefix) as each,
        Client.from_url(redis_server.url) as client,
        client.pubsub(ignore_subscribe_messages=True) as listener,
    ):
        task_id = await each.submit()
        await listener.subscribe(each.keys.session_channel(SESSION))
        await listener.get_message(timeout=5)
        await each.report(task_id, (1, 1, "typing", {}))
        told = await listener.get_message(timeout=5)
        assert orjson.loads(told["data"].split(b"\n")[1])["data"] == {"agent_id": "echo"}
        assert await each.told() == []


async def test_many_sessions_are_applied_in_one_go(redis_server: RedisServer, prefix: str) -> None:
    async with stores(redis_server.url, prefix, socket_timeout=30.0) as each:
        sessions = [key_of(f"s-{i}") for i in range(200)]
        tasks = [await each.submit(session) for session in sessions]
        entries = [
            entry_of(callback_fields(task_id, 1, seq, "delta", {"text": str(seq)}, session))
            for seq in (2, 1, 3)
            for task_id, session in zip(tasks, sessions, strict=True)
        ]
        applied = await each.callbacks.apply(entries)
        assert applied.outcomes == {"applied": 400, "parked": 200}
        for session in sessions[::50]:
            assert [data["text"] for _, data in await each.told(session)] == ["1", "2", "3"]


# Trying again.


async def test_a_task_is_tried_again_after_a_backoff(
    redis_server: RedisServer, prefix: str
) -> None:
    async with stores(redis_server.url, prefix, retry_backoff_ms=20) as each:
        task_id = await each.submit_and_deliver()
        retry = (1, 2, "failed", {"error": {}, "retryable": True})
        await each.report(task_id, STARTED, retry, delta(3))
        assert (await each.told())[-1] == ("task_update", {"status": "queued", "attempt": 1})
        stream = each.keys.work_stream(Priority.NORMAL)
        assert await each.redis.call("XLEN", stream) == 0  # the old entry is gone
        async with asyncio.timeout(5):
            while not await each.redis.call("XLEN", stream):
                for due in await each.due.take(10):
                    await each.watch.check(due)
                await asyncio.sleep(0.01)  # for Redis's own clock
        await each.report(task_id, retry)  # it came twice, and late
        assert await each.redis.call("XLEN", stream) == 1  # the new entry stays
        await each.report(task_id, (2, 1, "completed", {"response": "x"}))
        assert (await each.task(task_id)).status == "completed"


async def test_a_retry_that_a_crash_left_half_done_is_done_when_it_is_claimed(
    redis_server: RedisServer, prefix: str
) -> None:
    async with stores(redis_server.url, prefix) as each:
        task_id = await each.submit_and_deliver()
        retry = (1, 1, "failed", {"error": {}, "retryable": True})
        await each.add(callback_fields(task_id, *retry))
        entries = await each.read()
        await each.callbacks.apply(entries)
        await each.redis.batch([each.due.forget(SESSION, task_id)])
        again = await each.callbacks.apply(entries)
        assert again.outcomes == {"stale": 1}
        member = f"{SESSION}:{task_id}"
        assert await each.redis.call("ZSCORE", each.keys.due(task_id), member) is not None
