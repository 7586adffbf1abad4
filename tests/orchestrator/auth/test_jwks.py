"""Key sets from files and addresses, and what it takes to have them fetched (rows S2 and S4)."""

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from common.domain.errors import Overloaded
from config.sections import JwtSettings
from orchestrator.auth.credentials import BadCredentials
from orchestrator.auth.jwks import STALE_FOR, KeySetKeys, key_set_keys
from orchestrator.auth.key_sets import LARGEST_SET
from orchestrator.auth.tokens import TokenVerifier
from tests.support.certificates import Authority
from tests.support.issuer import (
    EC,
    HMAC_KEY,
    OTHER_RSA,
    RSA,
    Clock,
    base64url,
    claims,
    forged,
    in_file,
    jwk,
    key_set,
    token,
)
from tests.support.key_server import KeyServer, key_server

MAX_AGE = 300.0
COOLDOWN = 10.0
WITHIN = 10.0

ONE = key_set(jwk(RSA, kid="one"))
TWO = key_set(jwk(OTHER_RSA, kid="two"))
BOTH = key_set(jwk(RSA, kid="one"), jwk(OTHER_RSA, kid="two"))


def settings(**where: Any) -> JwtSettings:
    return JwtSettings(
        **{
            "algorithms": ("RS256", "ES256"),
            "jwks_max_age": MAX_AGE,
            "jwks_cooldown": COOLDOWN,
            **where,
        }
    )


@contextlib.asynccontextmanager
async def keys_at(clock: Clock, **where: Any) -> AsyncIterator[KeySetKeys]:
    keys = key_set_keys(settings(**where), clock)
    try:
        yield keys
    finally:
        await keys.close()


@contextlib.asynccontextmanager
async def served(
    body: bytes = ONE,
) -> AsyncIterator[tuple[KeyServer, KeySetKeys, Clock]]:
    """A server, the keys that are fetched from it, and the clock that they are fetched by."""
    clock = Clock()
    async with key_server(body) as server, keys_at(clock, jwks_url=server.url) as keys:
        yield server, keys, clock


async def has(keys: KeySetKeys, kid: str | None) -> bool:
    async with asyncio.timeout(WITHIN):
        return await keys.find(kid) is not None


# --- S2: kid is a key of a dictionary, and asks for no more than one fetch -------------------


async def test_a_set_is_fetched_when_it_is_first_needed_and_kept() -> None:
    async with served() as (server, keys, _):
        assert server.fetches == 0
        for _ in range(100):
            assert await has(keys, "one")
        assert server.fetches == 1


async def test_an_unknown_kid_a_thousand_times_is_one_fetch_a_cool_down() -> None:
    async with served() as (server, keys, clock):
        assert await has(keys, "one")
        clock.now += COOLDOWN
        for number in range(1000):
            assert not await has(keys, f"unknown-{number}")
        assert server.fetches == 2
        clock.now += COOLDOWN - 0.1
        assert not await has(keys, "unknown")
        assert server.fetches == 2
        clock.now += 0.1
        assert not await has(keys, "unknown")
        assert server.fetches == 3


async def test_a_thousand_tokens_with_unknown_kids_are_refused_for_one_fetch() -> None:
    """The whole way, and at once: those who wait share the one fetch."""
    async with served() as (server, keys, clock):
        tokens = TokenVerifier(settings(), keys, Clock())
        assert (await tokens.caller(token(claims(), RSA, "RS256", {"kid": "one"}))).name == "alice"
        clock.now += COOLDOWN
        part = token(claims(), EC, "ES256").partition(".")[2]
        strangers = [
            f"{base64url(json.dumps({'alg': 'RS256', 'kid': f'../{number}'}).encode())}.{part}"
            for number in range(1000)
        ]
        outcomes = await asyncio.gather(*map(tokens.caller, strangers), return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {BadCredentials}
        assert server.fetches == 2


@pytest.mark.parametrize(
    "kid", ["../../dev/null", "http://127.0.0.1/", "one|id", "' or '1'='1", "one\0", "", "ONE"]
)
async def test_a_kid_is_no_path_no_address_and_no_command(kid: str) -> None:
    async with served() as (server, keys, _):
        assert not await has(keys, kid)
        assert server.fetches == 1


@pytest.mark.parametrize("kid", ["k" * 257, "k" * 2**20, ["one"], {"one": 1}, 1])
async def test_a_kid_that_is_long_or_no_text_asks_for_no_fetch(kid: Any) -> None:
    async with served() as (server, keys, _):
        tokens = TokenVerifier(settings(), keys, Clock())
        with pytest.raises(BadCredentials):
            await tokens.caller(forged({"alg": "RS256", "kid": kid}, claims(), RSA, "RS256"))
        assert server.fetches == 0


async def test_those_who_ask_at_once_share_one_fetch() -> None:
    async with served() as (server, keys, _):
        let_go = asyncio.Event()

        async def later(writer: asyncio.StreamWriter) -> None:
            await let_go.wait()
            await server.plainly(writer)

        server.answer = later
        asking = [asyncio.create_task(has(keys, "one")) for _ in range(200)]
        await asyncio.wait_for(server.asked.wait(), WITHIN)
        let_go.set()
        assert all(await asyncio.gather(*asking))
        assert server.fetches == 1


async def test_one_who_leaves_takes_the_fetch_from_nobody() -> None:
    async with served() as (server, keys, _):
        let_go = asyncio.Event()

        async def later(writer: asyncio.StreamWriter) -> None:
            await let_go.wait()
            await server.plainly(writer)

        server.answer = later
        leaves, stays = (asyncio.create_task(has(keys, "one")) for _ in range(2))
        await asyncio.wait_for(server.asked.wait(), WITHIN)
        leaves.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await leaves
        let_go.set()
        assert await stays
        assert server.fetches == 1


# --- S4: rotation, age, and servers that are down, slow, lying or talkative -------------------


async def test_a_new_key_is_found_as_soon_as_a_token_names_it() -> None:
    async with served() as (server, keys, clock):
        assert await has(keys, "one")
        server.body = BOTH
        clock.now += COOLDOWN
        assert await has(keys, "two")
        assert await has(keys, "one")
        assert server.fetches == 2


async def test_a_key_that_is_removed_is_good_for_the_max_age_and_no_longer() -> None:
    async with served(BOTH) as (server, keys, clock):
        assert await has(keys, "one")
        server.body = TWO
        clock.now += MAX_AGE - 0.1
        assert await has(keys, "one")
        assert server.fetches == 1
        clock.now += 0.1
        assert not await has(keys, "one")
        assert await has(keys, "two")
        assert server.fetches == 2


async def test_a_key_that_is_replaced_under_its_name_is_the_new_one() -> None:
    async with served() as (server, keys, clock):
        tokens = TokenVerifier(settings(), keys, Clock())
        old = token(claims(), RSA, "RS256", {"kid": "one"})
        new = token(claims(), OTHER_RSA, "RS256", {"kid": "one"})
        assert (await tokens.caller(old)).name == "alice"
        server.body = key_set(jwk(OTHER_RSA, kid="one"))
        clock.now += MAX_AGE
        assert (await tokens.caller(new)).name == "alice"
        with pytest.raises(BadCredentials):
            await tokens.caller(old)


async def test_a_name_that_two_keys_have_is_good_for_neither() -> None:
    async with served(BOTH) as (server, keys, clock):
        assert await has(keys, "one")
        server.body = key_set(jwk(RSA), jwk(OTHER_RSA), jwk(EC, kid="other"))
        clock.now += MAX_AGE
        assert not await has(keys, "one")
        assert await has(keys, "other")


async def test_a_symmetric_key_in_a_set_verifies_nothing() -> None:
    secret = {"kty": "oct", "k": base64url(HMAC_KEY.encode()), "kid": "s", "alg": "HS256"}
    async with served(key_set(secret, jwk(RSA))) as (_, keys, _):
        assert not await has(keys, "s")
        assert await has(keys, "one")


async def nothing(writer: asyncio.StreamWriter) -> None:
    """Hangs up without a word."""


async def silence(_: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


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


async def test_the_largest_set_that_is_allowed_is_read() -> None:
    async with served(ONE + b" " * (LARGEST_SET - len(ONE))) as (_, keys, _):
        assert await has(keys, "one")


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
    clock = Clock()
    async with key_server() as server:
        url = server.url
    async with keys_at(clock, jwks_url=url) as keys:
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


async def test_a_fetch_that_is_under_way_ends_with_the_service() -> None:
    async with key_server() as server:
        server.answer = silence
        keys = key_set_keys(settings(jwks_url=server.url))
        asking = asyncio.create_task(keys.find("one"))
        await asyncio.wait_for(server.asked.wait(), WITHIN)
        await keys.close()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await keys.close()


async def test_what_was_not_fetched_is_closed_as_well() -> None:
    async with keys_at(Clock(), jwks_url="https://id.example/keys"):
        pass


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


# --- Files -----------------------------------------------------------------------------------


async def test_a_file_is_read_again_when_it_changes_but_for_the_cool_down(tmp_path: Path) -> None:
    clock, path = Clock(), in_file(tmp_path, ONE)
    async with keys_at(clock, jwks_file=path) as keys:
        assert await has(keys, "one")
        in_file(tmp_path, TWO)
        assert not await has(keys, "two")
        clock.now += COOLDOWN
        assert await has(keys, "two")
        assert not await has(keys, "one")
        in_file(tmp_path, BOTH)
        clock.now += COOLDOWN  # long before the max age of a set from an address
        assert await has(keys, "one")


async def test_a_file_is_taken_apart_only_when_it_has_changed(tmp_path: Path) -> None:
    clock, path = Clock(), in_file(tmp_path, ONE)
    async with keys_at(clock, jwks_file=path) as keys:
        first = await keys.find("one")
        os.utime(path)
        clock.now += COOLDOWN
        assert await keys.find("one") is first


@pytest.mark.parametrize(
    "content", [b"", BOTH[:50], b'{"keys": []}', None], ids=["empty", "half", "no key", "gone"]
)
async def test_a_file_that_is_gone_or_half_written_changes_nothing(
    tmp_path: Path, content: bytes | None
) -> None:
    clock, path = Clock(), in_file(tmp_path, ONE)
    async with keys_at(clock, jwks_file=path) as keys:
        assert await has(keys, "one")
        if content is None:
            Path(path).unlink()
        else:
            in_file(tmp_path, content)
        for _ in range(3):
            clock.now += COOLDOWN
            with capture_logs() as logs:
                assert await has(keys, "one")
            assert [line["event"] for line in logs] == ["key_set.not_read"]
        in_file(tmp_path, TWO)
        clock.now += COOLDOWN
        assert await has(keys, "two")
        assert not await has(keys, "one")


async def test_what_the_log_says_of_sets_is_no_secret(tmp_path: Path) -> None:
    path = in_file(tmp_path, b'{"keys": "canary"}')
    async with keys_at(Clock(), jwks_file=path) as keys:
        with capture_logs() as logs, pytest.raises(Overloaded):
            await keys.find("one")
    assert "canary" not in str(logs)
    assert logs[0]["reason"] == "no list of keys"
