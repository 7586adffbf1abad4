"""A Redis that is full, loads, takes no writes, or was wrong from the start (FAULTS, c2)."""

import asyncio
import contextlib
import resource
from collections.abc import AsyncIterator, Callable
from typing import Any

import orjson
import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from tests.faults.signs_of_life import is_alive, is_refused, life, restarts
from tests.support.follower import eventually
from tests.support.redis_server import RedisServer
from tests.support.service import process_service

# R8, R10, R14: Redis refuses


async def test_a_redis_without_memory_means_overloaded_until_it_has_some(prefix: str) -> None:
    async with life(prefix) as on:
        task = await on.is_half_told("a")
        await on.executor.report(task, "completed", {"response": "a"})
        await on.redis.config_set("maxmemory", 1)
        await is_refused(on.service, "overloaded")
        await is_alive(on.socket)
        await on.redis.config_set("maxmemory", 0)
        await on.goes_on()


@contextlib.asynccontextmanager
async def demoted(client: Any) -> AsyncIterator[None]:
    await client.execute_command("REPLICAOF", "127.0.0.1", "1")
    yield
    await client.execute_command("REPLICAOF", "NO", "ONE")


@contextlib.asynccontextmanager
async def without_replicas(client: Any) -> AsyncIterator[None]:
    await client.config_set("min-replicas-to-write", 1)
    yield
    await client.config_set("min-replicas-to-write", 0)


@contextlib.asynccontextmanager
async def unable_to_save(client: Any) -> AsyncIterator[None]:
    """Its files may not grow, as on a full disk, and no append-only file makes up for that."""
    pid = (await client.info("server"))["process_id"]
    await client.config_set("appendonly", "no")
    await client.config_set("save", "3600 1")
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (1, -1))
    await client.bgsave()
    async with asyncio.timeout(10):
        while (await client.info("persistence"))["rdb_last_bgsave_status"] != "err":
            await asyncio.sleep(0.02)
    yield
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (-1, -1))
    await client.config_set("save", "")


@pytest.mark.parametrize("refusing", [demoted, without_replicas, unable_to_save])
async def test_a_redis_that_takes_no_writes_means_unavailable_until_it_does(
    prefix: str, refusing: Callable[[Any], contextlib.AbstractAsyncContextManager[None]]
) -> None:
    """READONLY, NOREPLICAS and MISCONF."""
    async with life(prefix) as on:
        async with refusing(on.redis):
            await is_refused(on.service)
            await is_alive(on.socket)
        await on.goes_on()
        assert await restarts(on.service) == 0


async def test_a_redis_that_still_loads_means_unavailable_until_it_has(prefix: str) -> None:
    slow = ("--key-load-delay", "150", "--aof-use-rdb-preamble", "no")
    async with life(prefix, *slow) as on:
        for _ in range(20):  # four seconds and more to load, in which all the rest has its room
            pipeline = on.redis.pipeline(transaction=False)
            for number in range(1000):
                pipeline.set("filler", number)
            await pipeline.execute()
        await asyncio.to_thread(on.server.kill)
        starting = asyncio.create_task(asyncio.to_thread(on.server.restart))
        await eventually(lambda: _says_loading(on.redis))
        await is_refused(on.service)
        assert not starting.done()
        await starting
        await on.goes_on()


async def _says_loading(client: Any) -> bool:
    try:
        await client.ping()
    except RedisError as error:
        return "loading" in str(error).lower()
    return False


async def test_a_full_disk_means_unavailable_until_there_is_room(prefix: str) -> None:
    """A limit on the size of its files stands for the disk: Redis cannot tell them apart."""
    async with life(prefix) as on:
        size = int((await on.redis.info("persistence"))["aof_current_size"])
        resource.prlimit(on.server.pid, resource.RLIMIT_FSIZE, (size + 20_000, -1))
        await on.redis.set("filler", b"x" * 40_000)
        await eventually(lambda: _cannot_write(on.redis))
        await is_refused(on.service)
        await is_alive(on.socket)
        resource.prlimit(on.server.pid, resource.RLIMIT_FSIZE, (-1, -1))
        await on.goes_on()


async def _cannot_write(client: Any) -> bool:
    return str((await client.info("persistence"))["aof_last_write_status"]) == "err"


# R9, R22: wrong from the start


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
async def test_a_redis_that_may_drop_keys_is_refused_at_the_start_in_one_clear_line(
    policy: str, prefix: str
) -> None:
    with RedisServer("--maxmemory-policy", policy) as server:
        async with process_service(server.url, prefix, is_ready=False) as service:
            assert await service.exited() == 1
            lines = [line for line in service.log.splitlines() if policy in line]
            assert len(lines) == 1
            line = orjson.loads(lines[0])
            assert line["level"] == "critical"
            assert "set it to noeviction" in line["reason"]


async def test_a_wrong_password_ends_the_start_and_is_never_shown(prefix: str) -> None:
    with RedisServer() as server:
        async with Redis.from_url(server.url) as client:
            await client.config_set("requirepass", "the-right-one")
        url = server.url.replace("redis://", "redis://:not-the-right-one@")
        async with process_service(url, prefix, is_ready=False) as service:
            assert await service.exited() == 1
            lines = [orjson.loads(line) for line in service.log.splitlines()]
            (line,) = [line for line in lines if line["level"] == "critical"]
            assert "password" in line["reason"]
            assert "not-the-right-one" not in service.log
        async with Redis.from_url(server.url, password="the-right-one") as client:
            await client.config_set("requirepass", "")
