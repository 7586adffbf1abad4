"""One bad callback harms only itself, and at most its task or its session."""

import orjson
import pytest

from common.domain.ids import TaskId
from tests.support.redis_server import RedisServer
from tests.support.stores import (
    OTHER_SESSION,
    SESSION,
    STARTED,
    callback_fields,
    delta,
    key_of,
    stores,
)

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
