"""What the claims of a genuine token may be, and what they say of its caller (row S3)."""

from typing import Any

import pytest

from common.domain.ids import SessionId
from orchestrator.auth.caller import Scope
from orchestrator.auth.tokens import LATEST
from tests.orchestrator.auth.verifiers import HS256, LEEWAY, refused, verifier
from tests.support.issuer import NOW, claims, forged, token


@pytest.mark.parametrize("name", ["exp", "tenant_id", "sub"])
async def test_a_claim_that_is_needed_and_missing_is_refused(name: str) -> None:
    assert await refused(verifier(), token(claims(**{name: None}))) == name


@pytest.mark.parametrize("name", ["exp", "nbf", "iat"])
@pytest.mark.parametrize(
    "value",
    ["9e99", str(NOW + 60), "", True, False, [NOW + 60], {}, -1, -1e300, 1e300, 2**64, LATEST + 1],
)
async def test_a_time_of_the_wrong_type_or_size_is_refused(name: str, value: Any) -> None:
    assert await refused(verifier(), forged(HS256, {**claims(), name: value})) == name


@pytest.mark.parametrize("name", ["exp", "nbf", "iat"])
async def test_a_time_that_is_null_is_not_one_that_is_missing(name: str) -> None:
    assert await refused(verifier(), forged(HS256, {**claims(), name: None})) == name


@pytest.mark.parametrize("exp", [NOW - LEEWAY, NOW - LEEWAY - 1, 0, NOW - LEEWAY - 0.001])
async def test_a_token_is_refused_from_its_end_and_the_leeway_on(exp: float) -> None:
    assert await refused(verifier(), token(claims(exp=exp))) == "expired"


@pytest.mark.parametrize("exp", [NOW - LEEWAY + 0.5, NOW - LEEWAY + 1, NOW, NOW + 60.25, LATEST])
async def test_a_token_is_taken_until_its_end_and_the_leeway(exp: float) -> None:
    caller = await verifier().caller(token(claims(exp=exp)))
    assert caller.expires_at == exp + LEEWAY


async def test_without_leeway_a_token_ends_when_it_says() -> None:
    strict = verifier(leeway=0)
    assert await refused(strict, token(claims(exp=NOW))) == "expired"
    assert (await strict.caller(token(claims(exp=NOW + 1)))).expires_at == NOW + 1


@pytest.mark.parametrize("name", ["nbf", "iat"])
async def test_a_token_of_the_future_is_refused_but_for_the_leeway(name: str) -> None:
    assert await refused(verifier(), token(claims(**{name: NOW + LEEWAY + 1}))) == name
    for value in (NOW + LEEWAY, NOW, 0, NOW - 0.5):
        assert (await verifier().caller(token(claims(**{name: value})))).name == "alice"


@pytest.mark.parametrize("audience", ["us", ["us"], ["other", "us"]])
async def test_an_audience_may_be_one_or_several_and_has_to_name_us(audience: Any) -> None:
    caller = await verifier(audience="us").caller(token(claims(aud=audience)))
    assert caller.name == "alice"


@pytest.mark.parametrize("audience", ["other", ["other"], [], "", "us ", "US", "u", None])
async def test_another_audience_or_none_is_refused(audience: Any) -> None:
    assert await refused(verifier(audience="us"), token(claims(aud=audience))) == "aud"


@pytest.mark.parametrize("audience", [1, True, {"us": 1}, ["us", 1], [["us"]], ["us", None]])
async def test_an_audience_of_the_wrong_type_is_refused_even_where_none_is_asked_for(
    audience: Any,
) -> None:
    for tokens in (verifier(), verifier(audience="us")):
        assert await refused(tokens, forged(HS256, {**claims(), "aud": audience})) == "aud"


async def test_an_audience_is_not_compared_where_none_is_configured() -> None:
    assert (await verifier().caller(token(claims(aud="whoever")))).name == "alice"


@pytest.mark.parametrize("issuer", ["https://other.example", "https://id.example/", "", None])
async def test_another_issuer_or_none_is_refused(issuer: Any) -> None:
    tokens = verifier(issuer="https://id.example")
    assert (await tokens.caller(token(claims(iss="https://id.example")))).name == "alice"
    assert await refused(tokens, token(claims(iss=issuer))) == "iss"


@pytest.mark.parametrize("issuer", [1, True, ["https://id.example"], {}])
async def test_an_issuer_of_the_wrong_type_is_refused(issuer: Any) -> None:
    for tokens in (verifier(), verifier(issuer="https://id.example")):
        assert await refused(tokens, forged(HS256, {**claims(), "iss": issuer})) == "iss"


@pytest.mark.parametrize("name", ["tenant_id", "sub"])
@pytest.mark.parametrize(
    "value", ["", "*", "a:b", "{a}", "a b", "../a", "ä", "x" * 129, "a\n", 7, True, None, ["acme"]]
)
async def test_a_tenant_or_user_that_is_no_id_is_refused(name: str, value: Any) -> None:
    assert await refused(verifier(), forged(HS256, {**claims(), name: value})) == name


async def test_a_token_may_be_for_one_session_for_some_or_for_none() -> None:
    tokens, one, two = verifier(), SessionId("s-1"), SessionId("s-2")
    assert (await tokens.caller(token(claims()))).sessions is None
    assert (await tokens.caller(token(claims(session_id=one)))).sessions == frozenset({one})
    both = await tokens.caller(token(claims(sessions=[one, two, one])))
    assert both.sessions == frozenset({one, two})
    assert (await tokens.caller(token(claims(sessions=[])))).sessions == frozenset()


@pytest.mark.parametrize(
    "named",
    [
        {"session_id": None},
        {"session_id": ""},
        {"session_id": 1},
        {"session_id": ["s-1"]},
        {"session_id": "*"},
        {"sessions": None},
        {"sessions": "s-1"},
        {"sessions": {"s-1": 1}},
        {"sessions": ["s-1", 1]},
        {"sessions": ["s-1", None]},
        {"sessions": ["a:b"]},
        {"sessions": ["s-1"], "session_id": "s-1"},
    ],
)
async def test_sessions_that_are_no_ids_never_widen_what_a_token_is_for(
    named: dict[str, Any],
) -> None:
    reason = await refused(verifier(), forged(HS256, {**claims(), **named}))
    assert reason in ("session_id", "sessions")


@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        ("chat", {Scope.CHAT}),
        ("chat push admin", set(Scope)),
        (["push", "admin"], {Scope.PUSH, Scope.ADMIN}),
        ("openid  chat profile chat", {Scope.CHAT}),
        ("chats Chat chat:read", set()),
        (["chat push"], set()),  # a list has one word each
        ("", set()),
        ([], set()),
        (None, set()),
    ],
)
async def test_scopes_are_words_or_a_list_and_unknown_ones_are_passed_over(
    scope: Any, expected: set[Scope]
) -> None:
    assert (await verifier().caller(token(claims(scope=scope)))).scopes == expected


@pytest.mark.parametrize("scope", [1, True, {"chat": True}, ["chat", 1], [["chat"]], None])
async def test_scopes_of_the_wrong_type_are_refused(scope: Any) -> None:
    assert await refused(verifier(), forged(HS256, {**claims(), "scope": scope})) == "scope"


async def test_claims_that_are_not_ours_change_nothing() -> None:
    given = token(claims(jti=7, roles=["admin"], admin=True, name="x", azp={"a": 1}))
    assert (await verifier().caller(given)).scopes == {Scope.CHAT}
