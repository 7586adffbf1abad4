"""Key sets from files and addresses: when they are fetched, and how long they last (S2, S4)."""

import asyncio
import contextlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from common.domain.errors import Overloaded
from orchestrator.auth.credentials import BadCredentials
from orchestrator.auth.jwks import key_set_keys
from orchestrator.auth.key_sets import LARGEST_SET
from orchestrator.auth.tokens import TokenVerifier
from tests.orchestrator.auth.kept_keys import (
    BOTH,
    COOLDOWN,
    MAX_AGE,
    ONE,
    TWO,
    WITHIN,
    has,
    keys_at,
    served,
    settings,
    silence,
)
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
from tests.support.key_server import key_server

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
        let_go = server.hold()
        asking = [asyncio.create_task(has(keys, "one")) for _ in range(200)]
        await asyncio.wait_for(server.asked.wait(), WITHIN)
        let_go.set()
        assert all(await asyncio.gather(*asking))
        assert server.fetches == 1


async def test_one_who_leaves_takes_the_fetch_from_nobody() -> None:
    async with served() as (server, keys, _):
        let_go = server.hold()
        leaves, stays = (asyncio.create_task(has(keys, "one")) for _ in range(2))
        await asyncio.wait_for(server.asked.wait(), WITHIN)
        leaves.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await leaves
        let_go.set()
        assert await stays
        assert server.fetches == 1


# --- S4: rotation and age ---------------------------------------------------------------------


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


async def test_the_largest_set_that_is_allowed_is_read() -> None:
    async with served(ONE + b" " * (LARGEST_SET - len(ONE))) as (_, keys, _):
        assert await has(keys, "one")


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
