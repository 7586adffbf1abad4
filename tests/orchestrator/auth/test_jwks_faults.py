"""Servers of key sets that are down, slow, lying, talkative or somebody else (row S4)."""

import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from common.domain.errors import Overloaded
from orchestrator.auth.jwks import STALE_FOR
from orchestrator.auth.key_sets import LARGEST_SET
from tests.orchestrator.auth.kept_keys import (
    BOTH,
    COOLDOWN,
    MAX_AGE,
    ONE,
    TWO,
    has,
    keys_at,
    served,
    silence,
)
from tests.support.certificates import Authority
from tests.support.issuer import OTHER_RSA, Clock, jwk, key_set
from tests.support.key_server import key_server


async def nothing(writer: asyncio.StreamWriter) -> None:
    """Hangs up without a word."""


async def drip(writer: asyncio.StreamWriter) -> None:
    """Never late with the next byte, and never done."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    while True:
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.05)


async def garbage(writer: asyncio.StreamWriter) -> None:
    writer.write(b"\x15\x03\x01\x00\x02\x02\x28" * 10 + b"\r\n\r\n")


async def broken_off(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + TWO[:100])


async def endless_headers(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n")
    for number in range(100_000):
        writer.write(b"X-%d: y\r\n" % number)
        await writer.drain()


async def declared_50_mb(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 52428800\r\n\r\n")
    await pour(writer, b" " * 65536)


async def chunked_50_mb(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    await pour(writer, b"10000\r\n" + b" " * 65536 + b"\r\n")


async def unbounded_50_mb(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
    await pour(writer, b" " * 65536)


async def pour(writer: asyncio.StreamWriter, piece: bytes) -> None:
    """Fifty megabytes, unless it is hung up on; how much was taken is for the test to see."""
    for _ in range(800):
        writer.write(piece)
        await writer.drain()
        POURED.append(len(piece))


POURED: list[int] = []

WRONG = [
    nothing,
    garbage,
    broken_off,
    endless_headers,
    declared_50_mb,
    chunked_50_mb,
    unbounded_50_mb,
]
SLOW = [silence, drip]


@pytest.mark.parametrize("answer", [*WRONG, *SLOW])
async def test_a_set_that_cannot_be_fetched_again_is_used_on(answer: Any) -> None:
    async with served() as (server, keys, clock):
        assert await has(keys, "one")
        server.answer = answer
        clock.now += MAX_AGE
        POURED.clear()
        with capture_logs() as logs:
            begun = asyncio.get_running_loop().time()
            assert await has(keys, "one")  # having waited for the fetch
            assert asyncio.get_running_loop().time() - begun < 6  # two seconds, on a busy machine
        assert [line["event"] for line in logs] == ["key_set.not_read"]
        assert sum(POURED) < 20 * 2**20  # what the sockets hold, at the most
        assert server.fetches == 2
        assert await has(keys, "one")
        assert server.fetches == 2  # not before the cool-down is over
        server.answer, server.body = server.plainly, BOTH
        clock.now += COOLDOWN
        assert await has(keys, "two")


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        ("302 Found", {"Location": "http://169.254.169.254/latest/meta-data/"}),
        ("301 Moved Permanently", {"Location": "/elsewhere"}),
        ("307 Temporary Redirect", {"Location": "https://evil.example/keys"}),
        ("304 Not Modified", {}),
        ("401 Unauthorized", {}),
        ("404 Not Found", {}),
        ("500 Internal Server Error", {}),
        ("503 Service Unavailable", {"Retry-After": "1"}),
    ],
)
async def test_a_redirect_is_not_followed_and_an_error_is_no_set(
    status: str, headers: dict[str, str]
) -> None:
    async with served() as (server, keys, clock):
        assert await has(keys, "one")
        server.status, server.headers, server.body = status, headers, TWO
        clock.now += MAX_AGE
        assert not await has(keys, "two")
        assert await has(keys, "one")
        assert server.fetches == 2


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b'{"keys": [',
        b"[]",
        b'{"keys": []}',
        b" " * (LARGEST_SET + 1),
        TWO + b" " * LARGEST_SET,
        key_set(jwk(OTHER_RSA, kid="two", use="enc")),
    ],
)
async def test_an_answer_that_is_no_key_set_changes_nothing(body: bytes) -> None:
    async with served() as (server, keys, clock):
        assert await has(keys, "one")
        server.body = body
        clock.now += MAX_AGE
        assert await has(keys, "one")
        assert not await has(keys, "two")
        assert server.fetches == 2


async def test_without_any_set_so_far_callers_are_told_to_come_back() -> None:
    """It is not known whether their tokens are good; the others' cool-down holds for them too."""
    async with served() as (server, keys, clock):
        server.status = "500 Internal Server Error"
        for _ in range(10):
            with pytest.raises(Overloaded):
                await keys.find("one")
        assert server.fetches == 1
        server.status = "200 OK"
        clock.now += COOLDOWN
        assert await has(keys, "one")


async def test_a_server_that_is_down_is_as_one_that_fails() -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))  # kept, so that nobody else listens there meanwhile
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}/keys"
        async with keys_at(Clock(), jwks_url=url) as keys:
            with capture_logs() as logs, pytest.raises(Overloaded):
                await keys.find("one")
        assert [line["event"] for line in logs] == ["key_set.not_read"]
        assert logs[0]["has_older"] is False


async def test_a_set_that_cannot_be_fetched_for_a_day_is_used_no_more() -> None:
    async with served() as (server, keys, clock):
        assert await has(keys, "one")
        server.status = "500 Internal Server Error"
        clock.now += STALE_FOR - 1
        assert await has(keys, "one")
        clock.now += COOLDOWN
        with pytest.raises(Overloaded):
            await keys.find("one")


# --- S4: TLS ---------------------------------------------------------------------------------


async def test_a_server_that_a_trusted_authority_vouches_for_is_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.path))
    async with key_server(ONE, authority.certificate("server")) as server:
        assert server.url.startswith("https://")
        async with keys_at(Clock(), jwks_url=server.url) as keys:
            assert await has(keys, "one")


@pytest.mark.parametrize("wrong", ["host", "expired", "authority", "plain"])
async def test_a_server_that_is_not_what_it_says_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    authority = Authority(tmp_path)
    trusted = Authority(tmp_path, "other") if wrong == "authority" else authority
    monkeypatch.setenv("SSL_CERT_FILE", str(trusted.path))
    shown = {
        "host": authority.certificate("host", host="id.example"),
        "expired": authority.certificate("expired", days=(-10, -1)),
        "authority": authority.certificate("server"),
        "plain": None,
    }[wrong]
    async with key_server(ONE, shown) as server:
        url = server.url.replace("http://", "https://")
        async with keys_at(Clock(), jwks_url=url) as keys:
            with pytest.raises(Overloaded):
                await keys.find("one")
    assert server.fetches == 0  # nothing was asked of it
