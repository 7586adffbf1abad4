"""What makes a token genuine: its form, its signature, the one algorithm of its key (row S1)."""

from typing import Any

import pytest

from common.domain.ids import SessionId, TenantId, UserId
from orchestrator.auth.caller import Caller, Scope
from orchestrator.auth.tokens import LONGEST
from tests.orchestrator.auth.verifiers import (
    HS256,
    LEEWAY,
    refused,
    rsa_verifier,
    set_verifier,
    verifier,
)
from tests.support.issuer import (
    EC,
    HMAC_KEY,
    NOW,
    OTHER_RSA,
    PRIVATE_KEYS,
    RSA,
    base64url,
    claims,
    forged,
    hmac_with_anything,
    jwk,
    part,
    public_pem,
    token,
)


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
