"""What a tenant's messages are held to: requests, tokens, tasks that wait (contract, 5 and 8)."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from common.domain.actions import IfBusy, Priority
from common.domain.errors import (
    Forbidden,
    IdempotencyConflict,
    OrchestratorError,
    Overloaded,
    QueueFull,
    QuotaExceeded,
    RateLimited,
    SessionBusy,
    TooMany,
)
from common.domain.ids import TenantId
from common.domain.tasks import Submitted
from config.settings import TierSettings
from tests.support.redis_server import RedisServer
from tests.support.stores import ACME, SESSION, Stores, key_of, message, stores

KEY = "0f9be5a4-6d5b-44b3-9f34-9f1a4b4b7a10"
HOUR_US, MINUTE_US = 3_600_000_000, 60_000_000
ROOM = {"socket_timeout": 30.0}  # for many at once, however busy the machine is


def only(**limits: Any) -> Callable[[TenantId], TierSettings | None]:
    return lambda tenant_id: TierSettings(**limits) if tenant_id == ACME else TierSettings()


async def refused(stores: Stores, session: str = "s", **fields: Any) -> TooMany:
    outcome = await stores.submit_action(message(key_of(session), **fields))
    assert isinstance(outcome, TooMany), outcome
    return outcome


async def pass_time(stores: Stores, micros: int) -> None:
    """As if all requests of the tenant had come so much earlier."""
    requests = f"{stores.keys.prefix}tenant:{{{ACME}}}:requests"
    for request in await stores.redis.call("ZRANGE", requests, 0, -1):
        await stores.redis.call("ZINCRBY", requests, -micros, request)


async def now(stores: Stores) -> float:
    """Redis's clock, by which all of this is counted; in seconds."""
    seconds, micros = await stores.redis.call("TIME")
    return int(seconds) + int(micros) / 1_000_000


async def test_no_more_requests_a_minute_than_allowed(
    redis_server: RedisServer, prefix: str
) -> None:
    async with stores(redis_server.url, prefix, tier_of=only(requests_per_minute=2)) as each:
        begun = await now(each)
        await each.submit(key_of("a"))
        await each.submit(key_of("b"))
        error = await refused(each)
        assert isinstance(error, RateLimited)
        assert (error.limit, error.remaining) == (2, 0)
        assert begun + 60 - await now(each) <= error.reset <= 60
        assert error.retry_after == error.reset
        assert isinstance(await each.submit(key_of("a", "other")), str)


async def test_the_window_slides(redis_server: RedisServer, prefix: str) -> None:
    async with stores(redis_server.url, prefix, tier_of=only(requests_per_minute=2)) as each:
        begun = await now(each)
        await each.submit(key_of("a"))
        await pass_time(each, MINUTE_US // 2)
        await each.submit(key_of("b"))
        reset = (await refused(each)).reset
        assert begun + 30 - await now(each) <= reset <= 30
        await pass_time(each, MINUTE_US // 2)  # the first has left the window, the second has not
        await each.submit(key_of("c"))
        reset = (await refused(each)).reset
        assert begun + 30 - await now(each) <= reset <= 30


async def test_the_hour_counts_beside_the_minute(redis_server: RedisServer, prefix: str) -> None:
    limits = only(requests_per_minute=2, requests_per_hour=3)
    async with stores(redis_server.url, prefix, tier_of=limits) as each:
        begun = await now(each)
        for _ in range(3):
            await each.submit(key_of("a"))
            await pass_time(each, MINUTE_US)
        error = await refused(each)
        assert error.limit == 3
        assert begun + 3600 - 180 - await now(each) <= error.reset <= 3600 - 180
        await pass_time(each, HOUR_US)
        await each.submit(key_of("a"))


async def test_a_repetition_is_one_request_and_is_answered_at_the_limit(
    redis_server: RedisServer, prefix: str
) -> None:
    async with stores(redis_server.url, prefix, tier_of=only(requests_per_minute=2)) as each:
        keyed: dict[str, Any] = {"idempotency_key": KEY, "fingerprint": "f"}
        first = await each.submit_action(message(**keyed))
        assert isinstance(first, Submitted)
        for _ in range(3):
            again = await each.submit_action(message(**keyed))
            assert isinstance(again, Submitted)
            assert again.replayed
        conflict = await each.submit_action(message(idempotency_key=KEY, fingerprint="g"))
        assert isinstance(conflict, IdempotencyConflict)
        await each.submit(key_of("b"))
        assert isinstance(await each.submit_action(message()), RateLimited)
        again = await each.submit_action(message(**keyed))
        assert isinstance(again, Submitted)
        assert again.task_id == first.task_id


async def test_a_repetition_after_its_window_counts_nothing(
    redis_server: RedisServer, prefix: str
) -> None:
    async with stores(redis_server.url, prefix, tier_of=only(requests_per_minute=1)) as each:
        keyed: dict[str, Any] = {"idempotency_key": KEY, "fingerprint": "f"}
        await each.submit_action(message(**keyed))
        await pass_time(each, MINUTE_US)
        again = await each.submit_action(message(**keyed))
        assert isinstance(again, Submitted)
        assert again.replayed
        await each.submit(key_of("b"))
        assert isinstance(await each.submit_action(message()), RateLimited)


async def test_what_is_refused_otherwise_is_taken_back(
    redis_server: RedisServer, prefix: str
) -> None:
    limits = only(requests_per_minute=2, max_queued=2)
    async with stores(redis_server.url, prefix, tier_of=limits) as each:
        await each.submit()
        for _ in range(5):
            busy = await each.submit_action(message(if_busy=IfBusy.REJECT))
            assert isinstance(busy, SessionBusy)
        await each.submit(key_of("b"))
        assert isinstance(await each.submit_action(message()), RateLimited)


async def test_fifty_at_once_on_two_instances_are_held_to_the_limit_exactly(
    redis_server: RedisServer, prefix: str
) -> None:
    limits = only(requests_per_minute=20)
    async with (
        stores(redis_server.url, prefix, tier_of=limits, **ROOM) as one,
        stores(redis_server.url, prefix, tier_of=limits, consumer="two", **ROOM) as two,
    ):
        outcomes = await asyncio.gather(
            *(
                each.submit_action(message(key_of(f"s{i}")))
                for i in range(25)
                for each in (one, two)
            )
        )
        assert sum(isinstance(outcome, Submitted) for outcome in outcomes) == 20


@pytest.mark.parametrize("at_once", [1, 5, 25])
async def test_the_queue_is_held_to_its_limit_exactly(
    redis_server: RedisServer, prefix: str, at_once: int
) -> None:
    limits = only(max_queued=7, max_running=5)
    async with (
        stores(redis_server.url, prefix, tier_of=limits, **ROOM) as one,
        stores(redis_server.url, prefix, tier_of=limits, consumer="two", **ROOM) as two,
    ):

        async def send(each: Stores, name: str, first: int) -> list[Submitted | OrchestratorError]:
            actions = [message(key_of(f"{name}-{first + i}")) for i in range(at_once)]
            outcomes = await each.submissions.submit(actions)
            taken = zip(actions, outcomes, strict=True)
            await each.submissions.set_out([(a, o) for a, o in taken if isinstance(o, Submitted)])
            return outcomes

        batches = await asyncio.gather(
            *(send(one, "one", first) for first in range(0, 25, at_once)),
            *(send(two, "two", first) for first in range(0, 25, at_once)),
        )
        outcomes = [outcome for batch in batches for outcome in batch]
        assert sum(isinstance(outcome, Submitted) for outcome in outcomes) == 5 + 7
        assert {type(outcome) for outcome in outcomes} == {Submitted, QueueFull}


async def test_tasks_that_wait_in_their_session_count_as_waiting(
    redis_server: RedisServer, prefix: str
) -> None:
    limits = only(max_queued=2, max_running=5)
    async with stores(redis_server.url, prefix, tier_of=limits) as each:
        enqueue: dict[str, Any] = {"if_busy": IfBusy.ENQUEUE}
        for _ in range(3):  # one runs, two wait
            await each.submit_and_deliver(**enqueue)
        assert isinstance(await refused(each, SESSION.session_id, **enqueue), QueueFull)


async def test_tokens_of_a_day_end_with_the_day(redis_server: RedisServer, prefix: str) -> None:
    async with stores(redis_server.url, prefix, tier_of=only(tokens_per_day=100)) as each:
        while await now(each) % 86400 > 86400 - 5:
            await asyncio.sleep(0.1)  # the day is not to end in the middle of it
        task_id = await each.submit_and_deliver()
        usage = {"input_tokens": 60, "output_tokens": 40, "cost": 0.5}
        await each.report(
            task_id, (1, 1, "started", {}), (1, 2, "completed", {"response": "", "usage": usage})
        )
        before = await now(each)
        error = await refused(each)
        assert isinstance(error, QuotaExceeded)
        assert error.limit == 100
        midnight = (before // 86400 + 1) * 86400
        assert midnight - await now(each) <= error.reset <= midnight - before + 1


async def test_a_tenant_without_a_tier_is_refused(redis_server: RedisServer, prefix: str) -> None:
    async with stores(redis_server.url, prefix, tier_of=lambda _: None) as each:
        assert isinstance(await each.submit_action(message()), Forbidden)


async def test_limits_cost_a_message_no_step_of_its_own(prefix: str) -> None:
    """There is one script that takes it in, and one that gives turns."""
    with RedisServer() as server:
        limits = only(requests_per_minute=100, tokens_per_day=100, max_queued=100, max_running=9)
        async with stores(server.url, prefix, tier_of=limits) as each:
            await each.submit_and_deliver()  # loads the scripts
            await each.redis.call("CONFIG", "RESETSTAT")
            for i in range(10):
                await each.submit_and_deliver(key_of(f"s-{i}"))
            stats = await each.redis.call("INFO", "commandstats")
            assert b"cmdstat_evalsha:calls=20," in stats


async def test_a_message_that_is_refused_leaves_nothing_behind(
    redis_server: RedisServer, prefix: str
) -> None:
    limits = only(max_queued=1, requests_per_minute=2)
    async with stores(redis_server.url, prefix, tier_of=limits, prefetch=1) as each:
        for i in range(2):
            await each.submit_and_deliver(key_of(f"s-{i}"))
        kept = await kept_in(each)
        assert isinstance(await refused(each, "unheard-of"), RateLimited)
        await pass_time(each, MINUTE_US)
        assert isinstance(await refused(each, "unheard-of"), QueueFull)
        assert await kept_in(each) == kept


async def test_only_for_limits_of_requests_their_moments_are_kept(
    redis_server: RedisServer, prefix: str
) -> None:
    requests = f"{prefix}tenant:{{{ACME}}}:requests"
    async with stores(redis_server.url, prefix, tier_of=only(max_queued=9)) as each:
        await each.submit()
        assert not await each.exists(requests)
    async with stores(redis_server.url, prefix, tier_of=only(requests_per_minute=2000)) as each:
        for _ in range(3):
            await each.submit()
        assert await each.ttl(requests) <= 60
        await each.redis.call(
            *("ZADD", requests, *(part for i in range(1500) for part in (i, f"old-{i}")))
        )
        left = []
        for _ in range(2):  # so many at once, lest one message pay for a whole burst
            await each.submit()
            left.append(await each.redis.call("ZCARD", requests))
        assert left == [3 + 1 + 500, 3 + 2]


async def kept_in(stores: Stores) -> set[bytes]:
    return set(await stores.redis.call("KEYS", f"{stores.keys.prefix}*"))


async def test_where_memory_has_run_out_nothing_is_taken_in_halves(prefix: str) -> None:
    with RedisServer() as server:
        async with stores(server.url, prefix, tier_of=only(requests_per_minute=9)) as each:
            await each.submit(key_of("before"))
            kept = await kept_in(each)
            await each.redis.call("CONFIG", "SET", "maxmemory", "1")
            with pytest.raises(Overloaded):
                await each.submit(key_of("meanwhile"))
            await each.redis.call("CONFIG", "SET", "maxmemory", "0")
            assert await kept_in(each) == kept
            await each.submit(key_of("meanwhile"))


async def test_a_burst_is_taken_as_long_as_nobody_has_to_wait(
    redis_server: RedisServer, prefix: str
) -> None:
    async with stores(redis_server.url, prefix, tier_of=only(max_queued=2)) as each:
        outcomes = await each.submissions.submit([message(key_of(f"s-{i}")) for i in range(100)])
        assert all(isinstance(outcome, Submitted) for outcome in outcomes)


async def test_a_queue_that_empties_behind_many_others_is_not_full(
    redis_server: RedisServer, prefix: str
) -> None:
    """There is room for all, but those of higher priority go first, so many in one round."""
    async with stores(redis_server.url, prefix, tier_of=only(max_queued=1), **ROOM) as each:
        others = [message(key_of(f"s-{i}", "other"), priority=Priority.HIGH) for i in range(300)]
        await each.submissions.submit(others)
        for _ in range(2):
            assert isinstance(await each.submit_action(message()), Submitted)


async def test_a_tier_that_was_raised_holds_though_the_queue_is_full(
    redis_server: RedisServer, prefix: str
) -> None:
    async with (
        stores(redis_server.url, prefix, tier_of=only(max_queued=1, max_running=1)) as before,
        stores(redis_server.url, prefix, tier_of=only(max_queued=1, max_running=9)) as since,
    ):
        for i in range(2):
            await before.submit_and_deliver(key_of(f"s-{i}"))
        assert isinstance(await refused(before), QueueFull)
        assert isinstance(await since.submit_action(message()), Submitted)


async def test_a_tier_that_was_raised_is_noticed_by_a_message_that_waits_in_its_session(
    redis_server: RedisServer, prefix: str
) -> None:
    async with (
        stores(redis_server.url, prefix, tier_of=only(max_running=1)) as before,
        stores(redis_server.url, prefix, tier_of=only(max_running=9)) as since,
    ):
        for session in ("busy", "waits"):
            await before.submit_and_deliver(key_of(session))
        stream = before.keys.work_stream(Priority.NORMAL)
        assert await before.redis.call("XLEN", stream) == 1
        await since.submit_and_deliver(key_of("busy"), if_busy=IfBusy.ENQUEUE)
        assert await before.redis.call("XLEN", stream) == 2
