"""What holds for every request: ids, bodies, limits, problems, and HTTP at its oddest."""

import logging
from collections.abc import Callable

import orjson
import pytest
from tornado.iostream import IOStream

import orchestrator.service
from tests.support.client import Address
from tests.support.raw import raw_socket
from tests.support.redis_server import RedisServer
from tests.support.service import RunningProcess, running_service

LIMIT = 400_000  # bytes of a body, in the shared instance


def body_of(size: int, tenant: str) -> bytes:
    """A message that is refused for its field, but only if the body has been read."""
    head = orjson.dumps({"tenant_id": tenant, "session_id": "s", "agent_id": "a", "message": "m"})
    return head[:-1] + b',"x":"' + b"y" * (size - len(head) - 7) + b'"}'


# Request ids, and what every answer carries


@pytest.mark.parametrize("given", ["a", "A.b_c-9", "x" * 64])
async def test_a_request_id_is_kept(instance: Address, given: str) -> None:
    for path in ("/health", "/nothing", "/api/chat/send"):
        answer = await instance.request("GET", path, headers={"X-Request-ID": given})
        assert answer.headers["X-Request-ID"] == given
        if answer.status != 200:
            assert answer.json["request_id"] == given


@pytest.mark.parametrize("given", ["", "x" * 65, "a b", "a:b", "ä", "{}"])
async def test_a_request_id_that_is_none_is_replaced(instance: Address, given: str) -> None:
    answer = await instance.request("GET", "/nothing", headers={"X-Request-ID": given})
    assert answer.headers["X-Request-ID"] == answer.json["request_id"] != given
    assert len(answer.headers["X-Request-ID"]) == 36


async def test_answers_may_not_be_framed_sniffed_or_kept(instance: Address) -> None:
    answer = await instance.get("/health")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["X-Frame-Options"] == "DENY"
    assert answer.headers["Cache-Control"] == "no-store"
    assert "Tornado" not in answer.headers["Server"]


async def test_a_problem_says_all_that_the_contract_asks_for(
    instance: Address, tenant: str
) -> None:
    answer = await instance.send(f"{tenant}/s", timeout="x")
    assert (answer.status, answer.code) == (422, "validation_failed")
    problem = answer.json
    assert problem.keys() == {
        *("type", "title", "status", "detail", "code", "request_id", "errors")
    }
    assert problem["status"] == 422
    assert problem["errors"] == {"timeout": ["Not a number."]}


# Addresses and methods


@pytest.mark.parametrize(
    "path", ["/nothing", "/api", "/api/chat", "/ws", "/ws/a/b/c", "/api/chat/send/", "/%00", "//"]
)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "PUT"])
async def test_what_is_not_there_is_not_found(instance: Address, path: str, method: str) -> None:
    answer = await instance.request(method, path, b"{}" if method in {"POST", "PUT"} else None)
    assert (answer.status, answer.code) == (404, "not_found")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/api/chat/send", "POST"),
        ("PUT", "/api/chat/status", "POST"),
        ("OPTIONS", "/api/chat/cancel", "POST"),
        ("HEAD", "/api/chat/send", "POST"),
        ("POST", "/health", "GET, HEAD"),
        ("DELETE", "/metrics", "GET, HEAD"),
        ("POST", "/api/sessions/acme/s/events", "GET, HEAD"),
        ("HEAD", "/ws/acme/s", "GET"),
        ("OPTIONS", "/ws/acme/s", "GET"),
        ("POST", "/ws/acme/s", "GET"),
        ("POST", "/", "GET, HEAD"),
        ("BREW", "/health", "GET, HEAD"),
    ],
)
async def test_another_method_is_told_which_is_right(
    instance: Address, method: str, path: str, allowed: str
) -> None:
    async with raw_socket(instance.port) as raw:
        answer = await raw.request(method, path)
        assert answer.status == 405
        assert sorted(answer.headers["allow"].split(", ")) == sorted(allowed.split(", "))
        if method != "HEAD":
            assert orjson.loads(answer.body)["code"] == "method_not_allowed"


# Bodies


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "malformed_json"),
        (b"{", 400, "malformed_json"),
        (b'{"a": NaN}', 400, "malformed_json"),
        (b'{"a": "\\ud800"}', 400, "malformed_json"),
        (b"\xff\xfe{", 400, "malformed_json"),
        (b"[" * 5000 + b"]" * 5000, 400, "malformed_json"),
        (b"[]", 422, "validation_failed"),
        (b"null", 422, "validation_failed"),
        (b'{"a":' * 40 + b"1" + b"}" * 40, 422, "validation_failed"),
    ],
)
@pytest.mark.parametrize("path", ["chat/send", "chat/status", "chat/cancel", "ws/send"])
async def test_a_body_that_is_no_object_is_refused(
    instance: Address, body: bytes, status: int, code: str, path: str
) -> None:
    answer = await instance.post(f"/api/{path}", body)
    assert (answer.status, answer.code) == (status, code)


@pytest.mark.parametrize(
    "given",
    [
        "application/json",
        "Application/JSON",
        "application/json; charset=utf-8",
        'application/json;charset="UTF-8"',
        "application/json; profile=x; charset=utf8",
        "application/vnd.api+json",
        None,
    ],
)
async def test_json_by_any_of_its_names_is_taken(
    instance: RunningProcess, tenant: str, given: str | None
) -> None:
    body = {"tenant_id": tenant, "session_id": "s", "agent_id": "a", "message": "m"}
    headers = [] if given is None else [f"Content-Type: {given}"]
    text = orjson.dumps(body)
    async with raw_socket(instance.port) as raw:
        path, length = "/api/chat/send", f"Content-Length: {len(text)}"
        answer = await raw.request("POST", path, [*headers, length], text)
    assert answer.status == 202, answer.body


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "multipart/form-data; boundary=x"},
        {"Content-Type": "application/jsonp"},
        {"Content-Type": "json"},
        {"Content-Type": "application/json; charset=utf-16"},
        {"Content-Type": "application/json", "Content-Encoding": "gzip"},
    ],
    ids=str,
)
async def test_what_is_not_json_by_its_name_is_refused(
    instance: Address, headers: dict[str, str]
) -> None:
    answer = await instance.request("POST", "/api/chat/send", b"{}", headers)
    assert (answer.status, answer.code) == (415, "unsupported_media_type")


@pytest.mark.parametrize(("size", "status"), [(LIMIT - 1, 422), (LIMIT, 422), (LIMIT + 1, 413)])
@pytest.mark.parametrize("is_chunked", [False, True])
async def test_a_body_has_its_limit(
    instance: RunningProcess, tenant: str, size: int, status: int, *, is_chunked: bool
) -> None:
    body = body_of(size, tenant)
    assert len(body) == size
    async with raw_socket(instance.port) as raw:
        answer = await raw.request("POST", "/api/chat/send", *sized(body, is_chunked))
        assert answer.status == status
        # Heard, and the connection is as good as before.
        assert (await raw.request("GET", "/health")).status == 200


@pytest.mark.parametrize("is_chunked", [False, True])
async def test_a_body_far_beyond_the_limit_is_answered_although_it_is_still_sent(
    instance: RunningProcess, *, is_chunked: bool
) -> None:
    headers, body = sized(b"x" * 8_000_000, is_chunked)
    logged = len(instance.log)
    async with raw_socket(instance.port) as raw:
        answer = await raw.request("POST", "/api/chat/send", headers, body)
        assert answer.status == 413
        assert orjson.loads(answer.body)["code"] == "payload_too_large"
        assert (await raw.request("GET", "/health")).status == 200
    assert news(instance, logged) == []


async def test_a_body_for_nobody_is_not_kept_in_memory(instance: RunningProcess) -> None:
    async with raw_socket(instance.port) as raw:
        answer = await raw.request("POST", "/nothing", ["Content-Length: 1000000000000"])
        assert answer.status == 413


def news(instance: RunningProcess, logged: int) -> list[str]:
    """The lines since then, but for those that tell how busy the machine is."""
    return [line for line in instance.log[logged:].splitlines() if "loop.stalled" not in line]


def sized(body: bytes, is_chunked: bool) -> tuple[list[str], bytes]:
    if not is_chunked:
        return [f"Content-Length: {len(body)}"], body
    chunks = [body[i : i + 50_000] for i in range(0, len(body), 50_000)]
    text = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    return ["Transfer-Encoding: chunked"], text + b"0\r\n\r\n"


@pytest.mark.parametrize("word", ["100-continue", "100-Continue"])
async def test_a_client_that_asks_first_is_told_to_go_on_or_not(
    instance: RunningProcess, word: str
) -> None:
    async with raw_socket(instance.port) as raw:
        expecting = [f"Expect: {word}", "Content-Length: 2"]
        assert (await raw.request("POST", "/api/chat/send", expecting)).status == 100
        await raw.write(b"{}")
        assert (await raw.answer()).status == 422
        expecting = [f"Expect: {word}", "Content-Length: 9000000"]
        answer = await raw.request("POST", "/api/chat/send", expecting)
        assert answer.status == 413


async def test_a_client_of_1996_is_not_told_to_go_on(instance: RunningProcess) -> None:
    """RFC 9110, 10.1.1: `Expect` is to be ignored in HTTP/1.0."""
    async with raw_socket(instance.port) as raw:
        await raw.write(
            b"POST /api/chat/send HTTP/1.0\r\nHost: x\r\nExpect: 100-continue\r\n"
            b"Content-Length: 2\r\n\r\n{}"
        )
        assert (await raw.answer()).status == 422


async def test_a_client_that_leaves_before_its_answer_is_no_mistake_of_ours(
    instance: RunningProcess, tenant: str
) -> None:
    logged = len(instance.log)
    body = body_of(1000, tenant)
    for _ in range(50):
        async with raw_socket(instance.port) as raw:
            head = f"POST /api/chat/status HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}"
            await raw.write(head.encode() + b"\r\n\r\n" + body)
            raw.writer.transport.abort()
    assert (await instance.get("/health")).status == 200
    assert news(instance, logged) == []


async def test_requests_in_one_packet_are_answered_in_order(instance: RunningProcess) -> None:
    async with raw_socket(instance.port) as raw:
        paths = ["/health", "/nothing", "/ws/stats", "/health"]
        await raw.write(
            b"".join(b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n" % path.encode() for path in paths)
        )
        assert [(await raw.answer()).status for _ in paths] == [200, 404, 200, 200]


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /health HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 70_000 + b"\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 6000 + b"\r\n",
        b"GET /" + b"y" * 70_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST /health HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\nabc",
        b"POST /api/chat/send HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\nabc",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nabc",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET /health HTTP/1.1\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: a\r\nX: a\x00b\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: a\r\n : b\r\n\r\n",
        b"GET /health\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    ],
    ids=lambda request: repr(request[:60]),
)
async def test_what_is_no_http_is_cut_off_and_disturbs_nobody(
    instance: RunningProcess, request_: bytes
) -> None:
    logged = len(instance.log)
    async with raw_socket(instance.port) as raw:
        await raw.write(request_)
        assert await raw.ended()
    assert (await instance.get("/health")).status == 200
    assert len(news(instance, logged)) <= 1
    assert "Traceback" not in instance.log[logged:]


async def test_a_query_that_is_not_utf_8_is_a_bad_request(instance: Address) -> None:
    answer = await instance.get("/api/sessions/acme/s/events?offset=%ff")
    assert (answer.status, answer.code) == (400, "bad_request")


async def test_whoever_takes_too_long_for_a_request_is_cut_off(
    redis_server: RedisServer, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(orchestrator.service, "IDLE_CONNECTION", 0.3)
    monkeypatch.setattr(orchestrator.service, "BODY_WITHIN", 0.3)
    async with running_service(redis_server.url, prefix) as service:
        for begun in (
            b"",
            b"GET /health HTTP/1.1\r\nHost: a\r\nX-Slow:",
            b"POST /api/chat/send HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n{",
        ):
            async with raw_socket(service.port) as raw:
                await raw.write(begun)
                assert await raw.ended()


# Mistakes of ours


async def test_a_mistake_of_ours_is_one_line_of_the_log_and_no_news_to_the_client(
    redis_server: RedisServer,
    prefix: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with running_service(redis_server.url, prefix) as service:
        break_a_dependency(monkeypatch, service.service.app.schemas)
        caplog.set_level(logging.WARNING)
        capsys.readouterr()
        answer = await service.send()
        assert (answer.status, answer.code) == (500, "internal_error")
        assert b"secret" not in answer.body
        assert b"Traceback" not in answer.body
        out = capsys.readouterr().out
        (line,) = [each for each in out.splitlines() if "request.failed" in each]
        assert answer.json["request_id"] in line
        assert (await service.get("/health")).status == 200


def break_a_dependency(monkeypatch: pytest.MonkeyPatch, schemas: object) -> None:
    def fail(*_: object) -> Callable[..., IOStream]:
        raise RuntimeError("a secret of the inside")

    monkeypatch.setattr(schemas, "send_message", fail)


async def test_a_limit_says_by_headers_what_it_is_and_when_to_come_back(
    redis_server: RedisServer, prefix: str
) -> None:
    tenants = {"acme": {"tier": "free"}}
    async with running_service(redis_server.url, prefix, tenants=tenants) as service:
        answers = [await service.send(f"acme/s-{number}") for number in range(11)]
        refused = next(answer for answer in answers if answer.status != 202)
        assert refused.status == 429
        reset = int(refused.headers["RateLimit-Reset"])
        assert int(refused.headers["Retry-After"]) == max(1, reset)
        assert int(refused.headers["RateLimit-Limit"]) in (5, 10)
        assert refused.headers["RateLimit-Remaining"] == "0"


async def test_who_asks_for_no_credentials_does_not_look_at_any(
    instance: RunningProcess, tenant: str
) -> None:
    for lines in (["Authorization: Bearer a b"], ["X-API-Key: a", "X-API-Key: b"]):
        async with raw_socket(instance.port) as raw:
            assert (await raw.request("GET", "/ws/stats", lines)).status == 200
            assert (await raw.upgrade(f"/ws/{tenant}/s?token=", *lines)).status == 101
