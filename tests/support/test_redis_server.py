"""The Redis server that tests use keeps what a real one keeps."""

import redis

from tests.support.redis_server import RedisServer


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
