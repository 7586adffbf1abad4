"""The Redis server that tests use keeps what a real one keeps."""

import subprocess
import sys

import pytest
import redis

from tests.support import redis_server as module
from tests.support.processes import PROJECT
from tests.support.redis_server import RedisServer, free_port

SEVENTY = """
from tests.support import redis_server as module
module.PORTS = range(12_000, 12_200)
print(*(module.free_port() for _ in range(70)))
"""


def test_the_shared_server_answers(redis_server: RedisServer, prefix: str) -> None:
    with redis.Redis.from_url(redis_server.url) as client:
        client.set(f"{prefix}key", "value")
        assert client.get(f"{prefix}key") == b"value"


def test_what_was_written_survives_a_killed_server() -> None:
    with RedisServer() as server, redis.Redis.from_url(server.url) as client:
        client.set("key", "value")
        server.kill()
        server.restart()
        assert client.get("key") == b"value"


def test_a_stopped_server_is_not_reachable_until_it_is_started_again() -> None:
    with RedisServer() as server:
        server.stop()
        with redis.Redis.from_url(server.url, retry=None) as client:
            try:
                client.ping()
            except redis.ConnectionError:
                pass
            else:
                raise AssertionError("a stopped server answered")
            server.start()
            assert client.ping()


def test_a_port_is_given_once_whichever_processes_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PORTS", range(12_000, 12_200))
    given = [free_port() for _ in range(70)]  # and nobody listens on one of them yet
    asked = subprocess.run(
        (sys.executable, "-c", SEVENTY), cwd=PROJECT, capture_output=True, check=True, timeout=60
    )
    given += map(int, asked.stdout.split())
    assert len(set(given)) == 140
