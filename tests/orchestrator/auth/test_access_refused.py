"""How a request is refused, and before what; and who a caller may say to be (S6, S17)."""

import secrets
from typing import Any

import pytest

from tests.orchestrator.auth.access import EVENTS, PUSH, SESSION, TEXT
from tests.support.callers import OPERATOR_KEY, bearer, token
from tests.support.raw import raw_socket
from tests.support.service import RunningProcess


async def test_a_refusal_says_what_to_do_and_nothing_else(guarded: RunningProcess) -> None:
    shown = token(expires_in=-1)
    refused = await guarded.post("/api/chat/status", {"tenant_id": "acme"}, **bearer(shown))
    assert (refused.status, refused.code) == (401, "unauthorized")
    assert refused.headers["WWW-Authenticate"] == "Bearer"
    assert shown not in str(refused)
    forbidden = await guarded.get("/actors", **bearer(token()))
    assert (forbidden.status, forbidden.code) == (403, "forbidden")
    assert "WWW-Authenticate" not in forbidden.headers


async def test_who_calls_is_asked_before_what_is_asked_for(guarded: RunningProcess) -> None:
    for method in ("GET", "PUT", "DELETE", "OPTIONS", "HEAD"):
        assert (await guarded.request(method, "/api/chat/send")).status == 401
        allowed = await guarded.request(method, "/api/chat/send", headers=bearer(token()))
        assert (allowed.status, allowed.headers["Allow"]) == (405, "POST")
        assert (await guarded.request(method, "/api/nothing")).status == 401
    assert (await guarded.post("/health", {})).status == 405
    assert (await guarded.post("/api/chat/send", b"{")).status == 401
    assert (await guarded.get("/ws/acme/s-1")).status == 401  # no upgrade, and nobody
    assert (await guarded.get("/usage/%ff")).status == 401  # no UTF-8, and nobody
    assert (await guarded.get("/page/%ff")).status == 404
    assert (await guarded.get("/ws/acme/s-1", **bearer(token()))).status == 400


async def test_a_refused_request_leaves_its_connection_usable(guarded: RunningProcess) -> None:
    async with raw_socket(guarded.port) as raw:
        for _ in range(3):
            answer = await raw.request("POST", "/api/chat/send", ["Content-Length: 2"], b"{}")
            assert answer.status == 401
        shown = f"Authorization: Bearer {token()}"
        answer = await raw.request("POST", "/api/chat/send", ["Content-Length: 2", shown], b"{}")
        assert answer.status == 422


@pytest.mark.parametrize(
    "lines",
    [
        ["Content-Length: 100000000"],
        ["Content-Length: 00000000000000100000000"],
        ["Content-Length: 100000000,100000000"],
        ["Content-Length: 100000000", "Content-Length: 100000000"],
        ["Content-Length: 5", "Expect: 100-continue"],
        ["Transfer-Encoding: chunked"],
    ],
)
async def test_a_body_that_may_be_long_is_not_read_from_nobody(
    guarded: RunningProcess, lines: list[str]
) -> None:
    async with raw_socket(guarded.port) as raw:
        assert (await raw.request("POST", "/api/chat/send", lines)).status == 401
        assert await raw.ended()


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/chat/send", {**SESSION, **TEXT}),
        ("/api/ws/send", {**SESSION, "message_data": {}}),
        ("/api/ws/broadcast", PUSH),
    ],
)
async def test_nobody_acts_as_somebody_else(
    guarded: RunningProcess, path: str, body: dict[str, Any]
) -> None:
    for user, status in (("alice", 202), ("bob", 403), (None, 202)):
        answer = await guarded.post(path, {**body, "user_id": user}, **bearer(token()))
        assert answer.status == status
    # A key is nobody's in particular, and may speak for anyone.
    answer = await guarded.post(path, {**body, "user_id": "bob"}, **bearer(OPERATOR_KEY))
    assert answer.status == 202


async def test_the_token_says_who_sent_a_message(guarded: RunningProcess) -> None:
    session = f"s-{secrets.token_hex(4)}"
    body = {"tenant_id": "acme", "session_id": session, **TEXT}
    assert (await guarded.post("/api/chat/send", body, **bearer(token()))).status == 202
    page = await guarded.get(f"/api/sessions/acme/{session}/events", **bearer(token()))
    assert page.json["events"][0]["data"]["user_id"] == "alice"


async def test_a_token_in_the_query_counts_for_streams_only(guarded: RunningProcess) -> None:
    shown = token()
    assert (await guarded.get(f"{EVENTS}?token={shown}")).status == 401
    assert (await guarded.get(f"/metrics?token={OPERATOR_KEY}")).status == 401
    async with raw_socket(guarded.port) as raw:
        await raw.write(
            f"GET {EVENTS}?token={shown} HTTP/1.1\r\nHost: x\r\n"
            "Accept: text/event-stream\r\n\r\n".encode()
        )
        assert b"200" in await raw.reader.readline()
