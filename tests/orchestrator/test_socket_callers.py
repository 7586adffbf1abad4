"""Who may connect and what may be said then: tokens by every way, their end, and their renewal.

S6 (the ways a token comes), S7 (expiry and renewal), S9 (isolation, by frame).
"""

import asyncio
import secrets
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import orjson
import pytest
from websockets.asyncio.client import ClientConnection

from orchestrator.frames import KNOWN
from tests.orchestrator.test_socket import refusal_of
from tests.support.callers import AUTH, KEY, OPERATOR_KEY, bearer, token
from tests.support.client import WITHIN, Frame, close_code, next_frame, say
from tests.support.raw import raw_socket
from tests.support.redis_server import RedisServer
from tests.support.service import RunningProcess, process_service, running_service


@pytest.fixture(scope="module")
def shared(redis_server: RedisServer) -> Iterator[RunningProcess]:
    loop = asyncio.new_event_loop()
    starting = process_service(
        redis_server.url, f"callers-{secrets.token_hex(4)}:", auth=AUTH, logging={"level": "debug"}
    )
    yield loop.run_until_complete(starting.__aenter__())
    loop.run_until_complete(starting.__aexit__(None, None, None))
    loop.close()


def by_header(shown: str) -> dict[str, Any]:
    return {"additional_headers": bearer(shown)}


async def reply(socket: ClientConnection, type_: str, **data: Any) -> Frame:
    """What a frame is answered with."""
    id_ = secrets.token_hex(10)
    await say(socket, type_, id_, **data)
    while (frame := await next_frame(socket)).get("id") != id_:
        pass
    return frame


async def code_of(socket: ClientConnection, type_: str, **data: Any) -> str:
    """`ack` or `pong`, or the code of the refusal."""
    frame = await reply(socket, type_, **data)
    answered: str = frame["data"]["code"] if frame["type"] == "error" else frame["type"]
    return answered


# The way in.


async def test_a_token_or_key_may_come_by_every_way_that_a_browser_or_back_end_has(
    shared: RunningProcess,
) -> None:
    shown = token()
    for options, query in (
        (by_header(shown), {}),
        (by_header(OPERATOR_KEY), {}),
        ({"additional_headers": {"X-API-Key": OPERATOR_KEY}}, {}),
        ({"subprotocols": ["orchestrator.v1", "bearer", shown]}, {}),
        ({"subprotocols": ["bearer", shown]}, {}),
        ({"subprotocols": ["bearer", OPERATOR_KEY]}, {}),
        ({}, {"token": shown}),
    ):
        async with shared.connect("acme/s", options, **query) as socket:
            assert (await next_frame(socket))["type"] == "connection_ack"
            assert socket.subprotocol in (None, "orchestrator.v1", "bearer")


@pytest.mark.parametrize("offered", ["bearer, {}", "orchestrator.v1, bearer, {}"])
async def test_no_answer_to_an_upgrade_repeats_the_token(
    shared: RunningProcess, offered: str
) -> None:
    for shown in (token(), token(expires_in=-1), token(scope="")):
        async with raw_socket(shared.port) as raw:
            lines = f"Sec-WebSocket-Protocol: {offered.format(shown)}"
            answer = await raw.upgrade(f"/ws/acme/s?token={shown}", lines)
            assert shown not in str(answer)


@pytest.mark.parametrize(
    ("session", "shown", "refused"),
    [
        ("acme/s", None, (401, "unauthorized", 4401)),
        ("acme/s", "to.ke.n", (401, "unauthorized", 4401)),
        ("acme/s", "a-key-of-nobody", (401, "unauthorized", 4401)),
        ("acme/s", {"expires_in": -1}, (401, "unauthorized", 4401)),
        ("acme/s", {"scope": "push"}, (403, "forbidden", 4403)),
        ("globex/s", {}, (403, "forbidden", 4403)),
        ("acme/s", {"sessions": ["other"]}, (403, "forbidden", 4403)),
        ("acme/s", {"session_id": "S"}, (403, "forbidden", 4403)),
    ],
)
async def test_who_may_not_connect_is_told_why(
    shared: RunningProcess,
    session: str,
    shown: str | dict[str, Any] | None,
    refused: tuple[int, str, int],
) -> None:
    if isinstance(shown, dict):  # made only now: in a long run a token would have expired
        shown = token(**shown)
    assert await refusal_of(shared, session, bearer(shown) if shown else {}) == refused


async def test_a_user_connects_as_nobody_else(shared: RunningProcess) -> None:
    refused = await refusal_of(shared, "acme/s", bearer(token()), user_id="bob")
    assert refused == (403, "forbidden", 4403)
    async with shared.connect("acme/s", by_header(token()), user_id="alice") as socket:
        assert (await next_frame(socket))["type"] == "connection_ack"
    async with shared.connect("acme/s", by_header(OPERATOR_KEY), user_id="bob") as socket:
        assert (await next_frame(socket))["type"] == "connection_ack"


async def test_a_cookie_lets_nobody_in_whatever_page_they_come_from(
    shared: RunningProcess,
) -> None:
    headers = {"Cookie": f"token={token()}", "Origin": f"http://127.0.0.1:{shared.port}"}
    assert await refusal_of(shared, "acme/s", headers) == (401, "unauthorized", 4401)
    evil = {**headers, **bearer(token()), "Origin": "https://evil.example"}
    assert await refusal_of(shared, "acme/s", evil) == (403, "origin_not_allowed", 4403)


async def test_a_tenant_without_a_tier_is_refused_everywhere(
    redis_server: RedisServer, prefix: str
) -> None:
    tiers: dict[str, Any] = {"default_tier": None, "tenants": {"acme": {"tier": "free"}}}
    async with running_service(redis_server.url, prefix, auth=AUTH, **tiers) as service:
        shown = token("globex")
        assert await refusal_of(service, "globex/s", bearer(shown)) == (403, "forbidden", 4403)
        address = {"tenant_id": "globex", "session_id": "s"}
        for path, body in (
            ("chat/send", {**address, "agent_id": "a", "message": "m"}),
            ("chat/status", {"tenant_id": "globex", "task_id": "t"}),
            ("chat/cancel", {"tenant_id": "globex", "task_id": "t"}),
            ("ws/send", {**address, "message_data": {}}),
            ("ws/broadcast", {"tenant_id": "globex", "message_data": {}}),
        ):
            assert (await service.post(f"/api/{path}", body, **bearer(shown))).status == 403, path
        assert (await service.get("/api/sessions/globex/s/events", **bearer(shown))).status == 403
        async with service.connect("acme/s", by_header(token())) as socket:
            assert (await next_frame(socket))["type"] == "connection_ack"


async def test_a_priority_above_the_tiers_is_lowered_to_it(
    redis_server: RedisServer, prefix: str
) -> None:
    tenants = {"acme": {"tier": "starter"}, "globex": {"tier": "free"}}
    async with running_service(redis_server.url, prefix, tenants=tenants) as service:
        taken = service.service.app
        for tenant, asked, given in (
            ("acme", "high", "normal"),
            ("acme", "low", "low"),
            ("globex", "high", "low"),
            ("initech", "high", "high"),
        ):
            await service.send(f"{tenant}/rest", priority=asked)
            async with service.connect(f"{tenant}/socket") as socket:
                message = {"agent_id": "a", "message": "m", "priority": asked}
                assert await code_of(socket, "chat.send_message", **message) == "ack"
            for session in ("rest", "socket"):
                event = (await service.events(f"{tenant}/{session}"))["events"][-1]
                task = await taken.redis.call(
                    "HGET", f"{prefix}task:{{{tenant}:{session}}}:{event['task_id']}", "priority"
                )
                assert task.decode() == given


# What may be said.

FRAMES: dict[str, dict[str, str]] = {
    "chat.send_message": {"owner": "ack", "colleague": "ack", "stranger": "ack", "bound": "ack"},
    "chat.get_status": {
        "owner": "ack",
        "colleague": "ack",
        "stranger": "task_not_found",
        "bound": "task_not_found",
    },
    "chat.cancel_task": {
        "owner": "ack",
        "colleague": "ack",
        "stranger": "task_not_found",
        "bound": "task_not_found",
    },
    "ping": dict.fromkeys(("owner", "colleague", "stranger", "bound"), "pong"),
    "auth.refresh": {
        "owner": "ack",
        "colleague": "forbidden",
        "stranger": "forbidden",
        "bound": "ack",
    },
}
CONNECTED: dict[str, tuple[str, Callable[[], str]]] = {
    "owner": ("acme/s", token),
    "colleague": ("acme/s", lambda: token(user="bob")),
    "stranger": ("globex/s", lambda: token("globex", "mallory")),
    "bound": ("acme/bound", lambda: token(sessions=["bound"])),
}


@pytest.mark.parametrize("type_", KNOWN)
@pytest.mark.parametrize("caller", CONNECTED)
async def test_each_frame_is_answered_as_its_caller_may_be(
    shared: RunningProcess, type_: str, caller: str
) -> None:
    body = {"tenant_id": "acme", "session_id": "s", "agent_id": "echo", "message": "m"}
    body["if_busy"] = "parallel"
    sent = await shared.post("/api/chat/send", body, **bearer(token()))
    data = {
        "chat.send_message": {"agent_id": "echo", "message": "m"},
        "chat.get_status": {"task_id": sent.json["task_id"]},
        "chat.cancel_task": {"task_id": sent.json["task_id"]},
        "ping": {},
        "auth.refresh": {"token": token()},
    }[type_]
    session, shown = CONNECTED[caller]
    if caller == "bound" and type_ == "auth.refresh":
        data = {"token": token(sessions=["bound", "more"])}
    async with shared.connect(session, by_header(shown())) as socket:
        assert await code_of(socket, type_, **data) == FRAMES[type_][caller]


@pytest.mark.parametrize("caller", ["stranger", "bound"])
async def test_a_frame_about_a_foreign_task_is_answered_like_one_about_none(
    shared: RunningProcess, caller: str
) -> None:
    body = {"tenant_id": "acme", "session_id": "s", "agent_id": "echo", "message": "m"}
    body["if_busy"] = "parallel"
    task_id = (await shared.post("/api/chat/send", body, **bearer(token()))).json["task_id"]
    session, shown = CONNECTED[caller]
    async with shared.connect(session, by_header(shown())) as socket:
        for type_ in ("chat.get_status", "chat.cancel_task"):
            foreign = await reply(socket, type_, task_id=task_id)
            missing = await reply(socket, type_, task_id="no-such-task")
            for frame in (foreign, missing):
                del frame["id"], frame["timestamp"]
            assert foreign == missing


async def test_a_frame_speaks_for_its_own_user_only(shared: RunningProcess) -> None:
    async with shared.connect("acme/s", by_header(token())) as socket:
        message = {"agent_id": "a", "message": "m", "if_busy": "parallel"}
        assert await code_of(socket, "chat.send_message", **message, user_id="bob") == "forbidden"
        assert await code_of(socket, "chat.send_message", **message, user_id="alice") == "ack"


# A token's end, and its renewal.

SOON = 2.0  # seconds that a token is good for: time enough to connect with it on a busy machine
TICK = 0.005  # seconds; the service's timers go by another clock


async def test_a_connection_ends_with_its_token(shared: RunningProcess) -> None:
    began = time.time()
    async with shared.connect("acme/s", by_header(token(expires_in=SOON))) as socket:
        assert await close_code(socket) == 4401
        assert socket.close_reason == "the token has expired; come back with another"
    assert SOON - TICK <= time.time() - began < SOON + 5


async def test_a_key_does_not_expire(shared: RunningProcess) -> None:
    async with shared.connect("acme/s", by_header(OPERATOR_KEY)) as socket:
        answer = await reply(socket, "auth.refresh", token=OPERATOR_KEY)
        assert answer["data"] == {"expires_at": None}


async def test_a_stream_of_events_ends_with_its_token(shared: RunningProcess) -> None:
    address = f"/api/sessions/acme/s/events?token={token(expires_in=SOON)}"
    async with raw_socket(shared.port) as raw:
        await raw.write(
            f"GET {address} HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n".encode()
        )
        assert b"200" in await raw.reader.readline()
        text = await asyncio.wait_for(raw.reader.readuntil(b"\r\n0\r\n\r\n"), WITHIN)
        assert b"event: connection_ack" in text


async def test_a_new_token_lets_a_connection_live_on_and_says_until_when(
    shared: RunningProcess,
) -> None:
    async with shared.connect("acme/s", by_header(token(expires_in=SOON))) as socket:
        until = time.time() + SOON + 1
        answer = await reply(socket, "auth.refresh", token=token(exp=until))
        assert answer["type"] == "ack"
        told = datetime.fromisoformat(answer["data"]["expires_at"]).timestamp()
        assert told == pytest.approx(until, abs=0.002)
        assert await close_code(socket) == 4401
        assert until - TICK <= time.time() < until + 5


async def test_a_new_token_may_end_a_connection_sooner(shared: RunningProcess) -> None:
    async with shared.connect("acme/s", by_header(token())) as socket:
        await reply(socket, "auth.refresh", token=token(expires_in=SOON))
        assert await close_code(socket) == 4401


async def test_a_token_that_does_not_fit_changes_nothing(shared: RunningProcess) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"token": token("globex")}, "forbidden"),
        ({"token": token(user="bob")}, "forbidden"),
        ({"token": token(sessions=["other"])}, "forbidden"),
        ({"token": token(scope="push")}, "forbidden"),
        ({"token": OPERATOR_KEY}, "forbidden"),
        ({"token": token(expires_in=-1)}, "unauthorized"),
        ({"token": "to.ke.n"}, "unauthorized"),
        ({"token": "\n"}, "unauthorized"),
        ({"token": "x" * 100_000}, "unauthorized"),
        ({}, "validation_failed"),
        ({"token": ""}, "validation_failed"),
        ({"token": 123456789}, "validation_failed"),
        ({"token": token(), "more": 1}, "validation_failed"),
    ]

    async def changes_nothing(data: dict[str, Any], code: str) -> None:
        async with shared.connect("acme/s", by_header(token(expires_in=2 * SOON))) as socket:
            answer = await reply(socket, "auth.refresh", **data)
            assert answer["data"]["code"] == code, data
            assert str(data.get("token") or "none") not in orjson.dumps(answer).decode()
            assert await close_code(socket) == 4401, data  # in its time

    # Side by side, as each of them waits for its connection's end.
    await asyncio.gather(*(changes_nothing(*case) for case in cases))


async def test_what_follows_a_renewal_is_answered_after_it(shared: RunningProcess) -> None:
    async with shared.connect("acme/s", by_header(token())) as socket:
        await next_frame(socket)
        for number in range(10):
            await say(socket, "auth.refresh", f"refresh-{number}", token=token())
            await say(socket, "ping", f"ping-{number}")
        ids = [(await next_frame(socket))["id"] for _ in range(20)]
        assert ids == [f"{kind}-{n}" for n in range(10) for kind in ("refresh", "ping")]


async def test_a_renewal_may_narrow_what_may_be_said(shared: RunningProcess) -> None:
    body = {"tenant_id": "acme", "session_id": "s-2", "agent_id": "echo", "message": "m"}
    task_id = (await shared.post("/api/chat/send", body, **bearer(token()))).json["task_id"]
    async with shared.connect("acme/s", by_header(token())) as socket:
        assert await code_of(socket, "chat.get_status", task_id=task_id) == "ack"
        assert await code_of(socket, "auth.refresh", token=token(sessions=["s"])) == "ack"
        assert await code_of(socket, "chat.get_status", task_id=task_id) == "task_not_found"


# What stays unsaid.


async def test_no_token_or_key_is_in_any_log_or_metric(shared: RunningProcess) -> None:
    shown = [token(), token(expires_in=-1), token(scope=""), "to.ke.n", OPERATOR_KEY]
    for each in shown:
        await shared.get("/metrics", **bearer(each))
        await shared.get(f"/metrics?token={each}")
        await shared.get("/metrics", X_API_Key=each)
        for path in ("/ws/acme/s", "/api/sessions/acme/s/events", "/ws/acme", "/nowhere"):
            async with raw_socket(shared.port) as raw:
                await raw.write(
                    f"GET {path}?token={each} HTTP/1.1\r\nHost: x\r\n"
                    "Upgrade: websocket\r\nConnection: Upgrade\r\n"
                    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: eA==\r\n"
                    f"Sec-WebSocket-Protocol: bearer, {each}\r\n\r\n".encode()
                )
                await raw.reader.readline()
    async with shared.connect("acme/s", by_header(shown[0])) as socket:
        await next_frame(socket)
        for each in shown:
            await reply(socket, "auth.refresh", token=each)
    metrics = await shared.get("/metrics", **bearer(OPERATOR_KEY))
    assert "credentials.refused" in shared.log
    for secret in (*shown[:3], OPERATOR_KEY, KEY):
        assert secret not in shared.log
        assert secret.encode() not in metrics.body
