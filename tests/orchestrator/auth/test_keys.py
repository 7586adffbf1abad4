"""Static keys: what may be one, and for which algorithms (row S5 of the checklist)."""

from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    PublicFormat,
)

from config.auth_sections import JwtSettings
from config.settings import ConfigurationError
from orchestrator.auth.keys import (
    LARGEST_FILE,
    PrivateKey,
    SigningKey,
    VerifyingKey,
    algorithm_of,
    signing_key,
    static_key,
)
from tests.support.certificates import Authority
from tests.support.issuer import (
    EC,
    ED,
    HMAC_KEY,
    PRIVATE_KEYS,
    RSA,
    SMALL_RSA,
    hmac_settings,
    in_file,
    private_pem,
    public_pem,
)


def from_file(folder: Path, content: bytes, algorithm: str) -> JwtSettings:
    return JwtSettings(algorithms=(algorithm,), key_file=in_file(folder, content))


def complaint(settings: JwtSettings) -> str:
    with pytest.raises(ConfigurationError) as caught:
        static_key(settings)
    (line,) = caught.value.mistakes
    return line


def test_a_secret_may_stand_in_the_settings_or_in_a_file(tmp_path: Path) -> None:
    assert static_key(hmac_settings()) == VerifyingKey(("HS256",), HMAC_KEY.encode())
    for ending in (b"", b"\n", b"\r\n"):
        content = HMAC_KEY.encode() + ending
        assert static_key(from_file(tmp_path, content, "HS512")).key == HMAC_KEY.encode()


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
def test_a_public_key_or_the_public_half_of_a_private_one_verifies(
    tmp_path: Path, algorithm: str
) -> None:
    private = PRIVATE_KEYS[algorithm]
    for content in (public_pem(private), private_pem(private)):
        key = static_key(from_file(tmp_path, content, algorithm))
        assert key.algorithms == (algorithm,)
        assert not isinstance(key.key, bytes)
        assert public_pem(key.key) == public_pem(private)


def test_the_key_of_a_certificate_verifies(tmp_path: Path) -> None:
    certificate = Authority(tmp_path).certificate("signer").certificate.read_bytes()
    assert static_key(from_file(tmp_path, certificate, "ES256")).algorithms == ("ES256",)


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [
        (RSA, "ES256"),
        (RSA, "EdDSA"),
        (EC, "RS256"),
        (ED, "ES256"),
        (ec.generate_private_key(ec.SECP384R1()), "ES256"),
        (ec.generate_private_key(ec.SECP256K1()), "ES256"),
        (SMALL_RSA, "RS256"),
    ],
)
def test_a_key_that_does_not_fit_the_algorithm_is_refused(
    tmp_path: Path, key: PrivateKey, algorithm: str
) -> None:
    for content in (public_pem(key), private_pem(key)):
        line = complaint(from_file(tmp_path, content, algorithm))
        assert line == f"auth.jwt.key_file: does not fit {algorithm}"


def test_a_key_of_an_unknown_kind_is_refused(tmp_path: Path) -> None:
    key = ed448.Ed448PrivateKey.generate().public_key()
    content = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    assert complaint(from_file(tmp_path, content, "EdDSA")).endswith(
        "must be an RSA, P-256 or Ed25519 key"
    )


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"canary",
        b"-----BEGIN PUBLIC KEY-----\ncanary\n-----END PUBLIC KEY-----\n",
        b"-----BEGIN PRIVATE KEY-----\ncanary\n-----END PRIVATE KEY-----\n",
        b"-----BEGIN CERTIFICATE-----\ncanary\n-----END CERTIFICATE-----\n",
        public_pem(RSA)[:200],
        RSA.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"canary")),
        b"\xff" * 100,
    ],
)
def test_a_file_that_is_no_key_is_one_line_that_repeats_nothing_of_it(
    tmp_path: Path, content: bytes
) -> None:
    line = complaint(from_file(tmp_path, content, "RS256"))
    assert line.startswith("auth.jwt.key_file: must be a PEM with a public key, a certificate")
    assert "canary" not in line


def test_a_key_in_the_settings_that_is_none_is_not_repeated() -> None:
    line = complaint(JwtSettings(algorithms=("RS256",), key="canary"))
    assert line.startswith("auth.jwt.key: must be a PEM")
    assert "canary" not in line


def test_a_file_that_is_not_there_or_too_large_says_so(tmp_path: Path) -> None:
    missing = JwtSettings(algorithms=("RS256",), key_file=str(tmp_path / "none"))
    assert complaint(missing) == "auth.jwt.key_file: cannot be read: No such file or directory"
    folder = JwtSettings(algorithms=("RS256",), key_file=str(tmp_path))
    assert complaint(folder) == "auth.jwt.key_file: cannot be read: Is a directory"
    large = from_file(tmp_path, b"x" * (LARGEST_FILE + 1), "HS256")
    assert complaint(large) == f"auth.jwt.key_file: has more than {LARGEST_FILE} bytes"


@pytest.mark.parametrize("content", [b"", b"short", b"changeme" * 8, b"x" * 31])
def test_a_secret_that_is_short_or_well_known_is_refused_in_a_file_too(
    tmp_path: Path, content: bytes
) -> None:
    line = complaint(from_file(tmp_path, content, "HS256"))
    assert "must have at least 32 bytes" in line or "is out of a manual" in line


def test_a_public_key_never_serves_as_a_secret(tmp_path: Path) -> None:
    line = complaint(from_file(tmp_path, public_pem(RSA), "HS256"))
    assert line == "auth.jwt.key_file: is a PEM file, not a secret for HS256"
    assert "not a secret" in complaint(hmac_settings(key=public_pem(EC).decode()))


def test_what_signs_is_the_secret_or_the_private_key(tmp_path: Path) -> None:
    assert signing_key(hmac_settings()) == SigningKey("HS256", HMAC_KEY.encode())
    for algorithm, private in PRIVATE_KEYS.items():
        signing = signing_key(from_file(tmp_path, private_pem(private), algorithm))
        assert signing is not None
        assert signing.algorithm == algorithm
        assert signing_key(from_file(tmp_path, public_pem(private), algorithm)) is None


def test_only_keys_of_the_algorithms_of_the_contract_have_one() -> None:
    assert [algorithm_of(key.public_key()) for key in (RSA, EC, ED)] == ["RS256", "ES256", "EdDSA"]
    others: list[Any] = [None, b"secret", RSA, ec.generate_private_key(ec.SECP521R1()).public_key()]
    assert [algorithm_of(key) for key in others] == [None] * 4


def test_keys_are_never_shown() -> None:
    signing = signing_key(hmac_settings())
    assert HMAC_KEY not in f"{static_key(hmac_settings())!r} {signing!r} {hmac_settings()!r}"
