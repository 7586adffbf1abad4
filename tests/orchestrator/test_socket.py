"""A WebSocket of section 4: who is let in, what a frame is answered with, how it ends."""

import asyncio
from collections.abc import Mapping
from typing import Any

import orjson
import pytest
from websockets.exceptions import InvalidStatus

from tests.support.client import close_code, frames_until, next_frame, say
from tests.support.fake_executor import FakeExecutor
from tests.support.follower import eventually
from tests.support.proxy import Proxy
from tests.support.raw import KEY, TEXT, UPGRADE, raw_socket
from tests.support.redis_server import RedisServer
from tests.support.service import RunningProcess, process_service, running_service


async def refusal_of(
    service: Any, session: str, headers: Mapping[str, str] | None = None, **query: Any
) -> tuple[int, str, int | None]:
    """The status and code by HTTP, and the close code with `close_codes=1`."""
    options = {"additional_headers": dict(headers or {})}
    with pytest.raises(InvalidStatus) as caught:
        async with service.connect(session, options, **query):
            pass
    response = caught.value.response
    assert response.headers["Content-Type"] == "application/problem+json"
    problem = orjson.loads(response.body)
    async with service.connect(session, options, **query, close_codes=1) as socket:
        code = await close_code(socket)
        assert socket.close_reason
    return response.status_code, problem["code"], code


# The way in


@pytest.mark.parametrize(
    "session", ["a{b}/s", "acme/s%0a", "acme/" + "s" * 129, "-a/s", "acme/s%2fx", "acme/%ff"]
)
async def test_a_path_that_names_no_session_is_refused(
    instance: RunningProcess, session: str
) -> None:
    assert await refusal_of(instance, session) == (400, "bad_request", 4400)


@pytest.mark.parametrize(
    "query",
    [
        {"offset": 1},
        {"epoch": "e"},
        {"offset": -1},
        {"offset": 2**63},
        {"offset": "NaN"},
        {"offset": "1.0"},
        {"offset": ""},
        {"offset": "٣"},
        {"offset": 1, "epoch": ""},
        {"offset": 1, "epoch": "e" * 129},
        {"compact": "yes"},
        {"user_id": "a b"},
        {"user_id": ""},
        {"user_id": b"\xff"},
    ],
    ids=str,
)
async def test_a_query_that_makes_no_sense_is_refused(
    instance: RunningProcess, tenant: str, query: dict[str, Any]
) -> None:
    assert await refusal_of(instance, f"{tenant}/s", **query) == (400, "bad_request", 4400)


@pytest.mark.parametrize(
    "origin",
    [
        *("http://evil.example", "null", "file://", "http://", "", "x", "http://[::1"),
        *("http://127.0.0.1.evil.example:{port}", "http://127.0.0.1", "http://u@127.0.0.1:{port}"),
    ],
)
async def test_a_page_of_another_origin_is_refused(
    instance: RunningProcess, tenant: str, origin: str
) -> None:
    headers = {"Origin": origin.format(port=instance.port)}
    refused = await refusal_of(instance, f"{tenant}/s", headers)
    assert refused == (403, "origin_not_allowed", 4403)


async def test_a_page_of_the_same_origin_is_let_in(instance: RunningProcess, tenant: str) -> None:
    for scheme in ("http", "https"):
        options = {"additional_headers": {"Origin": f"{scheme}://127.0.0.1:{instance.port}"}}
        async with instance.connect(f"{tenant}/s", options) as socket:
            assert (await next_frame(socket))["type"] == "connection_ack"


async def test_allowed_origins_are_let_in_and_no_others(
    redis_server: RedisServer, prefix: str
) -> None:
    allowed = {"allowed_origins": ["https://chat.example.com"]}
    async with running_service(redis_server.url, prefix, websocket=allowed) as service:
        options = {"additional_headers": {"Origin": "https://Chat.example.com"}}
        async with service.connect("acme/s", options):
            pass
        same = {"Origin": f"http://127.0.0.1:{service.port}"}
        assert (await refusal_of(service, "acme/s", same))[2] == 4403


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [line for line in UPGRADE if not line.startswith("Upgrade")],
        [line for line in UPGRADE if not line.startswith("Connection")],
        ["Upgrade: h2c", *UPGRADE[1:]],
        ["Upgrade: websocket", "Connection: keep-alive", *UPGRADE[2:]],
        [*UPGRADE[:2], "Sec-WebSocket-Version: 8", UPGRADE[3]],
        [*UPGRADE[:2], UPGRADE[3]],
        UPGRADE[:3],
    ],
)
async def test_what_is_no_upgrade_of_today_is_a_bad_request(
    instance: RunningProcess, tenant: str, headers: list[str]
) -> None:
    async with raw_socket(instance.port) as raw:
        answer = await raw.request("GET", f"/ws/{tenant}/s", headers)
        assert answer.status == 400
        assert orjson.loads(answer.body)["code"] == "bad_request"
        if "Sec-WebSocket-Version: 13" not in headers:
            assert answer.headers["sec-websocket-version"] == "13"


async def test_a_handshake_may_come_byte_by_byte(instance: RunningProcess, tenant: str) -> None:
    async with raw_socket(instance.port) as raw:
        lines = (f"GET /ws/{tenant}/s HTTP/1.1", "Host: x", *UPGRADE, "", "")
        await raw.slowly("\r\n".join(lines).encode())
        answer = await raw.answer()
        assert answer.status == 101
        assert answer.headers["sec-websocket-accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        assert KEY not in str(answer.headers)
        assert (await raw.frame()).opcode == TEXT


@pytest.mark.parametrize(
    ("offered", "answered"),
    [
        ("orchestrator.v1", "orchestrator.v1"),
        ("bearer, orchestrator.v1, TOKEN", "orchestrator.v1"),
        ("bearer, TOKEN", "bearer"),
        ("other", None),
        (None, None),
    ],
)
async def test_the_subprotocol_is_ours_and_never_the_token(
    instance: RunningProcess, tenant: str, offered: str | None, answered: str | None
) -> None:
    async with raw_socket(instance.port) as raw:
        headers = [] if offered is None else [f"Sec-WebSocket-Protocol: {offered}"]
        answer = await raw.upgrade(f"/ws/{tenant}/s", *headers)
        assert answer.status == 101
        assert answer.headers.get("sec-websocket-protocol") == answered


async def test_no_more_connections_are_taken_than_the_limit(
    redis_server: RedisServer, prefix: str
) -> None:
    async with running_service(
        redis_server.url, prefix, websocket={"max_connections": 2}
    ) as service:
        async with service.connect("acme/a"), service.connect("acme/b"):
            refused = await refusal_of(service, "acme/c")
            assert refused == (503, "overloaded", 1013)
        await eventually(lambda: not service.service.app.sockets)  # a close is seen a moment later
        async with service.connect("acme/c") as socket:
            assert (await next_frame(socket))["type"] == "connection_ack"


async def test_who_leaves_while_being_let_in_is_not_counted_for_ever(prefix: str) -> None:
    with RedisServer() as server:
        async with (
            running_service(server.url, prefix) as service,
            FakeExecutor(server.url, prefix) as fake,
        ):
            await fake.redis.execute_command("CLIENT", "PAUSE", 500, "ALL")
            for _ in range(5):
                async with raw_socket(service.port) as raw:
                    head = "\r\n".join(("GET /ws/acme/s HTTP/1.1", "Host: x", *UPGRADE, "", ""))
                    await raw.write(head.encode())
                    while not service.service.app.sockets:
                        await asyncio.sleep(0.01)
            async with service.connect("acme/s") as socket:  # in the end the pause is over
                await next_frame(socket)
            app = service.service.app
            await eventually(lambda: not (app.counters.connections or app.sockets))


@pytest.mark.alone
async def test_a_session_is_refused_while_redis_is_away(
    redis_server: RedisServer, prefix: str
) -> None:
    async with Proxy(redis_server.port) as proxy, running_service(proxy.url, prefix) as service:
        proxy.blackhole()
        began = asyncio.get_running_loop().time()
        with pytest.raises(InvalidStatus) as caught:
            async with service.connect("acme/s"):
                pass
        assert asyncio.get_running_loop().time() - began < 3.2
        assert orjson.loads(caught.value.response.body)["code"] == "redis_unavailable"
        assert caught.value.response.headers["Retry-After"] == "1"
        await proxy.heal()


# Frames


async def test_the_acknowledgement_says_all_that_the_contract_asks_for(
    instance: RunningProcess, tenant: str
) -> None:
    async with instance.connect(f"{tenant}/s") as socket:
        frame = await next_frame(socket)
    assert frame.keys() == {"type", "data", "timestamp", "tenant_id", "session_id"}
    assert (frame["type"], frame["tenant_id"], frame["session_id"]) == (
        "connection_ack",
        tenant,
        "s",
    )
    data = frame["data"]
    assert data.keys() == {
        *("connection_id", "epoch", "offset", "recovered", "replayed"),
        *("ping_interval", "max_message_bytes", "instance_id"),
    }
    assert (data["offset"], data["recovered"], data["replayed"]) == (0, False, 0)
    assert (data["ping_interval"], data["max_message_bytes"]) == (30, 262_144)


async def test_a_ping_is_answered_with_its_id(instance: RunningProcess, tenant: str) -> None:
    async with instance.connect(f"{tenant}/s") as socket:
        await say(socket, "ping", "short")
        pong = (await frames_until(socket, "pong"))[-1]
        assert (pong["id"], pong["data"]) == ("short", {})
        await socket.send('{"type":"ping"}')
        assert "id" not in await next_frame(socket)


async def test_a_message_by_frame_is_acknowledged_and_told_to_every_tab(
    instance: RunningProcess, tenant: str
) -> None:
    async with (
        instance.connect(f"{tenant}/s", user_id="u-1") as one,
        instance.connect(f"{tenant}/s") as other,
    ):
        for socket in (one, other):
            await next_frame(socket)
        await say(
            one, "chat.send_message", "short", agent_id="echo", message="hi", metadata={"k": 1}
        )
        frames = {frame["type"]: frame for frame in [await next_frame(one), await next_frame(one)]}
        told = await next_frame(other)
        assert told == frames["user_message"]
        assert told["offset"] == 1
        assert told["metadata"] == {"k": 1}
        assert told["data"].items() >= {"message": "hi", "user_id": "u-1"}.items()
        ack = frames["ack"]
        assert ack["id"] == "short"
        assert ack["data"]["task_id"] == told["task_id"]
        await say(one, "chat.get_status", "status", task_id=told["task_id"])
        assert (await next_frame(one))["data"]["status"] == "queued"
        await say(one, "chat.cancel_task", "stop", task_id=told["task_id"])
        answers = {frame["type"]: frame for frame in [await next_frame(one), await next_frame(one)]}
        assert answers["ack"]["data"] == {"task_id": told["task_id"], "status": "cancelled"}
        assert answers["task_update"]["data"]["status"] == "cancelled"
        assert answers["task_update"] == await next_frame(other)


async def test_an_id_of_16_characters_makes_a_message_idempotent_and_a_shorter_one_does_not(
    instance: RunningProcess, tenant: str
) -> None:
    async with instance.connect(f"{tenant}/s") as socket:
        tasks: dict[str, set[str]] = {}
        for id_ in ("x" * 15, "x" * 16):
            for _ in range(2):
                await say(socket, "chat.send_message", id_, agent_id="echo", message="hi")
                ack = (await frames_until(socket, "ack"))[-1]
                tasks.setdefault(id_, set()).add(ack["data"]["task_id"])
        assert [len(each) for each in tasks.values()] == [2, 1]
        await say(socket, "chat.send_message", "x" * 16, agent_id="echo", message="other")
        error = (await frames_until(socket, "error"))[-1]
        assert (error["id"], error["data"]["code"]) == ("x" * 16, "idempotency_conflict")
    answer = await instance.send(f"{tenant}/s", "hi", key="x" * 16)
    assert answer.headers["Idempotent-Replayed"] == "true"  # of equal content by REST, too


BAD_FRAMES: list[str | bytes] = [
    b'{"type":"ping"}',
    "",
    "no JSON",
    "[]",
    "null",
    '"ping"',
    '{"type":"ping"',
    "{}",
    '{"type":"unknown"}',
    '{"type":"unknown","id":7}',
    '{"type":5}',
    '{"type":["ping"]}',
    '{"type":"connection_ack"}',
    '{"type":"ping","a":NaN}',
]
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"type": "ping", "id": 5}, "validation_failed"),
    ({"type": "ping", "id": ""}, "validation_failed"),
    ({"type": "ping", "id": "x" * 129}, "validation_failed"),
    ({"type": "ping", "id": "ä" * 16}, "validation_failed"),
    ({"type": "ping", "id": "i", "data": []}, "validation_failed"),
    ({"type": "ping", "id": "i", "extra": 1}, "validation_failed"),
    ({"type": "chat.send_message", "id": "i"}, "validation_failed"),
    ({"type": "chat.send_message", "id": "i", "data": {"tenant_id": "x"}}, "validation_failed"),
    ({"type": "chat.get_status", "id": "i", "data": {"task_id": "x"}}, "task_not_found"),
    ({"type": "chat.cancel_task", "id": "i", "data": {"task_id": "x"}}, "task_not_found"),
    ({"type": "auth.refresh", "id": "i", "data": {"token": "x"}}, "forbidden"),
]


@pytest.mark.parametrize("frame", BAD_FRAMES, ids=repr)
async def test_a_bad_frame_is_answered_and_the_connection_stays(
    instance: RunningProcess, tenant: str, frame: str | bytes
) -> None:
    async with instance.connect(f"{tenant}/s") as socket:
        await next_frame(socket)
        await socket.send(frame)
        error = await next_frame(socket)
        assert (error["type"], error["data"]["code"][:3]) in {("error", "bad"), ("error", "mal")}
        await say(socket, "ping")
        assert (await next_frame(socket))["type"] == "pong"


async def test_20_bad_frames_in_a_row_are_too_many(instance: RunningProcess, tenant: str) -> None:
    async with instance.connect(f"{tenant}/s") as socket:
        await next_frame(socket)
        for _ in range(2):
            for i in range(19):
                await socket.send(BAD_FRAMES[i % len(BAD_FRAMES)])
            await say(socket, "ping")
            await frames_until(socket, "pong")
        for _ in range(20):
            await socket.send("bad")
        frames = [await next_frame(socket) for _ in range(20)]
        assert {frame["type"] for frame in frames} == {"error"}
        assert await close_code(socket) == 4413


async def test_what_is_well_formed_and_refused_is_not_bad(
    instance: RunningProcess, tenant: str
) -> None:
    deep: dict[str, Any] = {}
    for _ in range(40):
        deep = {"a": deep}
    too_deep = {"type": "chat.send_message", "id": "i", "data": {"context": deep}}
    async with instance.connect(f"{tenant}/s") as socket:
        await next_frame(socket)
        for frame, code in [*REFUSED, (too_deep, "validation_failed")] * 3:
            await socket.send(orjson.dumps(frame).decode())
            error = await next_frame(socket)
            assert (error["type"], error["data"]["code"]) == ("error", code)
            can_be_repeated = isinstance(frame["id"], str) and 0 < len(frame["id"]) <= 128
            assert error.get("id") == (frame["id"] if can_be_repeated else None)
        for _ in range(19):
            await socket.send("bad")
            await next_frame(socket)
        await socket.send(orjson.dumps(REFUSED[-1][0]).decode())
        await next_frame(socket)
        await socket.send("bad")  # the 20th, but not in a row
        await next_frame(socket)
        await say(socket, "ping")
        assert (await next_frame(socket))["type"] == "pong"


async def test_a_body_that_rest_takes_is_taken_as_a_frame(
    instance: RunningProcess, tenant: str
) -> None:
    context: dict[str, Any] = {}
    for _ in range(30):
        context = {"a": context}
    assert (await instance.send(f"{tenant}/s", context=context)).status == 202  # 32 deep
    async with instance.connect(f"{tenant}/s") as socket:
        await say(socket, "chat.send_message", "i", agent_id="a", message="m", context=context)
        assert (await frames_until(socket, "ack"))[-1]["id"] == "i"


async def test_a_flood_of_frames_waits_in_its_sender_and_all_are_answered(
    redis_server: RedisServer, prefix: str
) -> None:
    unlimited = {"max_frames_per_second": None}
    async with (
        process_service(redis_server.url, prefix, websocket=unlimited) as service,
        service.connect("acme/s") as socket,
    ):
        await next_frame(socket)

        async def flood() -> None:
            for i in range(3000):
                await socket.send(f'{{"type":"ping","id":"{i}"}}')

        flooding = asyncio.create_task(flood())
        for i in range(3000):
            assert (await next_frame(socket))["id"] == str(i)
        await flooding
