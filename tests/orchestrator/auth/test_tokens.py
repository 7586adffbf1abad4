"""Tokens: what makes one genuine, and what its claims may be (rows S1 and S3 of the checklist)."""

from typing import Any

import pytest

from common.domain.errors import Unauthorized
from common.domain.ids import SessionId, TenantId, UserId
from config.sections import JwtSettings
from orchestrator.auth.caller import Caller, Scope
from orchestrator.auth.credentials import BadCredentials
from orchestrator.auth.key_sets import read_key_set
from orchestrator.auth.keys import VerifyingKey, static_key
from orchestrator.auth.tokens import LATEST, LONGEST, StaticKey, TokenVerifier
from tests.support.issuer import (
    EC,
    HMAC_KEY,
    NOW,
    OTHER_RSA,
    PRIVATE_KEYS,
    RSA,
    Clock,
    base64url,
    claims,
    forged,
    hmac_settings,
    hmac_with_anything,
    jwk,
    key_set,
    part,
    public_pem,
    token,
)

HS256 = {"alg": "HS256", "typ": "JWT"}
LEEWAY = 30


class SetOfKeys:
    """A key set that is there already."""

    def __init__(self, *entries: dict[str, Any], algorithms: tuple[str, ...]) -> None:
        self._keys = read_key_set(key_set(*entries), algorithms)

    async def find(self, kid: str | None) -> VerifyingKey | None:
        return self._keys.find(kid)

    async def close(self) -> None:
        """Nothing runs."""


def verifier(**changes: Any) -> TokenVerifier:
    settings = hmac_settings(**changes)
    return TokenVerifier(settings, StaticKey(static_key(settings)), Clock())


def rsa_verifier() -> TokenVerifier:
    return verifier(algorithms=("RS256",), key=public_pem(RSA).decode())


def set_verifier(*entries: dict[str, Any], algorithms: tuple[str, ...]) -> TokenVerifier:
    keys = SetOfKeys(*entries, algorithms=algorithms)
    return TokenVerifier(JwtSettings(algorithms=algorithms), keys, Clock())


async def refused(tokens: TokenVerifier, given: str) -> str:
    """Why it is: the word for our log. What callers are told helps nobody to guess."""
    with pytest.raises(BadCredentials) as caught:
        await tokens.caller(given)
    assert isinstance(caught.value, Unauthorized)
    assert (caught.value.code, caught.value.http_status) == ("unauthorized", 401)
    assert caught.value.detail in (
        "A valid token or key is needed.",
        "The token has expired.",
        "The token is not valid yet.",
    )
    return caught.value.reason


# --- S1: the signature, and the one algorithm of a key ---------------------------------------


async def test_a_genuine_token_tells_who_calls() -> None:
    given = token(claims(scope="chat push", sessions=["s-1", "s-2"]))
    assert await verifier().caller(given) == Caller(
        name="alice",
        tenant_id=TenantId("acme"),
        user_id=UserId("alice"),
        sessions=frozenset({SessionId("s-1"), SessionId("s-2")}),
        scopes=frozenset({Scope.CHAT, Scope.PUSH}),
        expires_at=NOW + 60 + LEEWAY,
    )


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
async def test_a_static_secret_verifies_the_hmacs_that_are_configured(algorithm: str) -> None:
    tokens = verifier(algorithms=(algorithm,))
    assert (await tokens.caller(token(claims(), algorithm=algorithm))).name == "alice"
    for other in {"HS256", "HS384", "HS512"} - {algorithm}:
        assert await refused(tokens, token(claims(), algorithm=other)) == "algorithm"


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
async def test_a_static_public_key_verifies_its_one_algorithm(algorithm: str) -> None:
    private = PRIVATE_KEYS[algorithm]
    tokens = verifier(algorithms=(algorithm,), key=public_pem(private).decode())
    assert (await tokens.caller(token(claims(), private, algorithm))).name == "alice"


@pytest.mark.parametrize("name", ["none", "None", "nOnE", "NONE", "", None, 0, ["HS256"], {}])
@pytest.mark.parametrize("signature", ["", "AA", "signed"])
async def test_alg_none_is_refused_however_it_is_spelled(name: Any, signature: str) -> None:
    header = {"alg": name, "typ": "JWT"}
    given = forged(header, claims())
    if signature != "signed":
        given = f"{given.rpartition('.')[0]}.{signature}"
    for tokens in (verifier(), rsa_verifier()):
        assert await refused(tokens, given) == "algorithm"


async def test_a_header_without_alg_is_refused() -> None:
    assert await refused(verifier(), forged({"typ": "JWT"}, claims())) == "algorithm"


@pytest.mark.parametrize("stripped", [False, True])
async def test_an_hmac_made_with_the_public_rsa_key_is_refused(stripped: bool) -> None:
    pem = public_pem(RSA).strip() if stripped else public_pem(RSA)
    given = hmac_with_anything(HS256, claims(), pem)
    assert await refused(rsa_verifier(), given) == "algorithm"
    posing = hmac_with_anything({"alg": "RS256"}, claims(), pem)
    assert await refused(rsa_verifier(), posing) == "signature"


async def test_an_es256_token_is_not_taken_for_an_rs256_one() -> None:
    assert await refused(rsa_verifier(), token(claims(), EC, "ES256")) == "algorithm"
    posing = forged({"alg": "RS256"}, claims(), EC, "ES256")
    assert await refused(rsa_verifier(), posing) == "signature"


async def test_a_key_of_a_set_verifies_only_the_algorithm_that_it_is_for() -> None:
    """The header's `alg` is one that the settings list, but not the one of the key it names."""
    tokens = set_verifier(
        jwk(RSA, kid="rsa"), jwk(EC, kid="ec"), algorithms=("RS256", "ES256", "EdDSA")
    )
    good = token(claims(), RSA, "RS256", {"kid": "rsa"})
    assert (await tokens.caller(good)).name == "alice"
    for kid, private, signed_by, says in (
        ("rsa", EC, "ES256", "ES256"),
        ("ec", RSA, "RS256", "RS256"),
        ("rsa", RSA, "RS256", "ES256"),
        ("rsa", RSA, "RS256", "EdDSA"),
    ):
        given = forged({"alg": says, "kid": kid}, claims(), private, signed_by)
        assert await refused(tokens, given) == "algorithm"


async def test_a_token_of_another_key_is_refused() -> None:
    assert await refused(rsa_verifier(), token(claims(), OTHER_RSA, "RS256")) == "signature"
    assert await refused(verifier(), token(claims(), HMAC_KEY[::-1])) == "signature"


async def test_a_changed_payload_or_signature_is_refused() -> None:
    header, _, signature = token(claims()).split(".")
    richer = f"{header}.{part(claims(scope='admin'))}.{signature}"
    assert await refused(verifier(), richer) == "signature"
    for changed in ("", signature[:-4], signature + "AAAA", base64url(b"x" * 32)):
        given = f"{header}.{part(claims())}.{changed}"
        assert await refused(verifier(), given) == "signature"


@pytest.mark.parametrize(
    "extension",
    [{"crit": ["x"], "x": 1}, {"crit": ["b64"], "b64": False}, {"crit": []}, {"crit": None}],
)
async def test_a_header_with_crit_is_refused(extension: dict[str, Any]) -> None:
    assert await refused(verifier(), forged({**HS256, **extension}, claims())) == "header"


async def test_a_detached_payload_is_refused() -> None:
    assert await refused(verifier(), forged({**HS256, "b64": False}, claims())) == "signature"


async def test_a_key_that_a_token_brings_along_is_never_used() -> None:
    """Embedded `jwk`, and addresses of keys: neither makes a foreign signature good, nor harms a
    good one, nor is anything fetched."""
    brought = {
        "jwk": jwk(OTHER_RSA),
        "jku": "http://169.254.169.254/keys",
        "x5u": "https://evil.example/cert",
        "x5c": ["MIIB"],
        "x5t": "abc",
    }
    foreign = token(claims(), OTHER_RSA, "RS256", brought)
    assert await refused(rsa_verifier(), foreign) == "signature"
    assert (await rsa_verifier().caller(token(claims(), RSA, "RS256", brought))).name == "alice"


@pytest.mark.parametrize("kid", [["one"], {"a": 1}, 7, True, "k" * 257])
async def test_a_kid_that_is_no_short_text_is_refused(kid: Any) -> None:
    assert await refused(verifier(), forged({**HS256, "kid": kid}, claims())) == "header"


@pytest.mark.parametrize("kid", ["../../dev/null", "' or 1=1 --", "|id", "one\0", "", "One"])
async def test_a_kid_is_nothing_but_a_name_in_the_set(kid: str) -> None:
    tokens = set_verifier(jwk(RSA), algorithms=("RS256",))
    given = forged({"alg": "RS256", "kid": kid}, claims(), RSA, "RS256")
    assert await refused(tokens, given) == "unknown_kid"
    secret_of_nothing = hmac_with_anything({"alg": "HS256", "kid": kid}, claims(), b"")
    assert await refused(tokens, secret_of_nothing) == "algorithm"


async def test_a_token_without_kid_needs_a_set_with_one_key_only() -> None:
    one = set_verifier(jwk(RSA), algorithms=("RS256",))
    assert (await one.caller(token(claims(), RSA, "RS256"))).name == "alice"
    two = set_verifier(jwk(RSA), jwk(OTHER_RSA, kid="two"), algorithms=("RS256",))
    assert await refused(two, token(claims(), RSA, "RS256")) == "unknown_kid"


async def test_a_kid_changes_nothing_where_the_key_is_static() -> None:
    given = token(claims(), headers={"kid": "../../dev/null"})
    assert (await verifier().caller(given)).name == "alice"


@pytest.mark.parametrize(
    "given",
    [
        "",
        ".",
        "..",
        "a.b",
        "a.b.c",
        "a.b.c.d",
        "....",
        "\0.\0.\0",
        "é.é.é",
        "\ud800.b.c",
        f"{part(HS256)}..",
        f"{part([])}.{part({})}.AA",
        f"{part(b'{')}.{part({})}.AA",
        f"{part(b'[' * 5000)}.{part({})}.AA",
        f"{part(b'NaN')}.{part({})}.AA",
        f"{part(HS256)}.a b.AA",
    ],
)
async def test_what_is_no_token_is_refused(given: str) -> None:
    assert await refused(verifier(), given) in ("malformed", "signature")


@pytest.mark.parametrize("length", [LONGEST + 1, 2**20])
async def test_a_token_beyond_the_limit_is_refused_before_it_is_read(length: int) -> None:
    given = token(claims(padding="x" * length))
    assert await refused(verifier(), given) == "malformed"


async def test_a_token_just_below_the_limit_is_taken() -> None:
    given = token(claims(padding="x" * 6000))
    assert LONGEST - 200 < len(given) <= LONGEST
    assert (await verifier().caller(given)).name == "alice"


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"[]",
        b'"text"',
        b"null",
        b"1",
        b"{",
        b'{"exp": NaN}',
        b'{"exp": Infinity}',
        b'{"exp": 1e400}',
        b"\xff",
        b'{"sub": "\\ud800"}',
        b"[" * 4000,
        b'{"a":' * 1000,
    ],
)
async def test_a_payload_that_is_no_sound_json_object_is_refused(payload: bytes) -> None:
    assert await refused(verifier(), forged(HS256, payload)) == "malformed"


# --- S3: claims ------------------------------------------------------------------------------


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
