"""Key sets: which entries are taken for keys (row S4 of the checklist)."""

import json
import time
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from orchestrator.auth.key_sets import LARGEST_SET, MOST_KEYS, UnusableKeySet, read_key_set
from tests.support.issuer import (
    EC,
    ED,
    HMAC_KEY,
    OTHER_RSA,
    RSA,
    SMALL_RSA,
    base64url,
    jwk,
    key_set,
    private_pem,
)

ALL = ("RS256", "ES256", "EdDSA")


def names(*entries: Any, algorithms: tuple[str, ...] = ALL) -> set[str]:
    """The names of the keys that are taken, beside one that always is."""
    taken = read_key_set(key_set(*entries, jwk(ED, kid="always")), (*algorithms, "EdDSA"))
    return set(taken.named) - {"always"}


def test_each_key_is_fixed_to_the_algorithm_of_its_kind() -> None:
    keys = read_key_set(key_set(jwk(RSA, kid="r"), jwk(EC, kid="e"), jwk(ED, kid="d")), ALL)
    assert {kid: key.algorithms for kid, key in keys.named.items()} == {
        "r": ("RS256",),
        "e": ("ES256",),
        "d": ("EdDSA",),
    }
    assert keys.find("r") is keys.named["r"]
    assert keys.find("x") is keys.find(None) is None


def test_alg_use_and_operations_may_be_left_out_or_have_to_fit() -> None:
    assert names(jwk(RSA, alg=None, use=None)) == {"one"}
    assert names(jwk(RSA, key_ops=["verify"])) == {"one"}
    assert names(jwk(RSA, x5u="http://169.254.169.254/", x5c=["junk"], more=1)) == {"one"}


@pytest.mark.parametrize(
    "entry",
    [
        jwk(RSA, alg="ES256"),
        jwk(RSA, alg="RS512"),
        jwk(RSA, alg="PS256"),
        jwk(RSA, alg="HS256"),
        jwk(RSA, alg="none"),
        jwk(RSA, alg=["RS256"]),
        jwk(RSA, kty="EC"),
        jwk(EC, kty="RSA"),
        jwk(RSA, kty=["RSA"]),
        jwk(RSA, kty=None),
        jwk(RSA, kty="oct"),
        jwk(RSA, use="enc"),
        jwk(RSA, use=["sig"]),
        jwk(RSA, key_ops=["sign"]),
        jwk(RSA, key_ops="verify"),
        jwk(RSA, kid=["one"]),
        jwk(RSA, kid=7),
        jwk(RSA, kid="k" * 257),
        jwk(RSA, n=None),
        jwk(RSA, n=7),
        jwk(RSA, n=""),
        jwk(RSA, n="!!!"),
        jwk(RSA, e="AA"),
        jwk(RSA, e="AQ"),
        jwk(RSA, e=None),
        jwk(EC, crv="P-384"),
        jwk(EC, crv="secp256k1"),
        jwk(EC, crv=None),
        jwk(EC, x=base64url(b"\1" * 32)),  # no point of the curve
        jwk(EC, x=base64url(b"\1" * 31)),
        jwk(ED, crv="Ed448"),
        jwk(ED, x=base64url(b"\1" * 31)),
        jwk(ED, x=None),
        {},
        "text",
        None,
        7,
        [],
    ],
)
def test_an_entry_that_does_not_fit_or_is_no_key_is_passed_over(entry: Any) -> None:
    assert names(entry) == set()
    assert names(entry, jwk(OTHER_RSA, kid="good")) == {"good"}


def test_a_key_of_a_size_or_curve_that_is_not_ours_is_passed_over() -> None:
    small = SMALL_RSA.public_key()
    other = ec.generate_private_key(ec.SECP384R1()).public_key()
    assert names({**RSAAlgorithm.to_jwk(small, as_dict=True), "kid": "s"}) == set()
    assert names({**ECAlgorithm.to_jwk(other, as_dict=True), "kid": "o"}) == set()


def test_a_key_for_an_algorithm_that_is_not_configured_is_passed_over() -> None:
    assert names(jwk(RSA, kid="r"), jwk(EC, kid="e"), algorithms=("ES256",)) == {"e"}


def test_symmetric_keys_are_refused_whatever_they_say() -> None:
    secret = {"kty": "oct", "k": base64url(HMAC_KEY.encode()), "kid": "one"}
    for alg in ("HS256", "RS256", None):
        entry = {**secret, **({"alg": alg} if alg else {})}
        assert names(entry) == set()
        with pytest.raises(UnusableKeySet):
            read_key_set(key_set(entry), ("HS256", "RS256"))


def test_a_private_key_in_a_set_is_refused() -> None:
    entry = {**RSAAlgorithm.to_jwk(RSA, as_dict=True), "kid": "one"}
    entry.pop("key_ops")
    assert "d" in entry
    assert names(entry) == set()
    assert b"PRIVATE" in private_pem(RSA)  # which is where one would be looked for


def test_of_keys_with_the_same_name_none_is_taken() -> None:
    assert names(jwk(RSA), jwk(OTHER_RSA), jwk(EC, kid="e")) == {"e"}
    assert names(jwk(RSA), jwk(RSA)) == set()
    assert names(jwk(RSA), jwk(EC)) == set()
    assert names(jwk(RSA), jwk(OTHER_RSA, use="enc")) == {"one"}  # that one is no choice


def test_the_only_key_serves_tokens_without_kid_and_may_have_no_name_itself() -> None:
    for kid in ("one", None):
        only = read_key_set(key_set(jwk(RSA, kid=kid)), ALL)
        assert only.find(None) is not None
    two = read_key_set(key_set(jwk(RSA, kid=None), jwk(EC)), ALL)
    assert two.find(None) is None
    assert set(two.named) == {"one"}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not JSON"),
        (b"<html>", "not JSON"),
        (b'{"keys": [', "not JSON"),
        (b'{"keys": [NaN]}', "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[]", "no list of keys"),
        (b"null", "no list of keys"),
        (b"{}", "no list of keys"),
        (b'{"keys": {}}', "no list of keys"),
        (b'{"keys": []}', "no key that fits the algorithms"),
        (key_set(jwk(RSA, use="enc")), "no key that fits the algorithms"),
        (key_set(*[{}] * (MOST_KEYS + 1)), "too many keys"),
        (b" " * (LARGEST_SET + 1), "too large"),
    ],
)
def test_what_is_no_key_set_is_refused_as_a_whole(content: bytes, reason: str) -> None:
    with pytest.raises(UnusableKeySet, match=reason):
        read_key_set(content, ALL)


def test_the_largest_set_is_read_without_holding_up_the_loop() -> None:
    """Also one that is made to be slow: numbers as large as the file may be."""
    entries = [jwk(RSA, kid=f"k-{number}") for number in range(MOST_KEYS)]
    huge = json.dumps({"keys": [jwk(RSA, n="A" + "-" * 250_000, kid="h"), jwk(EC)]}).encode()
    assert len(huge) <= LARGEST_SET
    for content, expected in ((key_set(*entries), MOST_KEYS), (huge, 1)):
        begun = time.thread_time()
        assert len(read_key_set(content, ALL).named) == expected
        assert time.thread_time() - begun < 0.25  # a few milliseconds on a machine at rest
