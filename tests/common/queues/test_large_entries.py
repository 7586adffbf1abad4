"""What may be a megabyte each is read a few at a time, and nothing is left out over it."""

import random
from itertools import pairwise

import pytest

from common.domain.actions import WebSocketSendAction
from common.queues.dead_letters import LIST_BYTES, LetterQueue
from common.queues.session_log import PAGE_BYTES, LogPage
from common.queues.streams import Entry
from tests.support.redis_server import RedisServer
from tests.support.stores import ACME, SESSION, Stores, stores

CALLBACKS = LetterQueue.CALLBACKS


async def push(each: Stores, *sizes: int) -> None:
    for size in sizes:
        action = WebSocketSendAction(
            tenant_id=ACME,
            session_id=SESSION.session_id,
            message_data={"text": "x" * size},
            message_type="note",
        )
        await each.log.push(action)


async def pages(each: Stores, limit: int = 1000) -> list[LogPage]:
    """All of the session's log."""
    found = [await each.log.read(SESSION, 0, limit)]
    while not found[-1].is_last:
        found.append(await each.log.read(SESSION, found[-1].events[-1].offset, limit))
    return found


def offsets_of(page: LogPage) -> list[int]:
    return [event.offset for event in page.events]


def size_of(page: LogPage) -> int:
    return sum(len(event.entry) for event in page.events)


async def test_a_page_of_a_log_has_a_megabyte_at_the_most(
    redis_server: RedisServer, prefix: str
) -> None:
    async with stores(redis_server.url, prefix) as each:
        await push(each, *[100_000] * 25)
        assert [offsets_of(page) for page in await pages(each)] == [
            list(range(1, 11)),
            list(range(11, 21)),
            list(range(21, 26)),
        ]


async def test_an_event_larger_than_a_page_is_one_by_itself(
    redis_server: RedisServer, prefix: str
) -> None:
    async with stores(redis_server.url, prefix) as each:
        await push(each, 10, 10, PAGE_BYTES + 1, PAGE_BYTES * 2, 10)
        found = [offsets_of(page) for page in await pages(each)]
        assert found == [[1, 2], [3], [4], [5]]


async def test_entries_of_a_megabyte_exactly_fill_a_page(
    redis_server: RedisServer, prefix: str
) -> None:
    async with stores(redis_server.url, prefix) as each:
        await push(each, 1)
        (page,) = await pages(each)
        beside = size_of(page) - 1  # bytes of an entry that are not its text
        await push(each, PAGE_BYTES // 2 - beside, PAGE_BYTES // 2 - beside, 1)
        page = await each.log.read(SESSION, 1, 1000)
        assert (offsets_of(page), size_of(page)) == ([2, 3], PAGE_BYTES)
        assert not page.is_last


@pytest.mark.parametrize("limit", [1, 2, 15, 16, 17, 1000])
@pytest.mark.parametrize("seed", range(3))
async def test_pages_of_events_of_any_size_miss_nothing(
    redis_server: RedisServer, prefix: str, seed: int, limit: int
) -> None:
    dice = random.Random(seed)
    sizes = [dice.choice((1, 1, 1, 10_000, 300_000, 1_100_000)) for _ in range(60)]
    async with stores(redis_server.url, prefix) as each:
        await push(each, *sizes)
        found = await pages(each, limit)
        assert [offset for page in found for offset in offsets_of(page)] == list(range(1, 61))
        for page in found:
            assert 1 <= len(page.events) <= limit
            assert len(page.events) == 1 or size_of(page) <= PAGE_BYTES
        for page, following in pairwise(found):
            next_one = len(following.events[0].entry)
            assert len(page.events) == limit or size_of(page) + next_one > PAGE_BYTES


async def test_what_follows_a_page_says_whether_it_is_the_last(
    redis_server: RedisServer, prefix: str
) -> None:
    async with stores(redis_server.url, prefix) as each:
        assert (await each.log.read(SESSION, 0, 5)).is_last
        await push(each, 1, 1, 1)
        told = [(await each.log.read(SESSION, after, 2)).is_last for after in (0, 1, 2, 3, 9)]
        assert told == [False, True, True, True, True]


async def bury(each: Stores, *sizes: int) -> None:
    for number, size in enumerate(sizes):
        fields = {b"number": b"%d" % number, b"data": b"x" * size}
        await each.letters.bury_callback("stream", Entry(b"%d-0" % number, fields), "unreadable")


async def numbers(each: Stores, limit: int, *, is_even: bool = False) -> list[int]:
    letters = await each.letters.newest(
        CALLBACKS, limit, lambda letter: not is_even or int(letter.fields[b"number"]) % 2 == 0
    )
    return [int(letter.fields[b"number"]) for letter in letters]


async def test_a_list_of_letters_ends_where_they_would_be_too_much(
    redis_server: RedisServer, prefix: str
) -> None:
    async with stores(redis_server.url, prefix) as each:
        await bury(each, *[900_000] * 10)
        assert await numbers(each, 1000) == [9, 8, 7, 6]
        assert await numbers(each, 3) == [9, 8, 7]
        assert await numbers(each, 1000, is_even=True) == [8, 6, 4, 2]


async def test_a_letter_larger_than_a_list_is_told_all_the_same(
    redis_server: RedisServer, prefix: str
) -> None:
    async with stores(redis_server.url, prefix) as each:
        await bury(each, 10, LIST_BYTES + 1)
        assert await numbers(each, 1000) == [1]


async def test_letters_of_any_size_are_all_found(redis_server: RedisServer, prefix: str) -> None:
    dice = random.Random(1)
    sizes = [dice.choice((1, 1, 1, 10_000, 1_100_000)) for _ in range(12)] + [1] * 80
    async with stores(redis_server.url, prefix) as each:
        await bury(each, *sizes)
        told = await numbers(each, 1000)
        assert told == list(range(91, 91 - len(told), -1))
        assert len(told) >= 80
        for limit in (1, 2, 3, 15, 16, 17, 31, 32, 80):
            assert await numbers(each, limit) == told[:limit]
