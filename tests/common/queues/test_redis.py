"""A Redis that fails is noticed soon and said plainly; a Redis that is back is used at once."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import structlog
from redis import exceptions

from common.domain.errors import OrchestratorError, Overloaded, RedisUnavailable
from common.queues.redis import BREATH, Redis, connect, is_mistake, meaning_of, unwrap
from common.queues.scripts import SCHEDULE, TAKE_DUE
from tests.support.proxy import Proxy
from tests.support.redis_server import RedisServer

PATIENT = 30.0  # seconds; one that answers is not given up, however busy the machine is
TIMEOUT = 1.2  # for one that is to be given up


@asynccontextmanager
async def redis_at(url: str, socket_timeout: float = PATIENT) -> AsyncIterator[Redis]:
    redis = Redis(url, socket_timeout=socket_timeout)
    try:
        yield redis
    finally:
        await redis.close()


async def until_back(redis: Redis) -> None:
    async with asyncio.timeout(10):
        while True:
            try:
                await redis.call("PING")
                return
            except RedisUnavailable:
                await asyncio.sleep(0.05)


async def until_it_fails(redis: Redis) -> None:
    async with asyncio.timeout(10):
        while True:
            await redis.call("PING")


async def test_replies_are_as_redis_sends_them(redis_server: RedisServer, prefix: str) -> None:
    async with redis_at(redis_server.url) as redis:
        assert await redis.call("SET", f"{prefix}k", "v") == b"OK"
        assert await redis.call("GET", f"{prefix}k") == b"v"
        await redis.call("HSET", f"{prefix}h", "a", 1)
        assert await redis.call("HGETALL", f"{prefix}h") == [b"a", b"1"]


async def test_a_batch_answers_each_command_in_order(
    redis_server: RedisServer, prefix: str
) -> None:
    async with redis_at(redis_server.url) as redis:
        assert await redis.batch([]) == []
        await redis.call("SET", f"{prefix}k", "v")
        results = await redis.batch([("PING",), ("LPUSH", f"{prefix}k", 1), ("GET", f"{prefix}k")])
        assert (results[0], results[2]) == (b"PONG", b"v")
        assert is_mistake(results[1])
        with pytest.raises(exceptions.ResponseError, match="WRONGTYPE"):
            unwrap(results[1])


async def test_of_commands_that_all_have_to_succeed_the_first_error_is_told(
    redis_server: RedisServer, prefix: str
) -> None:
    async with redis_at(redis_server.url) as redis:
        set_it, push = ("SET", f"{prefix}k", "v"), ("LPUSH", f"{prefix}k", 1)
        assert await redis.call_all([("PING",), set_it]) == [b"PONG", b"OK"]
        with pytest.raises(exceptions.ResponseError, match="WRONGTYPE"):
            await redis.call_all([push, ("SET", f"{prefix}k", "w")])
        assert await redis.call("GET", f"{prefix}k") == b"w"  # which did not keep it from happening


async def test_a_command_of_ours_that_is_wrong_is_told_as_such(
    redis_server: RedisServer, prefix: str
) -> None:
    async with redis_at(redis_server.url) as redis:
        with pytest.raises(exceptions.ResponseError, match="unknown command"):
            await redis.call("NOSUCHCOMMAND")
        await redis.call("XGROUP", "CREATE", f"{prefix}s", "g", "0", "MKSTREAM")
        with pytest.raises(exceptions.ResponseError, match="BUSYGROUP"):
            await redis.call("XGROUP", "CREATE", f"{prefix}s", "g", "0", "MKSTREAM")


async def test_a_script_that_redis_forgot_is_loaded_again(prefix: str) -> None:
    with RedisServer() as server:
        async with redis_at(server.url) as redis:
            due = [f"{prefix}due"]
            for _ in range(2):
                await redis.run(SCHEDULE, due, "member", "at", 5)
                await redis.call("SCRIPT", "FLUSH")
            results = await redis.batch(
                [
                    ("INCR", f"{prefix}n"),
                    SCHEDULE.call(due, "a", "at", 4),
                    ("INCR", f"{prefix}n"),
                    TAKE_DUE.call(due, 1000, 10),
                    SCHEDULE.call(due, "b", "at", 4),
                ]
            )
            assert (results[0], results[2]) == (1, 2)  # what was known is not sent twice
            assert results[3][1:] == [b"a", b"member"]


async def test_a_killed_redis_is_noticed_at_once_and_used_again_when_it_is_back(
    prefix: str,
) -> None:
    with RedisServer() as server:
        async with redis_at(server.url) as redis:
            await redis.run(SCHEDULE, [f"{prefix}due"], "member", "at", 5)
            server.kill()
            async with asyncio.timeout(PATIENT / 3):  # none of them waits for an answer
                for _ in range(20):
                    with pytest.raises(RedisUnavailable):
                        await redis.call("PING")
            server.restart()
            await until_back(redis)
            # The scripts are gone with the process; the data is not.
            taken = await redis.run(TAKE_DUE, [f"{prefix}due"], 1000, 10)
            assert taken[1:] == [b"member"]


async def test_a_silent_redis_is_an_error_within_the_timeout(redis_server: RedisServer) -> None:
    async with Proxy(redis_server.port) as proxy, redis_at(proxy.url, TIMEOUT) as redis:
        await until_back(redis)
        proxy.blackhole()
        loop = asyncio.get_running_loop()
        before = loop.time()
        calls = [redis.call("PING") for _ in range(500)]  # far more than there are connections
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(result, RedisUnavailable) for result in results)
        assert loop.time() - before < 3  # as the contract says; one behind the other it is 19 s
        await proxy.heal()
        await until_back(redis)


async def test_who_comes_right_after_a_failure_does_not_wait_for_another(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("common.queues.redis.BREATH", 60.0)  # it comes within that
    async with Proxy(redis_server.port) as proxy, redis_at(proxy.url, TIMEOUT) as redis:
        proxy.blackhole()
        with pytest.raises(RedisUnavailable):
            await redis.call("PING")
        assert proxy.accepted == 1
        with pytest.raises(RedisUnavailable):
            await redis.call("PING")
        assert proxy.accepted == 1  # it has not even tried


@pytest.mark.parametrize("commands", [1, 3])
async def test_a_command_whose_reply_is_lost_is_not_sent_again(
    redis_server: RedisServer, prefix: str, commands: int
) -> None:
    async with Proxy(redis_server.port) as proxy, redis_at(proxy.url) as redis:
        await redis.call("PING")
        proxy.cut_replies = 1
        with pytest.raises(RedisUnavailable):
            await redis.batch([("INCR", f"{prefix}n")] * commands)
        await until_back(redis)
        assert await redis.call("GET", f"{prefix}n") == str(commands).encode()


async def test_refused_and_cut_connections_are_redis_unavailable(
    redis_server: RedisServer,
) -> None:
    async with Proxy(redis_server.port) as proxy, redis_at(proxy.url) as redis:
        await redis.call("PING")
        proxy.cut()
        with pytest.raises(RedisUnavailable):
            await redis.call("PING")
        await proxy.refuse()
        await asyncio.sleep(BREATH)
        with pytest.raises(RedisUnavailable):
            await redis.call("PING")
        await proxy.heal()
        await until_back(redis)


async def test_a_slow_redis_is_not_an_absent_one(redis_server: RedisServer, prefix: str) -> None:
    timeout = 3.0
    async with Proxy(redis_server.port) as proxy, redis_at(proxy.url, timeout) as redis:
        await redis.call("PING")
        proxy.latency = timeout / 6
        assert await redis.batch([("INCR", f"{prefix}n")] * 3) == [1, 2, 3]


async def test_a_call_that_was_given_up_mixes_up_no_other_replies(
    redis_server: RedisServer, prefix: str
) -> None:
    async with Proxy(redis_server.port) as proxy, redis_at(proxy.url) as redis:
        await redis.batch([("SET", f"{prefix}{i}", i) for i in range(50)])
        proxy.latency = 0.02
        for i in range(20):
            given_up = asyncio.create_task(
                redis.call("GET", f"{prefix}{i}") if i % 2 else redis.batch([("PING",)] * 3)
            )
            await asyncio.sleep(0.002 * i)
            given_up.cancel()
        await asyncio.sleep(0)
        proxy.latency = 0
        found = await asyncio.gather(*(redis.call("GET", f"{prefix}{i}") for i in range(50)))
        assert found == [str(i).encode() for i in range(50)]


async def test_more_calls_than_connections_wait_their_turn(
    redis_server: RedisServer, prefix: str
) -> None:
    async with redis_at(redis_server.url) as redis:
        found = await asyncio.gather(*(redis.call("INCR", f"{prefix}n") for _ in range(500)))
        assert sorted(found) == list(range(1, 501))


async def test_a_full_redis_is_overloaded_and_recovers(prefix: str) -> None:
    with RedisServer("--maxmemory-policy", "noeviction") as server:
        async with redis_at(server.url) as redis:
            await redis.call("CONFIG", "SET", "maxmemory", "1")
            for refused in (
                redis.call("SET", f"{prefix}k", "v"),
                redis.run(SCHEDULE, [f"{prefix}due"], "m", "at", 5),
            ):
                with pytest.raises(Overloaded, match="out of memory"):
                    await refused
            await redis.call("CONFIG", "SET", "maxmemory", "0")
            await redis.call("SET", f"{prefix}k", "v")


async def test_a_demoted_redis_is_unavailable(prefix: str) -> None:
    with RedisServer() as server:
        async with redis_at(server.url) as redis:
            await redis.call("REPLICAOF", "127.0.0.1", "1")
            for refused in (
                redis.call("SET", f"{prefix}k", "v"),
                redis.run(SCHEDULE, [f"{prefix}due"], "m", "at", 5),
            ):
                with pytest.raises(RedisUnavailable):
                    await refused


async def test_a_busy_redis_is_unavailable() -> None:
    with RedisServer("--lua-time-limit", "20") as server:
        async with redis_at(server.url) as redis, redis_at(server.url) as other:
            busy = asyncio.create_task(other.batch([("EVAL", "while true do end", 0)]))
            with pytest.raises(RedisUnavailable) as raised:
                await until_it_fails(redis)
            assert "BUSY" in str(raised.value.__cause__)
            assert await redis.call("SCRIPT", "KILL") == b"OK"
            (killed,) = await busy
            assert is_mistake(killed)
            assert await redis.call("PING") == b"PONG"


async def test_a_wrong_password_is_unavailable() -> None:
    with RedisServer() as server:
        async with redis_at(server.url) as redis, redis_at(server.url) as other:
            await redis.call("CONFIG", "SET", "requirepass", "secret")
            with pytest.raises(RedisUnavailable):
                await other.call("PING")


@pytest.mark.parametrize(
    ("error", "meaning"),
    [
        (exceptions.ConnectionError("gone"), RedisUnavailable),
        (exceptions.TimeoutError(), RedisUnavailable),
        (exceptions.BusyLoadingError("loading"), RedisUnavailable),
        (exceptions.ReadOnlyError("READONLY"), RedisUnavailable),
        (exceptions.NoPermissionError("NOPERM"), RedisUnavailable),
        (exceptions.NoScriptError("flushed twice"), RedisUnavailable),
        (exceptions.MovedError("1 127.0.0.1:1"), RedisUnavailable),
        (exceptions.ResponseError("MISCONF cannot write"), RedisUnavailable),
        (exceptions.ResponseError("NOREPLICAS not enough"), RedisUnavailable),
        (exceptions.ResponseError("MASTERDOWN link"), RedisUnavailable),
        (exceptions.ResponseError("CLUSTERDOWN slots"), RedisUnavailable),
        (OSError("no route"), RedisUnavailable),
        (TimeoutError(), RedisUnavailable),
        (exceptions.OutOfMemoryError("OOM"), Overloaded),
        (exceptions.ResponseError("ERR: OOM command not allowed, @user_script"), Overloaded),
        (exceptions.ResponseError("WRONGTYPE"), None),
        (exceptions.ResponseError("BUSYGROUP exists"), None),
        (ValueError("ours"), None),
    ],
    ids=repr,
)
def test_an_error_of_redis_means_one_thing(
    error: Exception, meaning: type[OrchestratorError] | None
) -> None:
    found = meaning_of(error)
    assert type(found) is (meaning or type(None))
    assert is_mistake(error) == (meaning is None)
    with pytest.raises(meaning or type(error)) as raised:
        unwrap(error)
    assert raised.value.__cause__ is error or raised.value is error


def test_an_address_that_cannot_be_read_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="must be a URL"):
        connect("http://example.org", socket_timeout=1)


@pytest.mark.parametrize("option", ["ssl_cert_reqs=none", "ssl_check_hostname=false"])
def test_nothing_is_connected_without_verification(option: str) -> None:
    with pytest.raises(ValueError, match="always verified"):
        connect(f"rediss://:canary@redis.example.org?{option}", socket_timeout=1)


def test_tls_is_always_verified_and_of_today() -> None:
    pool = connect("rediss://redis.example.org", socket_timeout=1).connection_pool
    context = pool.make_connection().ssl_context.get()  # type: ignore[no-untyped-call]
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2


async def test_a_right_that_is_missing_means_unavailable_and_is_told_once() -> None:
    """Also where it is missing within a script, which Redis tells in other words."""
    with RedisServer() as server:
        async with redis_at(server.url) as redis:
            await redis.call("ACL", "SETUSER", "default", "-set", "-zadd")
            with structlog.testing.capture_logs() as lines:
                for refused in (
                    redis.call("SET", "k", "v"),
                    redis.run(SCHEDULE, ["due"], "m", "at", 5),
                ):
                    with pytest.raises(RedisUnavailable):
                        await refused
        (line,) = [line for line in lines if line["event"] == "redis.right_missing"]
        assert "set" in line["error"]
