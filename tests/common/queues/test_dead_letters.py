"""Dead letters: kept once, with their reason, found and sent again."""

import asyncio

import pytest

from common.domain.errors import NotFound
from common.queues.dead_letters import FIELDS_KEPT, LETTERS_KEPT, LetterQueue
from common.queues.streams import Entry
from tests.support.redis_server import RedisServer
from tests.support.stores import SESSION, callback_fields, entry_of, stores

CALLBACKS, EXECUTE = LetterQueue.CALLBACKS, LetterQueue.EXECUTE


async def test_an_entry_is_kept_once_whoever_buries_it(
    redis_server: RedisServer, prefix: str
) -> None:
    async with stores(redis_server.url, prefix) as each:
        entry = Entry(b"1-0", {b"task_id": b"t", b"reason": b"its own", b"binary": b"\xff"})
        outcomes = await asyncio.gather(
            *(each.letters.bury_callback("stream", entry, "unreadable") for _ in range(5))
        )
        assert sorted(outcomes) == [False] * 4 + [True]
        assert await each.dead() == [
            {
                "reason": b"unreadable",
                "stream": b"stream",
                "entry_id": b"1-0",
                "task_id": b"t",
                "original_reason": b"its own",
                "binary": b"\xff",
            }
        ]
        assert await each.letters.bury_callback("another stream", entry, "unreadable")


async def test_the_two_queues_do_not_mix(redis_server: RedisServer, prefix: str) -> None:
    async with stores(redis_server.url, prefix) as each:
        await each.letters.bury_work("stream", Entry(b"1-0", {}), "max_attempts")
        assert await each.dead() == []
        (letter,) = await each.letters.newest(EXECUTE, 10)
        assert (letter.reason, letter.stream, letter.fields) == ("max_attempts", "stream", {})
        assert await each.letters.newest(CALLBACKS, 10) == []


async def test_an_entry_of_countless_fields_is_cut(redis_server: RedisServer, prefix: str) -> None:
    async with stores(redis_server.url, prefix) as each:
        fields = {b"f%d" % i: b"" for i in range(9000)}
        await each.letters.bury_callback("stream", Entry(b"1-0", fields), "unreadable")
        (letter,) = await each.letters.newest(CALLBACKS, 10)
        assert len(letter.fields) == FIELDS_KEPT


async def test_only_about_the_newest_are_kept(redis_server: RedisServer, prefix: str) -> None:
    async with stores(redis_server.url, prefix, socket_timeout=30.0) as each:
        await each.redis.batch(
            [("XADD", each.keys.dead_callbacks, f"{i}-1", "a", "b") for i in range(1, 12_000)]
        )
        await each.letters.bury_callback("stream", Entry(b"1-0", {}), "unreadable")
        kept = await each.redis.call("XLEN", each.keys.dead_callbacks)
        assert LETTERS_KEPT <= kept < LETTERS_KEPT + 200


async def test_the_newest_are_told_first(redis_server: RedisServer, prefix: str) -> None:
    async with stores(redis_server.url, prefix) as each:
        for number in range(5):
            await each.letters.bury_callback("s", Entry(b"%d-0" % number, {}), f"reason-{number}")
        newest = await each.letters.newest(CALLBACKS, 3)
        assert [letter.reason for letter in newest] == ["reason-4", "reason-3", "reason-2"]
        assert await each.letters.find(CALLBACKS, newest[0].id) == newest[0]


async def test_those_that_are_wanted_are_found_behind_any_number_of_others(
    redis_server: RedisServer, prefix: str
) -> None:
    async with stores(redis_server.url, prefix) as each:
        for number in range(250):
            kind = b"wanted" if number in (0, 100, 101) else b"other"
            entry = Entry(b"%d-0" % number, {b"kind": kind, b"number": b"%d" % number})
            await each.letters.bury_callback("s", entry, "reason")
        for limit, found in ((1, [101]), (2, [101, 100]), (3, [101, 100, 0]), (9, [101, 100, 0])):
            letters = await each.letters.newest(
                CALLBACKS, limit, lambda letter: letter.fields[b"kind"] == b"wanted"
            )
            assert [int(letter.fields[b"number"]) for letter in letters] == found
        assert await each.letters.newest(CALLBACKS, 9, lambda _: False) == []


async def test_a_callback_is_added_again_as_it_was(redis_server: RedisServer, prefix: str) -> None:
    async with stores(redis_server.url, prefix) as each:
        await each.callbacks.stream.ensure_group()
        entry = entry_of({**callback_fields("t", 1, 1, "what", {}), "reason": "its own"})
        await each.letters.bury_callback(each.keys.callbacks, entry, "unknown_type")
        (letter,) = await each.letters.newest(CALLBACKS, 1)
        entry_id = await each.letters.requeue_callback(letter.id)
        (again,) = await each.read()
        assert (again.id.decode(), again.fields) == (entry_id, entry.fields)
        assert await each.dead() == []
        with pytest.raises(NotFound):
            await each.letters.requeue_callback(letter.id)


async def test_a_letter_can_be_thrown_away(redis_server: RedisServer, prefix: str) -> None:
    async with stores(redis_server.url, prefix) as each:
        await each.letters.bury_callback("s", Entry(b"1-0", {}), "unreadable")
        (letter,) = await each.letters.newest(CALLBACKS, 1)
        with pytest.raises(NotFound):
            await each.letters.delete(EXECUTE, letter.id)
        await each.letters.delete(CALLBACKS, letter.id)
        with pytest.raises(NotFound):
            await each.letters.delete(CALLBACKS, letter.id)


@pytest.mark.parametrize(
    "letter_id",
    ["", "1", "+", "-", "1-0", f"{2**64}-0", f"0-{2**64}", "\u0661-0", "x-y", "1 2-0"],
)
async def test_what_is_no_letter_is_not_found(
    redis_server: RedisServer, prefix: str, letter_id: str
) -> None:
    async with stores(redis_server.url, prefix) as each:
        for attempt in (
            each.letters.find(CALLBACKS, letter_id),
            each.letters.delete(CALLBACKS, letter_id),
        ):
            with pytest.raises(NotFound):
                await attempt


def test_a_session_is_part_of_what_is_kept() -> None:
    assert entry_of(callback_fields("t", 1, 1, "x", {})).fields[b"session_id"] == (
        SESSION.session_id.encode()
    )
