"""What is left to do when a task is stopped, or has ended."""

import orjson

from common.queues.redis import connect
from tests.support.redis_server import RedisServer
from tests.support.stores import SESSION, Stores


async def test_workers_are_told_by_key_and_by_channel(
    redis_server: RedisServer, prefix: str
) -> None:
    stores = Stores(redis_server.url, prefix)
    task_id = await stores.submit()
    client = connect(redis_server.url, socket_timeout=5)
    listener = client.pubsub()
    await listener.subscribe(stores.keys.control)
    assert (await listener.get_message(timeout=5))["type"] == "subscribe"

    await stores.ends.tell_workers([(SESSION, task_id, "enough")])

    heard = orjson.loads((await listener.get_message(timeout=5))["data"])
    assert heard == {
        "type": "cancel",
        "task_id": task_id,
        "tenant_id": SESSION.tenant_id,
        "session_id": SESSION.session_id,
        "reason": "enough",
    }
    assert await stores.redis.call("GET", stores.keys.cancel(task_id)) == b"enough"
    assert 86_000 < await stores.redis.call("TTL", stores.keys.cancel(task_id)) <= 86_400
    await listener.aclose()  # type: ignore[no-untyped-call]
    await client.aclose()
    await stores.close()


async def test_tidying_up_lets_the_id_expire_and_no_look_is_due(
    redis_server: RedisServer, prefix: str
) -> None:
    stores = Stores(redis_server.url, prefix, ttl=60)
    task_id = await stores.submit()
    pointer = stores.keys.task_session(task_id)
    assert await stores.redis.call("TTL", pointer) == -1

    for _ in range(2):  # it may be repeated
        await stores.ends.tidy([(SESSION, task_id)])

    assert 0 < await stores.redis.call("TTL", pointer) <= 60
    assert await stores.redis.call("ZCARD", stores.keys.due(task_id)) == 0
    await stores.close()
