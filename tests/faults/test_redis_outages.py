"""A Redis that dies, forgets, is out of reach, loses replies, or is slow (FAULTS, c2)."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from redis.asyncio import Redis

from tests.faults.signs_of_life import (
    BACK_WITHIN,
    KEY,
    goes_on,
    is_alive,
    is_refused,
    life,
    restarts,
    through_a_proxy,
)
from tests.support.client import Address, close_code, frames_until, next_frame
from tests.support.fake_executor import FakeExecutor
from tests.support.figures import measured
from tests.support.follower import Follower, answering, eventually
from tests.support.proxy import Proxy
from tests.support.redis_server import RedisServer
from tests.support.service import running_service

# R1, R2, R3: gone and back


@pytest.mark.alone
async def test_redis_is_killed_and_started_again_and_nothing_but_time_is_lost(prefix: str) -> None:
    async with life(prefix) as on:
        service, executor = on.service, on.executor
        task = await on.is_half_told("half ")
        await asyncio.to_thread(on.server.kill)
        for _ in range(3):
            await is_refused(service)
        assert (await service.get("/health")).status == 200
        await eventually(lambda: _is_unready_for_want_of_redis(service))
        await is_alive(on.socket)
        await asyncio.to_thread(on.server.restart)
        back = time.monotonic()
        await executor.report(task, "delta", {"text": "an answer"})
        await executor.complete(task, "half an answer")
        frames = await frames_until(on.socket, "agent_response")
        took = time.monotonic() - back
        measured("an answer goes on after a restart of Redis", took, "s")
        assert took < BACK_WITHIN
        assert frames[-1]["task_id"] == task.task_id
        await on.goes_on()
        assert await restarts(service) == 0


async def _is_unready_for_want_of_redis(service: Address) -> bool:
    """As soon as it does not say any more that its loop stood still a moment ago."""
    ready = await service.get("/health/ready")
    assert ready.status == 503
    return ready.code == "redis_unavailable"


@contextlib.asynccontextmanager
async def forgetful(how: str) -> AsyncIterator[tuple[RedisServer, Callable[[], Awaitable[Any]]]]:
    """A Redis, and what makes it forget everything."""
    with RedisServer(*(("--appendonly", "no") if how == "restart" else ())) as server:

        async def restart() -> None:
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.restart)

        async with Redis.from_url(server.url) as client:
            yield server, restart if how == "restart" else client.flushall


@pytest.mark.parametrize("how", ["flush", "restart"])
async def test_a_redis_that_forgot_everything_begins_anew_and_says_so(
    how: str, prefix: str
) -> None:
    async with (
        forgetful(how) as (server, forget),
        running_service(server.url, prefix) as service,
        FakeExecutor(server.url, prefix) as executor,
    ):
        async with service.connect() as socket:
            epoch = (await next_frame(socket))["data"]["epoch"]
            lost = (await service.send()).json["task_id"]
            task = await executor.take()
            await executor.stream_answer(task, "a", "b")
            await frames_until(socket, "agent_delta")
            await forget()
            await executor.report(task, "delta", {"text": "late"})  # before any group is made
            async with asyncio.timeout(BACK_WITHIN):
                while (answer := await service.send(key=KEY)).status != 202:
                    await asyncio.sleep(0.05)
            assert await close_code(socket) == 4410
        async with service.connect(epoch=epoch, offset=4) as socket:
            data = (await next_frame(socket))["data"]
            assert data["recovered"] is False
            assert data["epoch"] != epoch
            task = await executor.take()
            assert task.task_id == answer.json["task_id"]
            await executor.complete(task)
            await frames_until(socket, "agent_response")
        gone = await service.post("/api/chat/status", {"tenant_id": "acme", "task_id": lost})
        assert (gone.status, gone.code) == (404, "task_not_found")
        assert (await service.events())["events"][0]["offset"] == 1
        await eventually(lambda: _nothing_waits(executor, task.action["callback_stream"]))
        assert await restarts(service) == 0


async def _nothing_waits(executor: FakeExecutor, stream: str) -> bool:
    return int(await executor.redis.xlen(stream)) == 0


# R4: out of reach


@pytest.mark.alone
async def test_ten_seconds_out_of_reach_are_refused_in_time_and_end_by_themselves(
    redis_server: RedisServer, prefix: str
) -> None:
    """Refused, reset again and again, and in silence: all three at once, an instance each."""
    outages = [_outage(redis_server, f"{prefix}{how}:", how) for how in ("refuse", "cut", "hole")]
    for took in await asyncio.gather(*outages):
        measured("a message goes through after ten seconds without Redis", took, "s")


async def _outage(server: RedisServer, prefix: str, how: str) -> float:
    async with (
        Proxy(server.port) as proxy,
        running_service(proxy.url, prefix) as service,
        FakeExecutor(server.url, prefix) as executor,
        service.connect() as socket,
    ):
        await next_frame(socket)
        until = time.monotonic() + 10
        if how == "refuse":
            await proxy.refuse()
        elif how == "hole":
            proxy.blackhole()
        while time.monotonic() < until:
            if how == "cut":
                proxy.cut_replies = 1_000_000
            await is_refused(service)
            await is_alive(socket)
            await asyncio.sleep(0.5)
        proxy.cut_replies = 0
        await proxy.heal()
        return await goes_on(service, executor, socket)


# R6: a lost reply


async def test_a_message_whose_replies_are_lost_is_refused_or_taken_and_never_doubled(
    redis_server: RedisServer, prefix: str
) -> None:
    """Wherever the cut falls: in a read, a hint, a sweep or the message's own steps."""
    async with through_a_proxy(redis_server, prefix) as (proxy, service, executor):
        follower = Follower()
        async with follower.following(service), answering(executor, "x", "y"):
            for number in range(15):
                proxy.cut_replies = 1 + number % 3
                async with asyncio.timeout(10):
                    while (await service.send(key=f"{KEY}{number}")).status != 202:
                        await asyncio.sleep(0.1)
            await follower.ended(15, within=30)
    assert follower.types.count("user_message") == 15
    assert follower.types.count("agent_response") == 15
    assert follower.text == "xy" * 15


# R7: slow


async def test_a_slow_redis_is_slow_and_no_more(redis_server: RedisServer, prefix: str) -> None:
    async with through_a_proxy(redis_server, prefix) as (proxy, service, executor):
        follower = Follower()
        async with follower.following(service), answering(executor, "a", "b"):
            proxy.latency = 0.2
            for n in range(3):  # at once, some might wait for two rounds, which is nearly too long
                assert (await service.send(key=f"{KEY}{n}", if_busy="parallel")).status == 202
            await follower.ended(3, within=30)
            proxy.latency = 0
    assert sorted(follower.text) == sorted("ab" * 3)
    assert set(follower.closes) <= {None}
