"""Redis by TLS: everything goes by it, and a server that cannot prove who it is is not used.

The services are processes of their own: what is looked at is what an operator would see.
"""

import contextlib
from collections.abc import AsyncIterator, Callable

import pytest
from redis.asyncio import Redis

from tests.execution.support import Process
from tests.support.canary import CANARY
from tests.support.certificates import Authority
from tests.support.client import frames_until
from tests.support.service import process_service
from tests.support.tls import TlsRedis, tls_redis

USER = f":{CANARY}-of-tls@"
STARTED_WITHIN = 60.0  # seconds; a process begins with many imports, and the machine may be busy
Url = Callable[[Authority, TlsRedis], str]


@contextlib.asynccontextmanager
async def worker(url: str, prefix: str) -> AsyncIterator[Process]:
    process = await Process.start(
        environ={"EXECUTION_REDIS_URL": url, "EXECUTION_KEY_PREFIX": prefix}
    )
    try:
        yield process
    finally:
        await process.kill()


async def refused_by_the_orchestrator(url: str, prefix: str) -> str:
    """Its one line about that; it has ended by itself, was never ready, and told no secret."""
    async with process_service(url, prefix, is_ready=False) as running:
        assert await running.exited(within=STARTED_WITHIN) == 1
        assert "service.ready" not in running.log
        return line_about("service.failed", running.log)


async def refused_by_the_worker(url: str, prefix: str) -> str:
    async with worker(url, prefix) as process:
        status, _, said = await process.ended()
        assert status == 1
        return line_about("Redis refuses this worker", said)


def line_about(what: str, log: str) -> str:
    assert "canary" not in log
    assert "Traceback" not in log
    (line,) = [line for line in log.splitlines() if what in line]
    return line


async def test_a_task_goes_all_its_way_by_tls(authority: Authority, prefix: str) -> None:
    """Pool, subscription, blocking readers and workers: nobody has used the port without."""
    mine = authority.certificate("a-client")
    shown = f"&ssl_certfile={mine.certificate}&ssl_keyfile={mine.key}"
    server = authority.certificate("asks-for-certificates")
    with tls_redis(authority, server, "--tls-auth-clients", "yes") as redis:
        url = redis.url(authority.path) + shown
        async with process_service(url, prefix) as running, worker(url, prefix):
            async with running.connect() as socket:
                sent = await running.send(message="by TLS")
                frames = await frames_until(socket, "agent_response")
                clients = await other_clients(redis)
            assert frames[-1]["data"]["response"] == "by TLS"
            assert (await running.task_ended(sent.json["task_id"]))["status"] == "completed"
    assert {"xreadgroup", "subscribe"} <= {client["cmd"] for client in clients}
    assert {client["laddr"] for client in clients} == {f"127.0.0.1:{redis.port}"}


async def other_clients(redis: TlsRedis) -> list[dict[str, str]]:
    async with Redis.from_url(redis.plain.url) as admin:
        own = str(await admin.client_id())
        return [client for client in await admin.client_list() if client["id"] != own]


def unknown_authority(authority: Authority, redis: TlsRedis) -> str:
    return redis.url(None, user=USER)


def another_authority(authority: Authority, redis: TlsRedis) -> str:
    return redis.url(Authority(authority.path.parent, "another").path, user=USER)


def by_another_name(authority: Authority, redis: TlsRedis) -> str:
    return redis.url(authority.path, user=USER, host="localhost")


@pytest.mark.parametrize(
    ("server", "url", "said"),
    [
        ({}, unknown_authority, "self-signed certificate in certificate chain"),
        ({}, another_authority, "self-signed certificate in certificate chain"),
        ({"host": "redis.example.com"}, by_another_name, "Hostname mismatch"),
        ({"days": (-30, -1)}, by_another_name, "certificate has expired"),
        ({"days": (1, 30)}, by_another_name, "certificate is not yet valid"),
    ],
    ids=["self-signed", "another authority", "wrong host", "expired", "not yet valid"],
)
async def test_a_certificate_that_proves_nothing_ends_the_start_in_one_clear_line(
    authority: Authority, prefix: str, server: dict[str, str], url: Url, said: str
) -> None:
    shown = authority.certificate("shown", **server)  # type: ignore[arg-type]
    with tls_redis(authority, shown) as redis:
        for refused_by in (refused_by_the_orchestrator, refused_by_the_worker):
            line = await refused_by(url(authority, redis), prefix)
            assert "its certificate is not trusted" in line
            assert said in line


async def test_a_redis_that_wants_a_certificate_and_gets_none_ends_the_start(
    authority: Authority, prefix: str
) -> None:
    shown = authority.certificate("wants-one")
    with tls_redis(authority, shown, "--tls-auth-clients", "yes") as redis:
        url = redis.url(authority.path, user=USER)
        for refused_by in (refused_by_the_orchestrator, refused_by_the_worker):
            assert "TLS with it fails" in await refused_by(url, prefix)


async def test_a_redis_of_yesterday_s_tls_is_refused(authority: Authority, prefix: str) -> None:
    """TLS 1.1 is the newest that it offers; OpenSSL has to be talked into that, too."""
    shown = authority.certificate("old")
    old = ("--tls-protocols", "TLSv1.1", "--tls-ciphers", "ALL:@SECLEVEL=0")
    with tls_redis(authority, shown, *old) as redis:
        line = await refused_by_the_worker(redis.url(authority.path, user=USER), prefix)
        assert "TLS with it fails" in line


async def test_a_wrong_password_by_tls_ends_the_start_too(
    authority: Authority, prefix: str
) -> None:
    with tls_redis(authority, authority.certificate("right")) as redis:
        url = redis.url(authority.path, user=USER)
        for refused_by in (refused_by_the_orchestrator, refused_by_the_worker):
            assert "the user name or password is wrong" in await refused_by(url, prefix)


async def test_a_port_without_tls_keeps_the_service_from_being_ready(
    authority: Authority, prefix: str
) -> None:
    """It might be a Redis that is too busy to answer: it is waited for, and that is said."""
    with tls_redis(authority, authority.certificate("plain")) as redis:
        url = redis.url(authority.path, user=USER).replace(str(redis.port), str(redis.plain.port))
        async with process_service(url, prefix, is_ready=False) as running:
            await running.said("redis.awaited")
            assert (await running.get("/health")).status == 200
            assert (await running.get("/health/ready")).status == 503
            assert "Timeout" in line_about("redis.awaited", running.log)


@pytest.mark.parametrize("option", ["ssl_cert_reqs=none", "ssl_check_hostname=false"])
async def test_verification_cannot_be_switched_off(prefix: str, option: str) -> None:
    url = f"rediss://{USER}127.0.0.1:1/0?{option}"
    async with process_service(url, prefix, is_ready=False) as running:
        assert await running.exited(within=STARTED_WITHIN) == 2
        assert "always verified" in line_about("redis.url", running.log)
    async with worker(url, prefix) as process:
        status, _, said = await process.ended()
        assert status == 2
        assert "always verified" in line_about("python -m execution", said)
