"""A Redis that disturbs again and again, drops its hints, or has much to hand over (FAULTS, c2)."""

import asyncio
import contextlib
import signal
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from redis.asyncio import Redis

from tests.faults.signs_of_life import KEY, goes_on, restarts, through_a_proxy
from tests.support.fake_executor import FakeExecutor
from tests.support.figures import measured
from tests.support.follower import Follower, answering, eventually
from tests.support.redis_server import RedisServer
from tests.support.service import process_service, running_service

OURS = "agent-orchestrator"  # what our connections are called in Redis
ENOUGH = 20  # messages; on a slow machine they take longer


# R17, R18: disturbed again and again, under load


async def _flush_scripts(client: Any) -> None:
    await client.script_flush()
    await asyncio.sleep(0.1)


async def _kill_ours(client: Any, kind: str) -> None:
    for each in await client.client_list(_type=kind):
        if each["name"] == OURS:
            await client.execute_command("CLIENT", "KILL", "ID", each["id"])
    await asyncio.sleep(0.5)


async def _kill_pubsub(client: Any) -> None:
    await _kill_ours(client, "pubsub")


async def _kill_normal(client: Any) -> None:
    await _kill_ours(client, "normal")


@pytest.mark.parametrize("disturb", [_flush_scripts, _kill_pubsub, _kill_normal])
async def test_a_redis_that_is_disturbed_again_and_again_costs_time_only(
    redis_server: RedisServer, prefix: str, disturb: Callable[[Any], Awaitable[None]]
) -> None:
    followers = [Follower(f"acme/s-{number}") for number in range(5)]
    async with (
        running_service(redis_server.url, prefix) as service,
        FakeExecutor(redis_server.url, prefix) as executor,
        Redis.from_url(redis_server.url) as client,
        contextlib.AsyncExitStack() as stack,
    ):
        for follower in followers:
            await stack.enter_async_context(follower.following(service))
        await stack.enter_async_context(answering(executor, "a", "b", "c"))

        async def keep_disturbing() -> None:
            while True:
                await disturb(client)

        disturbing = asyncio.create_task(keep_disturbing())
        sent, until = 0, time.monotonic() + 3
        while time.monotonic() < until or sent <= ENOUGH:
            session = followers[sent % 5].session
            async with asyncio.timeout(10):
                while (await service.send(session, key=f"{KEY}{sent}")).status != 202:
                    await asyncio.sleep(0.02)
            sent += 1
        disturbing.cancel()
        await asyncio.gather(disturbing, return_exceptions=True)
        for number, follower in enumerate(followers):
            mine = len(range(number, sent, 5))
            await follower.ended(mine, within=20)
            assert follower.types.count("user_message") == mine
            assert follower.text == "abc" * mine
        assert await restarts(service) == 0


# R19, R20: the hint is lost


async def test_a_subscriber_that_redis_cut_off_for_its_backlog_finds_the_rest_in_the_log(
    prefix: str,
) -> None:
    with RedisServer("--client-output-buffer-limit", "pubsub", "100kb", "0", "0") as server:
        follower = Follower()
        big = {"tenant_id": "acme", "session_id": "s-1", "message_data": {"text": "x" * 400_000}}
        async with (
            process_service(server.url, prefix) as sleeper,
            running_service(server.url, prefix) as other,
            Redis.from_url(server.url) as client,
            follower.following(sleeper),
        ):
            ours = await _subscribers(client)
            sleeper.send_signal(signal.SIGSTOP)
            for _ in range(40):
                assert (await other.post("/api/ws/send", big)).status == 202
            assert len(await _subscribers(client)) < len(ours)
            sleeper.send_signal(signal.SIGCONT)
            await follower.until(lambda: len(follower.events) == 40, within=30)


async def _subscribers(client: Any) -> set[str]:
    return {each["id"] for each in await client.client_list(_type="pubsub")}


async def test_a_subscription_that_falls_silent_is_noticed_and_made_anew(
    redis_server: RedisServer, prefix: str
) -> None:
    """Only the listening connection stalls; everything else goes on as if nothing were wrong."""
    async with (
        through_a_proxy(redis_server, prefix) as (proxy, service, executor),
        Redis.from_url(redis_server.url) as client,
    ):
        follower = Follower()
        async with follower.following(service):
            deaf = {
                int(each["addr"].rpartition(":")[2])
                for each in await client.client_list(_type="pubsub")
            }
            proxy.freeze(deaf)
            stalled = time.monotonic()
            await service.send()
            task = await executor.take()
            await executor.stream_answer(task, "a")
            await executor.complete(task, "a")
            await follower.ended(within=8)
            measured("a silent subscription is found and filled", time.monotonic() - stalled, "s")
            assert follower.closes == []


# R23: much to take over


async def test_forty_thousand_entries_of_a_dead_reader_are_taken_over_page_by_page(
    redis_server: RedisServer, prefix: str
) -> None:
    """Most of them are gone from the stream: whole pages of nothing are no end."""
    stream = f"{prefix}callbacks:{{{prefix}dead:callbacks}}"
    async with Redis.from_url(redis_server.url) as client:
        await client.xgroup_create(stream, "orchestrator", "0", mkstream=True)
        for _ in range(8):
            pipeline = client.pipeline(transaction=False)
            for _ in range(5000):
                pipeline.xadd(stream, {"task_id": "nobody"})
            await pipeline.execute()
        await client.xreadgroup("orchestrator", "dead", {stream: ">"}, count=40_000)
        await client.xtrim(stream, maxlen=1000, approximate=False)
        quick: Any = {"callbacks": {"claim_idle": 0.5, "poll_seconds": 0.05}}
        async with (
            running_service(redis_server.url, prefix, **quick) as service,
            FakeExecutor(redis_server.url, prefix) as executor,
            service.connect() as socket,
        ):
            begun = time.monotonic()
            await goes_on(service, executor, socket)  # what is new does not wait for it
            await eventually(lambda: _none_pending(client, stream), within=60)
            measured("takeover of 40 000 entries of a dead reader", time.monotonic() - begun, "s")
            assert await client.xlen(stream) == 0
            assert await client.xlen(f"{prefix}dead:callbacks") == 1000


async def _none_pending(client: Redis, stream: str) -> bool:
    return int((await client.xpending(stream, "orchestrator"))["pending"]) == 0
