"""How a task whose turn has come gets into a work stream."""

import orjson

from common.domain.actions import IfBusy, Priority
from common.domain.ids import TaskId
from tests.support.redis_server import RedisServer
from tests.support.stores import SESSION, Stores


async def entries(stores: Stores) -> list[dict[bytes, bytes]]:
    found = await stores.redis.call("XRANGE", stores.keys.work_stream(Priority.NORMAL), "-", "+")
    return [dict(zip(flat[::2], flat[1::2], strict=True)) for _, flat in found]


async def test_a_task_released_twice_is_delivered_once(
    redis_server: RedisServer, prefix: str
) -> None:
    stores = Stores(redis_server.url, prefix)
    task_id = await stores.submit()
    for _ in range(2):
        await stores.turns.release(SESSION, [task_id])
    assert [entry[b"task_id"] for entry in await entries(stores)] == [task_id.encode()]
    await stores.close()


async def test_a_task_that_is_unknown_by_now_is_left_out(
    redis_server: RedisServer, prefix: str
) -> None:
    stores = Stores(redis_server.url, prefix)
    await stores.turns.release(SESSION, [TaskId("gone")])
    assert await entries(stores) == []
    await stores.close()


async def test_the_deadline_begins_when_the_task_enters_the_stream(
    redis_server: RedisServer, prefix: str
) -> None:
    stores = Stores(redis_server.url, prefix)
    first = await stores.submit_and_deliver(timeout=100.0, if_busy=IfBusy.ENQUEUE)
    second = await stores.submit(timeout=100.0, if_busy=IfBusy.ENQUEUE)
    await stores.turns.release(SESSION, [second])
    one, two = (orjson.loads(entry[b"action"]) for entry in await entries(stores))
    assert (one["action_id"], two["action_id"]) == (first, second)
    assert two["deadline"] >= one["deadline"] > 0
    noted = await stores.redis.call("HGET", stores.keys.task(SESSION, second), "deadline")
    assert int(noted) == two["deadline"]
    await stores.close()


async def test_a_retry_keeps_its_deadline_and_its_old_entry_goes(
    redis_server: RedisServer, prefix: str
) -> None:
    stores = Stores(redis_server.url, prefix, retry_backoff_ms=1)
    task_id = await stores.submit_and_deliver()
    (before,) = await entries(stores)
    failure = {"error": {"type": "busy", "message": "try again"}, "retryable": True}
    await stores.report(task_id, (1, 1, "started", {}), (1, 2, "failed", failure))
    assert await entries(stores) == []
    await stores.turns.release(SESSION, [task_id])
    (after,) = await entries(stores)
    assert orjson.loads(after[b"action"]) == orjson.loads(before[b"action"])
    await stores.close()
