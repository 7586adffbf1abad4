"""The stores put together."""

from common.queues.redis import Redis
from common.queues.stores import Stores, StoreSettings
from tests.support.redis_server import RedisServer


async def test_seconds_of_the_settings_become_milliseconds_of_the_limits(
    redis_server: RedisServer, prefix: str
) -> None:
    redis = Redis(redis_server.url)
    settings = StoreSettings(visibility_timeout=1.5, cancel_grace=0.25, max_wait=2)
    limits = Stores(redis, prefix, "instance-1", settings).limits
    assert (limits.visibility_timeout_ms, limits.cancel_grace_ms) == (1500, 250)
    assert limits.max_wait_ms == 2000
    await redis.close()


async def test_every_store_works_under_the_same_prefix(
    redis_server: RedisServer, prefix: str
) -> None:
    redis = Redis(redis_server.url)
    stores = Stores(redis, prefix, "instance-1")
    await stores.work.ensure_groups()
    await stores.callbacks.stream.ensure_group()
    await stores.pushes.stream.ensure_group()
    made = sorted(await redis.call("KEYS", f"{prefix}*"))
    assert made == sorted(
        name.encode()
        for name in (*stores.keys.work_streams, stores.keys.callbacks, stores.keys.actions)
    )
    await redis.close()
