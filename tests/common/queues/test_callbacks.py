"""Callbacks are applied to sessions once and in order, and one bad one harms only itself."""

import asyncio
import contextlib
from typing import Any

import orjson
import pytest
from redis.asyncio import Redis as Client

from common.domain.actions import Priority
from common.domain.errors import Overloaded, RedisUnavailable
from common.domain.ids import TaskId
from common.queues.callbacks import MAX_PARKED
from tests.support.proxy import Proxy
from tests.support.redis_server import RedisServer
from tests.support.stores import (
    OTHER_SESSION,
    SESSION,
    callback_fields,
    entry_of,
    key_of,
    stores,
)

Report = tuple[int, int, str, Any]
STARTED: Report = (1, 1, "started", {})


def delta(seq: int, text: str = "x", attempt: int = 1) -> Report:
    return (attempt, seq, "delta", {"text": text})


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


# The rules of delivery (the rest is in tests/properties, against the model).


async def test_a_batch_applied_twice_or_by_two_at_once_is_applied_once(
    redis_server: RedisServer, prefix: str
) -> None:
    async with stores(redis_server.url, prefix) as one, stores(redis_server.url, prefix) as two:
        task_id = await one.submit()
        reports: list[Report] = [delta(1, "a"), delta(2, "b"), (1, 3, "completed", {})]
        for report in reports:
            await one.add(callback_fields(task_id, *report))
        entries = await one.read()
        await asyncio.gather(one.callbacks.apply(entries), two.callbacks.apply(entries))
        again = await one.callbacks.apply(entries)
        assert again.outcomes == {"late": 3}
        assert [kind for kind, _ in await one.told()] == [
            *("agent_delta", "agent_delta", "agent_response")
        ]


async def test_a_newer_attempt_resets_and_fences(redis_server: RedisServer, prefix: str) -> None:
    async with stores(redis_server.url, prefix) as each:
        task_id = await each.submit()
        progress = (1, 2, "progress", {"progress": 70})
        await each.report(task_id, delta(1, "old"), progress, delta(4, "lost"))
        applied = await each.report(
            task_id, (2, 1, "started", {}), delta(3, "late"), delta(2, "new", attempt=2)
        )
        assert applied.outcomes == {"applied": 2, "stale": 1}
        assert (await each.told())[2:] == [
            ("task_update", {"status": "running", "attempt": 2, "reset": True}),
            ("agent_delta", {"text": "new"}),
        ]
        task = await each.task(task_id)
        assert (task.attempt, task.progress) == (2, None)
        await each.cancel(task_id)
        await each.report(task_id, (2, 3, "cancelled", {}))
        assert orjson.loads((await each.task(task_id)).result or b"")["response"] == "new"


async def test_what_waits_is_looked_at_when_its_gap_is_over(
    redis_server: RedisServer, prefix: str
) -> None:
    async with stores(redis_server.url, prefix, gap_timeout_ms=30) as each:
        task_id = await each.submit_and_deliver()
        await each.report(task_id, STARTED, delta(3))
        async with asyncio.timeout(5):
            while not (due := await each.due.take(10)):
                await asyncio.sleep(0.01)  # for Redis's own clock
        assert await each.watch.check(due[0]) == "failed"
        assert (await each.told())[-1][1]["error_type"] == "callback_gap"
        assert await each.exists(each.keys.cancel(task_id))


async def test_a_gap_that_closes_in_time_does_no_harm(
    redis_server: RedisServer, prefix: str
) -> None:
    async with stores(redis_server.url, prefix, gap_timeout_ms=0) as each:
        task_id = await each.submit_and_deliver()
        await each.report(task_id, STARTED, delta(3, "b"))
        await each.report(task_id, delta(2, "a"))
        assert await each.look(task_id) is None
        assert [data.get("text") for _, data in await each.told()][1:] == ["a", "b"]


async def test_as_much_may_wait_as_the_contract_allows(
    redis_server: RedisServer, prefix: str
) -> None:
    async with stores(redis_server.url, prefix) as each:
        task_id = await each.submit()
        entries = [
            entry_of(callback_fields(task_id, *delta(seq)), f"{seq}-0")
            for seq in range(2, MAX_PARKED + 2)
        ]
        for start in range(0, len(entries), 2000):
            await each.callbacks.apply(entries[start : start + 2000])
        await each.report(task_id, STARTED, (1, MAX_PARKED + 2, "completed", {}))
        task = await each.task(task_id)
        assert task.status == "completed"
        assert orjson.loads(task.result or b"")["response"] == "x" * MAX_PARKED


async def test_one_more_ends_the_task_and_stops_its_workers(
    redis_server: RedisServer, prefix: str
) -> None:
    async with stores(redis_server.url, prefix, max_parked=2) as each:
        task_id = await each.submit()
        applied = await each.report(task_id, STARTED, delta(3), delta(4), delta(5), delta(6))
        assert applied.outcomes == {"applied": 1, "parked": 3, "late": 1}
        assert (await each.told())[-1][1]["error_type"] == "callback_gap"
        assert await each.exists(each.keys.cancel(task_id))
        await each.redis.call("DEL", each.keys.cancel(task_id))
        await each.report(task_id, delta(7))  # as if we had crashed before we could tell them
        assert await each.exists(each.keys.cancel(task_id))


async def test_bytes_that_wait_are_counted_as_they_came(
    redis_server: RedisServer, prefix: str
) -> None:
    async with stores(redis_server.url, prefix, max_parked_bytes=100_000) as each:
        first, second = await each.submit(), await each.submit()
        await each.report(first, *(delta(seq, "x" * 24_900) for seq in range(2, 6)))
        assert (await each.task(first)).status == "queued"
        await each.report(first, STARTED)
        await each.report(first, *(delta(seq, "x" * 24_900) for seq in range(7, 11)))
        assert (await each.task(first)).status == "running"
        await each.report(second, *(delta(seq, "x" * 26_000) for seq in range(2, 6)))
        assert (await each.task(second)).status == "failed"


async def test_a_worker_that_gave_up_at_the_deadline_has_the_task_time_out(
    redis_server: RedisServer, prefix: str
) -> None:
    async with stores(redis_server.url, prefix) as each:
        task_id = await each.submit_and_deliver()
        await each.redis.call("HSET", each.keys.task(SESSION, task_id), "deadline", 1)
        await each.report(task_id, (1, 1, "cancelled", {}))
        assert (await each.task(task_id)).status == "timeout"
        assert await each.exists(each.keys.cancel(task_id))


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


# What cannot be used.


async def test_what_cannot_be_used_is_set_aside_and_stops_nothing(
    redis_server: RedisServer, prefix: str
) -> None:
    async with stores(redis_server.url, prefix, max_bytes=1000) as each:
        task_id = await each.submit()
        await each.add({"nonsense": "x"})
        applied = await each.report(
            task_id,
            STARTED,
            (1, 2, "delta", b"{"),
            (1, 3, "laughing", {}),
            delta(4, "x" * 2000),
            delta(5, "end"),
        )
        assert applied.outcomes == {"applied": 2}
        assert applied.dead == {"unreadable": 2, "unknown_type": 1, "too_large": 1}
        assert [data.get("text") for _, data in await each.told()] == [None, "end"]
        letters = await each.dead()
        assert [letter["reason"] for letter in letters] == [
            *(b"unreadable", b"unreadable", b"unknown_type", b"too_large")
        ]
        assert letters[2]["type"] == b"laughing"
        assert letters[3]["stream"] == each.keys.callbacks.encode()
        assert await each.callbacks.stream.waiting() == (0, 0)


async def test_a_terminal_one_that_cannot_be_used_ends_its_task(
    redis_server: RedisServer, prefix: str
) -> None:
    async with stores(redis_server.url, prefix, max_bytes=1000) as each:
        first, second = await each.submit(), await each.submit()
        await each.report(first, delta(1, "Hel"), (1, 2, "completed", {"response": "x" * 2000}))
        task = await each.task(first)
        assert (task.status, orjson.loads(task.error or b"")["error_type"]) == (
            *("failed", "too_large"),
        )
        assert orjson.loads(task.result or b"") == {"response": "Hel", "partial": True}
        # Of an older attempt it ends nothing.
        await each.report(second, delta(1, attempt=2), (1, 1, "completed", b"{"))
        assert (await each.task(second)).status == "running"


async def test_without_its_session_a_callback_still_counts_as_received(
    redis_server: RedisServer, prefix: str
) -> None:
    async with stores(redis_server.url, prefix) as each:
        task_id = await each.submit()
        for named in ({"session_id": ""}, {"tenant_id": b"\xff"}):
            seq = 1 if "session_id" in named else 2
            await each.add({**callback_fields(task_id, *delta(seq)), **named})
        await each.add({**callback_fields("nobody", *delta(1)), "session_id": ""})
        applied = await each.report(task_id, delta(3, "here"))
        assert applied.outcomes == {"applied": 1}
        assert applied.dead == {"unreadable": 3}
        assert await each.told() == [("agent_delta", {"text": "here"})]


@pytest.mark.parametrize(
    "stranger",
    [
        {"session_id": "s-2"},
        {"tenant_id": "other"},
        {"tenant_id": "other", "session_id": ""},
        {"tenant_id": "", "session_id": "s-2"},
        {"session_id": "s-2", "data": b"{"},
    ],
)
async def test_a_mismatch_touches_nothing(
    redis_server: RedisServer, prefix: str, stranger: dict[str, str | bytes]
) -> None:
    async with stores(redis_server.url, prefix) as each:
        task_id = await each.submit()
        fields = callback_fields(task_id, 1, 1, "failed", {"error": {}})
        await each.add({**fields, **stranger})
        applied = await each.handle()
        assert (applied.outcomes, applied.dead) == ({}, {"mismatch": 1})
        assert await each.told() == await each.told(OTHER_SESSION) == []
        assert not await each.exists(each.keys.session_meta(OTHER_SESSION))
        assert not await each.exists(each.keys.session_meta(key_of("s-1", "other")))
        applied = await each.report(task_id, delta(1, "first"))
        assert applied.outcomes == {"applied": 1}


async def test_an_unknown_task_and_one_that_has_ended_are_counted_and_leave_nothing(
    redis_server: RedisServer, prefix: str
) -> None:
    async with stores(redis_server.url, prefix) as each:
        task_id = await each.submit()
        await each.report(task_id, (1, 1, "completed", {}))
        applied = await each.report(task_id, delta(2), (2, 1, "started", {}))
        assert applied.outcomes == {"late": 2}
        applied = await each.report(TaskId("nobody"), delta(1), session=OTHER_SESSION)
        assert applied.outcomes == {"unknown": 1}
        assert not await each.exists(each.keys.session_meta(OTHER_SESSION))
        assert await each.dead() == []


async def test_a_dead_letter_written_before_a_crash_is_not_written_again(
    redis_server: RedisServer, prefix: str
) -> None:
    async with stores(redis_server.url, prefix) as each:
        task_id = await each.submit()
        await each.add(callback_fields(task_id, 1, 1, "delta", b"{"))
        entries = await each.read()
        first = await each.callbacks.apply(entries)
        again = await each.callbacks.apply(entries)  # as if the ack had never happened
        assert (first.dead, again.dead) == ({"unreadable": 1}, {})
        assert len(await each.dead()) == 1


async def test_an_entry_that_cannot_even_be_looked_at_is_set_aside(
    redis_server: RedisServer, prefix: str
) -> None:
    async with stores(redis_server.url, prefix) as each:
        await each.add({"anything": "x"})
        (entry,) = await each.read()
        await each.callbacks.set_aside(entry)
        (letter,) = await each.dead()
        assert (letter["reason"], letter["anything"]) == (b"unreadable", b"x")
        assert await each.callbacks.stream.waiting() == (0, 0)


# One poisoned session, task or callback.


async def test_a_session_whose_script_fails_stops_no_other(
    redis_server: RedisServer, prefix: str
) -> None:
    async with stores(redis_server.url, prefix) as each:
        good, bad = await each.submit(), await each.submit(OTHER_SESSION)
        await each.redis.call("DEL", each.keys.session_log(OTHER_SESSION))
        await each.redis.call("SET", each.keys.session_log(OTHER_SESSION), "no stream")
        await each.add(callback_fields(bad, *delta(1), OTHER_SESSION))
        applied = await each.report(good, delta(1, "fine"))
        assert (applied.outcomes, applied.dead) == ({"applied": 1}, {"unreadable": 1})
        assert await each.told() == [("agent_delta", {"text": "fine"})]
        assert await each.callbacks.stream.waiting() == (0, 0)


async def test_a_task_whose_record_is_broken_stops_no_other_of_its_session(
    redis_server: RedisServer, prefix: str
) -> None:
    async with stores(redis_server.url, prefix) as each:
        good, bad = await each.submit(), await each.submit()
        await each.redis.call("HSET", each.keys.task(SESSION, bad), "attempt", "many")
        await each.add(callback_fields(good, *delta(1, "a")))
        await each.add(callback_fields(bad, *delta(1)))
        await each.add(callback_fields(bad, 1, 2, "delta", b"{"))
        applied = await each.report(good, delta(2, "b"))
        assert (applied.outcomes, applied.dead) == ({"applied": 2}, {"unreadable": 2})
        assert [data["text"] for _, data in await each.told()] == ["a", "b"]


async def test_a_callback_that_fails_alone_counts_as_received(
    redis_server: RedisServer, prefix: str
) -> None:
    async with stores(redis_server.url, prefix) as each:
        task_id = await each.submit()
        await each.redis.call("RPUSH", each.keys.task_text(SESSION, task_id), "no string")
        event = (1, 2, "event", {"name": "tool"})
        applied = await each.report(task_id, STARTED, event, (1, 3, "completed", {}))
        assert (applied.outcomes, applied.dead) == ({"applied": 2}, {"unreadable": 1})
        assert [kind for kind, _ in await each.told()] == ["task_update", "agent_event", "error"]
        assert (await each.events())[-1]["offset"] == 4  # no hole, none twice
        assert (await each.dead())[0]["type"] == b"completed"


# When Redis fails in between.


@pytest.mark.parametrize("reply", range(1, 5))
async def test_a_reply_that_is_lost_at_any_step_changes_nothing_in_the_end(
    redis_server: RedisServer, prefix: str, reply: int
) -> None:
    async with (
        Proxy(redis_server.port) as proxy,
        stores(redis_server.url, prefix) as watcher,
        stores(proxy.url, prefix, socket_timeout=1.0) as each,
    ):
        task_id = await watcher.submit()
        bad: Report = (1, 2, "laughing", {})
        for report in (delta(1, "a"), bad, delta(4, "d"), delta(3, "c")):
            await watcher.add(callback_fields(task_id, *report))
        await watcher.add(callback_fields(task_id, 1, 5, "completed", {}))
        await each.callbacks.stream.ensure_group()
        entries = await watcher.read()
        proxy.latency = 0.001  # a chunk is a reply
        cut = asyncio.create_task(cut_reply(proxy, reply))
        with contextlib.suppress(RedisUnavailable):
            await each.callbacks.apply(entries)
        cut.cancel()
        proxy.cut_replies = 0
        await watcher.callbacks.apply(entries)
        assert [data.get("text") for _, data in await watcher.told()] == ["a", "c", "d", None]
        assert (await watcher.task(task_id)).status == "completed"
        assert len(await watcher.dead()) == 1
        assert await watcher.callbacks.stream.waiting() == (0, 0)


async def cut_reply(proxy: Proxy, number: int) -> None:
    """Lets `number - 1` replies pass, and cuts the next."""
    seen = proxy.replies
    while proxy.replies < seen + number - 1:
        await asyncio.sleep(0)
    proxy.cut_replies = 1


async def test_scripts_that_redis_forgot_are_loaded_in_the_middle_of_a_batch(prefix: str) -> None:
    with RedisServer() as server:
        async with stores(server.url, prefix) as each:
            tasks = [await each.submit(key_of(f"s-{i}")) for i in range(5)]
            for i, task_id in enumerate(tasks):
                await each.add(callback_fields(task_id, *delta(1), key_of(f"s-{i}")))
            await each.redis.call("SCRIPT", "FLUSH")
            assert (await each.handle()).outcomes == {"applied": 5}


async def test_a_redis_without_memory_loses_nothing(prefix: str) -> None:
    with RedisServer("--maxmemory-policy", "noeviction") as server:
        async with stores(server.url, prefix) as each:
            task_id = await each.submit()
            await each.add(callback_fields(task_id, *delta(1)))
            entries = await each.read()
            await each.redis.call("CONFIG", "SET", "maxmemory", "1")
            with pytest.raises(Overloaded):
                await each.callbacks.apply(entries)
            assert await each.callbacks.stream.waiting() == (1, 0)
            await each.redis.call("CONFIG", "SET", "maxmemory", "0")
            claimed = await each.callbacks.stream.claim(0, 10)
            assert (await each.callbacks.apply(claimed)).outcomes == {"applied": 1}
            assert await each.dead() == []


async def test_many_sessions_are_applied_in_one_go(redis_server: RedisServer, prefix: str) -> None:
    async with stores(redis_server.url, prefix) as each:
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
