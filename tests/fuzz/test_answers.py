"""Every answer that the document tells of is provoked, and held against what it says."""

import hashlib
from typing import Any

import orjson
import pytest
from jsonschema import Draft202012Validator
from tornado.httputil import HTTPHeaders

from tests.fuzz.conftest import AUTH, KEY
from tests.fuzz.described import Asking, Described
from tests.fuzz.test_rest import DOCUMENT
from tests.support.client import Address, Answer, frames_until, next_frame
from tests.support.fake_executor import FakeExecutor
from tests.support.follower import eventually
from tests.support.raw import raw_socket
from tests.support.redis_server import RedisServer, free_port
from tests.support.service import Running, process_service, running_service

KEYS = {scope: f"a-key-of-acme-that-may-only-{scope}" for scope in ("chat", "push")}
MESSAGE = {"tenant_id": "acme", "session_id": "s-1", "agent_id": "echo", "message": "hi"}
SETTINGS: dict[str, Any] = {
    "server": {"max_body_bytes": 20_000},
    "agents": {"echo": {}, "slow": {}},
    "tiers": {"tiny": {"requests_per_hour": 1, "max_connections": 1}},
    "tenants": {"few": {"tier": "tiny"}},
}
LIMITED = {
    "mode": ["api_key"],
    "api_keys": [
        *AUTH["api_keys"],
        *(
            {
                "name": scope,
                "sha256": hashlib.sha256(key.encode()).hexdigest(),
                "tenant_id": "acme",
                "scopes": [scope],
            }
            for scope, key in KEYS.items()
        ),
    ],
}

# What only a fault could provoke, or has a test where the fault is.
ELSEWHERE = {
    "500": "a mistake of ours that nobody knows of",
    "503": "of an instance that drains, is full, or cannot reach Redis",
}


async def test_what_the_document_tells_is_what_is_answered(
    redis_server: RedisServer, prefix: str
) -> None:
    async with running_service(redis_server.url, prefix, **SETTINGS) as service:
        described = Described((await service.get("/openapi.json")).json)
        ask = Asking(service, described)
        await examples_are_taken(ask, described)
        async with FakeExecutor(redis_server.url, prefix) as executor:
            await chat(ask, service, executor)
            await dead_letters(ask, service, executor)
        await pushes(ask)
        await service.ready()  # but for a while after it stood still for want of a processor
        await operations(ask)
        await pages(ask)
        async with service.connect("few/s"):  # as many as that tenant may have
            await upgrades(service, described)
            await ask(429, "GET", "/api/sessions/few/s/events", Accept="text/event-stream")
        await refusals(ask, described)
    async with running_service(
        redis_server.url, f"{prefix}2:", **{**SETTINGS, "auth": LIMITED}
    ) as guarded:
        await callers(guarded, described)
    missing = {each for each in described.told - described.seen if each[2] not in ELSEWHERE}
    assert not missing, "\n".join(map(str, sorted(missing)))


async def test_without_redis_each_address_says_so_as_described(prefix: str) -> None:
    nowhere = f"redis://127.0.0.1:{free_port()}/0"
    async with process_service(nowhere, prefix, is_ready=False) as service:
        await eventually(lambda: listens(service))
        described = Described((await service.get("/openapi.json")).json)
        ask = Asking(service, described)
        await ask(200, "GET", "/health")
        await ask(503, "GET", "/health/ready")
        await ask(503, "GET", "/health/detailed")
        for path in ("/api/sessions/acme/s/events", "/dead-letters/execute", "/usage/acme"):
            await ask(503, "GET", path)
        await ask(503, "DELETE", "/dead-letters/execute/1-0")
        await ask(503, "POST", "/dead-letters/execute/1-0/requeue", b"")
        for path, methods in described.document["paths"].items():
            body = methods.get("post", {}).get("requestBody")
            for example in body["content"]["application/json"]["examples"].values() if body else ():
                await ask(503, "POST", path, example["value"])


def test_the_document_is_valid_where_it_is_json_schema() -> None:
    for schema in DOCUMENT["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
    described = Described(DOCUMENT)
    for methods in DOCUMENT["paths"].values():
        for operation in methods.values():
            for parameter in operation["parameters"]:
                Draft202012Validator.check_schema(parameter["schema"])
                described.validate(parameter["schema"], parameter["example"])
            contents = [each.get("content", {}) for each in operation["responses"].values()]
            for content in (*contents, operation.get("requestBody", {}).get("content", {})):
                for media in content.values():
                    check_examples(described, media)


def check_examples(described: Described, media: dict[str, Any]) -> None:
    shown = [each["value"] for each in media.get("examples", {}).values()]
    for example in (*shown, *([media["example"]] if "example" in media else [])):
        described.validate(media["schema"], example)


async def listens(service: Address) -> bool:
    try:
        return (await service.get("/health")).status == 200
    except OSError:
        return False


# --- What is provoked -----------------------------------------------------------------------


async def examples_are_taken(ask: Asking, described: Described) -> None:
    """The document's own examples, sent as they are."""
    expected = {"/api/chat/status": 404, "/api/chat/cancel": 404}  # of a task of nobody's
    for path, methods in described.document["paths"].items():
        body = methods.get("post", {}).get("requestBody")
        for example in body["content"]["application/json"]["examples"].values() if body else ():
            await ask(expected.get(path, 202), "POST", path, example["value"])


async def chat(ask: Asking, service: Running, executor: FakeExecutor) -> None:
    send, cancel = "/api/chat/send", "/api/chat/cancel"
    first = await ask(202, "POST", send, {**MESSAGE, "session_id": "s-2"}, Idempotency_Key="k")
    again = await ask(202, "POST", send, {**MESSAGE, "session_id": "s-2"}, Idempotency_Key="k")
    assert (again.body, again.headers["Idempotent-Replayed"]) == (first.body, "true")
    other = {**MESSAGE, "session_id": "s-2", "message": "other"}
    await ask(409, "POST", send, other, Idempotency_Key="k")
    await ask(409, "POST", send, {**other, "if_busy": "reject"})
    await ask(404, "POST", send, {**MESSAGE, "agent_id": "unknown"})
    await ask(202, "POST", send, {**MESSAGE, "tenant_id": "few"})
    await ask(429, "POST", send, {**MESSAGE, "tenant_id": "few"})
    task = {"tenant_id": "acme", "task_id": first.json["task_id"]}
    await ask(200, "POST", "/api/chat/status", task)
    while (taken := await executor.take()).task_id != task["task_id"]:
        pass  # the examples' own
    await executor.report(taken, "started")
    async with service.connect("acme/s-2", offset=0) as socket:
        await frames_until(socket, "task_update")
        await executor.report(taken, "delta", {"text": "so"})
        await ask(202, "POST", cancel, task)
        await executor.report(taken, "completed", {"response": "so far", "usage": {"cost": 1}})
        await frames_until(socket, "agent_response")
    ended = await ask(200, "POST", "/api/chat/status", task)
    assert ended.json["status"] == "completed"
    await ask(409, "POST", cancel, task)
    waiting = (await ask(202, "POST", send, {**MESSAGE, "session_id": "s-3"})).json
    await ask(200, "POST", cancel, {"tenant_id": "acme", "task_id": waiting["task_id"]})
    events = "/api/sessions/acme/s-2/events"
    page = await ask(200, "GET", f"{events}?compact=1")
    assert {each["type"] for each in page.json["events"]} > {"user_message", "agent_response"}
    await ask(200, "GET", "/api/sessions/acme/nobody/events")
    await ask(304, "GET", f"{events}?compact=1", If_None_Match=page.headers["Etag"])
    await ask(409, "GET", f"{events}?epoch=another")
    await ask(422, "GET", f"{events}?limit=0")


async def dead_letters(ask: Asking, service: Running, executor: FakeExecutor) -> None:
    async with service.connect("acme/s-4") as socket:
        await next_frame(socket)
        await service.send("acme/s-4")
        while (task := await executor.take()).action["session_id"] != "s-4":
            pass
        await executor.report(task, "nonsense", {"a": 1})
        await executor.report(task, "started")
        await frames_until(socket, "task_update")
    listed = await ask(200, "GET", "/dead-letters/callbacks?limit=5")
    await ask(304, "GET", "/dead-letters/callbacks?limit=5", If_None_Match=listed.headers["Etag"])
    (letter,) = listed.json["items"]
    await ask(202, "POST", f"/dead-letters/callbacks/{letter['id']}/requeue", b"")
    added = [await letter_of(executor, text) for text in (orjson.dumps(MESSAGE), b"{", b"{}")]
    await ask(200, "GET", "/dead-letters/execute")
    for letter_id, status in zip(added, (202, 400, 422), strict=True):
        await ask(status, "POST", f"/dead-letters/execute/{letter_id}/requeue", b"")
    unknown = await letter_of(executor, orjson.dumps({**MESSAGE, "agent_id": "unknown"}))
    await ask(404, "POST", f"/dead-letters/execute/{unknown}/requeue", b"")
    busy = {**MESSAGE, "session_id": "s-4", "if_busy": "reject"}
    rejected = await letter_of(executor, orjson.dumps(busy))
    await ask(409, "POST", f"/dead-letters/execute/{rejected}/requeue", b"")
    limited = await letter_of(executor, orjson.dumps({**MESSAGE, "tenant_id": "few"}))
    await ask(429, "POST", f"/dead-letters/execute/{limited}/requeue", b"")
    await ask(204, "DELETE", f"/dead-letters/execute/{unknown}")
    await ask(404, "DELETE", f"/dead-letters/execute/{unknown}")
    await ask(404, "GET", "/dead-letters/other")
    await ask(422, "GET", "/dead-letters/execute?limit=x")


async def letter_of(executor: FakeExecutor, action: bytes) -> str:
    """A message that was given up."""
    name = f"{executor.prefix}dead:execute"
    fields = {"reason": "max_attempts", "stream": "x", "entry_id": "1-0", "action": action}
    letter_id: bytes = await executor.redis.xadd(name, fields)
    return letter_id.decode()


async def pushes(ask: Asking) -> None:
    for path, extra in (("/api/ws/send", {"session_id": "s-1"}), ("/api/ws/broadcast", {})):
        body = {"tenant_id": "acme", "message_data": {"a": 1}, **extra}
        assert (await ask(202, "POST", path, body)).json.keys() == {"action_id"}


async def operations(ask: Asking) -> None:
    steady = ("/health", "/health/ready", "/actors/supervision?limit=3", "/openapi.json")
    for path in (*steady, "/health/detailed", "/ws/stats", "/actors", "/metrics"):
        answer = await ask(200, "GET", path)
        if path in steady:
            await ask(304, "GET", path, If_None_Match=answer.headers["Etag"])
    await ask(422, "GET", "/actors/supervision?limit=0")
    usage = await ask(200, "GET", "/usage/acme")
    assert usage.json["requests"] > 0
    await ask(304, "GET", "/usage/acme", If_None_Match="*")
    for path in ("/health/detailed", "/ws/stats", "/actors", "/metrics"):
        await ask(304, "GET", path, If_None_Match="*")
    await ask(422, "GET", "/usage/acme?date=yesterday")


async def pages(ask: Asking) -> None:
    for path in ("/", "/page/page.js", "/client/orchestrator-client.js"):
        answer = await ask(200, "GET", path)
        await ask(304, "GET", path, If_None_Match=answer.headers["Etag"])
    for path in ("/page/none.js", "/client/none.js"):
        await ask(404, "GET", path)


async def upgrades(service: Running, described: Described) -> None:
    for status, path, headers in (
        (101, "/ws/acme/s", ()),
        (429, "/ws/few/s", ()),
        (400, "/ws/acme/s?offset=x", ()),
        (403, "/ws/acme/s", ("Origin: https://evil.example",)),
    ):
        async with raw_socket(service.port) as raw:
            told = await raw.upgrade(path, *headers)
        assert told.status == status
        described.check("GET", path, Answer(told.status, HTTPHeaders(told.headers), told.body))


async def refusals(ask: Asking, described: Described) -> None:
    """What any address with parameters, or with a body, refuses."""
    large = b'{"a": "' + b"x" * 30_000 + b'"}'
    for method, path, status in sorted(described.told - described.seen):
        operation = described.document["paths"][path][method]
        url = path.format(
            tenant_id="acme", session_id="s-1", queue="execute", id="1-0", file="page.js"
        )
        body = b"{}" if "requestBody" in operation else (b"" if method == "post" else None)
        match status:
            case "400" if "requestBody" in operation:
                await ask(400, method.upper(), url, b"{")
            case "400":
                await ask(400, method.upper(), f"{url}?limit=%ff&date=%ff", body)  # no UTF-8
            case "413":
                await ask(413, method.upper(), url, large)
            case "415":
                await ask(415, method.upper(), url, body, Content_Type="text/plain")
            case "422" if "requestBody" in operation:
                await ask(422, method.upper(), url, body)


async def callers(service: Running, described: Described) -> None:
    anonymous = Asking(service, described)
    chatty, pushing = (
        Asking(service, described, **{"X-API-Key": KEYS[scope]}) for scope in ("chat", "push")
    )
    everybody = Asking(service, described, **{"X-API-Key": KEY})
    await everybody(200, "GET", "/usage/acme")
    foreign = {"tenant_id": "other", "session_id": "s-1", "agent_id": "echo", "message": "hi"}
    for method, path, status in sorted(described.told - described.seen):
        url = path.format(
            tenant_id="other", session_id="s-1", queue="execute", id="1-0", file="page.js"
        )
        has_body = "requestBody" in described.document["paths"][path][method]
        body = foreign if has_body else (b"" if method == "post" else None)
        if status == "401":
            await anonymous(401, method.upper(), url, body)
        if status == "403":
            ask = pushing if path.startswith("/api/chat/") else chatty
            await ask(403, method.upper(), url, body)


@pytest.mark.parametrize("status", ELSEWHERE)
def test_what_is_not_provoked_has_a_reason(status: str) -> None:
    assert ELSEWHERE[status]
