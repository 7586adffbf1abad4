"""What whoever knocks can learn, leave behind or set off (S15, S16, S17, S19), from outside.

The instance is a process of its own with passwords, keys and tokens that hold the canary; what it
writes and answers is looked at by tests/support/canary.py, and here.
"""

import asyncio
import contextlib
import secrets
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from redis.asyncio import Redis

from tests.execution.support import Process
from tests.support.callers import AUTH, OPERATOR_KEY, bearer, token
from tests.support.canary import CANARY
from tests.support.client import close_code, frames_until, say
from tests.support.raw import RawAnswer, close_payload, raw_socket
from tests.support.redis_server import RedisServer
from tests.support.redis_users import PREFIX, GuardedRedis, guarded_redis
from tests.support.service import RunningProcess, process_service

DEBUG: dict[str, Any] = {"level": "debug"}
NASTY = "\\r\\n{\\u0022event\\u0022:\\u0022forged\\u0022}\\u0000\\u001b[31m\\u2028%s{}"


@contextlib.asynccontextmanager
async def guarded_service(
    folder: Path,
) -> AsyncIterator[tuple[RunningProcess, Process, GuardedRedis]]:
    """An instance and a worker that log all they can, at a Redis that wants their passwords."""
    with guarded_redis(folder) as redis:
        worker = await Process.start(
            *("--log-level", "debug", "--log-format", "json"),
            environ={"EXECUTION_REDIS_URL": redis.url("worker"), "EXECUTION_KEY_PREFIX": PREFIX},
        )
        supervision = str(folder / "supervision.log")
        logging = {**DEBUG, "supervision_file": supervision}
        url = redis.url("orchestrator")
        try:
            async with process_service(url, PREFIX, auth=AUTH, logging=logging) as running:
                yield running, worker, redis
        finally:
            await worker.kill()


# Secrets and messages (S16)


async def test_no_secret_and_no_word_of_a_message_is_told_to_anybody_else(tmp_path: Path) -> None:
    """The log of everything at its most talkative; the canary is in messages and reasons, too."""
    async with guarded_service(tmp_path) as (running, worker, redis):
        shown = bearer(token())
        await messages_are_sent(running, shown)
        await wrong_credentials_are_shown(running)
        await rubbish_is_sent(running, redis)
        for path in ("/metrics", "/actors", "/actors/supervision", "/health/detailed", "/ws/stats"):
            answer = await running.get(path, X_API_Key=OPERATOR_KEY)
            assert answer.status == 200
            assert CANARY.encode() not in answer.body
        log = running.log
        worker.send(signal.SIGINT)
        _, _, told = await worker.ended()
    assert "attempt.ended" in told
    assert "credentials.refused" in log
    for text in (log, told, (tmp_path / "supervision.log").read_text()):
        assert CANARY not in text
        assert "eyJ" not in text


async def messages_are_sent(running: RunningProcess, shown: dict[str, str]) -> None:
    """One that is answered and one that fails, by every way there is, with words of their own."""
    body = {"tenant_id": "acme", "session_id": "s", "message": f"my {CANARY}"}
    for agent in ("echo", "faulty", "no-such-agent"):
        sent = {**body, "agent_id": agent, "context": {"c": CANARY}, "metadata": {"m": CANARY}}
        key = f"{agent}-{CANARY}"
        answer = await running.post("/api/chat/send", sent, **shown, Idempotency_Key=key)
        assert answer.status == 202
        task_id = answer.json["task_id"]
        reason = {"tenant_id": "acme", "task_id": task_id, "reason": CANARY}
        if agent == "no-such-agent":
            await running.post("/api/chat/cancel", reason, **shown)
    async with running.connect("acme/s", token=token(), offset=0) as socket:
        await say(socket, "chat.send_message", agent_id="echo", message=CANARY)
        await frames_until(socket, "agent_response")
        await say(socket, "auth.refresh", token=token())
        await say(socket, CANARY, message=CANARY)
        await socket.send(CANARY)
        await frames_until(socket, "error")


async def wrong_credentials_are_shown(running: RunningProcess) -> None:
    wrong = token()[:-6] + "AAAAAA"
    for headers in (
        {},
        bearer(wrong),
        bearer(CANARY),
        {"X-API-Key": CANARY},
        {"Authorization": f"Basic {CANARY}"},
        bearer(token(expires_in=-60)),
    ):
        answer = await running.request("GET", "/metrics", headers=headers)
        assert answer.status == 401
    refused = await running.request("GET", "/metrics", headers=bearer(token()))
    assert refused.status == 403
    for query in (f"token={wrong}", f"token={CANARY}&close_codes=1"):
        async with raw_socket(running.port) as raw:
            answer_ = await raw.upgrade(f"/ws/acme/s?{query}")
            assert CANARY.encode() not in answer_.body


async def rubbish_is_sent(running: RunningProcess, redis: GuardedRedis) -> None:
    """What cannot be read, with a secret in it: as HTTP, as JSON, as a push."""
    for head in (
        f"GET /metrics HTTP/1.1\r\nHost: h\r\nX-API-Key: {CANARY}\x01\r\n\r\n",
        f"GET /metrics?token={CANARY} HTTP/9\r\n\r\n",
        f"GET /metrics HTTP/1.1\r\nHost: h\r\nContent-Length: {CANARY}\r\n\r\n",
        f"{CANARY}\r\n\r\n",
    ):
        async with raw_socket(running.port) as raw:
            await raw.write(head.encode("latin-1"))
            await raw.ended()
    for body in (f'{{"token": "{CANARY}"', f'{{"x": "{CANARY}"}}', f'["{CANARY}"]'):
        await running.post("/api/chat/send", body.encode(), **bearer(token()))
    async with Redis.from_url(redis.url("admin")) as admin:
        await admin.xadd(f"{PREFIX}actions", {"action": f'{{"{CANARY}"'})
        await admin.publish(f"{PREFIX}broadcasts", CANARY)
    await running.said("push.set_aside")


# Lines that cannot be forged, and floods (S15)


async def test_whatever_is_sent_each_line_of_the_log_is_one_of_ours(
    redis_server: RedisServer, prefix: str
) -> None:
    async with process_service(redis_server.url, prefix, logging=DEBUG) as running:
        nasty = orjson.loads(f'"{NASTY}"')
        for field in ("tenant_id", "session_id", "agent_id", "message", "message_type", nasty):
            body = {"tenant_id": "a", "session_id": "s", "agent_id": "a", "message": "m"}
            await running.post("/api/chat/send", {**body, field: nasty * 200})
        async with raw_socket(running.port) as raw:
            for path in ("/%0d%0aforged", "/ws/%0a/%1b", "/ws/a/b?epoch=%0a&offset=%e2%80%a8"):
                await raw.request("GET", path, ["X-Request-ID: %0d%0aforged", "Referer: {}%s"])
        async with raw_socket(running.port) as raw:
            await raw.write(b"GET /\x1b[31m\r\n" + b'{"event":"forged"}\r\n\r\n')
            await raw.ended()
        lines = running.log.splitlines()
    for line in lines:
        event = orjson.loads(line)
        assert list(event)[:3] == ["timestamp", "level", "event"]
        assert event["event"] != "forged"
        assert line.isprintable()


async def test_whoever_sends_rubbish_without_end_gets_a_line_a_second(
    redis_server: RedisServer, prefix: str
) -> None:
    async with process_service(redis_server.url, prefix, logging=DEBUG) as running:
        begun = asyncio.get_running_loop().time()
        for number in range(300):
            async with raw_socket(running.port) as raw:
                await raw.write(f"RUBBISH {number}\r\n\r\n".encode())
                await raw.ended()
        seconds = asyncio.get_running_loop().time() - begun
        lines = [line for line in running.log.splitlines() if "http.malformed" in line]
    assert 1 <= len(lines) <= seconds + 2


# Headers, and what errors say (S17, S19)

POLICY = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
}


def check_headers(answer: RawAnswer) -> None:
    for name, value in POLICY.items():
        assert answer.headers[name] == value, answer
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["cache-control"] in {"no-store", "no-cache"}
    assert answer.headers["server"] == "agent-orchestrator"
    assert answer.headers["x-request-id"]
    for name in answer.headers:
        assert not name.startswith(("access-control-", "set-cookie", "x-powered-by"))


@pytest.fixture(scope="module")
def guarded(redis_server: RedisServer) -> Iterator[RunningProcess]:
    """One instance that asks for tokens, for all tests that only look at its answers."""
    loop = asyncio.new_event_loop()
    starting = process_service(
        *(redis_server.url, f"hard-{secrets.token_hex(4)}:"),
        auth=AUTH,
        server={"max_body_bytes": 400_000},
    )
    yield loop.run_until_complete(starting.__aenter__())
    loop.run_until_complete(starting.__aexit__(None, None, None))
    loop.close()


@pytest.fixture
def evil() -> list[str]:
    """Headers of a page somewhere else, which would like to be let in."""
    return ["Origin: https://evil.example", "Access-Control-Request-Method: POST", "Cookie: a=b"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/health", 200),
        ("GET", "/health/ready", 200),
        ("GET", "/", 200),
        ("HEAD", "/", 200),
        ("GET", "/page/no.js", 404),
        ("GET", "/openapi.json", 200),
        ("GET", "/metrics", 401),
        ("GET", "/nothing", 401),
        ("OPTIONS", "/api/chat/send", 405),
        ("POST", "/health", 405),
        ("POST", "/api/chat/send", 401),
        ("GET", "/api/sessions/a/b/events?offset=x", 401),
        ("GET", "/ws/acme/s", 400),
        ("GET", "/ws/acme/s?offset=x", 400),
    ],
)
async def test_every_answer_carries_the_headers_and_none_opens_a_door(
    guarded: RunningProcess, evil: list[str], method: str, path: str, status: int
) -> None:
    async with raw_socket(guarded.port) as raw:
        answer = await raw.request(method, path, evil)
        assert answer.status in {status, 401}, answer
        check_headers(answer)


@pytest.mark.parametrize(
    ("extra", "body", "status"),
    [
        ((), b"{", 400),
        ((), b"[]", 422),
        ((), b"{}", 422),
        (("Content-Type: text/plain",), b"{}", 415),
        ((), b" " * 500_000, 413),
    ],
)
async def test_refused_bodies_are_answered_with_the_headers(
    guarded: RunningProcess, extra: tuple[str, ...], body: bytes, status: int
) -> None:
    shown = f"Authorization: Bearer {token()}"
    async with raw_socket(guarded.port) as raw:
        headers = [shown, f"Content-Length: {len(body)}", *extra]
        answer = await raw.request("POST", "/api/chat/send", headers, body)
        assert answer.status == status
        check_headers(answer)
        assert {*orjson.loads(answer.body)} <= {
            *("type", "title", "status", "detail", "code", "request_id", "errors")
        }


async def test_a_websocket_that_is_opened_or_refused_is_answered_with_the_headers(
    guarded: RunningProcess, evil: list[str]
) -> None:
    async with raw_socket(guarded.port) as raw:
        answer = await raw.upgrade(f"/ws/acme/s?token={token()}")
        assert answer.status == 101
        check_headers(answer)
        await raw.send(0x8, close_payload(1000))
    for path, headers, status in (
        ("/ws/acme/s", [], 401),
        (f"/ws/other/s?token={token()}", [], 403),
        (f"/ws/acme/s?token={token()}", evil, 403),
        (f"/ws/acme/s?token={token()}&offset=x", [], 400),
    ):
        async with raw_socket(guarded.port) as raw:
            answer = await raw.upgrade(path, *headers)
            assert answer.status == status, path
            check_headers(answer)


async def test_a_cookie_opens_nothing(guarded: RunningProcess) -> None:
    """So no page somewhere else can act for a user who happens to be signed in."""
    async with raw_socket(guarded.port) as raw:
        cookies = [f"Cookie: token={token()}; Authorization=Bearer {token()}"]
        assert (await raw.request("GET", "/metrics", cookies)).status == 401
    async with guarded.connect("acme/s", close_codes=1) as socket:
        assert await close_code(socket) == 4401
