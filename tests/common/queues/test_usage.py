"""What tenants use, by day: each task counts once."""

from datetime import date, timedelta
from typing import Any

from common.domain.ids import TenantId
from common.queues.usage import EPOCH
from tests.support.redis_server import RedisServer
from tests.support.stores import ACME, SESSION, STARTED, Stores, stores

NOTHING: dict[str, Any] = {
    "requests": 0,
    "completed": 0,
    "failed": 0,
    "cancelled": 0,
    "timeout": 0,
    "input_tokens": 0,
    "output_tokens": 0,
    "cost": 0.0,
}
USAGE = {"input_tokens": 3, "output_tokens": 4, "cost": 0.1}
DONE = (1, 2, "completed", {"response": "", "usage": USAGE})


async def today(stores: Stores, tenant_id: str = ACME) -> dict[str, Any]:
    """What has been used; the tests' day is whatever Redis calls it, and may end meanwhile."""
    keys = await stores.redis.call("KEYS", f"{stores.keys.prefix}usage:*")
    days = [EPOCH + timedelta(days=int(key.decode().rpartition(":")[2])) for key in keys]
    used = [await stores.usage.of(TenantId(tenant_id), day) for day in days]
    return {what: sum(each[what] for each in (NOTHING, *used)) for what in NOTHING}


async def test_nothing_is_known_of_other_days(redis_server: RedisServer, prefix: str) -> None:
    async with stores(redis_server.url, prefix) as each:
        assert await each.usage.of(ACME, date(1999, 12, 31)) == NOTHING


async def test_a_task_counts_once_however_often_it_is_told(
    redis_server: RedisServer, prefix: str
) -> None:
    async with stores(redis_server.url, prefix) as each:
        task_id = await each.submit_and_deliver()
        assert await today(each) == {**NOTHING, "requests": 1}
        for _ in range(3):
            await each.report(task_id, STARTED, DONE)
            await each.look(task_id)
            await each.turns.take(ended=[(SESSION, task_id)], entered=[(SESSION, task_id)])
        assert await today(each) == {**NOTHING, "requests": 1, "completed": 1, **USAGE}


async def test_costs_add_up_as_decimals(redis_server: RedisServer, prefix: str) -> None:
    async with stores(redis_server.url, prefix) as each:
        for _ in range(3):
            task_id = await each.submit_and_deliver()
            await each.report(task_id, STARTED, DONE)
        assert (await today(each))["cost"] == 0.3


async def test_each_end_counts_under_its_status(redis_server: RedisServer, prefix: str) -> None:
    async with stores(redis_server.url, prefix) as each:
        await each.cancel(await each.submit_and_deliver())
        failed = await each.submit_and_deliver()
        await each.report(failed, STARTED, (1, 2, "failed", {"error": {"type": "x"}}))
        late = await each.submit_and_deliver(timeout=0.001)
        while await each.look(late) is None:
            pass
        counted = await today(each)
        assert counted == {**NOTHING, "requests": 3, "cancelled": 1, "failed": 1, "timeout": 1}


async def test_what_is_no_amount_is_not_counted(redis_server: RedisServer, prefix: str) -> None:
    async with stores(redis_server.url, prefix) as each:
        odd = {"input_tokens": -5, "output_tokens": "many", "cost": None, "else": {"a": [1]}}
        for usage in (odd, {"input_tokens": 1e300, "output_tokens": 2.9, "cost": []}):
            task_id = await each.submit_and_deliver()
            done = (1, 2, "completed", {"response": "", "usage": usage})
            await each.report(task_id, STARTED, done)
        assert await today(each) == {**NOTHING, "requests": 2, "completed": 2, "output_tokens": 2}


async def test_a_day_is_kept_for_ninety_days(redis_server: RedisServer, prefix: str) -> None:
    async with stores(redis_server.url, prefix) as each:
        await each.submit_and_deliver()
        key, *_ = await each.redis.call("KEYS", f"{prefix}usage:*")
        assert 90 * 86400 - 5 <= await each.ttl(key.decode()) <= 90 * 86400
