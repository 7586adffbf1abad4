"""A Redis that has lost what it held: by a failover, or a damaged file (FAULTS, c2)."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from redis.asyncio import Redis

from tests.faults.signs_of_life import KEY, goes_on, is_alive, restarts
from tests.support.client import close_code, next_frame
from tests.support.fake_executor import FakeExecutor
from tests.support.follower import Follower, eventually
from tests.support.proxy import Proxy
from tests.support.redis_server import RedisServer
from tests.support.service import running_service


async def command(client: Any, *words: str | int) -> Any:
    return await client.execute_command(*words)


# R11, R12


@contextlib.asynccontextmanager
async def replicated() -> AsyncIterator[tuple[RedisServer, RedisServer, Proxy, Proxy]]:
    """A master, its replica in step with it, the link between them, and the way of clients."""
    with RedisServer() as master, RedisServer() as replica:
        async with Proxy(master.port) as link, Proxy(master.port) as way:
            async with Redis.from_url(replica.url) as client:
                await command(client, "REPLICAOF", "127.0.0.1", link.port)
            async with Redis.from_url(master.url) as client:
                await eventually(lambda: _is_online(client))
            yield master, replica, link, way


async def _is_online(client: Any) -> bool:
    replica = (await client.info("replication")).get("slave0")
    return replica is not None and replica["state"] == "online"


async def _fail_over(master: RedisServer, replica: RedisServer, way: Proxy) -> None:
    await asyncio.to_thread(master.kill)
    async with Redis.from_url(replica.url) as client:
        await command(client, "REPLICAOF", "NO", "ONE")
    way.lead_to(replica.port)


async def test_a_failover_to_a_replica_in_step_loses_nothing(prefix: str) -> None:
    async with (
        replicated() as (master, replica, _, way),
        running_service(way.url, prefix) as service,
    ):
        follower = Follower()
        async with follower.following(service), FakeExecutor(way.url, prefix) as executor:
            await service.send()
            task = await executor.take()
            await executor.stream_answer(task, "half ")
            await follower.until(lambda: follower.text == "half ")
            async with Redis.from_url(master.url) as client:
                assert await command(client, "WAIT", 1, 5000) == 1
            await _fail_over(master, replica, way)
            await executor.report(task, "delta", {"text": "whole"})
            await executor.complete(task, "half whole")
            await follower.ended()
            assert follower.text == "half whole"


async def test_what_a_failover_lost_is_told_to_those_who_had_seen_it(prefix: str) -> None:
    """The link to the replica falls silent first, so that the newest events are on one side."""
    async with (
        replicated() as (master, replica, link, way),
        running_service(way.url, prefix) as service,
    ):
        async with service.connect() as socket, service.connect("acme/away", offset=0) as away:
            epoch = (await next_frame(socket))["data"]["epoch"]
            await next_frame(away)
            async with Redis.from_url(master.url) as client:
                assert await command(client, "WAIT", 1, 5000) == 1
            link.blackhole()
            for number in range(5):
                body = {"tenant_id": "acme", "session_id": "s-1", "message_data": {"n": number}}
                assert (await service.post("/api/ws/send", body)).status == 202
            assert [(await next_frame(socket))["offset"] for _ in range(5)] == [1, 2, 3, 4, 5]
            await _fail_over(master, replica, way)
            assert await close_code(socket) == 4410
            await is_alive(away)  # who had seen nothing of it has lost nothing
        async with service.connect(epoch=epoch, offset=5) as socket:
            assert (await next_frame(socket))["data"]["recovered"] is False


# R15, R16


def _append_only_file(folder: Path) -> Path:
    """The newest part of it: one file in Redis 6, a folder of them since 7."""
    return max(folder.rglob("*.aof"), key=lambda path: (path.name.count("incr"), path.name))


async def _damage(server: RedisServer, damage: Callable[[bytes], bytes]) -> None:
    async with Redis.from_url(server.url, decode_responses=True) as client:
        folder = Path(str((await client.config_get("dir"))["dir"]))
    await asyncio.to_thread(server.kill)
    file = _append_only_file(folder)
    file.write_bytes(damage(file.read_bytes()))
    await asyncio.to_thread(server.restart)


async def test_a_file_that_lost_its_end_costs_what_stood_there(prefix: str) -> None:
    with RedisServer() as server:
        async with (
            running_service(server.url, prefix) as service,
            FakeExecutor(server.url, prefix) as executor,
        ):
            await service.send(key=KEY)
            await _damage(server, lambda data: data[:-7])
            await service.ready()  # who has just found Redis away looks away for a moment
            async with service.connect(offset=0) as socket:
                await goes_on(service, executor, socket)
            events = (await service.events())["events"]
            assert [event["offset"] for event in events] == list(range(1, len(events) + 1))
            assert await restarts(service) == 0


async def test_a_damaged_event_harms_only_who_reads_it(prefix: str) -> None:
    """Redis loads it unawares. Nothing of ours parses a stored event, so nothing falls over it."""
    with RedisServer() as server:
        async with (
            running_service(server.url, prefix) as service,
            FakeExecutor(server.url, prefix) as executor,
        ):
            body = {"tenant_id": "acme", "session_id": "s-9", "message_data": {"n": "needle"}}
            assert (await service.post("/api/ws/send", body)).status == 202
            assert (await service.events("acme/s-9"))["last_offset"] == 1
            await _damage(server, lambda data: data.replace(b'"needle"', b'"nee"!!!'))
            await service.ready()  # who has just found Redis away looks away for a moment
            async with service.connect("acme/s-1") as socket:
                await next_frame(socket)
                await goes_on(service, executor, socket)
            page = await service.get("/api/sessions/acme/s-9/events")
            assert b'"nee"!!!' in page.body
            assert await restarts(service) == 0
