"""A session's log: numbered without holes, kept as long as the contract says, told as it grows."""

import asyncio
from typing import Any

import orjson
import pytest
from redis.asyncio import Redis as Client

from common.domain.actions import WebSocketSendAction
from common.queues.session_log import LogState, SessionLog
from tests.support.redis_server import RedisServer
from tests.support.stores import ACME, OTHER_SESSION, SESSION, Stores, stores


def push(data: object = None, **fields: Any) -> WebSocketSendAction:
    return WebSocketSendAction(
        tenant_id=ACME,
        session_id=SESSION.session_id,
        message_data={"n": data},
        **({"message_type": "note"} | fields),
    )


def as_given(ttl: int) -> int:
    """100 for what had 100 s just now: some of them have passed."""
    return 100 if 90 < ttl <= 100 else ttl


async def test_a_session_that_nobody_used_has_no_log(
    redis_server: RedisServer, prefix: str
) -> None:
    async with stores(redis_server.url, prefix) as each:
        page = await each.log.read(SESSION, 0, 10)
        assert (page.state, page.events) == (LogState(epoch=None, last=0, oldest=0), ())


async def test_joining_begins_the_log_once(redis_server: RedisServer, prefix: str) -> None:
    async with stores(redis_server.url, prefix) as each:
        first = await each.log.join(SESSION)
        assert (first.last, first.oldest) == (0, 0)
        assert first.epoch is not None
        assert await each.log.join(SESSION) == first
        assert (await each.log.join(OTHER_SESSION)).epoch != first.epoch


async def test_pushes_are_numbered_without_holes_and_kept_as_they_came(
    redis_server: RedisServer, prefix: str
) -> None:
    async with stores(redis_server.url, prefix) as each:
        for number in range(5):
            assert await each.log.push(push(number, metadata={"k": []} if number else {}))
        events = await each.events()
        assert [event["offset"] for event in events] == [1, 2, 3, 4, 5]
        assert [event["data"] for event in events] == [{"n": number} for number in range(5)]
        assert "metadata" not in events[0]
        assert events[1]["metadata"] == {"k": []}
        assert "task_id" not in events[0]


async def test_a_push_is_done_once_for_its_action_id(
    redis_server: RedisServer, prefix: str
) -> None:
    async with stores(redis_server.url, prefix) as each:
        action = push(1)
        outcomes = await asyncio.gather(*(each.log.push(action) for _ in range(10)))
        assert sorted(outcomes) == [False] * 9 + [True]
        assert len(await each.events()) == 1
        mark = each.keys.pushed(SESSION, action.action_id)
        assert 86_000 < await each.ttl(mark) <= 86_400


async def test_a_page_holds_what_follows_an_offset(redis_server: RedisServer, prefix: str) -> None:
    async with stores(redis_server.url, prefix) as each:
        for number in range(5):
            await each.log.push(push(number))
        page = await each.log.read(SESSION, 2, 2)
        assert [event.offset for event in page.events] == [3, 4]
        assert (page.state.last, page.state.oldest) == (5, 1)
        assert (await each.log.read(SESSION, 5, 2)).events == ()
        assert (await each.log.read(SESSION, 99, 2)).events == ()


async def test_only_the_newest_events_are_kept(redis_server: RedisServer, prefix: str) -> None:
    async with stores(redis_server.url, prefix, max_events=3) as each:
        for number in range(5):
            await each.log.push(push(number))
        state = await each.log.join(SESSION)
        assert (state.last, state.oldest) == (5, 3)
        assert [event["offset"] for event in await each.events()] == [3, 4, 5]


async def test_more_events_in_one_step_than_are_kept_leave_the_newest(
    redis_server: RedisServer, prefix: str
) -> None:
    async with stores(redis_server.url, prefix, max_events=3) as each:
        task_id = await each.submit()
        await each.report(task_id, *((1, seq, "delta", {"text": "x"}) for seq in range(1, 9)))
        assert [event["offset"] for event in await each.events()] == [7, 8, 9]


async def test_an_idle_log_expires_after_its_last_event_and_begins_anew(
    redis_server: RedisServer, prefix: str
) -> None:
    async with stores(redis_server.url, prefix, ttl=100) as each:
        await each.log.push(push())
        before = await each.log.join(SESSION)
        for key in (each.keys.session_meta(SESSION), each.keys.session_log(SESSION)):
            assert as_given(await each.ttl(key)) == 100
            await each.redis.call("PEXPIRE", key, 1)  # as if its time had come
            while await each.exists(key):
                await asyncio.sleep(0.01)  # for Redis's own clock
        await each.log.push(push())
        after = await each.log.join(SESSION)
        assert after.epoch != before.epoch
        assert (after.last, after.oldest) == (1, 1)


async def test_joining_does_not_prolong_a_log(redis_server: RedisServer, prefix: str) -> None:
    async with stores(redis_server.url, prefix, ttl=100) as each:
        await each.log.push(push())
        await each.redis.call("EXPIRE", each.keys.session_meta(SESSION), 50)
        await each.log.join(SESSION)
        assert await each.ttl(each.keys.session_meta(SESSION)) <= 50
        await each.log.push(push())
        assert await each.ttl(each.keys.session_meta(SESSION)) > 50


async def test_nothing_expires_while_a_task_is_open(redis_server: RedisServer, prefix: str) -> None:
    async with stores(redis_server.url, prefix, ttl=100) as each:
        await each.log.push(push())
        meta, log = each.keys.session_meta(SESSION), each.keys.session_log(SESSION)
        assert [as_given(await each.ttl(key)) for key in (meta, log)] == [100, 100]
        first, second = await each.submit(), await each.submit()
        await each.log.push(push())
        keys = [meta, log, each.keys.task(SESSION, first), each.keys.task_session(first)]
        await each.report(first, (1, 1, "delta", {"text": "x"}))
        keys.append(each.keys.task_text(SESSION, first))
        assert [await each.ttl(key) for key in keys] == [-1] * 5
        await each.report(first, (1, 2, "cancelled", {}))
        assert [as_given(await each.ttl(key)) for key in keys] == [-1, -1, 100, 100, 100]
        await each.report(second, (1, 1, "completed", {}))
        assert [as_given(await each.ttl(key)) for key in keys[:2]] == [100, 100]
        assert not await each.exists(each.keys.session_open(SESSION))


async def test_a_leftover_of_an_earlier_life_is_not_continued(
    redis_server: RedisServer, prefix: str
) -> None:
    async with stores(redis_server.url, prefix) as each:
        await each.log.push(push(1))
        await each.log.push(push(2))
        await each.redis.call("DEL", each.keys.session_meta(SESSION))
        assert (await each.log.read(SESSION, 0, 10)).events == ()
        await each.log.push(push(3))
        assert [(e["offset"], e["data"]) for e in await each.events()] == [(1, {"n": 3})]


async def test_what_is_kept_is_published_as_one_message_of_lines(
    redis_server: RedisServer, prefix: str
) -> None:
    async with (
        stores(redis_server.url, prefix) as each,
        Client.from_url(redis_server.url) as client,
        client.pubsub(ignore_subscribe_messages=True) as listener,
    ):
        await listener.subscribe(each.keys.session_channel(SESSION))
        await listener.get_message(timeout=5)
        task_id = await each.submit()
        await each.report(
            task_id,
            *((1, 1, "delta", b'{"text":"a",\n"e":[]}'), (1, 2, "typing", {})),
            (1, 3, "delta", {"text": "b"}),
        )
        told = [await listener.get_message(timeout=5) for _ in range(3)]
        epoch = (await each.log.join(SESSION)).epoch
        assert epoch is not None
        submitted, passing, kept = [each["data"].split(b"\n") for each in told]
        assert submitted[0] == f"E {epoch} 1".encode()
        assert kept[0] == f"E {epoch} 2".encode()
        assert kept[1:] == [event.entry for event in (await each.log.read(SESSION, 1, 9)).events]
        assert passing[0] == b"T"
        assert orjson.loads(passing[1])["type"] == "typing_indicator"


async def test_payloads_are_never_decoded_on_their_way(
    redis_server: RedisServer, prefix: str
) -> None:
    data = b'{"text":"","n":12345678901234567890,"f":1.10,"e":[],"o":{},"u":"\\u00e9/"}'
    async with stores(redis_server.url, prefix) as each:
        task_id = await each.submit()
        await each.report(task_id, (1, 1, "delta", data))
        page = await each.log.read(SESSION, 1, 1)
        assert b'"data":' + data + b"," in page.events[0].entry


@pytest.mark.parametrize("limit", [1, 7, 1000])
async def test_reading_page_by_page_misses_nothing(
    redis_server: RedisServer, prefix: str, limit: int
) -> None:
    async with stores(redis_server.url, prefix) as each:
        task_id = await each.submit()
        await each.report(task_id, *((1, seq, "delta", {"text": "x"}) for seq in range(1, 30)))
        assert await offsets_by_page(each, each.log, limit) == list(range(1, 31))


async def offsets_by_page(each: Stores, log: SessionLog, limit: int) -> list[int]:
    found: list[int] = []
    while page := (await log.read(SESSION, len(found), limit)).events:
        found += [event.offset for event in page]
    return found
