"""The look at what is in workers' hands comes every second, and leaves messages in Redis."""

import asyncio

from common.queues.keys import WORK_GROUP
from common.queues.work import TAKEN_PAGE
from tests.support.redis_server import RedisServer
from tests.support.stores import Stores, stores


async def add_and_take(each: Stores, count: int, size: int) -> None:
    stream = each.keys.work_streams[1]
    await each.work.ensure_groups()
    for number in range(count):
        await each.redis.call("XADD", stream, "*", "task_id", f"t{number}", "action", "x" * size)
    # In a script, so that nothing of it is sent here.
    take = "redis.call('XREADGROUP', 'GROUP', ARGV[1], 'w', 'STREAMS', KEYS[1], '>')"
    await each.redis.call("EVAL", take, 1, stream, WORK_GROUP)


async def sent_by(each: Stores) -> int:
    """Bytes that Redis has sent to anyone."""
    told: bytes = await each.redis.call("INFO", "stats")
    ((_, _, value),) = [
        line.partition(b":")
        for line in told.splitlines()
        if line.startswith(b"total_net_output_bytes:")
    ]
    return int(value)


async def test_ids_are_told_and_no_messages(prefix: str) -> None:
    size, count = 100_000, 20
    with RedisServer() as server:
        async with stores(server.url, prefix) as each:
            await add_and_take(each, count, size)
            await each.work.taken()  # which brings its script along
            before = await sent_by(each)
            taken = await each.work.taken()
            assert await sent_by(each) - before < size
            assert {entry.task_id for entry in taken} == {f"t{i}" for i in range(count)}


async def test_pages_that_end_exactly_are_read_to_the_last(
    redis_server: RedisServer, prefix: str
) -> None:
    async with stores(redis_server.url, prefix) as each:
        await add_and_take(each, 2 * TAKEN_PAGE, 1)
        found = [entry.task_id for entry in await each.work.taken()]
        assert found == [f"t{i}" for i in range(2 * TAKEN_PAGE)]


async def test_what_several_bury_at_once_is_one_letter_with_the_whole_entry(
    redis_server: RedisServer, prefix: str
) -> None:
    async with stores(redis_server.url, prefix) as each:
        await add_and_take(each, 1, 1000)
        (taken,) = await each.work.taken()
        buried = await asyncio.gather(*(each.work.bury(taken, "max_attempts") for _ in range(5)))
        assert sum(buried) == 1
        (letter,) = await each.dead_work()
        assert (letter["task_id"], letter["action"]) == (b"t0", b"x" * 1000)
        assert not await each.work.bury(taken, "max_attempts"), "it is gone"


async def test_a_page_of_deleted_entries_hides_none_behind_it(
    redis_server: RedisServer, prefix: str
) -> None:
    async with stores(redis_server.url, prefix) as each:
        await add_and_take(each, TAKEN_PAGE + 1, 1)
        stream = each.keys.work_streams[1]
        found = await each.redis.call("XRANGE", stream, "-", "+", "COUNT", TAKEN_PAGE)
        await each.redis.call("XDEL", stream, *(entry_id for entry_id, _ in found))
        assert [entry.task_id for entry in await each.work.taken()] == [f"t{TAKEN_PAGE}"]


async def test_a_count_that_is_none_hides_nobody_elses(
    redis_server: RedisServer, prefix: str
) -> None:
    """Workers are others' programs, and write these keys themselves."""
    async with stores(redis_server.url, prefix) as each:
        await add_and_take(each, 4, 1)
        for number, count in enumerate(("3", "many", "9" * 40)):
            await each.redis.call("SET", f"{prefix}attempt:t{number}", count)
        await each.redis.call("LPUSH", f"{prefix}attempt:t3", 1)
        assert [entry.attempt for entry in await each.work.taken()] == [3, 0, 0, 0]
