"""Whatever is shown for a token: it tells who calls by the rules, or it is refused; never more."""

import asyncio
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from jwt.algorithms import get_default_algorithms

from common.domain.ids import is_outside_id
from orchestrator.auth.caller import Caller, Scope
from orchestrator.auth.credentials import BadCredentials
from orchestrator.auth.key_sets import UnusableKeySet, read_key_set
from orchestrator.auth.keys import static_key
from orchestrator.auth.tokens import LATEST, StaticKey, TokenVerifier
from tests.support.issuer import (
    EC,
    NOW,
    RSA,
    Clock,
    claims,
    forged,
    hmac_settings,
    jwk,
    key_set,
    token,
)

SETTINGS = hmac_settings(audience="us")
TOKENS = TokenVerifier(SETTINGS, StaticKey(static_key(SETTINGS)), Clock())
GOOD = token(claims(aud="us"))

anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
    | st.sampled_from(["acme", "alice", "us", "chat admin", NOW + 60, NOW - 60, LATEST]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
CLAIMS = ("tenant_id", "sub", "exp", "nbf", "iat", "aud", "iss", "scope", "session_id", "sessions")
HEADERS = ("alg", "typ", "kid", "crit", "b64", "jwk", "jku", "x5u", "zip", "cty")


def caller_of(shown: str) -> Caller | None:
    """Who calls, or None where it is refused; nothing else may come of it."""
    try:
        return asyncio.run(TOKENS.caller(shown))
    except BadCredentials:
        return None


@given(st.dictionaries(st.sampled_from(CLAIMS), anything, max_size=4))
def test_genuine_claims_of_any_kind_make_a_sound_caller_or_none(changes: dict[str, Any]) -> None:
    payload = {**claims(aud="us"), **changes}
    caller = caller_of(forged({"alg": "HS256"}, payload))
    if caller is None:
        return
    assert caller.tenant_id == payload["tenant_id"]
    assert caller.name == caller.user_id == payload["sub"]
    assert is_outside_id(str(caller.tenant_id))
    assert is_outside_id(caller.name)
    assert caller.expires_at is not None
    assert NOW < caller.expires_at == payload["exp"] + SETTINGS.leeway
    assert caller.scopes <= set(Scope)
    assert (caller.sessions is None) == (not {"session_id", "sessions"} & payload.keys())


@given(st.dictionaries(st.sampled_from(HEADERS), anything, max_size=4))
def test_a_genuine_header_of_any_kind_is_refused_or_changes_nothing(header: dict[str, Any]) -> None:
    caller = caller_of(forged({"alg": "HS256", **header}, claims(aud="us")))
    if caller is not None:
        assert {"alg": "HS256", **header}["alg"] == "HS256"
        assert "crit" not in header
        assert caller.name == "alice"


@given(st.integers(0, len(GOOD) - 1), st.characters(codec="ascii"))
def test_a_token_with_one_character_changed_is_good_for_nothing(at: int, other: str) -> None:
    changed = GOOD[:at] + other + GOOD[at + 1 :]
    assert (caller_of(changed) is None) == (changed != GOOD)


@given(st.text() | st.lists(st.text(max_size=30), min_size=3, max_size=3).map(".".join))
def test_any_text_is_no_token(shown: str) -> None:
    assert caller_of(shown) is None


@given(
    st.lists(
        st.dictionaries(st.sampled_from([*jwk(RSA), *jwk(EC), "key_ops", "d", "k"]), anything)
        | st.sampled_from([jwk(RSA), jwk(EC)]).flatmap(
            lambda good: st.dictionaries(st.sampled_from([*good]), anything, max_size=2).map(
                lambda changes: {**good, **changes}
            )
        )
        | anything,
        max_size=4,
    )
)
def test_any_key_set_has_sound_keys_or_is_refused(entries: list[Any]) -> None:
    try:
        keys = read_key_set(key_set(*entries), ("RS256", "ES256"))
    except UnusableKeySet:
        return
    for key in keys.named.values():
        (algorithm,) = key.algorithms
        assert not isinstance(key.key, bytes)
        get_default_algorithms()[algorithm].prepare_key(key.key)
